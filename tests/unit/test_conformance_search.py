"""The checks for authors of searchers, criteria and pruners: the built-ins pass, broken ones are caught."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from tiny import fixed_net, supernet

from nasface.criteria.alpha import alpha
from nasface.criteria.alpha_gain import alpha_gain
from nasface.criteria.leave_one_out import leave_one_out
from nasface.criteria.taylor import taylor
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.prune import greedy, share, threshold, top
from nasface.prune import random as random_pruner
from nasface.search.l1 import L1Searcher
from nasface.step import Phase
from nasface.testing import check_criterion, check_pruner, check_searcher
from searchspaces.highres import HighResolutionSpace
from tests.refusal import refused

pytestmark = pytest.mark.slow


def searched() -> HighResolutionSpace:
    return supernet(width=2, stages=3, resolutions=2, stem_channels=4)


@pytest.mark.parametrize("searcher", [L1Searcher(), L1Searcher(warmup_epochs=1)])
def test_good_searchers_pass(searcher):
    check_searcher(searcher, searched(), input_size=32)
    check_searcher(searcher, fixed_net(modules=(1,)), input_size=32)


@dataclass
class Broken:
    """A searcher that does something a searcher must not do."""

    how: str

    def search(self, net: Any, context: Any) -> None:
        weights = tuple(net.parameters())
        match self.how:
            case "lazy":
                return
            case "rebuilt":
                net.alpha.data[0] = 2.0
                net.graph = net.graph.keep_prunable(net.graph.prunable[1:])
                return
            case "infinite":
                net.alpha.data[0] = float("inf")
                return
            case "random":
                net.alpha.data[0] = random.random()
        context.fit([Phase("weights", weights, context.optimizer, context.step)])


@pytest.mark.parametrize(
    ("how", "fact"),
    [
        ("lazy", "parameter"),
        ("rebuilt", "graph"),
        ("infinite", "finite"),
        ("random", "same search"),
    ],
)
def test_broken_searchers_fail(how, fact):
    with refused(AssertionError, fact):
        check_searcher(Broken(how), searched(), input_size=32)


@pytest.mark.parametrize("criterion", [alpha, alpha_gain, taylor, leave_one_out])
def test_good_criteria_pass(criterion):
    check_criterion(criterion, searched(), input_size=32)


def broken(net: Any, context: Any, *, how: str) -> dict[Any, float]:
    """A criterion that does something a criterion must not do."""
    values = dict.fromkeys(net.graph.prunable, 1.0)
    first = net.graph.prunable[0]
    match how:
        case "lost":
            del values[first]
        case "too many":
            values["9.9", "9.8"] = 1.0
        case "negative":
            values[first] = -1e-9
        case "nan":
            values[first] = float("nan")
        case "infinite":
            values[first] = float("inf")
        case "random":
            values[first] = random.random()
        case "statistics":
            net.train()(next(context.batches()).images_B3HW)
        case "mode":
            net.eval()
    return values


@pytest.mark.parametrize(
    ("how", "fact"),
    [
        ("lost", "prunable edges"),
        ("too many", "prunable edges"),
        ("negative", "finite"),
        ("nan", "finite"),
        ("infinite", "finite"),
        ("random", "same network"),
        ("statistics", "tensor of the network"),
        ("mode", "training mode"),
    ],
)
def test_broken_criteria_fail(how, fact):
    with refused(AssertionError, fact):
        check_criterion(partial(broken, how=how), searched(), input_size=32)


@pytest.mark.parametrize("build", [supernet, fixed_net])
@pytest.mark.parametrize(
    "pruner",
    [
        partial(threshold, threshold=0.5),
        partial(share, share=0.6),
        partial(top, edges=14),
        partial(greedy, share=0.6),
        partial(random_pruner, share=0.6, seed=3),
    ],
    ids=["threshold", "share", "top", "greedy", "random"],
)
def test_good_pruners_pass(pruner, build):
    check_pruner(pruner, build())


def leaves_dead_ends(graph: Graph, importance: Any, costs: Any) -> Graph:
    return Graph(graph.nodes, graph.edges[:-3], graph.inputs, graph.outputs)


def changes_its_mind(graph: Graph, importance: Any, costs: Any) -> Graph:
    return top(graph, importance, costs, edges=random.randrange(12, len(graph.prunable)))


def widens(graph: Graph, importance: Any, costs: Any) -> Graph:
    return replace(graph, nodes=tuple(replace(node, channels=2 * node.channels) for node in graph.nodes))


@pytest.mark.parametrize(
    ("pruner", "fact"),
    [(leaves_dead_ends, "closed"), (changes_its_mind, "same factors"), (widens, "closed")],
)
def test_broken_pruners_fail(pruner, fact):
    with refused(AssertionError, fact):
        check_pruner(pruner, supernet())


def refuses(graph: Graph, importance: Any, costs: Any) -> Graph:
    raise GraphError("never")


def test_a_pruner_that_always_refuses_fails():
    with pytest.raises(AssertionError):
        check_pruner(refuses, supernet())
