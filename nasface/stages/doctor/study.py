"""Examine a storage of studies: whether it answers, and how far each of its studies has come."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from nasface.errors import RunError, described, shortened
from nasface.stages.doctor.finding import Finding
from nasface.stages.studies.storage import reading, shown
from nasface.stages.studies.trials import ERROR, PART, WORKER, state_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_WORDS = {"COMPLETE": "finished", "RUNNING": "at work", "WAITING": "waiting", "PRUNED": "left to others"}


def examine(where: str) -> Iterator[Finding]:
    """Yield whether a storage answers, and for each study its jobs at work and those that were given up.

    Args:
        where: see `nasface.stages.studies.storage.opened`.
    """
    start = time.perf_counter()
    try:
        with reading(where) as storage:
            studies = [] if storage is None else storage.get_all_studies()
            took = f"answers within {1e3 * (time.perf_counter() - start):.0f} ms"
            yield Finding("study", shown(where), "ok", f"{took}; studies: {len(studies)}")
            for study in studies:
                assert storage is not None
                yield from _progress(study.study_name, storage.get_all_trials(study._study_id, deepcopy=False))
    except RunError as err:
        yield Finding("study", shown(where), "wrong", str(err))
    except Exception as err:  # Optuna trusts what a database holds
        fault = f"{shown(where)} holds studies that cannot be read ({described(err)})"
        yield Finding("study", shown(where), "wrong", f"{fault}; restore it, or give another")


def _progress(name: str, trials: list[FrozenTrial]) -> Iterator[Finding]:
    """The jobs of one study by state. Networks of a sweep that could not be measured belong to its table."""
    counts = Counter(_WORDS.get(trial.state.name, "failed or interrupted") for trial in trials)
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
    yield Finding("study", shortened(name), "ok", f"trials: {said}")
    jobs: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        if isinstance(part := trial.user_attrs.get(PART), str):
            jobs[part].append(trial)
        if trial.state.name == "RUNNING":
            since = f" since {_local(trial.datetime_start)}" if trial.datetime_start else ""
            worker = trial.user_attrs.get(WORKER)
            on = f" on {shortened(str(worker))}" * bool(worker)
            yield Finding("study", f"{shortened(name)}, trial {trial.number}", "note", f"at work{since}{on}")
    for part, own in jobs.items():
        if state_of(own) == "FAIL":
            error = shortened(str(own[-1].user_attrs.get(ERROR)), 300)
            yield Finding("study", f"{shortened(name)}, {shortened(part)}", "wrong", f"was given up: {error}")


def _local(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes")
