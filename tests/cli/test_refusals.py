"""Bad input gives one sentence and exit code 2, never a traceback, and loses nothing."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from nasface import recipe as recipes
from nasface.rundir import RunDir
from nasface.stages.workspace import claim
from searchspaces.hrsupernet import hrsupernet
from tests.refusal import command_refuses, names

SYNTHETIC = (
    "--dataset",
    "synthetic",
    "--set",
    "data.options.train=8",
    "--set",
    "data.options.test=4",
    "--workers",
    "1",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default run folders lie in the working directory."""
    monkeypatch.chdir(tmp_path)


def faces(folder: Path, points: int = 68) -> Path:
    """A 300W copy of one training face with this many points."""
    from PIL import Image

    target = folder / "helen" / "trainset"
    target.mkdir(parents=True)
    Image.new("RGB", (100, 100), "grey").save(target / "a.jpg")
    lines = [f"{10 + i} {20 + i % 40}" for i in range(points)]
    (target / "a.pts").write_text("\n".join(["version: 1", f"n_points: {points}", "{", *lines, "}"]))
    return folder


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["search", "--space", "hrsupernett"], ["hrsupernett", "'hrsupernet'"]),
        (["sweep-thresholds", "nowhere"], ["nowhere", "nasface search"]),
        (["distill", "--arch", "nowhere.json"], ["nowhere.json"]),
        (["experiment", "figure7"], ["figure7", "'figure6'"]),
        (["experiment", "demo"], ["demo", "nasface search --recipe demo"]),
        (["search", "--recipe", "figure6-mini"], ["figure6-mini", "nasface experiment"]),
        (["select", "nowhere", "--knee"], ["nowhere"]),
        (["report", "nowhere"], ["nowhere", "does not exist"]),
        (["search", "--recipe", "demo", "--device", "gpu"], ["'gpu'", "cpu, cuda"]),
        (["draw", "nowhere.json"], ["nowhere.json"]),
        (["search", "--dataset", "300v"], ["300v", "'300w'"]),
        (["search", "--recipe", "300w-mimi"], ["300w-mimi", "'300w-mini'"]),
        (["search", "--set", "serach.epochs=3"], ["serach", "'search'"]),
        (["search", "--set", "search.epoch=3"], ["search.epoch", "'epochs'"]),
        (["search", "--set", "search.options.alpha_rl=3"], ["alpha_rl", "'alpha_lr'"]),
        (["search", "--set", "search.optimizer.lrr=3"], ["lrr", "'lr'"]),
        (["search", "--set", "space.options.widht=3"], ["widht", "'width'"]),
        (["search", "--set", "search.epochs=-1"], ["search.epochs", "-1"]),
        (["search", "--set", "task.decoder=dork"], ["task.decoder", "dork"]),
        (["search", "--set", "epochs"], ["a.b=value"]),
        (["search", "--space", "no.such.module:space"], ["no.such.module"]),
        (["count", "--space", "hrsupernet", "--set", "encoder=vit"], ["encoder", "mbconv"]),
        (["count", "--space", "hrsupernet", "--input-size", 100], ["100", "32"]),
        (["count", "--arch", "nowhere.json"], ["nowhere.json"]),
        (["evaluate", "nowhere"], ["nowhere"]),
        (["prune", "nowhere", "--share", 0.5, "--out", "x"], ["nowhere"]),
    ],
)
def test_a_wrong_word_is_named_with_its_correction(args: list[object], facts: list[str]):
    names(command_refuses(*args), *facts)


@pytest.mark.parametrize(
    "args",
    [
        ["report", "runs/mimi"],
        ["sweep-thresholds", "runs/mimi"],
        ["predict", "runs/mini.png", "--model", "runs/mimi"],
        ["predict", "runs/mimi", "--detector", "whole"],
    ],
)
def test_a_wrong_path_is_named_with_a_similar_one(tmp_path: Path, args: list[str]):
    (tmp_path / "runs" / "mini").mkdir(parents=True)
    (tmp_path / "runs" / "other").mkdir()
    names(command_refuses(*args), "runs/mimi", "did you mean 'runs/mini'?")
    (tmp_path / "runs" / "mini").rmdir()
    assert "did you mean" not in command_refuses(*args)


def test_missing_data_say_where_to_get_them_and_what_needs_none():
    sentence = command_refuses("search", "--recipe", "300w-mini")
    assert "--data-root" in sentence
    assert "ibug.doc.ic.ac.uk" in sentence
    assert "--dataset synthetic" in sentence


def test_an_empty_folder_is_refused(tmp_path: Path):
    assert str(tmp_path) in command_refuses("data", "check", "--data-root", tmp_path)


def test_a_pts_file_with_67_points_is_named(tmp_path: Path):
    root = faces(tmp_path / "data", points=67)
    sentence = command_refuses(
        "search", "--recipe", "300w-mini", "--data-root", root, "--out", tmp_path / "run", "--workers", 1
    )
    assert "a.pts" in sentence
    assert "67" in sentence


def test_a_truncated_image_is_named(tmp_path: Path):
    root = faces(tmp_path / "data")
    image = root / "helen" / "trainset" / "a.jpg"
    image.write_bytes(image.read_bytes()[:200])
    sentence = command_refuses("data", "prepare", "--recipe", "300w-mini", "--data-root", root, "--workers", 1)
    assert "a.jpg" in sentence


