"""Time several calls in turn, in spite of whatever else the machine does."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

_NAP = 0.005  # seconds
_MOST_NAPS = 40
_MORE, _ALIKE, _NEARLY = 4, 3, 1.1


def in_turn(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    *,
    settled: bool = False,
    after_round: Callable[[], object] = lambda: None,
    clock: Callable[[], float] | None = None,
) -> list[list[float]]:
    """Return the seconds of each call in each round, (calls, rounds).

    In every round, each call runs once.

    Args:
        calls: what is timed.
        rounds: how many times each call is timed.
        warmup: how many rounds run before these without being timed.
        settled: whether to `settle` before each call, so that the threads of one runtime do not slow the next.
        after_round: called after every round, those of the warm-up included.
        clock: returns the time in seconds; that of the wall by default.
    """
    now = clock or time.perf_counter
    seconds: list[list[float]] = [[] for _ in calls]
    for i in range(warmup + rounds):
        for call, own in zip(calls, seconds, strict=True):
            if settled:
                settle()
            start = now()
            call()
            if i >= warmup:
                own.append(now() - start)
        after_round()
    return seconds


def fastest(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    *,
    settled: bool = False,
    one_thread: bool = False,
) -> list[float]:
    """Return the seconds of the fastest pass of each call: other work on the machine can only slow a pass down.

    Where fewer than three passes of a call are nearly that fast, since the machine is busy, up to four times as many
    rounds follow.

    Args:
        calls: what is timed.
        rounds: how many times each call is timed at least.
        warmup: see `in_turn`.
        settled: see `in_turn`.
        one_thread: whether a single CPU thread computes. The CPU time of the process is then measured where the system
            counts it finely: what other processes take does not count.
    """
    clock = time.process_time if one_thread and sys.platform != "win32" else time.perf_counter
    seconds = in_turn(calls, rounds, warmup, settled=settled, clock=clock)
    for _ in range(_MORE):
        if all(map(_is_confirmed, seconds)):
            break
        for own, more in zip(seconds, in_turn(calls, rounds, 0, settled=settled, clock=clock), strict=True):
            own += more
    return [min(own) for own in seconds]


def _is_confirmed(seconds: Sequence[float]) -> bool:
    """Return whether several passes are nearly as fast as the fastest."""
    nearly = [one for one in seconds if one <= _NEARLY * min(seconds)]
    return len(nearly) >= min(_ALIKE, len(seconds))


def settle() -> None:
    """Wait until the threads of this process rest, but no longer than a fifth of a second.

    Those of ONNX Runtime wait actively for more work: 50 ms were measured on a Xeon, where the instruction for such
    waiting is slow.
    """
    for _ in range(_MOST_NAPS):
        before = time.process_time()
        time.sleep(_NAP)
        if time.process_time() - before < 0.2 * _NAP:
            return


def speedup(reference: Sequence[float], own: Sequence[float]) -> float:
    """Return how many times as fast as the reference something is: the median of the ratios of the rounds."""
    return statistics.median(theirs / ours for theirs, ours in zip(reference, own, strict=True))
