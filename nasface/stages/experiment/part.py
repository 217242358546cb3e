"""A piece of an experiment's work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from nasface import recipe as recipes
from nasface import rundir
from nasface.errors import NasfaceError, RunError
from nasface.places import not_ours
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.workspace import Machine


class Stand(Enum):
    """How far a part has come."""

    NOT_BEGUN = "not begun"
    BEGUN = "begun"
    FINISHED = "finished"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Status:
    """How far a part has come, and the same in words where there is more to say."""

    stand: Stand
    words: str = ""

    def __str__(self) -> str:
        return self.words or self.stand.value

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.stand is Stand.FINISHED


@dataclass(frozen=True)
class Part:
    """A piece of an experiment's work, in a run folder of its own.

    Attributes:
        run, seed: which it belongs to.
        title: 'search', 'teacher', or the name of a sweep or a variant of the distillation.
        folder: where its files are.
        status: return how far it has come.
        work: do what is left of it.
        needs: the parts that have to be finished before.
        can_help: return whether another process could work on it at the same time.
    """

    run: str
    seed: int
    title: str
    folder: RunDir
    status: Callable[[], Status]
    work: Callable[[Machine], None]
    needs: tuple[Part, ...] = ()
    can_help: Callable[[], bool] = lambda: False

    def status_or_damage(self) -> Status:
        """Return the status, or what is wrong with the folder: one damaged part does not hide the others."""
        try:
            return self.status()
        except NasfaceError as err:
            return Status(Stand.DAMAGED, f"damaged: {err}")


def named(machine: Machine, name: str) -> Machine:
    """Return the machine with a progress that names what it works for."""
    begin = machine.progress.begin
    progress = replace(machine.progress, begin=lambda title, total, done: begin(f"{name} {title}", total, done))
    return replace(machine, progress=progress)


def status(run: RunDir, finished: bool) -> Status:
    """Return how far a run has come that may be finished."""
    return Status(Stand.FINISHED if finished else Stand.BEGUN if run.has_results() else Stand.NOT_BEGUN)


def run_status(run: RunDir, recipe: Recipe) -> Status:
    """Return how far a run with this very recipe has come."""
    return status(run, is_finished(run, recipe))


def is_finished(run: RunDir, recipe: Recipe) -> bool:
    """Return whether a run with this very recipe has finished; a RunError when its figures are damaged."""
    return has_figures(run) and recipes.load(str(run.recipe)).digest == recipe.digest


def has_figures(run: RunDir) -> bool:
    """Return whether metrics.json of a run is there; a RunError when it is damaged."""
    return run.metrics.exists() and bool(figures_of(run))


def figures_of(run: RunDir) -> dict[str, Any]:
    """Return the content of metrics.json of a run that has finished; a RunError when it is damaged."""
    found: dict[str, Any] = rundir.read_json(run.metrics, "the figures of a finished run")
    if not (isinstance(found, dict) and isinstance(found.get("networks"), dict)):
        raise RunError(
            f"{run.metrics} does not hold the figures of networks; remove it, and let its run write it again"
        )
    return found


_RESULTS = (
    "results.csv", "ablation.csv", "ablation.md", "differences.csv", "comparison.md", "comparison-*.[sp][vn]g",
    "figure6-*.[sp][vn]g",
)  # fmt: skip


def check_results_free(out: Path) -> None:
    """Raise a RunError if the folder of an experiment holds files of the user's own that its results would replace.

    The folder is nasface's if there is a run folder in it.
    """
    own = next((path for name in _RESULTS for path in sorted(out.glob(name))), None)
    if own is not None and not any(out.glob("*/job.json")):
        raise not_ours(own)
