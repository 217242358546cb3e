"""Many sub-networks of one supernet, each measured and, if asked for, fine-tuned.

The edges of a network are in networks/NAME/arch.json before anyone works on it. Its figures are recorded by the study
of the folder, from which pareto.csv is written after each network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from nasface import engine, plugins, rundir
from nasface import recipe as recipes
from nasface.arch import Factors, check_digest
from nasface.cost import Costs
from nasface.deploy.runtimes import TORCH, runtimes
from nasface.errors import DivergedError, RecipeError, RunError
from nasface.model.build import build_net, net_costs, net_of
from nasface.model.clock import Clock
from nasface.model.files import save_net
from nasface.model.source import EPOCHS, arch_graph, read_arch
from nasface.net import GraphNet, slim_net
from nasface.places import refuse_link
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, SUPERNET, Score, Stage, SweepRow
from nasface.sections import Prune
from nasface.stages.faces import Faces, check_held_out, load_faces, load_prepared
from nasface.stages.measure import Evaluation, evaluate_net, scores_at, sweep_row
from nasface.stages.prune import write_arch
from nasface.stages.score import score
from nasface.stages.studies.storage import Kept
from nasface.stages.sweep.book import Study
from nasface.stages.sweep.candidates import EVOLUTION, OWN, Candidate, SweepRequest, candidates
from nasface.stages.sweep.choice import best_networks
from nasface.stages.sweep.evolution import Evolution
from nasface.stages.train import finetune, finish
from nasface.stages.training import settings
from nasface.stages.workspace import Machine, Work, working_in
from nasface.step import Batch

log = logging.getLogger(__name__)

_WAIT = 2.0  # seconds between looks at what other processes are doing


@dataclass(frozen=True)
class Measure:
    """What is done with each network of a sweep.

    Attributes:
        inherited: evaluate it with the supernet's weights as they are.
        recalibrated: evaluate it after its BN statistics were recalibrated.
        epochs: of fine-tuning, after which it is evaluated again; 0 for no fine-tuning.
        best: fine-tune only so many networks, see `best_networks`; 0 for all.
        latency_batch: images in each timed forward pass; 0 for no timing.
        latency_repeats: timed passes of the network and of the supernet, of which the fastest counts; more on a busy
            machine.
        latency_runtime: what runs them, see `nasface.deploy.runtimes`; other runtimes than torch run on the CPU.
    """

    inherited: bool = True
    recalibrated: bool = True
    epochs: int = 0
    latency_batch: int = 1
    latency_repeats: int = 10
    latency_runtime: str = TORCH
    best: int = 0

    @property
    def untuned(self) -> Score:
        """The NME by which networks are compared before they are fine-tuned."""
        return HELD_OUT.at(Stage.RECALIBRATED if self.recalibrated else Stage.INHERITED)


def sweep(
    recipe: Recipe,
    source: RunDir,
    out: RunDir,
    request: SweepRequest,
    measure: Measure,
    machine: Machine,
    kept: Kept | None = None,
) -> list[SweepRow]:
    """Measure a family of sub-networks of a searched run.

    Args:
        recipe: of the run, with another criterion if wanted; its section `finetune` says how networks are trained, but
            not for how many epochs.
        source: the searched run.
        out: the folder of the sweep. A sweep that is there already is continued: its networks are not measured again.
        request: which networks.
        measure: what is done with each.
        machine: device and progress.
        kept: where its study is, if machines share it; in a file of its folder by default.

    Returns:
        The rows of pareto.csv: of the supernet, and of every network of the folder.

    Raises:
        RecipeError: when no network is asked for, or the pruner cannot do what is asked.
        RunError: when the folder holds another sweep, or one on other data.
        DataError: when networks are to be compared and there is no held-out face.
    """
    _check(request, measure, recipe, machine)
    if out.path.parent == source.path:  # the default: no one has named this folder
        refuse_link(out.path)
    own = recipe
    recipe = swept(recipe, measure)
    factors, file = score(recipe, source, recipe.criterion, machine)
    costs = net_costs(build_net(recipe, factors.num_landmarks, torch.device("cpu")), recipe)
    check_digest(str(source.factors), factors.graph_digest, costs.space.graph)
    wanted = candidates(request, factors, costs)
    job = _job(source, factors, file, measure) | _data(out, recipe, machine) | _timing(out, measure)
    with (
        working_in(out, recipe, machine, job, shared=True) as work,
        Study.opened(out.path, recipe.seed, job, kept) as study,
    ):
        _check_batch(study, measure)
        for candidate in wanted:
            if candidate.error:
                log.warning("left out: %s", candidate.error)
            study.ask_for(candidate, partial(_write, candidate, factors, own, source), bool(measure.best))
        study.note(request)
        bench = cache(partial(_Bench.load, work, source, costs, measure))
        rows = _work_off(study, bench)
        evolution = Evolution(study, costs.space.graph, factors.importance, measure.untuned)
        while request.refine and (bred := evolution.next(request.refine)) is not None:
            study.ask_for(bred, partial(_write, bred, factors, own, source), bool(measure.best))
            rows = _work_off(study, bench)
        if measure.best:
            rows = _when_all_are_done(study, bench)
            study.tune(best_networks(rows, request, costs, measure.untuned, measure.best))
            rows = _work_off(study, bench)
        if busy := study.busy():
            log.warning("other processes are working on %d networks; pareto.csv grows as they finish", busy)
        return rows


def swept(recipe: Recipe, measure: Measure) -> Recipe:
    """Return the recipe of a sweep over a run with this recipe, which stands in the folder of the sweep."""
    return recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"epochs": measure.epochs})})


def _check(request: SweepRequest, measure: Measure, recipe: Recipe, machine: Machine) -> None:
    """Refuse what contradicts itself or the data, and a runtime that is not there; see `sweep`."""
    runtimes((measure.latency_runtime,))
    if measure.best and not measure.epochs:
        raise RecipeError("only the best networks are to be fine-tuned, but for 0 epochs; give a number of epochs")
    if (measure.best or request.refine) and not (measure.inherited or measure.recalibrated):
        raise RecipeError(
            "networks cannot be compared before they are fine-tuned if they are evaluated neither as inherited nor "
            "after BN recalibration; leave out --no-inherited or --no-recalibrated"
        )
    if measure.best or request.refine:
        check_held_out(recipe, load_prepared(recipe, machine)["train"], "the best of several networks")


def _work_off(study: Study, bench: Callable[[], _Bench]) -> list[SweepRow]:
    """Measure the networks that wait, one after the other, until none is left; return the rows of pareto.csv."""

    def measure(network: str, untuned: bool) -> SweepRow:
        if not study.supernet:
            study.set_supernet(bench().supernet_row())
        at_work = bench().untuned() if untuned else bench()
        return at_work.measure(study.run(network), study.position())

    study.work_off(measure)
    return study.write_table()


def _when_all_are_done(study: Study, bench: Callable[[], _Bench]) -> list[SweepRow]:
    """Wait for the networks that other processes are working on, or take them over from processes that died."""
    while True:
        rows = _work_off(study, bench)
        if not (busy := study.busy()):
            return rows
        log.info("waiting for other processes to measure %d networks", busy)
        time.sleep(_WAIT)


def _job(source: RunDir, factors: Factors, file: Path, measure: Measure) -> dict[str, str]:
    """What identifies a sweep beside its recipe and data."""
    return {
        "job": "sweep",
        "weights": rundir.file_digest(source.supernet),
        "factors": rundir.file_digest(file) if file == source.factors else _made_by(factors),
        "inherited": str(measure.inherited),
        "recalibrated": str(measure.recalibrated),
    }


def _made_by(factors: Factors) -> str:
    """What made factors that can be computed again at any time, so that their file may change."""
    made = [factors.provenance.get(key) for key in ("criterion", "criterion_options", "weights_sha256")]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def _data(out: RunDir, recipe: Recipe, machine: Machine) -> dict[str, str]:
    """The data of a sweep, so that two copies that differ are not mixed; nothing for a sweep that began without.

    Raises:
        RunError: when the sweep in `out` was measured on other data.
    """
    earlier = _earlier(out)
    if earlier and "data" not in earlier:
        return {}  # begun by nasface 0.1.0 or earlier, which did not record it
    key = load_prepared(recipe, machine)["train"].key
    if earlier and earlier["data"] != key:
        raise RunError(
            f"{out.path} was swept on other faces of {recipe.data.name} than those that are there now; restore "
            "them, or give another folder with --out"
        )
    return {"data": key}


def _timing(out: RunDir, measure: Measure) -> dict[str, str]:
    """The runtime of a sweep's latencies, so that those of several runtimes do not mix; nothing for torch.

    Raises:
        RunError: when the sweep in `out` was timed in another runtime.
    """
    earlier = _earlier(out)
    before = str(earlier.get("latency_runtime", TORCH)) if earlier else measure.latency_runtime
    wanted = measure.latency_runtime if measure.latency_batch else before
    if wanted != before:
        raise RunError(
            f"the latencies of {out.path} are those of {before}, which cannot be compared with those of {wanted}; give "
            f"--latency-runtime {before}, --latency-batch 0 to time none, or another folder with --out"
        )
    return {} if wanted == TORCH else {"latency_runtime": wanted}


def _check_batch(study: Study, measure: Measure) -> None:
    """Raise a RunError if networks of the sweep were timed with other batches, since such latencies do not compare."""
    timed = {row.latency_batch for row in study.networks().values() if row is not None and row.latency_batch}
    if measure.latency_batch and timed - {measure.latency_batch}:
        before = " and ".join(map(str, sorted(timed)))
        same = f"the option --latency-batch {before}, or " if len(timed) == 1 else ""
        raise RunError(
            f"the latencies of {study.folder} are those of batches of {before}, which cannot be compared with those of "
            f"batches of {measure.latency_batch}; give {same}--latency-batch 0 to time none, or another folder with "
            "--out"
        )


def _earlier(out: RunDir) -> dict[str, str]:
    """The job of the sweep that the folder holds already; empty if it holds none."""
    earlier = rundir.read_json(out.job, "the job of a run folder") if out.has_results() and out.job.exists() else None
    return earlier if isinstance(earlier, dict) else {}


def _write(candidate: Candidate, factors: Factors, recipe: Recipe, source: RunDir, run: RunDir) -> None:
    """Write arch.json and recipe.yaml of a candidate into a folder that other commands read like any run's."""
    assert candidate.graph is not None
    made: dict[str, Any] = {"pruner": candidate.pruner, "pruner_options": {"asked": candidate.asked}}
    if candidate.pruner not in (OWN, EVOLUTION):
        made["pruner_options"] = dict(candidate.options)
        options = plugins.check_options("pruners", candidate.pruner, candidate.options)  # as every recipe is read back
        recipe = recipe.model_copy(update={"prune": Prune(name=candidate.pruner, options=options)})
    rundir.write_text(run.recipe, recipe.to_yaml())
    arch = write_arch(run, candidate.graph, factors, recipe, source.supernet)
    made[EPOCHS] = recipe.finetune.epochs  # recipe.yaml names the sweep's own once it has fine-tuned the network
    rundir.write_text(run.arch, replace(arch, provenance={**arch.provenance, **made}).to_json())


