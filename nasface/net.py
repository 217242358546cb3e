"""The network that runs a graph: a supernet and a slim network are the same class with different graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.space import Head, SearchSpace


class GraphNet(nn.Module):
    """A network that computes every node of a graph and then the head.

    A node with the inputs X_i is Y = node(sum of alpha_i * T_i(X_i)), the weighted feature fusion of the paper
    (section 3.1), with one factor alpha per edge.

    Args:
        space: search space, which builds the parts.
        num_landmarks: number of heatmaps L.
        graph: a closed sub-graph of `space.graph`; by default the full graph.

    Attributes:
        alpha: (number of prunable edges,) the LSFF factors, in the order of `graph.prunable`.
        gate: (number of edges,) 1, or 0 for an edge that is masked out; it is not saved.
    """

    gate: Tensor

    def __init__(self, space: SearchSpace, num_landmarks: int, graph: Graph | None = None) -> None:
        super().__init__()
        self.space = space
        self.graph = graph = graph or space.graph
        self.num_landmarks = num_landmarks
        self.stem = space.stem()
        self.edges = nn.ModuleDict({key(*e): space.edge(graph.node[e[0]], graph.node[e[1]]) for e in graph.edges})
        self.nodes = nn.ModuleDict({key(n.id): self._node(n.id, graph) for n in graph.nodes})
        self.head = self._head(graph)
        start = [space.initial_alpha(space.graph.node[s], space.graph.node[d]) for s, d in graph.prunable]
        self.alpha = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.register_buffer("gate", torch.ones(len(graph.edges)), persistent=False)
        self._variants = _Variants()

    def factors(self) -> Tensor:
        """Return (number of edges,) the factor of each edge: alpha, or 1 for a fixed edge, times its gate."""
        if not self.graph.fixed:
            return self.alpha * self.gate
        values = iter(self.alpha.unbind())
        one = torch.ones((), device=self.alpha.device)
        return torch.stack([one if e in self.graph.fixed else next(values) for e in self.graph.edges]) * self.gate

    def forward(self, images_B3HW: Tensor, graph: Graph | None = None) -> Tensor:
        """Compute the heatmaps (B, L, h, w), with the stride of the finest output node.

        Args:
            images_B3HW: normalised images.
            graph: a closed sub-graph of the network's graph. Only this part is computed, with the same result as
                `slim_net` would give; gradients and BN statistics go to the network's own parameters and buffers.

        Raises:
            GraphError: if H or W is not a multiple of the graph's largest stride, or if `graph` is not a sub-graph.
        """
        stride = self.space.graph.max_stride
        if images_B3HW.shape[-1] % stride or images_B3HW.shape[-2] % stride:
            raise GraphError(
                f"the input has {images_B3HW.shape[-1]} x {images_B3HW.shape[-2]} pixels; "
                f"this search space needs multiples of {stride}"
            )
        run = self.graph if graph is None else graph
        if run is not self.graph:
            _check_within(run, self.graph)
        factor = dict(zip(self.graph.edges, self.factors().unbind(), strict=True))
        stem = self.stem(images_B3HW)
        maps: dict[str, Tensor] = {}
        for node in run.nodes:
            total = stem if node.id in run.inputs else None
            parents = run.parents[node.id]
            for src in parents:
                edge = (src, node.id)
                term = self.edges[key(*edge)](maps[src])
                # addcmul: multiply and add in one kernel, without a map for the product
                total = term * factor[edge] if total is None else torch.addcmul(total, term, factor[edge])
            maps[node.id] = self._run_node(node.id, run, total)
            for src in parents:  # free the memory of maps that no later node reads
                if run.last_reader[src] == node.id and src not in run.outputs:
                    del maps[src]
        return self._run_head(run, [maps[name] for name in run.outputs])

    def _node(self, name: str, graph: Graph) -> nn.Module:
        return self.space.node(graph.node[name], [graph.node[parent] for parent in graph.parents[name]])

    def _head(self, graph: Graph) -> Head:
        return self.space.head([graph.node[name] for name in graph.outputs], self.num_landmarks)

    def _run_node(self, name: str, graph: Graph, total: Tensor | None) -> Tensor:
        """Run a node. With fewer parents, the space may build it differently, but with the same parameters."""
        own = self.nodes[key(name)]
        parents = graph.parents[name]
        if parents == self.graph.parents[name]:
            out: Tensor = own(total)
            return out
        variant = self._variants.get((name, parents), lambda: self._node(name, graph))
        return variant.run(own, total)

    def _run_head(self, graph: Graph, maps: list[Tensor]) -> Tensor:
        """Run the head, sliced if `graph` lacks some of its output nodes."""
        if graph.outputs == self.graph.outputs:
            out: Tensor = self.head(maps)
            return out
        variant = self._variants.get(graph.outputs, lambda: self._head(graph))
        return variant.run(self.head, maps, _owned_all(self.head, set(graph.outputs)))


def key(*names: str) -> str:
    """Return the name of the module of a node, or of the edge between two; torch allows no dots in it."""
    return "->".join(names).replace(".", "_")


@dataclass(frozen=True)
class Inherited:
    """Which tensors `inherit` copied whole, copied in part, and left untouched, by name in the state dict."""

    copied: tuple[str, ...]
    sliced: tuple[str, ...]
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.copied)} tensors copied, {len(self.sliced)} sliced, {len(self.untouched)} left untouched"


def inherit(slim: GraphNet, parent: GraphNet) -> Inherited:
    """Copy alpha and weights of every part that `slim` shares with `parent`, with the head sliced by its owners.

    Raises:
        GraphError: if the graph of `slim` is not a sub-graph of that of `parent`.
    """
    _check_within(slim.graph, parent.graph)
    source, target = parent.state_dict(), slim.state_dict()
    copied: list[str] = []
    sliced: list[str] = []
    untouched: list[str] = []
    for name, index in _places(slim, parent).items():
        value = source.get(name)
        if value is not None and index is not None:
            value = index.pick(value)
        if value is None or value.shape != target[name].shape:
            untouched.append(name)
            continue
        target[name].copy_(value)
        (copied if value.shape == source[name].shape else sliced).append(name)
    return Inherited(tuple(copied), tuple(sliced), tuple(untouched))


def give_back(slim: GraphNet, parent: GraphNet) -> None:
    """Copy alpha and weights of a sub-network back into its parent, the inverse of `inherit`.

    The factors of edges that `slim` does not have are set to 0 in `parent`, so that criteria rate them lowest.

    Raises:
        GraphError: if the graph of `slim` is not a sub-graph of that of `parent`.
    """
    _check_within(slim.graph, parent.graph)
    source, target = slim.state_dict(), parent.state_dict()
    target["alpha"].zero_()
    for name, index in _places(slim, parent).items():
        if index is None:
            target[name].copy_(source[name])
        else:
            index.put(target[name], source[name])


def masked(parent: GraphNet, graph: Graph) -> GraphNet:
    """Return a copy of `parent` that computes the same as the slim network of `graph`, at the size of `parent`.

    The factors of all other edges are zero, and so are the channels of dropped output nodes in the head.
    """
    net = deepcopy(parent)
    kept = set(graph.edges)
    with torch.no_grad():
        net.gate.copy_(torch.tensor([float(edge in kept) for edge in net.graph.edges]))
        dropped = set(net.graph.outputs) - set(graph.outputs)
        state = net.head.state_dict()
        for name, index in _owned_all(net.head, dropped).items():
            for dim, kept_here in enumerate(index.dims):
                if kept_here is not None:
                    state[name].index_fill_(dim, kept_here.to(state[name].device), 0.0)
    return net


def place(net: GraphNet, device: torch.device) -> GraphNet:
    """Move a network to a device, in channels-last layout, in which CPUs and tensor cores run convolutions fastest."""
    placed: GraphNet = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def slim_net(parent: GraphNet, graph: Graph) -> tuple[GraphNet, Inherited]:
    """Build the physically smaller network of `graph` on the parent's device; return it and what it inherited.

    Raises:
        GraphError: if a tensor of the slim network has no match in its parent, because the space names or shapes a
            part differently depending on what else is kept.
    """
    net = place(GraphNet(parent.space, parent.num_landmarks, graph), parent.alpha.device)
    net.train(parent.training)
    report = inherit(net, parent)
    if report.untouched:
        raise GraphError(
            f"tensors of the slim network have no match in the supernet ({len(report.untouched)}, for example "
            f"{report.untouched[0]}); the space must build a node from the same modules whatever its parents are"
        )
    return net, report


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Freeze the running BN statistics while the block runs; in training mode, each batch still uses its own."""
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = (
            False  # torch then neither updates nor uses them in training mode; eval mode uses them
        )
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def edge_values(net: GraphNet) -> dict[Edge, float]:
    """Return the factor alpha of each prunable edge."""
    values: Sequence[float] = net.alpha.detach().cpu().tolist()
    return dict(zip(net.graph.prunable, values, strict=True))


