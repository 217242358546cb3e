"""The book of a sweep: an Optuna study in a file of its folder, in which every network is a trial.

Several processes may work on one folder: a trial belongs to whoever holds its lock file, which the system lets
go of when a process dies. A trial that is running without an owner was interrupted; the next process takes it up
again. A finished trial is never computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from nasface import rundir
from nasface.errors import RunError
from nasface.pareto import STAGES, front
from nasface.rundir import RunDir

if TYPE_CHECKING:
    import optuna
from nasface.stages.sweep.candidates import Candidate

log = logging.getLogger(__name__)


Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """The networks of a sweep's folder: which there are, who works on what, what they came to."""

    folder: Path
    study: optuna.Study
    seed: int

    @classmethod
    def open(cls, folder: Path, seed: int) -> Study:
        """Open the study of a folder; made where there is none. RunError when its file is damaged."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = RunDir(folder).study
        lock: Any = FileLock(f"{path}.lock")  # optuna's own outlives a killed process
        with lock:
            _mend(path)
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), lock_obj=lock)),
                study_name="sweep",
                directions=["minimize", "minimize"],
                load_if_exists=True,
            )
        except (ValueError, KeyError) as err:
            raise RunError(f"{path} is damaged ({err}); remove the folder of the sweep and start it again") from err
        return cls(folder, study, seed)

    @property
    def table(self) -> Path:
        """pareto.csv."""
        return RunDir(self.folder).pareto

    def run(self, network: str) -> RunDir:
        """Where a network's files lie."""
        return RunDir(self.folder / "networks" / network)

    def ask_for(self, candidate: Candidate, write: Callable[[RunDir], None]) -> None:
        """Note who wants a network; one that is new is written and waits for someone to work on it.

        A disconnected one is on record at once.
        """
        import optuna

        wish = {"asked": candidate.asked, "pruner": candidate.pruner, **candidate.options}
        attributes = {"network": candidate.name, "options": dict(candidate.options), "error": candidate.error}
        with self._lock():
            wishes = self._wishes()
            asked = wishes.setdefault(candidate.name, [])
            if wish not in asked:
                asked.append(wish)
                self.study.set_user_attr("wishes", wishes)
            if any(t.user_attrs["network"] == candidate.name and not _was_interrupted(t) for t in self._trials()):
                return
            if candidate.graph is None:
                failed = optuna.trial.TrialState.FAIL
                self.study.add_trial(optuna.create_trial(state=failed, user_attrs=attributes))
            else:
                write(self.run(candidate.name))
                self.study.enqueue_trial({}, user_attrs=attributes)

    @contextmanager
    def taken(self) -> Iterator[optuna.Trial | None]:
        """The next network that nobody works on, for as long as the block lasts; None when there is none left."""
        owner: FileLock | None = None
        trial: optuna.Trial | None = None
        with self._lock():
            self._requeue_interrupted()
            if self._trials("WAITING"):
                trial = self.study.ask()
                for name, value in trial.user_attrs["options"].items():
                    if isinstance(value, float | int):
                        trial.suggest_float(name, value, value)
                    else:
                        trial.suggest_categorical(name, [str(value)])
                owner = self._owner(trial.user_attrs["network"])
                owner.acquire(timeout=0)  # nobody has it: a network waits once, and never while someone is at it
        try:
            yield trial
        finally:
            if owner is not None:
                owner.release()

    def finish(self, trial: optuna.Trial, row: Mapping[str, Any]) -> None:
        """Record what a network came to: figures by column, as JSON knows them; 'error' where its training diverged."""
        score = next((row[f"held_out_nme_{s}"] for s in reversed(STAGES) if f"held_out_nme_{s}" in row), None)
        with self._lock():
            trial.set_user_attr("row", dict(row))
            self.study.tell(trial, [float("inf") if score is None else score, row["macs"]])

    @property
    def supernet(self) -> Row | None:
        """The supernet's own figures."""
        row: Row | None = self.study.user_attrs.get("supernet")
        return row

    def set_supernet(self, row: Mapping[str, Any]) -> None:
        """Record the supernet's own figures."""
        with self._lock():
            self.study.set_user_attr("supernet", dict(row))

    def position(self) -> str:
        """How far the sweep is, for example '3/8'."""
        done = len(self._trials("COMPLETE"))
        return f"{done + 1}/{done + len(self._trials('RUNNING')) + len(self._trials('WAITING'))}"

    def busy(self) -> int:
        """How many networks others are working on."""
        return len(self._trials("RUNNING"))

    def write_table(self) -> None:
        """Write pareto.csv: the supernet, and a row a network."""
        with self._lock():
            wishes = self._wishes()
            rows = [{"network": "supernet", "state": "done", **self.supernet}] if self.supernet else []
            rows += [
                self._row(trial, wishes) for trial in self._trials("COMPLETE", "FAIL") if not _was_interrupted(trial)
            ]
            rows.sort(key=lambda row: (row["network"] != "supernet", row["state"] != "done", -row.get("macs", 0)))
            for row in rows:
                row["seed"] = self.seed
            _mark_front(rows)
            if rows:
                rundir.write_rows(self.table, [{c: row.get(c) for c in _columns(rows)} for row in rows])

    def _row(self, trial: optuna.trial.FrozenTrial, wishes: Mapping[str, list[dict[str, Any]]]) -> Row:
        name, figures = trial.user_attrs["network"], trial.user_attrs.get("row", {})
        asked = wishes.get(name, [])
        thresholds = [wish["threshold"] for wish in asked if "threshold" in wish]
        disconnected = trial.user_attrs["error"]
        return {
            "network": name,
            "state": "disconnected" if disconnected else "diverged" if "error" in figures else "done",
            "error": disconnected,
            "pruner": ", ".join(dict.fromkeys(_pruner(wish) for wish in asked)),
            "asked": "; ".join(dict.fromkeys(wish["asked"] for wish in asked)),
            "threshold": min(thresholds, default=None),
            **figures,
            "arch": None if disconnected else f"networks/{name}/arch.json",
        }

    def _requeue_interrupted(self) -> None:
        for trial in self._trials("RUNNING"):
            try:
                self._owner(trial.user_attrs["network"]).acquire(timeout=0).lock.release()
            except Timeout:
                continue  # someone is at it
            import optuna

            log.info("network %s was interrupted; it is taken up again", trial.user_attrs["network"])
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial({}, user_attrs=trial.user_attrs)

    def _trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        return [t for t in self.study.get_trials(deepcopy=False) if not states or t.state.name in states]

    def _wishes(self) -> dict[str, list[dict[str, Any]]]:
        wishes: dict[str, list[dict[str, Any]]] = self.study.user_attrs.get("wishes", {})
        return wishes

    def _lock(self) -> FileLock:
        """Held for as long as the study is looked at and changed."""
        return FileLock(self.folder / ".lock")

    def _owner(self, network: str) -> FileLock:
        return FileLock(self.run(network).path / ".lock")


