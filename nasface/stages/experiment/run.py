"""Do the parts of an experiment that are not finished yet, or list what would be done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from nasface import recipe as recipes
from nasface import rundir
from nasface.errors import RecipeError, RunBusyError, did_you_mean
from nasface.model.files import one
from nasface.model.source import read_arch
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import MaskLevel
from nasface.stages.distill.run import distill
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.experiment.compare.entries import Comparison, comparison_parts
from nasface.stages.experiment.compare.results import results as comparison_results
from nasface.stages.experiment.part import (
    Part,
    Stand,
    Status,
    check_results_free,
    is_finished,
    run_status,
    status,
    work_off,
)
from nasface.stages.experiment.plan import Experiment, SweepPlan
from nasface.stages.experiment.results import has_masked, masked_file, results
from nasface.stages.search.run import search
from nasface.stages.studies.storage import Kept, is_path
from nasface.stages.sweep.book import standing_of
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure, sweep, swept
from nasface.stages.train import train
from nasface.stages.workspace import Machine

log = logging.getLogger(__name__)

MASKS: tuple[MaskLevel, ...] = ("half", "hard")


def run_experiment(experiment: Experiment, out: Path, machine: Machine, only: Sequence[str] = ()) -> pd.DataFrame:
    """Do what is not finished yet, and write results.csv with one row per network; see `work_off`.

    Args:
        experiment: see `read_experiment`.
        out: its folder, in which every part has a run folder.
        machine: device and progress.
        only: names of the runs to work on; the others wait.

    Returns:
        The rows of results.csv; see `results`.

    Raises:
        RecipeError: when a name in `only` is not that of a run.
        RunError: when the folder holds files of the user's own that would be replaced.
    """
    check_results_free(out)
    parts: list[Part]
    gather: Callable[[], pd.DataFrame]
    if experiment.plan.comparison is not None:
        comparison = Comparison(experiment, out)  # remembers recipes, and what is finished
        parts, gather = comparison_parts(comparison, only), partial(comparison_results, comparison)
    else:
        parts, gather = parts_of(experiment, out, only), partial(results, experiment, out)
    work_off(parts, out, machine, gather)
    return gather()


def outline(experiment: Experiment, out: Path, only: Sequence[str] = ()) -> pd.DataFrame:
    """List the parts that `run_experiment` would go through, without working on them.

    Returns:
        One row per part: run (or row), seed, part, status (such as 'finished' or 'not begun') and folder.
    """
    rows = [
        (part.run, part.seed, part.title, str(part.status_or_damage()), str(part.folder.path))
        for part in parts_of(experiment, out, only)
    ]
    return pd.DataFrame(rows, columns=["run", "seed", "part", "status", "folder"])


def parts_of(experiment: Experiment, out: Path, only: Sequence[str] = (), kept: Kept | None = None) -> list[Part]:
    """Return the parts of an experiment, each behind those that it needs.

    Args:
        experiment: see `read_experiment`.
        out: its folder.
        only: names of the runs or rows that count.
        kept: where the study of the experiment is, if it is one. In a database, its sweeps are studies too.
    """
    if experiment.plan.comparison is not None:
        return comparison_parts(Comparison(experiment, out), only)
    found: dict[Path, Part] = {}
    for run, seed in _chosen(experiment, only):
        for part in _parts(experiment, run, seed, out, kept):
            found.setdefault(part.folder.path, part)  # the teacher of a seed is that of all its runs
    return list(found.values())


def collect(experiment: Experiment, out: Path) -> pd.DataFrame:
    """Write results.csv from the parts that are finished, whoever worked on them, and return its rows."""
    if experiment.plan.comparison is not None:
        return comparison_results(Comparison(experiment, out))
    return results(experiment, out)


def _chosen(experiment: Experiment, only: Sequence[str]) -> list[tuple[str, int]]:
    """The runs and seeds to work on, one seed after the other."""
    plan = experiment.plan
    if strange := sorted(set(only) - set(plan.runs)):
        raise RecipeError(f"the experiment has no run '{strange[0]}'; {did_you_mean(strange[0], plan.runs)}")
    return [(run, seed) for seed in plan.seeds for run in plan.runs if not only or run in only]


def _parts(experiment: Experiment, name: str, seed: int, out: Path, kept: Kept | None = None) -> Iterator[Part]:
    """Yield the parts of one run and seed, in the order in which they depend on each other."""
    plan = experiment.plan
    home, recipe = RunDir(out / f"{name}-{seed}"), experiment.recipe(plan.runs[name], seed)
    searched = _run_part(name, seed, "search", home, recipe, search)
    yield searched
    for title, planned in plan.sweeps.items():
        yield _sweep_part(searched, title, planned, recipe, kept)
    schools = {
        teacher: _run_part(name, seed, school.path.name.removesuffix(f"-{seed}"), school, lessons, train)
        for teacher, (school, lessons) in _schools(experiment, seed, out).items()
    }
    yield from schools.values()
    for title, how in plan.distill.items():
        yield _variant_part(searched, title, experiment.recipe(plan.runs[name], seed, how), schools)


def _run_part(
    name: str, seed: int, title: str, folder: RunDir, recipe: Recipe, stage: Callable[[Recipe, RunDir, Machine], object]
) -> Part:
    """Return what one stage does in a run folder."""

    def work(machine: Machine) -> None:
        if not is_finished(folder, recipe):
            stage(recipe, folder, machine)

    return Part(name, seed, title, folder, status=partial(run_status, folder, recipe), work=work)


def _sweep_part(searched: Part, title: str, planned: SweepPlan, recipe: Recipe, kept: Kept | None) -> Part:
    """Return a sweep over the networks of a search; in a database, it is a study of its own."""
    home, folder = searched.folder, RunDir(searched.folder.path / title)
    own = None if kept is None or is_path(kept.where) else kept.inner(f"{home.path.name}/{title}")
    request = SweepRequest(
        count=planned.count, shares=planned.shares, pruner=planned.pruner, options=planned.options, draws=planned.draws
    )

    measure = Measure(epochs=planned.epochs)

    def work(machine: Machine) -> None:
        sweep(recipe, source=home, out=folder, request=request, measure=measure, machine=machine, kept=own)
        if left := standing_of(folder.path, own).open:
            raise RunBusyError(f"other processes are measuring {left} networks of {folder.path}")

    return Part(
        searched.run,
        searched.seed,
        title,
        folder,
        status=partial(_sweep_status, folder, swept(recipe, measure), request, own),
        work=work,
        needs=(searched,),
        can_help=partial(_has_waiting, folder, own),
    )


def _variant_part(searched: Part, title: str, recipe: Recipe, schools: Mapping[str | None, Part]) -> Part:
    """Return a distillation of the network of a search; its teacher is one of `schools`, or else the supernet."""
    folder = RunDir(searched.folder.path / title)
    school = schools.get(recipe.distill.teacher_from)

    def work(machine: Machine) -> None:
        _distilled(machine, recipe, searched.folder, folder, None if school is None else school.folder)

    return Part(
        searched.run,
        searched.seed,
        title,
        folder,
        status=partial(_variant_status, folder, recipe),
        work=work,
        needs=(searched,) if school is None else (searched, school),
    )


def _schools(experiment: Experiment, seed: int, out: Path) -> dict[str | None, tuple[RunDir, Recipe]]:
    """Return the folders and recipes of the trained teachers by name; None is the one that teaches by default."""
    plan = experiment.plan
    if not plan.distill:
        return {}
    found: dict[str | None, tuple[RunDir, Recipe]] = {}
    if plan.teacher is not None:
        found[None] = RunDir(out / f"teacher-{seed}"), experiment.recipe(plan.teacher, seed)
    for name, changes in plan.teachers.items():
        found[name] = RunDir(out / f"teacher-{name}-{seed}"), experiment.recipe(changes, seed)
    return found


def _distilled(machine: Machine, recipe: Recipe, home: RunDir, out: RunDir, teacher: RunDir | None) -> None:
    """Distil the slim network of a run, and evaluate the result on masked faces too."""
    if not _is_distilled(out, recipe):
        distill(
            recipe,
            out,
            machine,
            arch=read_arch(home.arch),
            weights=home.supernet,
            teacher=None if teacher is None else str(teacher.path),
            fallback=str(home.path),
        )
    _face_masks(out, recipe, machine)


def _is_distilled(run: RunDir, recipe: Recipe) -> bool:
    return is_finished(run, recipe) and recipes.load(str(run.recipe)).distill == recipe.distill


def _has_waiting(folder: RunDir, kept: Kept | None) -> bool:
    return standing_of(folder.path, kept).waiting > 0


def _sweep_status(folder: RunDir, recipe: Recipe, request: SweepRequest, kept: Kept | None) -> Status:
    standing = standing_of(folder.path, kept)
    if folder.recipe.exists() and recipes.load(str(folder.recipe)).digest != recipe.digest:
        return Status(Stand.BEGUN, "begun with other settings")  # which working on it refuses
    asked = request.digest in standing.asked or (standing.finished and standing.wishes >= request.wishes)
    if asked and not standing.open:  # older versions recorded the wishes only
        return Status(Stand.FINISHED)
    if not standing.finished and not standing.open:
        return Status(Stand.NOT_BEGUN, f"not begun, up to {request.wishes} networks")
    wishes = max(request.wishes, standing.finished + standing.open)
    return Status(Stand.BEGUN, f"begun, {standing.finished} of up to {wishes} networks")


def _variant_status(folder: RunDir, recipe: Recipe) -> Status:
    distilled = _is_distilled(folder, recipe)
    if distilled and not has_masked(folder):
        return Status(Stand.BEGUN, "distilled, masked faces not evaluated")
    return status(folder, distilled)


def _face_masks(run: RunDir, recipe: Recipe, machine: Machine) -> None:
    """Evaluate the slim network of a run on masked test faces too, and write masked.json."""
    if has_masked(run):
        return
    slim = [one(run.path, "slim")]
    found = {level: evaluate(recipe, machine, slim, level)[0].as_dict()["subsets"] for level in MASKS}
    rundir.write_json(masked_file(run), found)
