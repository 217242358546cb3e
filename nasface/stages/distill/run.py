"""Refine a slim network by distillation (section 3.2 and Algorithm 1 of the paper)."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from nasface import engine, rundir
from nasface.arch import Architecture
from nasface.cost import count_space
from nasface.distill import Students, distill_step
from nasface.errors import RunError
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.distill.teacher import Teacher, load_teacher, teacher_digest
from nasface.stages.faces import load_faces
from nasface.stages.measure import Evaluation, evaluate_net, held_out_nme
from nasface.stages.networks import arch_graph, build_net, load_net, net_costs, save_net
from nasface.stages.train import finish
from nasface.stages.training import settings, trainer
from nasface.stages.workspace import Machine, working_in
from nasface.step import Phase

log = logging.getLogger(__name__)


def distill(
    recipe: Recipe,
    run: RunDir,
    machine: Machine,
    arch: Architecture,
    weights: Path,
    teacher: str | None = None,
    fallback: str | None = None,
) -> list[Evaluation]:
    """Train two peers of a slim network with a teacher and masks, as the recipe's section `distill` says.

    The better student on held-out faces becomes slim.safetensors; both are saved and evaluated.

    Args:
        recipe: each of teacher, peers and masks can be switched off in it.
        run: where everything goes.
        machine: device and progress.
        arch: the slim network.
        weights: its own, or the supernet's, from which it inherits; then its BN statistics are measured afresh.
        teacher: see `load_teacher`; by default the recipe's.
        fallback: who teaches where neither names one: the run of the searched supernet.

    Raises:
        RunError: when a teacher is wanted and none is named.
    """
    how = recipe.distill
    name = (teacher or how.teacher_from or fallback) if how.teacher else ""
    if name is None:
        raise RunError("no teacher is named, and the run of the supernet is gone; give --teacher RUN, or --no-teacher")
    job = {
        "job": "distill",
        "edges": hashlib.sha256(repr(arch.kept).encode()).hexdigest(),
        "weights": rundir.file_digest(weights),
        "teacher": teacher_digest(name) if name else "none",
        "how": hashlib.sha256(repr(how).encode()).hexdigest(),
    }
    with working_in(run, recipe, machine, job) as work:
        tutor: Teacher | None = None
        if name:
            log.info("teacher: %s%s", name, "" if teacher or how.teacher_from else ", as none was named")
            tutor = load_teacher(name, arch.num_landmarks, recipe, work.device)
        faces = load_faces(recipe, work.device, machine)
        full = build_net(recipe, faces.train.scheme.num_landmarks, work.device)
        costs = net_costs(full, recipe)
        slim = load_net(full, arch_graph(arch, full), weights)
        engine.recalibrate(slim, faces.train, settings(recipe))
        students = Students(slim, how, recipe.seed)
        task = recipe.task
        step = distill_step(how, task.sigma, task.weight, tutor)
        phase = Phase("students", tuple(students.parameters()), how.optimizer, step)

        def validate(net: Students) -> float:
            return min(held_out_nme(peer, recipe, faces) for peer in net.peers)

        trainer(work, students, faces, "distill", how.epochs, validate)([phase])
        found = [
            evaluate_net(f"student {i}", peer, recipe, faces, costs) for i, peer in enumerate(students.peers, start=1)
        ]
        best = min(range(len(found)), key=lambda i: found[i].held_out_nme)
        for i, peer in enumerate(students.peers, start=1):
            save_net(run.student(i), peer)
        save_net(run.slim, students.peers[best])
        rundir.write_text(run.arch, arch.to_json())
        log.info("student %d is the better one on held-out faces", best + 1)
        if tutor is not None and isinstance(tutor.net, GraphNet) and tutor.input_size == recipe.data.input_size:
            own = count_space(tutor.net.space, tutor.net.num_landmarks, tutor.input_size)
            found.insert(0, evaluate_net("teacher", tutor.net, recipe, faces, own))
        finish(work, [*found, _renamed(found[best - len(students.peers)], "slim")])
        return found


def _renamed(found: Evaluation, name: str) -> Evaluation:
    return Evaluation(**{**vars(found), "network": name})
