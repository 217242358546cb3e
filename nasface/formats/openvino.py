"""OpenVINO files, run by OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasface.formats import graph
from nasface.formats.base import KEY, Precision, Quantisation, Run, library, unreadable

if TYPE_CHECKING:
    from torch import Tensor, nn


class OpenVino:
    """OpenVINO, often the fastest on CPUs: an .xml file with the graph and a .bin file with the weights."""

    suffix, runtime, channels = ".xml", "openvino", 1

    def require(self, precision: Precision) -> None:
        """Import what `write` needs; see `Format`."""
        graph.require("openvino")
        _core()
        if precision == "int8":
            _nncf()

    def write(
        self, module: nn.Module, example: Tensor, path: Path, about: str, quantisation: Quantisation | Precision
    ) -> Sequence[Path]:
        """Write an .xml and a .bin file; see `Format`."""
        import openvino

        proto = graph.onnx_graph(module, example)
        # read_model and not convert_model, which reports its use to the makers of OpenVINO
        model = _core().read_model(proto.SerializeToString())
        if isinstance(quantisation, Quantisation):
            model = _quantised(model, proto, quantisation)
        model.set_rt_info(about, [KEY])
        openvino.save_model(model, str(path), compress_to_fp16=quantisation == "fp16")
        return (path.with_suffix(".bin"), path)

    def describe(self, path: Path) -> str | None:
        """Return the description in the file's metadata; see `Format`."""
        model = _read(path)
        return str(model.get_rt_info([KEY]).astype(str)) if model.has_rt_info([KEY]) else None

    def open(self, path: Path, threads: int = 0) -> Run:
        """Open a file to run it with OpenVINO on the CPU, in float32 where it is not quantised; see `Format`.

        On new CPUs, OpenVINO would compute in bfloat16 of its own accord, which moves landmarks.
        """
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = _core().compile_model(_read(path), "CPU", settings)
        except RuntimeError as err:
            raise unreadable(path, "an OpenVINO model", err) from err

        def run(inputs: NDArray[Any]) -> Sequence[NDArray[Any]]:
            return [np.array(output) for output in compiled(inputs).values()]

        return run


def _core() -> Any:
    return library("openvino", "openvino", "running an OpenVINO .xml file").Core()


def _nncf() -> Any:
    os.environ.setdefault("NNCF_CI", "1")  # NNCF then reports nothing to its makers
    nncf = library("nncf", "openvino", "exporting int8 for OpenVINO")
    logging.getLogger("nncf").setLevel(logging.ERROR)  # it would list every operation that stays in float
    return nncf


def _read(path: Path) -> Any:
    core = _core()
    try:
        with path.open("rb") as file:
            if b"<net " not in file.read(1024):  # OpenVINO would try the formats of half a dozen other programs
                raise RuntimeError("it does not begin like one")
        return core.read_model(str(path))
    except RuntimeError as err:
        raise unreadable(path, "an OpenVINO model", err) from err


def _quantised(model: Any, proto: Any, how: Quantisation) -> Any:
    """Return a model whose convolutions compute in 8 bits, with one range per channel of the weights."""
    from openvino._offline_transformations import apply_moc_transformations

    nncf = _nncf()
    # ONNX's Clip is read as a maximum and a minimum, before which the CPU does not convolve in 8 bits; now they are one
    apply_moc_transformations(model, cf=False)
    kept = set(graph.in_float(proto, how.keep))
    there = [op.get_friendly_name() for op in model.get_ops()]
    # a convolution with a bias becomes two operations, of which the addition has the node's name
    ignored = [name for name in there if name.removesuffix("/WithoutBiases") in kept]
    scope = nncf.IgnoredScope(names=ignored, validate=False)
    data = nncf.Dataset(np.split(how.inputs, range(1, len(how.inputs))))
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF's own progress bars, which nobody asked for
        quantised = nncf.quantize(model, data, subset_size=len(how.inputs), ignored_scope=scope)
    _add_in_8_bits(quantised)
    return quantised


def _add_in_8_bits(model: Any) -> None:
    """Let residual additions read the map in 8 bits that the first convolution of their block reads.

    Otherwise the map is written twice, in float for the addition and in 8 bits, and the CPU quantises it in a pass of
    its own instead of in the convolution before it.
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() != "FakeQuantize" or op.input_value(0).get_node().get_type_name() not in ("Add", "Relu"):
            continue
        for reader in op.input_value(0).get_target_inputs():
            if reader.get_node().get_type_name() == "Add":
                reader.replace_source_output(op.output(0))
    model.validate_nodes_and_infer_types()
