"""Parameters, multiply-adds (MACs) and latency of networks, and of every node and edge of a space.

MACs are counted by fvcore: one for each multiply-add of a convolution or matrix product. BN, activations,
additions and upsampling are left out, and alphas are not counted as parameters.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from nasface.graph import Edge, Graph
from nasface.net import GraphNet, key
from nasface.space import SearchSpace

MULTIPLY_ADD_OPS = frozenset({"conv", "linear", "matmul", "addmm", "bmm", "einsum"})


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds of one image's forward pass."""

    params: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.params - other.params, self.macs - other.macs)


@dataclass(frozen=True)
class Costs:
    """What each part of a search space costs at one input size; the cost of any sub-graph is their sum.

    Attributes:
        stem, nodes, edges: cost of each part. A node's is that of its encoder.
        heads: cost of the head by the output nodes that survive; filled in when asked for.
        input_size: pixels, square.
    """

    space: SearchSpace
    num_landmarks: int
    input_size: int
    stem: Cost
    nodes: Mapping[str, Cost]
    edges: Mapping[Edge, Cost]
    heads: dict[tuple[str, ...], Cost] = field(default_factory=dict, repr=False)

    def head(self, outputs: tuple[str, ...]) -> Cost:
        """Cost of the head that reads these output nodes."""
        if outputs not in self.heads:
            nodes = [self.space.graph.node[name] for name in outputs]
            head = self.space.head(nodes, self.num_landmarks)
            maps = [torch.zeros(1, n.channels, *[self.input_size // n.stride] * 2) for n in nodes]
            self.heads[outputs] = _count(head, (maps,))[""]
        return self.heads[outputs]

    def total(self, graph: Graph) -> Cost:
        """The whole network of a sub-graph."""
        return self.prunable(graph) + self.fixed(graph)

    def without_head(self, graph: Graph) -> Cost:
        """The paper's convention for slim networks (its Tables 1 and 6)."""
        return self.total(graph) - self.head(graph.outputs)

    def prunable(self, graph: Graph) -> Cost:
        """All but stem, stage 1 (the input nodes) and head."""
        return _sum(self.nodes[n.id] for n in graph.nodes if n.id not in graph.inputs) + _sum(
            self.edges[edge] for edge in graph.edges
        )

    def fixed(self, graph: Graph) -> Cost:
        """Stem, stage 1 and head."""
        return self.stem + _sum(self.nodes[name] for name in graph.inputs) + self.head(graph.outputs)

    def by_stage(self, graph: Graph) -> dict[str, Cost]:
        """Cost by stem, stage (its nodes and the edges into them) and head."""
        stages: dict[str, Cost] = {"stem": self.stem}
        for node in graph.nodes:
            into = _sum(self.edges[parent, node.id] for parent in graph.parents[node.id])
            name = f"stage {node.stage}"
            stages[name] = stages.get(name, Cost()) + self.nodes[node.id] + into
        return {**stages, "head": self.head(graph.outputs)}


def count_space(space: SearchSpace, num_landmarks: int, input_size: int = 256) -> Costs:
    """Count every part of a space at (3, input_size, input_size) with one pass of fvcore."""
    net = GraphNet(space, num_landmarks)
    parts = _count(net, (torch.zeros(1, 3, input_size, input_size),))
    graph = space.graph
    return Costs(
        space=space,
        num_landmarks=num_landmarks,
        input_size=input_size,
        stem=parts["stem"],
        nodes={n.id: parts[f"nodes.{key(n.id)}"] for n in graph.nodes},
        edges={e: parts[f"edges.{key(*e)}"] for e in graph.edges},
        heads={graph.outputs: parts["head"]},
    )


def count_module(module: nn.Module, image_B3HW: Tensor) -> Cost:
    """Parameters (alphas apart) and MACs of any network on the given input."""
    return _count(module, (image_B3HW,))[""]


def latency_ms(net: nn.Module, images_B3HW: Tensor, repeats: int = 20, warmup: int = 3) -> float:
    """Median milliseconds of one forward pass of the batch, on the device where it lies."""
    return latencies_ms((net,), images_B3HW, repeats, warmup)[0]


def latencies_ms(nets: Sequence[nn.Module], images_B3HW: Tensor, repeats: int = 20, warmup: int = 3) -> list[float]:
    """`latency_ms` of several networks, run in turn so that whatever else the machine does falls on all alike."""
    training = [net.training for net in nets]
    times: list[list[float]] = [[] for _ in nets]
    with torch.inference_mode():
        for i in range(warmup + repeats):
            for net, own in zip(nets, times, strict=True):
                net.eval()
                _synchronise(images_B3HW.device)
                start = time.perf_counter()
                net(images_B3HW)
                _synchronise(images_B3HW.device)
                if i >= warmup:
                    own.append(1000 * (time.perf_counter() - start))
    for net, mode in zip(nets, training, strict=True):
        net.train(mode)
    return [statistics.median(own) for own in times]


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _count(module: nn.Module, inputs: tuple[object, ...]) -> dict[str, Cost]:
    """Cost of a module and of each module inside it, by dotted name ('' is the whole)."""
    from fvcore.nn import FlopCountAnalysis

    _quiet()
    training = module.training
    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of the input-size check, which is no part of the graph
        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted = analysis.by_module_and_operator()
    module.train(training)
    costs = {}
    for name, part in module.named_modules():
        macs = sum(int(n) for op, n in counted.get(name, {}).items() if op in MULTIPLY_ADD_OPS)
        params = sum(p.numel() for n, p in part.named_parameters() if n.rpartition(".")[2] != "alpha")
        costs[name] = Cost(params, macs)
    return costs


@cache
def _quiet() -> None:
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, start=Cost())
