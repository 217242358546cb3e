"""Do the parts of a comparison in the order in which they need each other, shared with other processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from filelock import FileLock

from nasface.errors import DivergedError, GraphError, RecipeError, RunBusyError, did_you_mean
from nasface.places import refuse_link
from nasface.stages.experiment.compare.entries import Comparison
from nasface.stages.experiment.compare.rest import NotComparableError
from nasface.stages.experiment.compare.results import results
from nasface.stages.experiment.part import Part, named
from nasface.stages.experiment.plan import Experiment
from nasface.stages.studies.trials import is_free
from nasface.stages.workspace import Machine

log = logging.getLogger(__name__)

PATIENCE = 20.0  # seconds between two looks at what other processes work on


def run_comparison(experiment: Experiment, out: Path, machine: Machine, only: Sequence[str] = ()) -> pd.DataFrame:
    """Do what is not finished yet, and return the rows of results.csv; see `results`.

    A network that cannot be had, or cannot be compared, is left out with a warning. Where other processes work on what
    is needed, this one does something else, and waits when nothing else is left.

    Args:
        experiment: with a comparison.
        out: its folder.
        machine: device and progress.
        only: names of the rows to work on, together with what they need.
    """
    comparison = Comparison(experiment, out)
    todo = comparison_parts(comparison, only)
    failed: set[Path] = set()
    while todo:
        left, busy = [], False
        for part in todo:
            if any(need.folder.path in failed for need in part.needs):
                failed.add(part.folder.path)
            elif not all(comparison.is_finished(need) for need in part.needs):
                left.append(part)
            elif not comparison.is_finished(part):
                try:
                    if not _work(part, machine):
                        failed.add(part.folder.path)
                except RunBusyError:
                    left.append(part)
                    busy = True
                else:
                    results(comparison)
        if len(left) == len(todo):
            if not busy:
                break
            log.info("waiting for other processes, which work on what %d parts need", len(left))
            time.sleep(PATIENCE)
        todo = left
    return results(comparison)


def _work(part: Part, machine: Machine) -> bool:
    """Do a part, and return whether that was possible; a RunBusyError while another process does it."""
    refuse_link(part.folder.path)
    _check_busy(part)
    try:
        part.work(named(machine, part.folder.path.name))
    except (DivergedError, GraphError, NotComparableError) as err:
        log.warning("%s, seed %d, %s is left out: %s", part.run, part.seed, part.title, err)
        return False
    log.info("%s, seed %d: %s", part.run, part.seed, part.title)
    return True


def _check_busy(part: Part) -> None:
    """Raise a RunBusyError if another process works on a part, before the compute that is left for it is measured."""
    lock = part.folder.path / ".lock"
    if lock.exists() and not is_free(FileLock(lock)):
        raise RunBusyError(f"another process is working in {part.folder.path}")


def comparison_parts(comparison: Comparison, only: Sequence[str]) -> list[Part]:
    """Return the parts of all networks, or of some rows with what these need; seed by seed, searches first."""
    plan, seeds = comparison.plan, comparison.experiment.plan.seeds
    if strange := sorted(set(only) - set(plan.rows)):
        raise RecipeError(f"the experiment has no row '{strange[0]}'; {did_you_mean(strange[0], plan.rows)}")
    wanted = {name: plan.seeds_of(name, seeds) for name in plan.rows}
    found: dict[Path, Part] = {}

    def add(part: Part) -> None:
        for need in part.needs:
            add(need)
        found.setdefault(part.folder.path, part)

    for seed in sorted({seed for row in wanted.values() for seed in row}):
        entries = [
            comparison.entry(name, budget, seed)
            for budget in plan.budgets
            for name in plan.rows
            if seed in wanted[name]
        ]
        chosen = [entry for entry in entries if not only or entry.row in only]
        for entry in sorted(chosen, key=lambda entry: entry.row != plan.reference):
            for part in entry.parts:
                add(part)
    return list(found.values())
