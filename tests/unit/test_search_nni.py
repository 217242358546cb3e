"""NNI's strategies as searchers. Tests that need NNI skip where it is not installed; `make test-nni` installs it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import pytest
from tiny import changed, diamond, state, supernet

from nasface import plugins
from nasface.arch import Architecture
from nasface.errors import GraphError, RecipeError, RunError
from nasface.graph import Edge, Graph
from nasface.rundir import RunDir
from nasface.search.nni_masks import NniEvolution, NniRandom, Trial, import_nni, propose, repair
from nasface.stages.search.run import search
from nasface.testing import check_searcher, trial
from searchspaces.highres import HighResolutionSpace
from tests.refusal import command_refuses, refused
from tests.searched import MACHINE, caching_in, recipe

needs_nni = pytest.mark.skipif(find_spec("nni") is None, reason="NNI is not installed (make test-nni)")
SEARCHERS = ("nni-random", "nni-evolution")


def small() -> HighResolutionSpace:
    return supernet(width=2, stages=4, resolutions=2, stem_channels=4)


def subsets(edges: tuple[Edge, ...]) -> Iterable[frozenset[Edge]]:
    return (frozenset(some) for n in range(len(edges) + 1) for some in itertools.combinations(edges, n))


class Judge:
    """An evaluator with an error of its own for every sub-graph, which remembers what it has seen."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.seen: dict[tuple[Edge, ...], float] = {}

    def __call__(self, kept: Graph) -> float:
        assert kept == self.graph.keep(kept.edges)
        assert kept.edges not in self.seen, "the same network is evaluated twice"
        wrong = sum((edge in kept.edges) != (number % 3 > 0) for number, edge in enumerate(self.graph.prunable))
        self.seen[kept.edges] = wrong + len(self.seen) / 1000
        return self.seen[kept.edges]


def proposed(name: str, graph: Graph, judge: Any, *, limit: int = 99, seed: int = 3, trials: int = 40) -> list[Trial]:
    def strategy(nni: Any) -> Any:
        if name == "nni-random":
            return nni.Random(seed=seed)
        return nni.RegularizedEvolution(population_size=8, sample_size=4, mutation_prob=0.1, seed=seed)

    return propose(graph, judge, lambda g: len(g.edges) <= limit, density=0.5, trials=trials, strategy=strategy)


@pytest.mark.parametrize("limit", [3, 4, 99])
def test_a_mask_is_repaired_no_more_than_it_needs_and_always_in_the_same_way(limit):
    graph = diamond()
    for mask in subsets(graph.prunable):
        repaired = repair(graph, mask, lambda kept: len(kept.edges) <= limit)
        kept = graph.keep_prunable(repaired)  # connected
        assert len(kept.edges) <= limit
        assert repaired == repair(graph, mask, lambda kept: len(kept.edges) <= limit)
        try:
            before = graph.keep_prunable(mask)
        except GraphError:
            added = repaired - mask
            assert len(added) == min(len(path - mask) for path in paths(graph))
        else:
            assert repaired <= mask
            assert repaired == mask or len(before.edges) > limit


def paths(graph: Graph) -> list[frozenset[Edge]]:
    """The prunable edges of every path from an input to an output."""
    found = []
    for edges in subsets(graph.edges):
        kept = graph.closure(edges)
        if kept and all(not graph.closure(kept - {edge}) for edge in kept):
            found.append(frozenset(kept) - graph.fixed)
    return found


def test_a_mask_that_cannot_be_repaired_exceeds_the_budget_and_stays_connected():
    graph = diamond()
    for mask in subsets(graph.prunable):
        kept = graph.keep_prunable(repair(graph, mask, lambda kept: False))
        assert frozenset(kept.prunable) in paths(graph)  # no edge can be spared


