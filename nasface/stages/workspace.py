"""A stage at work in a run folder: claim the folder, log, write metrics after every epoch and the final figures."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from filelock import FileLock, Timeout

from nasface import __version__, durable, ranks, rundir
from nasface import recipe as recipes
from nasface.compute import Meter, metering
from nasface.device import pick_device
from nasface.errors import NasfaceError, RunBusyError, RunError
from nasface.importing import imported
from nasface.places import not_ours, own_files, refuse_links
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.machine import Machine as Machine
from nasface.stages.machine import use_threads
from nasface.step import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A stage at work.

    Attributes:
        recipe: what to do.
        run: the run folder.
        machine: where the stage works.
        device: the device picked for it.
        rows: metrics of the epochs so far; it grows as trainings end.
        measured: multiply-adds of measurements that decide what the stage does, such as rating edges; those of the
            final evaluation are not counted.
        writer: the writer of TensorBoard events, or None.
    """

    recipe: Recipe
    run: RunDir
    machine: Machine
    device: torch.device
    rows: list[Row] = field(default_factory=list)
    measured: Meter = field(default_factory=Meter)
    writer: Any = None

    def recorder(self, title: str) -> Callable[[list[Row]], None]:
        """Return what a training of this title calls after every epoch; it keeps metrics.csv whole."""
        earlier = list(self.rows)

        def record(rows: list[Row]) -> None:
            rundir.write_rows(self.run.metrics_csv, [*earlier, *rows], kept=False)  # the checkpoint holds them too
            if self.writer is not None:
                for row in (r for r in rows if r["epoch"] == rows[-1]["epoch"]):
                    for name, value in row.items():
                        if isinstance(value, float):
                            self.writer.add_scalar(f"{title}/{row['phase']}/{name}", value, row["epoch"])
                self.writer.flush()
            self.machine.progress.epoch(rows)

        return record

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Add what the block counts, apart from trainings, to `measured`."""
        with metering() as meter:
            yield
        self.measured.macs += meter.macs

    def finish(self, networks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Write metrics.json and return its content.

        Args:
            networks: the figures of each network by name.
        """
        seconds = sum(row["seconds"] for row in self.rows)
        final = {
            **provenance(self.recipe),
            "data": self.recipe.data.name,
            "input_size": self.recipe.data.input_size,
            "device": str(self.device),
            "machine": platform.processor() or platform.machine(),
            "processes": ranks.own().count,
            "threads": torch.get_num_threads(),
            "training_minutes": round(seconds / 60, 2),
            "compute": self._compute(),
            "networks": networks,
        }
        if self.rows:
            rundir.write_rows(self.run.metrics_csv, self.rows)
        rundir.write_json(self.run.metrics, final)
        log.info("finished; %.1f minutes of training", seconds / 60)
        return final

    def _compute(self) -> dict[str, int] | None:
        """Return the multiply-adds of trainings and of measurements; None for a run that an older version began."""
        if any("macs" not in row for row in self.rows):
            return None
        return {"training": sum(row["macs"] for row in self.rows), "measuring": self.measured.total}


@contextmanager
def working_in(
    run: RunDir, recipe: Recipe, machine: Machine, job: Mapping[str, str], shared: bool = False
) -> Iterator[Work]:
    """Claim the run folder for a job, and log into it while the stage works.

    Args:
        run: the run folder.
        recipe: the recipe of the run.
        machine: where the stage works.
        job: which command works here and on what. A run is resumed only if job and recipe are the same.
        shared: whether several processes may work in the folder at the same time, or it is `reserved` already.

    Yields:
        The stage at work.

    Raises:
        RunError: when the folder holds another run.
        RunBusyError: when another process is working in it.
    """
    device = pick_device(machine.device)
    with nullcontext() if shared else _alone_in(run):
        claim(run, recipe, job)
        if ranks.leads():
            rundir.remove_partials(run.path)
        use_threads(recipe)
        with _logging_to(run), _events(run, machine) as writer:
            log.info(
                "nasface %s, torch %s, %d process(es), %s with %d threads, recipe %s, seed %d",
                __version__, torch.__version__, ranks.own().count, device, torch.get_num_threads(), recipe.digest,
                recipe.seed,
            )  # fmt: skip
            if code := imported():
                log.info("plug-ins that are not installed: %s", ", ".join(code))
            try:
                yield Work(recipe, run, machine, device, writer=writer)
            except NasfaceError as err:
                log.error("%s", err)
                raise


