"""`nasface evaluate` as a user calls it, on runs that were made without training."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nasface.cli import main
from nasface.rundir import RunDir
from tests.refusal import command_refuses, names

pytestmark = pytest.mark.slow

SETTINGS = [
    "data.options.train=24", "data.options.test=12", "data.input_size=32", "training.batch=4", "search.epochs=0",
    "finetune.epochs=0", "space.options.width=4", "space.options.stages=3", "space.options.resolutions=2",
    "space.options.stem_channels=8",
]  # fmt: skip


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


def evaluate(*args: object) -> str:
    """What the command prints to standard output."""
    result = invoke("evaluate", *args, "--workers", 1, "--quiet")
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shared_cache(cache: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFACE_CACHE", str(cache))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> list[Path]:
    """Two seeds of one recipe."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASFACE_CACHE", str(cache))
        for seed in (0, 1):
            changes = [word for text in (*SETTINGS, f"seed={seed}") for word in ("--set", text)]
            found.append(folder / f"seed{seed}")
            done = invoke("search", "--recipe", "demo", *changes, "--workers", 1, "--quiet", "--out", found[-1])
            assert done.exit_code == 0, done.output
    return found


def final(run: Path) -> dict[str, Any]:
    networks: dict[str, Any] = json.loads(RunDir(run).metrics.read_text())["networks"]
    return networks


def test_a_run_is_evaluated_as_its_search_did(runs: list[Path], tmp_path: Path):
    plain = json.loads(evaluate(runs[0], "--json", "--per-image", tmp_path / "faces.csv"))
    assert (plain["data"], plain["masked"], plain["means"]) == ("synthetic", None, [])
    (run,) = plain["runs"]
    assert (run["run"], run["seed"]) == (str(runs[0]), 0)
    for network, expected in final(runs[0]).items():
        found = run["networks"][network]
        for key in ("params", "macs", "edges", "blocks"):
            assert found[key] == expected[key]
        for normaliser, subsets in expected["subsets"].items():
            for subset, figures in subsets.items():
                assert found["subsets"][normaliser][subset]["nme"] == pytest.approx(figures["nme"], rel=1e-5)
    faces, searched = pd.read_csv(tmp_path / "faces.csv"), pd.read_csv(RunDir(runs[0]).errors)
    assert faces[["network", "face", "subsets"]].equals(searched[["network", "face", "subsets"]])
    assert faces.nme_box.to_numpy() == pytest.approx(searched.nme_box.to_numpy(), rel=1e-5)
    slim = faces[faces.network == "slim"]
    blurred = slim[slim.subsets.str.split(";").map(lambda names: "blur" in names)]
    figures = run["networks"]["slim"]["subsets"]["inter_ocular"]["blur"]
    assert figures["images"] == len(blurred) > 0
    assert figures["nme"] == pytest.approx(blurred.nme_inter_ocular.mean())
    assert figures["percentiles"]["90"] == pytest.approx(np.percentile(blurred.nme_inter_ocular, 90))


def test_an_arch_is_found_with_its_weights_and_recipe(runs: list[Path]):
    plain = json.loads(evaluate("--arch", RunDir(runs[0]).arch, "--json"))
    found = plain["runs"][0]["networks"]["slim"]["subsets"]["inter_ocular"]["full"]["nme"]
    assert found == pytest.approx(final(runs[0])["slim"]["subsets"]["inter_ocular"]["full"]["nme"], rel=1e-5)
    weights = ["--weights", RunDir(runs[1]).slim, "--arch", RunDir(runs[1]).arch]
    other = json.loads(evaluate(*weights, "--recipe", RunDir(runs[0]).recipe, "--json"))
    found = other["runs"][0]["networks"]["slim"]["subsets"]["inter_ocular"]["full"]["nme"]
    assert found == pytest.approx(final(runs[1])["slim"]["subsets"]["inter_ocular"]["full"]["nme"], rel=1e-5)


def test_networks_that_came_about_in_different_ways_are_no_seeds_of_one_another(runs: list[Path], tmp_path: Path):
    scratch = [shutil.copytree(run, tmp_path / f"scratch{seed}") for seed, run in enumerate(runs)]
    for run in scratch:
        RunDir(run).job.write_text(json.dumps({"job": "train", "edges": f"{run.name}", "weights": "random"}))
    assert json.loads(evaluate(runs[0], scratch[1], "--json"))["means"] == []
    every = json.loads(evaluate(*runs, *scratch, "--json"))["means"]
    assert [mean["runs"] for mean in every] == [["seed0", "seed1"], ["scratch0", "scratch1"]]
    for run in scratch:
        RunDir(run).job.unlink()
    (mean,) = json.loads(evaluate(*scratch, "--json"))["means"]
    assert mean["seeds"] == [0, 1]


def test_seeds_side_by_side_and_their_mean(runs: list[Path]):
    plain = json.loads(evaluate(*runs, "--json"))
    assert [run["label"] for run in plain["runs"]] == ["seed0", "seed1"]
    nmes = [run["networks"]["slim"]["subsets"]["box"]["full"]["nme"] for run in plain["runs"]]
    assert nmes[0] != nmes[1]
    found = plain["means"][0]["networks"]["slim"]["subsets"]["box"]["full"]["nme"]
    assert found == {"mean": pytest.approx(np.mean(nmes)), "std": pytest.approx(np.std(nmes, ddof=1))}
    out = evaluate(*runs, "--normaliser", "box")
    assert f"{100 * found['mean']:.2f} ± {100 * found['std']:.2f}" in out
    assert "slim, mean of 2 runs" in out


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ([], ["params", "test: NME (%) | FR@10 (%) | AUC@10", "full (12)"]),
        (["--format", "text"], ["method", "full (12)", "supernet", "slim"]),
        (["--format", "markdown"], ["| method", "full (12)", "| slim"]),
        (["--format", "latex"], [r"\toprule", "full (12)", "slim &"]),
        (["--format", "csv"], ["method,published,nme_full,", "images_full", "slim,False,"]),
        (["--metric", "fr8", "--metric", "auc10"], ["FR@8 full (12)", "AUC@10 full (12)"]),
    ],
)
def test_every_form(runs: list[Path], form: list[str], words: list[str]):
    out = evaluate(runs[0], *form)
    assert all(word in out for word in words), out


