"""Studies that machines share: the queue, what a study or a plan may say, and the page that describes it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from click.testing import CliRunner
from filelock import FileLock

from nasface.cli import main
from nasface.errors import DivergedError, RunBusyError, RunError
from nasface.importing import NotAllowedError
from nasface.stages.experiment.plan import read_experiment
from nasface.stages.experiment.run import parts_of
from nasface.stages.experiment.shared import Shared, joining, sharing
from nasface.stages.studies.storage import Kept, opened, shown
from nasface.stages.studies.trials import Trials, first_attempt, state_of
from tests.docs import ROOT, commands, parse, snippets
from tests.refusal import refused
from tests.searched import MACHINE
from tests.workers import written

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "many-machines.md"


@pytest.fixture(params=["journal", "sqlite"])
def trials(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trials]:
    where = str(tmp_path / "study.log") if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"
    with opened(where) as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        yield Trials(
            study, storage, lambda trial: trial.user_attrs.get("job"), FileLock(tmp_path / ".lock"),
            lambda name: FileLock(tmp_path / f"{name}.lock"),
        )  # fmt: skip


def wanted(*names: str) -> dict[str, dict[str, str]]:
    return {name: {"job": name} for name in names}


def states(trials: Trials) -> dict[str, str]:
    return {name: state_of(found) for name, found in trials.by_job().items()}


def test_jobs_are_done_once_and_in_order(trials: Trials):
    done: list[str] = []
    trials.refresh(wanted("a", "b"))
    trials.refresh(wanted("a", "b"))
    trials.work_off(lambda name, _: done.append(name) or 1.0, lambda: wanted("a", "b", "c"), lambda: False)  # type: ignore[func-returns-value]
    assert done == ["a", "b", "c"]
    assert states(trials) == dict.fromkeys("abc", "COMPLETE")
    assert len(trials.study.trials) == 3


def test_a_job_that_is_given_up_does_not_stop_the_others_and_can_wait_again(trials: Trials):
    def work(name: str, _: object) -> float:
        if name == "a" and state_of(trials.by_job()["a"][:1]) == "RUNNING":
            raise DivergedError("the loss is nan")
        return 1.0

    trials.refresh(wanted("a", "b"))
    trials.work_off(work, dict, lambda: False, (DivergedError,))
    assert states(trials) == {"a": "FAIL", "b": "COMPLETE"}
    assert trials.study.trials[0].user_attrs["error"] == "the loss is nan"
    trials.work_off(work, dict, lambda: False, (DivergedError,))
    assert states(trials)["a"] == "FAIL"
    trials.refresh({}, again=True)
    trials.work_off(work, dict, lambda: False, (DivergedError,))
    assert states(trials)["a"] == "COMPLETE"
    assert first_attempt(trials.study.trials[-1]) == 0


def test_a_busy_job_is_left_for_later(trials: Trials, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nasface.stages.studies.trials._AGAIN", 0)
    tries: list[str] = []

    def work(name: str, _: object) -> float:
        tries.append(name)
        if tries == ["a"]:
            raise RunBusyError("another process is working in a")
        return 1.0

    trials.refresh(wanted("a", "b"))
    trials.work_off(work, dict, lambda: False)
    assert tries == ["a", "b", "a"]
    assert states(trials) == {"a": "COMPLETE", "b": "COMPLETE"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_job_waits_again_at_once(trials: Trials, error: type[BaseException]):
    def stop(*_: object) -> float:
        raise error("stop")

    trials.refresh(wanted("a"))
    with pytest.raises(error, match="stop"):
        trials.work_off(stop, dict, lambda: False)
    first, second = trials.study.trials
    assert (first.state.name, second.state.name) == ("FAIL", "WAITING")
    assert first_attempt(second) == 0
    assert second.user_attrs == {"job": "a"}


def test_a_second_trial_of_a_job_is_pruned(trials: Trials):
    done: list[str] = []
    trials.refresh(wanted("a"))
    trials.study.enqueue_trial({}, user_attrs={"job": "a"})
    trials.work_off(lambda name, _: done.append(name) or 1.0, dict, lambda: False)  # type: ignore[func-returns-value]
    assert done == ["a"]
    assert [trial.state.name for trial in trials.study.trials] == ["COMPLETE", "PRUNED"]


def test_a_worker_that_was_taken_for_dead_goes_on_with_other_jobs(trials: Trials, caplog: pytest.LogCaptureFixture):
    done: list[str] = []

    def work(name: str, trial: optuna.Trial) -> float:
        done.append(name)
        if len(done) == 1:  # another worker has not heard from this one
            trials.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return 1.0

    trials.refresh(wanted("a", "b"))
    trials.work_off(work, dict, lambda: False)
    assert done == ["a", "b", "a"]
    assert "considered dead" in caplog.text
    assert states(trials) == {"a": "COMPLETE", "b": "COMPLETE"}


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_job_whose_process_lives_is_left_to_it_without_a_heartbeat(trials: Trials, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nasface.stages.studies.trials.time.sleep", lambda _: pytest.fail("it was tried"))
    tries: list[str] = []
    looks: list[dict[str, str]] = []

    def wait() -> bool:
        looks.append(trials.states())
        if len(looks) == 2:
            owner.release()
        return len(looks) < 3

    trials.refresh(wanted("a"))
    owner = trials.owner("a")
    owner.acquire()
    first = trials.study.ask()
    first.set_user_attr("worker", "alive")
    trials.study.tell(first, state=optuna.trial.TrialState.FAIL)  # by Optuna, in another process
    trials._again_if_lost(trials.study.trials[0])
    trials.work_off(lambda name, _: tries.append(name) or 1.0, dict, wait)  # type: ignore[func-returns-value]
    assert looks == [{"a": "RUNNING"}, {"a": "RUNNING"}, {"a": "COMPLETE"}]
    assert tries == ["a"]
    assert [trial.state.name for trial in trials.study.trials] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("grpc://host", "grpc://HOST:PORT"),
        ("oracle://user:secret@host/name", "host/name"),
        ("postgresql://user:secret@127.0.0.1:1/name", "127.0.0.1:1/name"),
        ("nonsense://", "nonsense://"),
    ],
)
def test_a_storage_that_cannot_be_had_is_named_without_its_password(where: str, said: str):
    if where.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="needs the extra 'cluster'")
    with pytest.raises(RunError) as caught, opened(where):
        pass
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert shown("postgresql://user:secret@host:1/name") == "postgresql://host:1/name"


def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path: Path):
    own = tmp_path / "own.txt"
    own.write_text("no newline")
    with refused(RunError, "own.txt", "journal"), joining(str(own), None, None):
        pass
    assert own.read_text() == "no newline"


def test_a_study_begins_with_what_can_be_done_and_knows_its_plan(tmp_path: Path):
    variants = {"all": {}, "none": {"teacher": False}}
    plan = written(tmp_path, seeds=[0, 1], sweeps={"sizes": {"shares": [0.6]}}, teacher={}, distill=variants)
    experiment, out = read_experiment(str(plan), None), tmp_path / "out"
    needs = {
        str(p.folder.path.relative_to(out)): [n.folder.path.name for n in p.needs] for p in parts_of(experiment, out)
    }
    assert needs["plain-0/sizes"] == ["plain-0"]
    assert needs["plain-1/all"] == ["plain-1", "teacher-1"]
    assert needs["teacher-0"] == needs["plain-0"] == []
    with sharing(experiment, out, (), Kept(str(out / "study.log"), "out")) as shared:
        tally = shared.enqueue()
        assert (tally.waiting, tally.blocked, tally.finished) == (4, 6, 0)
    with joining(str(out), None, None, tmp_path) as shared:
        assert set(shared.parts) == set(needs)
        assert shared.experiment.plan == experiment.plan
        assert shared.experiment.content({}, 0)["data"]["root"] == str(tmp_path)
        assert shared.kept == Kept(str(out / "study.log"), "out", 60)


@pytest.mark.parametrize("name", ["figure6", "table6-mini", "compare-front-mini"])
def test_a_plan_survives_its_file(name: str, tmp_path: Path):
    experiment = read_experiment(name, tmp_path)
    with sharing(experiment, tmp_path / "out", (), Kept(str(tmp_path / "out" / "study.log"), "out")) as begun:
        parts = begun.parts
    with joining(str(tmp_path / "out"), None, None) as again:
        assert again.experiment == experiment
        assert list(again.parts) == list(parts)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    experiment, out = read_experiment(str(written(tmp_path, seeds=[0])), None), tmp_path / "out"
    with sharing(experiment, out, (), Kept(str(out / "study.log"), "out")) as shared:
        shared.enqueue()
    return out


def changed(out: Path, **content: object) -> None:
    path = out / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def test_a_worker_refuses_what_is_not_its_plan(out: Path, tmp_path: Path):
    with refused(RunError, "--enqueue-only"), joining(str(tmp_path / "nothing"), None, None):
        pass
    with refused(RunError, "other", "--study-name"), joining(str(out), "other", None):
        pass
    changed(out, name="x")
    with refused(RunError, "experiment.json", "--out"), joining(str(out), None, None):
        pass
    changed(out, more=1)
    with refused(RunError, "experiment.json", "more"), joining(str(out), None, None):
        pass


def test_a_study_leads_nowhere_and_a_plan_runs_no_code(out: Path, tmp_path: Path):
    with joining(str(out), None, None) as shared:
        first = shared.study.ask()
        shared.study.tell(first, 1.0)
        shared.study.enqueue_trial({}, user_attrs={"part": "../../outside"})
        shared.study.enqueue_trial({}, user_attrs={"part": ["plain-0"]})
        before = sorted(tmp_path.rglob("*"))
        shared.parts.clear()
        shared.trials.work_off(lambda name, _: shared._do(name, MACHINE), dict, lambda: False, (RunError, Exception))  # type: ignore[arg-type]
        assert "not a part" in shared.study.trials[1].user_attrs["error"]
    assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} <= {".unknown.lock"}
    with joining(str(out), None, None) as shared:
        shared.study.set_user_attr("heartbeat", 10**9)
    with refused(RunError, "heartbeat"), joining(str(out), None, None):
        pass
    base = json.loads((out / "experiment.json").read_text())["base"]
    changed(out, base=base | {"space": {"name": "os:system"}})
    with pytest.raises((NotAllowedError, RunError)), joining(str(out), None, None) as shared:
        assert isinstance(shared, Shared)


def test_another_plan_is_refused_while_workers_are_at_work(out: Path, tmp_path: Path):
    other = read_experiment(str(written(tmp_path, epochs=3, seeds=[0, 1])), None)
    kept = Kept(str(out / "study.log"), "out")
    with opened(kept.where) as storage, FileLock(out / ".plain-0.lock"):
        trial = optuna.load_study(storage=storage, study_name="out").ask()
        trial.set_user_attr("worker", "me")
        with refused(RunError, "another plan", "--study-name"), sharing(other, out, (), kept):
            pass
        trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    with sharing(other, out, (), kept) as shared:
        assert shared.enqueue().waiting == 2


def test_the_commands_say_how_far_it_is(tmp_path: Path, out: Path):
    words = ["experiment", str(tmp_path / "mini.yaml"), "--out", str(out), "--enqueue-only", "--json"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert json.loads(done.output) == {
        "finished": 0, "at_work": 0, "waiting": 1, "given_up": 0, "blocked": 0, "mine": 0, "resumed": 0,
    }  # fmt: skip
    done = CliRunner().invoke(main, ["worker", "--study", str(tmp_path / "none.log")])
    assert done.exit_code == 2
    assert "there is no study in" in done.output


def test_the_page_shows_scripts_that_shells_slurm_and_kubernetes_can_read():
    found = snippets(PAGE.read_text())
    for shell in (snippet for snippet in found if snippet.language == "sh"):
        subprocess.run(["bash", "-n"], input=shell.text, text=True, check=True)
    (script,) = (snippet.text for snippet in found if "#SBATCH" in snippet.text)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    options = dict(
        line.removeprefix("#SBATCH --").split() for line in script.splitlines() if line.startswith("#SBATCH")
    )
    assert options.keys() == {"job-name", "array", "gpus", "cpus-per-task", "time", "signal"}
    ((_, *words),) = commands(script.splitlines()[-1])
    parse(main, words[1:])
    (job,) = (yaml.safe_load(snippet.text) for snippet in found if snippet.language == "yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert {entry["name"] for entry in container["env"]} == {"NASFACE_STUDY", "NASFACE_CACHE"}
    parse(main, [*container["command"][1:], "--study", "postgresql://nasface@db/studies"])
