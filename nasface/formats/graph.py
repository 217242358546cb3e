"""A torch module as an ONNX graph with tidy names, from which both ONNX and OpenVINO files are made."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from nasface.errors import RunError, described
from nasface.formats.base import library

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 18  # the one for which torch's exporter is written; ONNX Runtime 1.14 and newer read it
_SCOPES = "pkg.torch.onnx.name_scopes"
_NET = "net"  # the name of the network within the exported module


def require(extra: str) -> None:
    """Import what `onnx_graph` needs. Raises RunError that names the extra to install."""
    for name in ("onnx", "onnxscript"):
        library(name, extra, "exporting a network")


def onnx_graph(module: nn.Module, example: Tensor) -> Any:
    """Return a module as an `onnx.ModelProto`.

    Every node is named after the part of the network that it comes from, such as 'net.head.heatmaps/Conv_7'. Nothing
    remains of the paths and the stack traces that torch's exporter leaves behind.

    Raises:
        RunError: when torch cannot export the module.
    """
    import torch

    names = ["heatmaps"]
    with torch.no_grad():
        outputs = module(example)
    if isinstance(outputs, tuple):
        names = ["landmarks", "confidences"]
    try:
        with _quietly():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                input_names=["crops"],
                output_names=names,
                verbose=False,
            )
    except Exception as err:  # the exporter raises many types of errors
        raise RunError(
            f"torch cannot export this network ({described(err)[:300]}); its search space must use operations that "
            "torch.onnx.export knows, without branches on values"
        ) from err
    assert program is not None
    proto = program.model_proto
    _tidy(proto)
    return proto


def convolutions(proto: Any) -> list[Any]:
    """Return the convolutions of the network itself, in order; those of the decoder are none of them."""
    return [node for node in proto.graph.node if node.op_type == "Conv" and _in_network(node.name)]


def in_float(proto: Any, patterns: tuple[str, ...]) -> list[str]:
    """Return the nodes that int8 leaves in float, by name.

    These are the last convolution, all that runs before and after the network, and the parts that a pattern names.
    """
    last = convolutions(proto)[-1].name
    names = [node.name for node in proto.graph.node]
    return [name for name in names if name == last or not _in_network(name) or is_kept(name, patterns)]


def _in_network(name: str) -> bool:
    """Whether a node belongs to the network, not to what runs before and after it."""
    return name.startswith((f"{_NET}.", f"{_NET}/"))


def is_kept(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a node of the network belongs to a part that one of the patterns names."""
    part = name.partition("/")[0].removeprefix(f"{_NET}.")
    return any(fnmatch(part, pattern) or fnmatch(part, f"{pattern}.*") for pattern in patterns)


def _tidy(proto: Any) -> None:
    """Name nodes after parts and the free dimension 'batch'; drop metadata."""
    for i, node in enumerate(proto.graph.node):
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        parts = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
        node.name = f"{parts[-1] if parts else 'ends'}/{node.op_type}_{i}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for values in (proto.graph.value_info, proto.graph.input, proto.graph.output, proto.graph.initializer):
        for value in values:
            value.ClearField("metadata_props")
            value.ClearField("doc_string")
    del proto.graph.value_info[:]  # their dimensions have names that no longer fit
    proto.graph.ClearField("metadata_props")
    proto.ClearField("metadata_props")
    del proto.functions[:]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what torch's exporter tells about itself and about packages that nobody needs here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