def test_what_is_saved_is_read_back_to_the_same_figures(runs: list[Path], tmp_path: Path):
    saved = tmp_path / "landmarks.csv"
    one = json.loads(evaluate(runs[0], "--save-predictions", saved, "--json"))["runs"][0]
    data = ["--recipe", RunDir(runs[0]).recipe]
    other = json.loads(evaluate("--predictions", saved, *data, "--json"))["runs"][0]
    assert other["seed"] is None
    for network in ("supernet", "slim"):
        for normaliser, subsets in one["networks"][network]["subsets"].items():
            for subset, figures in subsets.items():
                again = other["networks"][network]["subsets"][normaliser][subset]
                assert again["nme"] == pytest.approx(figures["nme"], rel=1e-9)
                assert again["percentiles"] == pytest.approx(figures["percentiles"], rel=1e-9)
    # another program's file: one network, no column of that name, the first pixel 1, a face lost
    frame = pd.read_csv(saved)
    frame = frame[frame.network == "slim"].drop(columns="network").iloc[1:]
    frame.iloc[:, 1:] += 1
    frame.to_csv(tmp_path / "theirs.csv", index=False)
    theirs = ["--predictions", tmp_path / "theirs.csv", *data, "--one-based"]
    names(command_refuses("evaluate", *theirs), tmp_path / "theirs.csv", "1 of 12", "--missing fail")
    found = json.loads(evaluate(*theirs, "--missing", "fail", "--json"))["runs"][0]["networks"]["theirs"]
    full = found["subsets"]["box"]["full"]
    assert (full["images"], full["missing"]) == (12, 1)
    assert "1 without landmarks" in evaluate(*theirs, "--missing", "fail")
    both = evaluate("--predictions", saved, *theirs, "--missing", "fail", "--format", "csv")
    assert len(pd.read_csv(io.StringIO(both))) == 3


@pytest.mark.parametrize("masked", [None, "half"])
def test_the_worst_faces_are_drawn(runs: list[Path], tmp_path: Path, masked: str | None):
    path = tmp_path / "worst.png"
    out = evaluate(runs[0], "--worst", path, "--worst-count", 3, *(["--masked", masked] if masked else []))
    with Image.open(path) as drawn:
        assert min(drawn.size) > 100
    assert ("masked: half" in out) == (masked is not None)


def test_masked_faces_are_others_and_it_is_said(runs: list[Path]):
    plain, masked = (json.loads(evaluate(runs[0], "--json", *more)) for more in ([], ["--masked", "hard"]))
    assert masked["masked"] == "hard"
    before, after = (
        found["runs"][0]["networks"]["supernet"]["subsets"]["inter_ocular"]["full"]["nme"] for found in (plain, masked)
    )
    assert before != after


def test_a_run_on_another_dataset_keeps_the_rest_of_its_recipe(runs: list[Path], tmp_path: Path):
    folder = tmp_path / "300w" / "ibug"
    folder.mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (100, 100), "grey").save(folder / f"{i}.jpg")
        points = np.random.default_rng(i).uniform(20, 80, (68, 2))
        (folder / f"{i}.pts").write_text("\n".join(f"{x} {y}" for x, y in points))
    out = evaluate(runs[0], "--dataset", "300w", "--data-root", folder.parent, "--published", "--format", "csv")
    frame = pd.read_csv(io.StringIO(out)).set_index("method")
    assert frame.loc["HRNet", "nme_challenge"] == 0.0515
    assert (frame.loc["slim", "images_challenge"], frame.loc["slim", "expected_challenge"]) == (2, 135)
    assert "challenge (2 of 135)" in evaluate(runs[0], "--dataset", "300w", "--data-root", folder.parent)
    plain = json.loads(evaluate(runs[0], "--dataset", "300w", "--data-root", folder.parent, "--json"))
    assert plain["runs"][0]["networks"]["slim"]["held_out_nme"] is None


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        ([], ["MODEL", "--arch", "--predictions"]),
        (["{run}", "--arch", "a.json"], ["MODEL", "--arch", "--predictions"]),
        (["{run}", "{run}"], ["MODEL", "twice"]),
        (["{run}", "--weights", "w"], ["--weights", "--arch"]),
        (["{run}", "--space", "hrnet"], ["--space"]),
        (["{run}", "--missing", "fail"], ["--missing", "--predictions"]),
        (["{run}", "--one-based"], ["--one-based", "--predictions"]),
        (["--predictions", "x.csv", "--masked", "half"], ["--masked", "--predictions"]),
        (["--predictions", "nowhere.csv", "--recipe", "{run}/recipe.yaml"], ["nowhere.csv"]),
        (["{run}", "nowhere"], ["nowhere", "arch.json"]),
        (["{run}", "--published"], ["'synthetic'", "--published"]),
        (["{run}", "--worst", "x.gif"], ["x.gif", ".png", ".svg", ".pdf"]),
    ],
)
def test_what_does_not_go_together(runs: list[Path], args: list[str], facts: list[str]):
    names(command_refuses("evaluate", *(arg.format(run=runs[0]) for arg in args)), *facts)
