"""Pareto fronts of cost against score: non-dominated points, hypervolume, knee, and the spread over seeds.

A point is (cost, score), and both are minimised. A point that is not finite is never on a front.
Shape letters: N points, S seeds, G costs of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nasface.errors import RunError
from nasface.scores import HELD_OUT, Stage, SweepRow

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """The fronts of several seeds on one grid of costs. Deviations have ddof 1 and are NaN for a single seed.

    Attributes:
        grid_G: the costs.
        best_SG: by seed, the best score at a cost of at most grid_G; NaN where the seed has no network that cheap.
        mean_G, std_G: over seeds; NaN where any seed has no network, so that a mean is over the same seeds everywhere.
        reference: (cost, score) up to which areas are measured.
        hypervolume_S: by seed, in cost times score.
        hypervolume_mean, hypervolume_std: over seeds.
    """

    grid_G: Floats
    best_SG: Floats
    mean_G: Floats
    std_G: Floats
    reference: Point
    hypervolume_S: Floats
    hypervolume_mean: float
    hypervolume_std: float


def front(points_N2: ArrayLike) -> NDArray[np.bool_]:
    """Return (N,) whether each point is non-dominated: no other is as good in both values and better in one.

    Of equal points, all or none are on the front. In the order of cost, a point on the front has the best score of all
    points of its cost, and a better one than all cheaper points.
    """
    points = _points(points_N2)
    valid = np.flatnonzero(np.isfinite(points).all(axis=1))
    order = valid[np.lexsort((points[valid, 1], points[valid, 0]))]
    costs, scores = points[order].T
    first = np.searchsorted(costs, costs, side="left")  # the best of the points of the same cost
    best_so_far = np.concatenate([[np.inf], np.minimum.accumulate(scores)])
    found = np.zeros(len(points), dtype=np.bool_)
    found[order] = (scores == scores[first]) & (scores < best_so_far[first])
    return found


def hypervolume(points_N2: ArrayLike, reference: Point) -> float:
    """Return the area that the points dominate up to `reference`, in cost times score.

    Points beyond the reference add nothing.

    Raises:
        RunError: when the reference is not finite.
    """
    if not np.isfinite(reference).all():
        raise RunError(f"the reference point {reference} of a hypervolume is not finite; give a finite cost and score")
    points = _points(points_N2)
    points = points[front(points) & (points < reference).all(axis=1)]
    costs, scores = points[np.argsort(points[:, 0])].T  # each is the best from its own cost to the next
    return float(np.diff(costs, append=reference[0]) @ (reference[1] - scores))


def knee(points_N2: ArrayLike) -> int:
    """Return the index of the front point beyond which more cost improves the score least.

    Both axes are scaled to [0, 1] over the front. The knee is the point farthest below the straight line between the
    ends of the front. Where no point lies below the line (one or two points, or a front that bulges outwards), the knee
    is the cheapest point.

    Raises:
        RunError: when no point is on the front.
    """
    points = _points(points_N2)
    indices = np.flatnonzero(front(points))
    if not len(indices):
        raise RunError("no network has both a cost and a score, so there is no knee; evaluate some networks first")
    indices = indices[np.argsort(points[indices, 0], kind="stable")]
    ends = points[indices]
    low, span = ends.min(axis=0), np.ptp(ends, axis=0)
    scaled = (ends - low) / np.where(span > 0, span, 1)
    below = 1 - scaled.sum(axis=1)  # sqrt(2) times the distance to the line from (0, 1) to (1, 0)
    return int(indices[np.argmax(below.round(12))])  # rounded, so that the cheapest wins among points on the line


def spread(
    tables: Sequence[pd.DataFrame],
    cost: str,
    score: str,
    grid_G: ArrayLike,
    reference: Point | None = None,
    by: str = "",
) -> Spread:
    """Evaluate the fronts of several seeds as step functions on a common grid, with mean and standard deviation.

    Args:
        tables: one per seed, such as `[rows for _, rows in table.groupby("seed")]`.
        cost: name of the column of costs.
        score: name of the column of scores.
        grid_G: costs at which the fronts are evaluated, in any order.
        reference: of the hypervolumes; by default the greatest cost and the greatest score of all tables. Give the
            same one to several calls whose results are to be compared.
        by: the column that chooses the network within a cost, so that test scores can be shown for networks that were
            chosen by held-out scores; `score` itself by default.

    Raises:
        RunError: when there is no table, or none has a row with both figures.
    """
    seeds = [table[[cost, score, by or score]].to_numpy(np.float64) for table in tables]
    chosen = [points[np.isfinite(points).all(axis=1)] for points in seeds]
    finite = [points[:, :2] for points in chosen]
    if not sum(map(len, finite)):
        raise RunError(
            f"no network has both '{cost}' and '{score}', so there is no front; evaluate some networks first"
        )
    worst = np.concatenate(finite).max(axis=0).tolist()
    reference = reference or (worst[0], worst[1])
    grid = np.asarray(grid_G, dtype=np.float64)
    best = np.stack([_steps(points_N3, grid) for points_N3 in chosen])
    areas = np.array([hypervolume(points, reference) for points in finite])
    return Spread(
        grid_G=grid,
        best_SG=best,
        mean_G=best.mean(axis=0),
        std_G=_deviation(best),
        reference=reference,
        hypervolume_S=areas,
        hypervolume_mean=float(areas.mean()),
        hypervolume_std=float(_deviation(areas)),
    )


def best_stage(table: pd.DataFrame) -> Stage:
    """Return the last stage in which any row of a sweep's table has a held-out NME.

    Raises:
        RunError: when no row has one.
    """
    for stage in reversed(Stage):
        column = HELD_OUT.at(stage).column
        if column in table and table[column].notna().any():
            return stage
    raise RunError("no network has a held-out NME, so none can be chosen; evaluate some on held-out faces")


def _points(points_N2: ArrayLike) -> Floats:
    points = np.asarray(points_N2, dtype=np.float64)
    return points.reshape(len(points), 2)


def _steps(points_N3: Floats, grid_G: Floats) -> Floats:
    """Return (G,) the score of the network chosen within each cost of the grid; NaN below the cheapest network.

    The columns of the points are cost, score and the value by which the network is chosen: the lowest one wins.
    """
    costs, scores, choosers = points_N3[np.argsort(points_N3[:, 0], kind="stable")].T
    is_better = choosers < np.concatenate([[np.inf], np.minimum.accumulate(choosers)[:-1]])[: len(choosers)]
    last_better = np.maximum.accumulate(np.where(is_better, np.arange(len(costs)), 0))
    best = np.concatenate([[np.nan], scores[last_better]])
    found: Floats = best[np.searchsorted(costs, grid_G, side="right")]
    return found


def _deviation(values_S: Floats) -> Floats:
    """Return the standard deviation over the first axis (ddof 1); NaN for a single seed, without numpy's warning."""
    if len(values_S) < 2:
        return np.full(values_S.shape[1:], np.nan)
    deviation: Floats = np.std(values_S, axis=0, ddof=1)
    return deviation


def with_front(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Mark the networks that no other beats in both MACs and the held-out NME of the last stage."""
    done = [row for row in rows if row.is_slim]
    reached = [stage for stage in Stage if any(HELD_OUT.at(stage) in row.nme for row in done)]
    score = HELD_OUT.at(reached[-1] if reached else None)
    points = np.array([[row.macs, row.nme.get(score, np.nan)] for row in done], dtype=float).reshape(-1, 2)
    marks = {row.network: bool(mark) for row, mark in zip(done, front(points), strict=True)}
    return [replace(row, on_front=marks.get(row.network)) for row in rows]
