"""nasface select: sizes, the choice on screen and as JSON, and refusals in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from nasface import recipe as recipes
from nasface import rundir
from nasface.arch import Architecture
from nasface.cli import main
from nasface.cli.sizes import SIZE, Latency
from searchspaces.hrsupernet import hrsupernet
from tests.refusal import refused


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0.6G", 600_000_000),
        ("80M", 80_000_000),
        ("350k", 350_000),
        ("350K", 350_000),
        ("1.31g", 1_310_000_000),
        (".5m", 500_000),
        ("2.M", 2_000_000),
        (" 123456 ", 123_456),
        ("0.3333333k", 333),  # what is left of a unit does not count
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, count: int):
    assert SIZE.convert(text, None, None) == count


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1M", "0", "0.0G", "0.1", "1e6", "1,000", "1_000", "0,6G", "1T", "1 M", "0.6GB", "nan", "inf", "٣M"],
)
def test_what_is_no_size_is_refused_with_examples(text: str):
    with refused(click.BadParameter, repr(text), "0.6G"):
        SIZE.convert(text, None, None)


@pytest.mark.parametrize(("text", "limit"), [("5", (5.0, False)), ("0.5x", (0.5, True)), (" .5x", (0.5, True))])
def test_a_latency_is_in_ms_or_relative_to_the_supernet(text: str, limit: tuple[float, bool]):
    assert Latency().convert(text, None, None) == limit


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """A searched run with a sweep of three networks, none with weights of its own."""
    home = tmp_path / "run" / "sweep"
    graph = hrsupernet().graph
    rundir.write_text(home / "recipe.yaml", recipes.load("demo").to_yaml())
    rows = []
    for name, macs, params, score in (
        ("t01", 900_000_000, 2_000_000, 0.03),
        ("t02", 600_000_000, 1_000_000, 0.031),
        ("t03", 100_000_000, 3_000_000, 0.09),
    ):
        arch = Architecture("hrsupernet", {}, 68, 256, graph.digest, graph.edges, {"name": name})
        rundir.write_text(home / "networks" / name / "arch.json", arch.to_json())
        rows.append(
            {
                "network": name, "state": "done", "asked": "[threshold] 0.01", "macs": macs, "params": params,
                "held_out_nme_recalibrated": score, "nme_common_recalibrated": score + 0.01, "images_common": 554,
                "arch": f"networks/{name}/arch.json",
            }
        )  # fmt: skip
    rundir.write_rows(home / "pareto.csv", rows)
    return tmp_path / "run"


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["select", *(str(arg) for arg in args)], catch_exceptions=False)


def chosen(*args: object) -> dict[str, object]:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    ("options", "network"),
    [
        (["--max-macs", "0.9G"], "t01"),
        (["--max-macs", "600M"], "t02"),
        (["--max-params", "1M"], "t02"),
        (["--max-params", "3000k", "--max-macs", "599999999"], "t03"),
        (["--knee"], "t02"),
        (["--knee", "--max-macs", "0.5G"], "t03"),
        (["--knee", "--cost", "params"], "t02"),
    ],
)
def test_limits_and_knee_reach_the_choice(swept: Path, options: list[str], network: str):
    found = chosen(swept, *options)
    assert found["network"] == network
    assert found["arch"] == str(swept / "sweep" / "networks" / network / "arch.json")


def test_json_has_the_figures_of_the_choice(swept: Path):
    found = chosen(swept, "--max-macs", "0.6G")
    assert (found["stage"], found["held_out_nme"], found["compared"], found["networks"]) == (
        "recalibrated",
        0.031,
        2,
        3,
    )
    assert found["figures"]["macs"] == 600_000_000
    assert found["figures"]["latency_ms"] is None


def test_the_table_shows_cost_error_and_where_to_go_on(swept: Path):
    out = run(swept, "--max-macs", "0.6G").stdout
    words = ["t02", "[threshold] 0.01", "600,000,000", "1,000,000", "held-out, BN recalibrated", "3.10", "among 2 of 3"]
    words += ["common, 554 images", "4.10", f"nasface train --arch {swept / 'sweep/networks/t02/arch.json'}"]
    assert [word for word in words if word not in out] == []
    assert "latency" not in out


@pytest.mark.slow
def test_out_is_a_folder_to_work_from(swept: Path, tmp_path: Path):
    out = tmp_path / "small"
    assert chosen(swept, "--knee", "--out", out)["arch"] == str(out / "arch.json")
    assert sorted(path.name for path in out.iterdir()) == ["arch.json", "job.json", "recipe.yaml"]
    counted = CliRunner().invoke(main, ["count", "--arch", str(out / "arch.json"), "--json"])
    assert json.loads(counted.stdout)["macs"] == 1_307_140_096
    again = run(swept, "--max-macs", "0.5G", "--out", out)
    assert again.exit_code == 2
    assert "another command" in again.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--max-macs", "--knee"]),
        (["--cost", "params", "--max-macs", "1G"], ["--cost", "--knee"]),
        (["--max-macs", "lots"], ["--max-macs", "'lots'", "0.6G"]),
        (["--max-params", "-5"], ["--max-params", "'-5'"]),
        (["--max-latency", "fast"], ["--max-latency", "fast"]),
        (["--max-latency", "50%"], ["--max-latency", "50%", "0.5x"]),
        (["--max-latency", "nan"], ["nasface: ", "above 0"]),
        (["--max-latency", "5"], ["nasface: ", "no latencies", "sweep again"]),
        (["--max-macs", "99.9M"], ["nasface: ", "at most 99,900,000 MACs", "has 100,000,000 MACs (t03)"]),
        (["--knee", "--cost", "flops"], ["--cost", "flops"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(swept: Path, options: list[str], words: list[str]):
    result = run(swept, *options)
    assert result.exit_code == 2
    assert [word for word in words if word not in result.stderr] == []
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.startswith(("nasface: ", "Error: "))]) == 1


def test_a_folder_that_was_not_swept_is_refused(tmp_path: Path):
    result = run(tmp_path, "--knee")
    assert result.exit_code == 2
    assert "holds no pareto.csv" in result.stderr


def test_the_help_has_examples_and_units():
    out = run("--help").stdout
    assert "nasface select runs/mini --max-macs 80M" in out
    assert "--max-macs SIZE" in out
    assert "FLOPs" in out