def gains(net: GraphNet) -> Tensor:
    """Return (number of prunable edges,) the mean |gain| of the BN that ends each edge; 1 where none has a gain."""
    found = []
    for edge in net.graph.prunable:
        norms = [module for module in net.edges[key(*edge)].modules() if isinstance(module, _BatchNorm)]
        if norms and norms[-1].affine:
            # a floor, since searchers divide what is left of a factor by its gain
            found.append(norms[-1].weight.detach().abs().mean().clamp(min=1e-6))
        else:
            found.append(torch.ones(()))
    return torch.stack([gain.to(net.alpha.device) for gain in found])


@dataclass(frozen=True)
class _Index:
    """A part of a tensor: the indices along each dimension, or None for the whole dimension."""

    dims: tuple[Tensor | None, ...]

    def pick(self, tensor: Tensor) -> Tensor:
        """Return this part of `tensor`; gradients flow back to `tensor`."""
        for dim, index in enumerate(self.dims):
            if index is not None:
                tensor = tensor.index_select(dim, index.to(tensor.device))
        return tensor

    def put(self, tensor: Tensor, part: Tensor) -> None:
        """Write `part` to this part of `tensor`."""
        sizes = zip(self.dims, tensor.shape, strict=True)
        places = [torch.arange(size) if index is None else index for index, size in sizes]
        grid = torch.meshgrid(*places, indexing="ij")
        tensor[tuple(index.to(tensor.device) for index in grid)] = part.to(tensor.device)


