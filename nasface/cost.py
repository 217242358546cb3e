"""Parameters, multiply-adds (MACs) and latency of networks, and of every node and edge of a search space.

fvcore counts one MAC for each multiply-add of a convolution or matrix product. BN, activations, additions and
upsampling are left out, and the factors alpha are not counted as parameters.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from nasface.compute import counting
from nasface.eager import DispatchMode
from nasface.errors import NasfaceError, RunError
from nasface.graph import Edge, Graph
from nasface.net import GraphNet, key
from nasface.space import SearchSpace
from nasface.timing import fastest

# operators as fvcore names them
MULTIPLY_ADD_OPS = frozenset({"conv", "linear", "matmul", "addmm", "bmm", "einsum"})


@dataclass(frozen=True)
class Cost:
    """Number of parameters, and of multiply-adds in a forward pass of one image."""

    params: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.params - other.params, self.macs - other.macs)


@dataclass(frozen=True)
class Timing:
    """The latency of a network and, measured in turn with it, that of its supernet.

    Attributes:
        latency_ms, supernet_latency_ms: milliseconds of one pass.
        latency_batch: images in it.
        latency_runtime: what runs the networks.
        threads: CPU threads.
        device: where they run.
    """

    latency_ms: float
    supernet_latency_ms: float
    latency_batch: int
    latency_runtime: str
    threads: int
    device: str


@dataclass(frozen=True)
class Costs:
    """Costs of the parts of a search space at one input size; the cost of any sub-graph is their sum.

    Attributes:
        space: the search space.
        num_landmarks: number of heatmaps of the head.
        input_size: side of the square input in pixels.
        stem, nodes, edges: cost of each part. The cost of a node is that of its encoder.
        heads: cost of the head by the output nodes that it reads; filled in on demand.
        clock: measures the latency of a sub-graph in a runtime; None where nothing can be measured.
    """

    space: SearchSpace
    num_landmarks: int
    input_size: int
    stem: Cost
    nodes: Mapping[str, Cost]
    edges: Mapping[Edge, Cost]
    heads: dict[tuple[str, ...], Cost] = field(default_factory=dict, repr=False)
    clock: Callable[[Graph, str], Timing] | None = field(default=None, repr=False, compare=False)

    def head(self, outputs: tuple[str, ...]) -> Cost:
        """Return the cost of the head that reads these output nodes."""
        if outputs not in self.heads:
            nodes = [self.space.graph.node[name] for name in outputs]

            def made(images: int) -> tuple[nn.Module, tuple[object, ...]]:
                maps = [torch.zeros(images, n.channels, *[self.input_size // n.stride] * 2) for n in nodes]
                return self.space.head(nodes, self.num_landmarks), (maps,)

            # the width of the head depends on the outputs, so it cannot be a sum over them
            self.heads[outputs] = _count_made(made)[""]
        return self.heads[outputs]

    def total(self, graph: Graph) -> Cost:
        """Return the cost of the whole network of a sub-graph."""
        return self.prunable(graph) + self.fixed(graph)

    def without_head(self, graph: Graph) -> Cost:
        """Return the cost without the head, as the paper counts slim networks (its Tables 1 and 6)."""
        return self.total(graph) - self.head(graph.outputs)

    def prunable(self, graph: Graph) -> Cost:
        """Return the cost of everything except the stem, stage 1 (the input nodes) and the head."""
        return _sum(self.nodes[n.id] for n in graph.nodes if n.id not in graph.inputs) + _sum(
            self.edges[edge] for edge in graph.edges
        )

    def fixed(self, graph: Graph) -> Cost:
        """Return the cost of the stem, stage 1 and the head."""
        return self.stem + _sum(self.nodes[name] for name in graph.inputs) + self.head(graph.outputs)

    def latency(self, graph: Graph, runtime: str = "torch") -> Timing:
        """Return the latency of the whole network of a sub-graph for one image, measured on this machine.

        Args:
            graph: the sub-graph.
            runtime: 'torch', or that of an export format, see `nasface.deploy.runtimes`.

        Raises:
            RunError: if there is no such runtime, or if these costs come without a clock.
        """
        if self.clock is None:
            raise RunError("these costs were only counted, so they cannot say how long a network takes")
        return self.clock(graph, runtime)

    def by_stage(self, graph: Graph) -> dict[str, Cost]:
        """Return the costs of the stem, of each stage (its nodes and the edges into them) and of the head."""
        stages: dict[str, Cost] = {"stem": self.stem}
        for node in graph.nodes:
            into = _sum(self.edges[parent, node.id] for parent in graph.parents[node.id])
            name = f"stage {node.stage}"
            stages[name] = stages.get(name, Cost()) + self.nodes[node.id] + into
        return {**stages, "head": self.head(graph.outputs)}


def count_space(space: SearchSpace, num_landmarks: int, input_size: int = 256) -> Costs:
    """Count every part of a search space with one pass of fvcore, at an input of (3, input_size, input_size)."""

    def made(images: int) -> tuple[nn.Module, tuple[object, ...]]:
        return GraphNet(space, num_landmarks), (torch.zeros(images, 3, input_size, input_size),)

    parts = _count_made(made)
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
    """Return the parameters (without alphas) and MACs of any network on the given input."""
    return _count(module, (image_B3HW,))[""]


def latencies_ms(nets: Sequence[nn.Module], images_B3HW: Tensor, repeats: int = 20, warmup: int = 3) -> list[float]:
    """Return the milliseconds of the fastest forward pass of each network, on the device of the images.

    The networks run in turn, at least `repeats` times; see `nasface.timing.fastest`.
    """

    def run(net: nn.Module) -> None:
        net(images_B3HW)
        # an accelerator runs asynchronously: without waiting, only the launch would be timed
        _synchronise(images_B3HW.device)

    training = [net.training for net in nets]
    for net in nets:
        net.eval()
    _synchronise(images_B3HW.device)
    with torch.inference_mode():
        one_thread = images_B3HW.device.type == "cpu" and torch.get_num_threads() == 1
        seconds = fastest([partial(run, net) for net in nets], repeats, warmup, one_thread=one_thread)
    for net, mode in zip(nets, training, strict=True):
        net.train(mode)
    return [1000 * own for own in seconds]


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _count_made(made: Callable[[int], tuple[nn.Module, tuple[object, ...]]]) -> dict[str, Cost]:
    """Return the costs of a module that `made` builds together with a batch of so many inputs; see `_count`.

    The batch is empty, so that neither weights nor maps take memory or time, whatever their size. Only where a part of
    somebody else's needs an image, there is one. Parts must treat the images of a batch alike; `check_space` compares
    the result with a count of real images.
    """
    try:
        with _Unfilled():  # type: ignore[no-untyped-call]
            module, inputs = made(0)
        return _count(module, inputs, _OF_NO_IMAGE)
    except NasfaceError:
        raise
    except Exception:  # if it is something else that is wrong, it is raised again
        with torch.random.fork_rng(devices=()):
            module, inputs = made(1)
        return _count(module, inputs)


class _Unfilled(DispatchMode):
    """Lets weights be what was in their memory, which is not touched: no random numbers are drawn for them."""

    _fills = frozenset({torch.ops.aten.uniform_, torch.ops.aten.normal_})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func.overloadpacket in self._fills else func(*args, **(kwargs or {}))


def _of_one_image(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Return what fvcore would count for one image in a convolution of none."""
    from fvcore.nn.jit_handles import get_shape

    weights, transposed = get_shape(inputs[1]), inputs[6].toIValue()
    cells = get_shape(inputs[0] if transposed else outputs[0])[2:]
    return Counter({"conv": math.prod(weights) * math.prod(cells)})


def _needs_an_image(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    raise TypeError("cannot count a matrix product on an empty batch")


_OF_NO_IMAGE = {f"aten::{name}": _needs_an_image for name in MULTIPLY_ADD_OPS} | {"aten::_convolution": _of_one_image}
"""How fvcore counts operators on an empty batch."""


def _count(
    module: nn.Module, inputs: tuple[object, ...], handles: Mapping[str, Callable[..., Any]] | None = None
) -> dict[str, Cost]:
    """Return the costs of a module and of every module inside it by dotted name; '' is the module itself.

    Args:
        module: the module.
        inputs: what it is called with.
        handles: by the name of an operator, what fvcore is to count for it, if not what it always does.
    """
    from fvcore.nn import FlopCountAnalysis

    _quiet()
    training = module.training
    module.eval()
    with warnings.catch_warnings(), torch.no_grad(), counting(0):  # counting a network is not part of a run's compute
        warnings.simplefilter("ignore")  # the tracer warns that it does not record the check of the input size
        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted = analysis.set_op_handle(**(handles or {})).by_module_and_operator()
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
