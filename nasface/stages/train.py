"""Train one network: the full graph of a space, or the sub-network of an architecture."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nasface import rundir
from nasface.arch import Architecture
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.faces import Faces, load_faces
from nasface.stages.measure import Evaluation, evaluate_net, held_out_nme
from nasface.stages.networks import arch_graph, build_net, load_backbone, load_net, net_costs, save_net
from nasface.stages.workspace import Machine, Work, working_in
from nasface.step import Batch, Phase, Step
from nasface.task import heatmap_loss

log = logging.getLogger(__name__)


def task_step(recipe: Recipe) -> Step:
    """Mean squared error of the heatmaps, times the recipe's weight."""
    task, size = recipe.task, recipe.data.input_size

    def step(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        loss = heatmap_loss(net(batch.images_B3HW), batch.landmarks_BL2, size, task.sigma)
        return {"loss": task.weight * loss, "mse": loss}

    return step


def finetune(net: GraphNet, work: Work, faces: Faces) -> None:
    """Train factors and weights of one network together, as the recipe's section `finetune` says."""
    plan = work.recipe.finetune
    phase = Phase("weights", tuple(net.parameters()), plan.optimizer, task_step(work.recipe))
    fit_net(net, [phase], "finetune", plan.epochs, work, faces)


def finish(work: Work, found: Sequence[Evaluation]) -> None:
    """Write the final figures and the error of every test face."""
    rows = [{"network": e.network, **row} for e in found for row in e.faces]
    if rows:
        rundir.write_rows(work.run.errors, rows)
    work.finish({e.network: e.as_dict() for e in found})


def fit_net(net: GraphNet, phases: Sequence[Phase], title: str, epochs: int, work: Work, faces: Faces) -> None:
    """`Work.fit` on the faces of an experiment, with the held-out NME after each epoch."""
    validate = partial(held_out_nme, recipe=work.recipe, faces=faces)
    work.fit(net, phases, title, epochs, faces.train, faces.prepared["train"].key, validate)


def train(
    recipe: Recipe,
    run: RunDir,
    machine: Machine,
    arch: Architecture | None = None,
    weights: Path | None = None,
    backbone: Path | None = None,
) -> list[Evaluation]:
    """Train one network: the recipe's full graph, or the sub-network of `arch`.

    Args:
        recipe: its section `finetune` says how.
        run: where everything goes.
        machine: device and progress.
        arch: of the recipe's space.
        weights: to start from, of the same network or of its supernet; None starts from random ones.
        backbone: instead of both, a public checkpoint for the full graph (see `load_backbone`).
    """
    job = {
        "job": "train",
        "edges": "all" if arch is None else hashlib.sha256(repr(arch.kept).encode()).hexdigest(),
        "weights": "random" if weights is None else rundir.file_digest(weights),
    }
    if backbone is not None:
        load_backbone(build_net(recipe, 1, torch.device("cpu")), backbone)  # one that does not fit costs no time
        job["backbone"] = rundir.file_digest(backbone)
    with working_in(run, recipe, machine, job) as work:
        faces = load_faces(recipe, work.device, machine)
        full = build_net(recipe, faces.train.scheme.num_landmarks, work.device)
        costs = net_costs(full, recipe)
        net = load_net(full, full.graph if arch is None else arch_graph(arch, full), weights)
        if backbone is not None:
            log.info("backbone %s: %s", backbone, load_backbone(net, backbone))
        finetune(net, work, faces)
        save_net(run.supernet if arch is None else run.slim, net, recipe)
        if arch is not None:
            rundir.write_text(run.arch, arch.to_json())
        found = [evaluate_net("supernet" if arch is None else "slim", net, recipe, faces, costs)]
        finish(work, found)
        return found
