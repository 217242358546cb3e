"""Pruners with a budget of latency, under a clock that is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from tiny import importance, supernet

from nasface.cost import Costs, Timing, count_space
from nasface.errors import GraphError, RecipeError, RunError
from nasface.graph import Graph
from nasface.model.clock import space_clock
from nasface.prune import budget, exact
from tests.refusal import refused

PRUNERS = pytest.mark.parametrize("pruner", [budget, partial(exact, seconds=10.0)], ids=["budget", "exact"])


def clocked(ms: Callable[[Costs, Graph], float]) -> Costs:
    """The costs of a small space with a clock."""
    counted = count_space(supernet(), 5, 32)

    def clock(graph: Graph, runtime: str) -> Timing:
        return Timing(ms(counted, graph), ms(counted, counted.space.graph), 1, runtime, 1, "cpu")

    return replace(counted, clock=clock, heads={**counted.heads})


def by_parts(costs: Costs, graph: Graph) -> float:
    """As in PyTorch on small maps: a bit for every operator, and a bit for what it computes."""
    return 0.1 + 0.02 * len(graph.edges) + costs.total(graph).macs / 1e6


def uneven(costs: Costs, graph: Graph) -> float:
    """A latency that does not always rise with MACs."""
    return by_parts(costs, graph) * (1 + 0.05 * (-1) ** len(graph.edges))


@PRUNERS
@pytest.mark.parametrize("ms_of", [by_parts, uneven])
@pytest.mark.parametrize("part", [0.9, 0.75, 0.6])
def test_a_budget_of_latency_is_met_about_as_well_as_any_budget_of_macs_meets_it(pruner, ms_of, part):
    costs = clocked(ms_of)
    graph = costs.space.graph
    rates, limit = importance(graph), part * ms_of(costs, graph)
    kept = pruner(graph, rates, costs, latency_ms=limit)
    full = costs.total(graph).macs
    others = [pruner(graph, rates, costs, macs=round(full * k / 40), tolerance=1.0) for k in range(20, 41)]
    best = max(ms for other in others if (ms := ms_of(costs, other)) <= limit)
    assert 0.93 * best <= ms_of(costs, kept) <= limit


@PRUNERS
def test_a_network_that_is_fast_enough_stays_whole(pruner):
    costs = clocked(by_parts)
    graph = costs.space.graph
    assert pruner(graph, importance(graph), costs, latency_ms=by_parts(costs, graph)) == graph


@PRUNERS
def test_no_network_is_fast_enough(pruner):
    costs = clocked(by_parts)
    graph = costs.space.graph
    with refused(GraphError, "0.05 ms", "onnxruntime", "MACs"):
        pruner(graph, importance(graph), costs, latency_ms=0.05, runtime="onnxruntime")


def test_networks_of_several_latencies_are_nested():
    costs = clocked(by_parts)
    graph = costs.space.graph
    full, rates = by_parts(costs, graph), importance(graph)
    large = budget(graph, rates, costs, latency_ms=0.8 * full)
    small = budget(graph, rates, costs, latency_ms=0.6 * full, via=[0.8 * full])
    assert {*small.edges} < {*large.edges}
    with refused(RecipeError, "via"):
        budget(graph, rates, costs, latency_ms=0.8 * full, via=[0.6 * full])


@PRUNERS
def test_a_latency_is_a_budget_of_its_own(pruner):
    costs = clocked(by_parts)
    graph = costs.space.graph
    with refused(RecipeError, "latency_ms"):
        pruner(graph, importance(graph), costs, latency_ms=1.0, macs=10**6)
    with refused(RunError):
        pruner(graph, importance(graph), replace(costs, clock=None), latency_ms=1.0)


def test_a_space_is_timed_once_per_network_and_draws_no_random_numbers():
    import torch

    space = supernet()
    clock = space_clock(space, 5, 32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = clock(space.graph, "torch")
    assert torch.equal(before, torch.get_rng_state())
    assert first is clock(space.graph, "torch")
    assert first.latency_ms > 0
    assert first.latency_runtime == "torch"
    assert first.latency_batch == 1
