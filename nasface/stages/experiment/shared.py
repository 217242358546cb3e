"""An experiment as a study: its parts are jobs, which workers on any machine take until none is left.

The plan is in the experiment's folder, which all machines share. The study only names parts of this plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from nasface import durable, plugins, rundir
from nasface import recipe as recipes
from nasface.device import pick_device
from nasface.errors import NasfaceError, RunBusyError, RunError, shortened
from nasface.places import name_fault, refuse_link
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, scores_in
from nasface.stages.experiment.part import GIVEN_UP, Stand, check_results_free, figures_of, named
from nasface.stages.experiment.plan import Experiment, Plan
from nasface.stages.experiment.run import collect, parts_of
from nasface.stages.select import read_table
from nasface.stages.studies.storage import Kept, is_path, opened, shown
from nasface.stages.studies.trials import PART, Trials
from nasface.stages.workspace import Machine

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds between two looks at what other workers are at."""
_PLAN, _HEARTBEAT = "experiment", "heartbeat"  # attributes of the study
LONGEST_BEAT = 3600


class _UnknownPartError(NasfaceError):
    """A trial of a part that the plan does not have."""


class _Planned(BaseModel):
    """The content of experiment.json."""

    model_config = ConfigDict(extra="forbid")
    name: str
    plan: Plan
    base: dict[str, Any]
    overrides: tuple[str, ...]
    only: tuple[str, ...]


@dataclass(frozen=True)
class Tally:
    """How far an experiment has come: its parts by state, and what this worker has done.

    Attributes:
        finished, at_work, waiting, given_up: parts.
        blocked: parts that need others which are not finished.
        mine: parts that this process has finished.
        resumed: parts among them that another process had begun.
    """

    finished: int
    at_work: int
    waiting: int
    given_up: int
    blocked: int
    mine: int = 0
    resumed: int = 0


@dataclass
class Shared:
    """An experiment whose parts are the jobs of a study.

    Attributes:
        experiment, out, only: see `run_experiment`.
        kept: where the study is.
        study, storage: the study.
    """

    experiment: Experiment
    out: Path
    only: tuple[str, ...]
    kept: Kept
    study: optuna.Study
    storage: BaseStorage
    _finished: set[str] = field(default_factory=set)
    _mine: list[bool] = field(default_factory=list)
    _unhelped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        parts = parts_of(self.experiment, self.out, self.only, self.kept)
        self.parts = {str(part.folder.path.relative_to(self.out)): part for part in parts}
        lock = FileLock(self.out / ".lock")
        self.trials = Trials(self.study, self.storage, _part_of, lock, self._owner, self.kept.heartbeat)

    def enqueue(self) -> Tally:
        """Let all parts that can be done wait for a worker, also those that were given up."""
        self.trials.refresh(self._wanted(), again=True)
        return self.tally()

    def work(self, machine: Machine) -> pd.DataFrame:
        """Do one part after the other until nothing is left; write results.csv after each, and return its rows.

        Raises:
            NasfaceError: when a part cannot be done here, which leaves it to other workers; see `GIVEN_UP`.
        """
        pick_device(machine.device)  # a worker without its device takes no part
        self.trials.work_off(
            lambda name, _: self._do(name, machine),
            self._wanted,
            lambda: self._wait(machine),
            (*GIVEN_UP, _UnknownPartError),
        )
        return collect(self.experiment, self.out)

    def tally(self) -> Tally:
        """Return how far the experiment has come."""
        states = self.trials.states()
        left = {name: states.get(name) for name in self.parts if not self._is_finished(name)}
        at_work, waiting, given_up = (list(left.values()).count(state) for state in ("RUNNING", "WAITING", "FAIL"))
        finished, blocked = len(self.parts) - len(left), len(left) - at_work - waiting - given_up
        return Tally(finished, at_work, waiting, given_up, blocked, len(self._mine), sum(self._mine))

    def _do(self, name: str, machine: Machine) -> float:
        if name not in self.parts:
            raise _UnknownPartError(f"{shortened(name)} is not a part of the experiment in {self.out}")
        part = self.parts[name]
        refuse_link(part.folder.path)
        resumed = part.status().stand is not Stand.NOT_BEGUN
        if not self._is_finished(name):
            part.work(named(machine, name))
        log.info("%s: %s of %s, seed %d is finished", name, part.title, part.run, part.seed)
        collect(self.experiment, self.out)
        self._mine.append(resumed)
        return _held_out(part.folder)

    def _wanted(self) -> dict[str, dict[str, Any]]:
        """The parts that can be done now, with the attributes of their trials."""
        names = {part.folder.path: name for name, part in self.parts.items()}
        return {
            name: {PART: name, "run": part.run, "seed": part.seed, "title": part.title}
            for name, part in self.parts.items()
            if not self._is_finished(name) and all(self._is_finished(names[need.folder.path]) for need in part.needs)
        }

    def _is_finished(self, name: str) -> bool:
        """Return whether a part is finished; one that was finished once is not looked at again."""
        if name not in self._finished and self.parts[name].status_or_damage().is_finished:
            self._finished.add(name)
        return name in self._finished

    def _wait(self, machine: Machine) -> bool:
        """Help other workers, or wait for them; return False when there is nothing to wait for."""
        states = self.trials.states()
        if self._wanted().keys() - states.keys():  # another worker has finished what they need
            return True
        at_work = [name for name, state in states.items() if state == "RUNNING"]
        if any(self._help(name, machine) for name in at_work if name in self.parts.keys() - self._unhelped):
            return True
        if at_work:
            log.info("waiting for other workers, which are working on %s", ", ".join(at_work))
            time.sleep(PATIENCE)
        return bool(at_work)

    def _help(self, name: str, machine: Machine) -> bool:
        """Help with a part if it can be helped with; after an error, which is its owner's to deal with, never again."""
        part = self.parts[name]
        try:
            if not part.can_help():
                return False
            part.work(named(machine, f"helping with {name}"))
        except RunBusyError:  # nothing is left to help with
            return True
        except NasfaceError as err:
            log.warning("no help with %s: %s", name, err)
            self._unhelped.add(name)
            return False
        return True

    def _owner(self, name: str) -> FileLock:
        """The lock of a part, beside its folder."""
        path = self.parts[name].folder.path if name in self.parts else self.out / "unknown"
        return FileLock(path.parent / f".{path.name}.lock")


