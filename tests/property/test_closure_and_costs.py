"""Closure over random graphs against plain path search; costs along a falling threshold."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import fixed_net, importance, supernet

from nasface.arch import Architecture
from nasface.cost import Costs, count_space
from nasface.errors import GraphError
from nasface.graph import Edge, Graph, Node
from nasface.prune import above

SPACES = {"hrsupernet": supernet, "hrnet": fixed_net}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any directed acyclic graph of up to eight nodes, not closed in general."""
    count = draw(st.integers(2, 8))
    names = [f"n{i}" for i in draw(st.permutations(range(count)))]
    pairs = [(names[i], names[j]) for j in range(count) for i in range(j)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14))
    ends = st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=3)
    fixed = draw(st.lists(st.sampled_from(edges), unique=True)) if edges else []
    nodes = tuple(Node(name, 4, 4) for name in names)
    return Graph(nodes, tuple(edges), tuple(draw(ends)), tuple(draw(ends)), frozenset(fixed))


@st.composite
def choices(draw: st.DrawFn) -> tuple[Graph, set[Edge], set[Edge]]:
    """A graph, some of its edges, and some of these."""
    graph = draw(graphs())
    some = {edge for edge in graph.edges if draw(st.booleans())}
    fewer = {edge for edge in sorted(some) if draw(st.booleans())}
    return graph, some, fewer


def on_a_path(graph: Graph, edges: set[Edge]) -> set[Edge]:
    """Edges of any path from an input to an output, by walking every path."""
    found: set[Edge] = set()

    def walk(path: tuple[str, ...]) -> None:
        if path[-1] in graph.outputs:
            found.update(pairwise(path))
        for src, dst in edges:
            if src == path[-1]:
                walk((*path, dst))

    for name in graph.inputs:
        walk((name,))
    return found


@given(choices())
def test_closure(choice):
    graph, some, fewer = choice
    closed = graph.closure(some)
    assert closed == on_a_path(graph, some)
    assert closed <= some
    assert graph.closure(closed) == closed
    assert graph.closure(fewer) <= closed


@given(choices())
def test_keep(choice):
    graph, some, _ = choice
    reached = bool(graph.closure(some)) or bool({*graph.inputs} & {*graph.outputs})
    try:
        kept = graph.keep(some)
    except GraphError:
        assert not reached
        return
    assert reached
    assert set(kept.edges) == graph.closure(some)
    assert {node.id for node in kept.nodes} >= {end for edge in kept.edges for end in edge}
    assert set(kept.outputs) <= set(graph.outputs)
    assert kept.fixed == graph.fixed & set(kept.edges)
    assert kept.keep(kept.edges) == kept == graph.keep(kept.edges)
    # every node that is left has a way in and a way out
    for node in kept.nodes:
        assert node.id in kept.inputs or kept.parents[node.id]
        assert node.id in kept.outputs or any(src == node.id for src, _ in kept.edges)


@given(choices())
def test_an_architecture_file_restores_the_graph(choice):
    graph, some, _ = choice
    try:
        kept = graph.keep(some)
    except GraphError:
        return
    arch = Architecture("toy", {}, 5, 64, graph.digest, kept.edges)
    assert Architecture.from_json(arch.to_json()).subgraph(graph) == kept


@cache
def costs_of(name: str) -> Costs:
    return count_space(SPACES[name](), 5, 32)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(5))
def test_costs_fall_as_the_threshold_rises(name, seed):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph, seed)
    last, last_edges = costs.total(graph), set(graph.edges)
    steps = 0
    for limit in np.linspace(0, 1, 21):
        try:
            kept = above(graph, values, float(limit))
        except GraphError:
            break
        cost = costs.total(kept)
        assert set(kept.edges) <= last_edges
        assert cost.macs <= last.macs
        assert cost.params <= last.params
        assert costs.prunable(kept).macs <= costs.prunable(graph).macs
        last, last_edges, steps = cost, set(kept.edges), steps + 1
    assert steps > 2
    assert last.macs < costs.total(graph).macs
