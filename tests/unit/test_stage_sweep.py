"""Sweeps: what a row says, that finished networks are not done again, and that several processes share the work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from nasface import engine, rundir
from nasface import recipe as recipes
from nasface.cli.options import Wanted, of_source
from nasface.errors import GraphError, RunError
from nasface.model.files import at
from nasface.model.source import read_arch, read_factors, read_source
from nasface.pareto import front
from nasface.prune import share as share_of
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import Score, Stage, SweepRow, table_of
from nasface.stages.count import count
from nasface.stages.doctor.folder import examine
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.experiment.part import Stand
from nasface.stages.experiment.run import _sweep_status
from nasface.stages.select import copy_network, select
from nasface.stages.sweep import run as sweeping
from nasface.stages.sweep.book import Study, standing_of
from nasface.stages.sweep.candidates import Candidate, SweepRequest
from nasface.stages.sweep.run import Measure
from tests.refusal import refused
from tests.searched import MACHINE, caching_in, recipe
from tests.tiny import supernet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]

QUICK = Measure(latency_repeats=1)
SCORES = ["held_out_nme_inherited", "held_out_nme_recalibrated", "nme_full_inherited", "nme_full_recalibrated"]


def sweep(run: RunDir, out: Path, wanted: SweepRequest, measure: Measure = QUICK, *overrides: str) -> pd.DataFrame:
    rows = sweeping.sweep(recipe(*overrides), run, RunDir(out), wanted, measure, MACHINE)
    table = pd.read_csv(out / "pareto.csv")
    assert [row.network for row in rows] == table.network.tolist()
    return table


def test_a_sweep_is_finished_when_all_that_its_request_yields_is_measured(run: RunDir, tmp_path: Path):
    out, request = RunDir(tmp_path / "out"), SweepRequest(count=0, shares=(0.7, 0.7))  # they are one wish
    assert _sweep_status(out, recipe(), request, None).stand is Stand.NOT_BEGUN
    sweep(run, out.path, request, replace(QUICK, recalibrated=False, latency_batch=0))
    assert standing_of(out.path).wishes < request.wishes
    own = recipes.load(str(out.recipe))
    assert _sweep_status(out, own, request, None).is_finished
    older = replace(request, shares=(0.7,))  # of a version that has recorded no request
    assert _sweep_status(out, own, older, None).is_finished
    assert _sweep_status(out, own, replace(request, count=2), None).stand is Stand.BEGUN


def test_a_sweep_for_which_there_is_no_network_is_finished_when_it_has_looked(tmp_path: Path):
    request = SweepRequest(count=9)
    Study.open(tmp_path, 0).note(request)
    assert _sweep_status(RunDir(tmp_path), recipe(), request, None).is_finished


@pytest.fixture(scope="module")
def swept(run: RunDir, folder: Path) -> tuple[Path, pd.DataFrame]:
    with caching_in(folder):
        return folder / "swept", sweep(run, folder / "swept", SweepRequest(count=4, thresholds=(9.0,), shares=(0.7,)))


def test_every_network_has_a_row_with_cost_latency_and_error(swept):
    out, table = swept
    done = table[(table.state == "done") & (table.network != "supernet")]
    assert 4 <= len(done) <= 5
    assert done[[*SCORES, "latency_ms", "supernet_latency_ms", "params", "macs_no_head"]].notna().all(axis=None)
    assert (done.latency_batch == 1).all()
    assert (done.threads == 1).all()
    assert (done.seed == 0).all()
    for row in done.itertuples():
        counted = count(None, {}, 0, None, out / row.arch, None)
        assert (row.params, row.macs, row.macs_no_head, row.edges, row.blocks) == tuple(
            counted[name] for name in ("params", "macs", "macs_no_head", "edges", "blocks")
        )
        assert read_arch(out / row.arch).kept


def test_the_supernet_stands_beside_in_every_state_of_its_own(run, swept, tmp_path):
    _, table = swept
    supernet = table[table.network == "supernet"].iloc[0]
    assert pd.isna(supernet.on_front)
    assert (table.macs[table.network != "supernet"].dropna() < supernet.macs).all()
    whole = sweep(run, tmp_path / "out", SweepRequest(thresholds=(0.0,))).query("network != 'supernet'").iloc[0]
    assert whole.macs == supernet.macs
    assert whole.held_out_nme_inherited == pytest.approx(supernet.held_out_nme_inherited)
    assert whole.held_out_nme_recalibrated == pytest.approx(supernet.held_out_nme_recalibrated)


def test_networks_of_several_budgets_are_nested_in_one_sweep(run, tmp_path):
    full = count(None, {}, 0, None, run.arch, None)["macs"]
    wanted = SweepRequest(pruner="budget", macs=tuple(round(part * full) for part in (1.0, 0.95, 0.9, 0.85)))
    table = sweep(run, tmp_path / "out", wanted).query("network != 'supernet' and state == 'done'")
    kept = [{*read_arch(tmp_path / "out" / path).kept} for path in table.sort_values("macs").arch]
    assert len(kept) >= 3
    assert all(small < large for small, large in pairwise(kept))


def test_a_disconnected_threshold_is_a_marked_row(swept):
    _, table = swept
    (lost,) = table[table.state == "disconnected"].itertuples()
    assert "disconnected" in lost.error
    assert lost.asked == "threshold 9"
    assert pd.isna(lost.macs)


def test_the_front_is_marked_by_held_out_faces(swept):
    _, table = swept
    done = table[(table.state == "done") & (table.network != "supernet")]
    wanted = front(done[["macs", "held_out_nme_recalibrated"]].to_numpy())
    assert (done.on_front.astype(bool) == wanted).all()


def test_finished_networks_are_not_done_again_and_new_ones_are_added(run, swept, tmp_path, monkeypatch):
    out, table = swept
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    monkeypatch.setattr(sweeping, "load_faces", lambda *_: pytest.fail("there is nothing to do"))
    again = sweep(run, copy, SweepRequest(count=4, thresholds=(9.0,), shares=(0.7,)))
    pd.testing.assert_frame_equal(again, table)
    monkeypatch.undo()
    calls = Counter()
    real = sweeping._Bench.measure

    def counted(self, network, position):
        calls[network.path.name] += 1
        return real(self, network, position)

    monkeypatch.setattr(sweeping._Bench, "measure", counted)
    more = sweep(run, copy, SweepRequest(count=6))
    assert set(table.network) < set(more.network)
    assert set(calls) == set(more.network) - set(table.network)
    assert set(calls.values()) == {1}


def test_equal_networks_are_one_row_that_names_all_wishes(run, tmp_path):
    table = sweep(run, tmp_path / "out", SweepRequest(thresholds=(0.0,), shares=(1.0,)), Measure(latency_batch=0))
    (row,) = table[table.network != "supernet"].itertuples()
    assert row.asked == "threshold 0; prunable macs <= 1"
    assert "latency_ms" not in table or pd.isna(row.latency_ms)


def test_what_is_not_asked_is_not_measured(run, tmp_path):
    measure = Measure(inherited=False, recalibrated=True, latency_batch=0)
    table = sweep(run, tmp_path / "out", SweepRequest(thresholds=(0.0,)), measure)
    row = table[table.network != "supernet"].iloc[0]
    assert pd.isna(row.get("held_out_nme_inherited"))
    assert row.held_out_nme_recalibrated > 0


def test_a_failure_half_way_leaves_a_network_for_the_next_process(run, tmp_path, monkeypatch):
    out, wanted = tmp_path / "out", SweepRequest(count=3)
    real = sweeping._Bench.measure
    done: list[str] = []

    def break_at_the_second(self, network, position):
        if done:
            raise KeyboardInterrupt
        done.append(network.path.name)
        return real(self, network, position)

    monkeypatch.setattr(sweeping._Bench, "measure", break_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sweep(run, out, wanted)
    monkeypatch.undo()
    assert len(pd.read_csv(out / "pareto.csv")) == 2  # the supernet and one more
    table = sweep(run, out, wanted)
    fresh = sweep(run, tmp_path / "fresh", wanted)
    columns = ["network", "asked", "macs", "on_front", *SCORES]
    pd.testing.assert_frame_equal(table[columns], fresh[columns])


def test_a_network_that_another_process_works_on_is_left_to_it(run, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    monkeypatch.setattr(sweeping._Bench, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sweep(run, out, SweepRequest(count=2))
    monkeypatch.undo()
    begun = next(path for path in (out / "networks").iterdir() if (path / ".lock").exists())
    with FileLock(begun / ".lock"):
        table = sweep(run, out, SweepRequest(count=2))
        assert begun.name not in set(table.network)
        assert "working on 1 networks" in caplog.text
    assert begun.name in set(sweep(run, out, SweepRequest(count=2)).network)


def test_a_network_that_is_still_being_measured_is_fine_tuned_after_that(tmp_path):
    one, other = Study.open(tmp_path, 0), Study.open(tmp_path, 0)
    found = Candidate("threshold 0", "threshold", {"threshold": 0.0}, supernet().graph)
    one.ask_for(found, lambda run: run.path.mkdir(parents=True), untuned=True)
    with one.taken() as first:
        assert first is not None
        other.ask_for(found, lambda run: None)
        for _ in range(3):
            with other.taken() as second:
                assert second is None
        assert len(one.study.get_trials()) == 2
        one.study.tell(first, [0.1, 1.0])
    with other.taken() as second:
        assert second is not None
        assert "untuned" not in second.user_attrs


def test_latencies_of_several_batches_do_not_mix(run, tmp_path):
    sweep(run, tmp_path / "out", SweepRequest(count=1), QUICK)
    with refused(RunError, "batches of 1,", "--latency-batch 1", "--latency-batch 0"):
        sweep(run, tmp_path / "out", SweepRequest(count=2), replace(QUICK, latency_batch=4))
    table = sweep(run, tmp_path / "out", SweepRequest(count=2), replace(QUICK, latency_batch=0))
    assert set(table.latency_batch.dropna()) == {1}


def test_fine_tuned_networks_are_runs_that_other_commands_read(run, tmp_path):
    out = tmp_path / "out"
    table = sweep(run, out, SweepRequest(shares=(0.7,)), Measure(epochs=1, latency_batch=0))
    row = table[table.network != "supernet"].iloc[0]
    home = RunDir((out / row.arch).parent)
    found = json.loads(home.metrics.read_text())["networks"]["slim"]
    assert found["held_out_nme"] == pytest.approx(row.held_out_nme_finetuned)
    assert not (home.path / "checkpoints").exists()
    (again,) = evaluate(recipe(), MACHINE, at(home.path))
    assert again.held_out_error == pytest.approx(row.held_out_nme_finetuned, rel=1e-6)


def resolved(home: RunDir, **options: object) -> Recipe:
    """The recipe with which `train` and `distill` begin at an arch.json."""
    wanted = Wanted(**{"recipe": None, "space": None, "dataset": None, "data_root": None, "overrides": ()} | options)
    return of_source(wanted, read_source(home.arch)).resolve()


def test_a_network_has_the_recipe_of_its_fine_tuning_but_is_trained_further_for_as_long_as_the_run(run, tmp_path):
    out, tuned = tmp_path / "out", RunDir(tmp_path / "tuned")
    request = SweepRequest(shares=(0.7, 0.8), pruner="random")
    table = sweep(run, out, request, Measure(epochs=2, latency_batch=0, best=1))
    copies = [RunDir((out / row.arch).parent) for row in table.itertuples() if row.network != "supernet"]
    copy_network(select(out, max_macs=float(table.macs.max())), tuned)
    assert not [finding for finding in examine(tmp_path) if finding.state != "ok"]
    for home in (*copies, tuned):
        own = recipes.load(str(home.recipe))
        assert own.prune.name == "random"
        assert own.finetune.epochs == (2 if home.metrics.exists() else 1)
        assert rundir.read_meta(home.slim)["card"]["training"]["recipe_digest"] == own.digest
        assert not home.metrics.exists() or json.loads(home.metrics.read_text())["recipe_digest"] == own.digest
        assert resolved(home).finetune == recipe().finetune  # of 1 epoch
        assert resolved(home, overrides=("finetune.epochs=7",)).finetune.epochs == 7
        assert resolved(home, recipe=str(home.recipe)).finetune == own.finetune
    assert tuned.metrics.exists()
    rundir.write_json(tuned.job, {"job": "train"})  # what was trained from it, has its own recipe
    assert resolved(tuned).finetune.epochs == 2


def test_a_folder_holds_one_sweep(run, swept):
    out, _ = swept
    with refused(RunError, out, "--out"):
        sweep(run, out, SweepRequest(count=2), Measure(epochs=3))
    with refused(RunError, out, "--out"):
        sweep(run, out, SweepRequest(count=2), QUICK, "seed=5")


def test_a_sweep_is_of_one_copy_of_the_data(run, swept, tmp_path, monkeypatch):
    out, table = swept
    copy = RunDir(shutil.copytree(out, tmp_path / "copy"))
    real = sweeping.load_prepared

    def changed(recipe, machine):
        return {split: replace(faces, key="another") for split, faces in real(recipe, machine).items()}

    monkeypatch.setattr(sweeping, "load_prepared", changed)
    with refused(RunError, copy.path, "synthetic", "--out"):
        sweep(run, copy.path, SweepRequest(count=5))
    assert pd.read_csv(copy.pareto).equals(table)
    begun_earlier = {name: value for name, value in json.loads(copy.job.read_text()).items() if name != "data"}
    copy.job.write_text(json.dumps(begun_earlier))
    assert len(sweep(run, copy.path, SweepRequest(count=6))) > len(table)


def test_architectures_of_ones_own_stand_beside_the_others(run, swept, tmp_path):
    out, table = swept
    theirs = table[(table.state == "done") & (table.network != "supernet")].iloc[0]
    request = SweepRequest(archs=(out / theirs.arch,))
    rows = sweeping.sweep(recipe(), run, RunDir(tmp_path / "own"), request, QUICK, MACHINE)
    (own,) = [row for row in rows if row.is_slim]
    assert own.network == theirs.network
    assert own.asked == f"arch {out / theirs.arch}"
    assert own.pruner == "own"
    assert own.nme[Score("full", Stage.INHERITED)] == pytest.approx(theirs.nme_full_inherited)
    assert read_arch(tmp_path / "own" / own.arch).provenance["pruner"] == "own"
    other = json.loads((out / theirs.arch).read_text()) | {"graph_digest": "0"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with refused(GraphError, tmp_path / "other.json"):
        sweep(run, tmp_path / "own", SweepRequest(archs=(tmp_path / "other.json",)))


def test_a_row_reads_back_as_it_was_written(run, swept):
    out, _ = swept
    rows = sweeping.sweep(recipe(), run, RunDir(out), SweepRequest(count=4), QUICK, MACHINE)
    from_csv = [SweepRow.from_columns(row) for row in pd.read_csv(out / "pareto.csv").to_dict("records")]
    from_json = [SweepRow.from_columns(row) for row in json.loads(json.dumps(table_of(rows)))]
    assert from_csv == from_json == rows


def test_bn_is_measured_on_training_faces(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "recalibrate", lambda net, faces, settings, ready: seen.append(len(faces)))
    sweep(run, tmp_path / "out", SweepRequest(thresholds=(0.0,)), QUICK)
    assert seen
    assert all(count <= 48 for count in seen)


def test_a_network_that_diverges_is_a_marked_row_and_the_others_go_on(run, tmp_path):
    wild = "finetune.optimizer={name: sgd, lr: 1000, weight_decay: 1.0e+9}"
    table = sweep(run, tmp_path / "out", SweepRequest(count=2), Measure(epochs=3, latency_batch=0), wild)
    pruned = table[table.network != "supernet"]
    assert len(pruned) == 2
    assert (pruned.state == "diverged").all()
    assert pruned.error.str.contains("not finite").all()
    assert pruned.held_out_nme_recalibrated.notna().all()
    assert not any((tmp_path / "out").glob("networks/*/slim.safetensors"))


def test_a_torn_line_of_a_full_disk_costs_only_itself(run, swept, tmp_path):
    out, table = swept
    shutil.copytree(out, tmp_path / "copy")
    book = RunDir(tmp_path / "copy").study
    book.write_bytes(book.read_bytes() + b'{"op_code": 8, "worker_id": "half a')
    again = sweep(run, tmp_path / "copy", SweepRequest(count=4, thresholds=(9.0,), shares=(0.7,)))
    pd.testing.assert_frame_equal(again, table)
    assert len(sweep(run, tmp_path / "copy", SweepRequest(count=5))) >= len(table)


def test_a_kill_between_giving_up_a_network_and_asking_for_it_again_loses_nothing(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sweeping._Bench, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sweep(run, out, SweepRequest(count=2))
    monkeypatch.undo()
    book = Study.open(out, 0)
    (begun,) = [trial for trial in book.study.get_trials() if trial.state.name == "RUNNING"]
    book.study.tell(begun.number, state=begun.state.FAIL)  # what a process does before it asks again
    assert len(sweep(run, out, SweepRequest(count=2))) == 3  # with the supernet


def test_an_option_that_is_a_word_is_recorded(run, tmp_path):
    wanted = SweepRequest(shares=(0.7,), pruner="tests.unit.test_stage_sweep:worded", options={"mode": "half"})
    (row,) = sweep(run, tmp_path / "out", wanted).query("network != 'supernet'").itertuples()
    assert row.state == "done"


def worded(graph, importance, costs, *, share: float, mode: str):
    return share_of(graph, importance, costs, share=share)


def test_two_processes_share_a_sweep(run, folder, tmp_path):
    """Started together, each network is done once and both come to the same table."""
    args = [sys.executable, "-m", "nasface", "sweep-thresholds", run.path, "--count", "5", "--latency-batch", "0"]
    args += ["--workers", "1", "--out", tmp_path / "out"]
    env = {**os.environ, "NASFACE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(args, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=240)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    table = pd.read_csv(tmp_path / "out" / "pareto.csv")
    assert len(table) == 6
    assert table.network.is_unique
    trials = [t for t in Study.open(tmp_path / "out", 0).study.get_trials() if t.state.name == "COMPLETE"]
    assert len(trials) == 5


def test_networks_are_rated_by_the_criterion_that_is_asked_for(run: RunDir, tmp_path: Path):
    request = SweepRequest(shares=(0.7,))
    plain = sweep(run, tmp_path / "own", request, QUICK)
    again = sweep(run, tmp_path / "own", request, QUICK, "criterion.name=alpha")  # the run's own
    assert again.network.tolist() == plain.network.tolist()
    sweep(run, tmp_path / "gain", request, QUICK, "criterion.name=alpha_gain")
    assert (run.path / "factors-alpha_gain.json").exists()
    kept = read_arch(next((tmp_path / "gain" / "networks").glob("*/arch.json")))
    rated = read_factors(run.path / "factors-alpha_gain.json").importance
    threshold = kept.provenance["least_kept_importance"]
    assert threshold in rated.values()
    with refused(RunError, tmp_path / "own"):  # the networks of two criteria are not mixed
        sweep(run, tmp_path / "own", request, QUICK, "criterion.name=alpha_gain")