def work_on(experiment: Experiment, out: Path, machine: Machine, only: Sequence[str], kept: Kept) -> pd.DataFrame:
    """Do what `run_experiment` does as one of several workers; see there and `sharing`."""
    with sharing(experiment, out, only, kept) as shared:
        shared.enqueue()
        return shared.work(machine)


@contextmanager
def sharing(experiment: Experiment, out: Path, only: Sequence[str], kept: Kept) -> Iterator[Shared]:
    """Make an experiment a study, or open the one that it is already.

    Args:
        experiment: see `read_experiment`.
        out: its folder.
        only: names of the runs or rows to work on.
        kept: where the study is.

    Raises:
        RunError: when workers are working on another plan of the same study, or files of the user's own are in the way.
    """
    check_results_free(out)
    durable.make_folder(out)
    path = _plan_file(out)
    planned = _Planned(
        name=experiment.name, plan=experiment.plan, base=dict(experiment.base), overrides=tuple(experiment.overrides),
        only=tuple(only),
    )  # fmt: skip
    with opened(kept.where) as storage:
        study = _study(storage, kept, create=True)
        shared = Shared(experiment, out, planned.only, kept, study, storage)
        with shared.trials.lock:
            known = study.user_attrs.get(_PLAN)
            if known not in (None, _digest(planned)) and shared.tally().at_work:
                raise RunError(
                    f"workers are working on another plan of the study '{kept.name}' in {shown(kept.where)}; wait "
                    "until they have finished or stop them, or give another --out and --study-name"
                )
            rundir.write_json(path, planned.model_dump(mode="json"))
            study.set_user_attr(_PLAN, _digest(planned))
            study.set_user_attr(_HEARTBEAT, kept.heartbeat)
        yield shared


