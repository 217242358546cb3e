"""The networks that come with nasface: they are in the package, load by name, and do what their cards say."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import nasface
from nasface import plugins
from nasface.cli import main
from nasface.data.prepare import PrepareOptions, prepare
from nasface.errors import RunError
from nasface.model import shipped
from nasface.recipe import load
from nasface.scores import Normaliser
from nasface.stages.measure import errors, true_landmarks

ROOT = Path(__file__).parents[2]
FACES = 100


def test_the_default_network_is_package_data_of_at_most_2_mb():
    folder = files("nasface") / "networks"
    assert (folder / f"{shipped.DEFAULT}.safetensors").is_file()
    assert shipped.network(shipped.DEFAULT).weights.stat().st_size <= 2 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped.networks())
def test_a_network_is_as_good_on_synthetic_faces_as_its_card_says(name: str, tmp_path: Path):
    model, about = nasface.load(name), shipped.network(name).measured
    view = model.view
    crop = PrepareOptions(view.input_size, view.margin, view.box, view.box_scale)
    test = prepare(plugins.dataset("synthetic", None, {"train": 0, "test": FACES}), crop, tmp_path)["test"]
    window = slice(test.pad, test.pad + view.input_size)
    points, confidences = model.runtime.run(np.ascontiguousarray(test.images_NHWC[:, window, window]))
    found = errors(points, true_landmarks(test), test.scheme)[Normaliser.INTER_OCULAR]
    error_of_mean = found.std() / np.sqrt(FACES)
    assert found.mean() == pytest.approx(about["nme"]["synthetic"]["full"]["nme"], abs=3 * error_of_mean)
    assert np.median(confidences.mean(axis=1)) == pytest.approx(about["score"]["synthetic"]["p50"], abs=0.05)


@pytest.mark.parametrize("name", shipped.networks())
def test_the_recipe_of_that_name_trains_it(name: str):
    card, recipe = shipped.network(name).card, load(name)
    assert card.training["recipe_digest"] == recipe.digest
    assert card.training["dataset"] == "synthetic"
    assert card.view.input_size == recipe.data.input_size


def test_a_name_that_is_not_known_is_answered_with_the_closest():
    with pytest.raises(RunError, match="did you mean 'face68'"):
        nasface.load("face86")
    with pytest.raises(RunError, match="did you mean 'face68'"):
        shipped.network("face86")


def test_the_command_lists_networks_and_shows_a_card():
    listed = CliRunner().invoke(main, ["models"])
    assert listed.exit_code == 0, listed.output
    assert shipped.DEFAULT in listed.stdout
    shown = CliRunner().invoke(main, ["models", shipped.DEFAULT])
    assert shown.exit_code == 0, shown.output
    about = shipped.network(shipped.DEFAULT).measured
    assert f"{about['macs']:,}" in shown.stdout
    assert f"{100 * about['nme']['300w']['common']['nme']:.2f}" in shown.stdout
    rows = json.loads(CliRunner().invoke(main, ["models", "--json"]).stdout)
    assert [row["name"] for row in rows] == sorted(shipped.networks())
    wrong = CliRunner().invoke(main, ["models", "face86"])
    assert wrong.exit_code == 2
    assert "did you mean 'face68'?" in wrong.stderr


def test_predict_needs_no_network_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    dataset = plugins.dataset("synthetic", None, {"train": 0, "test": 1, "size": 256})
    face = dataset.index().faces[0]
    Image.fromarray(dataset.read(face)).save("face.png")
    done = CliRunner().invoke(main, ["predict", "face.png", "--detector", "whole", "--refine", "2", "--overlay"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(Path("predictions/landmarks.json").read_text())["images"][0]["faces"]
    eyes = np.linalg.norm(face.landmarks_L2[36] - face.landmarks_L2[45])
    off = np.linalg.norm(np.array(found["landmarks"]) - face.landmarks_L2, axis=1).mean()
    assert off < 0.15 * eyes
    assert Path("predictions/overlays/face.png").exists()


def test_the_documentation_has_the_figures_of_the_card():
    about = shipped.network("face68").as_dict()
    page = (ROOT / "docs" / "reference" / "face68.md").read_text()
    for subsets in about["nme"].values():
        for name, result in subsets.items():
            row = f"| {name} | {result['faces']} | {100 * result['nme']:.2f} | {100 * result['fr10']:.2f} |"
            assert row in page
    said = (f"{about['params']:,} parameters", f"{about['macs'] / 1e6:.1f} M MACs", f"{about['bytes'] / 1e6:.2f} MB")
    assert all(fact in page for fact in said)
    readme = (ROOT / "README.md").read_text()
    assert f"{100 * about['nme']['300w']['common']['nme']:.2f} %" in readme