@dataclass(frozen=True)
class _Bench:
    """What measuring needs and is loaded once: faces, supernet and costs; no clock where latencies are not measured."""

    work: Work
    costs: Costs
    measuring: Measure
    faces: Faces
    supernet: GraphNet
    ready: list[Batch]
    clock: Clock | None

    @classmethod
    def load(cls, work: Work, source: RunDir, costs: Costs, measure: Measure) -> _Bench:
        faces = load_faces(work.recipe, work.device, work.machine)
        supernet, _ = net_of(work.recipe, costs.num_landmarks, work.device, None, source.supernet)
        clock = None
        if batch := measure.latency_batch:
            clock = Clock(supernet, costs.input_size, measure.latency_runtime, batch, measure.latency_repeats)
        ready = engine.measuring_batches(faces.train, settings(work.recipe))
        return cls(work, costs, measure, faces, supernet, ready, clock)

    def supernet_row(self) -> SweepRow:
        """Measure the supernet itself, for comparison."""
        found = self._evaluate(self.supernet)
        nme = scores_at(found, Stage.INHERITED)
        if self.measuring.recalibrated:
            recalibrated = deepcopy(self.supernet)
            engine.recalibrate(recalibrated, self.faces.train, settings(self.work.recipe), ready=self.ready)
            nme |= scores_at(self._evaluate(recalibrated), Stage.RECALIBRATED)
        return replace(sweep_row(SUPERNET, found, self.costs), nme=nme)

    def untuned(self) -> _Bench:
        """The same without fine-tuning."""
        return replace(self, measuring=replace(self.measuring, epochs=0))

    def measure(self, run: RunDir, position: str) -> SweepRow:
        """Measure the network in a folder; `error` of its row says where its training diverged."""
        name = run.path.name
        slim, _ = slim_net(self.supernet, arch_graph(read_arch(run.arch), self.supernet))
        nme: dict[Score, float] = {}
        found: Evaluation | None = None
        error: str | None = None
        if self.measuring.inherited:
            found = self._evaluate(slim)
            nme |= scores_at(found, Stage.INHERITED)
        if self.measuring.recalibrated or self.measuring.epochs:
            engine.recalibrate(slim, self.faces.train, settings(self.work.recipe), ready=self.ready)
        if self.measuring.recalibrated:
            found = self._evaluate(slim)
            nme |= scores_at(found, Stage.RECALIBRATED)
        if self.measuring.epochs:
            try:
                found = self._finetune(slim, run, f"{position} {name}")
                nme |= scores_at(found, Stage.FINETUNED)
            except DivergedError as err:  # the other networks may do better
                log.warning("network %s: %s", name, err)
                error = str(err)
        if error is None:
            save_net(run.slim, slim, self._recipe(run))
        shutil.rmtree(run.checkpoint("").parent, ignore_errors=True)
        found = found or self._evaluate(slim)
        return self._timed(replace(sweep_row(name, found, self.costs), nme=nme, error=error), slim)

    def _evaluate(self, net: GraphNet) -> Evaluation:
        return evaluate_net("slim", net, self.work.recipe, self.faces, self.costs)

    def _finetune(self, slim: GraphNet, run: RunDir, title: str) -> Evaluation:
        """Fine-tune a network in its own folder, which then reads like any finished run."""
        machine = self.work.machine
        bars = replace(machine.progress, begin=lambda _, total, done: machine.progress.begin(title, total, done))
        recipe = self._recipe(run)
        rundir.write_text(run.recipe, recipe.to_yaml())
        work = replace(self.work, recipe=recipe, run=run, rows=[], machine=replace(machine, progress=bars))
        finetune(slim, work, self.faces)
        found = self._evaluate(slim)
        finish(work, [found])
        return found

    def _recipe(self, run: RunDir) -> Recipe:
        """The recipe of the network in a folder: the sweep's, with the network's pruner.

        The length of the fine-tuning is the run's while the sweep does none.
        """
        recipe = self.work.recipe
        if not run.recipe.exists():
            return recipe
        kept = recipes.resolve(recipes.read(str(run.recipe)), f"the recipe of {run.path}", checked=())
        finetune = recipe.finetune if self.measuring.epochs else kept.finetune
        return recipe.model_copy(update={"prune": kept.prune, "finetune": finetune})

    def _timed(self, row: SweepRow, slim: GraphNet) -> SweepRow:
        """The row with latencies, if they are asked for."""
        return row if self.clock is None else replace(row, **asdict(self.clock.time(slim)))
