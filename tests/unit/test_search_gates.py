"""Hard-concrete gates: their distribution, the expected cost, the multiplier, and searches down to a budget."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from test_search_prox import context_of, searched
from tiny import changed, diamond, fixed_net, smallest, space_of, state, supernet
from torch import Tensor

from nasface.cost import Costs, count_space
from nasface.errors import GraphError
from nasface.graph import Edge, Graph, Node
from nasface.net import GraphNet, slim_net
from nasface.search.budget import Budget, sub_graph
from nasface.search.gates import (
    STIFFNESS,
    ExpectedCost,
    Gated,
    GateSearcher,
    drawn_gates,
    open_probability,
    settled_gates,
)
from nasface.testing import check_searcher

ANYTHING = 10**12


def two_ways(fixed: frozenset[Edge] = frozenset()) -> Graph:
    """a -> b -> d and a -> c -> d share no edge, and there is one output."""
    nodes = (Node("a", 4, 4, 1), Node("b", 4, 4, 2), Node("c", 8, 8, 2), Node("d", 4, 4, 3))
    return Graph(nodes, (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")), ("a",), ("d",), fixed)


def brute_force(graph: Graph, costs: Costs, chances: list[float], whole: bool) -> float:
    """The mean over all draws of edges; a draw that connects nothing is the stem alone."""
    total = 0.0
    for on in product((False, True), repeat=len(graph.prunable)):
        weight = math.prod(p if here else 1 - p for p, here in zip(chances, on, strict=True))
        total += weight * macs_of(graph, costs, list(on), whole)
    return total


def macs_of(graph: Graph, costs: Costs, on: list[bool], whole: bool) -> int:
    try:
        kept = sub_graph(graph, on)
    except GraphError:
        return costs.stem.macs if whole else 0
    return (costs.total(kept) if whole else costs.prunable(kept)).macs


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fixed", [frozenset(), frozenset({("c", "d")})])
def test_the_expected_cost_is_the_mean_over_all_draws(whole, fixed):
    graph = two_ways(fixed)
    costs = count_space(space_of(graph), 3, 32)
    chances = [0.9, 0.3, 0.5, 0.8][: len(graph.prunable)]
    found = ExpectedCost(graph, Budget(graph, costs, ANYTHING, whole))(torch.tensor(chances))
    assert float(found) == pytest.approx(brute_force(graph, costs, chances, whole), rel=1e-5)


def test_where_ways_share_edges_the_expected_cost_is_close():
    graph = diamond()
    costs = count_space(space_of(graph), 3, 32)
    chances = [0.9, 0.8, 0.5, 0.8, 0.7, 0.6]
    found = float(ExpectedCost(graph, Budget(graph, costs, ANYTHING))(torch.tensor(chances)))
    assert found == pytest.approx(brute_force(graph, costs, chances, True), rel=0.05)


@pytest.mark.parametrize("whole", [True, False])
def test_certain_gates_cost_what_the_sub_graph_costs(whole):
    graph = diamond()
    costs = count_space(space_of(graph), 3, 32)
    cost = ExpectedCost(graph, Budget(graph, costs, ANYTHING, whole))
    for on in product((False, True), repeat=len(graph.prunable)):
        chances = torch.tensor([float(here) for here in on])
        assert float(cost(chances)) == macs_of(graph, costs, list(on), whole)


def test_the_head_of_three_outputs_is_counted_exactly():
    graph = supernet().graph
    costs = count_space(supernet(), 3, 32)
    cost = ExpectedCost(graph, Budget(graph, costs, ANYTHING))
    for without in ((), ("4.1",), ("4.0", "4.2")):
        on = [edge[1] not in without for edge in graph.prunable]
        assert float(cost(torch.tensor(on).float())) == pytest.approx(costs.total(sub_graph(graph, on)).macs, rel=1e-6)


def test_the_expected_cost_is_differentiable():
    graph = two_ways()
    costs = count_space(space_of(graph), 3, 32)
    cost = ExpectedCost(graph, Budget(graph, costs, ANYTHING))
    chances = torch.tensor([0.9, 0.3, 0.5, 0.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: cost(p) / 1e5, (chances,))


def test_the_probability_of_an_open_gate():
    log_alpha = torch.tensor([-3.0, -0.5, 0.0, 2.0])
    uniform = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    drawn = (drawn_gates(log_alpha, uniform) > 0).double().mean(0)
    assert torch.allclose(drawn, open_probability(log_alpha).double(), atol=0.005)
    # sigmoid(0 - 2/3 * ln(0.1 / 1.1))
    assert float(open_probability(torch.zeros(()))) == pytest.approx(1 / (1 + math.exp(2 / 3 * math.log(0.1 / 1.1))))


def test_gates_by_hand():
    # u = 1/2 cancels the noise: sigmoid(1 * 3/2) * 1.2 - 0.1
    gate = drawn_gates(torch.tensor(1.0), torch.tensor(0.5))
    assert float(gate) == pytest.approx(1.2 / (1 + math.exp(-1.5)) - 0.1)
    assert settled_gates(torch.tensor([-9.0, 0.0, 9.0])).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_the_multiplier_grows_with_the_excess_and_damps_it():
    gated = Gated(GraphNet(supernet(), 4), 0.95)
    assert torch.allclose(gated.probabilities(), torch.tensor(0.95))
    excess = torch.tensor(0.2, requires_grad=True)
    pressure = gated.pressure(excess, rate=0.5)
    assert float(pressure.detach()) == pytest.approx(0.5 * STIFFNESS * 0.2**2)
    (slope,) = torch.autograd.grad(pressure, excess)
    assert float(slope) == pytest.approx(STIFFNESS * 0.2)  # multiplier + stiffness * excess
    assert float(gated.multiplier) == pytest.approx(0.1)
    (slope,) = torch.autograd.grad(gated.pressure(excess, rate=0.5), excess)
    assert float(slope) == pytest.approx(0.1 + STIFFNESS * 0.2)
    gated.pressure(torch.tensor(-1.0), rate=0.5)
    assert float(gated.multiplier) == pytest.approx(0.2 - 0.5)
    assert "multiplier" in gated.state_dict()


def test_a_draw_depends_on_the_seed_alone_and_is_the_masked_network():
    gated = Gated(GraphNet(fixed_net(), 4), 0.6).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        gated.net.head.heatmaps.weight.normal_()
        first, again, other = (gated.sampled(images, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        gated.log_alpha.fill_(9.0)
        assert torch.equal(gated(images), gated.net(images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "tolerance"),
    [(supernet, 0.1), (fixed_net, 0.4)],  # fixed edges leave the latter few sizes
)
def test_a_share_is_reached_and_never_exceeded(build, tolerance):
    space, share = build(), 0.6
    costs = context_of(space).costs
    net, kept = searched(GateSearcher(share=share, gate_lr=0.3, gate_share=1.0), space)
    assert kept is not None
    assert (1 - tolerance) * share <= costs.prunable(kept).macs / costs.prunable(space.graph).macs <= share
    on = set(kept.prunable)
    assert [value != 0 for value in net.alpha.tolist()] == [edge in on for edge in space.graph.prunable]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(net.eval()(images), slim_net(net, kept)[0](images), atol=1e-5)


@pytest.mark.slow
def test_the_multiplier_brings_the_expected_cost_to_the_budget():
    """Before the gates are settled, which would hide a multiplier that does nothing."""
    space = smallest()
    costs = context_of(space).costs
    budget = Budget(space.graph, costs, int(0.6 * costs.prunable(space.graph).macs), whole=False)
    found: list[float] = []

    class Watched(ExpectedCost):
        def __call__(self, probabilities: Tensor) -> Tensor:
            expected = super().__call__(probabilities)
            found.append(float(expected.detach()))
            return expected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nasface.search.gates.ExpectedCost", Watched)
        searched(GateSearcher(share=0.6, gate_lr=0.1, gate_share=1.0, settle=1.0), space, epochs=25)
    assert found[0] > 0.9 * budget.full
    assert found[-1] == pytest.approx(budget.limit, rel=0.1)


@pytest.mark.slow
def test_without_a_budget_the_penalty_closes_gates():
    left = {}
    for penalty in (0.0, 100.0):
        net, kept = searched(GateSearcher(penalty=penalty, gate_lr=0.5, gate_share=1.0), smallest(), epochs=4)
        assert kept is None
        left[penalty] = int((net.alpha != 0).sum())
    assert left[0.0] == len(smallest().graph.prunable) > left[100.0] > 0


@pytest.mark.slow
def test_a_stopped_search_continues_bit_for_bit(tmp_path: Path):
    searcher = GateSearcher(share=0.6, gate_lr=0.3)
    whole, kept = searched(searcher, smallest())
    for stop_at in (13, 26):  # while the gates are trained, and when they are settled
        checkpoint = tmp_path / f"{stop_at}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            searched(searcher, smallest(), checkpoint=checkpoint, stop_at=stop_at)
        again, same = searched(searcher, smallest(), checkpoint=checkpoint)
        assert kept == same
        assert not changed(state(whole), again)


@pytest.mark.slow
@pytest.mark.parametrize("searcher", [GateSearcher(), GateSearcher(share=0.6, warmup_epochs=1)])
def test_it_conforms(searcher):
    check_searcher(searcher, smallest(), input_size=32)
    check_searcher(searcher, fixed_net(modules=(1,)), input_size=32)
