"""Over random sub-graphs, the physically smaller network is the supernet with everything else at zero."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from tiny import fixed_net, scrambled, supernet

from nasface.cost import Costs, count_module, count_space
from nasface.graph import Graph
from nasface.net import GraphNet, masked, slim_net
from searchspaces.highres import HighResolutionSpace

pytestmark = pytest.mark.slow

SPACES = {
    "supernet mbconv": lambda: supernet(),
    "supernet residual, deeper": lambda: supernet(encoder="residual", stages=3, depth=2),
    "supernet of four resolutions": lambda: supernet(stages=4, resolutions=4, width=3),
    "supernet, stage 1 bottleneck": lambda: supernet(stage1="bottleneck", stem_channels=4, width=6, stages=5),
    "supernet, stage 1 as wide as stage 2": lambda: supernet(width=8, resolutions=2, alpha=-0.5),
    "hrnet residual": lambda: fixed_net(),
    "hrnet mbconv, more modules": lambda: fixed_net(encoder="mbconv", stage1="mbconv", modules=(2, 2)),
    "hrnet of four branches": lambda: fixed_net(modules=(1, 1, 1), width=3, stage1="residual"),
}
TOLERANCE = 1e-5


@cache
def parent(name: str) -> GraphNet:
    return scrambled(SPACES[name]())


@cache
def costs_of(name: str, size: int) -> Costs:
    return count_space(parent(name).space, 5, size)


def draws(graph: Graph, outputs: str, number: int = 2) -> list[Graph]:
    """Random sub-graphs that keep all output nodes, lose some, or lose the finest."""
    random = np.random.default_rng(5)
    finest = min(graph.outputs, key=lambda name: graph.node[name].stride)
    found: list[Graph] = []
    for _ in range(500):
        share = float(random.uniform(0.3, 0.9))
        kept = graph.random_subgraph(random, share)
        if outputs == "finest lost":
            ways = [edge for edge in kept.edges if edge[1] != finest]
            if not graph.closure(ways):
                continue
            kept = graph.keep(ways)
        fits = {
            "all kept": kept.outputs == graph.outputs and kept != graph,
            "some lost": kept.outputs != graph.outputs,
            "finest lost": finest not in kept.outputs,
        }
        if fits[outputs]:
            found.append(kept)
        if len(found) == number:
            return found
    raise AssertionError(f"no draws with outputs {outputs}")


def difference(a: GraphNet, b: GraphNet, images: torch.Tensor) -> float:
    """The largest difference, in units of the output's scale where that is above one."""
    with torch.no_grad():
        x, y = a(images), b(images)
    assert x.shape == y.shape
    return float((x - y).abs().max() / max(1.0, float(y.abs().max())))


@pytest.mark.parametrize("outputs", ["all kept", "some lost", "finest lost"])
@pytest.mark.parametrize("name", SPACES)
def test_slim_equals_masked(name, outputs):
    net = parent(name)
    size = 2 * net.space.graph.max_stride
    images = torch.randn(2, 3, size, size)
    costs = costs_of(name, size)
    for kept in draws(net.graph, outputs):
        slim, _ = slim_net(net, kept)
        assert difference(slim, masked(net, kept), images) < TOLERANCE
        assert difference(slim, net, images) > 100 * TOLERANCE  # what is lost was doing something
        assert costs.total(kept) == count_module(slim, images[:1])


@pytest.mark.parametrize("name", ["supernet mbconv", "hrnet residual"])
def test_the_rows_of_lost_outputs_must_be_masked_in_the_head_too(name):
    net = parent(name)
    images = torch.randn(2, 3, 32, 32)
    for kept in draws(net.graph, "some lost"):
        loose = deepcopy(net)
        loose.gate.copy_(masked(net, kept).gate)
        assert difference(slim_net(net, kept)[0], loose, images) > 100 * TOLERANCE


def test_the_same_holds_in_training_mode():
    """There BN uses the batch, so that only equal maps give equal statistics."""
    net = deepcopy(parent("supernet mbconv")).train()
    images = torch.randn(4, 3, 32, 32)
    for kept in draws(net.graph, "finest lost", number=2):
        assert difference(slim_net(net, kept)[0], masked(net, kept), images) < 10 * TOLERANCE


def test_pruning_a_slim_network_again_equals_pruning_once():
    net = parent("supernet mbconv")
    random = np.random.default_rng(2)
    images = torch.randn(2, 3, 32, 32)
    once = net.graph.random_subgraph(random, 0.8)
    twice = once.random_subgraph(random, 0.6)
    slim, _ = slim_net(net, once)
    assert difference(slim_net(slim, twice)[0], slim_net(net, twice)[0], images) == 0


def relu_option(relu_after_identity: bool) -> tuple[HighResolutionSpace, Graph]:
    """A chain that ends in an identity edge into a node that only fuses."""
    space = supernet(width=4, stages=3, resolutions=2, relu_after_identity=relu_after_identity)
    return space, space.graph.keep([("1.0", "2.0"), ("2.0", "3.0")])


def test_leaving_out_the_relu_breaks_the_equality():
    """As documented: the released networks skip it after a lone identity edge, and then differ."""
    images = torch.randn(2, 3, 32, 32)
    for relu, equal in ((True, True), (False, False)):
        space, chain = relu_option(relu)
        net = scrambled(space)
        assert (difference(slim_net(net, chain)[0], masked(net, chain), images) < TOLERANCE) is equal
