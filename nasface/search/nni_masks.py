"""NNI's random search and evolution as independent baselines: they choose the edges, as masks over the graph.

Only what works of NNI 3.0 is used: its strategies, run one trial after the other in this process.
`docs/how-to/nni.md` says what is left out, and why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Interval

from nasface.bounds import Share, Size, Some
from nasface.context import Context
from nasface.errors import GraphError, RecipeError, RunError, described
from nasface.graph import Edge, Graph
from nasface.net import GraphNet, key
from nasface.step import Phase

log = logging.getLogger(__name__)

Fits = Callable[[Graph], bool]
"""Returns whether a sub-graph is within the budget."""


@dataclass(frozen=True)
class Trial:
    """A mask as NNI reports it.

    Attributes:
        mask: the prunable edges that it keeps; closure may remove some of them.
        error: held-out error of the sub-network, as NNI reports it; infinite if it exceeds the budget.
    """

    mask: frozenset[Edge]
    error: float


@dataclass(frozen=True)
class NniRandom:
    """Trains the supernet, then chooses the best of many random sub-networks, drawn by NNI (`nasface[nni]`).

    Attributes:
        trials: number of different masks that are judged by the held-out error of the inherited weights.
        share: largest share of the prunable MACs that a sub-network may have.
        macs: largest number of MACs of the whole sub-network; replaces `share`.
        seed: seed of the strategy; None takes the recipe's.
    """

    trials: Some = 100
    share: Share = 0.5
    macs: Size | None = None
    seed: Annotated[int, Interval(ge=0, lt=2**32)] | None = None

    def __post_init__(self) -> None:
        import_nni()  # it would be a pity to find out after the training

    def search(self, net: GraphNet, context: Context) -> Graph:
        """Train the weights of the supernet, let NNI propose masks, and return the sub-graph of the best one.

        Raises:
            RunError: if NNI returns fewer trials than asked for.
            GraphError: if no trial is within the budget.
        """
        seed = torch.initial_seed() % 2**32 if self.seed is None else self.seed
        weights = tuple(parameter for name, parameter in net.named_parameters() if name != "alpha")
        context.fit([Phase("weights", weights, context.optimizer, context.step)])
        budget, measure = self._budget(net.graph, context)
        trials = propose(
            net.graph,
            context.evaluate,
            lambda kept: measure(kept) <= budget,
            # about as dense as a large budget allows, but never so dense that all masks are the same
            density=min(max(0.5, budget / measure(net.graph)), 0.95),
            trials=self.trials,
            strategy=lambda nni: self._strategy(nni, seed),
        )
        best = min(trials, key=lambda trial: trial.error)
        if best.error == math.inf:
            raise GraphError(
                f"none of the {self.trials} masks gives a network of at most {budget:,.0f} MACs, even after dropping "
                f"edges until the next one would disconnect it; raise search.options."
                f"{'share' if self.macs is None else 'macs'}"
            )
        log.info("best of %d masks: held-out NME %.2f %%", len(trials), 100 * best.error)
        return net.graph.keep_prunable(best.mask)

    def _budget(self, graph: Graph, context: Context) -> tuple[float, Callable[[Graph], float]]:
        """Return the largest allowed number of MACs, and the function that counts them."""
        if self.macs is not None:
            return self.macs, lambda kept: context.costs.total(kept).macs
        return self.share * context.costs.prunable(graph).macs, lambda kept: context.costs.prunable(kept).macs

    def _strategy(self, nni: SimpleNamespace, seed: int) -> Any:
        return nni.Random(seed=seed)


@dataclass(frozen=True)
class NniEvolution(NniRandom):
    """Trains the supernet, then evolves sub-networks by NNI's regularized evolution (`nasface[nni]`).

    The oldest network of the population makes room for a mutation of the best of a few that are drawn from it.

    Attributes:
        population: number of networks in the population; the first ones are random.
        tournament: number of networks drawn, of which the best one is mutated.
        mutation: probability with which the choice for an edge is drawn again.
    """

    population: Some = 25
    tournament: Some = 8
    mutation: Share = 0.05

    def __post_init__(self) -> None:
        if not self.tournament <= self.population < self.trials:
            raise RecipeError(
                f"options of searcher 'nni-evolution': tournament {self.tournament}, population {self.population} and "
                f"trials {self.trials} must rise in this order, and trials above population, or nothing evolves"
            )
        super().__post_init__()

    def _strategy(self, nni: SimpleNamespace, seed: int) -> Any:
        return nni.RegularizedEvolution(
            population_size=self.population, sample_size=self.tournament, mutation_prob=self.mutation, seed=seed
        )


def propose(
    graph: Graph,
    evaluate: Callable[[Graph], float],
    fits: Fits,
    *,
    density: float,
    trials: int,
    strategy: Callable[[SimpleNamespace], Any],
) -> list[Trial]:
    """Let one of NNI's strategies propose masks, and return them with their errors, in the order of the trials.

    Masks that are disconnected or exceed the budget are repaired before they become a trial, so that a strategy knows
    each mask as it was judged. A mask that cannot be repaired is not evaluated, and its error is infinite.

    Args:
        graph: graph of the supernet.
        evaluate: returns the error of a closed sub-graph.
        fits: returns whether a closed sub-graph is within the budget.
        density: probability with which NNI draws an edge.
        trials: number of masks.
        strategy: builds the strategy from what `import_nni` returns.

    Raises:
        GraphError: if the graph has no prunable edge.
        RunError: if NNI returns fewer trials than asked for.
    """
    if not graph.prunable:
        raise GraphError("the graph has no prunable edge, so there are no masks to choose from; use another space")
    nni = import_nni()
    known: dict[tuple[Edge, ...], float] = {}  # masks that differ in edges without effect are one network

    def judge(mask: frozenset[Edge]) -> float:
        kept = graph.keep_prunable(mask)
        if kept.edges not in known:
            error = evaluate(kept) if fits(kept) else math.inf
            known[kept.edges] = math.inf if math.isnan(error) else error
        return known[kept.edges]

    engine = nni.SequentialExecutionEngine(max_model_count=trials)
    with _quiet():
        strategy(nni)(_masks(nni, graph, density, lambda mask: repair(graph, mask, fits), judge), engine)
    edges = {key(*edge): edge for edge in graph.prunable}
    done = [
        Trial(_kept(model.sample, edges), -model.metric)
        for model in engine.list_models(nni.ModelStatus.Trained)
        if model.metric is not None
    ]
    if len(done) < trials:
        raise RunError(
            f"NNI has returned {len(done)} trials instead of {trials}, since it gives up when it finds no new mask "
            f"for the {len(graph.prunable)} edges; lower search.options.trials"
        )
    return done


def repair(graph: Graph, mask: frozenset[Edge], fits: Fits) -> frozenset[Edge]:
    """Return a mask that gives a connected sub-graph within the budget, as similar to `mask` as is simple.

    A disconnected mask gets the path that lacks the fewest edges. Then edges are dropped at random, but never one
    without which the network would be disconnected. The same mask is always repaired in the same way. If the budget
    cannot be met in this way, the mask that is returned exceeds it.

    Args:
        graph: graph of the supernet.
        mask: the prunable edges to keep.
        fits: returns whether a closed sub-graph is within the budget.
    """
    try:
        kept = graph.keep_prunable(mask)
    except GraphError:
        mask |= _shortest_path(graph, mask) - graph.fixed
        kept = graph.keep_prunable(mask)
    random = np.random.default_rng([int(edge in mask) for edge in graph.prunable])
    for number in random.permutation(len(graph.prunable)):
        if fits(kept):
            break
        edge = graph.prunable[number]
        if edge in kept.edges:
            try:
                kept = graph.keep_prunable(mask - {edge})
            except GraphError:
                continue
            mask -= {edge}
    return mask


def _shortest_path(graph: Graph, mask: frozenset[Edge]) -> frozenset[Edge]:
    """Return the path from an input to an output with the fewest edges outside `mask`; graph order breaks ties."""
    there = mask | graph.fixed
    best: dict[str, tuple[int, frozenset[Edge]]] = {name: (0, frozenset()) for name in graph.inputs}
    for node in graph.nodes:  # in topological order
        for parent in graph.parents[node.id]:
            if parent in best:
                edge, (lacking, path) = (parent, node.id), best[parent]
                lacking += edge not in there
                if node.id not in best or lacking < best[node.id][0]:
                    best[node.id] = lacking, path | {edge}
    return min((best[name] for name in graph.outputs if name in best), key=lambda found: found[0])[1]


def import_nni() -> SimpleNamespace:
    """Return the parts of NNI that are used.

    Raises:
        RunError: if NNI is not installed, or does not work with the other packages that are.
    """
    try:
        import nni

        framework = nni.get_default_framework()
        nni.set_default_framework("none")  # otherwise nni.nas imports pytorch_lightning
        try:
            from nni.mutable import Categorical, MutableDict
            from nni.nas.execution import SequentialExecutionEngine
            from nni.nas.space import ExecutableModelSpace, ModelStatus
            from nni.nas.strategy import Random, RegularizedEvolution
        finally:
            nni.set_default_framework(framework)  # it belongs to the process
    except ImportError as err:
        raise RunError(
            f"NNI cannot be imported ({described(err)}); run pip install 'nasface[nni]', in an environment of its own "
            "if its old pins clash with other packages"
        ) from err
    return SimpleNamespace(
        Categorical=Categorical,
        MutableDict=MutableDict,
        SequentialExecutionEngine=SequentialExecutionEngine,
        ExecutableModelSpace=ExecutableModelSpace,
        ModelStatus=ModelStatus,
        Random=Random,
        RegularizedEvolution=RegularizedEvolution,
        report_final_result=nni.report_final_result,
    )


def _masks(
    nni: SimpleNamespace,
    graph: Graph,
    density: float,
    repaired: Callable[[frozenset[Edge]], frozenset[Edge]],
    judge: Callable[[frozenset[Edge]], float],
) -> Any:
    """Return NNI's view of the graph: a space with one choice between 0 and 1 for each prunable edge."""
    edges = {key(*edge): edge for edge in graph.prunable}
    weights = [1 - density, density]
    choices = nni.MutableDict({name: nni.Categorical([0, 1], weights=weights, label=name) for name in edges})

    class Masks(nni.ExecutableModelSpace):  # type: ignore[misc, name-defined]
        """All masks or, once frozen, one of them; the methods are those that NNI calls."""

        sample: dict[str, int] | None = None

        def leaf_mutables(self, is_leaf: Any) -> Any:
            return choices.leaf_mutables(is_leaf)

        def check_contains(self, sample: Mapping[str, int]) -> Any:
            return choices.check_contains(sample)

        def freeze(self, sample: Mapping[str, int]) -> Masks:
            self.validate(sample)
            model = Masks(nni.ModelStatus.Frozen)
            mask = repaired(_kept(sample, edges))
            # a copy, since strategies go on to change the mapping that they pass
            model.sample = {name: int(edge in mask) for name, edge in edges.items()}
            return model

        def execute(self) -> None:
            assert self.sample is not None
            nni.report_final_result(-judge(_kept(self.sample, edges)))  # strategies maximise

    return Masks()


def _kept(sample: Mapping[str, int], edges: Mapping[str, Edge]) -> frozenset[Edge]:
    """Return the edges that a sample of NNI keeps."""
    return frozenset(edge for name, edge in edges.items() if sample[name])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNI from printing every mask to standard output while the block runs; errors are raised anyway."""
    logger = logging.getLogger("nni")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
