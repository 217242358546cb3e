"""Time networks in each runtime, all in turn in one run, and measure their memory."""

from __future__ import annotations

import logging
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nasface import rundir
from nasface.data.parallel import usable_cores
from nasface.deploy.runtimes import TORCH, runtimes
from nasface.errors import RunError, did_you_mean
from nasface.formats import Format
from nasface.model.exported import describe
from nasface.model.files import one
from nasface.stages.bench.contender import Contender
from nasface.stages.bench.memory import peaks
from nasface.stages.machine import Machine
from nasface.timing import in_turn, speedup

log = logging.getLogger(__name__)

_WARMUP = 3  # untimed rounds: runtimes plan and allocate in the first, and processors reach their clock


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        models: networks, see `nasface.load`.
        runtimes: where networks run that are not exported yet; none stands for torch and all that are installed.
        batches: numbers of images in a pass.
        threads: numbers of CPU threads; none stands for as many as there are cores.
        rounds: how often each row is timed.
        reference: the network of `models` with which the others are compared; None for the first.
    """

    models: tuple[str, ...]
    runtimes: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 8, 32)
    threads: tuple[int, ...] = ()
    rounds: int = 30
    reference: str | None = None


@dataclass(frozen=True)
class Row:
    """The figures of a network in a runtime, with so many threads, at one batch size.

    Attributes:
        model, runtime, precision, params, macs, input_size: see `Contender`.
        threads: CPU threads.
        batch: images in a pass.
        median_ms, p95_ms: of the time of a pass, from uint8 crops to landmarks.
        images_per_second: at the median time.
        ratio: how many times as fast as the reference with the same threads and batch: the median over the rounds.
        peak_memory_mib: see `memory.peaks`; None where it is not known.
    """

    model: str
    runtime: str
    precision: str
    params: int
    macs: int
    input_size: int
    threads: int
    batch: int
    median_ms: float
    p95_ms: float
    images_per_second: float
    ratio: float
    peak_memory_mib: float | None


@dataclass(frozen=True)
class Benchmark:
    """All rows, and where and how they were measured.

    Attributes:
        rows: by threads, then batch, then network and runtime.
        reference: the network and its runtime whose ratio is 1.
        rounds: how often each row was timed.
        machine: the processor.
    """

    rows: Sequence[Row]
    reference: str
    rounds: int
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "rows": [vars(row) for row in self.rows]}

    def write(self, folder: Path) -> Path:
        """Write bench.csv, with one line per row, and return its path."""
        path = folder / "bench.csv"
        common = {"reference": self.reference, "rounds": self.rounds, "machine": self.machine}
        rundir.write_rows(path, [{**vars(row), **common} for row in self.rows])
        return path


def bench(options: BenchOptions, machine: Machine) -> Benchmark:
    """Measure networks on the CPU.

    Networks that are not exported yet run in PyTorch as they are, and are exported to a temporary folder for every
    other runtime; exported ones run in their own. All rows are timed in turn, so that their ratios hold on a busy
    machine.

    Raises:
        RunError: when a network or runtime is not there; the sentence names the extra that brings it.
    """
    models = tuple(dict.fromkeys(options.models))
    reference = options.reference or models[0]
    if reference not in models:
        raise RunError(f"the reference {reference} is not among the networks; {did_you_mean(reference, models)}")
    batches, threads = sorted(set(options.batches)), sorted(set(options.threads)) or [usable_cores()]
    forms = runtimes(options.runtimes)
    with tempfile.TemporaryDirectory(prefix="nasface-bench-") as folder, _threads_kept():
        contenders = [
            found for i, model in enumerate(models) for found in _contenders(model, forms, Path(folder, str(i)))
        ]
        memory = _memory(contenders, threads, batches, machine)
        rows = list(product(threads, batches, contenders))
        seconds = _timed(rows, options.rounds, machine)
    first = next(contender for contender in contenders if contender.model == reference)
    return Benchmark(
        [_row(key, seconds, seconds[*key[:2], first], memory[key]) for key in rows],
        f"{first.model}, {first.runtime}",
        options.rounds,
        _processor(),
    )


Key = tuple[int, int, Contender]
"""Threads, batch and contender: a row."""


def _contenders(model: str, forms: Mapping[str, Format | None], folder: Path) -> list[Contender]:
    """Return a network in every runtime, exported to `folder` where it has to be."""
    saved = one(model)
    if saved.exported:
        return [_exported(model, saved.weights, saved.exported[0])]
    from nasface.stages.export.run import NetworkAndFaces, costs_of, loaded, write_unchecked

    net, recipe = loaded(NetworkAndFaces(saved))
    folder.mkdir()
    found = []
    for form in forms.values():
        if form is None:
            costs, size = costs_of(net, recipe), net.view.input_size
            found.append(Contender(model, TORCH, model, "fp32", costs["params"], costs["macs"], size))
        else:
            found.append(_exported(model, write_unchecked(net, recipe, form, folder), form))
    return found


def _exported(model: str, path: Path, form: Format) -> Contender:
    about = describe(path, form)
    costs, size = about.costs, about.card.view.input_size
    return Contender(model, form.runtime, str(path), about.precision, costs["params"], costs["macs"], size)


def _memory(
    contenders: Sequence[Contender], threads: Sequence[int], batches: Sequence[int], machine: Machine
) -> dict[Key, int | None]:
    found: dict[Key, int | None] = {}
    machine.progress.begin("memory", len(contenders) * len(threads), 0)
    for contender, count in product(contenders, threads):
        for batch, peak in zip(batches, peaks(contender, count, batches), strict=True):
            found[count, batch, contender] = peak
        machine.progress.advance()
    return found


def _timed(rows: Sequence[Key], rounds: int, machine: Machine) -> dict[Key, list[float]]:
    """Return the seconds of every round for each row."""
    # each row has the network for itself: runtimes plan anew when the batch size changes between two calls
    calls: list[Callable[[], object]] = [
        partial(contender.open(count), contender.crops(batch)) for count, batch, contender in rows
    ]
    machine.progress.begin("timing", _WARMUP + rounds, 0)
    seconds = in_turn(calls, rounds, _WARMUP, settled=True, after_round=machine.progress.advance)
    return dict(zip(rows, seconds, strict=True))


def _row(key: Key, seconds: Mapping[Key, Sequence[float]], reference: Sequence[float], peak: int | None) -> Row:
    threads, batch, contender = key
    own = seconds[key]
    median = statistics.median(own)
    return Row(
        model=contender.model,
        runtime=contender.runtime,
        precision=contender.precision,
        params=contender.params,
        macs=contender.macs,
        input_size=contender.input_size,
        threads=threads,
        batch=batch,
        median_ms=1e3 * median,
        p95_ms=1e3 * float(np.quantile(own, 0.95)),
        images_per_second=batch / median,
        ratio=speedup(reference, own),
        peak_memory_mib=None if peak is None else peak / 2**20,
    )


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Give torch the number of threads back that it had before, if it takes part."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
