"""Small spaces, nets, faces and plug-ins that several test files build on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nasface.data.augment import DeviceFaces
from nasface.data.base import Scheme
from nasface.graph import Edge, Graph, Node
from nasface.net import GraphNet
from nasface.prune import top
from nasface.step import Batch, Phase
from nasface.task import heatmap_loss
from nasface.testing import scramble
from searchspaces.highres import HighResolutionSpace
from searchspaces.hrnet import hrnet
from searchspaces.hrsupernet import hrsupernet


def supernet(**changes: Any) -> HighResolutionSpace:
    """An HRSuperNet of 10 nodes and 21 edges, largest stride 16."""
    return hrsupernet(**{"width": 4, "depth": 1, "stages": 4, "resolutions": 3, "stem_channels": 8} | changes)


def smallest(**changes: Any) -> HighResolutionSpace:
    """An HRSuperNet of three stages at two resolutions, for searches of which the length matters and the size not."""
    return supernet(**{"width": 2, "stages": 3, "resolutions": 2, "stem_channels": 4} | changes)


def fixed_net(**changes: Any) -> HighResolutionSpace:
    """An HRNet of 11 nodes with 5 fixed edges, largest stride 16."""
    return hrnet(**{"width": 4, "depth": 1, "modules": (1, 1), "stem_channels": 4, "alpha": 0.7} | changes)


def space_of(graph: Graph, **changes: Any) -> HighResolutionSpace:
    """The high-resolution parts on a graph of one's own."""
    return replace(supernet(width=2, stem_channels=4), graph=graph, **changes)


def scrambled(space: HighResolutionSpace, num_landmarks: int = 5, seed: int = 0) -> GraphNet:
    """A net in eval mode in which no factor, statistic or weight is near 0 by initialisation.

    The heatmap weights, too: a fresh head's are so small that any difference would hide behind them.
    """
    torch.manual_seed(seed)
    net = GraphNet(space, num_landmarks).eval()
    scramble(net)
    with torch.no_grad():
        net.head.heatmaps.weight.normal_(0, 0.3)
        net.head.heatmaps.bias.normal_()
    return net


def diamond() -> Graph:
    """Two ways from a to d and two outputs; 'e' is fed by a fixed edge. Node 'x' leads nowhere by itself.

    a -> b -> d, a -> c -> d, b -> e (fixed), c -> x, x -> e
    """
    return Graph(
        nodes=(
            Node("a", 4, 4, 1),
            Node("b", 4, 4, 2),
            Node("c", 8, 8, 2),
            Node("x", 8, 8, 3),
            Node("d", 4, 4, 4, block=False),
            Node("e", 8, 8, 4, block=False),
        ),
        edges=(("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("b", "e"), ("c", "x"), ("x", "e")),
        inputs=("a",),
        outputs=("d", "e"),
        fixed=frozenset({("b", "e")}),
    )


def importance(graph: Graph, seed: int = 0) -> dict[Edge, float]:
    values = np.random.default_rng(seed).random(len(graph.prunable)).tolist()
    return dict(zip(graph.prunable, values, strict=True))


def scheme(num_landmarks: int = 4) -> Scheme:
    """Landmarks 0 and 1 are a left-right pair, so are 2 and 3; the rest lie on the axis."""
    flip = (1, 0, 3, 2, *range(4, num_landmarks))[:num_landmarks]
    return Scheme(num_landmarks, flip, ((0,), (1,)), ((2,), (3,)))


def faces(count: int = 8, size: int = 32, crop: int = 40, num_landmarks: int = 4, seed: int = 0) -> DeviceFaces:
    """Noise with random landmarks inside the input: enough to train on, nothing to learn."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, crop, crop, 3), dtype=torch.uint8, generator=random)
    pad = (crop - size) / 2
    landmarks = pad + size * (0.1 + 0.8 * torch.rand(count, num_landmarks, 2, generator=random))
    return DeviceFaces(images, landmarks, size, scheme(num_landmarks))


def step(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
    size = batch.images_B3HW.shape[-1]
    return {"loss": heatmap_loss(net(batch.images_B3HW), batch.landmarks_BL2, size, 1.5)}


def state(net: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def changed(before: dict[str, Tensor], net: nn.Module) -> set[str]:
    """Names of the tensors that are no longer what they were."""
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def needy_pruner(graph: Graph, importance: Any, costs: Any, *, edges: int, bonus: float = 0.5) -> Graph:
    """A pruner plug-in outside the package, named 'tiny:needy_pruner' in recipes."""
    return top(graph, importance, costs, edges=edges)


class ImportantSearcher:
    """A searcher plug-in outside the package with an option that another searcher once had."""

    def __init__(self, *, importance: int = 1) -> None:
        self.importance = importance

    def search(self, net: GraphNet, context: Any) -> None:
        context.fit([Phase("weights", tuple(net.parameters()), context.optimizer, context.step)])
