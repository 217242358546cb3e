"""Refine a slim network by distillation (section 3.2 and Algorithm 1 of the paper)."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nasface import engine, rundir
from nasface.arch import Architecture
from nasface.cost import Costs, count_space
from nasface.device import pick_device
from nasface.distill import Distillation, Students, distill_step
from nasface.errors import RecipeError, RunError
from nasface.importing import allow
from nasface.model.build import net_of
from nasface.model.files import save_net
from nasface.net import GraphNet, edge_values
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.distill.teacher import Teacher, load_teacher, teacher_digest
from nasface.stages.faces import Faces, check_held_out, load_faces
from nasface.stages.measure import Evaluation, evaluate_net, held_out_error
from nasface.stages.train import finish
from nasface.stages.training import settings, task, trainer
from nasface.stages.workspace import Machine, Work, reserved, working_in
from nasface.step import Phase

log = logging.getLogger(__name__)

_FIRST = (
    "epochs", "optimizer", "teacher", "peer", "masked", "teacher_from", "ensemble_weight", "teacher_weight",
    "temperature", "constant_ensemble", "mask_probability", "mask_size", "peer_noise",
)  # fmt: skip
"""The settings of version 0.1 in the order in which they were hashed."""


def distill(
    recipe: Recipe,
    run: RunDir,
    machine: Machine,
    arch: Architecture,
    weights: Path,
    teacher: str | None = None,
    fallback: str | None = None,
) -> dict[str, Any]:
    """Train two peers of a slim network with a teacher and masks, as the recipe's section `distill` says.

    The student that does better on held-out faces becomes slim.safetensors. Both are saved and evaluated.

    Args:
        recipe: the recipe; it can switch off teacher, peer and masks.
        run: the folder to write to.
        machine: device and progress.
        arch: the slim network.
        weights: its own weights, or those of the supernet from which it inherits; its BN statistics are recalibrated.
        teacher: see `load_teacher`; by default the teacher of the recipe.
        fallback: the teacher if neither names one: the run of the searched supernet.

    Returns:
        The content of metrics.json: the figures of the students, of the better one as 'slim', and of the teacher, if it
        can be counted and sees images of the same size.

    Raises:
        RunError: when the recipe wants a teacher and none is named, or if a pruned supernet would be the teacher.
        DataError: when there are two students and no held-out face.
        RecipeError: when the recipe wants a feature term, and the teacher has no output maps that fit.
    """
    name = _teacher_name(recipe, teacher, fallback)
    job = {
        "job": "distill",
        "edges": arch.edges_digest,
        "weights": rundir.file_digest(weights),
        "teacher": teacher_digest(name) if name else "none",
        "how": _digest(recipe.distill),
    }
    with reserved(run, recipe, job):
        faces = load_faces(recipe, pick_device(machine.device), machine)  # before the folder is claimed
        if recipe.distill.peer:
            check_held_out(recipe, faces.prepared["train"], "the better one of two students")
        with working_in(run, recipe, machine, job, shared=True) as work:
            tutor: Teacher | None = None
            if name:
                is_default = not (teacher or recipe.distill.teacher_from)
                log.info("teacher: %s%s", name, " (the default)" if is_default else "")
                tutor = load_teacher(name, arch.num_landmarks, recipe, work.device)
                if is_default:
                    _check_supernet(tutor, arch)
            slim, costs = net_of(recipe, faces.train.scheme.num_landmarks, work.device, arch, weights)
            with work.measuring():
                engine.recalibrate(slim, faces.train, settings(recipe))
            students = _taught(work, slim, faces, tutor)
            found, best = _saved(run, recipe, students, faces, costs)
            rundir.write_text(run.arch, arch.to_json())
            found.append(replace(found[best], network="slim"))
            if tutor is not None and isinstance(tutor.net, GraphNet) and tutor.input_size == recipe.data.input_size:
                own = count_space(tutor.net.space, tutor.net.num_landmarks, tutor.input_size)
                found.insert(0, evaluate_net("teacher", tutor.net, recipe, faces, own))
            return finish(work, found)


def _digest(how: Distillation) -> str:
    """Return a hash of the settings.

    Settings that version 0.1 did not have count only where they are used, so that its distillations can be resumed.
    """
    default = Distillation()
    later = (one.name for one in fields(how) if one.name not in _FIRST)
    used = (name for name in later if getattr(how, name) != getattr(default, name))
    shown = ", ".join(f"{name}={getattr(how, name)!r}" for name in (*_FIRST, *used))
    return hashlib.sha256(f"Distillation({shown})".encode()).hexdigest()


def _teacher_name(recipe: Recipe, teacher: str | None, fallback: str | None) -> str:
    """Return the name of the teacher; empty if the recipe wants none."""
    how = recipe.distill
    if not how.teacher:
        return ""
    if teacher is not None and not Path(teacher).exists():
        allow(teacher)  # given by the person; job.json names it too
    name = teacher or how.teacher_from or fallback
    if name is None:
        raise RunError(
            "no teacher is named, and the run of the supernet no longer exists; give one with --teacher, or train "
            "without one with --no-teacher"
        )
    return name


def _check_supernet(tutor: Teacher, arch: Architecture) -> None:
    """Refuse, with a RunError, a supernet as the default teacher if its searcher has pruned it down to the student."""
    factors = edge_values(tutor.net) if isinstance(tutor.net, GraphNet) else {}
    dropped = [value for edge, value in factors.items() if edge not in {*arch.kept}]
    if dropped and not any(dropped):
        raise RunError(
            f"the supernet of {tutor.name} was pruned while it was trained, so it knows no more than its slim network; "
            "give another teacher with --teacher, or train without one with --no-teacher"
        )


def _taught(work: Work, slim: GraphNet, faces: Faces, tutor: Teacher | None) -> Students:
    """Train the students that start from a slim network."""
    recipe = work.recipe
    how = recipe.distill
    school = tutor.net if tutor is not None and isinstance(tutor.net, GraphNet) else None
    if how.feature_weight and school is None:
        raise RecipeError(
            f"distill.feature_weight is {how.feature_weight:g}, but the teacher {tutor.name if tutor else ''} is not a "
            "nasface network, whose output maps are known; choose another teacher, or set it to 0"
        )
    students = Students(slim, how, recipe.seed, school)
    step = distill_step(how, task(recipe), tutor, school)
    phase = Phase("students", tuple(students.parameters()), how.optimizer, step)

    def validate(net: Students) -> float:
        return min(held_out_error(peer, recipe, faces) for peer in net.peers)

    trainer(work, students, faces, "distill", how.epochs, validate)([phase])
    return students


def _saved(run: RunDir, recipe: Recipe, students: Students, faces: Faces, costs: Costs) -> tuple[list[Evaluation], int]:
    """Evaluate and save the students; return the evaluations and the index of the better student."""
    found = [evaluate_net(f"student {i}", peer, recipe, faces, costs) for i, peer in enumerate(students.peers, start=1)]
    best = min(range(len(found)), key=lambda i: found[i].held_out_error)
    for i, peer in enumerate(students.peers, start=1):
        save_net(run.student(i), peer, recipe)
    save_net(run.slim, students.peers[best], recipe)
    log.info("student %d is the better one on held-out faces", best + 1)
    return found, best
