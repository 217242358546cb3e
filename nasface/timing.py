"""Time several calls in turn, so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

_NAP = 0.005  # seconds
_MOST_NAPS = 40


def in_turn(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    *,
    settled: bool = False,
    after_round: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Return the seconds of each call in each round, (calls, rounds).

    In every round, each call runs once.

    Args:
        calls: what is timed.
        rounds: how many times each call is timed.
        warmup: how many rounds run before these without being timed.
        settled: whether to `settle` before each call, so that the threads of one runtime do not slow the next.
        after_round: called after every round, those of the warm-up included.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for i in range(warmup + rounds):
        for call, own in zip(calls, seconds, strict=True):
            if settled:
                settle()
            start = time.perf_counter()
            call()
            if i >= warmup:
                own.append(time.perf_counter() - start)
        after_round()
    return seconds


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