@pytest.mark.parametrize("name", SEARCHERS)
def test_without_nni_the_searcher_is_not_built(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nni", None)
    with refused(RunError, "pip install 'nasface[nni]'"):
        plugins.searcher(name)
    sentence = command_refuses("search", "--recipe", "demo", "--searcher", name, "--out", tmp_path / "run")
    assert "pip install 'nasface[nni]'" in sentence
    assert not (tmp_path / "run").exists()


def test_options_with_which_nothing_would_evolve_are_refused():
    for options in ({"trials": 25}, {"population": 5, "tournament": 6}):
        with refused(RecipeError, *options.values()):
            plugins.searcher("nni-evolution", options)
    with refused(RecipeError, "macs", 0):
        plugins.searcher("nni-random", {"macs": 0})


@pytest.mark.slow
def test_nni_is_imported_only_by_a_searcher():
    code = (
        "import sys; from click.testing import CliRunner; from nasface.cli import main; from nasface import plugins;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "plugins.check_options('searchers', 'nni-random', {}); sys.exit('nni' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_nni
@pytest.mark.parametrize("limit", [4, 99])
@pytest.mark.parametrize("name", SEARCHERS)
def test_every_reported_mask_is_the_one_that_was_judged(name, limit):
    graph = small().graph
    judge = Judge(graph)
    trials = proposed(name, graph, judge, limit=limit)
    assert len(trials) == 40
    reported = {graph.keep_prunable(each.mask).edges: each.error for each in trials}
    assert reported == judge.seen
    assert all(judge.seen[graph.keep_prunable(each.mask).edges] == each.error for each in trials)
    assert max(map(len, reported)) <= limit


@needs_nni
@pytest.mark.parametrize("name", SEARCHERS)
def test_the_seed_decides(name):
    graph = small().graph
    first, again, other = (proposed(name, graph, Judge(graph), seed=seed) for seed in (3, 3, 4))
    assert first == again != other


@needs_nni
def test_evolution_maximises_what_the_evaluator_minimises():
    graph = supernet().graph
    best = {
        name: [min(each.error for each in proposed(name, graph, Judge(graph), seed=s, trials=100)) for s in range(3)]
        for name in SEARCHERS
    }
    assert max(best["nni-evolution"]) < min(best["nni-random"])


@needs_nni
@pytest.mark.parametrize("name", SEARCHERS)
def test_too_few_trials_are_an_error(name):
    graph = diamond()  # 6 prunable edges, 64 masks
    with refused(RunError, 65, "trials"):
        proposed(name, graph, lambda kept: float(len(kept.edges)), trials=65)


@needs_nni
def test_an_error_of_the_evaluator_is_passed_on_and_nan_is_the_worst():
    graph = small().graph
    with refused(RunError, "broken"):
        proposed("nni-random", graph, broken)
    trials = proposed("nni-random", graph, lambda kept: float("nan") if len(kept.edges) > 5 else 0.5)
    assert {each.error for each in trials} == {0.5, float("inf")}


def broken(kept: Graph) -> float:
    raise RunError("the evaluator is broken")


@needs_nni
def test_a_space_without_prunable_edges_is_refused():
    graph = diamond()
    with refused(GraphError, "prunable"):
        proposed("nni-random", Graph(graph.nodes, graph.edges, ("a",), ("d",), frozenset(graph.edges)), broken)


@needs_nni
@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_the_framework_of_the_process_is_restored(framework, monkeypatch):
    import nni

    before = nni.get_default_framework()
    try:
        nni.set_default_framework(framework)
        import_nni()
        assert nni.get_default_framework() == framework
        monkeypatch.setitem(sys.modules, "nni.nas.strategy", None)
        with refused(RunError, "nni.nas.strategy"):
            import_nni()
        assert nni.get_default_framework() == framework
    finally:
        nni.set_default_framework(before)


@needs_nni
def test_nni_prints_nothing_and_its_logger_is_left_alone(capfd):
    import logging

    import_nni()
    level = logging.getLogger("nni").level
    proposed("nni-evolution", small().graph, Judge(small().graph))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("nni").level == level


@needs_nni
@pytest.mark.parametrize("name", SEARCHERS)
def test_weights_are_trained_and_the_best_sub_network_is_returned(name):
    searcher = NniRandom(trials=4) if name == "nni-random" else NniEvolution(trials=6, population=3, tournament=2)
    net, context = trial(small(), input_size=32, epochs=1)
    before = state(net)
    found = searcher.search(net, context)
    names = changed(before, net)
    assert "stem.0.weight" in names
    assert "alpha" not in names
    assert found == net.graph.keep(found.edges)
    assert context.costs.prunable(found).macs <= 0.5 * context.costs.prunable(net.graph).macs
    check_searcher(searcher, small(), input_size=32)


@needs_nni
def test_a_run_whose_sub_network_nni_has_chosen(tmp_path):
    run = RunDir(tmp_path / "run")
    options = (
        "search.name=nni-random",
        "search.options={trials: 3, share: 0.4}",
        "search.epochs=1",
        "finetune.epochs=0",
    )
    few = ("data.options.train=16", "data.options.test=6", "training.batch=8")
    with caching_in(tmp_path):
        search(recipe(*options, *few), run, MACHINE)
    arch = Architecture.from_json(run.arch.read_text())
    assert arch.provenance["pruner"] == "nni-random"
    net, context = trial(plugins.space(arch.space, arch.options), input_size=32)
    kept = net.graph.keep(arch.kept)
    assert context.costs.prunable(kept).macs <= 0.4 * context.costs.prunable(net.graph).macs


@needs_nni
def test_the_recipes_seed_is_taken_unless_the_option_is_given(monkeypatch):
    taken: list[int] = []
    monkeypatch.setattr(NniRandom, "_strategy", lambda self, nni, seed: taken.append(seed) or nni.Random(seed=seed))
    for seed, option in ((5, None), (6, None), (6, 2**32 - 1)):
        net, context = trial(small(), input_size=32, epochs=1, seed=seed)
        NniRandom(trials=2, seed=option).search(net, context)
    assert taken == [5, 6, 2**32 - 1]


@needs_nni
def test_a_budget_of_the_whole_network_is_met_or_refused():
    net, context = trial(small(), input_size=32, epochs=1)
    whole = context.costs.total(net.graph).macs
    found = NniRandom(trials=4, macs=int(0.8 * whole)).search(net, context)
    assert context.costs.total(found).macs <= 0.8 * whole
    for options, option in (({"macs": 10}, "options.macs"), ({"share": 1e-6}, "options.share")):
        net, context = trial(small(), input_size=32, epochs=1)
        with refused(GraphError, option, 4):
            NniRandom(trials=4, **options).search(net, context)
