"""Do what is not done yet of an experiment."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nasface import recipe as recipes
from nasface import rundir
from nasface.data import masks
from nasface.errors import DivergedError, RecipeError, RunBusyError
from nasface.model.files import one
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.distill.run import distill
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.experiment.plan import Experiment
from nasface.stages.experiment.results import results
from nasface.stages.networks import read_arch
from nasface.stages.search import search
from nasface.stages.sweep.candidates import Wanted
from nasface.stages.sweep.run import Measure, sweep
from nasface.stages.train import train
from nasface.stages.workspace import Machine

log = logging.getLogger(__name__)


MASKS: tuple[masks.Level, ...] = ("half", "hard")


def run_experiment(experiment: Experiment, out: Path, machine: Machine, only: Sequence[str] = ()) -> pd.DataFrame:
    """Do what is not done yet, and write results.csv: one row for each network.

    Args:
        experiment: see `read_experiment`.
        out: its folder; every part is a run folder in it.
        machine: device and progress.
        only: names of runs; the others wait.

    Raises:
        RecipeError: when a name in `only` is not a run's.
    """
    plan = experiment.plan
    if strange := sorted(set(only) - set(plan.runs)):
        raise RecipeError(f"the experiment has no run '{strange[0]}'; it has {', '.join(plan.runs)}")
    for seed in plan.seeds:
        for name, changes in plan.runs.items():
            if not only or name in only:
                named = _named(machine, f"{name}-{seed}")
                for part in _parts(experiment, name, experiment.recipe(changes, seed), out, named):
                    log.info("%s, seed %d: %s", name, seed, part)
                    results(experiment, out)
    return results(experiment, out)


def _named(machine: Machine, name: str) -> Machine:
    """The machine, saying for which run whatever begins is done."""
    begin = machine.progress.begin
    progress = replace(machine.progress, begin=lambda title, total, done: begin(f"{name} {title}", total, done))
    return replace(machine, progress=progress)


def _parts(experiment: Experiment, name: str, recipe: Recipe, out: Path, machine: Machine) -> Iterator[str]:
    """The parts of one run and seed, in order."""
    plan, home = experiment.plan, RunDir(out / f"{name}-{recipe.seed}")
    try:
        if not _finished(home, recipe):
            search(recipe, home, machine)
        yield "searched"
        for title, planned in plan.sweeps.items():
            wanted = Wanted(
                count=planned.count, shares=planned.shares, pruner=planned.pruner,
                options=planned.options, draws=planned.draws,
            )  # fmt: skip
            sweep(recipe, home, RunDir(home.path / title), wanted, Measure(epochs=planned.epochs), machine)
            yield title
        teacher: str | None = None
        if plan.teacher is not None and plan.distill:
            schooled = RunDir(out / f"teacher-{recipe.seed}")
            lessons = experiment.recipe(plan.teacher, recipe.seed)
            if not _finished(schooled, lessons):
                train(lessons, schooled, machine)
            teacher = str(schooled.path)
            yield "teacher"
        arch = read_arch(home.arch) if plan.distill else None
        for title, how in plan.distill.items():
            assert arch is not None
            changed = experiment.recipe(plan.runs[name], recipe.seed, how)
            variant = RunDir(home.path / title)
            if not (_finished(variant, changed) and recipes.load(str(variant.recipe)).distill == changed.distill):
                distill(changed, variant, machine, arch, home.supernet, teacher, str(home.path))
            _face_masks(variant, changed, machine)
            yield title
    except RunBusyError as err:
        log.warning("%s; its results come when it is finished", err)
    except DivergedError as err:
        log.warning("%s, seed %d stops here: %s", name, recipe.seed, err)


def _finished(run: RunDir, recipe: Recipe) -> bool:
    """Whether a run of this very recipe has come to its end."""
    return run.metrics.exists() and recipes.load(str(run.recipe)).digest == recipe.digest


def _face_masks(run: RunDir, recipe: Recipe, machine: Machine) -> None:
    """Evaluate the slim network of a run on covered test faces too, into masked.json."""
    path = run.path / "masked.json"
    if path.exists():
        return
    slim = [one(run.path, "slim")]
    found = {level: evaluate(recipe, machine, slim, level)[0].as_dict()["subsets"] for level in MASKS}
    rundir.write_json(path, found)
