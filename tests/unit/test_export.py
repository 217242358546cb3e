"""Exported networks: they compute what the network computes, run without torch, and refuse what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nasface
from nasface import plugins
from nasface.deploy.plain import Ends
from nasface.errors import GraphError, RecipeError, RunError
from nasface.formats import graph
from nasface.model.exported import COSTS, Description, describe
from nasface.model.files import one
from nasface.rundir import RunDir
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.export.run import Exported, ExportOptions, NetworkAndFaces, export
from tests.extras import needs_onnx, needs_openvino
from tests.refusal import command_refuses, refused
from tests.searched import MACHINE, caching_in, once

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("graphs_once"), needs_onnx]
FORMATS = [pytest.param("onnx"), pytest.param("openvino", marks=needs_openvino)]
# A network that was trained for two epochs is at the mercy of rounding, so int8 may lose what it likes here.
ANY_LOSS = 1000.0

Export = Callable[..., Exported]


@pytest.fixture
def export_once(searched: Path, tmp_path_factory: pytest.TempPathFactory, graphs_once: None) -> Export:
    """Export the searched run; each file is made once in a test session."""

    def make(form: str = "onnx", precision: Any = "fp32", **changes: Any) -> Exported:
        found: list[Exported] = []

        def write(folder: Path) -> None:
            with caching_in(searched):
                wish = ExportOptions(form, precision, max_loss=ANY_LOSS, calibrate=16, **changes)
                found.append(export(NetworkAndFaces(one(searched / "run")), wish, folder, MACHINE))
            (folder / "found.json").write_text(json.dumps(found[0].as_dict()))

        name = "-".join(["exported", form, precision, *map(str, changes)])
        folder = once(tmp_path_factory, name, write)
        content = json.loads((folder / "found.json").read_text())
        return replace(_exported(content), path=folder / Path(content["path"]).name)

    return make


def _exported(content: dict[str, Any]) -> Exported:
    from nasface.stages.export.compare import Difference

    return Exported(**{**content, "path": Path(content["path"]), "difference": Difference(**content["difference"])})


def faces(count: int = 3) -> list[np.ndarray]:
    """Images of synthetic faces."""
    dataset = plugins.dataset("synthetic", None, {"train": 0, "test": count, "size": 96})
    return [dataset.read(face) for face in dataset.index().faces]


BOX = np.array([[20.0, 25.0, 75.0, 80.0]])


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


# --- what is refused


@pytest.mark.parametrize(("form", "content"), [("onnx", b"no model"), ("onnx", b""), ("openvino", b"<net/>")])
def test_a_file_of_another_kind(form: str, content: bytes, tmp_path: Path):
    if form == "openvino":
        pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    path = tmp_path / f"face{plugins.form(form).suffix}"
    path.write_bytes(content)
    with refused(RunError, path):
        nasface.load(path)
    assert str(path) in command_refuses("predict", "--model", path, tmp_path)


@pytest.mark.parametrize(("form", "damaged"), [("onnx", ".onnx"), ("openvino", ".xml"), ("openvino", ".bin")])
def test_a_truncated_file(form: str, damaged: str, export_once: Export, tmp_path: Path):
    if form == "openvino":
        pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    done = export_once(form)
    for file in done.path.parent.glob("slim*"):
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[: len(content) // 2] if file.suffix == damaged else content)
    with refused(RunError, tmp_path / done.path.name):
        nasface.load(tmp_path / done.path.name)


def rewritten(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    import onnx

    model = onnx.load(str(source))
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def described(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of an exported file whose description has been changed."""

    def change(model: Any) -> None:
        about = json.loads(model.metadata_props[0].value)
        for name, value in changes.items():
            where = about
            *folders, last = name.split("__")
            for folder in folders:
                where = where[folder]
            where[last] = value
        model.metadata_props[0].value = json.dumps(about)

    return rewritten(source, target, change)


def test_an_opset_that_the_runtime_does_not_know(export_once: Export, tmp_path: Path):
    def change(model: Any) -> None:
        model.opset_import[0].version = 99

    path = rewritten(export_once().path, tmp_path / "new.onnx", change)
    with refused(RunError, path, "Opset 99", "update the runtime"):
        nasface.load(path)


def test_a_file_without_a_card(export_once: Export, tmp_path: Path):
    path = rewritten(export_once().path, tmp_path / "bare.onnx", lambda model: model.ClearField("metadata_props"))
    with refused(RunError, path, "no nasface card", "nasface export"):
        nasface.load(path)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"card__card_version": 99}, ["99"]),
        ({"card": None}, ["damaged"]),
        ({"costs": {}}, ["damaged"]),
        ({"inputs": "jpeg"}, ["damaged"]),
        ({"card__view__input_size": 64}, []),  # checked when it runs
    ],
)
def test_a_card_that_is_damaged_or_does_not_fit(
    changes: dict[str, Any], facts: list[str], export_once: Export, tmp_path: Path
):
    path = described(export_once().path, tmp_path / "card.onnx", **changes)
    with refused(RunError, path, *facts):
        nasface.load(path).landmarks(np.zeros((96, 96, 3), np.uint8), BOX)


