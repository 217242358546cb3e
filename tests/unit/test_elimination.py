"""The criterion `elimination`, against taking every step by brute force with a made-up error."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny import changed, diamond, importance, space_of, state, supernet

from nasface.context import Context
from nasface.criteria.elimination import elimination
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.net import GraphNet
from nasface.prune import budget, largest, networks, share
from nasface.testing import trial
from searchspaces.highres import HighResolutionSpace
from tests.refusal import refused

pytestmark = pytest.mark.slow

PLAIN = {"share_per_round": 0.0, "measured": 1.0}
"""One edge per round, and every edge measured in every round."""


def tried(space: HighResolutionSpace | None = None, seed: int = 0) -> tuple[GraphNet, Context, list[Graph]]:
    """A network whose error grows with what is lost, each edge by its own amount and pairs of edges by more."""
    net, context = trial(space or supernet(stages=3, resolutions=2), input_size=32)
    values = importance(net.graph, seed)
    asked: list[Graph] = []

    def evaluate(graph: Graph) -> float:
        asked.append(graph)
        gone = [edge for edge in net.graph.prunable if edge not in graph.edges]
        return 0.05 + 0.01 * sum(values[edge] - 0.1 for edge in gone) ** 2 + 0.001 * sum(values[e] for e in gone)

    return net, replace(context, evaluate=evaluate), asked


def by_brute_force(net: GraphNet, context: Context, least: float = 0.0) -> list[Graph]:
    """The networks after each step, if one edge goes at a time."""
    family = [net.graph]
    while True:
        kept, choices = family[-1], []
        for edge in kept.prunable:
            try:
                rest = kept.keep_prunable(set(kept.prunable) - {edge})
            except GraphError:
                continue
            if context.costs.prunable(rest).macs < least:
                continue
            rise = context.evaluate(rest) - context.evaluate(kept)
            saved = 1 + context.costs.total(kept).macs - context.costs.total(rest).macs
            choices.append((rise / saved if rise > 0 else rise * saved, len(choices), rest))
        if not choices:
            return family
        family.append(min(choices)[2])


def steps(graph: Graph, found: dict[Edge, float]) -> list[Graph]:
    return [kept for _, kept in networks(graph, found)]


@pytest.mark.parametrize("space", [supernet(stages=3, resolutions=2), space_of(diamond())], ids=["supernet", "diamond"])
@pytest.mark.parametrize("seed", range(3))
def test_thresholds_give_the_networks_of_every_step(space, seed):
    net, context, _ = tried(space, seed)
    found = elimination(net, context, **PLAIN)
    assert list(found) == list(net.graph.prunable)
    family = by_brute_force(net, context)
    assert len(family) > 2
    assert steps(net.graph, found) == family
    last = family[-1]
    assert min(found[edge] for edge in last.prunable) > max(found[e] for e in net.graph.prunable if e not in last.edges)
    assert min(found.values()) == 1
    levels = sorted(set(found.values()))
    assert all(later - earlier == 1 for earlier, later in pairwise(levels))


def test_the_networks_of_a_family_are_met_by_pruners():
    net, context, _ = tried()
    found = elimination(net, context, **PLAIN)
    full = context.costs.prunable(net.graph).macs
    for kept in by_brute_force(net, context)[1:]:
        assert share(net.graph, found, context.costs, share=context.costs.prunable(kept).macs / full).edges
        macs = context.costs.total(kept).macs
        assert context.costs.total(budget(net.graph, found, context.costs, macs=macs, per_cost=False)).macs <= macs


@pytest.mark.parametrize("down_to", [0.8, 0.5, 0.3])
def test_it_stops_above_the_share_that_is_asked_for(down_to):
    net, context, _ = tried(supernet())
    found = elimination(net, context, **PLAIN, down_to=down_to)
    least = down_to * context.costs.prunable(net.graph).macs
    family = by_brute_force(net, context, least)
    assert steps(net.graph, found)[: len(family)] == family
    assert context.costs.prunable(family[-1]).macs >= least
    whole = elimination(net, context, **PLAIN)
    assert len(set(found.values())) > len(family)  # what was never dropped is ranked too
    assert found != whole


def test_fewer_measurements_find_a_family_nearly_as_good():
    net, context, asked = tried(supernet())
    elimination(net, context, **PLAIN)
    thorough = len(asked)
    asked.clear()
    cheap = elimination(net, context, share_per_round=0.2, measured=0.3)
    assert len(asked) < thorough / 3
    limit = 0.7 * context.costs.prunable(net.graph).macs
    kept = largest(net.graph, cheap, lambda graph: context.costs.prunable(graph).macs, limit)[1]
    best = next(graph for graph in by_brute_force(net, context) if context.costs.prunable(graph).macs <= limit)
    assert context.evaluate(kept) < 1.2 * context.evaluate(best)


def test_edges_that_may_stand_in_for_each_other_do_not_go_in_one_round():
    net, context, asked = tried(supernet(stages=2, resolutions=2), seed=1)
    elimination(net, context, share_per_round=1.0)
    sizes = [len(graph.edges) for graph in asked]
    assert len(net.graph.edges) == 2
    assert sizes == [2, 1, 1]  # both edges have the same source


def test_it_leaves_the_network_as_it_is():
    net, context = trial(supernet(stages=3, resolutions=2), input_size=32)
    with torch.no_grad():
        net.alpha.uniform_(0.2, 1)
    before = state(net)
    elimination(net, context, down_to=0.6)
    assert not changed(before, net)


def test_an_error_that_is_no_number_is_refused():
    net, context, _ = tried()
    with refused(GraphError, "nan", "held-out"):
        elimination(net, replace(context, evaluate=lambda graph: math.nan))


def test_an_edge_without_which_the_error_is_no_number_goes_last():
    net, context, _ = tried()
    bad = net.graph.prunable[0]
    plain = context.evaluate
    broken = replace(context, evaluate=lambda graph: plain(graph) if bad in graph.edges else math.nan)
    for before, after in pairwise(steps(net.graph, elimination(net, broken, **PLAIN))):
        if {bad} & set(before.edges) - set(after.edges):
            assert not any(bad in rest.edges for rest in without_one(before))


def without_one(graph: Graph) -> list[Graph]:
    """The connected networks with an edge less."""
    found = []
    for edge in graph.prunable:
        with suppress(GraphError):
            found.append(graph.keep_prunable(set(graph.prunable) - {edge}))
    return found
