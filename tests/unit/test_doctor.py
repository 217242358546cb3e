"""What doctor finds: each damage by the file in which it is, and nothing where nothing is damaged."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from safetensors.torch import load_file, save_file

from nasface import plugins, rundir
from nasface.cli import main
from nasface.errors import RunError
from nasface.rundir import RunDir
from nasface.stages.doctor import folder, here, study
from nasface.stages.doctor.finding import Finding
from nasface.stages.search.run import search
from nasface.stages.studies.storage import opened
from tests.refusal import names, refused
from tests.searched import recipe, stopping_after

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(run: RunDir, tmp_path: Path) -> RunDir:
    """A searched run that a test may damage."""
    shutil.copytree(run.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def wrong(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.detail for finding in findings if finding.state == "wrong"}


def of(findings: list[Finding], what: str) -> Finding:
    (found,) = (finding for finding in findings if finding.what == what)
    return found


def test_nothing_is_wrong_with_a_finished_run_and_nothing_is_changed(copy: RunDir):
    before = {path: path.stat().st_mtime_ns for path in copy.path.rglob("*") if path.name != ".lock"}
    found = list(folder.examine(copy.path))
    assert not wrong(found)
    assert {path: path.stat().st_mtime_ns for path in copy.path.rglob("*") if path.name != ".lock"} == before
    assert "hrflex on synthetic" in of(found, "recipe.yaml").detail
    for what in ("arch.json", "factors.json", "supernet.safetensors", "slim.safetensors", "metrics.json", "errors.csv"):
        assert of(found, what).state == "ok"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def without_numbers(path: Path) -> None:
    tensors, meta = load_file(path), rundir.read_meta(path)
    first = next(name for name in tensors if tensors[name].is_floating_point())
    tensors[first] = torch.full_like(tensors[first], torch.nan)
    save_file(tensors, path, {"nasface": json.dumps(meta)})


def of_another_graph(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"graph_digest": "0" * 16}))


def misspelt(path: Path) -> None:
    path.write_text(path.read_text().replace("epochs:", "epoch:", 1))


def of_another_recipe(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe_digest": "0" * 16}))


def longer_than_the_header(path: Path) -> None:
    path.write_text(path.read_text() + "1,2" * 100 + "\n")


@pytest.mark.parametrize(
    ("name", "damage", "fact"),
    [
        ("slim.safetensors", cut, "not a readable safetensors file"),
        ("supernet.safetensors", without_numbers, "not finite"),
        ("arch.json", of_another_graph, "graph"),
        ("factors.json", of_another_graph, "graph"),
        ("factors.json", cut, "JSON"),
        ("recipe.yaml", misspelt, "epoch"),
        ("metrics.json", cut, "not valid JSON"),
        ("errors.csv", longer_than_the_header, "cells"),
    ],
)
def test_what_is_damaged_is_named(copy: RunDir, name: str, damage: Callable[[Path], None], fact: str):
    damage(copy.path / name)
    faults = wrong(list(folder.examine(copy.path)))
    assert name in faults, faults
    names(faults[name], fact)


def test_figures_of_another_recipe_are_worth_a_note(copy: RunDir):
    of_another_recipe(copy.metrics)
    found = list(folder.examine(copy.path))
    assert not wrong(found)
    (note,) = (finding for finding in found if finding.state == "note")
    names(note.detail, copy.metrics, "another recipe")


def test_a_checkpoint_that_has_changed_is_named(cached: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = RunDir(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        search(recipe(), place, stopping_after(1))
    (path,) = (place.path / "checkpoints").iterdir()
    what = f"checkpoints/{path.name}"
    assert "after epoch 1" in of(list(folder.examine(place.path)), what).detail
    monkeypatch.chdir(path.parent)
    assert not wrong(list(folder.examine(Path())))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    names(wrong(list(folder.examine(place.path)))[what], path, "has changed")


def test_weights_that_an_architecture_was_pruned_from_must_still_be_there(copy: RunDir):
    copy.slim.unlink()
    assert not wrong(list(folder.examine(copy.path)))
    arch = json.loads(copy.arch.read_text())
    arch["provenance"] |= {"weights_sha256": "0" * 64, "run": str(copy.path)}
    copy.arch.write_text(json.dumps(arch))
    names(wrong(list(folder.examine(copy.path)))["arch.json"], "has changed")


@pytest.mark.skipif(os.name != "posix", reason="links need no rights there")
def test_links_leftovers_and_other_processes_are_named(copy: RunDir):
    elsewhere = copy.path.parent / "log.txt"
    shutil.move(copy.log, elsewhere)
    copy.log.symlink_to(elsewhere)
    (copy.path / ".slim.safetensors.0123456789ab.partial").mkdir()
    (copy.path / ".slim.safetensors.0123456789ab.partial" / "slim.safetensors").write_bytes(b"half")
    with FileLock(copy.path / ".lock"):
        found = list(folder.examine(copy.path))
    assert list(wrong(found)) == ["log.txt"]
    (copy.path / ".lock").unlink()
    elsewhere.write_text("mine")
    (copy.path / ".lock").symlink_to(elsewhere)
    assert list(wrong(list(folder.examine(copy.path)))) == [".lock", "log.txt"]
    assert elsewhere.read_text() == "mine"
    notes = {finding.what: finding.detail for finding in found if finding.state == "note"}
    assert "working in this folder" in notes[".lock"]
    assert "killed" in notes[".slim.safetensors.0123456789ab.partial/slim.safetensors"]


def test_weights_of_other_programs_and_pipes_do_no_harm(copy: RunDir):
    save_file({"a": torch.zeros(1)}, copy.path / "other.safetensors")
    assert not wrong(list(folder.examine(copy.path)))
    if hasattr(os, "mkfifo"):
        os.mkfifo(copy.study)
        names(wrong(list(folder.examine(copy.path)))["study.log"], "pipe")


def test_a_folder_that_is_none_or_not_ours_is_refused(tmp_path: Path):
    with refused(RunError, tmp_path / "nowhere"):
        list(folder.examine(tmp_path / "nowhere"))
    (tmp_path / "letter.txt").write_text("Dear reader")
    with refused(RunError, tmp_path, "nothing"):
        list(folder.examine(tmp_path))


def test_a_file_cannot_name_code(copy: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger_of_doctor.py").write_text("raise SystemExit('it ran')")
    arch = json.loads(copy.arch.read_text())
    copy.arch.write_text(json.dumps(arch | {"space": "stranger_of_doctor:space"}))
    names(wrong(list(folder.examine(copy.path)))["arch.json"], "stranger_of_doctor:space", "--allow-plugin")


def test_the_machine_has_what_nasface_asks_for(own_cache: Path):
    found = list(here.examine())
    assert not wrong(found)
    assert of(found, "torch").detail
    assert "hrflex" in of(found, "search space, nasface").detail
    assert "68 landmarks" in of(found, "face68").detail


def test_a_missing_package_a_broken_plugin_and_changed_faces_are_named(
    run: RunDir, folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(folder / "cache", own_cache, dirs_exist_ok=True)
    (images,) = own_cache.glob("prepared/*/train-images.npy")
    pixels = np.lib.format.open_memmap(images, mode="r+")
    pixels[0, 0, 0, 0] ^= 1
    pixels.flush()
    asked = ["absent>=1", "numpy<1", "torch>=2", "unheard; extra == 'cloud'"]
    monkeypatch.setattr(here, "requires", lambda package: asked)
    known = plugins.names("pruners")
    broken = EntryPoint("broken", "no_such_module:prune", "nasface.pruners")
    monkeypatch.setattr(plugins, "names", lambda group: known | {"broken": broken} if group == "pruners" else {})
    found = list(here.examine())
    faults = wrong(found)
    names(faults["absent"], "not installed", "pip install 'absent>=1'")
    names(faults["numpy"], np.__version__, "<1")
    assert "torch" not in faults
    assert of(found, "nasface[cloud]").state == "note"
    names(faults["pruner 'broken' of ?"], "no_such_module")
    names(of(found, images.parent.name).detail, "train-images.npy has changed")


def test_a_checkout_that_is_not_installed_is_named(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    def absent(package: str) -> list[str]:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(here, "requires", absent)
    names(wrong(list(here.examine()))["installation"], "pip install .")


def test_every_dataset_looks_into_a_folder(tmp_path: Path, own_cache: Path):
    found = [finding for finding in here.examine(tmp_path) if finding.section == "datasets"]
    assert of(found, "300w").state == "note"
    assert wrong(found).keys() == {str(tmp_path)}
    assert wrong([*here.examine(tmp_path / "nowhere")]).keys() == {str(tmp_path / "nowhere")}


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_study_answers_and_says_what_was_given_up(kind: str, tmp_path: Path):
    path = tmp_path / ("study.log" if kind == "journal" else "study.db")
    where = str(path) if kind == "journal" else f"sqlite:///{path}"
    assert wrong(list(study.examine(where))).keys() == {where}  # there is none yet, and none is made
    assert not path.exists()
    with opened(where) as storage:
        made = optuna.create_study(storage=storage, study_name="mine")
        for part in ("at work", "lost", "lost and done", "lost and done", None):
            made.enqueue_trial({}, {"part": part} if part else {"network": "t0.5"})
        made.ask()
        for error in ("diverged", "diverged", None, "disconnected"):
            trial = made.ask()
            if error:
                trial.set_user_attr("error", error)
            made.tell(trial, None if error else 1.0, optuna.trial.TrialState.FAIL if error else None)
    found = list(study.examine(where))
    assert found[0].detail.endswith("studies: 1")
    assert of(found, "mine").detail == "trials: 1 at work, 3 failed or interrupted, 1 finished"
    assert of(found, "mine, trial 0").state == "note"
    assert wrong(found) == {"mine, lost": "was given up: diverged"}
    path.write_bytes(b"\x00" * 100)
    assert list(wrong(list(study.examine(where))))


@pytest.mark.parametrize(
    "where",
    ["http://[", "grpc://[", "grpc://host", "postgresql://h:abc/db", "sqlite:////nowhere/study.db", "oracle://x"],
)
def test_a_storage_that_cannot_be_reached_is_a_finding(where: str):
    (found,) = study.examine(where)
    assert (found.state, "\n" in found.detail) == ("wrong", False)


@pytest.mark.parametrize("line", ['{"op_code": 99}', '{"op_code":0}', '{"op_code":0,"study_name":1,"directions":5}'])
def test_a_journal_of_something_else_is_a_finding(line: str, tmp_path: Path):
    path = tmp_path / "study.log"
    path.write_text(line.replace(": ", ":") + "\n" + "[1]\n")
    assert list(wrong(list(study.examine(str(path))))) == [str(path)]


def test_a_broken_last_line_that_optuna_forgives_once_is_named(copy: RunDir):
    with opened(str(copy.study)) as storage:
        optuna.create_study(storage=storage)
    assert not wrong(list(folder.examine(copy.path)))
    with copy.study.open("a") as file:
        file.write('{"op_code":')
    assert "torn last line" in of(list(folder.examine(copy.path)), "study.log").detail
    with copy.study.open("a") as file:
        file.write("\n")
    assert list(wrong(list(folder.examine(copy.path)))) == ["study.log"]


def test_an_empty_database_stays_empty(tmp_path: Path):
    path = tmp_path / "study.db"
    path.touch()
    (found,) = study.examine(f"sqlite:///{path}")
    assert (found.state, path.stat().st_size) == ("ok", 0)


OTHERS = ["CREATE TABLE studies (id INTEGER, title TEXT)", "CREATE TABLE version_info (version TEXT)"]
ALIKE = [
    "CREATE TABLE studies (study_id INTEGER, study_name TEXT)",
    "CREATE TABLE version_info (version_info_id INTEGER, schema_version INTEGER, library_version TEXT)",
]


@pytest.mark.parametrize(("tables", "fact"), [(OTHERS, "study_id"), (ALIKE, "trials")])
def test_tables_of_another_program_are_a_finding_and_stay_as_they_are(tables: list[str], fact: str, tmp_path: Path):
    path = tmp_path / "others.db"
    with closing(sqlite3.connect(path)) as database:
        for table in tables:
            database.execute(table)
    before = path.read_bytes()
    result = CliRunner().invoke(main, ["doctor", "--study", f"sqlite:///{path}", "--json"])
    (found,) = json.loads(result.stdout)["findings"]
    assert (result.exit_code, found["state"], "\n" in found["detail"]) == (2, "wrong", False)
    names(found["detail"], path, fact)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    ["UPDATE alembic_version SET version_num = 'v99'", "UPDATE trial_user_attributes SET value_json = '{'"],
)
def test_a_database_that_optuna_cannot_read_is_a_finding(change: str, tmp_path: Path):
    where = f"sqlite:///{tmp_path}/study.db"
    with opened(where) as storage:
        optuna.create_study(storage=storage, study_name="mine").enqueue_trial({}, {"part": "one"})
    assert not wrong(list(study.examine(where)))
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        assert database.execute(change).rowcount
    faults = wrong(list(study.examine(where)))
    names(faults[where], where)
    assert "\n" not in faults[where]


def test_the_command_ends_with_2_if_something_is_wrong(copy: RunDir):
    good = CliRunner().invoke(main, ["doctor", str(copy.path), "--json"])
    assert (good.exit_code, json.loads(good.stdout)["ok"]) == (0, True)
    cut(copy.slim)
    bad = CliRunner().invoke(main, ["doctor", str(copy.path), "--json"])
    assert (bad.exit_code, json.loads(bad.stdout)["ok"]) == (2, False)
    shown = CliRunner().invoke(main, ["doctor", str(copy.path)])
    assert shown.exit_code == 2
    assert "slim.safetensors" in shown.output
    (copy.path / "checkpoints" / "\x1b]0;owned\x07.safetensors").write_bytes(b"")
    assert "\x1b]0" not in CliRunner().invoke(main, ["doctor", str(copy.path)], color=True).output
    assert "1 wrong" in shown.output
