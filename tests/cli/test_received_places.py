"""Nothing is written outside --out: names in files, links in received folders, and files of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nasface import recipe as recipes
from nasface.cli import main
from nasface.errors import NasfaceError, RecipeError, RunError
from nasface.places import below, checked_name, is_own, name_fault
from nasface.report.html import write_report
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, Stage
from nasface.stages.experiment.plan import read_experiment
from nasface.stages.experiment.run import run_experiment
from nasface.stages.predict.run import predict_files
from nasface.stages.search.run import search
from nasface.stages.select import select
from nasface.stages.sweep.book import Study
from nasface.stages.workspace import check_free, claim, working_in
from tests.refusal import command_refuses, names, refused
from tests.searched import MACHINE, recipe

BAD_NAMES = (
    "../up",
    "..",
    ".",
    "/tmp/abs",
    "a/b",
    "a\\b",
    "C:x",
    "",
    ".hidden",
    "x" * 101,
    "nul\0",
    "line\n",
    "\ud800",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_no_path(name: str):
    assert name_fault(name)
    with refused(RunError, "study.log"):
        checked_name(name, "study.log")


@pytest.mark.parametrize("name", ["small", "half width", "e012-0a1b2c3d", "größer", "none-20", "v1.2+x"])
def test_names_that_people_give_are_taken(name: str):
    assert not name_fault(name)
    assert checked_name(name, "") == name


def test_names_of_a_runs_own_files_are_known_in_any_case(run: RunDir):
    assert all(is_own(path.name) for path in run.path.iterdir() if path.name != ".lock")
    own = ("Recipe.YAML", "factors-taylor.json", "student-2.safetensors", "checkpoints", "networks", "study.log.lock")
    assert all(map(is_own, own))
    assert not any(map(is_own, ("sweep", "small", "recipe", "errors")))


PLANS = {
    "runs": lambda name: {"runs": {name: {}}},
    "sweeps": lambda name: {"runs": {"a": {}}, "sweeps": {name: {"count": 1}}},
    "distill": lambda name: {"runs": {"a": {}}, "distill": {name: {}}},
    "teachers": lambda name: {"runs": {"a": {}}, "teachers": {name: {}}},
    "rows": lambda name: {"comparison": {"budgets": [1e6], "reference": name, "rows": {name: {}}}},
}


def planned(folder: Path, plan: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "experiment": plan}))
    return path


@pytest.mark.parametrize("place", PLANS)
@pytest.mark.parametrize("name", BAD_NAMES[:8])
def test_names_in_an_experiment_are_names(tmp_path: Path, place: str, name: str):
    path = planned(tmp_path, PLANS[place](name))
    names(command_refuses("experiment", path, "--out", tmp_path / "out"), path, "name")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plan", "fact"),
    [
        ({"runs": {"a": {}}, "sweeps": {"checkpoints": {"count": 1}}}, "checkpoints"),
        ({"runs": {"a": {}}, "distill": {"Recipe.yaml": {}}}, "Recipe.yaml"),
        ({"runs": {"a": {}}, "sweeps": {"same": {"count": 1}}, "distill": {"same": {}}}, "same"),
        ({"runs": {"teacher": {}}, "teacher": {}}, "teacher"),
        ({"runs": {"teacher-b": {}}, "teachers": {"b": {}}}, "teacher-b"),
    ],
)
def test_names_in_an_experiment_do_not_collide(tmp_path: Path, plan: object, fact: str):
    with refused(RecipeError, fact, "rename"):
        read_experiment(str(planned(tmp_path, plan)), None)


def test_paths_in_files_lead_into_the_folder(tmp_path: Path):
    assert below(tmp_path, "networks/a/arch.json", "pareto.csv") == tmp_path / "networks/a/arch.json"
    for path in ("../arch.json", "/etc/passwd", "networks/../../x", "..\\x", ""):
        with refused(RunError, "pareto.csv", tmp_path):
            below(tmp_path, path, "pareto.csv")


def test_the_table_of_a_sweep_names_networks_of_the_sweep(tmp_path: Path):
    rows = [
        f"network,state,params,macs,arch,{HELD_OUT.at(Stage.FINETUNED).column}",
        "supernet,done,9,9,,0.1",
        "a,done,5,5,../../other/arch.json,0.1",
    ]
    (tmp_path / "pareto.csv").write_text("\n".join(rows))
    with refused(RunError, "pareto.csv", "../../other/arch.json"):
        select(tmp_path, max_macs=10).arch  # noqa: B018


def test_the_study_of_a_sweep_names_networks_of_the_sweep(tmp_path: Path):
    import optuna

    study = Study.open(tmp_path / "sweep", 0) if (tmp_path / "sweep").mkdir() is None else None
    assert study is not None
    attributes = {"network": "../../outside", "options": {}, "error": ""}
    study.study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs=attributes))
    with refused(RunError, "study.log", "../../outside"), study.taken():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]


def test_the_weights_of_an_architecture_are_a_file_beside_it_or_in_its_run(run: RunDir, tmp_path: Path):
    content = json.loads(run.arch.read_text())
    content["provenance"] |= {"weights": "../secret.safetensors", "weights_sha256": None}
    (tmp_path / "arch.json").write_text(json.dumps(content))
    names(command_refuses("evaluate", "--arch", tmp_path / "arch.json"), "arch.json", "../secret.safetensors")


JOB = {"job": "search"}


@pytest.mark.parametrize(
    "name", ["log.txt", "study.log", "recipe.yaml", "job.json", ".lock", "metrics.csv", "errors.csv"]
)
@pytest.mark.parametrize("there", [True, False])
def test_no_file_is_written_through_a_link(tmp_path: Path, name: str, there: bool):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(victim)
    run = RunDir(tmp_path / "run")
    with refused(RunError, run.path / name, "symbolic link", "--out"):
        search(recipe(), run, MACHINE)
    with refused(RunError, run.path / name, "symbolic link"), working_in(run, recipe(), MACHINE, JOB, shared=True):
        pass
    assert victim.read_text() == "mine" if there else not victim.exists()
    assert [path.name for path in run.path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["checkpoints", "networks", "events", "networks/a", "checkpoints/search.safetensors"])
def test_no_folder_of_a_run_is_a_link(tmp_path: Path, name: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with refused(RunError, link, "symbolic link"):
        check_free(RunDir(tmp_path / "run"), recipe(), JOB)
    assert not list(outside.iterdir())


def test_a_link_that_the_person_names_is_followed(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    claim(RunDir(tmp_path / "runs"), recipe(), JOB)
    assert RunDir(tmp_path / "disk").recipe.exists()


def test_a_sweep_or_a_run_of_an_experiment_is_no_link_either(run: RunDir, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (run.path / "sweep").symlink_to(outside)
    try:
        names(command_refuses("sweep-thresholds", run.path, "--count", 1), run.path / "sweep", "symbolic link")
    finally:
        (run.path / "sweep").unlink()
    out = tmp_path / "out"
    out.mkdir()
    (out / "a-0").symlink_to(outside)
    plan = read_experiment(str(planned(tmp_path, {"runs": {"a": {}}})), None)
    with refused(RunError, out / "a-0", "symbolic link"):
        run_experiment(plan, out, MACHINE)
    rows = {"hot": {"search": {"name": "hot"}, "criterion": {"name": "ablation"}}}
    plan = read_experiment(
        str(planned(tmp_path, {"comparison": {"budgets": [1e6], "reference": "hot", "rows": rows}})), None
    )
    (out / "hot-1M-0").symlink_to(outside)
    with refused(RunError, out / "hot-1M-0", "symbolic link"):
        run_experiment(plan, out, MACHINE)
    assert not list(outside.iterdir())


def test_the_figures_of_a_report_are_not_written_through_a_link(run: RunDir, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "faces.svg").touch()
    (tmp_path / "figures").symlink_to(tmp_path / "outside")
    with refused(RunError, tmp_path / "figures", "symbolic link"):
        write_report(run.path, tmp_path / "report.html", faces=False)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["faces.svg"]


@pytest.mark.parametrize("name", ["recipe.yaml", "errors.csv", "log.txt", "metrics.csv", "pareto.csv", "job.json"])
def test_a_file_of_ones_own_is_not_replaced(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text('{"mine": 1}')
    names(command_refuses("search", "--recipe", "demo", "--out", "."), name, "--out")
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file() and path.name != ".lock"} == {
        name: '{"mine": 1}'
    }


def test_a_folder_that_a_killed_command_has_claimed_is_nasfaces(tmp_path: Path):
    run = RunDir(tmp_path)
    claim(run, recipe(), JOB)
    run.log.write_text("begun")
    claim(run, recipe("seed=1"), JOB)
    assert recipes.load(str(run.recipe)).seed == 1
    run.recipe.unlink()  # killed between the two files
    claim(run, recipe("seed=2"), JOB)


def test_results_of_ones_own_are_not_replaced_by_those_of_an_experiment_or_a_prediction(tmp_path: Path):
    for own in ("results.csv", "figure6-a-held_out_nme.svg", "comparison-nme.png"):
        (tmp_path / own).write_text("mine")
        plan = read_experiment(str(planned(tmp_path, {"runs": {"a": {}}})), None)
        with refused(RunError, tmp_path / own, "--out"):
            run_experiment(plan, tmp_path, MACHINE)
        assert (tmp_path / own).read_text() == "mine"
        (tmp_path / own).unlink()
    for name, text in (("landmarks.csv", "mine"), ("landmarks.json", "[1, 2]")):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text(text)
        with refused(RunError, folder / name, "--out"):
            predict_files(None, [], folder)  # type: ignore[arg-type]
        assert (folder / name).read_text() == text


def test_a_prediction_replaces_an_earlier_one(run: RunDir, tmp_path: Path):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.png")
    words = ["predict", "--model", run.path, tmp_path / "a.png", "--detector", "whole", "--min-score", "-1e9"]
    for _ in range(2):
        done = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "out")], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    (tmp_path / "out" / "landmarks.json").unlink()
    with pytest.raises(NasfaceError):
        predict_files(None, [], tmp_path / "out")  # type: ignore[arg-type]
