"""Exported files that do not fit, and exports that cannot be made, are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nasface
from nasface import plugins
from nasface.deploy.plain import Ends
from nasface.errors import GraphError, RecipeError, RunError
from nasface.formats import graph
from nasface.formats.base import Outputs
from nasface.model.exported import Description, describe
from nasface.model.files import one
from nasface.rundir import RunDir
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.export.run import ExportOptions, NetworkAndFaces, export
from tests.exported import ANY_LOSS, BOX, FORMATS, Export
from tests.extras import needs_onnx
from tests.refusal import command_refuses, refused
from tests.searched import MACHINE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("graphs_once"), needs_onnx]


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


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_the_users_own_are_kept_and_earlier_exports_replaced(
    form: str, run: RunDir, cached: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = tmp_path / "out"

    def write(outputs: Outputs = "landmarks") -> Path:
        caplog.clear()
        wish = ExportOptions(form, ends=Ends(outputs=outputs), max_loss=ANY_LOSS)
        return export(NetworkAndFaces(one(run.path)), wish, out, MACHINE).path

    path = write()
    write()
    assert not caplog.records  # although files of OpenVINO differ a little each time
    write("heatmaps")
    assert f"{path}, an earlier export that differs from this one, is replaced" in caplog.messages
    for own in sorted(out.iterdir()):
        for file in out.iterdir():
            file.unlink()
        own.write_bytes(b"mine")
        with refused(RunError, own, "--out"):
            write()
        assert [(file.name, file.read_bytes()) for file in out.iterdir()] == [(own.name, b"mine")]


def test_a_format_that_does_not_exist(run: RunDir, tmp_path: Path):
    with refused(RecipeError, "export format", "onyx", "onnx"):
        export(NetworkAndFaces(one(run.path)), ExportOptions("onyx"), tmp_path, MACHINE)
