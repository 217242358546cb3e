"""Ctrl-C, SIGTERM and death, also while workers prepare faces: one line, no traceback, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nasface.data.prepare import PrepareOptions, prepare
from nasface.data.synthetic import Synthetic

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="worker processes are found in /proc"),
]

# The same as `python -m nasface`; says "go" once its own code runs, as no program can guard the start of Python.
START = """
import runpy, sys
class Say:
    def find_spec(name, *_):
        if name == "nasface.cli":
            print("go", flush=True)
sys.meta_path.insert(0, Say)
runpy.run_module("nasface", run_name="__main__", alter_sys=True)
"""
FACES = ["--set", "data.options.train=600", "--set", "data.options.test=40", "--workers", "2"]
PREPARE = ["data", "prepare", "--recipe", "demo", *FACES]
SEARCH = ["search", "--recipe", "demo", "--device", "cpu", *FACES]


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, as a terminal starts it; whatever is left of the group is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NASFACE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            yield process
        finally:
            if alive(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(true: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def workers(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
            if mine and b"multiprocessing.spawn" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def check_interrupted(process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=240)
    assert "Traceback" not in said
    (line,) = (line for line in said.splitlines() if line and not line.startswith("prepare: "))
    assert ("interrupted" if number == signal.SIGINT else "terminated") in line
    assert process.returncode == 128 + number
    wait_until(lambda: not alive(process.pid), 30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0, 0.03, 0.1, 0.5])
def test_while_the_program_loads(tmp_path: Path, delay: float, number: int) -> None:
    with command(tmp_path, *PREPARE) as process:
        time.sleep(delay)
        check_interrupted(process, number)


@pytest.mark.parametrize(("count", "delay"), [(1, 0), (2, 0.2)])
def test_while_the_workers_start(tmp_path: Path, count: int, delay: float) -> None:
    with command(tmp_path, *PREPARE) as process:
        wait_until(lambda: len(workers(process.pid)) >= count)
        time.sleep(delay)
        check_interrupted(process)


@pytest.mark.parametrize(
    ("arguments", "number"), [(PREPARE, signal.SIGTERM), (SEARCH, signal.SIGINT)], ids=["prepare", "search"]
)
def test_while_the_faces_are_drawn(tmp_path: Path, arguments: list[str], number: int) -> None:
    out = ["--out", str(tmp_path / "run")] if arguments is SEARCH else []
    with command(tmp_path, *arguments, *out) as process:
        prepared = tmp_path / "cache" / "prepared"
        wait_until(lambda: any(file.stat().st_size > 100_000 for file in prepared.glob(".part-*/train-images.npy")))
        check_interrupted(process, number)
        assert list(prepared.iterdir()) == []


@pytest.mark.parametrize("moment", ["starting", "drawing"])
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, moment: str) -> None:
    with command(tmp_path, *PREPARE) as process:
        prepared = tmp_path / "cache" / "prepared"
        wait_until(lambda: len(workers(process.pid)) == 2)
        if moment == "drawing":
            wait_until(lambda: any(file.stat().st_size > 100_000 for file in prepared.glob(".part-*/train-images.npy")))
        process.kill()
        process.wait()
        wait_until(lambda: not alive(process.pid), 30)
        assert len(list(prepared.glob(".part-*"))) == 1
    prepare(Synthetic(train=4, test=2), PrepareOptions(32), tmp_path / "cache", workers=1)
    assert len([path for path in prepared.iterdir() if path.name.startswith("synthetic-")]) == 1
    assert not list(prepared.glob(".part-*"))


def test_a_signal_that_hits_a_finalizer_is_not_lost() -> None:
    """Python drops what a finalizer raises; a signal that arrives there is sent again."""
    program = """
import os, signal, time
from nasface import interrupt
interrupt.guard()
class Hit:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):  # the handler runs here
            pass
try:
    with interrupt.raising():
        Hit()
        time.sleep(2)
        print("lost")
except KeyboardInterrupt as err:
    interrupt.leave(err)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")
    assert len(done.stderr.splitlines()) == 1
    assert "terminated" in done.stderr


def test_a_signal_that_a_library_turns_into_another_exception_is_still_a_signal() -> None:
    """Safetensors does so where it calls torch."""
    program = """
import os, signal
from nasface import interrupt
interrupt.guard()
try:
    with interrupt.raising():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise ValueError("not a tensor") from None
except KeyboardInterrupt as err:
    interrupt.leave(err)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert len(done.stderr.splitlines()) == 1


def test_what_the_parent_ignores_stays_ignored() -> None:
    """As in a background job of a shell, or under nohup."""
    program = "import signal; from nasface import interrupt; interrupt.guard(); print(signal.getsignal(signal.SIGINT))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert int(done.stdout) == signal.SIG_IGN
