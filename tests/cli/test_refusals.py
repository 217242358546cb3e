"""Bad input gives one sentence and exit code 2, never a traceback, and loses nothing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

from nasface.cli import main
from searchspaces.hrsupernet import hrsupernet
from tests.searched import searched_run

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


def refused(*args: object) -> str:
    """The sentence with which a command refuses."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("nasface: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


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
    ("args", "words"),
    [
        (["search", "--space", "hrsupernett"], ["hrsupernett", "did you mean 'hrsupernet'"]),
        (["sweep-thresholds", "nowhere"], ["nowhere", "does not exist", "nasface search"]),
        (["distill", "--arch", "nowhere.json"], ["nowhere.json", "does not exist"]),
        (["experiment", "figure7"], ["figure7", "did you mean 'figure6'"]),
        (["experiment", "demo"], ["demo", "nasface search --recipe demo"]),
        (["search", "--recipe", "figure6-mini"], ["figure6-mini", "nasface experiment"]),
        (["select", "nowhere", "--knee"], ["nowhere"]),
        (["report", "nowhere"], ["nowhere"]),
        (["draw", "nowhere.json"], ["nowhere.json", "does not exist"]),
        (["search", "--dataset", "300v"], ["300v", "did you mean '300w'"]),
        (["search", "--recipe", "300w-mimi"], ["300w-mimi", "did you mean '300w-mini'"]),
        (["search", "--set", "serach.epochs=3"], ["serach", "did you mean 'search'"]),
        (["search", "--set", "search.epoch=3"], ["search.epoch", "did you mean 'epochs'"]),
        (["search", "--set", "search.options.alpha_rl=3"], ["alpha_rl", "did you mean 'alpha_lr'"]),
        (["search", "--set", "search.optimizer.lrr=3"], ["lrr", "did you mean 'lr'"]),
        (["search", "--set", "space.options.widht=3"], ["widht", "did you mean 'width'"]),
        (["search", "--set", "search.epochs=-1"], ["search.epochs", "-1"]),
        (["search", "--set", "task.decoder=dork"], ["task.decoder", "dork"]),
        (["search", "--set", "epochs"], ["a.b=value"]),
        (["search", "--space", "no.such.module:space"], ["no.such.module"]),
        (["count", "--space", "hrsupernet", "--set", "encoder=vit"], ["encoder", "mbconv"]),
        (["count", "--space", "hrsupernet", "--input-size", 100], ["100", "multiple of 32"]),
        (["count", "--arch", "nowhere.json"], ["nowhere.json", "does not exist"]),
        (["evaluate", "nowhere"], ["nowhere", "does not exist"]),
        (["prune", "nowhere", "--share", 0.5, "--out", "x"], ["nowhere", "does not exist"]),
    ],
)
def test_a_wrong_word_is_named_with_its_mend(args: list[object], words: list[str]):
    sentence = refused(*args)
    assert all(word in sentence for word in words), sentence


def test_missing_data_say_where_they_are_had_and_what_needs_none():
    sentence = refused("search", "--recipe", "300w-mini")
    assert "--data-root" in sentence
    assert "ibug.doc.ic.ac.uk" in sentence
    assert "--dataset synthetic" in sentence


def test_an_empty_folder_is_refused(tmp_path: Path):
    assert str(tmp_path) in refused("data", "check", "--data-root", tmp_path)


def test_a_pts_file_with_67_points_is_named(tmp_path: Path):
    root = faces(tmp_path / "data", points=67)
    sentence = refused(
        "search", "--recipe", "300w-mini", "--data-root", root, "--out", tmp_path / "run", "--workers", 1
    )
    assert "a.pts" in sentence
    assert "67" in sentence


def test_a_truncated_image_is_named(tmp_path: Path):
    root = faces(tmp_path / "data")
    image = root / "helen" / "trainset" / "a.jpg"
    image.write_bytes(image.read_bytes()[:200])
    sentence = refused("data", "prepare", "--recipe", "300w-mini", "--data-root", root, "--workers", 1)
    assert "a.jpg" in sentence


