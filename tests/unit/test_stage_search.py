"""A search and what comes after it: old runs, given weights, missing data, factors by another criterion."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nasface import engine, plugins, rundir
from nasface import recipe as recipes
from nasface.arch import Factors
from nasface.cli import main
from nasface.engine import Progress
from nasface.errors import DataError, GraphError, RunBusyError, RunError
from nasface.model.source import read_arch, read_factors
from nasface.rundir import RunDir
from nasface.sections import Criterion
from nasface.stages.distill.run import distill
from nasface.stages.score import score
from nasface.stages.search.run import search
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure, sweep
from nasface.stages.train import train
from nasface.stages.workspace import Machine, reserved
from tests.refusal import refused
from tests.searched import MACHINE, recipe

pytestmark = pytest.mark.usefixtures("cached")


def made_old(run: RunDir) -> None:
    """Turn a run's recipe into what was written while the criterion was an option of the searcher."""
    content = yaml.safe_load(run.recipe.read_text())
    content["search"]["options"]["importance"] = content.pop("criterion")["name"]
    run.recipe.write_text(yaml.safe_dump(content, sort_keys=False))


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.mark.slow
def test_an_interrupted_run_of_an_older_version_goes_on(run, tmp_path):
    old = RunDir(tmp_path / "old")
    steps: list[int] = []

    def die() -> None:
        steps.append(1)
        if len(steps) == 5:
            raise KilledError

    with pytest.raises(KilledError):
        search(recipe(), old, Machine("cpu", Progress(advance=die), workers=1))
    assert old.checkpoint("search").exists()
    made_old(old)
    assert "criterion" not in old.recipe.read_text()
    assert json.loads(old.job.read_text()) == {"job": "search"}
    search(recipe(), old, MACHINE)
    assert old.supernet.read_bytes() == run.supernet.read_bytes()
    with refused(RunError, old.path):
        search(recipe("criterion.name=taylor"), old, MACHINE)


@pytest.mark.slow
def test_a_sweep_of_an_older_version_goes_on(run, tmp_path):
    out = RunDir(tmp_path / "sweep")
    how = Measure(inherited=False, latency_batch=0)
    sweep(recipe(), run, out, SweepRequest(shares=(0.6,)), how, MACHINE)
    made_old(out)
    before = out.pareto.read_text().splitlines()
    sweep(recipe(), run, out, SweepRequest(shares=(0.4,)), how, MACHINE)
    assert len(out.pareto.read_text().splitlines()) == len(before) + 1


@pytest.mark.parametrize("stage", [search, train])
def test_without_data_no_folder_is_left_behind(tmp_path, stage):
    out = RunDir(tmp_path / "runs" / "new")
    wanted = recipe("data.name=300w", "data.options={}", f"data.root={tmp_path / 'nowhere'}")
    with refused(DataError, tmp_path / "nowhere"):
        stage(wanted, out, MACHINE)
    assert not out.path.exists()


def test_a_search_starts_from_given_weights_and_knows_them_again(run, tmp_path):
    out = RunDir(tmp_path / "from-weights")
    still = recipe("search.epochs=0", "finetune.epochs=0")
    search(still, out, MACHINE, run.supernet)
    tensors, _ = rundir.read_tensors(out.supernet)
    wanted, _ = rundir.read_tensors(run.supernet)
    assert all(tensors[name].equal(value) for name, value in wanted.items())
    with refused(RunError, out.path):
        search(still, out, MACHINE)
    with refused(RunError, run.slim):
        search(still, RunDir(tmp_path / "other"), MACHINE, run.slim)
    assert not (tmp_path / "other").exists()


