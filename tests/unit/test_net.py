"""The executor: it computes what the equation says, inherits by index, and refuses what does not fit."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest
import torch
from tiny import changed, fixed_net, scrambled, space_of, state, supernet

from nasface.errors import GraphError
from nasface.graph import Graph, Node
from nasface.net import GraphNet, edge_values, inherit, key, masked, slim_net
from tests.refusal import refused

OUTPUTS = ("4.0", "4.1", "4.2")  # of the tiny supernet: 4, 8 and 16 channels


def by_definition(net: GraphNet, images: torch.Tensor) -> torch.Tensor:
    """Y = node(sum of alpha * T(X)), recursively and without freeing a map."""
    alpha = edge_values(net)

    def value(name: str) -> torch.Tensor:
        terms = [net.stem(images)] if name in net.graph.inputs else []
        for src in net.graph.parents[name]:
            factor = 1.0 if (src, name) in net.graph.fixed else alpha[src, name]
            terms.append(factor * net.edges[key(src, name)](value(src)))
        return net.nodes[key(name)](sum(terms))

    return net.head([value(name) for name in net.graph.outputs])


def without_output(graph: Graph, name: str) -> Graph:
    return graph.keep(edge for edge in graph.edges if edge[1] != name)


@pytest.mark.parametrize("space", [supernet(stages=3), fixed_net()], ids=["hrsupernet", "hrnet"])
def test_the_executor_follows_the_equation(space):
    random = np.random.default_rng(0)
    images = torch.randn(1, 3, 32, 32)
    for graph in (space.graph, space.graph.random_subgraph(random, 0.5)):
        slim, _ = slim_net(scrambled(space), graph)
        with torch.no_grad():
            torch.testing.assert_close(slim(images), by_definition(slim, images), rtol=1e-5, atol=1e-5)


def test_an_output_in_the_middle_and_an_input_with_parents():
    nodes = (Node("in", 4, 4), Node("mid", 4, 4), Node("late", 4, 4), Node("out", 4, 8, block=False))
    edges = (("in", "mid"), ("in", "late"), ("mid", "late"), ("mid", "out"), ("late", "out"))
    space = space_of(Graph(nodes, edges, ("in", "late"), ("mid", "out"), frozenset({("mid", "late")})))
    net = scrambled(space)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(images), by_definition(net, images), rtol=1e-5, atol=1e-5)


def test_maps_are_freed_after_their_last_reader():
    net = scrambled(supernet())
    maps = {}
    for node in net.graph.nodes:
        note = partial(lambda name, module, args, out: maps.update({name: weakref.ref(out)}), node.id)
        net.nodes[key(node.id)].register_forward_hook(note)
    alive: list[str] = []
    net.head.register_forward_pre_hook(
        lambda module, args: alive.extend(n for n, ref in maps.items() if ref() is not None)
    )
    with torch.no_grad():
        net(torch.randn(1, 3, 16, 16))
    assert set(net.graph.outputs) <= set(alive)
    assert len(alive) <= len(net.graph.outputs) + 1  # the term that was added last may still be there


def test_initial_factors():
    uniform = GraphNet(supernet(), 5)
    values = edge_values(uniform)
    assert values["1.0", "2.1"] == 1
    assert values["2.0", "3.1"] == pytest.approx(1 / 3)
    assert set(edge_values(GraphNet(supernet(alpha=0.25), 5)).values()) == {0.25}


def test_fixed_edges_have_the_factor_one():
    space = fixed_net()
    net = GraphNet(space, 5)
    with torch.no_grad():
        net.alpha.copy_(torch.arange(len(net.alpha)) + 2.0)
    expected = dict.fromkeys(space.graph.fixed, 1.0) | edge_values(net)
    assert len(net.alpha) == len(space.graph.edges) - 5
    assert net.factors().tolist() == [expected[edge] for edge in space.graph.edges]
    net.gate[0] = 0  # a fixed edge can still be masked
    assert space.graph.edges[0] in space.graph.fixed
    assert net.factors()[0] == 0
    net.factors().sum().backward()
    assert torch.equal(net.alpha.grad, torch.ones_like(net.alpha))


def test_the_head_is_sliced_by_index():
    net = scrambled(supernet())
    slim, _ = slim_net(net, without_output(net.graph, "4.1"))
    assert slim.graph.outputs == ("4.0", "4.2")
    keep = [*range(4), *range(12, 28)]  # without the 8 channels in the middle
    old, new = net.head, slim.head
    assert torch.equal(new.hidden.weight, old.hidden.weight[keep][:, keep])
    assert torch.equal(new.hidden.bias, old.hidden.bias[keep])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(new.norm, name), getattr(old.norm, name)[keep])
    assert torch.equal(new.heatmaps.weight, old.heatmaps.weight[:, keep])
    assert torch.equal(new.heatmaps.bias, old.heatmaps.bias)


def test_what_inherit_reports():
    net = scrambled(supernet())
    graph = without_output(net.graph, "4.1")
    slim, report = slim_net(net, graph)
    head = {f"head.{n}" for n in ("hidden.weight", "hidden.bias", "heatmaps.weight")}
    norm = {f"head.norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
    assert set(report.sliced) == {"alpha"} | head | norm
    assert report.untouched == ()
    assert {*report.copied, *report.sliced} == set(slim.state_dict())
    assert str(report) == f"{len(report.copied)} tensors copied, 8 sliced, 0 left untouched"
    for name in report.copied:
        assert torch.equal(slim.state_dict()[name], net.state_dict()[name])
    assert edge_values(slim) == {edge: edge_values(net)[edge] for edge in graph.prunable}


def test_what_the_parent_cannot_give_stays_untouched():
    parent = scrambled(supernet(), num_landmarks=7)
    slim = GraphNet(supernet(), 5, without_output(parent.graph, "4.0"))
    before = state(slim)
    report = inherit(slim, parent)
    assert set(report.untouched) == {"head.heatmaps.weight", "head.heatmaps.bias"}
    assert not changed(before, slim) & set(report.untouched)
    assert "stem.0.weight" in changed(before, slim)


def test_a_slim_net_is_a_copy_and_leaves_its_parent_alone():
    net = scrambled(supernet())
    before = state(net)
    slim, report = slim_net(net, net.graph)
    assert report.sliced == report.untouched == ()
    assert not slim.training
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(1)
    assert not changed(before, net)
    assert slim_net(net.train(), net.graph)[0].training


def test_a_masked_net_is_a_copy():
    net = scrambled(supernet())
    images = torch.randn(1, 3, 32, 32)
    before, out = state(net), net(images)
    copy = masked(net, without_output(net.graph, "4.0"))
    assert copy.gate.sum() == len(net.graph.edges) - 3
    assert not changed(before, net)
    assert torch.equal(net(images), out)
    assert torch.allclose(masked(net, net.graph)(images), out)


def test_the_gate_is_not_saved():
    net = masked(scrambled(supernet()), without_output(supernet().graph, "4.0"))
    assert "gate" not in net.state_dict()


def test_a_foreign_graph_is_refused():
    net = scrambled(supernet())
    slim, _ = slim_net(net, without_output(net.graph, "4.1"))
    with refused(GraphError, "parts", "(3,"):
        inherit(net, slim)
    with refused(GraphError, "parts", "(9,"):
        inherit(GraphNet(fixed_net(), 5), net)


def test_a_graph_of_other_channels_is_foreign_too():
    with refused(GraphError, "parts"):
        inherit(GraphNet(supernet(width=8), 5), scrambled(supernet(width=4)))


def test_encoders_are_inherited_where_the_relu_is_left_out():
    net = scrambled(supernet(relu_after_identity=False))
    alone = net.graph.keep([("1.0", "2.0"), ("2.0", "3.0"), ("3.0", "4.0")])
    _, report = slim_net(net, alone)
    assert report.untouched == ()


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (80, 16)])
@pytest.mark.parametrize("space", [supernet(), fixed_net()], ids=["hrsupernet", "hrnet"])
def test_any_multiple_of_the_largest_stride_works(space, size):
    assert space.graph.max_stride == 16
    for graph in (space.graph, without_output(space.graph, space.graph.outputs[0])):
        net, _ = slim_net(scrambled(space), graph)
        with torch.no_grad():
            out = net(torch.randn(2, 3, *size))
        assert out.shape == (2, 5, size[0] // 4, size[1] // 4)  # at the full graph's finest stride, whoever survives


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 24), (8, 8)])
def test_other_sizes_are_refused(height, width):
    net = scrambled(supernet())
    with refused(GraphError, f"{width} x {height}", 16):
        net(torch.zeros(1, 3, height, width))


def test_a_slim_net_needs_the_size_of_its_space():
    """The coarsest maps may be gone, but a slim net takes the same inputs as its supernet."""
    net = scrambled(supernet())
    slim, _ = slim_net(net, net.graph.keep([("1.0", "2.0"), ("2.0", "3.0"), ("3.0", "4.0")]))
    assert slim.graph.max_stride == 4
    with refused(GraphError, "24 x 24", 16):
        slim(torch.zeros(1, 3, 24, 24))