class _Variant:
    """A node or head as the space builds it for a sub-graph, which runs with the tensors of the full network's part.

    Args:
        built: the module; its own weights are discarded.
    """

    def __init__(self, built: nn.Module) -> None:
        self.module = built.to("meta")  # tensors on the meta device have a shape, but no memory

    def run(self, own: nn.Module, inputs: Any, slices: Mapping[str, _Index] | None = None) -> Tensor:
        """Run with the parameters and buffers of `own`; of those named in `slices`, only that part is used."""
        slices = slices or {}
        tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
        used = {name: slices[name].pick(value) if name in slices else value for name, value in tensors.items()}
        self._follow(own, used)
        out: Tensor = functional_call(self.module, used, (inputs,))
        if own.training:  # the BN statistics of a slice were updated in a copy, so they are written back
            for name in slices.keys() & dict(own.named_buffers()):
                # Through .data, so that autograd does not object to another forward pass before backward; torch's
                # own BN permits that too.
                slices[name].put(tensors[name].data, used[name])
        return out

    def _follow(self, own: nn.Module, used: Mapping[str, Tensor]) -> None:
        """Copy training modes and BN settings from `own`; GraphError if the tensors do not fit."""
        wanted = self.module.state_dict(keep_vars=True)
        if misfits := [name for name, value in wanted.items() if name not in used or used[name].shape != value.shape]:
            raise GraphError(
                f"tensors of the sub-network have no match in the network ({len(misfits)}, for example {misfits[0]}); "
                "the space must build a node from the same modules whatever its parents are"
            )
        parts = dict(own.named_modules())
        for name, part in self.module.named_modules():
            if (like := parts.get(name)) is not None:
                part.training = like.training
                if isinstance(part, _BatchNorm) and isinstance(like, _BatchNorm):
                    part.momentum, part.track_running_stats = like.momentum, like.track_running_stats


class _Variants:
    """A cache of the variants that a network has run, which hold no weights. It is emptied when it is full."""

    LIMIT = 512

    def __init__(self) -> None:
        self._known: dict[Hashable, _Variant] = {}

    def get(self, name: Hashable, build: Callable[[], nn.Module]) -> _Variant:
        """Return the variant with this name, and build it if it is new."""
        if name not in self._known:
            if len(self._known) == self.LIMIT:
                self._known.clear()
            # The initial weights are never used, so drawing them must not change the random numbers that follow.
            with torch.random.fork_rng(devices=[]):
                self._known[name] = _Variant(build())
        return self._known[name]


def _owned_all(head: Head, outputs: set[str]) -> dict[str, _Index]:
    """Return the part of each sliced tensor of a head, by name, that belongs to `outputs`."""
    return {
        name: _Index(tuple(None if owner is None else _indices(owner, outputs) for owner in owners))
        for name, owners in head.owners.items()
    }


def _indices(owner: Sequence[str], outputs: set[str]) -> Tensor:
    return torch.tensor([i for i, name in enumerate(owner) if name in outputs], dtype=torch.long)


def _places(slim: GraphNet, parent: GraphNet) -> dict[str, _Index | None]:
    """Return for each tensor of `slim` which part of its namesake in `parent` it is; None for the whole tensor."""
    wanted = set(slim.graph.prunable)
    alpha = torch.tensor([i for i, edge in enumerate(parent.graph.prunable) if edge in wanted], dtype=torch.long)
    head = _owned_all(parent.head, set(slim.graph.outputs))
    special = {"alpha": _Index((alpha,)), **{f"head.{name}": index for name, index in head.items()}}
    return {name: special.get(name) for name in slim.state_dict()}


def _check_within(graph: Graph, parent: Graph) -> None:
    """Raise a GraphError unless `graph` is a sub-graph of `parent`."""
    if strange := set(graph.edges) - set(parent.edges) or set(graph.nodes) - set(parent.nodes):
        raise GraphError(
            f"parts of the sub-network are not in its parent network ({len(strange)}, for example "
            f"{min(strange, key=str)}); take both from the same search space"
        )
