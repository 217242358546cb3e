"""A search space that a newcomer might write: a chain of convolutions with shortcuts, one output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nasface.graph import Graph, Node
from nasface.space import Head


class LastMapHead(Head):
    """A 1x1 convolution on the only output map; nothing to slice, so no `owners`."""

    def __init__(self, channels: int, num_landmarks: int) -> None:
        super().__init__()
        self.heatmaps = nn.Conv2d(channels, num_landmarks, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        (only,) = maps
        return self.heatmaps(only)


@dataclass(frozen=True)
class TinySpace:
    name: str
    options: Mapping[str, Any]
    graph: Graph
    width: int

    def initial_alpha(self, src: Node, dst: Node) -> float:
        return 0.5

    def stem(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, self.width, 7, 4, 3, bias=False), nn.BatchNorm2d(self.width), nn.ReLU())

    def edge(self, src: Node, dst: Node) -> nn.Module:
        return nn.Sequential(nn.Conv2d(self.width, self.width, 3, 1, 1, bias=False), nn.BatchNorm2d(self.width))

    def node(self, node: Node, parents: Sequence[Node]) -> nn.Module:
        return nn.ReLU()

    def head(self, outputs: Sequence[Node], num_landmarks: int) -> Head:
        return LastMapHead(self.width, num_landmarks)


def tinyspace(*, width: int = 16, length: int = 4) -> TinySpace:
    """A chain of `length` maps at stride 4 in which every map reads all maps before it."""
    nodes = tuple(Node(f"n{i}", width, 4, stage=i, block=False) for i in range(length))
    edges = tuple((nodes[i].id, nodes[j].id) for j in range(length) for i in range(j))
    graph = Graph(nodes, edges, inputs=("n0",), outputs=(nodes[-1].id,))
    return TinySpace("tinyspace", {"width": width, "length": length}, graph, width)
