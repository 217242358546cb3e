"""Many workers on one study: some are killed, and every part is done exactly once, from its checkpoint on."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from optuna.trial import FrozenTrial

from nasface import recipe as recipes
from nasface.cli import main
from nasface.rundir import RunDir
from nasface.stages.search.run import search
from nasface.stages.studies.storage import opened
from nasface.stages.studies.trials import first_attempt
from tests import workers
from tests.searched import MACHINE, caching_in, once
from tests.workers import command, start, trials_of, until, working, written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="processes are forked"),
]

EPOCHS = 16
HEARTBEAT = 2


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with workers.postgres(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the faces that all workers read, and of a search that nobody has killed."""

    def make(folder: Path) -> None:
        recipe = recipes.resolve(
            {k: v for k, v in recipes.read(str(written(folder, EPOCHS))).items() if k != "experiment"} | {"seed": 0},
            "a test",
        )
        with caching_in(folder):
            search(recipe, RunDir(folder / "plain-0"), MACHINE)

    return once(tmp_path_factory, "undisturbed", make)


@pytest.fixture
def cached(undisturbed: Path, own_cache: Path) -> Iterator[None]:
    with caching_in(undisturbed):
        yield


@pytest.fixture
def team() -> Iterator[list[ForkServerProcess]]:
    """Workers of a test, none of which outlives it."""
    members: list[ForkServerProcess] = []
    yield members
    for member in members:
        member.kill()
        member.join()


def enqueue(url: str, out: Path, plan: Path) -> None:
    words = ["experiment", str(plan), "--out", str(out), "--storage", url, "--heartbeat", str(HEARTBEAT)]
    done = CliRunner().invoke(main, [*words, "--enqueue-only"])
    assert done.exit_code == 0, done.output


def said(out: Path) -> str:
    return "\n".join(path.read_text() for path in out.parent.glob("worker-*.txt"))


def member(team: list[ForkServerProcess], worker: str) -> ForkServerProcess:
    """The process that a trial calls by this name."""
    (found,) = (process for process in team if worker.endswith(f"process {process.pid}"))
    return found


def kill(url: str, out: Path, team: list[ForkServerProcess], count: int, draw: random.Random) -> list[str]:
    """Kill workers with SIGKILL, each at a random moment after its search has a checkpoint; returns the parts."""
    hit: list[str] = []

    def begun() -> list[FrozenTrial]:
        """The searches that can be resumed and that no killed worker was at."""
        resumable = {path.name for path in out.glob("plain-*") if RunDir(path).checkpoint("search").exists()} - {*hit}
        if not resumable:  # a look at the study takes longer
            return []
        trials = (trial for trial in trials_of(url, out.name) if trial.state.name == "RUNNING")
        at_work = (trial for trial in trials if "worker" in trial.user_attrs)
        return [trial for trial in at_work if trial.user_attrs["part"] in resumable]

    while len(hit) < count:
        until(begun)
        trial = draw.choice(begun())
        victim = member(team, trial.user_attrs["worker"])
        time.sleep(draw.uniform(0, 0.2))
        os.kill(victim.pid or 0, signal.SIGSTOP)
        if RunDir(out / trial.user_attrs["part"]).supernet.exists():
            os.kill(victim.pid or 0, signal.SIGCONT)  # it has just finished: another one
            continue
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        hit.append(trial.user_attrs["part"])
    return hit


def check_done_once(url: str, out: Path, hit: list[str], seeds: int) -> int:
    """Every part is complete in one trial and finished once; those whose worker was killed were resumed."""
    trials = [trial for trial in trials_of(url, out.name) if "part" in trial.user_attrs]
    done = Counter(trial.user_attrs["part"] for trial in trials if trial.state.name == "COMPLETE")
    parts = {f"plain-{seed}{sweep}" for seed in range(seeds) for sweep in ("", "/sizes")}
    assert done == dict.fromkeys(parts, 1), done
    assert not [trial for trial in trials if not trial.state.is_finished()]
    resumed = 0
    for seed in range(seeds):
        log = (out / f"plain-{seed}" / "log.txt").read_text()
        assert len(re.findall("finished; .* minutes of training", log)) == 1, log
        epochs = pd.read_csv(RunDir(out / f"plain-{seed}").metrics_csv).epoch
        assert sorted(set(epochs)) == list(range(1, EPOCHS + 1)), epochs
        if f"plain-{seed}" in hit:
            assert "resumed after epoch" in log, log
            resumed += 1
    for part in hit:
        attempts = [trial for trial in trials if trial.user_attrs["part"] == part]
        assert [trial.state.name for trial in attempts[-2:]] == ["FAIL", "COMPLETE"]
        assert {first_attempt(trial) for trial in attempts} == {attempts[0].number}
    table = pd.read_csv(out / "results.csv")
    assert set(table[table.network == "slim"].seed) == set(range(seeds))
    assert (table[table.part == "sizes"].groupby("seed").size() == 1).all()
    return resumed


