"""The book of a sweep: an Optuna study in which every network is a trial, in a file of its folder or elsewhere.

Several processes may work on one folder. With the file, a trial belongs to the process that holds its lock file, which
the system releases when the process dies. A trial that is running without an owner was interrupted, and the next
process takes it up again. Elsewhere, `nasface.stages.studies` does so. A finished trial is never computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from nasface import rundir
from nasface.errors import RunError
from nasface.pareto import with_front
from nasface.places import checked_name
from nasface.rundir import RunDir
from nasface.scores import SUPERNET, State, SweepRow, table_of
from nasface.stages.studies.storage import Kept, damaged, in_journal, journal, opened, shown
from nasface.stages.studies.trials import Trials, is_free
from nasface.stages.sweep.candidates import Candidate, SweepRequest

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

NAME = "sweep"
_UNTUNED = ", not fine-tuned"


@dataclass(frozen=True)
class Standing:
    """How far a sweep has come.

    Attributes:
        finished, open: networks that are measured (or cannot be), and networks that wait or are being worked on.
        waiting: networks that nobody works on.
        wishes: requests so far; several can have the same network as their answer.
        asked: digests of the requests whose candidates have all been asked for.
    """

    finished: int = 0
    open: int = 0
    waiting: int = 0
    wishes: int = 0
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """The networks of a sweep's folder: which ones there are, who works on them, and how they turned out.

    Attributes:
        folder: the folder of the sweep.
        study, storage: the study, and where it is kept.
        seed: of the sweep's recipe.
        trials: its queue, if it is not in a file of the folder.
    """

    folder: Path
    study: optuna.Study
    storage: optuna.storages.BaseStorage
    seed: int
    trials: Trials | None = None

    @classmethod
    def open(cls, folder: Path, seed: int) -> Study:
        """Open the study in the file of a folder, or create it where there is none; a RunError when it is damaged."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = RunDir(folder).study
        try:
            storage = journal(path)
            study = _created(storage, NAME)
        except (ValueError, KeyError) as err:
            raise damaged(path, err) from err
        return cls(folder, study, storage, seed)

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, seed: int, job: Mapping[str, str], kept: Kept | None) -> Iterator[Study]:
        """Open the study of a folder for as long as the block lasts; a RunError if it is that of another sweep.

        Args:
            folder: of the sweep.
            seed: of its recipe.
            job: what identifies the sweep.
            kept: where its study is; None for a file in the folder.
        """
        if kept is None:
            yield cls.open(folder, seed)
            return
        with opened(kept.where) as storage:
            own = cls(folder, _created(storage, kept.name), storage, seed)
            with own.lock():
                if own.study.user_attrs.setdefault("sweep", dict(job)) != dict(job):
                    raise RunError(
                        f"the study '{kept.name}' in {shown(kept.where)} is that of another sweep; give --study-name"
                    )
                own.study.set_user_attr("sweep", dict(job))
            yield replace(own, trials=Trials(own.study, storage, _job, own.lock(), own._owner, kept.heartbeat))

    def inner(self, name: str) -> str:
        """Return the name of a study in the same storage that belongs to this one."""
        return name if self.trials is None else f"{self.study.study_name}: {name}"

    def run(self, network: str) -> RunDir:
        """The folder of a network; a RunError if the name comes from a damaged study and is none."""
        folder = RunDir(self.folder)
        return folder.network(checked_name(network, folder.study))

    def ask_for(self, candidate: Candidate, write: Callable[[RunDir], None], untuned: bool = False) -> None:
        """Record a request. A new network is written to its folder and waits for a process to work on it.

        A candidate that is disconnected is finished at once.

        Args:
            candidate: the network.
            write: writes it to its folder.
            untuned: whether it is only to be measured, for now, without being fine-tuned.
        """
        import optuna

        wish = {"asked": candidate.asked, "pruner": candidate.pruner, **candidate.options}
        attributes: dict[str, Any] = {"network": candidate.name, "options": dict(candidate.options)}
        attributes |= {"error": candidate.error, **({"untuned": True} if untuned else {})}
        with self.lock():
            wishes = self._wishes()
            asked = wishes.setdefault(candidate.name, [])
            if wish not in asked:
                asked.append(wish)
                self.study.set_user_attr("wishes", wishes)
            if self._is_asked(candidate.name, untuned):
                return
            if candidate.graph is None:
                failed = optuna.trial.TrialState.FAIL
                self.study.add_trial(optuna.create_trial(state=failed, user_attrs=attributes))
            else:
                write(self.run(candidate.name))
                self.study.enqueue_trial({}, user_attrs=attributes)

    def note(self, request: SweepRequest) -> None:
        """Record that all candidates of a request have been asked for: there may be fewer than its wishes."""
        with self.lock():
            asked = self.study.user_attrs.get("asked", [])
            if request.digest not in asked:
                self.study.set_user_attr("asked", [*asked, request.digest])

    def tune(self, networks: Iterable[str]) -> None:
        """Let networks that were only measured wait for a process that fine-tunes them too."""
        with self.lock():
            for network in networks:
                if not self._is_asked(network, untuned=False):
                    (known, *_) = (trial for trial in self._trials() if trial.user_attrs["network"] == network)
                    attributes = {
                        name: value for name, value in known.user_attrs.items() if name not in ("untuned", "row")
                    }
                    self.study.enqueue_trial({}, user_attrs=attributes)

    def _is_asked(self, network: str, untuned: bool) -> bool:
        """Whether a network is measured or will be, and fine-tuned too unless that is not needed."""
        trials = (t for t in self._trials() if t.user_attrs["network"] == network and not _was_interrupted(t))
        return any(untuned or "untuned" not in trial.user_attrs for trial in trials)

    def networks(self) -> dict[str, SweepRow | None]:
        """The networks that were asked for by name, each with its row if it is measured."""
        found: dict[str, SweepRow | None] = {}
        for trial in self._trials():
            row = trial.user_attrs.get("row") if trial.state.name == "COMPLETE" else None
            name = trial.user_attrs["network"]
            found[name] = SweepRow.from_columns(row) if row else found.get(name)
        return found

    @contextmanager
    def taken(self) -> Iterator[optuna.Trial | None]:
        """Hold the next network that nobody works on while the block runs; None when there is none left."""
        owner: FileLock | None = None
        trial: optuna.Trial | None = None
        with self.lock():
            self._requeue_interrupted()
            waiting = self._trials("WAITING")
            if not any(is_free(self._owner(each.user_attrs["network"])) for each in waiting):
                waiting = []  # others are measuring all of them, which are to be fine-tuned after that
            for _ in waiting:
                trial = self.study.ask()
                owner = self._owner(trial.user_attrs["network"])
                try:
                    owner.acquire(timeout=0)
                except Timeout:
                    self._put_back(trial)
                    trial = owner = None
                else:
                    _note_options(trial)
                    rundir.remove_partials(self.run(trial.user_attrs["network"]).path)
                    break
        try:
            yield trial
        finally:
            if owner is not None:
                owner.release()

    def work_off(self, measure: Callable[[str, bool], SweepRow]) -> None:
        """Measure the networks that wait, one after the other, until none is left, and keep pareto.csv up to date.

        Args:
            measure: takes the name of a network, and whether it is only measured for now, without being fine-tuned.
                `error` of the row says where its training diverged.
        """

        def one(_: str, trial: optuna.Trial) -> list[float]:
            self.write_table()
            _note_options(trial)
            rundir.remove_partials(self.run(trial.user_attrs["network"]).path)
            row = measure(trial.user_attrs["network"], "untuned" in trial.user_attrs)
            trial.set_user_attr("row", _without_gaps(row))
            return _values(row)

        if self.trials is not None:
            self.trials.work_off(one, dict, lambda: False)
            return
        while True:
            self.write_table()
            with self.taken() as trial:
                if trial is None:
                    return
                row = measure(trial.user_attrs["network"], "untuned" in trial.user_attrs)
                with self.lock():
                    trial.set_user_attr("row", _without_gaps(row))
                    self.study.tell(trial, _values(row))

    @property
    def supernet(self) -> SweepRow | None:
        """The supernet's own figures."""
        figures: dict[str, Any] | None = self.study.user_attrs.get("supernet")
        return SweepRow.from_columns({"network": SUPERNET, **figures}) if figures else None

    def set_supernet(self, row: SweepRow) -> None:
        """Record the supernet's own figures."""
        with self.lock():
            self.study.set_user_attr("supernet", _without_gaps(row))

    def position(self) -> str:
        """How far the sweep has come, for example '3/8'."""
        done = len(self._trials("COMPLETE"))
        return f"{done + 1}/{done + len(self._trials('RUNNING')) + len(self._trials('WAITING'))}"

    def busy(self) -> int:
        """How many networks other processes are working on."""
        if self.trials is not None:
            return list(self.trials.states().values()).count("RUNNING")
        return len(self._trials("RUNNING"))

    def standing(self) -> Standing:
        """How far the sweep has come, in numbers."""
        finished = {t.user_attrs["network"] for t in self._trials("COMPLETE", "FAIL") if not _was_interrupted(t)}
        finished -= {trial.user_attrs["network"] for trial in self._trials("WAITING", "RUNNING")}
        open_ = {trial.user_attrs["network"] for trial in self._trials()} - finished
        waiting = len(self._trials("WAITING"))
        wishes, asked = sum(map(len, self._wishes().values())), tuple(self.study.user_attrs.get("asked", ()))
        return Standing(len(finished), len(open_), waiting, wishes, asked)

    def write_table(self) -> list[SweepRow]:
        """Write pareto.csv, one row for the supernet and one per network, and return its rows."""
        with self.lock():
            wishes = self._wishes()
            rows = [supernet] if (supernet := self.supernet) else []
            finished = (trial for trial in self._trials("COMPLETE", "FAIL") if not _was_interrupted(trial))
            last = {trial.user_attrs["network"]: trial for trial in finished}  # the later one was fine-tuned too
            rows += [self._row(trial, wishes) for trial in last.values()]
            rows.sort(key=lambda row: (row.network != SUPERNET, row.state is not State.DONE, -(row.macs or 0)))
            rows = with_front([replace(row, seed=self.seed) for row in rows])
            if rows:
                rundir.write_rows(RunDir(self.folder).pareto, table_of(rows))
            return rows

    def _row(self, trial: optuna.trial.FrozenTrial, wishes: Mapping[str, list[dict[str, Any]]]) -> SweepRow:
        name = trial.user_attrs["network"]
        disconnected = trial.user_attrs["error"]
        row = SweepRow.from_columns({**trial.user_attrs.get("row", {}), "network": name, "state": State.DONE})
        asked = wishes.get(name, [])
        thresholds = [wish["threshold"] for wish in asked if "threshold" in wish]
        return replace(
            row,
            state=State.DISCONNECTED if disconnected else State.DIVERGED if row.error else State.DONE,
            error=disconnected or row.error,
            pruner=", ".join(dict.fromkeys(_pruner(wish) for wish in asked)),
            asked="; ".join(dict.fromkeys(wish["asked"] for wish in asked)),
            threshold=min(thresholds, default=None),
            arch=None if disconnected else f"networks/{name}/arch.json",
        )

    def _requeue_interrupted(self) -> None:
        for trial in self._trials("RUNNING"):
            if not is_free(self._owner(trial.user_attrs["network"])):
                continue  # its owner is alive
            log.info("network %s was interrupted and is resumed", trial.user_attrs["network"])
            self._put_back(trial)

    def _put_back(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
        """Let another trial wait in the place of one that is running."""
        import optuna

        self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        self.study.enqueue_trial({}, user_attrs=trial.user_attrs)

    def _trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        trials = (trial for trial in self.study.get_trials(deepcopy=False) if "network" in trial.user_attrs)
        return [trial for trial in trials if not states or trial.state.name in states]

    def _wishes(self) -> dict[str, list[dict[str, Any]]]:
        wishes: dict[str, list[dict[str, Any]]] = self.study.user_attrs.get("wishes", {})
        return wishes

    def lock(self) -> FileLock:
        """Return the lock that is held whenever the study is read and changed."""
        return FileLock(self.folder / ".lock")

    def _owner(self, network: str) -> FileLock:
        return FileLock(self.run(network.removesuffix(_UNTUNED)).path / ".lock")


def _created(storage: optuna.storages.BaseStorage, name: str) -> optuna.Study:
    import optuna

    return optuna.create_study(
        storage=storage, study_name=name, directions=["minimize", "minimize"], load_if_exists=True
    )


def _job(trial: optuna.Trial | optuna.trial.FrozenTrial) -> str | None:
    """The name of a trial's job: its network, to be measured only or to be fine-tuned too."""
    network = trial.user_attrs.get("network")
    return None if network is None else f"{network}{_UNTUNED if 'untuned' in trial.user_attrs else ''}"


def _note_options(trial: optuna.Trial) -> None:
    """Record numeric options of the pruner as parameters of the trial; Optuna takes no others that differ by trial."""
    for name, value in trial.user_attrs["options"].items():
        if isinstance(value, float | int):
            trial.suggest_float(name, value, value)


def _values(row: SweepRow) -> list[float]:
    """What is minimised."""
    values = (row.held_out_error, row.macs)
    return [float("inf") if value is None else float(value) for value in values]


def standing_of(folder: Path, kept: Kept | None = None) -> Standing:
    """How far the sweep in a folder has come; no further than nothing where none has begun.

    Args:
        folder: of the sweep.
        kept: see `Study.opened`.
    """
    import optuna

    path = RunDir(folder).study
    if kept is not None:
        with opened(kept.where) as storage:
            try:
                study = optuna.load_study(study_name=kept.name, storage=storage)
            except KeyError:
                return Standing()
            return Study(folder, study, storage, 0).standing()
    if not path.exists():
        return Standing()
    with in_journal(path) as storage:
        try:
            study = optuna.load_study(study_name=NAME, storage=storage)
        except KeyError as err:
            raise damaged(path, err) from err
    return Study(folder, study, storage, 0).standing()


def _was_interrupted(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a process died while working on it; another trial then stands for the network, or will."""
    return trial.state.name == "FAIL" and not trial.user_attrs["error"]


def _without_gaps(row: SweepRow) -> dict[str, Any]:
    """The figures that are there, since JSON knows no NaN and a journal need not repeat what is empty."""
    return {name: value for name, value in row.as_columns().items() if value is not None}


def _pruner(wish: Mapping[str, Any]) -> str:
    seed = f" seed={wish['seed']}" if "seed" in wish else ""
    return f"{wish['pruner']}{seed}"
