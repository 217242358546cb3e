"""The search space protocol: one graph, and four factories for its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from nasface.graph import Graph, Node

Owners = Mapping[str, tuple[Sequence[str] | None, ...]]


@runtime_checkable
class SearchSpace(Protocol):
    """A search space plug-in.

    An entry point in the group `nasface.searchspaces` (or 'module:attr') names a callable that takes the
    options of the recipe as keyword arguments and returns an object with these members. Try yours with
    `nasface.testing.check_space`. A space may also be a `TakesBackbone`.

    Attributes:
        name: the name under which recipes and arch.json refer to it.
        options: what it was built from, with defaults filled in; plain JSON values. Building the space
            again from `name` and `options` gives the same graph.
        graph: the full graph.
        initial_alpha: the value at which the factor of an edge starts, by edge.
    """

    name: str
    options: Mapping[str, Any]
    graph: Graph

    def initial_alpha(self, src: Node, dst: Node) -> float:
        """Starting value of the factor of a prunable edge."""
        ...

    def stem(self) -> nn.Module:
        """From images (B, 3, H, W) to the map that every input node's encoder reads."""
        ...

    def edge(self, src: Node, dst: Node) -> nn.Module:
        """T: from a map (B, src.channels, H / src.stride, W / src.stride) to one in the shape of dst."""
        ...

    def node(self, node: Node, parents: Sequence[Node]) -> nn.Module:
        """What follows the weighted sum of the inputs; for an input node, what follows the stem."""
        ...

    def head(self, outputs: Sequence[Node], num_landmarks: int) -> Head:
        """From the maps of the output nodes to heatmaps (B, num_landmarks, h, w)."""
        ...


@runtime_checkable
class TakesBackbone(Protocol):
    """An optional part of the protocol: the full network can start from a public checkpoint (`--backbone`)."""

    def backbone_name(self, name: str) -> str | None:
        """The name in GraphNet's state dict of a tensor of the checkpoint.

        None for what does not belong to the backbone, such as a classifier. Return any name that the network does not
        have for a part that it has no place for: the checkpoint is then refused.
        """
        ...

    def backbone_options(self, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, Any]:
        """Return options with which the space would fit tensors of these public names and shapes.

        Used to tell the user what to change when a checkpoint does not fit; empty when that is not known.
        """
        ...


class Head(nn.Module):
    """Base of a space's head.

    A head whose shape depends on which output nodes survive says so in `owners`: for each parameter or
    buffer (by its state-dict name) and each of its dimensions, either None (not sliced) or the id of the
    output node that each index belongs to. Weights are then inherited by slicing.
    """

    owners: Owners = MappingProxyType({})

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of the output nodes in graph order, to heatmaps (B, L, h, w)."""
        raise NotImplementedError
