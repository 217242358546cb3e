"""Map a function over many items in threads or processes, in order, a bounded way ahead."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# Below this a process pool costs more than it gains: a worker starts in some tenths of a second.
_ITEMS_PER_PROCESS = 16

_task: Callable[[Any], Any]


def default_workers() -> int:
    """Number of cores this process may use, 16 at the most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def map_in_order(
    func: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int | None = None,
    kind: Literal["thread", "process"] = "thread",
) -> Iterator[R]:
    """Yield func(item) for every item, in order, with a few results per worker held in memory at most.

    Args:
        func: called concurrently; with processes it must be picklable and is sent to each worker once.
        items: the arguments.
        workers: how many at a time; None takes the number of cores, 1 runs in this thread.
        kind: 'thread' where the work is in C code that releases the GIL, 'process' for pure Python.
            Processes are spawned, because a fork of a parent with running threads can hang.
    """
    workers = workers or default_workers()
    if kind == "process":
        workers = min(workers, len(items) // _ITEMS_PER_PROCESS)
    if workers <= 1:
        yield from map(func, items)
        return
    if kind == "thread":
        with ThreadPoolExecutor(workers) as executor:
            yield from _sliding(executor, func, items, 4 * workers)
        return
    done = 0
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start, (func,)) as executor:
            for result in _sliding(executor, _call, items, 4 * workers):
                yield result
                done += 1
        return
    except BrokenProcessPool:
        _log.warning("the worker processes died (a script needs `if __name__ == '__main__':`); going on in one")
    yield from map(func, items[done:])


def _sliding(executor: Executor, func: Callable[[T], R], items: Sequence[T], ahead: int) -> Iterator[R]:
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(func, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _start(task: Callable[[Any], Any]) -> None:
    global _task
    _task = task


def _call(item: Any) -> Any:
    return _task(item)
