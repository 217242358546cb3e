"""The one executor: a supernet and a slim network are the same class on another graph."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.space import Head, SearchSpace


class GraphNet(nn.Module):
    """Runs a graph: Y = node(sum of alpha * T(X) over the kept inputs), then the head.

    Args:
        space: where the parts come from.
        num_landmarks: heatmaps L.
        graph: a closed sub-graph of `space.graph`; the full graph by default.

    Attributes:
        alpha: (number of prunable edges,) the LSFF factors, in the order of `graph.prunable`.
        gate: (number of edges,) 1, or 0 where an edge is masked out; not saved.
    """

    gate: Tensor

    def __init__(self, space: SearchSpace, num_landmarks: int, graph: Graph | None = None) -> None:
        super().__init__()
        self.space = space
        self.graph = graph = graph or space.graph
        self.num_landmarks = num_landmarks
        self.stem = space.stem()
        self.edges = nn.ModuleDict({key(*e): space.edge(graph.node[e[0]], graph.node[e[1]]) for e in graph.edges})
        self.nodes = nn.ModuleDict(
            {key(n.id): space.node(n, [graph.node[p] for p in graph.parents[n.id]]) for n in graph.nodes}
        )
        self.head: Head = space.head([graph.node[name] for name in graph.outputs], num_landmarks)
        start = [space.initial_alpha(space.graph.node[s], space.graph.node[d]) for s, d in graph.prunable]
        self.alpha = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.register_buffer("gate", torch.ones(len(graph.edges)), persistent=False)
        # a map is freed after its last reader; nodes run in order, so the last to name it wins
        self._last_reader = {src: node.id for node in graph.nodes for src in graph.parents[node.id]}

    def factors(self) -> Tensor:
        """(number of edges,) alpha of the prunable edges, 1 for the fixed ones, times the gate."""
        if not self.graph.fixed:
            return self.alpha * self.gate
        values = iter(self.alpha.unbind())
        one = torch.ones((), device=self.alpha.device)
        return torch.stack([one if e in self.graph.fixed else next(values) for e in self.graph.edges]) * self.gate

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Images to heatmaps (B, L, h, w) at the finest output stride.

        Raises:
            GraphError: when H or W is no multiple of the graph's largest stride.
        """
        stride = self.space.graph.max_stride
        if images_B3HW.shape[-1] % stride or images_B3HW.shape[-2] % stride:
            raise GraphError(
                f"the input is {images_B3HW.shape[-1]} x {images_B3HW.shape[-2]} pixels; "
                f"this search space needs multiples of {stride}"
            )
        factor = dict(zip(self.graph.edges, self.factors().unbind(), strict=True))
        stem = self.stem(images_B3HW)
        maps: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            total = stem if node.id in self.graph.inputs else None
            parents = self.graph.parents[node.id]
            for src in parents:
                edge = (src, node.id)
                term = self.edges[key(*edge)](maps[src])
                total = term * factor[edge] if total is None else torch.addcmul(total, term, factor[edge])
            maps[node.id] = self.nodes[key(node.id)](total)
            for src in parents:  # free what nobody reads any more
                if self._last_reader[src] == node.id and src not in self.graph.outputs:
                    del maps[src]
        out: Tensor = self.head([maps[name] for name in self.graph.outputs])
        return out


def key(*names: str) -> str:
    """The name of an edge's or a node's module: a module name holds no dot."""
    return "->".join(names).replace(".", "_")


@dataclass(frozen=True)
class Inherited:
    """What `inherit` copied, by state-dict name: whole tensors, sliced ones, and those left as they were."""

    copied: tuple[str, ...]
    sliced: tuple[str, ...]
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.copied)} tensors copied, {len(self.sliced)} sliced, {len(self.untouched)} left untouched"


def inherit(slim: GraphNet, parent: GraphNet) -> Inherited:
    """Copy alpha and weights of every part that `slim` shares with `parent`; slice the head by its owners.

    Raises:
        GraphError: when `slim`'s graph is no sub-graph of `parent`'s.
    """
    strange = set(slim.graph.edges) - set(parent.graph.edges) or set(slim.graph.nodes) - set(parent.graph.nodes)
    if strange:
        raise GraphError(
            f"cannot inherit: {len(strange)} parts of the slim network, for example {min(strange, key=str)}, are not "
            "in its parent; both must come from the same search space"
        )
    source, target = parent.state_dict(), slim.state_dict()
    wanted = set(slim.graph.prunable)
    keep = [i for i, edge in enumerate(parent.graph.prunable) if edge in wanted]
    copied: list[str] = []
    sliced: list[str] = []
    untouched: list[str] = []
    outputs = set(slim.graph.outputs)
    for name, tensor in target.items():
        if name == "alpha":
            value = source[name][keep]
        elif name.startswith("head.") and name[5:] in parent.head.owners:
            value = source[name]
            for dim, index in _owned(parent.head, name[5:], outputs):
                value = value.index_select(dim, index.to(value.device))
        else:
            value = source.get(name, tensor)
        if name not in source or value.shape != tensor.shape:
            untouched.append(name)
            continue
        tensor.copy_(value)
        (copied if value.shape == source[name].shape else sliced).append(name)
    return Inherited(tuple(copied), tuple(sliced), tuple(untouched))


def masked(parent: GraphNet, graph: Graph) -> GraphNet:
    """A copy of `parent` that computes what the slim network of `graph` does, at the parent's size.

    All other factors are zero, and so are the dropped output nodes' channels in the head.
    """
    net = deepcopy(parent)
    kept = set(graph.edges)
    with torch.no_grad():
        net.gate.copy_(torch.tensor([float(edge in kept) for edge in net.graph.edges]))
        dropped = set(net.graph.outputs) - set(graph.outputs)
        state = net.head.state_dict()
        for name in net.head.owners:
            for dim, index in _owned(net.head, name, dropped):
                state[name].index_fill_(dim, index.to(state[name].device), 0.0)
    return net


def place(net: GraphNet, device: torch.device) -> GraphNet:
    """Move a network to a device, channels last in memory: convolutions on CPU and tensor cores are fastest so."""
    placed: GraphNet = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def slim_net(parent: GraphNet, graph: Graph) -> tuple[GraphNet, Inherited]:
    """The physically smaller network of `graph` on the parent's device and what it inherited.

    Raises:
        GraphError: when a weight of the slim network has no match in its parent: the space names or shapes its
            parts by what else is kept.
    """
    net = place(GraphNet(parent.space, parent.num_landmarks, graph), parent.alpha.device)
    net.train(parent.training)
    report = inherit(net, parent)
    if report.untouched:
        raise GraphError(
            f"{len(report.untouched)} tensors of the slim network have no match in the supernet, for example "
            f"{report.untouched[0]}; the space must give a node the same modules whatever its parents"
        )
    return net, report


def _owned(head: Head, name: str, outputs: set[str]) -> list[tuple[int, Tensor]]:
    """For each sliced dimension of a head tensor, the indices that belong to `outputs`."""
    return [
        (dim, torch.tensor([i for i, o in enumerate(owner) if o in outputs], dtype=torch.long))
        for dim, owner in enumerate(head.owners[name])
        if owner is not None
    ]


def edge_values(net: GraphNet) -> dict[Edge, float]:
    """The factors alpha by prunable edge."""
    values: Sequence[float] = net.alpha.detach().cpu().tolist()
    return dict(zip(net.graph.prunable, values, strict=True))
