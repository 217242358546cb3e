"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasface.formats import graph
from nasface.formats.base import KEY, Precision, Quantisation, Run, library, unreadable

if TYPE_CHECKING:
    from torch import Tensor, nn

# what lies between convolutions too, so that maps stay in 8 bits on their way from one to the next
_QUANTISED = ("Conv", "Relu", "Clip", "Add", "Mul", "Concat", "Resize")


class Onnx:
    """ONNX, run by ONNX Runtime: one file, read by many runtimes."""

    suffix, runtime, channels = ".onnx", "onnxruntime", 8

    def require(self, precision: Precision) -> None:
        """Import what `write` needs; see `Format`."""
        graph.require("onnx")
        _runtime()

    def write(
        self, module: nn.Module, example: Tensor, path: Path, about: str, quantisation: Quantisation | Precision
    ) -> Sequence[Path]:
        """Write one .onnx file; see `Format`."""
        import onnx

        proto = graph.onnx_graph(module, example)
        if isinstance(quantisation, Quantisation):
            proto = _quantised(proto, quantisation, path)
        elif quantisation == "fp16":
            _halve_weights(proto)
        proto.producer_name = "nasface"
        proto.ClearField("producer_version")
        onnx.helper.set_model_props(proto, {KEY: about})
        onnx.checker.check_model(proto)
        path.write_bytes(proto.SerializeToString())
        return (path,)

    def describe(self, path: Path) -> str | None:
        """Return the description in the file's metadata; see `Format`."""
        options = _runtime().SessionOptions()
        options.graph_optimization_level = _runtime().GraphOptimizationLevel.ORT_DISABLE_ALL  # it is not run
        found: str | None = _session(path, options).get_modelmeta().custom_metadata_map.get(KEY)
        return found

    def open(self, path: Path, threads: int = 0) -> Run:
        """Open a file to run it with ONNX Runtime on the CPU; see `Format`."""
        options = _runtime().SessionOptions()
        options.intra_op_num_threads = threads
        session = _session(path, options)
        name = session.get_inputs()[0].name

        def run(inputs: NDArray[Any]) -> Sequence[NDArray[Any]]:
            outputs: Sequence[NDArray[Any]] = session.run(None, {name: inputs})
            return outputs

        return run


def _runtime() -> Any:
    runtime = library("onnxruntime", "onnx", "running an .onnx file")
    runtime.disable_telemetry_events()  # nothing is sent anywhere
    return runtime


def _session(path: Path, options: Any) -> Any:
    options.log_severity_level = 4  # what is wrong is reported once, by nasface
    try:
        return _runtime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # the runtime has a class for every kind of fault
        raise unreadable(path, "an ONNX model", err) from err


def _halve_weights(proto: Any) -> None:
    """Store float weights of some size as 16 bits; a cast, which runtimes do once, brings them back."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}/Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantised(proto: Any, how: Quantisation, path: Path) -> Any:
    """Return a graph whose convolutions compute in 8 bits: activations unsigned, weights signed and per channel.

    Depthwise convolutions collapse with one range for all channels, or with ranges measured as the network runs.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[NDArray[Any]] = iter(np.split(how.inputs, range(8, len(how.inputs), 8)))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            rows = next(self.rows, None)
            return None if rows is None else {"crops": rows}

    plain, done = path.with_suffix(".plain.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(proto, str(plain), skip_optimization=True, skip_symbolic_shape=True)
    quantize_static(
        str(plain),
        str(done),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTISED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=graph.in_float(proto, how.keep),
    )
    quantised = onnx.load(str(done))
    for file in (plain, done):
        file.unlink()
    return quantised
