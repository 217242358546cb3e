"""Search spaces as plain graphs: validation, closure, digest and random sub-graphs. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nasface.errors import GraphError, did_you_mean, shortened, shown

Edge = tuple[str, str]


@dataclass(frozen=True)
class Node:
    """A feature map and the encoder that is applied to it.

    Attributes:
        id: unique name; in the built-in spaces '<stage>.<resolution>', for example '3.1'.
        channels: number of channels of the map.
        stride: input pixels per cell of the map.
        stage: stage under which tables and drawings show the node.
        block: whether the node has an encoder block; a node without one only fuses.
    """

    id: str
    channels: int
    stride: int
    stage: int = 0
    block: bool = True


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph of feature maps.

    Attributes:
        nodes: the nodes, in topological order.
        edges: the edges, in the order in which factors are stored.
        fixed: edges without a factor: no penalty or criterion applies to them, but closure may still remove them.
        inputs: nodes that the stem feeds.
        outputs: nodes that the head reads.

    Raises:
        GraphError: on duplicate or unknown names, a cycle, or an edge that runs against the order of `nodes`.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fixed: frozenset[Edge] = frozenset()

    def __post_init__(self) -> None:
        order = {node.id: i for i, node in enumerate(self.nodes)}
        if len(order) != len(self.nodes):
            raise GraphError("the graph has two nodes with the same id; give every node its own")
        if len(set(self.edges)) != len(self.edges):
            raise GraphError("the graph lists an edge twice; list every edge once")
        for name in (*self.inputs, *self.outputs, *(end for edge in self.edges for end in edge)):
            if name not in order:
                raise GraphError(
                    f"the graph refers to node '{name}', which it does not have; {did_you_mean(name, order)}"
                )
        for src, dst in self.edges:
            if order[src] >= order[dst]:
                raise GraphError(
                    f"edge {src} -> {dst} runs against the order of the nodes; list '{src}' before '{dst}'"
                )
        if stray := self.fixed - set(self.edges):
            raise GraphError(
                f"{len(stray)} of the fixed edges are not edges of the graph, for example {' -> '.join(min(stray))}; "
                "list every fixed edge among the edges too"
            )
        if not self.inputs or not self.outputs:
            raise GraphError("the graph needs at least one input node and one output node")
        if len({*self.inputs}) + len({*self.outputs}) < len(self.inputs) + len(self.outputs):
            raise GraphError("the graph lists an input or output node twice; list every node once")

    @cached_property
    def node(self) -> Mapping[str, Node]:
        """The nodes by id."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def prunable(self) -> tuple[Edge, ...]:
        """The edges that have a factor, in the order of `edges`."""
        return tuple(edge for edge in self.edges if edge not in self.fixed)

    @cached_property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """The sources of the edges into each node, in the order of `edges`."""
        into: dict[str, list[str]] = {node.id: [] for node in self.nodes}
        for src, dst in self.edges:
            into[dst].append(src)
        return {name: tuple(sources) for name, sources in into.items()}

    @cached_property
    def last_reader(self) -> Mapping[str, str]:
        """For each map that some node reads, the last node that does."""
        return {src: node.id for node in self.nodes for src in self.parents[node.id]}

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The nodes whose encoder can be pruned away: all nodes with a block except the input nodes."""
        return tuple(n.id for n in self.nodes if n.block and n.id not in self.inputs)

    @property
    def max_stride(self) -> int:
        """The largest stride in pixels, of which the input size must be a multiple."""
        return max(node.stride for node in self.nodes)

    @cached_property
    def digest(self) -> str:
        """A hash of the graph's nodes, edges, inputs, outputs and fixed edges, equal in every process."""
        content = [
            [[n.id, n.channels, n.stride, n.stage, n.block] for n in self.nodes],
            [[*edge, edge in self.fixed] for edge in self.edges],
            list(self.inputs),
            list(self.outputs),
        ]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:16]

    def closure(self, edges: Iterable[Edge]) -> frozenset[Edge]:
        """Return those of `edges` that lie on a path from an input to an output.

        Raises:
            GraphError: if an edge is not in the graph.
        """
        wanted = set(edges)
        if unknown := wanted - set(self.edges):
            src, dst = min(unknown)
            raise GraphError(
                f"edge {shortened(src)} -> {shortened(dst)} is not in the search space (unknown edges: "
                f"{len(unknown)}); an edge is written as [source, target] and joins two nodes of this graph"
            )
        # Edges sorted by the place of their source are in topological order, so one sweep in each direction is enough.
        reached = set(self.inputs)
        for edge in self._sorted(wanted):
            if edge[0] in reached:
                reached.add(edge[1])
        useful = set(self.outputs)
        for edge in reversed(self._sorted(wanted)):
            if edge[1] in useful:
                useful.add(edge[0])
        return frozenset(e for e in wanted if e[0] in reached and e[1] in useful)

    def keep(self, edges: Iterable[Edge]) -> Graph:
        """Return the closed sub-graph of `edges`.

        Nodes, edges and outputs that lie on no path from an input to an output are dropped.

        Raises:
            GraphError: if an edge is unknown, or if no path from an input to an output is left.
        """
        kept = self.closure(edges)
        used = {end for edge in kept for end in edge}
        # an input that is also an output is connected without any edge
        used |= set(self.inputs) & set(self.outputs)
        outputs = tuple(name for name in self.outputs if name in used)
        if not outputs:
            raise GraphError(
                "the kept edges leave no path from an input to an output, so the network would be disconnected; "
                "keep more edges (with a lower threshold or a larger share)"
            )
        return Graph(
            nodes=tuple(n for n in self.nodes if n.id in used),
            edges=tuple(e for e in self.edges if e in kept),
            inputs=tuple(name for name in self.inputs if name in used),
            outputs=outputs,
            fixed=self.fixed & kept,
        )

    def keep_prunable(self, edges: Iterable[Edge]) -> Graph:
        """Return the closed sub-graph of some prunable edges and of all fixed edges that closure does not remove."""
        return self.keep({*edges, *self.fixed})

    def without(self, edge: Edge) -> Graph | None:
        """Return the closed sub-graph without a prunable edge, or None if it would be disconnected."""
        try:
            return self.keep_prunable(other for other in self.prunable if other != edge)
        except GraphError:
            return None

    def random_subgraph(self, rng: np.random.Generator, share: float, attempts: int = 1000) -> Graph:
        """Return a random closed sub-graph, for which each prunable edge is drawn with probability `share`.

        Raises:
            GraphError: if none of `attempts` draws connects an input to an output.
        """
        for _ in range(attempts):
            drawn = rng.random(len(self.prunable)) < share
            try:
                return self.keep_prunable(e for e, keep in zip(self.prunable, drawn, strict=True) if keep)
            except GraphError:
                continue
        raise GraphError(f"none of {attempts} draws with share {share} gives a connected sub-graph; use a larger share")

    def _sorted(self, edges: set[Edge]) -> list[Edge]:
        """Return edges sorted by the topological place of their source, then of their target."""
        place = {node.id: i for i, node in enumerate(self.nodes)}
        return sorted(edges, key=lambda edge: (place[edge[0]], place[edge[1]]))


def parse_edges(items: Sequence[object]) -> list[Edge]:
    """Read edges from JSON values.

    Args:
        items: one [source, target] pair per edge; each end is a node id or a [stage, resolution] pair.

    Raises:
        GraphError: if an item is not an edge.
    """

    def name(end: object) -> str:
        match end:
            case str():
                return end
            case [int(), int()]:
                return f"{end[0]}.{end[1]}"
        raise GraphError(f'{shown(end)} is not a node; expected an id such as "3.1" or a pair [stage, resolution]')

    edges = []
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise GraphError(f"{shown(item)} is not an edge; expected [source, target]")
        edges.append((name(item[0]), name(item[1])))
    return edges
