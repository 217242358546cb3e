"""Faults of users and machines other than misspelling give one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from nasface import terminal
from nasface.cli.group import Commands
from nasface.errors import RecipeError
from nasface.recipe import load
from tests.refusal import command_refuses, names, refused


def failing(err: BaseException) -> click.Group:
    """A command line whose one command raises."""

    @click.group(cls=Commands)
    def cli() -> None:
        pass

    @cli.command()
    def fail() -> None:
        raise err

    return cli


class TorchOutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, without its words."""


@pytest.mark.parametrize(
    ("err", "facts"),
    [
        (PermissionError(13, "Permission denied", "/x/faces"), ["/x/faces", "Permission denied"]),
        (OSError(28, "No space left on device"), ["No space left on device"]),
        (OSError("odd"), ["odd"]),
        (MemoryError(), ["out of memory", "training.batch"]),
        (RecursionError("maximum recursion depth exceeded"), ["nested"]),
        (RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB"), ["CUDA out of memory. Tried", "training.batch"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ["can't allocate memory", "--device"]),
        (TorchOutOfMemoryError("full"), ["out of memory", "full", "training.batch"]),
    ],
)
def test_what_the_machine_refuses(monkeypatch: pytest.MonkeyPatch, err: Exception, facts: list[str]):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(OutOfMemoryError=TorchOutOfMemoryError))
    names(command_refuses("fail", cli=failing(err)), *facts)


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a fault"):
        CliRunner().invoke(failing(RuntimeError("a fault")), ["fail"], catch_exceptions=False)
    assert CliRunner().invoke(failing(BrokenPipeError(32, "Broken pipe")), ["fail"]).exit_code == 1
    assert CliRunner().invoke(failing(click.exceptions.Exit(5)), ["fail"]).exit_code == 5


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--landmarks", 10001], ["--landmarks", "10000"]),
        (["--input-size", 4097], ["--input-size", "4096"]),
    ],
)
def test_counts_have_limits(args: list[object], facts: list[str]):
    names(command_refuses("count", "--space", "hrsupernet", *args), *facts)


@pytest.mark.parametrize("value", ["2020-99-99", "0x_", "!!int ''", "!!timestamp x", "!!bool x", "[" * 1000])
def test_values_that_yaml_itself_stumbles_over(tmp_path: Path, value: str):
    with refused(RecipeError, "seed", "YAML"):
        load("demo", [f"seed={value}"])
    path = tmp_path / "a.yaml"
    path.write_text(f"seed: {value}\n")
    with refused(RecipeError, path, "YAML"):
        load(str(path))


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        (f"seed={2**63}", 2**63),
        (f"seed={10**30}", 2**63),
        ("training.threads=1025", 1024),
        ("training.batch=65537", 65536),
        ("search.epochs=100001", 100_000),
        ("finetune.epochs=100001", 100_000),
        ("task.sigma=.inf", 1000),
        ("task.weight=.inf", 10**9),
    ],
)
def test_numbers_too_large_are_refused(change: str, limit: int):
    with refused(RecipeError, change.partition("=")[0], limit):
        load("demo", [change])
    assert load("demo", [f"seed={2**63 - 1}"]).seed == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "options", "facts"),
    [
        ("space: hrnet", ["--space", "hrsupernet"], ["space", "'hrnet'", "mapping"]),
        ("space: {name: hrnet, options: [1]}", ["--space", "hrsupernet"], ["space.options", "[1]", "mapping"]),
        ("data: wflw", ["--data-root", "."], ["data", "'wflw'", "mapping"]),
        ("seed: 2020-99-99", [], ["a.yaml", "YAML"]),
    ],
)
def test_sections_that_are_no_mappings(tmp_path: Path, text: str, options: list[str], facts: list[str]):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    names(command_refuses("search", "--recipe", path, "--out", tmp_path / "run", *options), *facts)


COMPARISON = """
extends: demo
experiment: {comparison: {budgets: [8.0e+6], reference: a, rows: {a: {finetune: {epochs: 1}}}}}
"""
NO_PLUGINS = [
    ("prune: 5", ["prune", "5", "mapping"]),
    ("prune: {name: [1]}", ["prune.name", "[1]", "nasface plugins"]),
    ("prune: {options: 5}", ["prune.options", "5", "mapping"]),
    ("prune: {options: [1]}", ["prune.options", "[1]", "mapping"]),
]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        *NO_PLUGINS,
        ("search: 5", ["search", "5", "mapping"]),
        ("search: {options: 3}", ["search.options", "3", "mapping"]),
        ("search: {name: [hot]}", ["search.name", "['hot']", "nasface plugins"]),
        ("search: {name: null}", ["search.name", "None", "nasface plugins"]),
    ],
)
def test_a_comparison_whose_sections_name_no_plugin(tmp_path: Path, text: str, facts: list[str]):
    path = tmp_path / "x.yaml"
    path.write_text(COMPARISON + text)
    names(command_refuses("experiment", path, "--dry-run", "--out", tmp_path / "out"), *facts)


@pytest.mark.parametrize(("text", "facts"), NO_PLUGINS)
def test_a_run_whose_recipe_names_no_pruner_is_not_pruned(tmp_path: Path, text: str, facts: list[str]):
    (tmp_path / "recipe.yaml").write_text(text)
    names(command_refuses("prune", tmp_path, "--share", 0.5, "--out", tmp_path / "out"), *facts)


def test_an_empty_section_takes_another_space(tmp_path: Path):
    from nasface.recipe import assemble

    path = tmp_path / "a.yaml"
    path.write_text("space:\n")
    assert assemble(str(path), "hrnet", None, None).space.name == "hrnet"


def test_paths_and_names_are_shown_as_they_stand(capsys: pytest.CaptureFixture[str]):
    odd = "[/x] [bold]y[/bold] :smile: \\"
    terminal.show(terminal.table(f"title {odd}", ["", f"head {odd}"], [["row", f"cell {odd}"]], f"caption {odd}"))
    shown = capsys.readouterr().out
    assert all(f"{part} {odd}" in shown for part in ("title", "head", "cell", "caption")), shown


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_notes_are_shown_as_they_stand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
):
    monkeypatch.setenv("COLUMNS", "200")
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(terminal, "epoch_note", lambda _rows: "note [/z] [bold]n")
    with terminal.progress_bars() as hooks:
        hooks.begin("t [/x]", 2, 0)
        hooks.advance()
        hooks.epoch([{"stage": "s [/y]", "epoch": 1, "loss": 1.0, "seconds": 1.0}])
    shown = capsys.readouterr().err
    assert "note [/z] [bold]n" in shown
    assert ("t [/x]" if is_terminal else "s [/y]") in shown
