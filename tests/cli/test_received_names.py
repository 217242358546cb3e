"""No file runs code: every field that names a plug-in, in recipes, run folders, weights, sweeps and experiments."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

import nasface
from nasface import importing, plugins, rundir
from nasface import recipe as recipes
from nasface.cli import main
from nasface.errors import NasfaceError, RecipeError
from nasface.model.build import build_net
from nasface.model.card import Card
from nasface.model.files import at, write_net
from nasface.model.source import read_arch, read_factors, read_source, run_recipe
from nasface.report.content import read
from nasface.rundir import RunDir
from nasface.stages.distill.teacher import load_teacher
from nasface.stages.experiment.plan import read_experiment
from tests.received import Payload, leaves, payload, replaced
from tests.refusal import command_refuses, names, refused
from tests.searched import recipe
from tests.tiny import supernet

pytestmark = pytest.mark.slow

SPACE = {"width": 4, "depth": 1, "stages": 4, "resolutions": 3, "stem_channels": 8}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Payload:
    """Code in the working directory, where 'module:attr' is found."""
    monkeypatch.chdir(tmp_path)
    return payload(tmp_path)


def written(folder: Path, content: object, name: str = "received.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


SECTIONS = {
    "space": lambda name: {"space": {"name": name}},
    "data": lambda name: {"data": {"name": name}},
    "search": lambda name: {"search": {"name": name}},
    "criterion": lambda name: {"criterion": {"name": name}},
    "criterion of version 0.1": lambda name: {"search": {"options": {"importance": name}}},
    "prune": lambda name: {"prune": {"name": name}},
}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("extended", [False, True])
def test_a_recipe_names_installed_plugins_only(tmp_path: Path, code: Payload, section: str, extended: bool):
    file = path = written(tmp_path, {"extends": "demo", **SECTIONS[section](code.name)})
    if extended:
        path = written(tmp_path, {"extends": str(file)}, "b.yaml")
    with refused(RecipeError, file, code.name, f"--allow-plugin {code.name}", "entry point"):
        recipes.load(str(path))
    names(command_refuses("search", "--recipe", path, "--out", tmp_path / "out"), file, code.name, "--allow-plugin")
    assert not code.ran


def test_the_teacher_of_a_recipe_is_an_installed_plugin_or_a_file(tmp_path: Path, code: Payload):
    path = written(tmp_path, {"extends": "demo", "distill": {"teacher_from": code.name}})
    found = recipes.load(str(path))
    with refused(RecipeError, path, code.name):
        load_teacher(found.distill.teacher_from or "", 68, found, torch.device("cpu"))
    assert not code.ran


RUN = {
    "runs": lambda section: {"runs": {"a": section}},
    "teacher": lambda section: {"runs": {"a": {}}, "teacher": section},
    "teachers": lambda section: {"runs": {"a": {}}, "teachers": {"b": section}},
    "rows": lambda section: {"comparison": {"budgets": [1e6], "reference": "a", "rows": {"a": section}}},
}


@pytest.mark.parametrize("place", RUN)
@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "data"])
def test_an_experiment_names_installed_plugins_only(tmp_path: Path, code: Payload, place: str, section: str):
    budget = {"name": "budget", "options": {"macs": 1_000_000}}
    content = {"extends": "demo", "prune": budget, "experiment": RUN[place](SECTIONS[section](code.name))}
    path = written(tmp_path, content)
    with refused(RecipeError, code.name, "--allow-plugin"):
        read_experiment(str(path), None)
    assert not code.ran


def test_sweeps_and_variants_of_an_experiment_do_too(tmp_path: Path, code: Payload):
    sweep = {"runs": {"a": {}}, "sweeps": {"s": {"shares": [0.5], "pruner": code.name}}}
    path = written(tmp_path, {"extends": "demo", "experiment": sweep})
    with refused(RecipeError, path, code.name):
        read_experiment(str(path), None)
    variant = {"runs": {"a": {}}, "distill": {"v": {"teacher_from": code.name}}}
    path = written(tmp_path, {"extends": "demo", "experiment": variant})
    found = read_experiment(str(path), None).recipe({}, 0, variant["distill"]["v"])
    with refused(RecipeError, path, code.name):
        load_teacher(found.distill.teacher_from or "", 68, found, torch.device("cpu"))
    assert not code.ran


def test_no_text_of_a_run_folder_runs_code(run: RunDir, tmp_path: Path, code: Payload):
    """Each text of each file in turn is the name of the code; whatever reads the folder must not run it."""
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    tried = 0
    for file in (copy.recipe, copy.arch, copy.factors, copy.job, copy.metrics):
        content = yaml.safe_load(file.read_text())
        for path in leaves(content):
            changed = replaced(content, path, code.name)
            file.write_text(yaml.safe_dump(changed) if file == copy.recipe else json.dumps(changed))
            tried += 1
            for use in (
                lambda: run_recipe(copy),
                lambda: [plugins.space(a.space, a.options) for a in (read_arch(copy.arch), read_factors(copy.factors))],
                lambda: [saved.recipe() for saved in at(copy.path)],
                lambda: read_source(copy.arch).weights(),
            ):
                with suppress(NasfaceError):
                    use()
            assert not code.ran, f"{file.name}: {path}"
        shutil.copy(run.path / file.name, file)
    print(f"{tried} texts of a run folder tried")
    assert tried > 50


COMMANDS = (
    ("count", "--arch", "arch.json"),
    ("draw", "arch.json"),
    ("evaluate", "."),
    ("evaluate", "--arch", "arch.json"),
    ("predict", "--model", ".", "photo.png"),
    ("train", "--arch", "arch.json", "--out", "out"),
    ("distill", "--arch", "arch.json", "--out", "out"),
    ("distill", "--arch", "../run/arch.json", "--teacher", ".", "--out", "out"),
    ("prune", ".", "--share", "0.5", "--out", "out"),
    ("score", ".", "--criterion", "taylor"),
    ("sweep-thresholds", ".", "--count", "1"),
    ("search", "--recipe", "recipe.yaml", "--out", "out"),
    ("data", "prepare", "--recipe", "recipe.yaml"),
)


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_runs_code_of_a_received_run(
    run: RunDir, tmp_path: Path, code: Payload, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    copy = hostile(run, tmp_path / "copy", code)
    shutil.copy(tmp_path / f"{code.name.partition(':')[0]}.py", copy.path)
    monkeypatch.chdir(copy.path)
    (copy.path / "photo.png").write_bytes(b"")
    words = tuple(str(run.arch) if word == "../run/arch.json" else word for word in words)
    names(command_refuses(*words), code.name, "--allow-plugin")
    assert not code.ran


def hostile(run: RunDir, folder: Path, code: Payload) -> RunDir:
    """A copy of a run whose recipe, architecture, factors and weights all name the code as the search space."""
    copy = RunDir(shutil.copytree(run.path, folder))
    content = yaml.safe_load(copy.recipe.read_text())
    copy.recipe.write_text(yaml.safe_dump(replaced(content, ("space", "name"), code.name)))
    for file in (copy.arch, copy.factors):
        file.write_text(json.dumps({**json.loads(file.read_text()), "space": code.name}))
    return copy


def test_a_report_leaves_out_what_would_need_code(run: RunDir, tmp_path: Path, code: Payload):
    content = read(hostile(run, tmp_path / "copy", code).path)
    for part in ("recipe", "costs"):
        names(content.missing[part], code.name)
    assert not code.ran


def weights_naming(name: str, folder: Path) -> Path:
    """A self-describing file of weights whose card names a search space by 'module:attr'."""
    how = recipe()
    net = build_net(how, 68, torch.device("cpu"))
    card = Card.of(how, replace(read_arch_of(net, how), space=name))
    write_net(folder / "received.safetensors", net, card)
    return folder / "received.safetensors"


def read_arch_of(net, how):
    space = how.space
    full = net.space.graph
    return nasface.arch.Architecture(space.name, space.options, 68, how.data.input_size, full.digest, full.edges)


def test_weights_name_installed_plugins_only_unless_the_person_allows_more(
    tmp_path: Path, code: Payload, monkeypatch: pytest.MonkeyPatch
):
    path = weights_naming(code.name, tmp_path)
    with refused(RecipeError, path, code.name, "--allow-plugin"):
        nasface.load(path)
    names(command_refuses("predict", "--model", path, "photo.png"), path, code.name)
    assert not code.ran
    (tmp_path / "honest_space.py").write_text("from searchspaces.hrflex import hrflex as own\n")
    own = weights_naming("honest_space:own", tmp_path)
    with refused(RecipeError, own, "honest_space:own"):
        nasface.load(own)
    assert nasface.load(own, plugins=["honest_space:own"]).module
    with refused(RecipeError, own):  # it holds for one file, not for the next
        nasface.load(own)


def test_the_dataset_of_a_card_is_no_code(tmp_path: Path, code: Payload):
    path = weights_naming("hrflex", tmp_path)
    tensors, meta = rundir.read_tensors(path)
    meta["card"]["training"]["dataset"] = code.name
    rundir.write_tensors(path, tensors, meta)
    assert nasface.load(path).module
    with suppress(NasfaceError):
        at(path)[0].recipe()
    assert not code.ran


def arch_naming(name: str, path: Path) -> Path:
    graph = supernet().graph
    content = {"schema_version": 1, "space": name, "options": SPACE, "num_landmarks": 5, "input_size": 32}
    content |= {"graph_digest": graph.digest, "edges": [list(edge) for edge in graph.edges], "provenance": {}}
    path.write_text(json.dumps(content))
    return path


def count_with(*words: object, env: dict[str, str] | None = None) -> int:
    return CliRunner().invoke(main, ["count", *map(str, words)], env=env, catch_exceptions=False).exit_code


def test_the_person_allows_a_plugin_by_an_option_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "allowed_space.py").write_text("from searchspaces.hrsupernet import hrsupernet as own\n")
    arch = arch_naming("allowed_space:own", tmp_path / "arch.json")
    assert count_with("--arch", arch) == 2
    assert count_with("--arch", arch, "--allow-plugin", "allowed_space:other") == 2
    assert count_with("--arch", arch, "--allow-plugin", "allowed_space:own") == 0
    assert count_with("--arch", arch, env={"NASFACE_PLUGINS": "other:x allowed_space:own"}) == 0
    assert count_with("--arch", arch) == 2  # the next command has to be told again
    names(
        command_refuses("count", "--arch", arch, "--allow-plugin", "allowed_space"), "--allow-plugin", "'allowed_space'"
    )


def test_what_a_run_folder_records_allows_nothing(tmp_path: Path, code: Payload):
    arch = arch_naming(code.name, tmp_path / "arch.json")
    content = json.loads(arch.read_text())
    arch.write_text(json.dumps({**content, "provenance": {"plugins": [code.name]}, "plugins": [code.name]}))
    names(command_refuses("count", "--arch", arch), code.name)
    assert not code.ran


def test_what_was_typed_may_stand_in_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typed_pruner.py").write_text("from nasface.prune import share as own\n")
    path = written(tmp_path, {"extends": "demo", "prune": {"name": "typed_pruner:own", "options": {"share": 0.5}}})
    with refused(RecipeError, path, "typed_pruner:own"):
        recipes.load(str(path))
    assert recipes.load(str(path), ["prune.name=typed_pruner:own"]).prune.options == {"share": 0.5}
    assert "typed_pruner:own" in importing.imported()


def test_the_module_of_an_installed_plugin_is_the_plugin(tmp_path: Path):
    point = plugins.names("searchers")["l1"]
    path = written(tmp_path, {"extends": "demo", "search": {"name": point.value}})
    assert recipes.load(str(path)).search.name == point.value
    for name in plugins.CHOOSERS:  # of comparisons, which run folders name
        options = {"macs": 1e6} if name.endswith("BestOfRandom") else {}
        path = written(tmp_path, {"extends": "demo", "search": {"name": name, "options": options}})
        assert recipes.load(str(path)).search.name == name
    for name in ("nasface.importing:import_attr", "nasface.rundir:os.system", "nasface.search.l1:L1Searcher.search"):
        path = written(tmp_path, {"extends": "demo", "search": {"name": name}})
        with refused(RecipeError, path, name, "--allow-plugin"):
            recipes.load(str(path))


def test_shared_and_circular_values_of_a_file_are_looked_through_once():
    shared: list[object] = ["a:b"]
    for _ in range(60):
        shared = [shared, shared]
    assert list(importing.names_in(shared)) == ["a:b"]
    shared.append(shared)
    assert list(importing.names_in({"x": shared, "c:d": None})).count("a:b") == 1
