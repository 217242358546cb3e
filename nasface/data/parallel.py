"""Map a function over many items in threads or processes, in order, a bounded way ahead."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from nasface.interrupt import SIGNALS

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# With fewer items per process a pool costs more than it gains: a worker takes some tenths of a second to start.
_ITEMS_PER_PROCESS = 16
_PATIENCE_S = 5.0

_task: Callable[[Any], Any]


def default_workers() -> int:
    """Number of cores that this process may use, 16 at most."""
    return min(usable_cores(), 16)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    func: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int | None = None,
    kind: Literal["thread", "process"] = "thread",
) -> Generator[R, None, None]:
    """Yield func(item) for every item, in order, holding at most a few results per worker in memory.

    Whoever may stop before the end closes the generator, which ends the workers.

    Args:
        func: called concurrently; with processes it must be picklable and is sent to each worker once.
        items: the arguments.
        workers: how many calls run at a time; None takes the number of cores, 1 runs in this thread.
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
        _log.warning(
            "the worker processes died (a script needs `if __name__ == '__main__':`); this process does their work"
        )
    yield from map(func, items[done:])


def in_new_process(func: Callable[[T], R], item: T) -> R:
    """Call a function in a process of its own, spawned for it.

    Raises:
        BrokenProcessPool: when the process dies.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (func,)) as executor:
        with _interrupts_held_back():
            future = executor.submit(_call, item)
        result: R = future.result()
        return result


def _sliding(executor: Executor, func: Callable[[T], R], items: Sequence[T], ahead: int) -> Iterator[R]:
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            try:
                with _interrupts_held_back():  # submitting starts the workers
                    pending.append(executor.submit(func, item))
            except (OSError, ValueError) as err:  # a worker died meanwhile, and the pool has closed its pipes
                raise BrokenProcessPool("the pool broke as it started a worker") from err
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM after the block, and not to the processes that the block starts.

    Both may reach every process of a group, and it is this process that ends its workers then. A worker inherits the
    blocked signals, so that even its first moments, before it runs any code of ours, end without a traceback; this
    process is not interrupted halfway through starting one. Windows cannot block a signal.
    """
    held: list[int] = []
    here = threading.current_thread() is threading.main_thread()  # others neither get signals nor may set handlers
    handled = [number for number in SIGNALS if here and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in handled}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _start(task: Callable[[Any], Any]) -> None:
    """Set up a worker process: its task, no Ctrl-C, and an end when its parent ends.

    SIGTERM is what its pool sends when another worker has died, so it ends the worker; but with some patience, as its
    parent is the one to end it when the whole group was sent the signal.
    """
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(_PATIENCE_S, os._exit, (1,)).start())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(item: Any) -> Any:
    return _task(item)
