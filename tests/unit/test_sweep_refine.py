"""Sweeps that breed networks, and that fine-tune only the best ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nasface import rundir
from nasface.errors import RecipeError
from nasface.model.source import read_arch
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, Stage
from nasface.stages.select import select
from nasface.stages.sweep import run as sweeping
from nasface.stages.sweep.book import Study, standing_of
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure
from tests.refusal import refused
from tests.searched import MACHINE, recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]

BARE = {"inherited": False, "latency_batch": 0}
TUNED = "held_out_nme_finetuned"


def sweep(run: RunDir, out: Path, wanted: SweepRequest, measure: Measure) -> pd.DataFrame:
    sweeping.sweep(recipe(), run, RunDir(out), wanted, measure, MACHINE)
    return pd.read_csv(out / "pareto.csv").query("network != 'supernet'")


def test_only_the_best_are_fine_tuned_and_more_can_be_asked_for(run, tmp_path):
    out = tmp_path / "out"
    request = SweepRequest(shares=(0.6,), pruner="random", draws=3)
    table = sweep(run, out, request, Measure(**BARE, epochs=1, best=1))
    assert len(table) == 3
    assert table.network.is_unique
    best = table.loc[table.held_out_nme_recalibrated.idxmin()]
    (tuned,) = table[table[TUNED].notna()].itertuples()
    assert tuned.network == best.network
    assert tuned.on_front
    assert select(out).network == tuned.network
    assert standing_of(out).finished == 3
    assert sweep(run, out, request, Measure(**BARE, epochs=1, best=1)).equals(table)
    every = sweep(run, out, request, Measure(**BARE, epochs=1))
    assert every[TUNED].notna().all()
    assert len(every) == 3
    again = every.set_index("network").loc[tuned.network]
    assert again[TUNED] == getattr(tuned, TUNED)


def test_bred_networks_are_networks_of_the_sweep(run, tmp_path):
    out, request = tmp_path / "out", SweepRequest(count=3, refine=4)
    table = sweep(run, out, request, Measure(**BARE))
    bred = table[table.pruner == "evolution"]
    assert len(bred) == 4
    assert len(table) == 7
    assert (table.state == "done").all()
    assert bred.held_out_nme_recalibrated.notna().all()
    for arch in bred.arch:
        assert read_arch(out / arch).provenance["pruner"] == "evolution"
    assert sweep(run, out, request, Measure(**BARE)).equals(table)
    assert len(sweep(run, out, SweepRequest(count=3, refine=5), Measure(**BARE))) == 8


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_breeding_goes_on_where_it_was_interrupted(run, tmp_path, monkeypatch):
    """Killed before a bred network is asked for, and while one is measured, it comes to the same networks."""
    out, request = tmp_path / "out", SweepRequest(count=3, refine=3)
    whole = sweep(run, tmp_path / "whole", request, Measure(**BARE))
    sweep(run, out, SweepRequest(count=3), Measure(**BARE))
    for owner, name in ((sweeping, "_write"), (sweeping._Bench, "measure")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                sweep(run, out, request, Measure(**BARE))
    assert sorted(sweep(run, out, request, Measure(**BARE)).network) == sorted(whole.network)


def test_evolution_needs_two_networks(run, tmp_path, caplog):
    table = sweep(run, tmp_path / "out", SweepRequest(shares=(0.7,), refine=3), Measure(**BARE))
    assert len(table) == 1
    assert "two networks" in caplog.text


def test_bred_networks_compete_for_fine_tuning(run, tmp_path):
    request = SweepRequest(shares=(0.5, 0.8), refine=3, pruner="budget", options={"tolerance": 0.2})
    out = tmp_path / "out"
    table = sweep(run, out, request, Measure(**BARE, epochs=1, best=1))
    within = table[table.prunable_share <= 0.8]
    best = within.loc[within.held_out_nme_recalibrated.idxmin()]
    assert pd.notna(best[TUNED])
    assert table[TUNED].notna().sum() <= 2
    rows = Study.open(out, 0).networks()
    assert {name for name, row in rows.items() if HELD_OUT.at(Stage.FINETUNED) in row.nme} == set(
        table[table[TUNED].notna()].network
    )
    assert rundir.read_json(RunDir(out).job, "the job")["job"] == "sweep"


@pytest.mark.parametrize(
    ("wanted", "measure", "facts"),
    [
        (SweepRequest(), Measure(best=2), ("epochs",)),
        (SweepRequest(), Measure(False, False, epochs=1, best=2), ("--no-recalibrated",)),
        (SweepRequest(refine=2), Measure(False, False), ("--no-inherited",)),
    ],
)
def test_what_contradicts_itself_is_refused(run, tmp_path, wanted, measure, facts):
    with refused(RecipeError, *facts):
        sweep(run, tmp_path / "out", wanted, measure)
    assert not (tmp_path / "out").exists()
