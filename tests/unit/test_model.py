"""The network object: the same landmarks from a run folder, a single file and an arch.json; nothing is changed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nasface
from nasface import detect, rundir
from nasface.data.synthetic import Synthetic
from nasface.errors import DataError, GraphError, NasfaceError, RunError
from nasface.model.build import build_net, read_net
from nasface.model.card import View
from nasface.model.files import at, save_net
from nasface.rundir import RunDir
from tests.refusal import refused
from tests.searched import MACHINE, recipe


@pytest.fixture(scope="module")
def photo() -> tuple[np.ndarray, np.ndarray]:
    """An image of one synthetic face, and the box of its landmarks (1, 4)."""
    faces = Synthetic(None, train=1, test=1, size=96)
    face = faces.index().faces[1]
    return faces.read(face), detect.landmark_boxes(face.landmarks_L2[None])


def altered(run: RunDir, folder: Path, **changes: object) -> Path:
    """The slim network's file with parts of its card changed."""
    tensors, meta = rundir.read_tensors(run.slim)
    rundir.write_tensors(folder / "altered.safetensors", tensors, {**meta, "card": {**meta["card"], **changes}})
    return folder / "altered.safetensors"


def test_the_lines_of_the_readme_work_on_a_run_folder_and_on_a_single_file(run: RunDir, tmp_path: Path, photo):
    image, boxes = photo
    Image.fromarray(image).save(tmp_path / "photo.png")
    shutil.copy(run.slim, tmp_path / "alone.safetensors")  # far from its run
    found = []
    for place in (run.path, str(run.path), tmp_path / "alone.safetensors", run.arch):
        model = nasface.load(place)
        faces = model.predict(tmp_path / "photo.png", detector="whole", min_score=-1e9)
        assert [(face.box.shape, face.landmarks.shape) for face in faces] == [((4,), (68, 2))]
        points = model.landmarks(image, boxes)
        assert points.shape == (1, 68, 2)
        found.append((faces[0].landmarks, points))
        heatmaps = model.module(torch.zeros(1, 3, 32, 32))
        assert heatmaps.shape == (1, 68, 8, 8)
    for other in found[1:]:
        np.testing.assert_array_equal(other[0], found[0][0])
        np.testing.assert_array_equal(other[1], found[0][1])


def test_an_image_is_a_file_a_pil_image_or_an_array(run: RunDir, tmp_path: Path, photo):
    image, boxes = photo
    Image.fromarray(image).save(tmp_path / "photo.png")
    model = nasface.load(run.path)
    points = model.landmarks(image, boxes)
    for same in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(image)):
        np.testing.assert_array_equal(model.landmarks(same, boxes), points)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(
        model.landmarks(grey, boxes), model.landmarks(np.repeat(grey[..., None], 3, 2), boxes)
    )
    for bad, fact in (
        (image.astype(float), "float64"),
        (image[..., :2], "2)"),
        (tmp_path / "absent.png", "absent.png"),
    ):
        with pytest.raises(DataError) as err:
            model.landmarks(bad, boxes)
        assert fact in str(err.value)
    with pytest.raises(DataError) as err:
        model.landmarks(image, boxes[0])
    assert "(4,)" in str(err.value)


def test_a_model_knows_what_it_is_and_is_saved_whole(run: RunDir, tmp_path: Path, photo):
    model = nasface.load(run.path, network="supernet")
    assert (model.name, model.architecture.space, model.view.scheme.num_landmarks) == ("supernet", "hrflex", 68)
    assert model.view == View.of(recipe())
    slim = nasface.load(run.slim)
    from_run = nasface.load(run.path)
    assert from_run.training.items() <= slim.training.items()
    assert from_run.training
    assert slim.training["dataset"] == "synthetic"
    assert slim.training["licence"] == str(getattr(Synthetic, "licence", ""))
    model.save(tmp_path / "whole.safetensors")
    again = nasface.load(tmp_path / "whole.safetensors")
    assert (again.view, again.architecture.kept) == (model.view, model.architecture.kept)
    image, boxes = photo
    np.testing.assert_array_equal(again.landmarks(image, boxes), model.landmarks(image, boxes))


def test_a_run_of_an_older_version_has_no_card_and_is_read_by_its_recipe(run: RunDir, tmp_path: Path, photo):
    old = RunDir(tmp_path / "old")
    shutil.copytree(run.path, old.path)
    for path in (old.slim, old.supernet):
        tensors, meta = rundir.read_tensors(path)
        rundir.write_tensors(path, tensors, {k: meta[k] for k in ("space", "graph_digest", "num_landmarks")})
    image, boxes = photo
    for name in ("slim", "supernet"):
        wanted = nasface.load(run.path, network=name).landmarks(image, boxes)
        np.testing.assert_array_equal(nasface.load(old.path, network=name).landmarks(image, boxes), wanted)
    np.testing.assert_array_equal(
        nasface.load(old.slim).landmarks(image, boxes), nasface.load(run.slim).landmarks(image, boxes)
    )
    old.recipe.unlink()
    with pytest.raises(RunError) as err:
        nasface.load(old.slim)
    assert "slim.safetensors" in str(err.value)


