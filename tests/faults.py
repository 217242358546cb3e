"""Kill commands at work, give them again, and compare the result bit by bit with an undisturbed one.

    python -m tests.faults --kills 120

A kill is SIGKILL: at the n-th step of an optimiser, flush of a file (half of the time after the file was torn) or move
of a file, or at any time. What is killed is a fork of this process, which has loaded everything before, so that a kill
costs no start of Python. Undisturbed runs are watched too: what they leave must have been flushed.
"""

from __future__ import annotations

import argparse
import csv
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What takes time to import is imported by `main`, since the worker processes of `data prepare` import this module.

SETTINGS = (
    "data.options.train=48", "data.options.test=16", "data.input_size=32", "training.batch=16", "training.threads=1",
    "search.epochs=2", "search.options.warmup_epochs=0", "finetune.epochs=2", "distill.epochs=2",
    "prune.options.share=0.7", "space.options.width=4", "space.options.stages=3", "space.options.resolutions=2",
    "space.options.stem_channels=8",
)  # fmt: skip
RECIPE = ["--recipe", "demo", *(word for pair in SETTINGS for word in ("--set", pair))]
HERE = ["--device", "cpu", "--quiet", "--workers"]
EXPERIMENT = """
extends: demo
experiment:
  runs: {plain: {}}
  sweeps: {sizes: {shares: [0.6], pruner: greedy, epochs: 1}}
  distill: {peers: {teacher: false, epochs: 1}}
"""
COMMANDS = {
    "search": ["search", *RECIPE, *HERE, "1", "--out", "run"],
    "train": ["train", *RECIPE, *HERE, "1", "--out", "run"],
    "sweep-thresholds": [
        "sweep-thresholds", "../searched/run", "--pruner", "greedy", "--share", "0.6", "--share", "0.8",
        "--epochs", "2", "--latency-batch", "0", *HERE, "1", "--out", "run",
    ],
    "distill": ["distill", "--arch", "../searched/run/arch.json", *HERE, "1", "--out", "run"],
    "data prepare": ["data", "prepare", *RECIPE, *HERE, "1"],
    "data prepare, 2 workers": ["data", "prepare", *RECIPE, *HERE, "2"],
    "experiment": ["experiment", "../mini.yaml", *RECIPE[2:], *HERE, "1", "--out", "run"],
}  # fmt: skip
EVENTS = ("step", "flush", "move", "moved")
PLACES = ("epoch", "write", "elsewhere")
REPEATED = {"digests.json"}  # the only file that is worth nothing after a power failure
TIMES = {"created", "seconds", "training_minutes", "latency_ms", "supernet_latency_ms", "latency_ratio"}
TIMES |= {"factors"}  # of job.json: the digest of a file that says when it was created


@dataclass(frozen=True)
class Fault:
    """Where a command is hit.

    Attributes:
        event: one of EVENTS, or 'time'.
        at: the number of the event, or seconds since the start.
        torn: the share of the file that is left, if it is torn before it is flushed.
        number: the signal.
    """

    event: str
    at: float
    torn: float | None = None
    number: int = signal.SIGKILL


