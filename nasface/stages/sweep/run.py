"""Many sub-networks of one supernet, each measured and, if asked, trained.

What a network is lies in networks/NAME/arch.json before anyone works on it; what it came to is recorded by the
folder's study, from which pareto.csv is written after each.
"""

from __future__ import annotations

import logging
import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nasface import engine, rundir
from nasface.arch import Factors, check_digest
from nasface.cost import Costs, latencies_ms
from nasface.errors import DivergedError
from nasface.net import GraphNet, slim_net
from nasface.recipe import Prune, Recipe
from nasface.rundir import RunDir
from nasface.stages.faces import Faces, load_faces
from nasface.stages.measure import Evaluation, evaluate_net
from nasface.stages.networks import (
    arch_graph,
    build_net,
    load_weights,
    net_costs,
    read_arch,
    read_factors,
    save_net,
    write_arch,
)
from nasface.stages.sweep.book import Row, Study
from nasface.stages.sweep.candidates import Candidate, Wanted, candidates
from nasface.stages.train import finetune, finish
from nasface.stages.training import settings
from nasface.stages.workspace import Machine, Work, working_in
from nasface.step import Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measure:
    """What is done with each network.

    Attributes:
        inherited: evaluate it with the supernet's weights as they are.
        recalibrated: evaluate it after its BN statistics were measured afresh.
        epochs: of fine-tuning, after which it is evaluated again; 0 for none.
        latency_batch: images in the forward passes that are timed; 0 times none.
        latency_repeats: passes of each of the two networks, of which the median counts.
    """

    inherited: bool = True
    recalibrated: bool = True
    epochs: int = 0
    latency_batch: int = 1
    latency_repeats: int = 10


def sweep(recipe: Recipe, source: RunDir, out: RunDir, wanted: Wanted, measure: Measure, machine: Machine) -> Path:
    """Evaluate a family of sub-networks of a searched run; gives the path of pareto.csv.

    Args:
        recipe: of the run; its section `finetune` says how networks are trained (but not how long).
        source: the searched run.
        out: folder of the sweep. One that is there is gone on with; networks in it are not done again.
        wanted: which networks.
        measure: what is done with each.
        machine: device and progress.

    Raises:
        RunError: when the folder holds another sweep.
    """
    own, recipe = (
        recipe,
        recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"epochs": measure.epochs})}),
    )
    factors = read_factors(source.factors)
    job = {
        "job": "sweep",
        "weights": rundir.file_digest(source.supernet),
        "factors": rundir.file_digest(source.factors),
        "inherited": str(measure.inherited),
        "recalibrated": str(measure.recalibrated),
    }
    with working_in(out, recipe, machine, job, shared=True) as work:
        costs = net_costs(build_net(recipe, factors.num_landmarks, torch.device("cpu")), recipe)
        check_digest(str(source.factors), factors.graph_digest, costs.space.graph)
        study = Study.open(out.path, recipe.seed)
        for candidate in candidates(wanted, factors, costs):
            if candidate.error:
                log.warning("left out: %s", candidate.error)
            study.ask_for(candidate, partial(_write, candidate, factors, own, source))
        bench: _Bench | None = None
        while True:
            study.write_table()
            with study.taken() as trial:
                if trial is None:
                    break
                bench = bench or _Bench.load(work, source, costs, measure)
                if not study.supernet:
                    study.set_supernet(bench.supernet_row())
                study.finish(trial, bench.measure(study.run(trial.user_attrs["network"]), study.position()))
        if busy := study.busy():
            log.warning("%d networks are being worked on by other processes; pareto.csv grows as they finish", busy)
        return study.table


def _write(candidate: Candidate, factors: Factors, recipe: Recipe, source: RunDir, run: RunDir) -> None:
    """arch.json and recipe.yaml of a candidate, in a folder that other commands read like any run's."""
    assert candidate.graph is not None
    chosen = recipe.model_copy(update={"prune": Prune(name=candidate.pruner, options=dict(candidate.options))})
    rundir.write_text(run.recipe, chosen.to_yaml())
    write_arch(run, candidate.graph, factors, chosen, source.supernet)


