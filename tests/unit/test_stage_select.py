"""A network of a sweep is chosen by held-out faces within the limits, and its files are copied as they are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from nasface import recipe as recipes
from nasface import rundir, terminal
from nasface.arch import Architecture
from nasface.errors import GraphError, RunError
from nasface.model.files import at
from nasface.model.source import read_source
from nasface.pareto import with_front
from nasface.report.content import read
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, Score, Stage, State, SweepRow
from nasface.stages.select import copy_network, read_table, select, sweep_folder
from searchspaces.hrsupernet import hrsupernet
from tests.refusal import names, refused

pytestmark = pytest.mark.slow

NAN = math.nan
# id, MACs, params, latency, held-out NME recalibrated, and finetuned
NETWORKS = (
    ("t01", 900, 90, 9.0, 0.20, 0.0300),
    ("t02", 700, 80, 9.5, 0.15, 0.0310),
    ("t03", 500, 85, 4.0, 0.10, 0.0310),
    ("t04", 300, 40, 3.0, 0.30, 0.0330),
    ("t05", 200, 20, 2.0, 0.09, NAN),
    ("t06", 100, 10, 1.0, 0.40, 0.0500),
)


def rows(*networks: tuple[Any, ...], **more: Any) -> list[dict[str, Any]]:
    """The supernet, a disconnected network, then those given; the best on test faces are the worst held out."""
    common = {"seed": 3, "pruner": "threshold"}
    supernet = {
        **common, "network": "supernet", "state": "done", "params": 5, "macs": 50, "latency_ms": 0.1,
        "held_out_nme_recalibrated": 0.001, "held_out_nme_finetuned": 0.001,
    }  # fmt: skip
    none = {**common, "network": "none-1", "state": "disconnected", "error": "threshold 9 would disconnect it"}
    return [
        supernet,
        none,
        *(
            {
                **common,
                "network": name,
                "state": "done",
                "macs": macs,
                "params": params,
                "latency_ms": latency,
                "held_out_nme_recalibrated": recalibrated,
                "held_out_nme_finetuned": finetuned,
                "nme_full_finetuned": 1e-3 / finetuned,
                "images_full": 689,
                "on_front": name != "t02",
                "arch": f"networks/{name}/arch.json",
                **more,
            }
            for name, macs, params, latency, recalibrated, finetuned in networks
        ),
    ]


def sweep(folder: Path, *networks: tuple[Any, ...], **more: Any) -> Path:
    rundir.write_rows(folder / "pareto.csv", rows(*networks, **more))
    return folder


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    return sweep(tmp_path / "sweep", *NETWORKS)


@pytest.mark.parametrize(
    ("limits", "network"),
    [
        ({}, "t01"),
        ({"max_macs": 900}, "t01"),  # a limit may be met exactly
        ({"max_macs": 899}, "t03"),  # as good as t02 with fewer MACs
        ({"max_params": 80}, "t02"),
        ({"max_latency": 4.0}, "t03"),
        ({"max_macs": 800, "max_params": 80, "max_latency": 9}, "t04"),
        ({"max_macs": 299}, "t06"),  # t05 was not fine-tuned
    ],
)
def test_the_lowest_held_out_error_within_all_limits_is_taken(swept: Path, limits: dict[str, float], network: str):
    assert select(swept, **limits).network == network


def test_a_choice_says_what_it_is_and_what_it_was_compared_with(swept: Path):
    choice = select(swept, max_macs=299)
    assert (choice.stage, choice.held_out_nme, choice.compared, choice.networks) == ("finetuned", 0.05, 1, 6)
    assert choice.arch == swept / "networks" / "t06" / "arch.json"
    assert choice.figures["macs"] == 100
    assert isinstance(choice.figures["macs"], int)
    assert choice.figures["error"] is None
    assert choice.as_dict()["arch"] == str(choice.arch)


def test_where_nothing_within_the_limits_was_fine_tuned_an_earlier_stage_decides(swept: Path):
    untrained = [(*network[:5], NAN) for network in NETWORKS]
    for networks in (untrained, [*NETWORKS[:4], *untrained[4:]]):
        choice = select(sweep(swept, *networks), max_macs=299)
        assert (choice.network, choice.stage, choice.held_out_nme, choice.compared) == ("t05", "recalibrated", 0.09, 2)


def test_test_faces_have_no_say(swept: Path, tmp_path: Path):
    other = sweep(tmp_path / "other", *NETWORKS, nme_full_finetuned=None, on_front=None)
    for wish in ({}, {"max_macs": 600}, {"knee": True}, {"knee": True, "cost": "params"}):
        assert select(swept, **wish).network == select(other, **wish).network
    only_tested = [{k: v for k, v in row.items() if not k.startswith("held_out")} for row in rows(*NETWORKS)]
    rundir.write_rows(other / "pareto.csv", only_tested)
    with refused(RunError, "held-out"):
        select(other)


@pytest.mark.parametrize(
    ("wish", "network"),
    [
        # the front of MACs is t06, t04, t03, t01: (0, 1), (.25, .15), (.5, .05), (1, 0)
        ({}, "t04"),
        # of params t06, t04, t02, t01: (0, 1), (.375, .15), (.875, .05), (1, 0)
        ({"cost": "params"}, "t04"),
        ({"cost": "latency_ms"}, "t04"),
        ({"max_macs": 299}, "t06"),
    ],
)
def test_the_knee_is_that_of_held_out_error_and_cost(swept: Path, wish: dict[str, Any], network: str):
    assert select(swept, knee=True, **wish).network == network


def test_the_cost_of_the_knee_matters(tmp_path: Path):
    points = (
        ("a", 1, 10, 1, 0.1, 0.5),
        ("b", 2, 90, 2, 0.1, 0.2),
        ("c", 9, 20, 9, 0.1, 0.25),
        ("d", 10, 100, 9, 0, 0.1),
    )
    folder = sweep(tmp_path, *points)
    assert select(folder, knee=True).network == "b"
    assert select(folder, knee=True, cost="params").network == "c"


def test_when_nothing_fits_the_smallest_there_is_is_named(swept: Path):
    with refused(RunError, "none of the 6", "at most 99 MACs", "100 MACs (t06)"):
        select(swept, max_macs=99)
    with refused(RunError, "at most 1 MACs", "at most 0.5 ms", "100 MACs (t06)", "1 ms (t06)"):
        select(swept, max_macs=1, max_latency=0.5, knee=True)


def test_a_limit_may_be_a_share_of_the_latency_of_the_supernet(swept: Path):
    sweep(swept, *NETWORKS, supernet_latency_ms=8.0)
    assert select(swept, max_latency=0.5, relative=True).network == select(swept, max_latency=4.0).network == "t03"
    with refused(RunError, "at most 0.1 times the supernet's latency", "0.125 times", "(t06)"):
        select(swept, max_latency=0.1, relative=True)


def test_latencies_of_several_runtimes_are_not_compared(swept: Path):
    mixed = rows(*NETWORKS, supernet_latency_ms=8.0)
    mixed[-1]["latency_runtime"] = "onnxruntime"
    rundir.write_rows(swept / "pareto.csv", mixed)
    for wish in ({"max_latency": 5.0}, {"max_latency": 0.5, "relative": True}, {"knee": True, "cost": "latency_ms"}):
        with refused(RunError, "pareto.csv", "onnxruntime, torch"):
            select(swept, **wish)
    assert select(swept, max_macs=900).network == "t01"


@pytest.mark.parametrize(("column", "values"), [("latency_batch", (1, 8)), ("threads", (2, 4)), ("device", ("a", "b"))])
def test_latencies_of_several_settings_are_not_compared(swept: Path, column: str, values: tuple[Any, Any]):
    mixed = rows(*NETWORKS, latency_runtime="torch", **{column: values[0]})
    rundir.write_rows(swept / "pareto.csv", mixed)
    select(swept, max_latency=5.0)
    mixed[-1][column] = values[1]
    rundir.write_rows(swept / "pareto.csv", mixed)
    with refused(RunError, "pareto.csv", f"({values[0]}, {values[1]})"):
        select(swept, max_latency=5.0)


def test_limits_that_cannot_be_checked_are_refused(swept: Path):
    for limit in (0, -1, NAN):
        with refused(RunError, f"{limit!r} ms", "above 0"):
            select(swept, max_latency=limit)
    sweep(swept, *NETWORKS, latency_ms=None)
    wishes = ({"max_latency": 0.5, "relative": True}, {"max_latency": 5}, {"knee": True, "cost": "latency_ms"})
    for wish in wishes:
        with refused(RunError, "pareto.csv", "no latencies"):
            select(swept, **wish)


def test_a_sweep_of_disconnected_networks_offers_none(tmp_path: Path):
    rundir.write_rows(tmp_path / "pareto.csv", rows()[1:])
    assert read_table(tmp_path)["macs"].isna().all()
    with refused(RunError, "pareto.csv", "done"):
        select(tmp_path)
    with refused(RunError, "pareto.csv", "done"):
        select(sweep(tmp_path))  # the supernet alone


def test_a_run_is_asked_for_its_sweep(swept: Path, tmp_path: Path):
    assert sweep_folder(tmp_path) == sweep_folder(swept) == swept
    pd.testing.assert_frame_equal(read_table(tmp_path), read_table(swept))
    assert select(tmp_path).arch == swept / "networks" / "t01" / "arch.json"


def test_a_table_is_read_as_it_was_written(swept: Path):
    table = read_table(swept).set_index("network")
    assert len(table) == 8
    assert table["on_front"].dtype == bool
    assert table.index[table["on_front"]].tolist() == ["t01", "t03", "t04", "t05", "t06"]
    assert table.loc["t03", "held_out_nme_finetuned"] == 0.031
    assert math.isnan(table.loc["none-1", "macs"])


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "cannot read"),
        ("\n", "cannot read"),
        ('a,b\n"1', "cannot read"),
        ("epoch,loss\n1,2\n", "'network' and 'state'"),
        ("network,state,params,macs,arch\na,done,1,many,x\n", "'macs'"),
        ("network,state,params,macs,arch\na,done,1,2,x\nb,done,1,,x\n", "'b'"),
        ("network,state,params,macs,arch\na,done,1,2,\n", "'a'"),
        ("network,state,held_out_nme_finetuned\na,done,bad\n", "'held_out_nme_finetuned'"),
        ("network,state,nme_make-up_inherited\na,done,bad\n", "'nme_make-up_inherited'"),
    ],
)
def test_what_is_no_table_of_a_sweep_is_refused(tmp_path: Path, text: str, fact: str):
    (tmp_path / "pareto.csv").write_text(text)
    with refused(RunError, tmp_path / "pareto.csv", fact):
        read_table(tmp_path)


def test_a_row_with_a_value_of_the_wrong_kind_is_refused(swept: Path):
    sweep(swept, *NETWORKS, threads="many")
    with refused(RunError, "'threads'", "not a number"):
        select(swept)


def test_a_folder_without_a_table_and_bytes_that_are_no_text_are_refused(tmp_path: Path):
    with refused(RunError, tmp_path, "pareto.csv", "nasface sweep-thresholds"):
        read_table(tmp_path)
    (tmp_path / "pareto.csv").write_bytes(b"network,state\n\xff\xfe,done\n")
    with refused(RunError, tmp_path / "pareto.csv"):
        read_table(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A searched run with a sweep of two networks below it: t01 has weights of its own."""
    run, home = RunDir(tmp_path / "run"), tmp_path / "run" / "sweep"
    rundir.write_tensors(run.supernet, {"a": torch.zeros(1)})
    sweep(home, *NETWORKS[:2])
    graph = hrsupernet().graph
    provenance = {
        "run": str(run.path),
        "weights": run.supernet.name,
        "weights_sha256": rundir.file_digest(run.supernet),
    }
    recipe = recipes.load("demo")
    rundir.write_text(RunDir(home).recipe, recipe.to_yaml())
    for name in ("t01", "t02"):
        arch = Architecture("hrsupernet", {}, 68, 256, graph.digest, graph.edges, {**provenance, "name": name})
        rundir.write_text(RunDir(home / "networks" / name).arch, arch.to_json())
    rundir.write_tensors(RunDir(home / "networks" / "t01").slim, {"a": torch.ones(1)})
    return run.path


