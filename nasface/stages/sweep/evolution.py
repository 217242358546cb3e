"""Evolution around the networks of a sweep: NSGA-II over their edges, by held-out NME before fine-tuning against MACs.

A second study in the sweep's file holds the population: every measured network as a trial with one binary variable per
edge, and every network that was bred from them. The bred ones are networks of the sweep like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.model.source import read_arch
from nasface.scores import Score, SweepRow
from nasface.stages.sweep.book import Study
from nasface.stages.sweep.candidates import EVOLUTION, Candidate

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

_POPULATION = 20  # at most; with fewer networks, all of them
_FLIPS = 2  # edges that a mutation draws again, on average; half of these draws change nothing
_ATTEMPTS = 50  # at breeding a network that the sweep does not have


@dataclass(frozen=True)
class Evolution:
    """What breeds networks.

    Attributes:
        book: the sweep's networks.
        graph: of the supernet.
        importance: of its edges; the most important ones are added to a network that would be disconnected.
        score: the NME that is minimised, besides the MACs.
    """

    book: Study
    graph: Graph
    importance: Mapping[Edge, float]
    score: Score

    def next(self, number: int) -> Candidate | None:
        """Breed the next network; None if the sweep has bred so many, or if it finds no new one."""
        import optuna

        with self.book.lock():
            networks = self.book.networks()
            measured = {name: values for name, row in networks.items() if (values := self._values(row)) is not None}
            study = optuna.create_study(
                storage=self.book.storage,
                study_name=self.book.inner(EVOLUTION),
                directions=["minimize", "minimize"],
                load_if_exists=True,
            )
            size = min(_POPULATION, len(measured))
            if size < 2:
                log.warning("evolution needs at least two networks that are measured; ask the sweep for more")
                return None
            seed = self.book.seed + len(study.get_trials(deepcopy=False))
            rate = min(1.0, _FLIPS / len(self.graph.prunable))
            study.sampler = optuna.samplers.NSGAIISampler(population_size=size, mutation_prob=rate, seed=seed)
            if (interrupted := self._settle(study, networks, measured)) is not None:
                return interrupted
            self._add_parents(study, measured)
            if sum("bred" in trial.user_attrs for trial in study.get_trials(deepcopy=False)) >= number:
                return None
            return self._breed(study, networks, measured)

    def _values(self, row: SweepRow | None) -> list[float] | None:
        """What is minimised, if it is known."""
        nme = None if row is None else row.nme.get(self.score)
        return None if row is None or nme is None or row.macs is None else [nme, float(row.macs)]

    def _settle(
        self, study: optuna.Study, networks: Mapping[str, object], measured: Mapping[str, list[float]]
    ) -> Candidate | None:
        """Record how bred networks turned out; return one that a killed process has not asked the sweep for."""
        for trial in study.get_trials(deepcopy=False):
            if trial.state.name != "RUNNING":
                continue
            name = trial.user_attrs.get("network")
            if name is None:
                study.tell(trial.number, state=_failed())
            elif name in measured:
                study.tell(trial.number, measured[name])
            elif name not in networks:
                return _candidate(self._network(trial.params))
        return None

    def _add_parents(self, study: optuna.Study, measured: Mapping[str, list[float]]) -> None:
        """Record every network that was not bred as a member of the population."""
        known = {trial.user_attrs.get("network") for trial in study.get_trials(deepcopy=False)}
        for name in measured:
            if name not in known:
                kept = set(read_arch(self.book.run(name).arch).kept)
                genes = {_gene(edge): int(edge in kept) for edge in self.graph.prunable}
                study.enqueue_trial(genes, user_attrs={"network": name})
        while any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False)):
            trial = study.ask()
            self._draw(trial)
            study.tell(trial, measured[trial.user_attrs["network"]])

    def _breed(
        self, study: optuna.Study, networks: Mapping[str, object], measured: Mapping[str, list[float]]
    ) -> Candidate | None:
        for _ in range(_ATTEMPTS):
            trial = study.ask()
            kept = self._network(self._draw(trial))
            candidate = _candidate(kept)
            if candidate.name not in networks and kept != self.graph:
                trial.set_user_attr("bred", True)
                trial.set_user_attr("network", candidate.name)
                return candidate
            if candidate.name in measured:
                study.tell(trial, measured[candidate.name])
            else:
                study.tell(trial, state=_failed())
        log.warning("evolution has found no new network in %d attempts and stops", _ATTEMPTS)
        return None

    def _draw(self, trial: optuna.Trial) -> dict[str, Any]:
        return {_gene(edge): trial.suggest_categorical(_gene(edge), (0, 1)) for edge in self.graph.prunable}

    def _network(self, genes: Mapping[str, Any]) -> Graph:
        """The network of some edges: closed, and with further edges where it would be disconnected."""
        kept = [edge for edge in self.graph.prunable if genes[_gene(edge)]]
        more = iter(sorted(self.graph.prunable, key=lambda edge: -self.importance[edge]))
        while True:
            try:
                return self.graph.keep_prunable(kept)
            except GraphError:
                kept.append(next(more))  # with all edges, it is connected


def _candidate(kept: Graph) -> Candidate:
    return Candidate(EVOLUTION, EVOLUTION, {}, kept)


def _gene(edge: Edge) -> str:
    return " -> ".join(edge)


def _failed() -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState.FAIL
