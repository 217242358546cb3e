"""Every fenced snippet of README and docs is executed, or at least parsed; no kind of fence escapes."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from nasface import recipe as recipes
from nasface.cli import main
from nasface.stages.experiment.plan import read_experiment
from tests.docs import PAGES, ROOT, Snippet, commands, parse, snippets
from tests.searched import SETTINGS, searched_run

pytestmark = pytest.mark.slow

SHELL, TEXT = ("sh", "console"), ("text",)
OTHER_PROGRAMS = {"pip", "python", "git", ".", "cd"}
TINY: dict[str, Sequence[str]] = {
    "search": SETTINGS,
    "train": [text for text in SETTINGS if not text.startswith("space.options.")],
    "distill": ["distill.epochs=1"],
}
"""What is set on the commands of tutorials, so that they take seconds."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages find in the working folder: the files that they name, and one run under the two names they use.

    A tutorial's `nasface search --out runs/demo` finds it finished, and searches no second time.
    """
    folder = tmp_path_factory.mktemp("docs")
    searched_run(folder)
    shutil.copytree(folder / "run", folder / "runs" / "mini")
    shutil.copytree(folder / "run", folder / "runs" / "demo")
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, folder / "hrnetv2_w18.pth")
    return folder


@pytest.fixture
def here(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of one page; the plug-in of tests/packages can be imported, as if it were installed."""
    work = tmp_path / "work"
    shutil.copytree(template, work)
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "packages" / "tinyspace"))
    return work


def found(page: Path, *languages: str) -> list[Snippet]:
    return [snippet for snippet in snippets(page.read_text()) if snippet.language in languages]


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if found(page, *languages)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_fence_is_of_a_kind_that_is_checked(page: Path):
    for snippet in snippets(page.read_text()):
        known = (*SHELL, *TEXT, "python", "yaml", "toml")
        assert snippet.language in known or snippet.language.startswith("{"), (
            f"{page_id(page)}:{snippet.line}: a fence of kind '{snippet.language}'; "
            f"expected one of {', '.join(known)} ('text' for what is not executed)"
        )


@pytest.mark.parametrize("page", pages_with("python"), ids=page_id)
def test_python(page: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {"__name__": "snippet"}
    for snippet in found(page, "python"):
        code = "\n" * snippet.line + snippet.text  # a traceback then names the line of the page
        exec(compile(code, page_id(page), "exec"), names)
    for name, value in list(names.items()):
        if name.startswith("test_") and callable(value):
            value()
    if page.name == "README.md":
        assert "0 left untouched" in capsys.readouterr().out


@pytest.mark.parametrize("page", pages_with(*SHELL), ids=page_id)
def test_command_lines_parse(page: Path):
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()}
    for snippet in found(page, *SHELL):
        for words in commands(snippet.text):
            match words:
                case ["nasface", *rest]:
                    parse(main, rest)
                case ["make", *goals]:
                    assert {goal for goal in goals if "=" not in goal} <= targets, words
                case [program, *_]:
                    assert program in OTHER_PROGRAMS or program.startswith(".venv/bin/"), words


@pytest.mark.parametrize("page", [p for p in pages_with(*SHELL) if "tutorials" in p.parts], ids=page_id)
def test_tutorials_run(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    """Everything that needs no dataset is run, on fewer faces and a smaller network."""
    for snippet in found(page, *SHELL):
        for words in commands(snippet.text):
            if words[0] != "nasface" or "--data-root" in words:
                continue
            texts = TINY.get(words[1], ())
            if "tinyspace" in words:  # a space with options of its own, and not installed here
                texts = [text for text in texts if not text.startswith("space.options.")]
                words = ["tinyspace:tinyspace" if word == "tinyspace" else word for word in words]
            settings = [word for text in texts for word in ("--set", text)]
            done = CliRunner().invoke(main, [*words[1:], *settings], catch_exceptions=False)
            assert done.exit_code == 0, f"{page_id(page)}: {' '.join(words)}\n{done.output}"


@pytest.mark.parametrize("page", pages_with("yaml"), ids=page_id)
def test_yaml_is_a_recipe(page: Path, tmp_path: Path):
    for snippet in found(page, "yaml"):
        file = tmp_path / f"line{snippet.line}.yaml"
        file.write_text(snippet.text)
        if "experiment" in yaml.safe_load(snippet.text):
            read_experiment(str(file), None)
        else:
            recipes.load(str(file))


@pytest.mark.parametrize("page", pages_with("toml"), ids=page_id)
def test_toml_can_be_read(page: Path):
    for snippet in found(page, "toml"):
        tomllib.loads(snippet.text)


def test_a_fence_cannot_hide():
    text = "1. item\n\n   ```py\n   a = 1\n   ```\n\n````text\n```sh\nx\n```\n````\n~~~\nplain\n~~~\n"
    assert [(s.language, s.text) for s in snippets(text)] == [("py", "a = 1"), ("text", "```sh\nx\n```"), ("", "plain")]
    with pytest.raises(ValueError, match="line 1"):
        snippets("```python\n1\n")