@dataclass(frozen=True)
class _Bench:
    """What measuring needs and is loaded once: faces, supernet, costs."""

    work: Work
    costs: Costs
    measuring: Measure
    faces: Faces
    supernet: GraphNet
    images_B3HW: torch.Tensor
    ready: list[Batch]

    @classmethod
    def load(cls, work: Work, source: RunDir, costs: Costs, measure: Measure) -> _Bench:
        faces = load_faces(work.recipe, work.device, work.machine)
        supernet = build_net(work.recipe, costs.num_landmarks, work.device)
        load_weights(supernet, source.supernet)
        size = costs.input_size
        images = torch.randn(max(1, measure.latency_batch), 3, size, size, device=work.device)
        ready = engine.measuring_batches(faces.train, settings(work.recipe))
        return cls(work, costs, measure, faces, supernet, images.contiguous(memory_format=torch.channels_last), ready)

    def supernet_row(self) -> Row:
        """The supernet itself, for comparison."""
        found = self._evaluate(self.supernet)
        scores = _score_columns(found, "inherited")
        if self.measuring.recalibrated:
            measured = deepcopy(self.supernet)
            engine.recalibrate(measured, self.faces.train, settings(self.work.recipe), ready=self.ready)
            scores |= _score_columns(self._evaluate(measured), "recalibrated")
        return {**_cost_columns(found, self.costs), **scores, **_images(found)}

    def measure(self, run: RunDir, position: str) -> Row:
        """All figures of the network in a folder; 'error' is one where its training diverged."""
        name = f"{position} {run.path.name}"
        arch = read_arch(run.arch)
        slim, _ = slim_net(self.supernet, arch_graph(arch, self.supernet))
        scores: Row = {}
        found: Evaluation | None = None
        if self.measuring.inherited:
            found = self._evaluate(slim)
            scores |= _score_columns(found, "inherited")
        if self.measuring.recalibrated or self.measuring.epochs:
            engine.recalibrate(slim, self.faces.train, settings(self.work.recipe), ready=self.ready)
        if self.measuring.recalibrated:
            found = self._evaluate(slim)
            scores |= _score_columns(found, "recalibrated")
        if self.measuring.epochs:
            machine = self.work.machine
            bars = replace(machine.progress, begin=lambda _, total, done: machine.progress.begin(name, total, done))
            work = replace(self.work, run=run, rows=[], machine=replace(machine, progress=bars))
            try:
                finetune(slim, work, self.faces)
                found = self._evaluate(slim)
                scores |= _score_columns(found, "finetuned")
                finish(work, [found])
            except DivergedError as err:  # the other networks may do better
                log.warning("network %s: %s", run.path.name, err)
                scores["error"] = str(err)
            shutil.rmtree(run.checkpoint("").parent, ignore_errors=True)
        if "error" not in scores:
            save_net(run.slim, slim)
        found = found or self._evaluate(slim)
        return {**_cost_columns(found, self.costs), **scores, **self._latency(slim), **_images(found)}

    def _evaluate(self, net: GraphNet) -> Evaluation:
        return evaluate_net("slim", net, self.work.recipe, self.faces, self.costs)

    def _latency(self, slim: GraphNet) -> Row:
        if not self.measuring.latency_batch:
            return {}
        own, full = latencies_ms((slim, self.supernet), self.images_B3HW, self.measuring.latency_repeats)
        return {
            "latency_ms": own,
            "supernet_latency_ms": full,
            "latency_batch": len(self.images_B3HW),
            "threads": torch.get_num_threads(),
            "device": str(self.work.device),
        }


def _cost_columns(found: Evaluation, costs: Costs) -> Row:
    return {
        "edges": found.edges,
        "blocks": found.blocks,
        "params": found.params,
        "macs": found.macs,
        "params_no_head": found.params_no_head,
        "macs_no_head": found.macs_no_head,
        "macs_prunable": found.macs_prunable,
        "prunable_share": found.macs_prunable / max(1, costs.prunable(costs.space.graph).macs),
    }


def _score_columns(found: Evaluation, stage: str) -> Row:
    """NME of held-out faces and test subsets, inter-ocular, shares; JSON knows no NaN, so those are left out."""
    columns = {f"held_out_nme_{stage}": found.held_out_nme}
    columns |= {f"nme_{name}_{stage}": summary.nme for name, summary in found.subsets.get("inter_ocular", {}).items()}
    return {name: value for name, value in columns.items() if np.isfinite(value)}


def _images(found: Evaluation) -> dict[str, int]:
    return {f"images_{name}": summary.images for name, summary in found.subsets.get("inter_ocular", {}).items()}