@contextmanager
def reserved(run: RunDir, recipe: Recipe, job: Mapping[str, str]) -> Iterator[None]:
    """Keep a run folder for a job that is still loading what it needs; claim it inside with `working_in(shared=True)`.

    Whatever is wrong with the folder is found before anything is loaded, and what is wrong with the data before
    anything is written: a new folder that was never claimed is removed again. Where several processes train together,
    the leader keeps it for all of them.
    """
    if not ranks.leads():
        ranks.wait()
        if not run.path.is_dir():
            raise RunError(f"{run.path} is not visible on every machine; choose a shared folder with --out")
        yield
        return
    with _alone_in(run) as new:
        try:
            check_free(run, recipe, job)
            rundir.remove_partials(run.path)
            ranks.wait()
            yield
        finally:
            if new and not run.job.exists():
                with suppress(OSError):
                    (run.path / ".lock").unlink(missing_ok=True)
                    run.path.rmdir()


@contextmanager
def _alone_in(run: RunDir) -> Iterator[bool]:
    """Keep other processes out of a run folder. The system releases the lock when this process dies.

    Yields:
        Whether the folder is new.
    """
    lock = FileLock(run.path / ".lock", timeout=0)
    refuse_links(run.path)  # the lock is a file too
    try:
        new = durable.make_folder(run.path)
        lock.acquire()
    except Timeout as err:
        raise RunBusyError(
            f"another process is working in {run.path}; wait for it, or choose another folder with --out"
        ) from err
    except OSError as err:
        raise RunError(f"cannot write {run.path} ({err.strerror or err}); choose another folder with --out") from err
    try:
        yield new
    finally:
        lock.release()


def check_free(run: RunDir, recipe: Recipe, job: Mapping[str, str]) -> None:
    """Refuse a run folder with a RunError.

    It may hold the results of another command or recipe, files of the user's own, which would be replaced, or symbolic
    links in the place of what is written.
    """
    refuse_links(run.path)
    if run.has_results():
        way_out = "give --out another folder, or remove this one to start over"
        if not run.job.exists() or rundir.read_json(run.job, "the job of a run folder") != dict(job):
            raise RunError(f"{run.path} holds the results of another command; {way_out}")
        if recipes.load(str(run.recipe)).digest != recipe.digest:
            raise RunError(f"{run.path} holds a run of another recipe; {way_out}")
    elif (own := own_files(run.path)) and not _is_claimed(run):
        raise not_ours(own[0])


def _is_claimed(run: RunDir) -> bool:
    """Return whether a command of nasface has claimed the folder, even if it got no further."""
    job = rundir.read_json(run.job, "the job of a run folder") if run.job.is_file() else None
    return isinstance(job, dict) and isinstance(job.get("job"), str)


def claim(run: RunDir, recipe: Recipe, job: Mapping[str, str]) -> None:
    """Write recipe and job into a run folder, unless it holds the results of another one (RunError)."""
    if ranks.leads():  # what the others see, it may have written a moment ago
        check_free(run, recipe, job)
    rundir.write_json(run.job, dict(job))  # first: it says that the folder is nasface's
    rundir.write_text(run.recipe, recipe.to_yaml())  # also when it goes on: the data may lie elsewhere now


def provenance(recipe: Recipe) -> dict[str, Any]:
    """Return what made a file: versions, recipe, seed and time."""
    return {
        "nasface": __version__,
        "torch": torch.__version__,
        "recipe_digest": recipe.digest,
        "space": recipe.space.name,
        "dataset": recipe.data.name,
        "seed": recipe.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"plugins": code} if (code := imported()) else {}),  # a record, which allows nothing when it is read
    }


class _QuietFile(logging.FileHandler):
    """A log file that ignores a full disk: the run itself reports what it cannot write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Do nothing."""


@contextmanager
def _logging_to(run: RunDir) -> Iterator[None]:
    if not ranks.leads():
        yield
        return
    logger = logging.getLogger("nasface")
    try:
        handler = _QuietFile(run.log, encoding="utf-8", errors="backslashreplace")
    except OSError as err:
        raise RunError(f"cannot write {run.log}: {err.strerror}; choose another folder with --out") from err
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):  # a full disk must not hide the original error
            handler.close()


@contextmanager
def _events(run: RunDir, machine: Machine) -> Iterator[Any]:
    """Yield a TensorBoard writer for the run folder, or None."""
    if not (machine.tensorboard and ranks.leads()):
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise RunError(
            "TensorBoard is not installed; run pip install 'nasface[tensorboard]', or leave out --tensorboard"
        ) from err
    with SummaryWriter(str(run.path / "events")) as writer:
        yield writer