@pytest.mark.parametrize(("kind", "count"), [("journal", 8), ("sqlite", 4), ("postgresql", 4)])
def test_of_several_workers_half_are_killed(
    kind: str, count: int, request: pytest.FixtureRequest, undisturbed: Path, cached: None, tmp_path: Path, team: list
):
    """There are as many searches as workers."""
    out = tmp_path / "out"
    if kind == "postgresql":
        url = workers.database(request.getfixturevalue("postgres"), "killed")
    else:
        url = str(out / "study.log") if kind == "journal" else f"sqlite:///{tmp_path}/study.db"
    started = time.monotonic()
    plan = written(tmp_path, EPOCHS, seeds=list(range(count)), sweeps={"sizes": {"shares": [0.6], "pruner": "greedy"}})
    enqueue(url, out, plan)
    for lock in (".lock", "study.log.lock", ".plain-0.lock"):  # left behind by the dead
        (out / lock).write_text("12345\n")
    with opened(url) as storage:
        lost = optuna.load_study(study_name="out", storage=storage).ask()  # by a process that dies before it says so
    assert lost.user_attrs["part"] == "plain-0"
    team += [start(command, working(url, out), tmp_path / f"worker-{number}.txt") for number in range(count)]
    draw = random.Random(0)
    hit = kill(url, out, team, count // 2, draw)
    alive = [worker for worker in team if worker.exitcode is None]
    for worker in alive:
        worker.join(120)
    assert [worker.exitcode for worker in alive] == [0] * (count // 2), said(out)
    assert "Traceback" not in said(out), said(out)
    resumed = check_done_once(url, out, hit, count)
    same = [(place / "plain-0" / "supernet.safetensors").read_bytes() for place in (undisturbed, out)]
    assert same[0] == same[1]
    print(
        f"{kind}: {count} workers started, {len(team) - len(alive)} killed at {len(hit)} parts, {2 * count} parts done "
        f"once, {resumed} resumed from a checkpoint, {time.monotonic() - started:.0f} s"
    )
    assert resumed == len(hit) == count // 2


def test_a_worker_that_is_terminated_gives_its_part_back(cached: None, tmp_path: Path, team: list):
    out, url = tmp_path / "out", f"sqlite:///{tmp_path}/study.db"
    enqueue(url, out, written(tmp_path, EPOCHS, seeds=[0]))
    team.append(start(command, working(url, out), tmp_path / "worker-0.txt"))
    until(RunDir(out / "plain-0").checkpoint("search").exists)
    team[0].terminate()
    team[0].join(30)
    assert team[0].exitcode == 143, said(out)
    assert said(out).count("terminated") == 1
    assert "Traceback" not in said(out)
    first, second = trials_of(url, "out")
    assert (first.state.name, second.state.name) == ("FAIL", "WAITING")
    assert first_attempt(second) == first.number
    team.append(start(command, working(url, out), tmp_path / "worker-1.txt"))
    team[1].join(120)
    assert team[1].exitcode == 0, said(out)
    assert "this worker finished 1, 1 of them begun by other workers" in said(out)
    assert "resumed after epoch" in (out / "plain-0" / "log.txt").read_text()


def test_behind_the_grpc_proxy_a_killed_worker_is_known_by_its_lock(cached: None, tmp_path: Path, team: list):
    pytest.importorskip("grpc", reason="needs the extra 'cluster'")
    out, port = tmp_path / "out", workers.free_port()
    team.append(start(workers.proxy, f"sqlite:///{tmp_path}/study.db", port))
    url = f"grpc://127.0.0.1:{port}"
    enqueue(url, out, written(tmp_path, EPOCHS, seeds=[0, 1]))
    team += [start(command, working(url, out), tmp_path / f"worker-{number}.txt") for number in range(2)]
    (part,) = kill(url, out, team[1:], 1, random.Random(1))
    alive = [worker for worker in team[1:] if worker.exitcode is None]
    for worker in alive:
        worker.join(120)
        assert worker.exitcode == 0, said(out)
    trials = trials_of(url, "out")
    done = Counter(trial.user_attrs["part"] for trial in trials if trial.state.name == "COMPLETE")
    assert done == dict.fromkeys(("plain-0", "plain-1"), 1)
    assert "resumed after epoch" in (out / part / "log.txt").read_text()


def test_idle_workers_help_with_a_sweep(postgres: str, cached: None, tmp_path: Path, team: list):
    """The worker that takes the first network is slowed down until the other one, which may be fast asleep, has one."""
    out, url = tmp_path / "out", workers.database(postgres, "helped")
    sizes = {"shares": [0.9, 0.7, 0.5, 0.4], "pruner": "greedy", "epochs": 4}
    enqueue(url, out, written(tmp_path, epochs=1, seeds=[0], sweeps={"sizes": sizes}))
    team += [start(command, working(url, out), tmp_path / f"worker-{number}.txt") for number in range(2)]

    def at_work() -> dict[str, str]:
        """The workers of the networks."""
        with suppress(KeyError):  # there is no study of the sweep yet
            networks = (trial.user_attrs for trial in trials_of(url, "out: plain-0/sizes"))
            return {taken["network"]: taken["worker"] for taken in networks if {"network", "worker"} <= taken.keys()}
        return {}

    until(at_work)
    first = member(team, next(iter(at_work().values())))
    while len({*at_work().values()}) < 2 and first.is_alive():
        with suppress(ProcessLookupError):  # it has finished in between
            os.kill(first.pid, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(first.pid, signal.SIGCONT)
        time.sleep(0.02)  # whatever lock it was holding, it can release
    for worker in team:
        worker.join(120)
        assert worker.exitcode == 0, said(out)
    networks = [t for t in trials_of(url, "out: plain-0/sizes") if "network" in t.user_attrs]
    assert {trial.state.name for trial in networks} == {"COMPLETE"}
    assert len({trial.user_attrs["network"] for trial in networks}) == len(networks) >= 3
    assert len({trial.user_attrs["worker"] for trial in networks}) == 2