def test_fewer_faces_than_a_batch_are_refused(tmp_path: Path):
    sentence = command_refuses("search", *SYNTHETIC, "--recipe", "demo", "--out", tmp_path / "run")
    names(sentence, "'synthetic'", 32, "training.batch")


def test_a_run_of_another_recipe_is_not_overwritten(tmp_path: Path):
    run = tmp_path / "run"
    command_refuses("search", *SYNTHETIC, "--recipe", "demo", "--out", run)  # too few faces
    assert not run.exists()
    settings = ["data.options.train=8", "data.options.test=4", "seed=1"]
    claim(RunDir(run), recipes.load("demo", settings), {"job": "search"})
    command_refuses(
        "search", *SYNTHETIC, "--recipe", "demo", "--out", run
    )  # nothing would be lost: no refusal for that
    before = (run / "recipe.yaml").read_bytes()
    assert b"seed: 1" in before
    (run / "checkpoints").mkdir()
    names(command_refuses("search", *SYNTHETIC, "--recipe", "demo", "--out", run), run, "recipe", "--out")
    other = command_refuses("train", *SYNTHETIC, "--recipe", "demo", "--set", "seed=1", "--out", run)
    names(other, run, "command", "--out")
    assert (run / "recipe.yaml").read_bytes() == before


def arch_file(path: Path, **change: object) -> Path:
    graph = hrsupernet().graph
    content = {
        "schema_version": 1,
        "space": "hrsupernet",
        "options": {},
        "num_landmarks": 68,
        "input_size": 256,
        "graph_digest": graph.digest,
        "edges": [list(edge) for edge in graph.edges],
        "provenance": {},
    }
    path.write_text(json.dumps({**content, **change}))
    return path


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"schema_version": 99}, ["schema_version", "99"]),
        ({"space": "hrnet"}, ["hrnet", "graph"]),
        ({"options": {"width": 20}}, ["graph"]),
        ({"edges": [["1.0", "9.9"]]}, ["1.0", "9.9"]),
        ({"edges": [["1.0", "2.0"]]}, ["path"]),
        ({"edges": "all"}, ["edges"]),
        ({"num_landmarks": "many"}, ["num_landmarks"]),
    ],
)
def test_an_arch_json_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], facts: list[str]):
    names(command_refuses("count", "--arch", arch_file(tmp_path / "arch.json", **change)), *facts)


def test_an_edge_list_that_is_none_is_refused(tmp_path: Path):
    path = tmp_path / "edges.json"
    for text in ("{}", "[]", "not json", '{"edges": [[1, 2, 3]]}', '{"edges": [["1.0"]]}'):
        path.write_text(text)
        assert "edge" in command_refuses("count", "--space", "hrsupernet", "--edges", path)


def test_a_file_that_is_not_text_is_named_without_the_words_of_the_codec(tmp_path: Path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    sentence = command_refuses("count", "--arch", path)
    names(sentence, path, "arch.json")
    assert "codec" not in sentence


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    sentence = command_refuses("search", *SYNTHETIC, "--recipe", "demo", "--out", blocked / "run")
    names(sentence, blocked / "run", "--out")


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--target-macs", "6X"], ["6X"]),
        (["--count", "0"], ["count of 0", "--count 10"]),
        (["--count", "3", "--pruner", "greedy"], ["'threshold'", "'greedy'"]),
        (["--count", "3", "--pruner", "greedi"], ["greedi", "did you mean 'greedy'"]),
        (["--share", "70"], ["70", "did you mean 0.7"]),
        (["--share", "0.5", "--pruner", "greedi"], ["greedi", "did you mean 'greedy'"]),
        (["--share", "0.5", "--pruner", "random", "--option", "sed=1"], ["sed", "did you mean 'seed'"]),
        (["--set", "finetune.epoch=3"], ["finetune.epoch", "did you mean 'epochs'"]),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(run: RunDir, args: list[str], facts: list[str]):
    names(command_refuses("sweep-thresholds", run.path, *args), *facts)


@pytest.mark.slow
def test_a_distillation_says_which_option_gives_what_is_not_found(run: RunDir, tmp_path: Path):
    moved = tmp_path / "moved" / "arch.json"
    moved.parent.mkdir()
    arch = json.loads(run.arch.read_text())
    arch["provenance"]["run"] = "gone"
    moved.write_text(json.dumps(arch))
    names(command_refuses("distill", "--arch", moved), moved, "--weights")
    recipe = (*SYNTHETIC, "--recipe", "demo", "--set", "training.batch=2", "--weights", run.supernet)
    recipe += ("--set", "data.held_out=0.5")  # or none of so few faces is held out
    assert "--teacher" in command_refuses("distill", "--arch", run.arch, "--teacher", "nobody")
    assert "68" in command_refuses(
        "distill", "--arch", moved, *recipe, "--set", "data.options.landmarks=29", "--teacher", run.path
    )


def test_a_run_that_another_process_works_in_is_left_alone(tmp_path: Path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        sentence = command_refuses("search", "--recipe", "demo", *SYNTHETIC, "--out", tmp_path / "run")
    names(sentence, "another process", tmp_path / "run", "--out")