@contextmanager
def joining(where: str, name: str | None, out: Path | None, data_root: Path | None = None) -> Iterator[Shared]:
    """Open the study of an experiment for a worker.

    Args:
        where: where the study is, see `opened`; the folder of an experiment whose study is a journal in it will do.
        name: of the study; by default that of the folder, or else the only experiment there.
        out: the folder of the experiment; by default that of a journal, or else runs/NAME.
        data_root: the folder of the dataset on this machine, if it is not where the plan says.

    Raises:
        RunError: when there is no such study, or the folder holds no plan or that of another study.
    """
    if is_path(where):
        path = RunDir(Path(where)).study if Path(where).is_dir() else Path(where)
        if not path.is_file():
            raise RunError(f"there is no study in {path}; begin one with `nasface experiment NAME --enqueue-only`")
        where, out = str(path), out or path.parent
    with opened(where) as storage:
        name = name or _found(storage, where, out)
        folder = out or Path("runs") / name
        planned, base = _read_plan(folder), {}
        if data_root is not None:
            base = {"data": {"root": str(data_root.resolve())}}
        study = _study(storage, Kept(where, name), create=False)
        if study.user_attrs.get(_PLAN) != _digest(planned):
            raise RunError(
                f"{_plan_file(folder)} is not the plan of the study '{name}' in {shown(where)}; give its --out"
            )
        kept = Kept(where, name, _heartbeat(study.user_attrs.get(_HEARTBEAT)))
        experiment = Experiment(planned.name, planned.plan, recipes.merge(planned.base, base), planned.overrides)
        yield Shared(experiment, folder, planned.only, kept, study, storage)


def _study(storage: BaseStorage, kept: Kept, create: bool) -> optuna.Study:
    import optuna

    try:
        if create:
            return optuna.create_study(storage=storage, study_name=kept.name, load_if_exists=True)
        return optuna.load_study(storage=storage, study_name=kept.name)
    except KeyError as err:
        raise RunError(
            f"there is no study '{shortened(kept.name)}' in {shown(kept.where)}; begin it with "
            "`nasface experiment NAME --storage URL --enqueue-only`, or give --study-name"
        ) from err


def _found(storage: BaseStorage, where: str, out: Path | None) -> str:
    """Return the name of the study of a folder, or of the only experiment in a storage."""
    import optuna

    if out is not None and not is_path(where):
        return out.resolve().name
    names = [study.study_name for study in optuna.get_all_study_summaries(storage) if _PLAN in study.user_attrs]
    if len(names) != 1:
        known = ", ".join(map(shortened, names)) or "none"
        raise RunError(f"{shown(where)} holds {len(names)} experiments ({known}); give one of them with --study-name")
    if fault := name_fault(names[0]):
        raise RunError(f"the name of the study in {shown(where)} {fault}; give --study-name and --out")
    return names[0]


def _plan_file(out: Path) -> Path:
    return out / "experiment.json"


def _read_plan(out: Path) -> _Planned:
    path = _plan_file(out)
    content = rundir.read_json(path, "the plan of an experiment, which `nasface experiment --enqueue-only` writes")
    try:
        return _Planned.model_validate(content)
    except ValidationError as err:
        raise RunError(plugins.explain(err, str(path))) from err


def _digest(planned: _Planned) -> str:
    """Return what identifies a plan; the data may lie elsewhere on every machine."""
    content = planned.model_dump(mode="json")
    if isinstance(data := content["base"].get("data"), dict):
        data.pop("root", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _heartbeat(found: object) -> int:
    if isinstance(found, int) and 0 < found <= LONGEST_BEAT:
        return found
    raise RunError(f"the study asks for a heartbeat of {shortened(str(found))} seconds; expected 1 to {LONGEST_BEAT}")


def _part_of(trial: Trial | FrozenTrial) -> str | None:
    name = trial.user_attrs.get(PART)
    return name if isinstance(name, str) else None


def _held_out(run: RunDir) -> float:
    """Return the lowest held-out NME of the networks of a part, which a dashboard shows; infinity if there is none."""
    found: list[Any] = []
    if run.metrics.exists():
        networks = figures_of(run)["networks"]
        found = [network.get(HELD_OUT.column) for network in networks.values()]
    elif run.pareto.exists():
        table = read_table(run.path)
        found = [table[score.column].min() for score in scores_in(table) if score.subset is None]
    return min((float(nme) for nme in found if nme is not None and nme == nme), default=float("inf"))