@dataclass
class Watch:
    """Counts events and knows the place where a command is, in memory that outlives it; strikes where asked to."""

    fault: Fault | None = None
    shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8 * (len(EVENTS) + 1)))
    flushed: dict[int, tuple[int, int]] = field(default_factory=dict)
    safe: dict[str, bool] = field(default_factory=dict)
    waiting: dict[int, list[str]] = field(default_factory=dict)

    def cell(self, number: int) -> int:
        return int.from_bytes(self.shared[8 * number : 8 * number + 8], "little")

    def set_cell(self, number: int, value: int) -> None:
        self.shared[8 * number : 8 * number + 8] = value.to_bytes(8, "little")

    @property
    def place(self) -> str:
        return PLACES[self.cell(len(EVENTS)) - 1]

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        before = self.cell(len(EVENTS))
        self.set_cell(len(EVENTS), 1 + PLACES.index(place))
        try:
            yield
        finally:
            self.set_cell(len(EVENTS), before)

    def event(self, name: str, strike: Callable[[], None] = lambda: None) -> None:
        number = EVENTS.index(name)
        self.set_cell(number, self.cell(number) + 1)
        if self.fault and (self.fault.event, self.fault.at) == (name, self.cell(number)):
            strike()
            os.kill(os.getpid(), self.fault.number)

    def install(self) -> None:
        """Put the watch around what writes and trains, in this process."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from nasface import durable, engine

        self.set_cell(len(EVENTS), 1 + PLACES.index("elsewhere"))
        register_optimizer_step_post_hook(lambda *_: self.event("step"))
        steps, folder = engine._steps, durable.temporary_folder
        engine._steps = lambda *given: self._inside("epoch", steps, *given)  # type: ignore[assignment]

        @contextmanager
        def watched(*given: Any) -> Iterator[Path]:
            with self.at("write"), folder(*given) as made:
                yield made

        durable.temporary_folder = watched
        fsync, replace = os.fsync, os.replace

        def flush(handle: int) -> None:
            with self.at("write"):
                self.event("flush", lambda: self._tear(handle))
                fsync(handle)
                stat = os.fstat(handle)
                self.flushed[stat.st_ino] = (stat.st_size, stat.st_mtime_ns)
                self.safe |= dict.fromkeys(self.waiting.pop(stat.st_ino, ()), True)

        def move(source: Path, target: Path) -> None:
            with self.at("write"):
                self.event("move")
                whole = all(self._is_flushed(path) for path in (Path(source), *Path(source).rglob("*")))
                replace(source, target)
                self.safe[str(target)] = False
                if whole:  # its folder has still to be flushed
                    self.waiting.setdefault(Path(target).parent.stat().st_ino, []).append(str(target))
                self.event("moved")

        os.fsync, os.replace = flush, move  # type: ignore[assignment]

    def _inside(self, place: str, function: Callable[..., Any], *given: Any) -> Any:
        with self.at(place):
            return function(*given)

    def _is_flushed(self, path: Path) -> bool:
        stat = path.stat()
        return path.is_dir() or self.flushed.get(stat.st_ino) == (stat.st_size, stat.st_mtime_ns)

    def _tear(self, handle: int) -> None:
        """Shorten a file as a write does that has not come to its end; of a journal, only the last line."""
        if self.fault and self.fault.torn is not None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            if path.is_file():
                content = path.read_bytes()
                start = content[:-1].rfind(b"\n") + 1 if path.name == "study.log" else 0
                os.truncate(path, start + int(self.fault.torn * (len(content) - start)))

    def unsafe(self) -> list[str]:
        """What a power failure at the end of the command could have destroyed."""
        return [path for path, safe in self.safe.items() if not safe and Path(path).name not in REPEATED]


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (negative: the signal), what it said, seconds, and what was watched."""

    code: int
    said: str
    seconds: float
    watch: Watch


def attempt(command: str, folder: Path, fault: Fault | None = None) -> Outcome:
    """Run a command in a fork of this process; `folder` has what it writes, its cache too where it prepares data."""
    watch, started = Watch(fault), time.monotonic()
    said = folder / "said.txt"
    if (child := os.fork()) == 0:
        _run(command, folder, watch, said)
    if fault and fault.event == "time":
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, fault.number))
        signal.setitimer(signal.ITIMER_REAL, fault.at)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0)
    deadline = time.monotonic() + 20
    while _lives(child):
        assert time.monotonic() < deadline, f"{command}: a process outlives its parent"
        time.sleep(0.01)
    return Outcome(status, said.read_text(), time.monotonic() - started, watch)


