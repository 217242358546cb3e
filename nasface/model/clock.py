"""Latencies of networks, each measured in turn with its supernet."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch

from nasface.cost import Timing, latencies_ms
from nasface.deploy.runtimes import open_net, runtimes
from nasface.graph import Graph
from nasface.net import GraphNet, place, slim_net
from nasface.space import SearchSpace
from nasface.timing import fastest

_REPEATS = 50  # a choice needs a latency that is steadier than a table does


class Clock:
    """Measures how long a forward pass of a network takes in a runtime, with the CPU threads that PyTorch has now.

    In torch, networks run where the supernet is, and in other runtimes on the CPU.

    Attributes:
        supernet: the network that is timed beside each other one.

    Args:
        supernet: what is timed in turn with every network, so that other load on the machine affects both alike.
        size: side of the square input in pixels.
        runtime: the runtime.
        batch: images per pass.
        repeats: timed passes of each network, of which the fastest counts; more on a busy machine, see `fastest`.

    Raises:
        RunError: if there is no such runtime, or if its packages are missing.
    """

    def __init__(self, supernet: GraphNet, size: int, runtime: str, batch: int = 1, repeats: int = 10) -> None:
        self._runtime, self._form = runtime, runtimes((runtime,))[runtime]
        self.supernet, self._repeats, self._threads = supernet, repeats, torch.get_num_threads()
        self._device = torch.device("cpu") if self._form else supernet.alpha.device
        images = torch.randn(batch, 3, size, size, device=self._device)
        self._images = images if self._form else images.contiguous(memory_format=torch.channels_last)
        self._exported = open_net(supernet, self._form, size, self._threads) if self._form else None

    def time(self, net: GraphNet) -> Timing:
        """Return the latency of a network beside that of the supernet."""
        batch, _, size, _ = self._images.shape
        if self._form is None or self._exported is None:
            own, full = latencies_ms((net, self.supernet), self._images, self._repeats)
        else:
            call, images = open_net(net, self._form, size, self._threads), self._images.numpy()
            calls = [partial(call, images), partial(self._exported, images)]
            own, full = (
                1000 * seconds for seconds in fastest(calls, self._repeats, settled=True, one_thread=self._threads == 1)
            )
        return Timing(own, full, batch, self._runtime, self._threads, str(self._device))


def space_clock(space: SearchSpace, num_landmarks: int, size: int) -> Callable[[Graph, str], Timing]:
    """Return what measures the latency of a sub-graph of a search space on the CPU, for `nasface.cost.Costs`.

    Weights do not matter to a latency, so the networks have random ones. Nothing is built before it is needed, and a
    network that is asked for again has the same latency.
    """

    @cache
    def clock(runtime: str, threads: int) -> Clock:
        supernet = place(GraphNet(space, num_landmarks), torch.device("cpu")).eval()
        return Clock(supernet, size, runtime, repeats=_REPEATS)

    @cache
    def timed(graph: Graph, runtime: str, threads: int) -> Timing:
        with torch.random.fork_rng(devices=[]):  # a pruner must not change the random numbers of what follows
            own = clock(runtime, threads)
            return own.time(slim_net(own.supernet, graph)[0])

    return lambda graph, runtime: timed(graph, runtime, torch.get_num_threads())