def test_fewer_faces_than_a_batch_are_refused(tmp_path: Path):
    sentence = refused("search", *SYNTHETIC, "--recipe", "demo", "--out", tmp_path / "run")
    assert "batch of 32" in sentence


def test_a_run_of_another_recipe_is_not_overwritten(tmp_path: Path):
    run = tmp_path / "run"
    refused("search", *SYNTHETIC, "--recipe", "demo", "--out", run)  # writes the recipe, then finds too few faces
    refused("search", *SYNTHETIC, "--recipe", "demo", "--set", "seed=1", "--out", run)  # nothing is lost: no refusal
    before = (run / "recipe.yaml").read_bytes()
    assert b"seed: 1" in before
    (run / "checkpoints").mkdir()
    assert "another recipe" in refused("search", *SYNTHETIC, "--recipe", "demo", "--out", run)
    assert "another command" in refused("train", *SYNTHETIC, "--recipe", "demo", "--set", "seed=1", "--out", run)
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
    ("change", "words"),
    [
        ({"schema_version": 99}, ["schema_version", "99"]),
        ({"space": "hrnet"}, ["hrnet", "graph"]),
        ({"options": {"width": 20}}, ["graph"]),
        ({"edges": [["1.0", "9.9"]]}, ["1.0", "9.9"]),
        ({"edges": [["1.0", "2.0"]]}, ["no path"]),
        ({"edges": "all"}, ["edges"]),
        ({"num_landmarks": "many"}, ["num_landmarks"]),
    ],
)
def test_an_arch_json_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], words: list[str]):
    sentence = refused("count", "--arch", arch_file(tmp_path / "arch.json", **change))
    assert all(word in sentence for word in words), sentence


def test_an_edge_list_that_is_none_is_refused(tmp_path: Path):
    path = tmp_path / "edges.json"
    for text in ("{}", "[]", "not json", '{"edges": [[1, 2, 3]]}', '{"edges": [["1.0"]]}'):
        path.write_text(text)
        assert "edge" in refused("count", "--space", "hrsupernet", "--edges", path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    sentence = refused("search", *SYNTHETIC, "--recipe", "demo", "--out", blocked / "run")
    assert "cannot write" in sentence
    assert "--out" in sentence


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched_run(tmp_path_factory.mktemp("refusals")).path


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--target-macs", "6X"], ["6X"]),
        (["--count", "3", "--pruner", "greedy"], ["are for the pruner 'threshold'"]),
        (["--share", "0.5", "--pruner", "greedi"], ["greedi", "did you mean 'greedy'"]),
        (["--share", "0.5", "--pruner", "random", "--option", "sed=1"], ["sed", "did you mean 'seed'"]),
        (["--set", "finetune.epoch=3"], ["finetune.epoch", "did you mean 'epochs'"]),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(searched: Path, args: list[str], words: list[str]):
    result = CliRunner().invoke(main, ["sweep-thresholds", str(searched), *args], catch_exceptions=False)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.slow
def test_a_distillation_says_which_option_gives_what_is_not_found(searched: Path, tmp_path: Path):
    moved = tmp_path / "moved" / "arch.json"
    moved.parent.mkdir()
    arch = json.loads((searched / "arch.json").read_text())
    arch["provenance"]["run"] = "gone"
    moved.write_text(json.dumps(arch))
    assert "give --weights" in refused("distill", "--arch", moved)
    recipe = ("--recipe", "demo", "--weights", searched / "supernet.safetensors")
    assert "--teacher" in refused("distill", "--arch", searched / "arch.json", "--teacher", "nobody")
    assert "68" in refused(
        "distill", "--arch", moved, *recipe, "--set", "data.options.landmarks=29", "--teacher", searched
    )


def test_a_run_that_another_process_works_in_is_left_alone(tmp_path: Path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        assert "another process works in" in refused(
            "search", "--recipe", "demo", *SYNTHETIC, "--out", tmp_path / "run"
        )
