"""The parts of an experiment's work, and doing them one after the other."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from filelock import FileLock

from nasface import recipe as recipes
from nasface import rundir
from nasface.errors import DivergedError, GraphError, NasfaceError, NotComparableError, RunBusyError, RunError
from nasface.places import not_ours, refuse_link
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.studies.trials import is_free
from nasface.stages.workspace import Machine

log = logging.getLogger(__name__)

GIVEN_UP = (DivergedError, GraphError, NotComparableError)
"""What ends a part on any machine; other errors may be this machine's own, such as a full disk."""
PATIENCE = 20.0
"""Seconds between two looks at what other processes are working on."""


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


@dataclass(frozen=True)
class Finished:
    """Tells whether a part is finished; one that was finished once is not looked at again."""

    _paths: set[Path] = field(default_factory=set)

    def __call__(self, part: Part) -> bool:
        """Return whether the part is finished; a NasfaceError when its folder is damaged."""
        path = part.folder.path
        if path not in self._paths and part.status().is_finished:
            self._paths.add(path)
        return path in self._paths


def work_off(parts: Sequence[Part], out: Path, machine: Machine, after_each: Callable[[], object]) -> None:
    """Do the parts that are not finished, in the order in which they need each other, shared with other processes.

    A part that fails for a reason in `GIVEN_UP` is left out with a warning, and so is what needs it; if no part is
    finished in the end, its error is raised. Where another process is working on a part, this one does something else,
    and waits when nothing else is left.

    Args:
        parts: each behind those that it needs.
        out: the folder of the experiment.
        machine: device and progress.
        after_each: called after each part that was done here.
    """
    todo, failed, is_done = list(parts), dict[Path, NasfaceError](), Finished()
    while todo:
        left, busy = [], False
        for part in todo:
            if lost := [need.folder.path for need in part.needs if need.folder.path in failed]:
                failed[part.folder.path] = failed[lost[0]]
            elif not all(is_done(need) for need in part.needs):
                left.append(part)
            elif not is_done(part):
                try:
                    _do(part, out, machine)
                except RunBusyError:
                    left.append(part)
                    busy = True
                except GIVEN_UP as err:
                    log.warning("%s, seed %d, %s is left out: %s", part.run, part.seed, part.title, err)
                    failed[part.folder.path] = err
                else:
                    log.info("%s, seed %d: %s", part.run, part.seed, part.title)
                    after_each()
        if len(left) == len(todo):
            if not busy:
                break
            log.info("waiting for other processes, which are working on what %d parts need", len(left))
            time.sleep(PATIENCE)
        todo = left
    if failed and not any(map(is_done, parts)):
        raise next(iter(failed.values()))


def _do(part: Part, out: Path, machine: Machine) -> None:
    """Do a part; a RunBusyError while another process does it, before the compute that is left for it is measured."""
    refuse_link(part.folder.path)
    lock = part.folder.path / ".lock"
    if not part.can_help() and lock.exists() and not is_free(FileLock(lock)):
        raise RunBusyError(f"another process is working in {part.folder.path}")
    part.work(named(machine, str(part.folder.path.relative_to(out))))


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


def seeds_in(out: Path, name: str) -> list[int]:
    """List the seeds in the names of the folders of a run or row, whoever worked on them."""
    ends = (path.name.rpartition("-")[2] for path in out.glob(f"{glob.escape(name)}-*"))
    return sorted({int(end) for end in ends if end.isdecimal()})


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