def test_factors_by_another_criterion_lie_beside_the_runs_own(run, tmp_path):
    copy = RunDir(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    own = copy.factors.read_bytes()
    found, path = score(recipe(), copy, Criterion(name="taylor"), MACHINE)
    assert path.name == "factors-taylor.json"
    assert copy.factors.read_bytes() == own
    assert Factors.from_json(path.read_text()) == found
    assert found.provenance["criterion"] == "taylor"
    assert found.importance != found.alpha

    first = path.read_bytes()
    gone = recipe("data.name=300w", "data.options={}", f"data.root={tmp_path / 'nowhere'}")
    assert score(gone, copy, Criterion(name="taylor"), MACHINE) == (found, path)  # kept, so that no data is needed
    assert score(gone, copy, Criterion(name="alpha_gain"), MACHINE)[0].importance  # needs no data at all
    shutil.copy(run.slim, copy.supernet)  # other weights
    with refused(RunError, copy.supernet):
        score(recipe(), copy, Criterion(name="taylor"), MACHINE)
    assert path.read_bytes() == first


def negative(net, context, *, value: float = -1.0):
    return dict.fromkeys(net.graph.prunable, value)


def test_a_criterion_that_breaks_its_contract_is_told(run):
    with refused(GraphError, "test_stage_search:negative", -1.0):
        score(recipe(), run, Criterion(name="test_stage_search:negative", options={"value": -1.0}), MACHINE)


def without_an_edge(net, context):
    return dict.fromkeys(net.graph.prunable[1:], 1.0)


@pytest.mark.slow
def test_a_criterion_that_breaks_its_contract_is_told_by_a_search_that_rates_on_the_way(run, tmp_path):
    hot = ("search.name=hot", "search.options={macs: 3.0e5}", "search.epochs=2", "finetune.epochs=0")
    for number, (criterion, facts) in enumerate({
        "{name: 'test_stage_search:negative', options: {value: .nan}}": ["test_stage_search:negative", "nan"],
        "{name: 'test_stage_search:without_an_edge'}": ["test_stage_search:without_an_edge", "1 are missing"],
    }.items()):  # fmt: skip
        with refused(GraphError, *facts):
            search(recipe(*hot, f"criterion={criterion}"), RunDir(tmp_path / str(number)), MACHINE)
        assert not RunDir(tmp_path / str(number)).supernet.exists()  # it is told before the rest is trained


@pytest.mark.slow
def test_no_stage_repeats_the_batches_of_the_one_before(tmp_path, monkeypatch):
    drawn: list[int] = []
    real = engine._Plan.batches

    def hashed(self, *args):
        for batch in real(self, *args):
            drawn.append(hash(batch.images_B3HW.numpy().tobytes()))
            yield batch

    monkeypatch.setattr(engine._Plan, "batches", hashed)
    epochs = ("search.epochs=2", "finetune.epochs=2", "distill.epochs=2")
    how = (*epochs, "search.options.warmup_epochs=0", "distill.peer=false")
    run = RunDir(tmp_path / "run")
    search(recipe(*how), run, MACHINE)
    out = RunDir(tmp_path / "distilled")
    distill(recipe(*how), out, MACHINE, read_arch(run.arch), run.supernet, None, str(run.path))
    assert len(drawn) > 6
    assert len(set(drawn)) == len(drawn)


NONE_HELD_OUT = "data.held_out=1e-9"


@pytest.mark.slow
def test_nothing_is_chosen_by_held_out_faces_where_there_are_none(run, tmp_path):
    facts = ("synthetic", "48 training faces", "data.held_out", "1e-09")
    with refused(DataError, *facts):
        score(recipe(NONE_HELD_OUT), run, Criterion(name="leave_one_out"), MACHINE)
    draws = ("search.epochs=0", f"search.name={plugins.CHOOSERS[1]}", "search.options={macs: 3.0e5, count: 2}")
    with refused(DataError, *facts):
        search(recipe(NONE_HELD_OUT, *draws), RunDir(tmp_path / "search"), MACHINE, run.supernet)
    for wanted, measure in (
        (SweepRequest(count=2), Measure(epochs=1, best=1)),
        (SweepRequest(count=2, refine=1), Measure()),
    ):
        with refused(DataError, *facts):
            sweep(recipe(NONE_HELD_OUT), run, RunDir(tmp_path / "sweep"), wanted, measure, MACHINE)
    assert not (tmp_path / "sweep").exists()
    hot = ("search.name=hot", "search.options={macs: 3.0e5}", "finetune.epochs=0")
    by_loss = "criterion={name: ablation, options: {batches: 1}}"  # which asks no held-out face
    search(recipe(NONE_HELD_OUT, *hot, by_loss), RunDir(tmp_path / "hot"), MACHINE)
    with refused(DataError, *facts, "student"):
        distill(
            recipe(NONE_HELD_OUT), RunDir(tmp_path / "out"), MACHINE, read_arch(run.arch), run.supernet, str(run.path)
        )
    assert not (tmp_path / "out").exists()


def command(*args: object) -> str:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.output


def test_score_and_prune_by_criterion_from_the_command_line(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    said = command("score", copy, "--criterion", "taylor", "--quiet", "--device", "cpu", "--workers", 1)
    assert str(copy / "factors-taylor.json") in said
    said = command("score", copy, "--criterion", "alpha", "--quiet", "--device", "cpu", "--workers", 1)
    assert f"factors: {copy / 'factors.json'}" in said  # the run's own criterion, by which it has factors
    wanted = ["--share", 0.7, "--pruner", "share", "--device", "cpu", "--quiet"]
    command("prune", copy, *wanted, "--criterion", "taylor", "--out", tmp_path / "taylor")
    command("prune", copy, *wanted, "--criterion", "alpha_gain", "--out", tmp_path / "gain")
    command("prune", copy, *wanted, "--data-root", tmp_path, "--out", tmp_path / "own")
    assert recipes.load(str(tmp_path / "own" / "recipe.yaml")).data.root == tmp_path.resolve()
    assert (copy / "factors-alpha_gain.json").exists()
    assert not (copy / "factors-alpha.json").exists()
    assert recipes.load(str(tmp_path / "taylor" / "recipe.yaml")).criterion.name == "taylor"
    least = {
        name: json.loads((tmp_path / name / "arch.json").read_text())["provenance"]["least_kept_importance"]
        for name in ("taylor", "gain", "own")
    }
    assert least["taylor"] not in (least["gain"], least["own"])
    own, gain = ((copy / f"factors{name}.json").read_text() for name in ("", "-alpha_gain"))
    assert own != gain  # although the gain of the least edge that is kept may be 1


@pytest.mark.slow
def test_finished_factors_are_taken_as_they_are_unless_asked_for_again(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    path = RunDir(tmp_path / "run").factors_by("taylor")

    def is_new(*more: object) -> bool:
        wanted = ("--criterion", "taylor", "--option", "batches=1", "--quiet", "--device", "cpu", "--workers", 1)
        command("score", tmp_path / "run", *wanted, *more)
        found = read_factors(path)
        path.write_text(replace(found, provenance={**found.provenance, "created": "long ago"}).to_json())
        return found.provenance["created"] != "long ago"

    assert is_new()
    assert not is_new()
    assert not is_new("--data-root", tmp_path / "gone")
    assert is_new("--again")
    assert is_new("--option", "batches=2")
    assert is_new("--set", "training.batch=8")


def test_the_seed_is_an_option_of_search_train_and_distill(run, monkeypatch):
    seen = []

    def note(recipe, run, *others, **named):
        seen.append((recipe.seed, run.path.name))

    monkeypatch.setattr("nasface.stages.search.run.search", note)
    monkeypatch.setattr("nasface.stages.train.train", note)
    monkeypatch.setattr("nasface.stages.distill.run.distill", note)
    for name, arch in (("search", []), ("train", []), ("distill", ["--arch", run.arch])):
        monkeypatch.setattr(f"nasface.cli.{name}.show_run", lambda final, run, as_json: None)
        command(name, "--recipe", "demo", *arch, "--set", "seed=3", "--seed", 7, "--quiet")
    assert seen == [
        (7, "hrflex-synthetic-seed7"), (7, "hrflex-synthetic-train-seed7"), (7, f"{run.path.name}-distilled"),
    ]  # fmt: skip


def test_a_network_starts_from_its_own_weights_where_it_has_some(run, tmp_path, monkeypatch):
    started: list[Path] = []

    def note(recipe, run, machine, arch=None, weights=None, *others, **named):
        started.append(weights)

    for name, stage in (("train", "train.train"), ("distill", "distill.run.distill")):
        monkeypatch.setattr(f"nasface.stages.{stage}", note)
        monkeypatch.setattr(f"nasface.cli.{name}.show_run", lambda final, run, as_json: None)
    alone = tmp_path / "arch.json"
    alone.write_bytes(run.arch.read_bytes())
    for name in ("train", "distill"):
        for arch in (run.arch, alone):
            command(name, "--arch", arch, "--out", tmp_path / "out", "--quiet")
    command("train", "--arch", run.arch, "--scratch", "--out", tmp_path / "out", "--quiet")
    assert started == [run.slim, run.supernet, run.slim, run.supernet, None]


def test_a_process_that_comes_second_leaves_the_folder_of_the_first(tmp_path):
    run, how = RunDir(tmp_path / "run"), recipe()
    with reserved(run, how, {"job": "search"}):
        with pytest.raises(RunBusyError), reserved(run, how, {"job": "search"}):
            pass
        assert (run.path / ".lock").exists()
    assert not run.path.exists()  # never claimed
