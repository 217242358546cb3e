"""A network as a plain module, and the whole that is exported: crops in, landmarks out."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasface.data.augment import normalise
from nasface.formats import Inputs, Outputs
from nasface.net import GraphNet, key
from nasface.task import Decoder, decode


class Plain(nn.Module):
    """What a GraphNet computes in eval mode, without the graph: a fixed list of sums over constant factors.

    Its tensors are copies in float64, so that rewrites lose nothing; `float()` brings them back.

    Args:
        net: the network.
    """

    def __init__(self, net: GraphNet) -> None:
        super().__init__()
        graph = net.graph
        self.stem, self.head = _copied(net.stem), _copied(net.head)
        self.edges = nn.ModuleDict({name: _copied(part) for name, part in net.edges.items()})
        self.nodes = nn.ModuleDict({name: _copied(part) for name, part in net.nodes.items()})
        factors = net.factors().detach().double().tolist()
        self._factor = dict(zip(graph.edges, factors, strict=True))
        self._inputs, self._outputs = tuple(graph.inputs), tuple(graph.outputs)
        self._order = tuple((node.id, tuple(graph.parents[node.id])) for node in graph.nodes)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Compute the heatmaps (B, L, h, w) of normalised images."""
        stem = self.stem(images_B3HW)
        maps: dict[str, Tensor] = {}
        for name, parents in self._order:
            total = stem if name in self._inputs else None
            for parent in parents:
                term = self.edges[key(parent, name)](maps[parent]) * self._factor[parent, name]
                total = term if total is None else total + term
            maps[name] = self.nodes[key(name)](total)
        heatmaps: Tensor = self.head([maps[name] for name in self._outputs])
        return heatmaps


def _copied(part: nn.Module) -> nn.Module:
    copy = deepcopy(part).cpu().double().eval().requires_grad_(False)
    for module in copy.modules():  # torch.onnx.export takes twice as long where it has to do this itself
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False
    return copy


@dataclass(frozen=True)
class Ends:
    """What of the work before and after the network is part of the exported model.

    Attributes:
        inputs: 'uint8' takes RGB crops (N, H, W, 3) of 0 to 255; 'normalised' takes float32 (N, 3, H, W).
        outputs: 'landmarks' returns landmarks (N, L, 2) in input pixels and confidences (N, L), the heatmaps' peaks;
            'heatmaps' returns heatmaps (N, L, h, w).
    """

    inputs: Inputs = "uint8"
    outputs: Outputs = "landmarks"

    def prepare(self, crops_NHW3: NDArray[np.uint8]) -> NDArray[Any]:
        """Return RGB crops as the inputs of the exported module."""
        if self.inputs == "uint8":
            return crops_NHW3
        return normalise(torch.from_numpy(crops_NHW3).permute(0, 3, 1, 2)).contiguous().numpy()


class Deployed(nn.Module):
    """A network between its ends.

    Args:
        net: from normalised images (B, 3, H, W) to heatmaps (B, L, h, w).
        input_size: side of the square input in pixels.
        decoder, sigma: see `nasface.task.decode`.
        flip: the order of the landmarks of a mirrored face, for networks that are tested on both; or None.
        ends: what is inside.
    """

    def __init__(
        self,
        net: nn.Module,
        input_size: int,
        decoder: Decoder,
        sigma: float,
        flip: tuple[int, ...] | None = None,
        ends: Ends | None = None,
    ) -> None:
        super().__init__()
        self.net, self.input_size, self.decoder, self.sigma = net, input_size, decoder, sigma
        self.flip = None if flip is None else list(flip)
        self.ends = ends or Ends()

    def forward(self, crops: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run the network; see `Ends` for what goes in and comes out."""
        images_B3HW = normalise(crops.permute(0, 3, 1, 2)) if self.ends.inputs == "uint8" else crops
        heatmaps: Tensor = self.net(images_B3HW)
        if self.flip is not None:
            heatmaps = 0.5 * (heatmaps + self.net(images_B3HW.flip(3)).flip(3)[:, self.flip])
        if self.ends.outputs == "heatmaps":
            return heatmaps
        return decode(heatmaps, self.input_size, self.decoder, self.sigma), heatmaps.amax(dim=(2, 3))

    def example(self) -> Tensor:
        """Return two crops of noise: tracing a batch of one would fix the batch size."""
        size = self.input_size
        crops = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        return torch.from_numpy(self.ends.prepare(crops))
