"""Commands on good input, each as a user would call it."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nasface.cli import main

COFW_EDGES = Path(__file__).parents[1] / "data" / "cofw_edges.json"


def run(*args: object) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_count_prints_plain_integers_for_a_space():
    report = json.loads(run("count", "--space", "hrsupernet", "--json"))
    assert (report["params"], report["macs"]) == (3_403_430, 1_307_140_096)
    assert (report["params_no_head"], report["macs_no_head"]) == (3_311_292, 933_339_136)
    assert sum(stage["macs"] for stage in report["stages"].values()) == report["macs"]
    assert sum(stage["params"] for stage in report["stages"].values()) == report["params"]


@pytest.mark.slow
def test_count_takes_options_and_landmarks():
    report = json.loads(run("count", "--space", "hrnet", "--set", "encoder=mbconv", "--json"))
    assert (report["params"], report["macs"]) == (2_124_638, 2_351_643_648)


@pytest.mark.slow
def test_count_takes_an_edge_list():
    report = json.loads(run("count", "--space", "hrsupernet", "--landmarks", 29, "--edges", COFW_EDGES, "--json"))
    assert (report["params"], report["macs"]) == (1_074_637, 684_304_384)
    assert (report["params_no_head"], report["macs_no_head"]) == (1_054_700, 604_309_504)
    assert (report["edges"], report["blocks"]) == (42, 24)


@pytest.mark.slow
def test_count_as_a_table_names_every_stage():
    out = run("count", "--space", "hrnet")
    assert "9,654,398" in out
    assert all(f"stage {stage} " in out for stage in range(1, 13))


def test_plugins_lists_what_is_installed():
    rows = json.loads(run("plugins", "--json"))
    named = {(row["kind"], row["name"]) for row in rows}
    assert {("search space", "hrsupernet"), ("search space", "hrnet"), ("searcher", "l1")} <= named
    assert {("dataset", name) for name in ("300w", "wflw", "cofw", "synthetic")} <= named
    assert {("recipe", name) for name in ("300w", "300w-mini", "cofw", "wflw", "demo")} <= named


@pytest.mark.slow
def test_data_check_and_prepare_report_counts():
    report = json.loads(
        run("data", "check", "--dataset", "synthetic", "--set", "train=12", "--set", "test=6", "--json", "--workers", 1)
    )
    assert report["ok"]
    assert {(row["split"], row["subset"]): row["found"] for row in report["counts"]}[("train", "")] == 12
    out = run(
        "data", "prepare", "--recipe", "demo", "--set", "data.options.train=12", "--set", "data.options.test=6",
        "--workers", 1, "--quiet",
    )  # fmt: skip
    assert "total" in out
    assert "12" in out


def commands() -> list[str]:
    """Every command, those of a group as 'data check'."""
    names: list[str] = []
    for name, command in main.commands.items():
        names += [f"{name} {inner}" for inner in command.commands] if isinstance(command, click.Group) else [name]
    return names


@pytest.mark.parametrize("command", commands())
def test_every_help_text_has_an_example(command: str):
    out = run(*command.split(), "--help")
    assert "Example" in out
    assert any(line.startswith(f"    nasface {command}") for line in out.splitlines()), out
    assert not [line for line in out.splitlines() if len(line) > 110]
    assert "\\b" not in out
    assert not re.search(r"\bNone\b|\d{10}", out), "a range without bounds, or with senseless ones, is not shown"
