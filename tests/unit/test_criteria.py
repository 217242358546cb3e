"""Criteria: what each reads off a supernet, and that it leaves the network as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tiny import changed, faces, fixed_net, space_of, state, supernet
from torch import nn

from nasface.context import Context
from nasface.criteria.ablation import ablation
from nasface.criteria.alpha import alpha
from nasface.criteria.alpha_gain import alpha_gain
from nasface.criteria.elimination import elimination
from nasface.criteria.leave_one_out import leave_one_out
from nasface.criteria.taylor import taylor
from nasface.data.augment import Augmentation
from nasface.engine import Settings, training_batches
from nasface.errors import GraphError
from nasface.graph import Graph, Node
from nasface.net import GraphNet, edge_values, key, slim_net
from nasface.step import Batch
from nasface.testing import trial
from searchspaces.highres import HighResolutionSpace


def tried(space: HighResolutionSpace | None = None) -> tuple[GraphNet, Context]:
    return trial(space or supernet(width=4, stages=3, resolutions=2, stem_channels=4), input_size=32)


def test_alpha_is_the_absolute_factor():
    net, context = tried()
    with torch.no_grad():
        net.alpha.copy_(torch.linspace(-1, 1, len(net.alpha)))
    assert list(alpha(net, context).items()) == [(edge, abs(value)) for edge, value in edge_values(net).items()]


def test_alpha_gain_multiplies_by_the_gain_of_the_last_bn():
    net, context = tried(supernet(width=4, stages=3, resolutions=3, stem_channels=4))
    with torch.no_grad():
        net.alpha.copy_(torch.linspace(-1, 1, len(net.alpha)))
        for module in net.edges.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()
    chain = net.edges[key("2.0", "3.2")]
    first, last = (m for m in chain.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        first.weight.fill_(50)
        last.weight.fill_(-3)
    factors, gained = edge_values(net), alpha_gain(net, context)
    down, up = net.edges[key("2.0", "3.1")], net.edges[key("2.1", "3.0")]
    assert gained["2.0", "3.0"] == abs(factors["2.0", "3.0"])  # an identity has no gain
    assert gained["2.0", "3.1"] == pytest.approx(
        abs(factors["2.0", "3.1"]) * float(down[1].weight.detach().abs().mean())
    )
    assert gained["2.1", "3.0"] == pytest.approx(abs(factors["2.1", "3.0"]) * float(up[1].weight.detach().abs().mean()))
    assert gained["2.0", "3.2"] == pytest.approx(3 * abs(factors["2.0", "3.2"]))


def test_a_bn_without_a_gain_counts_as_one_of_gain_1():
    net, context = tried(supernet(width=4, stages=3, resolutions=3, stem_channels=4))
    chain = net.edges[key("2.0", "3.2")]
    first, last = (name for name, m in chain.named_modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        chain.get_submodule(first).weight.fill_(50)
    place, _, name = last.rpartition(".")
    setattr(chain.get_submodule(place), name, nn.BatchNorm2d(chain.get_submodule(last).num_features, affine=False))
    assert alpha_gain(net, context)["2.0", "3.2"] == abs(edge_values(net)["2.0", "3.2"])


def test_taylor_is_how_far_the_loss_moves():
    net, context = tried()
    with torch.no_grad():
        net.alpha.uniform_(-1, 1)
    slope = torch.randn(len(net.alpha))
    brightness = []

    def linear(model: GraphNet, batch: Batch) -> dict[str, torch.Tensor]:
        model(batch.images_B3HW)  # would move the BN statistics
        brightness.append(batch.images_B3HW.mean())
        return {"loss": (slope * model.alpha).sum() * brightness[-1]}

    def batches() -> Iterator[Batch]:
        return training_batches(faces(8), Settings(0, 2, Augmentation(), seed=1))

    before = state(net)
    found = taylor(net, replace(context, step=linear, batches=batches))
    assert not changed(before, net)
    assert len(brightness) == 4
    expected = (net.alpha.detach() * slope).abs() * torch.stack(brightness).square().mean().sqrt()
    assert list(found) == list(net.graph.prunable)
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-4)


def test_leave_one_out_is_the_error_without_the_edge():
    net, context = tried()
    asked: list[Graph] = []

    def evaluate(graph: Graph) -> float:
        asked.append(graph)
        return 1.0 / len(graph.edges)

    found = leave_one_out(net, replace(context, evaluate=evaluate))
    assert len(asked) == len(net.graph.prunable)
    for edge, graph in zip(net.graph.prunable, asked, strict=True):
        assert edge not in graph.edges
        assert found[edge] == 1.0 / len(graph.edges)


def test_an_edge_that_nothing_can_do_without_is_worth_more_than_all_others():
    nodes = (Node("a", 4, 4), Node("b", 4, 4), Node("c", 4, 4), Node("d", 4, 4, block=False))
    net, context = tried(space_of(Graph(nodes, (("a", "b"), ("b", "c"), ("b", "d"), ("c", "d")), ("a",), ("d",))))
    found = leave_one_out(net, context)
    others = [value for edge, value in found.items() if edge != ("a", "b")]
    assert found["a", "b"] == 1 + max(others)


def test_the_error_of_a_sub_network_is_measured_without_changing_the_network():
    net, context = tried()
    before = state(net)
    graph = net.graph.keep_prunable(net.graph.prunable[1:])
    errors = [context.evaluate(graph), context.evaluate(net.graph), context.evaluate(graph)]
    assert not changed(before, net)
    assert errors[0] == errors[2] != errors[1]


@pytest.mark.parametrize("criterion", [alpha, alpha_gain, taylor, leave_one_out, elimination])
def test_fixed_edges_have_no_importance(criterion):
    net, context = tried(fixed_net(modules=(1,)))
    found = criterion(net, context)
    assert list(found) == list(net.graph.prunable)
    assert not set(found) & net.graph.fixed


def test_an_edge_without_which_the_loss_is_not_finite_is_not_called_unimportant():
    net, context = tried()
    losses = iter([torch.tensor(1.0)] + [torch.tensor(float("nan"))] * 1000)
    context = replace(context, loss=lambda heatmaps, batch: next(losses))
    found = ablation(net, context, batches=1)
    assert any(math.isnan(value) for value in found.values())
    assert 0 not in found.values()


def test_ablation_is_how_much_the_loss_grows_without_the_edge():
    net, context = tried()
    batches = list(context.batches())
    net.train()
    with torch.no_grad():
        whole = torch.stack([context.loss(net(b.images_B3HW), b) for b in batches]).mean()
    found = ablation(net, context, batches=len(batches))
    vital = 1 + max(value for value in found.values() if value < 1)
    for edge in net.graph.prunable:
        try:
            rest = net.graph.keep_prunable(other for other in net.graph.prunable if other != edge)
        except GraphError:
            assert found[edge] == pytest.approx(vital)
            continue
        slim = slim_net(net, rest)[0].train()
        with torch.no_grad():
            loss = torch.stack([context.loss(slim(b.images_B3HW), b) for b in batches]).mean()
        assert found[edge] == pytest.approx(max(0.0, float(loss - whole)), abs=1e-6)


def test_taylor_may_look_at_some_batches_only():
    net, context = tried()
    assert len(list(context.batches())) == 2
    assert taylor(net, context, batches=2) == taylor(net, context)
    assert taylor(net, context, batches=1) != taylor(net, context)


def test_the_excess_of_leave_one_out_begins_at_zero():
    net, context = tried()
    plain = leave_one_out(net, context)
    found = leave_one_out(net, context, excess=True)
    assert found == {edge: value - min(plain.values()) for edge, value in plain.items()}
    assert min(found.values()) == 0
