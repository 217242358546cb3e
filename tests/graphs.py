"""The ONNX graphs that torch makes of networks, which takes it seconds: one of each network in a test session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from nasface.deploy.plain import Deployed
from nasface.formats import graph
from tests.searched import once


@contextmanager
def sharing_graphs(factory: pytest.TempPathFactory) -> Iterator[None]:
    """All formats and precisions of a network start from one graph, which the first test that needs it makes."""
    real = graph.onnx_graph

    def found(module: nn.Module, example: Tensor) -> Any:
        import onnx

        if not isinstance(module, Deployed) or not isinstance(module.net, fx.GraphModule):
            return real(module, example)

        def make(folder: Path) -> None:
            (folder / "graph.onnx").write_bytes(real(module, example).SerializeToString())

        folder = once(factory, f"graph-{_digest(module, module.net, example)}", make)
        return onnx.load_from_string((folder / "graph.onnx").read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "onnx_graph", found)
        yield


@pytest.fixture
def graphs_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test exports shares its graphs with other tests."""
    with sharing_graphs(tmp_path_factory):
        yield


def _digest(whole: Deployed, net: fx.GraphModule, example: Tensor) -> str:
    """Return a hash of all that a graph is made from: the settings of both ends, the parts, code and tensors."""
    settings = {name: value for name, value in vars(whole).items() if not name.startswith("_")}
    parts = [(name, repr(part)) for name, part in net.named_modules() if name]
    made = hashlib.sha256(repr((settings, parts, net.code, example.shape, example.dtype)).encode())
    for name, tensor in whole.state_dict().items():
        made.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:16]
