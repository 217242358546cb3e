"""Exported networks: they compute what the network computes, and run without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nasface
from nasface import plugins
from nasface.data.base import Face, Index, Problem
from nasface.deploy.plain import Ends
from nasface.errors import RunError
from nasface.formats import graph
from nasface.model.exported import COSTS, describe
from nasface.model.files import one
from nasface.rundir import RunDir
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.export.faces import COMPARED, _needed
from nasface.stages.export.run import ExportOptions, NetworkAndFaces, export
from nasface.stages.faces import divided
from tests.exported import BOX, FORMATS, Export, faces
from tests.extras import needs_onnx, needs_openvino
from tests.refusal import refused
from tests.searched import MACHINE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("graphs_once"), needs_onnx]


# --- what is written


@pytest.mark.parametrize("form", FORMATS)
def test_an_exported_network_finds_the_landmarks_of_the_network(form: str, export_once: Export, run: RunDir):
    done = export_once(form)
    assert done.difference.worst <= 0.01
    assert done.difference.landmarks + done.difference.undecided == 16 * 68
    assert done.compared == 16
    assert done.nme_after == pytest.approx(done.nme_before, abs=1e-3)
    ours, theirs = nasface.load(run.path), nasface.load(done.path)
    images = faces()
    boxes = [BOX] * len(images)
    for mine, other in zip(ours.find(images, boxes), theirs.find(images, boxes), strict=True):
        far = np.linalg.norm(mine.landmarks_KL2 - other.landmarks_KL2, axis=2)
        assert np.median(far) < 0.01  # rounding decides a few landmarks of a network that is hardly trained
        np.testing.assert_allclose(mine.scores_K, other.scores_K, atol=1e-3)
    assert theirs.find([images[0]], [np.empty((0, 4))])[0].landmarks_KL2.shape == (0, 68, 2)
    assert theirs.architecture == replace(ours.architecture, provenance={})
    assert (theirs.view, theirs.training) == (ours.view, ours.training)
    assert theirs.device == "cpu"


@pytest.mark.parametrize("form", FORMATS)
def test_the_folder_holds_the_files_and_nothing_else(form: str, export_once: Export):
    done = export_once(form)
    wanted = {"slim-fp32.onnx"} if form == "onnx" else {"slim-fp32.xml", "slim-fp32.bin"}
    assert {path.name for path in done.path.parent.iterdir()} - {"found.json"} == wanted
    assert done.size == sum((done.path.parent / name).stat().st_size for name in wanted)
    for name in wanted:
        content = (done.path.parent / name).read_bytes()
        assert not [trace for trace in (b"site-packages", str(Path.home()).encode(), b'File "') if trace in content]


def test_the_graph_is_named_and_folded(export_once: Export):
    import onnx

    model = onnx.load(str(export_once().path))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", graph.OPSET)]
    assert [value.name for value in model.graph.input] == ["crops"]
    assert [value.name for value in model.graph.output] == ["landmarks", "confidences"]
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert shapes == [["batch", 32, 32, 3]]
    assert not [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert graph.convolutions(model)[-1].name.startswith("net.head.heatmaps/")
    assert model.producer_name == "nasface"
    about = describe(export_once().path, plugins.form("onnx"))
    assert set(about.costs) == set(COSTS)


@pytest.mark.parametrize("form", FORMATS)
def test_fp16_halves_the_weights(form: str, export_once: Export):
    full, half = export_once(form), export_once(form, "fp16")
    files = [done.path.with_suffix(".bin" if form == "openvino" else ".onnx") for done in (half, full)]
    assert files[0].stat().st_size < 0.8 * files[1].stat().st_size  # much of a small network is not weights
    assert half.difference.mean < 1
    assert abs(half.nme_after - half.nme_before) < 0.01


@pytest.mark.parametrize("form", FORMATS)
def test_int8_is_calibrated_on_training_faces_and_measured(form: str, export_once: Export):
    if form == "openvino":
        pytest.importorskip("nncf", reason="needs NNCF, of the extra 'openvino'")
    done = export_once(form, "int8")
    assert done.calibrated == 16
    assert done.judged > 0
    assert done.nme_after != done.nme_before  # it is not the same network
    assert done.nme_after < 2 * done.nme_before
    assert nasface.load(done.path).find(faces(1), [BOX])[0].landmarks_KL2.shape == (1, 68, 2)


def test_int8_weights_are_signed_and_per_channel_and_parts_stay_in_float(export_once: Export):
    import onnx
    from onnx import numpy_helper

    counts = {}
    for name, done in {
        "all": export_once("onnx", "int8"),
        "no stem": export_once("onnx", "int8", keep=("stem",)),
    }.items():
        model = onnx.load(str(done.path))
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        dequantised = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
        convolutions = graph.convolutions(model)
        quantised = [node for node in convolutions if node.input[1] in dequantised]
        counts[name] = len(quantised)
        assert convolutions[-1] not in quantised  # heatmaps of 256 levels would have ties
        for node in quantised:
            weights, scales, zeros = (tensors[key] for key in dequantised[node.input[1]].input)
            assert weights.dtype == np.int8
            assert scales.shape == (len(weights),)
            assert not zeros.any()
            assert tensors[dequantised[node.input[0]].input[2]].dtype == np.uint8
    assert counts["all"] - counts["no stem"] == 1


@needs_openvino
def test_parts_of_openvino_files_stay_in_float(export_once: Export):
    pytest.importorskip("nncf", reason="needs NNCF, of the extra 'openvino'")
    import openvino

    quantised = {}
    files = {(): export_once("openvino", "int8"), ("stem",): export_once("openvino", "int8", keep=("stem",))}
    for keep, done in files.items():
        model = openvino.Core().read_model(str(done.path))
        convolutions = [
            op for op in model.get_ordered_ops() if op.get_type_name() in ("Convolution", "GroupConvolution")
        ]
        weights = {op.get_friendly_name(): op.input_value(1).get_node().get_type_name() for op in convolutions}
        quantised[keep] = {name for name, kind in weights.items() if kind != "Constant"}  # scaled from 8 bits
        assert len(quantised[keep]) > len(weights) / 2
        assert not [name for name in quantised[keep] if name.startswith("net.head.heatmaps/")]
    stems = {keep: [name for name in names if name.startswith("net.stem.")] for keep, names in quantised.items()}
    assert stems[()]
    assert not stems[("stem",)]


@needs_openvino
def test_openvino_computes_whole_blocks_in_8_bits(export_once: Export):
    pytest.importorskip("nncf", reason="needs NNCF, of the extra 'openvino'")
    import openvino

    model = openvino.Core().read_model(str(export_once("openvino", "int8").path))
    kinds = [op.get_type_name() for op in model.get_ordered_ops()]
    assert "Clamp" in kinds  # ReLU6 in one operation, which is computed in the convolution before it
    assert "Maximum" not in kinds
    sums = [op for op in model.get_ordered_ops() if op.get_type_name() == "Add"]
    read = [{source.get_node().get_type_name() for source in op.input_values()} for op in sums]
    assert {"FakeQuantize", "Convolution"} in read or {"FakeQuantize", "Add"} in read  # a residual addition
    for op in model.get_ordered_ops():
        if op.get_type_name() == "FakeQuantize":
            readers = {reader.get_node().get_type_name() for reader in op.input_value(0).get_target_inputs()}
            assert "Add" not in readers  # or the map would be written in float as well


@needs_openvino
def test_openvino_prints_nothing_of_its_own(
    run: RunDir, cached: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("nncf", reason="needs NNCF, of the extra 'openvino'")
    options = ExportOptions("openvino", "int8", max_loss=100, calibrate=8)
    assert export(NetworkAndFaces(one(run.path)), options, tmp_path, MACHINE).path.exists()
    assert capfd.readouterr().out == ""  # or --json would print something else than JSON


def test_what_other_programs_preprocess_and_decode_stays_outside(export_once: Export):
    import onnxruntime

    done = export_once("onnx", ends=Ends("normalised", "heatmaps"))
    assert done.difference.worst <= 0.01
    session = onnxruntime.InferenceSession(str(done.path))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    assert [(value.name, value.type, value.shape) for value in inputs] == [
        ("crops", "tensor(float)", ["batch", 3, 32, 32])
    ]
    assert [(value.name, value.shape) for value in outputs] == [("heatmaps", ["batch", 68, 8, 8])]
    with refused(RunError, done.path, "--inputs", "--outputs"):
        nasface.load(done.path)


# --- how it is used

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
from nasface.cli import main
main(sys.argv[1:], standalone_mode=False)
print({"torch", "onnx", "onnxscript", "nncf"} & {name for name, module in sys.modules.items() if module})
"""


