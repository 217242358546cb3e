"""Graphs: what is refused, what closure keeps, and what names a graph."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny import diamond

from nasface.errors import GraphError
from nasface.graph import Graph, Node, parse_edges
from tests.refusal import refused

A, B, C = (Node(name, 4, 4) for name in "abc")


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"nodes": (A, B, replace(A, channels=8), C)}, ["two nodes", "id"]),
        ({"edges": (("a", "b"), ("b", "c"), ("a", "b"))}, ["edge", "twice"]),
        ({"edges": (("a", "bb"),)}, ["'bb'", "'b'"]),
        ({"edges": (("q", "b"),)}, ["'q'"]),
        ({"inputs": ("z",)}, ["'z'", "a, b, c"]),
        ({"outputs": ("c", "z")}, ["'z'"]),
        ({"edges": (("b", "a"),)}, ["b -> a", "order", "'b' before 'a'"]),
        ({"edges": (("a", "a"),)}, ["a -> a", "order"]),
        ({"edges": (("a", "b"), ("b", "c"), ("c", "a"))}, ["c -> a", "order"]),
        ({"fixed": frozenset({("a", "c")})}, ["1", "fixed", "a -> c"]),
        ({"inputs": ()}, ["at least one", "input"]),
        ({"outputs": ()}, ["at least one", "output"]),
    ],
)
def test_a_malformed_graph_is_refused(changes, facts):
    sound = {"nodes": (A, B, C), "edges": (("a", "b"), ("b", "c")), "inputs": ("a",), "outputs": ("c",)}
    Graph(**sound)
    with refused(GraphError, *facts):
        Graph(**(sound | changes))


def test_what_is_derived():
    graph = diamond()
    assert ("b", "e") not in graph.prunable
    assert graph.prunable == tuple(e for e in graph.edges if e != ("b", "e"))
    assert graph.parents["e"] == ("b", "x")
    assert graph.parents["a"] == ()
    assert graph.blocks == ("b", "c", "x")  # neither the input nor the nodes that only fuse
    assert graph.max_stride == 8
    assert graph.node["c"].channels == 8


def test_closure_drops_dead_ends_and_what_no_input_reaches():
    graph = diamond()
    assert graph.closure(graph.edges) == set(graph.edges)
    # a -> c ends nowhere, x -> e starts nowhere
    assert graph.closure([("a", "b"), ("b", "d"), ("a", "c"), ("x", "e")]) == {("a", "b"), ("b", "d")}
    assert graph.closure([("b", "d"), ("c", "d")]) == set()
    assert graph.closure([]) == set()


def test_closure_refuses_unknown_edges():
    with refused(GraphError, "a -> d", "search space", 1):
        diamond().closure([("a", "b"), ("a", "d")])


def test_keep_drops_nodes_outputs_and_fixed_edges_off_the_paths():
    graph = diamond()
    kept = graph.keep([("x", "e"), ("a", "c"), ("c", "x"), ("b", "e")])
    assert [n.id for n in kept.nodes] == ["a", "c", "x", "e"]
    assert kept.edges == (("a", "c"), ("c", "x"), ("x", "e"))  # in the order of the graph
    assert kept.outputs == ("e",)
    assert kept.inputs == ("a",)
    assert kept.fixed == frozenset()
    assert graph.keep(graph.edges) == graph


def test_keep_refuses_to_disconnect():
    with refused(GraphError, "disconnected"):
        diamond().keep([("a", "b"), ("c", "d")])


def test_an_input_that_is_an_output_needs_no_edge():
    graph = Graph((A, B, C), (("a", "b"), ("b", "c")), inputs=("a", "b"), outputs=("b", "c"))
    kept = graph.keep([])
    assert kept.nodes == (B,)
    assert (kept.inputs, kept.outputs, kept.edges) == (("b",), ("b",), ())


def test_keep_prunable_leaves_the_fixed_edges_to_closure():
    graph = diamond()
    with_fixed = graph.keep_prunable([("a", "b"), ("b", "d")])
    assert ("b", "e") in with_fixed.edges
    assert with_fixed.fixed == {("b", "e")}
    assert with_fixed.prunable == (("a", "b"), ("b", "d"))
    without = graph.keep_prunable([("a", "c"), ("c", "d")])
    assert without.edges == (("a", "c"), ("c", "d"))
    assert without.fixed == frozenset()


@pytest.mark.slow
def test_the_digest_is_the_same_in_every_process_and_needs_no_torch():
    graph = replace(diamond(), fixed=frozenset({("b", "e"), ("a", "b"), ("c", "x"), ("x", "e")}))
    code = (
        "import sys; from nasface.graph import Graph, Node; import nasface.arch; "
        f"print({graph!r}.digest, 'torch' in sys.modules)"
    )
    for seed in ("1", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [graph.digest, "False"]


def test_the_digest_changes_with_any_content():
    graph = diamond()
    first, *others = graph.nodes
    variants = [
        *(
            replace(graph, nodes=(replace(first, **change), *others))
            for change in ({"channels": 5}, {"stride": 8}, {"stage": 9}, {"block": False})
        ),
        replace(graph, nodes=(*graph.nodes, Node("y", 4, 4))),
        replace(graph, edges=(*graph.edges, ("x", "d"))),
        replace(graph, edges=graph.edges[::-1]),  # the order in which factors are stored
        replace(graph, fixed=frozenset()),
        replace(graph, fixed=frozenset({("a", "b")})),
        replace(graph, inputs=("a", "b")),
        replace(graph, outputs=("e", "d")),
        graph.keep(graph.edges[:3]),
    ]
    digests = {graph.digest, *(variant.digest for variant in variants)}
    assert len(digests) == len(variants) + 1
    assert replace(graph).digest == graph.digest


def test_random_subgraphs_are_closed_reproducible_and_grow_with_the_share():
    graph = diamond()
    draws = [graph.random_subgraph(np.random.default_rng(seed), 0.5) for seed in range(40)]
    assert all(draw == graph.keep(draw.edges) for draw in draws)
    assert draws == [graph.random_subgraph(np.random.default_rng(seed), 0.5) for seed in range(40)]
    assert len({draw.digest for draw in draws}) > 3
    more = [graph.random_subgraph(np.random.default_rng(seed), 0.9) for seed in range(40)]
    assert sum(len(g.edges) for g in more) > sum(len(g.edges) for g in draws)
    assert graph.random_subgraph(np.random.default_rng(0), 1.0) == graph


def test_no_random_subgraph_at_a_share_of_nothing():
    graph = diamond()
    with refused(GraphError, "5 draws", "share 0"):
        graph.random_subgraph(np.random.default_rng(0), 0, attempts=5)


def test_edges_are_read_in_both_forms():
    items = [["1.0", "2.3"], [[1, 0], [2, 3]], ("a", [4, 1])]
    assert parse_edges(items) == [("1.0", "2.3"), ("1.0", "2.3"), ("a", "4.1")]
    assert parse_edges([]) == []


@pytest.mark.parametrize(
    "item",
    ["1.0->2.0", 7, None, {"a": "b"}, ["1.0"], ["1.0", "2.0", "3.0"], ["1.0", 2], [[1], [2, 0]], [[1.5, 0], "a"]],
)
def test_what_is_no_edge_is_refused(item):
    with refused(GraphError, "expected"):
        parse_edges([["a", "b"], item])
