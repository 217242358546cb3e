"""Time several calls in turn, so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def in_turn(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    *,
    pause: float = 0.0,
    after_round: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Return the seconds of each call in each round, (calls, rounds).

    In every round, each call runs once.

    Args:
        calls: what is timed.
        rounds: how many times each call is timed.
        warmup: how many rounds run before these without being timed.
        pause: seconds of rest before each call, in which threads that the previous one has left waiting for more work
            go to sleep.
        after_round: called after every round, those of the warm-up included.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for i in range(warmup + rounds):
        for call, own in zip(calls, seconds, strict=True):
            if pause:
                time.sleep(pause)
            start = time.perf_counter()
            call()
            if i >= warmup:
                own.append(time.perf_counter() - start)
        after_round()
    return seconds


def speedup(reference: Sequence[float], own: Sequence[float]) -> float:
    """Return how many times as fast as the reference something is: the median of the ratios of the rounds."""
    return statistics.median(theirs / ours for theirs, ours in zip(reference, own, strict=True))