def test_a_card_of_another_landmark_scheme(export_once: Export, run: RunDir, cached: None, tmp_path: Path):
    """With five landmarks, the graph and its card disagree; and the dataset has other landmarks than the card."""
    about = describe(export_once().path, plugins.form("onnx"))
    view = about.card.view
    scheme = replace(view.scheme, num_landmarks=5, flip=(0, 1, 2, 3, 4), inter_ocular=((0,), (1,)))
    scheme = replace(scheme, inter_pupil=((0,), (1,)), contours=())
    card = replace(
        about.card, architecture=replace(about.card.architecture, num_landmarks=5), view=replace(view, scheme=scheme)
    )
    path = tmp_path / "five.onnx"

    def change(model: Any) -> None:
        model.metadata_props[0].value = Description(card, "fp32", costs=about.costs).to_json()

    rewritten(export_once().path, path, change)
    with refused(RunError, path, "5 landmarks", "(1, 68, 2)"):
        nasface.load(path).landmarks(np.zeros((96, 96, 3), np.uint8), BOX)
    saved = one(path)
    with refused(GraphError, path, "5 landmarks", "68"):
        evaluate(saved.recipe(overrides=("data.options.test=4",)), MACHINE, [saved])


@pytest.mark.parametrize("form", FORMATS)
def test_a_runtime_that_is_not_installed(form: str, export_once: Export, monkeypatch: pytest.MonkeyPatch):
    path = export_once(form).path
    monkeypatch.setitem(sys.modules, {"onnx": "onnxruntime", "openvino": "openvino"}[form], None)
    said = command_refuses("predict", "--model", path, path.parent)
    assert f"nasface[{form}]" in said


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_library_for_exporting_that_is_not_installed(missing: str, run: RunDir, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, missing, None)
    assert "nasface[onnx]" in command_refuses("export", run.path)


def test_settings_that_the_file_does_not_have(export_once: Export):
    path = export_once().path
    assert "decoder" in command_refuses("predict", "--model", path, path, "--set", "task.decoder=soft")
    assert "cuda" in command_refuses("predict", "--model", path, path, "--device", "cuda")


def test_an_exported_network_is_only_run(export_once: Export, tmp_path: Path):
    path = export_once().path
    with refused(RunError, "slim-fp32", ".safetensors"):
        nasface.load(path).save(tmp_path / "again.safetensors")
    assert ".safetensors" in command_refuses("export", path, "--out", tmp_path)


def test_int8_without_calibration_faces(run: RunDir, cached: None, tmp_path: Path):
    out = tmp_path / "out"
    nasface.load(run.path).save(tmp_path / "lone.safetensors")
    lone = one(tmp_path / "lone.safetensors")
    assert lone.card is not None
    card = replace(lone.card, training={"dataset": "300w"})  # whose folder is not known here
    with refused(RunError, "int8", "training faces", "--data-root"):
        export(NetworkAndFaces(replace(lone, dataset="300w", card=card)), ExportOptions("onnx", "int8"), out, MACHINE)
    with refused(RunError, "int8", "synthetic"):
        export(NetworkAndFaces(lone, overrides=("data.options.train=0",)), ExportOptions("onnx", "int8"), out, MACHINE)
    assert not out.exists()


def test_a_loss_above_the_limit_writes_nothing(
    run: RunDir, cached: None, export_once: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The parts that it names are such that --keep-float takes them."""
    import onnx

    from nasface.stages.export import run as exporting

    proto = onnx.load(str(export_once().path))
    nmes = iter((0.05, 0.07, 0.05, 0.07))
    monkeypatch.setattr(exporting, "_nme", lambda *_: next(nmes))
    kept = []
    monkeypatch.setattr(exporting.shlex, "quote", lambda part: kept.append(part) or part)
    with refused(RunError, "int8", "2.00 points", "5.00%", "7.00%", "--max-loss 0.5", "--keep-float", "fp16"):
        export(
            NetworkAndFaces(one(run.path)), ExportOptions("onnx", "int8", max_loss=0.5, calibrate=8), tmp_path, MACHINE
        )
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]
    always = set(graph.in_float(proto, ()))
    assert len(kept) == exporting.NAMED
    assert all(set(graph.in_float(proto, (part,))) > always for part in kept)
    others, before = ExportOptions("onnx", "int8", max_loss=0.5, calibrate=8, keep=tuple(kept)), set(kept)
    kept.clear()
    with refused(RunError, "--keep-float"):
        export(NetworkAndFaces(one(run.path)), others, tmp_path, MACHINE)
    assert kept
    assert not before & set(kept)


def test_landmarks_that_moved_write_nothing(run: RunDir, cached: None, tmp_path: Path):
    """A graph that computes something else is found out."""
    from onnx import numpy_helper

    right = graph.onnx_graph

    def wrong(*args: Any) -> Any:
        proto = right(*args)
        last = graph.convolutions(proto)[-1].input[1]
        (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == last)
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), last))
        return proto

    with pytest.MonkeyPatch.context() as patch, refused(RunError, "PyTorch", "0.01", "nothing was written"):
        patch.setattr(graph, "onnx_graph", wrong)
        export(NetworkAndFaces(one(run.path)), ExportOptions("onnx"), tmp_path / "out", MACHINE)
    assert not list((tmp_path / "out").iterdir())


def test_a_format_that_does_not_exist(run: RunDir, tmp_path: Path):
    with refused(RecipeError, "export format", "onyx", "onnx"):
        export(NetworkAndFaces(one(run.path)), ExportOptions("onyx"), tmp_path, MACHINE)
