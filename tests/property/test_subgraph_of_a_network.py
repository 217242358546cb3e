"""Running a network as a sub-graph: what the slim network computes, with the parent's own parameters and statistics."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from test_slim_equals_masked import SPACES, TOLERANCE, difference, draws, parent
from tiny import changed, scrambled, state, supernet

from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.net import GraphNet, frozen_statistics, give_back, slim_net
from tests.refusal import refused


class Run(torch.nn.Module):
    """A network run as a sub-graph."""

    def __init__(self, net: GraphNet, graph: Graph) -> None:
        super().__init__()
        self.net, self.graph = net, graph

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images, graph=self.graph)


@pytest.mark.parametrize("outputs", ["all kept", "some lost", "finest lost"])
@pytest.mark.parametrize("name", [*SPACES, "relu left out"])
def test_a_sub_graph_computes_what_the_slim_network_does(name, outputs):
    net = scrambled(supernet(relu_after_identity=False)) if name == "relu left out" else parent(name)
    size = 2 * net.space.graph.max_stride
    images = torch.randn(2, 3, size, size)
    for kept in draws(net.graph, outputs):
        assert difference(Run(net, kept), slim_net(net, kept)[0], images) < TOLERANCE


@pytest.mark.parametrize("outputs", ["all kept", "some lost"])
def test_gradients_and_statistics_reach_the_network_as_they_reach_the_slim_one(outputs):
    # in float64, because BN over four maps of a few pixels magnifies rounding
    net = deepcopy(parent("hrnet mbconv, more modules")).train().double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for kept in draws(net.graph, outputs, number=2):
        slim = slim_net(net, kept)[0].double()
        net.zero_grad()
        for one in (slim, Run(net, kept)):
            one(images).square().mean().backward()
        expected = slim_net(net, kept)[0].double().state_dict()  # with the statistics that the network has now
        for name, value in slim.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)
        gradients = {name: parameter.grad for name, parameter in slim.named_parameters()}
        for name, parameter in net.named_parameters():
            if name in gradients and parameter.shape == gradients[name].shape and name != "alpha":
                torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)
        unused = set(net.graph.edges) - set(kept.edges)
        for src, dst in unused:
            part = net.edges[f"{src}->{dst}".replace(".", "_")]
            assert all(parameter.grad is None for parameter in part.parameters())


def test_a_step_on_a_sub_graph_trains_the_shared_weights():
    net = deepcopy(parent("supernet mbconv")).train()
    (kept,) = draws(net.graph, "some lost", number=1)
    before = state(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(2, 3, 32, 32), graph=kept).square().mean().backward()
    optimizer.step()
    moved = changed(before, net)
    assert {"alpha", "stem.0.weight", "head.hidden.weight", "head.norm.running_mean"} <= moved
    lost = set(net.graph.outputs) - set(kept.outputs)
    owner = net.head.owners["hidden.bias"][0]
    same = torch.tensor([name in lost for name in owner])
    for name in ("hidden.bias", "norm.running_mean", "norm.weight"):
        now, then = net.head.state_dict()[name], before[f"head.{name}"]
        assert torch.equal(now[same], then[same])
        assert not torch.equal(now[~same], then[~same])


@pytest.mark.parametrize("training", [True, False])
def test_frozen_statistics_stay_and_change_no_output(training):
    net = deepcopy(parent("supernet mbconv")).train(training)
    (kept,) = draws(net.graph, "some lost", number=1)
    images = torch.randn(2, 3, 32, 32)
    before = state(net)
    with torch.no_grad(), frozen_statistics(net):
        whole, part = net(images), net(images, graph=kept)
    assert not changed(before, net)
    with torch.no_grad():
        assert torch.equal(whole, net(images))
        assert torch.equal(part, deepcopy(net)(images, graph=kept)) or training
    assert (changed(before, net) != set()) is training  # they follow the batches again


def test_what_a_sub_network_learns_is_given_back():
    net = deepcopy(parent("hrnet residual"))
    random = np.random.default_rng(3)
    for _ in range(3):
        kept = net.graph.random_subgraph(random, 0.5)
        slim, _ = slim_net(net, kept)
        with torch.no_grad():
            for value in slim.state_dict().values():
                value.add_(1)
        give_back(slim, net)
        again, _ = slim_net(net, kept)
        assert not changed(state(slim), again)
        dropped = [i for i, edge in enumerate(net.graph.prunable) if edge not in kept.edges]
        assert not net.alpha[dropped].any()


def test_what_is_not_a_sub_graph_is_refused():
    net = parent("supernet mbconv")
    with refused(GraphError, "search space"):
        net(torch.zeros(1, 3, 32, 32), graph=supernet(stages=5).graph)


def test_running_sub_graphs_draws_no_random_number_and_keeps_no_weights():
    net = parent("supernet mbconv")
    names = set(net.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    for kept in draws(net.graph, "some lost", number=2):
        net(torch.zeros(1, 3, 32, 32), graph=kept)
    assert torch.equal(torch.rand(3), expected)
    assert set(net.state_dict()) == names
