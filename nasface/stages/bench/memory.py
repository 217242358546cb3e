"""The memory that a network in its runtime needs, measured in a process that does nothing else. No torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from nasface.data.parallel import in_new_process
from nasface.importing import allow, given
from nasface.stages.bench.contender import Contender

log = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")
_PASSES = 2  # the first one allocates, and what the second one still adds belongs to a running network too


@dataclass(frozen=True)
class _Task:
    contender: Contender
    threads: int
    batches: tuple[int, ...]
    allowed: tuple[str, ...]


def peaks(contender: Contender, threads: int, batches: Sequence[int]) -> list[int | None]:
    """Return by how many bytes a fresh process grows at most while it opens and runs a network, for each batch size.

    What counts is resident memory, and so the libraries of the runtime too; Python and nasface itself do not.

    Args:
        contender: the network.
        threads: CPU threads.
        batches: numbers of images, in ascending order, since a peak never falls.

    Returns:
        None for each where the system does not tell the peak (it is Linux that does), or the process dies.
    """
    if not _STATUS.exists():
        return [None] * len(batches)
    try:
        return list(in_new_process(_measure, _Task(contender, threads, tuple(batches), tuple(given()))))
    except BrokenProcessPool:
        log.warning("the memory of %s in %s is not known: its process died", contender.model, contender.runtime)
        return [None] * len(batches)


def _measure(task: _Task) -> list[int]:
    allow(*task.allowed)
    before, found = _resident("VmRSS"), []
    run = task.contender.open(task.threads)
    for batch in task.batches:
        for _ in range(_PASSES):
            run(task.contender.crops(batch))
        found.append(_resident("VmHWM") - before)
    return found


def _resident(what: str) -> int:
    """Return the bytes that this process has in memory: VmRSS now, VmHWM at the peak."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:"))
