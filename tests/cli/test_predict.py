"""`nasface predict` as a user calls it: a run folder, an architecture, detectors, boxes, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nasface import recipe as recipes
from nasface import rundir
from nasface.arch import Architecture
from nasface.cli import main
from nasface.data.synthetic import Synthetic
from nasface.model.files import save_net
from nasface.net import slim_net
from nasface.prune import top
from nasface.rundir import RunDir
from tests.refusal import names, sentence_of
from tests.tiny import importance, scrambled, supernet

OPTIONS = {"width": 4, "depth": 1, "stages": 4, "resolutions": 3, "stem_channels": 8}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run folder and a folder of three synthetic faces."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = RunDir(Path("run"))
    data = {"name": "synthetic", "input_size": 32}
    recipe = recipes.resolve({"space": {"name": "hrsupernet", "options": OPTIONS}, "data": data}, "a test's recipe")
    rundir.write_text(run.recipe, recipe.to_yaml())
    net = scrambled(supernet(), 68)
    graph = top(net.graph, importance(net.graph), None, edges=12)
    arch = Architecture("hrsupernet", OPTIONS, 68, 32, net.graph.digest, graph.edges, {"run": "gone"})
    rundir.write_text(run.arch, arch.to_json())
    save_net(run.supernet, net, recipe)
    save_net(run.slim, slim_net(net, graph)[0], recipe)
    faces = Synthetic(None, train=1, test=3, size=96)
    (tmp_path / "photos").mkdir()
    for i, face in enumerate(faces.index().faces[1:]):
        Image.fromarray(faces.read(face)).save(f"photos/{i}.png")
    return tmp_path


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["predict", *(str(arg) for arg in args)], catch_exceptions=False)


WHOLE = ("--detector", "whole", "--min-score", -1e9, "--quiet")


def test_a_folder_gives_csv_json_pictures_and_a_table(work: Path):
    result = run("--run", "run", "photos", *WHOLE, "--out", "out", "--overlay")
    assert result.exit_code == 0, result.output
    assert "faces per second" in result.stdout
    table = pd.read_csv("out/landmarks.csv")
    confidences = table[[f"lm{i}_confidence" for i in range(68)]].mean(axis=1)
    np.testing.assert_allclose(confidences, table["score"], atol=1e-3)
    assert "frames_per_second" not in json.loads(Path("out/landmarks.json").read_text())["summary"]
    assert table["image"].tolist() == [f"photos/{i}.png" for i in range(3)]
    assert json.loads(Path("out/landmarks.json").read_text())["summary"]["faces"] == 3
    for overlay in (Path("out/overlays") / f"{i}.png" for i in range(3)):
        with Image.open(overlay) as picture:
            assert picture.size == (96, 96)


def test_json_is_the_file(work: Path):
    result = run("--run", "run", "photos/1.png", *WHOLE, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(Path("predictions/landmarks.json").read_text())


def landmarks(*args: object) -> np.ndarray:
    result = run(*args, "photos/0.png", *WHOLE, "--json")
    assert result.exit_code == 0, result.output
    return np.array(json.loads(result.stdout)["images"][0]["faces"][0]["landmarks"])


def test_the_slim_network_is_the_default_and_found_by_its_architecture(work: Path):
    slim, supernet_ = landmarks("--run", "run"), landmarks("--run", "run", "--network", "supernet")
    assert not np.allclose(slim, supernet_)
    np.testing.assert_allclose(landmarks("--run", "run", "--network", "slim"), slim)
    np.testing.assert_allclose(landmarks("--arch", "run/arch.json"), slim)
    np.testing.assert_allclose(landmarks("--arch", "run/arch.json", "--weights", "run/slim.safetensors"), slim)
    np.testing.assert_allclose(landmarks("--arch", "run/arch.json", "--weights", "run/supernet.safetensors"), slim)
    assert not np.allclose(landmarks("--run", "run", "--set", "task.decoder=soft"), slim)
    assert not np.allclose(landmarks("--run", "run", "--refine", 0), slim)


def test_a_moved_architecture_without_recipe_says_whose_is_used(work: Path):
    for name in ("arch.json", "slim.safetensors"):
        Path("run", name).rename(name)
    result = run("--arch", "arch.json", "photos/0.png", *WHOLE)
    assert result.exit_code == 0, result.output
    assert "300w" in result.stderr.splitlines()[0]


def test_the_default_detector_finds_faces_and_names_images_without(work: Path):
    pytest.importorskip("cv2")
    Image.new("RGB", (96, 96)).save("photos/dark.png")
    result = run("--run", "run", "photos", "--min-score", -1e9, "--refine", 0, "--quiet", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)["summary"]
    assert summary["faces"] >= 2
    assert summary["without_face"] == 4 - len(set(pd.read_csv("predictions/landmarks.csv")["image"]))
    assert "photos/dark.png" in result.stderr


def test_boxes_and_detectors_of_ones_own(work: Path):
    Path("boxes.csv").write_text("image,x0,y0,x1,y1\n1.png,10,10,80,80\n1.png,20,20,70,70\n")
    result = run("--run", "run", "photos", "--boxes", "boxes.csv", "--quiet")
    assert result.exit_code == 0, result.output
    found = pd.read_csv("predictions/landmarks.csv")
    assert found[["image", "x0", "y1"]].values.tolist() == [["photos/1.png", 10, 80], ["photos/1.png", 20, 70]]
    assert "2 of 3" in result.stderr
    Path("mine.py").write_text("def find(image): return [[10, 10, 80, 80]]\n")
    own = ("--detector", "mine:find", "--min-score", -1e9, "--refine", 0, "--out", "own")
    assert run("--run", "run", "photos/1.png", *own, "--quiet").exit_code == 0
    own_row, row = (table.iloc[0, 3:].to_numpy(float) for table in (pd.read_csv("own/landmarks.csv"), found))
    np.testing.assert_allclose(own_row, row, atol=2e-3)


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--model", "face86", "photos"], ["face86", "did you mean 'face68'?", "nasface models"]),
        (["--weights", "run/slim.safetensors", "photos"], ["--weights", "--arch"]),
        (["--network", "slim", "photos"], ["--network", "--model"]),
        (["--run", "run", "--arch", "run/arch.json", "photos"], ["--model", "--arch"]),
        (["--run", "run"], ["images", "folders", "videos", "--boxes"]),
        (["--run", "run", "--weights", "x", "photos"], ["--weights", "--arch"]),
        (["--arch", "run/arch.json", "--network", "slim", "photos"], ["--network", "--model"]),
        (["--run", "run", "--network", "thin", "photos"], ["'thin'", "slim", "supernet"]),
        (["--run", "photos", "photos"], ["photos", "supernet.safetensors", "slim.safetensors"]),
        (["--run", "run", "nowhere"], ["nowhere"]),
        (["--run", "run", "run/job.jpg"], ["run/job.jpg"]),
        (["--run", "run", "run/recipe.yaml"], ["run/recipe.yaml"]),
        (["--run", "run", "photos", "--boxes", "none.csv"], ["none.csv"]),
        (["--run", "run", "photos", "--detector", "hare"], ["hare", "'haar'"]),
        (["--run", "run", "photos", "--detector", "whole", "--min-score", "1e9"], ["3 images", "--min-score"]),
        (["--run", "run", "photos", "--detector", "whole", "--set", "data.input_size=20"], ["20", "16"]),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(work: Path, args: list[str], facts: list[str]):
    names(sentence_of(run(*args)), *facts)
    assert not Path("predictions").exists()


def test_without_opencv_the_package_is_named(work: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for inputs in (["photos"], ["film.mp4", "--detector", "whole"]):
        Path("film.mp4").write_text("")
        names(sentence_of(run("--run", "run", *inputs)), "pip install 'opencv-python-headless")
    assert run("--run", "run", "photos", *WHOLE).exit_code == 0


def test_the_help_has_examples():
    out = CliRunner().invoke(main, ["predict", "--help"]).stdout
    assert any(line.startswith("    nasface predict --model ") for line in out.splitlines())
    assert "\\b" not in out