def test_loading_changes_nothing_that_it_is_given(run: RunDir):
    net = build_net(recipe(), 68, torch.device("cpu"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    kept = nasface.load(run.path).module.graph
    slim = read_net(net.space, 68, kept, run.supernet, torch.device("cpu"))  # inherits from the supernet's weights
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.random.get_rng_state(), state)
    full = load_file(run.supernet)
    for name, value in slim.state_dict().items():
        if name.startswith("nodes."):
            assert torch.equal(value, full[name]), name


@pytest.mark.parametrize(
    ("changes", "error", "fact"),
    [
        ({"card_version": 99}, RunError, "99"),
        ({"view": {"input_size": 32}}, RunError, "scheme"),
        ({"training": 3}, RunError, "'training'"),
        ({"training": {"dataset": "synthetic", "dataset_options": 3}}, RunError, "'dataset_options'"),
        ({"architecture": {"schema_version": 7}}, GraphError, "7"),
        ({"architecture": None}, GraphError, "altered.safetensors"),
    ],
)
def test_a_damaged_card_is_refused(run: RunDir, tmp_path: Path, changes, error, fact: str):
    with pytest.raises(error) as err:
        nasface.load(altered(run, tmp_path, **changes))
    assert fact in str(err.value)


def test_a_card_of_another_normalisation_or_number_of_landmarks_is_refused(run: RunDir, tmp_path: Path):
    view = rundir.read_tensors(run.slim)[1]["card"]["view"]
    for changed, fact in (
        ({**view, "mean": [0.5, 0.5, 0.5]}, "0.5"),
        ({**view, "scheme": {**view["scheme"], "num_landmarks": 5}}, "5 landmarks"),
        ({**view, "input_size": 33}, "33"),
    ):
        with pytest.raises(NasfaceError) as err:
            nasface.load(altered(run, tmp_path, view=changed))
        assert fact in str(err.value)


def test_what_is_no_network_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for place in ("no_such_network", tmp_path / "empty", tmp_path / "torn.safetensors", tmp_path / "absent.json"):
        with pytest.raises(RunError) as err:
            nasface.load(place)
        assert Path(place).name in str(err.value)


def test_importing_nasface_imports_no_torch():
    code = "import nasface, sys; print(json.dumps(sorted(m for m in ('torch', 'numpy') if m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_lone_file_of_an_unknown_dataset_predicts_but_is_not_judged_on_another_one(
    run: RunDir, tmp_path: Path, photo
):
    training = {"dataset": "mine:faces"}
    place = altered(run, tmp_path, training=training)
    assert nasface.load(place).landmarks(*photo).shape == (1, 68, 2)
    (saved,) = at(place)
    with refused(RunError, "mine:faces", "--dataset"):
        saved.recipe()
    assert saved.recipe(dataset="synthetic").data.name == "synthetic"
    assert saved.recipe(faces=False).data.input_size == 32


def test_a_lone_file_is_judged_on_the_faces_of_its_training(run: RunDir, tmp_path: Path):
    training = rundir.read_meta(run.slim)["card"]["training"]
    options = {**recipe().data.options, "train": 24, "test": 8}
    (saved,) = at(altered(run, tmp_path, training={**training, "dataset_options": options}))
    assert training["dataset_options"] == recipe().data.options
    assert saved.recipe().data.options == options
    assert saved.recipe(dataset="synthetic").data.options == options
    assert saved.recipe(overrides=("data.options.test=9",)).data.options["test"] == 9
    assert saved.recipe(source="demo").data.options["test"] == 400
    assert saved.recipe(dataset="300w").data.name == "300w"
    (old,) = at(altered(run, tmp_path, training={k: v for k, v in training.items() if k != "dataset_options"}))
    assert old.recipe().data.name == "synthetic"


def test_writing_a_card_builds_the_dataset_once_and_pruning_never(run: RunDir, tmp_path: Path, monkeypatch):
    from nasface import plugins
    from nasface.sections import Prune
    from nasface.stages.prune import prune

    built = []
    real = plugins.dataset
    monkeypatch.setattr(plugins, "dataset", lambda *args: (built.append(args), real(*args))[1])
    net = nasface.load(run.path, network="supernet").module
    assert len(built) == 1
    save_net(tmp_path / "new.safetensors", net, recipe())
    assert len(built) == 2
    fewer = recipe().model_copy(update={"prune": Prune(name="share", options={"share": 0.7})})
    prune(run, fewer, RunDir(tmp_path / "fewer"), MACHINE)
    assert len(built) == 2
    mine, whole = (rundir.read_meta(path)["card"] for path in (RunDir(tmp_path / "fewer").slim, run.supernet))
    assert mine["view"] == whole["view"]
    assert mine["training"] == {**whole["training"], "recipe_digest": fewer.digest}
    assert len(mine["architecture"]["edges"]) < len(whole["architecture"]["edges"])


@pytest.mark.parametrize("change", [{"flip": [*range(67), 99]}, {"inter_ocular": [[36], [68]]}])
def test_a_scheme_that_cannot_be_is_refused(run: RunDir, tmp_path: Path, change):
    view = rundir.read_tensors(run.slim)[1]["card"]["view"]
    place = altered(run, tmp_path, view={**view, "scheme": {**view["scheme"], **change}})
    with refused(RunError, "68", place.name):
        nasface.load(place)


def test_the_same_weights_are_not_written_again(run: RunDir, tmp_path: Path):
    place = tmp_path / "old.safetensors"
    tensors, _ = rundir.read_tensors(run.supernet)
    rundir.write_tensors(place, tensors)  # as an older version wrote it, without a card
    digest = rundir.file_digest(place)
    save_net(place, nasface.load(run.path, network="supernet").module, recipe())
    assert rundir.file_digest(place) == digest  # sweeps and architectures name it
    save_net(place, build_net(recipe("seed=9"), 68, torch.device("cpu")), recipe())
    assert "card" in rundir.read_meta(place)


def test_importing_the_commands_imports_no_torch():
    code = "import nasface.cli, sys; print([m for m in ('torch', 'pydantic', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