def _run(command: str, folder: Path, watch: Watch, said: Path) -> None:
    """Be the command: the child's side of the fork, which does not return."""
    from nasface import interrupt
    from nasface.cli import main as cli

    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["NASFACE_CACHE"] = str(folder / "cache" if "prepare" in command else folder.parent / "cache")
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), stream)
        interrupt.guard()
        watch.install()
        cli(COMMANDS[command])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        if not code and not watch.fault and (lost := watch.unsafe()):
            print("not flushed:", *lost, file=sys.stderr)
            code = 9
    except BaseException as err:
        print(f"{type(err).__name__}: {err}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def content(folder: Path) -> dict[str, Any]:
    """What a command has left, without times, logs, and locks; temporary files must not be there."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        assert ".partial" not in name, f"{path} is left"
        assert ".part-" not in name, f"{path} is left"
        if path.is_file() and path.name not in ("log.txt", ".lock", "study.log.lock", "said.txt", "digests.json"):
            found[name] = _comparable(path, str(folder))
    return found


def _comparable(path: Path, folder: str) -> Any:
    from safetensors.numpy import load_file

    match path.suffix:
        case ".json":
            return _timeless(json.loads(path.read_text().replace(folder, "FOLDER")))
        case ".csv":
            with path.open(newline="") as file:
                return [_timeless(row) for row in csv.DictReader(file)]
        case ".safetensors" if path.parent.name == "checkpoints":  # which hold the seconds of each epoch
            return {name: (value.shape, value.tobytes()) for name, value in load_file(path).items()}
        case ".log":  # the order of its lines is that of the work; pareto.csv holds the figures
            return None
    return path.read_bytes().replace(folder.encode(), b"FOLDER")


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in TIMES}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value


@dataclass
class Campaign:
    """Kills over several commands, with the undisturbed outcome of each."""

    base: Path
    random: random.Random
    whole: dict[str, tuple[Outcome, dict[str, Any]]] = field(default_factory=dict)
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    terminated: int = 0
    series: int = 0
    folders: int = 0

    def fresh(self) -> Path:
        self.folders += 1
        folder = self.base / f"series-{self.folders}"
        folder.mkdir()
        return folder

    def begin(self, commands: list[str]) -> None:
        """Prepare what the commands start from, and run each of them undisturbed."""
        (self.base / "mini.yaml").write_text(EXPERIMENT)
        for command in ["search", *(command for command in commands if command != "search")]:
            folder = self.base / "searched" if command == "search" else self.fresh()
            folder.mkdir(exist_ok=True)
            outcome = attempt(command, folder)
            assert outcome.code == 0, f"{command}: {outcome.said}"
            self.whole[command] = outcome, content(folder)
            print(f"undisturbed: {command}, {outcome.seconds:.1f} s", flush=True)

    def fault(self, command: str) -> Fault:
        """Draw a fault that an undisturbed run would meet in its first third."""
        draw, whole = self.random, self.whole[command][0]
        events = [event for number, event in enumerate(EVENTS) if whole.watch.cell(number)]
        event = draw.choice([*events, *(["step"] if "step" in events else []), "time"])
        if event == "time":
            number = signal.SIGTERM if draw.random() < 0.3 else signal.SIGKILL
            return Fault(event, draw.uniform(0, whole.seconds / 2), number=number)
        at = draw.randint(1, max(1, whole.watch.cell(EVENTS.index(event)) // 3))
        return Fault(event, at, draw.random() if event == "flush" and draw.random() < 0.5 else None)

    def one_series(self, command: str, most: int) -> None:
        """Hit a command up to so many times, let it end, and compare."""
        folder, hits = self.fresh(), []
        while True:
            fault = self.fault(command) if len(hits) < most else None
            outcome = attempt(command, folder, fault)
            if fault is None or outcome.code == 0:
                break
            if fault.number == signal.SIGTERM:
                self._check_termination(command, outcome)
            else:
                assert outcome.code == -signal.SIGKILL, f"{command} after {hits} and {fault}: {outcome.said}"
                self.kills[command, outcome.watch.place] += 1
            hits.append(fault)
        assert outcome.code == 0, f"{command} after {hits}: {outcome.said}"
        found, expected = content(folder), self.whole[command][1]
        differing = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
        assert not differing, f"{command} after {hits}: other content in {differing}, see {folder}"
        shutil.rmtree(folder)
        self.series += 1

    def _check_termination(self, command: str, outcome: Outcome) -> None:
        assert outcome.code == 143, f"{command}: {outcome.code}, {outcome.said}"
        assert "Traceback" not in outcome.said, outcome.said
        assert sum("terminated" in line for line in outcome.said.splitlines()) == 1, outcome.said
        self.terminated += 1

    def report(self) -> str:
        """The counts: by command and place."""
        commands = sorted({command for command, _ in self.kills})
        lines = [f"{'killed':26}" + "".join(f"{place:>11}" for place in (*PLACES, "total"))]
        for title, members in [*((command, [command]) for command in commands), ("all", commands)]:
            counts = [sum(self.kills[command, place] for command in members) for place in PLACES]
            lines.append(f"{title:26}" + "".join(f"{count:11}" for count in (*counts, sum(counts))))
        lines.append(
            f"{sum(self.kills.values())} kills and {self.terminated} terminations in {self.series} series: "
            "every series ended with the bits of an undisturbed run"
        )
        return "\n".join(lines)


def load(folder: Path) -> None:
    """Run a search in this process, so that its forks have loaded everything, also what torch loads as it trains."""
    import optuna  # noqa: F401
    import torch
    from click.testing import CliRunner

    import nasface.stages.experiment.run  # noqa: F401
    from nasface.cli import main as cli

    torch.set_num_threads(1)  # no threads, which a fork would not have
    environment = {"NASFACE_CACHE": str(folder / "cache")}
    done = CliRunner().invoke(cli, [*COMMANDS["search"][:-1], str(folder / "run")], env=environment)
    assert done.exit_code == 0, done.output


def main() -> None:
    """Read the command line, and kill."""
    parser = argparse.ArgumentParser(description="Kill commands, give them again, compare the results.")
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--most", type=int, default=4, help="hits in one series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base:
        campaign, started = Campaign(Path(base), random.Random(given.seed)), time.monotonic()
        load(Path(base, "warm"))
        campaign.begin(given.only)
        while (left := given.kills - sum(campaign.kills.values())) > 0:
            command = min(given.only, key=lambda name: sum(n for (of, _), n in campaign.kills.items() if of == name))
            campaign.one_series(command, min(given.most, left))
            print(f"{time.monotonic() - started:6.0f} s, {left} kills to go, {command}", flush=True)
        print(campaign.report())


if __name__ == "__main__":
    main()