def test_a_copy_is_an_architecture_with_its_weights_and_recipe(run: Path, tmp_path: Path):
    choice, out = select(run), RunDir(tmp_path / "out")
    for _ in range(2):  # the same again changes nothing
        copy_network(choice, out)
        assert out.arch.read_bytes() == choice.arch.read_bytes()
        assert out.slim.read_bytes() == RunDir(choice.arch.parent).slim.read_bytes()
    source = read_source(out.arch)
    assert source.trained_weights() == out.slim
    assert source.weights() == run / "supernet.safetensors"
    assert source.recipe == str(out.recipe)
    assert recipes.load(source.recipe) == recipes.load("demo")
    (saved,) = at(out.path)
    assert (saved.name, saved.arch, saved.weights) == ("slim", source.arch, out.slim)


def test_a_fine_tuned_network_takes_its_figures_along_and_another_says_where_they_are(run: Path, tmp_path: Path):
    summary = {"images": 1, "expected": 1, "nme": 0.03}
    figures = {"params": 1, "macs": 2, "held_out_nme": 0.03, "subsets": {"inter_ocular": {"full": summary}}}
    choice, tuned, other = select(run), RunDir(tmp_path / "tuned"), RunDir(tmp_path / "other")
    rundir.write_json(RunDir(choice.arch.parent).metrics, {"networks": {"slim": figures}})
    copy_network(choice, tuned)
    found = read(tuned.path)
    assert found.networks == {"slim": figures}
    assert "figures" not in found.missing
    copy_network(select(run, max_macs=700), other)
    names(read(other.path).missing["figures"], "pareto.csv", f"nasface train --arch {other.arch}")