def without_torch(folder: Path, *args: object) -> str:
    words = [sys.executable, "-c", WITHOUT_TORCH, *map(str, args)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *said, loaded = done.stdout.strip().splitlines()
    assert loaded == "set()"
    return "\n".join(said)


@pytest.mark.parametrize("form", FORMATS)
def test_predict_needs_no_torch(form: str, export_once: Export, run: RunDir, tmp_path: Path):
    Image.fromarray(faces(1)[0]).save(tmp_path / "face.png")
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\nface.png,20,25,75,80\n")
    args = ("predict", "face.png", "--boxes", "boxes.csv", "--overlay", "--json", "--model")
    said = json.loads(without_torch(tmp_path, *args, export_once(form).path))
    wanted = nasface.load(export_once(form).path).landmarks(tmp_path / "face.png", BOX)
    np.testing.assert_allclose(said["images"][0]["faces"][0]["landmarks"], wanted[0], atol=2e-3)


def test_evaluate_needs_no_torch_and_measures_the_same(export_once: Export, run: RunDir, cached: None, tmp_path: Path):
    said = json.loads(
        without_torch(tmp_path, "evaluate", export_once().path, "--json", "--set", "data.options.test=16")
    )
    found = said["runs"][0]["networks"]["slim-fp32"]
    saved = one(run.path)
    wanted = evaluate(saved.recipe(), MACHINE, [saved])[0].as_dict()
    assert {name: found[name] for name in COSTS} == {name: wanted[name] for name in COSTS}
    assert found["held_out_nme"] == pytest.approx(wanted["held_out_nme"], abs=2e-3)
    for subset, figures in wanted["subsets"]["inter_ocular"].items():
        assert found["subsets"]["inter_ocular"][subset]["nme"] == pytest.approx(figures["nme"], abs=5e-3)


def test_masks_cover_the_faces_of_exported_networks_too(export_once: Export, run: RunDir, cached: None):
    saved, other = one(run.path), one(export_once().path)
    masked = [evaluate(saved.recipe(), MACHINE, [network], "half")[0] for network in (saved, other)]
    plain = evaluate(saved.recipe(), MACHINE, [other])[0]
    far = np.linalg.norm(masked[0].predicted_NL2 - masked[1].predicted_NL2, axis=2)
    assert np.median(far) < 0.01
    assert not np.allclose(masked[1].predicted_NL2, plain.predicted_NL2)


def test_threads_are_those_of_the_recipe(export_once: Export, run: RunDir, monkeypatch: pytest.MonkeyPatch):
    form = plugins.form("onnx")
    asked = []
    monkeypatch.setattr(type(form), "open", lambda self, path, threads=0: asked.append(threads))
    saved = one(export_once().path)
    saved.load(saved.recipe(overrides=("training.threads=3",)))
    assert asked == [3]


def test_a_format_of_ones_own_needs_no_change(run: RunDir, cached: None, tmp_path: Path):
    done = export(NetworkAndFaces(one(run.path)), ExportOptions("nasface.formats.onnx:Onnx"), tmp_path, MACHINE)
    assert done.path == tmp_path / "slim-fp32.onnx"


def test_only_the_faces_that_are_needed_are_prepared():
    marks = np.array([[0.0, 0.0], [9.0, 9.0]])
    names = [("train", 4000), ("test", 500)]
    every = tuple(Face(f"{split}/{i}", split, (), marks, "", None) for split, count in names for i in range(count))
    index = _needed(Index(every, (Problem("train/x", "is damaged"),), {"train": 4000}), share=0.1, calibrate=30)
    own, held_out = divided([face.name for face in index.faces if face.split == "train"], 0.1)
    assert (len(own), sum(face.split == "test" for face in index.faces)) == (30, COMPARED)
    assert 300 < len(held_out) < 500  # a tenth of all
    assert not index.problems
    alone = _needed(Index(every[:4000]), share=1e-9, calibrate=0)
    assert len(alone.faces) == COMPARED  # of training faces, where there are no others
