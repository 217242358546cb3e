"""The trials of a study as jobs that several processes take, lose and give back.

A job stands in one trial. Where a process was killed or stopped, that trial has failed and another one stands for the
job, which carries the number of the first. Whether a process lives is known from Optuna's heartbeats in a database, and
elsewhere from a lock file, which the system releases when its process dies.

One lock is held from looking for a job that waits until the process that takes it has said so. No two processes take
the same job, and whoever holds the lock sees which one has died in between.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from nasface.errors import NasfaceError, RunBusyError
from nasface.stages.studies.storage import HEARTBEAT

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

MISSED = 5
"""A process that misses this many of them counts as dead; with fewer, a busy machine or server kills healthy ones."""
ERROR = "error"
"""The attribute of a trial that says why nobody can do its job."""
PART = "part"
"""The attribute of a trial that names the part of an experiment that is its job."""
WORKER = "worker"
"""The attribute of a trial that says which process is at it."""
_AGAIN = 1.0  # seconds before a job that is given back waits again

Values = float | Sequence[float]


class _NotDoneError(Exception):
    """The job of a trial was not done, which is known and no fault of the program."""


@dataclass
class Trials:
    """The jobs of a study.

    Attributes:
        study, storage: the study, and where it is kept.
        job: returns the name of the job of a trial; None for a trial that is none.
        lock: the lock that is held while the queue changes.
        owner: returns the lock of a job, which is held by the process that works on it.
        heartbeat: seconds between two signs of life, in a database.
    """

    study: optuna.Study
    storage: BaseStorage
    job: Callable[[FrozenTrial | Trial], str | None]
    lock: FileLock
    owner: Callable[[str], FileLock]
    heartbeat: int = HEARTBEAT
    _ended: bool = False

    def __post_init__(self) -> None:
        from optuna.storages import RDBStorage

        self._beats = isinstance(self.storage, RDBStorage)
        if isinstance(self.storage, RDBStorage):
            self.storage.heartbeat_interval = self.heartbeat
            self.storage.grace_period = MISSED * self.heartbeat
            self.storage.heartbeat_stale_trial_callback = lambda _, trial: self._again_if_lost(trial)

    def by_job(self) -> dict[str, list[FrozenTrial]]:
        """Return the trials of every job, the first attempt first."""
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if (name := self.job(trial)) is not None:
                found.setdefault(name, []).append(trial)
        return found

    def states(self) -> dict[str, str]:
        """Return the state of every job by name; one whose process lives is at work, even if its trial has failed."""
        with self.lock:  # or a process that takes a job would find its lock held for a moment
            return {name: self._state(name, trials) for name, trials in self.by_job().items()}

    def _state(self, name: str, trials: Sequence[FrozenTrial]) -> str:
        state = state_of(trials)
        return "RUNNING" if state == "LOST" and not is_free(self.owner(name)) else state

    def refresh(self, wanted: Mapping[str, Mapping[str, Any]], again: bool = False) -> None:
        """Let jobs wait for a process: new ones, and those whose process is dead or has given them back.

        Args:
            wanted: the jobs that can be done now by name, each with the attributes of its trial.
            again: whether jobs that were given up wait again.
        """
        with self.lock:
            self._fail_dead()
            known = self.by_job()
            for name in (name for name in wanted if name not in known):
                self.study.enqueue_trial({}, user_attrs=dict(wanted[name]))
            for name, trials in known.items():
                if self._state(name, trials) in ("LOST", "FAIL" if again else "LOST"):
                    self._enqueue_again(trials[-1])

    def work_off(
        self,
        work: Callable[[str, Trial], Values],
        wanted: Callable[[], Mapping[str, Mapping[str, Any]]],
        wait: Callable[[], bool],
        given_up: tuple[type[NasfaceError], ...] = (),
    ) -> None:
        """Do one job after the other until none is left.

        Args:
            work: does a job and returns the values of its trial. Whatever it raises gives the job back and ends the
                work of this process, except for `given_up` and for a RunBusyError, which leaves the job for later.
            wanted: returns the jobs that can be done now, see `refresh`.
            wait: is called when no job waits; returns whether to look again.
            given_up: errors that say that nobody can do the job.
        """

        def one(trial: Trial) -> Values:
            self._ended = False
            try:
                with self._claimed(trial) as name:
                    values = work(name, trial)
            except RunBusyError as err:
                log.warning("%s; it is left for later", err)
                time.sleep(_AGAIN)
                self._ended = True
                raise _NotDoneError from err
            except given_up as err:
                log.warning("%s is given up: %s", self.job(trial), err)
                trial.set_user_attr(ERROR, str(err))
                self._ended = True
                raise _NotDoneError from err
            self._ended = True
            return values

        def look(*_: object) -> None:
            if not self._found(wanted, wait):
                self.study.stop()

        try:
            while self._found(wanted, wait):
                if self._optimize(one, look):
                    break
        except BaseException:
            self.lock.release(force=True)
            self.refresh({})  # what this process gives back waits for others at once
            raise
        finally:
            self.lock.release(force=True)

    def _found(self, wanted: Callable[[], Mapping[str, Mapping[str, Any]]], wait: Callable[[], bool]) -> bool:
        """Return whether a job waits. The lock is then held, and `_claimed` releases it."""
        from optuna.trial import TrialState

        while True:
            now = wanted()
            self.lock.acquire()
            self.refresh(now)
            if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return True
            self.lock.release()
            if not wait():
                return False

    def _optimize(self, one: Callable[[Trial], Values], look: Callable[..., None]) -> bool:
        """Let Optuna run the jobs; False when another process has taken over the job that this one has worked on."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.study.optimize(one, catch=(_NotDoneError,), callbacks=[look])
        except (ValueError, AssertionError, UpdateFinishedTrialError) as err:  # Optuna does not expect this
            if not self._ended and not isinstance(err, UpdateFinishedTrialError):
                raise
            log.warning("this process was considered dead; its job has been requeued")
            return False
        return True

    @contextmanager
    def _claimed(self, trial: Trial) -> Iterator[str]:
        """Hold the job of a trial while the block runs. It is pruned if another trial stands for the same job."""
        from optuna import TrialPruned

        name = self.job(trial)
        try:
            if name is None or any(_precedes(other, trial) for other in self.by_job()[name]):
                raise TrialPruned
            owner = self.owner(name)
            trial.set_user_attr(WORKER, f"{platform.node()}, process {os.getpid()}")
            try:
                owner.acquire(timeout=0)
            except Timeout as err:
                raise RunBusyError(
                    f"the process that began {name} is still running although it sent no heartbeat"
                ) from err
        finally:
            self.lock.release(force=True)
        try:
            yield name
        finally:
            owner.release()

    def _fail_dead(self) -> None:
        """Let the trials of dead processes fail; where there are heartbeats, Optuna has an eye on those that beat."""
        from optuna.storages import fail_stale_trials
        from optuna.trial import TrialState

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if (name := self.job(trial)) is not None and self._is_dead(name, trial):
                log.info("%s was interrupted and has been requeued", name)
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _is_dead(self, name: str, trial: FrozenTrial) -> bool:
        if WORKER not in trial.user_attrs:  # it has died before it could say so, or the lock would be held
            return True
        return not self._beats and is_free(self.owner(name))

    def _again_if_lost(self, trial: FrozenTrial) -> None:
        """Let the job of a trial whose heartbeat has stopped wait again, unless its process lives."""
        name = self.job(trial)
        if name is not None and self._state(name, self.by_job()[name]) == "LOST":
            self._enqueue_again(trial)

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        from optuna.storages import RetryHeartbeatStaleTrialCallback

        attempt = deepcopy(trial)
        over = {WORKER, ERROR} if trial.user_attrs.get(ERROR) else {WORKER}
        attempt.user_attrs = {key: value for key, value in trial.user_attrs.items() if key not in over}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            RetryHeartbeatStaleTrialCallback()(self.study, attempt)


def state_of(trials: Sequence[FrozenTrial]) -> str:
    """Return the state of a job with these trials: 'COMPLETE', 'RUNNING', 'WAITING', 'FAIL' (for good) or 'LOST'."""
    states = {trial.state.name for trial in trials}
    for state in ("COMPLETE", "RUNNING", "WAITING"):
        if state in states:
            return state
    return "FAIL" if trials[-1].user_attrs.get(ERROR) else "LOST"


def first_attempt(trial: FrozenTrial) -> int:
    """Return the number of the first trial of a job."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def is_free(lock: FileLock) -> bool:
    """Return whether nobody holds a lock."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _precedes(other: FrozenTrial, trial: Trial) -> bool:
    """Return whether another trial of the same job is done, or at work and older."""
    return other.state.name == "COMPLETE" or (other.state.name == "RUNNING" and other.number < trial.number)