def test_tables_give_the_latency_in_ms_with_its_ratio(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    row = SweepRow(
        "e041-d5cfb877", edges=41, params=295_700, macs=17_564_544, prunable_share=0.686, latency_ms=14.0,
        supernet_latency_ms=20.0, nme={HELD_OUT.at(stage): 0.1092 for stage in Stage}, on_front=True,
    )  # fmt: skip
    sweep = terminal.sweep_table([replace(row, network="supernet", latency_ms=20.0), row], "")
    for table in (sweep, terminal.row_table(row, Stage.FINETUNED, "", "")):
        terminal.show(table)
        shown = capsys.readouterr().out
        assert "14.00 (x 0.70)" in shown
        assert "17,564,544" in shown
    assert Console(width=300).measure(sweep).maximum <= 120


def test_a_table_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    full = Score("full", Stage.RECALIBRATED)
    done = SweepRow("e041-a", params=1, macs=1, nme={full: 0.05}, images={"full": 8})
    lost = SweepRow("e040-b", state=State.DIVERGED, asked="threshold 3", error="training diverged in epoch 2")
    terminal.show(terminal.sweep_table([done, lost], ""))
    shown = capsys.readouterr().out
    names(shown.replace("\n", " "), "5.00", "no face is held out", "threshold 3: training diverged in epoch 2")


def test_a_network_that_costs_as_much_as_another_and_is_worse_is_not_on_the_front():
    costs_and_errors = (("a", 10, 0.2), ("b", 10, 0.1), ("c", 5, 0.3), ("d", 5, 0.30001))
    found = [SweepRow(name, macs=macs, nme={HELD_OUT.at(Stage.INHERITED): nme}) for name, macs, nme in costs_and_errors]
    assert [row.network for row in with_front(found) if row.on_front] == ["b", "c"]


def test_a_network_with_a_recipe_of_its_own_takes_that_along(run: Path, tmp_path: Path):
    own = recipes.load("demo", ["prune.options.share=0.25"])
    choice, out = select(run), RunDir(tmp_path / "out")
    rundir.write_text(RunDir(choice.arch.parent).recipe, own.to_yaml())
    copy_network(choice, out)
    assert recipes.load(str(out.recipe)) == own


def test_a_network_without_weights_inherits_from_the_run(run: Path, tmp_path: Path):
    out = RunDir(tmp_path / "out")
    copy_network(select(run, max_macs=700), out)
    assert not out.slim.exists()
    assert read_source(out.arch).weights() == run / "supernet.safetensors"


def test_nothing_is_overwritten(run: Path, tmp_path: Path):
    first, second = select(run), select(run, max_macs=700)
    out = RunDir(tmp_path / "out")
    copy_network(first, out)
    before = {path: path.read_bytes() for path in [*run.rglob("*.*"), *out.path.iterdir()] if path.is_file()}
    for target in (out, RunDir(run), RunDir(first.arch.parent)):
        with refused(RunError, target.path, "--out"):
            copy_network(second, target)
    assert {path: path.read_bytes() for path in before} == before
    assert not RunDir(run).arch.exists()


def test_a_sweep_whose_files_are_gone_is_refused(run: Path, tmp_path: Path):
    choice, out = select(run), RunDir(tmp_path / "out")
    recipe = RunDir(choice.folder).recipe
    recipe.rename(tmp_path / "moved")
    with refused(RunError, recipe):
        copy_network(choice, out)
    choice.arch.write_text("{}")
    with refused(GraphError, choice.arch, "schema_version"):
        copy_network(choice, out)
    choice.arch.unlink()
    with refused(RunError, choice.arch):
        copy_network(choice, out)
    assert not out.path.exists()
