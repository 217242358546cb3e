"""Train one network: the full graph of a space, or the sub-network of an architecture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nasface import rundir
from nasface.arch import Architecture
from nasface.device import pick_device
from nasface.model.build import build_net, load_backbone, net_of
from nasface.model.files import save_net
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.faces import Faces, load_faces
from nasface.stages.measure import Evaluation, evaluate_net
from nasface.stages.training import task, trainer
from nasface.stages.workspace import Machine, Work, reserved, working_in
from nasface.step import Phase

log = logging.getLogger(__name__)


def finetune(net: GraphNet, work: Work, faces: Faces) -> None:
    """Train factors and weights of one network together, as the recipe's section `finetune` says."""
    plan = work.recipe.finetune
    phase = Phase("weights", tuple(net.parameters()), plan.optimizer, task(work.recipe).step, plan.share)
    trainer(work, net, faces, "finetune", plan.epochs)([phase])


def finish(work: Work, found: Sequence[Evaluation]) -> dict[str, Any]:
    """Write the final figures, and then the error of every test face."""
    final = work.finish({e.network: e.as_dict() for e in found})
    rows = [{"network": e.network, **row} for e in found for row in e.faces]
    if rows:
        rundir.write_rows(work.run.errors, rows)
    return final


def train(
    recipe: Recipe,
    run: RunDir,
    machine: Machine,
    arch: Architecture | None = None,
    weights: Path | None = None,
    backbone: Path | None = None,
) -> dict[str, Any]:
    """Train one network: the recipe's full graph, or the sub-network of `arch`.

    Args:
        recipe: its section `finetune` says how.
        run: where everything is written.
        machine: device and progress.
        arch: an architecture of the recipe's space.
        weights: weights of the same network or of its supernet to start from; None starts from random ones.
        backbone: instead of `arch` and `weights`, a public checkpoint for the full graph (see `load_backbone`).
    """
    job = {
        "job": "train",
        "edges": "all" if arch is None else arch.edges_digest,
        "weights": "random" if weights is None else rundir.file_digest(weights),
    }
    if backbone is not None:
        load_backbone(build_net(recipe, 1, torch.device("cpu")), backbone)  # one that does not fit costs no time
        job["backbone"] = rundir.file_digest(backbone)
    with reserved(run, recipe, job):
        device = pick_device(machine.device)
        faces = load_faces(recipe, device, machine)  # before the folder is claimed
        net, costs = net_of(recipe, faces.train.scheme.num_landmarks, device, arch, weights)
        with working_in(run, recipe, machine, job, shared=True) as work:
            if backbone is not None:
                log.info("backbone %s: %s", backbone, load_backbone(net, backbone))
            finetune(net, work, faces)
            save_net(run.supernet if arch is None else run.slim, net, recipe)
            if arch is not None:
                rundir.write_text(run.arch, arch.to_json())
            found = [evaluate_net("supernet" if arch is None else "slim", net, recipe, faces, costs)]
            return finish(work, found)