def _was_interrupted(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a process died at it; another trial stands for the network since, or will."""
    return trial.state.name == "FAIL" and not trial.user_attrs["error"]


def _mend(path: Path) -> None:
    """Cut off what a full disk or a kill left of a last line; what would come after it could not be read."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _pruner(wish: Mapping[str, Any]) -> str:
    seed = f" seed={wish['seed']}" if "seed" in wish else ""
    return f"{wish['pruner']}{seed}"


def _mark_front(rows: list[Row]) -> None:
    """Mark the networks that none beats in both MACs and the held-out NME of the last stage."""
    done = [row for row in rows if row["state"] == "done" and row["network"] != "supernet"]
    stage = next((s for s in reversed(STAGES) if any(f"held_out_nme_{s}" in row for row in done)), "")
    points = np.array([[row["macs"], row.get(f"held_out_nme_{stage}", np.nan)] for row in done]).reshape(-1, 2)
    for row, on_front in zip(done, front(points), strict=True):
        row["on_front"] = bool(on_front)


def _columns(rows: list[Row]) -> list[str]:
    """What a network is, what it costs, how well it does; the rest as it comes."""
    first = ["network", "state", "asked", "pruner", "threshold", "edges", "blocks", "params", "macs", "params_no_head"]
    first += ["macs_no_head", "macs_prunable", "prunable_share", "latency_ms", "supernet_latency_ms", "latency_batch"]
    first += ["threads", "device"]
    last = ["on_front", "seed", "arch", "error"]
    rest = dict.fromkeys(column for row in rows for column in row if column not in (*first, *last))
    return [*first, *rest, *last]
