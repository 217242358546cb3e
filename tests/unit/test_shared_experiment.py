"""Workers on an experiment that meet errors, damaged folders and one another: no part is lost or done twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest

from nasface.errors import DivergedError, GraphError, NasfaceError, NotComparableError, RecipeError, RunError
from nasface.rundir import RunDir
from nasface.stages.experiment.part import Stand, Status
from nasface.stages.experiment.plan import read_experiment
from nasface.stages.experiment.shared import Shared, sharing
from nasface.stages.studies.storage import Kept
from nasface.stages.workspace import Machine
from tests.refusal import names, refused
from tests.searched import MACHINE
from tests.workers import written


@dataclass
class Work:
    """What stands for the work of a part: raises an error as often as asked, and then is done."""

    error: NasfaceError | None = None
    times: int = 1
    begun: int = 0
    done: bool = False

    def __call__(self, machine: Machine) -> None:
        self.begun += 1
        if self.error is not None and self.begun <= self.times:
            raise self.error
        self.done = True

    def status(self) -> Status:
        return Status(Stand.FINISHED if self.done else Stand.NOT_BEGUN)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """An experiment of two searches, plain-0 and plain-1, that wait."""
    experiment, out = read_experiment(str(written(tmp_path, seeds=[0, 1])), None), tmp_path / "out"
    with sharing(experiment, out, (), Kept(str(out / "study.log"), "out")) as shared:
        shared.enqueue()
        yield shared


def given(shared: Shared, *works: Work) -> None:
    """Let the first parts have this work instead of their own."""
    for (name, part), work in zip(list(shared.parts.items()), works, strict=False):
        shared.parts[name] = replace(part, work=work, status=work.status)


def test_a_worker_without_its_device_takes_no_part(shared: Shared):
    given(shared, first := Work(), Work())
    with refused(RunError, "nonsense", "--device"):
        shared.work(replace(MACHINE, device="nonsense"))
    assert (first.begun, shared.tally().waiting, len(shared.study.trials)) == (0, 2, 2)


@pytest.mark.parametrize("error", [RunError("the disk is full"), RecipeError("a plug-in is not installed")])
def test_an_error_of_this_machine_leaves_the_part_to_others(shared: Shared, error: NasfaceError):
    given(shared, first := Work(error), second := Work())
    with refused(type(error), error):
        shared.work(MACHINE)
    assert (shared.tally().waiting, shared.tally().given_up, second.begun) == (2, 0, 0)
    shared.work(MACHINE)  # as another worker
    assert (shared.tally().finished, first.begun, second.begun) == (2, 2, 1)


@pytest.mark.parametrize("error", [DivergedError("nan"), GraphError("nothing fits"), NotComparableError("too much")])
def test_what_nobody_can_do_is_given_up(shared: Shared, error: NasfaceError, caplog: pytest.LogCaptureFixture):
    given(shared, first := Work(error), Work())
    shared.study.enqueue_trial({}, user_attrs={"part": "../outside"})
    shared.work(MACHINE)
    assert (shared.tally().finished, shared.tally().given_up, first.begun) == (1, 1, 1)
    assert "is given up" in caplog.text
    assert "not a part" in shared.study.trials[2].user_attrs["error"]


def test_damage_in_the_folder_of_a_part_does_not_undo_another_one(shared: Shared, caplog: pytest.LogCaptureFixture):
    damaged = RunDir(shared.out / "plain-1")
    damaged.path.mkdir()
    damaged.recipe.write_text(shared.experiment.recipe({}, 1).to_yaml())
    damaged.metrics.write_text('{"networks": {"sl')
    given(shared, Work())
    with refused(RunError, damaged.metrics):  # when its turn comes
        shared.work(MACHINE)
    assert [trial.state.name for trial in shared.study.trials] == ["COMPLETE", "FAIL", "WAITING"]
    assert (shared.tally().finished, shared.tally().waiting, shared.tally().given_up) == (1, 1, 0)
    assert str(damaged.metrics) in caplog.text


def test_a_worker_waits_for_one_that_lives_without_a_heartbeat(shared: Shared, monkeypatch: pytest.MonkeyPatch):
    waited: list[tuple[int, int]] = []

    def sleep(seconds: float) -> None:
        waited.append((shared.tally().at_work, len(shared.study.trials)))
        if len(waited) == 3:
            first.done = True
            owner.release()

    monkeypatch.setattr("nasface.stages.experiment.shared.time.sleep", sleep)
    given(shared, first := Work(), Work())
    owner = shared._owner("plain-0")
    owner.acquire()
    trial = shared.study.ask()
    trial.set_user_attr("worker", "alive")
    shared.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    shared.work(MACHINE)
    assert waited == [(1, 2)] * 3
    assert (shared.tally().finished, first.begun) == (2, 0)


@pytest.mark.parametrize("error", [GraphError("nothing fits"), RunError("the disk is full")])
@pytest.mark.parametrize("asks", [True, False])
def test_an_error_while_helping_is_a_warning(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: NasfaceError, asks: bool
):
    """Whether there is something to help with can fail too."""

    def fail(*_: object) -> bool:
        raise error

    def other_worker_goes_on(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            first.done = True
            shared.study.tell(trial, 1.0)
            owner.release()

    waited: list[float] = []
    monkeypatch.setattr("nasface.stages.experiment.shared.time.sleep", other_worker_goes_on)
    given(shared, first := Work(), second := Work())
    helped = {"can_help": fail} if asks else {"can_help": lambda: True, "work": fail}
    shared.parts["plain-0"] = replace(shared.parts["plain-0"], **helped)  # type: ignore[arg-type]
    owner = shared._owner("plain-0")
    owner.acquire()
    trial = shared.study.ask()
    trial.set_user_attr("worker", "alive")
    shared.work(MACHINE)
    assert (shared.tally().finished, second.begun, len(waited)) == (2, 1, 3)
    (said,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    names(said, "plain-0", error)
