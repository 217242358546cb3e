"""The search space protocol: a graph, and four factories for the parts of a network."""

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

    An entry point in the group `nasface.searchspaces` (or 'module:attr') names a callable that takes the options of the
    recipe as keyword arguments and returns an object with these members. Check yours with
    `nasface.testing.check_space`. A space may also implement `TakesBackbone`.

    Attributes:
        name: name under which recipes and arch.json refer to the space.
        options: the options it was built from, defaults included, as plain JSON values. Building the space again from
            `name` and `options` must give the same graph.
        graph: the full graph.
    """

    name: str
    options: Mapping[str, Any]
    graph: Graph

    def initial_alpha(self, src: Node, dst: Node) -> float:
        """Return the initial value of the factor alpha of a prunable edge."""
        ...

    def stem(self) -> nn.Module:
        """Build the stem, from images (B, 3, H, W) to the map that the encoder of every input node reads."""
        ...

    def edge(self, src: Node, dst: Node) -> nn.Module:
        """Build an edge's transform T, from a map (B, channels, H / stride, W / stride) of `src` to one of `dst`."""
        ...

    def node(self, node: Node, parents: Sequence[Node]) -> nn.Module:
        """Build what follows the weighted sum of a node's inputs, or for an input node, what follows the stem."""
        ...

    def head(self, outputs: Sequence[Node], num_landmarks: int) -> Head:
        """Build the head, from the maps of the output nodes to heatmaps (B, num_landmarks, h, w)."""
        ...


@runtime_checkable
class TakesBackbone(Protocol):
    """An optional part of the protocol: the full network can start from a published checkpoint (`--backbone`)."""

    def backbone_name(self, name: str) -> str | None:
        """Return the name that a tensor of the checkpoint has in the state dict of GraphNet.

        Return None for tensors that do not belong to the backbone, such as those of a classifier. For a part of the
        backbone that the network lacks, return any name that its state dict does not have: the checkpoint is then
        refused.
        """
        ...

    def backbone_options(self, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, Any]:
        """Return options with which the space would fit tensors of these published names and shapes.

        They tell the user what to change if a checkpoint does not fit. Return an empty mapping if they are not known.
        """
        ...


class Head(nn.Module):
    """Base class of the heads of search spaces.

    Attributes:
        owners: how slim networks inherit weights if the shape of the head depends on which output nodes survive. For
            each parameter or buffer (by its name in the state dict) and each of its dimensions, either None, if the
            dimension is not sliced, or for each index the id of the output node that it belongs to.
    """

    owners: Owners = MappingProxyType({})

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute heatmaps (B, L, h, w) from the maps of the output nodes in graph order."""
        raise NotImplementedError
