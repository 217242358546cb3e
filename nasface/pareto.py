"""Fronts of cost against score: what no network beats, the area below, the knee, and the spread over seeds.

A point is (cost, score), both minimised; one that is not finite is no figure, and never on a front.
Shape letters: N points, S seeds, G costs of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nasface.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("inherited", "recalibrated", "finetuned")  # of a pruned network's weights, in this order

Floats = NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Fronts of several seeds on one grid of costs. Deviations have ddof 1 and are NaN for a single seed.

    Attributes:
        grid_G: costs.
        best_SG: by seed, the best score at a cost of at most grid_G; NaN where the seed has no network that cheap.
        mean_G, std_G: over seeds; NaN where any seed has none, so that a mean never changes its seeds along the way.
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
    """(N,) whether a point is non-dominated: none is as good in both and better in one. Equal points share their fate.

    O(N log N): in the order of cost, a front point has the best score of its cost, and a better one than all cheaper.
    """
    points = _points(points_N2)
    valid = np.flatnonzero(np.isfinite(points).all(axis=1))
    order = valid[np.lexsort((points[valid, 1], points[valid, 0]))]
    costs, scores = points[order].T
    first = np.searchsorted(costs, costs, side="left")  # of the points of the same cost: the best of them
    best_so_far = np.concatenate([[np.inf], np.minimum.accumulate(scores)])
    found = np.zeros(len(points), dtype=np.bool_)
    found[order] = (scores == scores[first]) & (scores < best_so_far[first])
    return found


def hypervolume(points_N2: ArrayLike, reference: Point) -> float:
    """Area that the points dominate up to `reference`, in cost times score; points beyond it count as nothing.

    Raises:
        RunError: when the reference is not finite.
    """
    if not np.isfinite(reference).all():
        raise RunError(f"the reference point {reference} of a hypervolume is not finite; give a cost and a score")
    points = _points(points_N2)
    points = points[front(points) & (points < reference).all(axis=1)]
    costs, scores = points[np.argsort(points[:, 0])].T  # each is the best from its own cost to the next
    return float(np.diff(costs, append=reference[0]) @ (reference[1] - scores))


def knee(points_N2: ArrayLike) -> int:
    """Index of the front point after which more cost buys least.

    Both axes are scaled to [0, 1] over the front; the knee lies farthest below the straight line between the front's
    two ends. Where none lies below it (one point, two, or a front that bulges outwards) it is the cheapest.

    Raises:
        RunError: when no point is on the front.
    """
    points = _points(points_N2)
    indices = np.flatnonzero(front(points))
    if not len(indices):
        raise RunError("there is no network with both a cost and a score, so there is no knee; evaluate some first")
    indices = indices[np.argsort(points[indices, 0], kind="stable")]
    ends = points[indices]
    low, span = ends.min(axis=0), np.ptp(ends, axis=0)
    scaled = (ends - low) / np.where(span > 0, span, 1)
    below = 1 - scaled.sum(axis=1)  # distance to the line from (0, 1) to (1, 0), but for the factor sqrt(2)
    return int(indices[np.argmax(below.round(12))])  # rounded: of points on the line, the cheapest


def spread(
    tables: Sequence[pd.DataFrame],
    cost: str,
    score: str,
    grid_G: ArrayLike,
    reference: Point | None = None,
    by: str = "",
) -> Spread:
    """Fronts of several seeds as step functions on a common grid, with mean and deviation.

    Args:
        tables: one a seed, such as `[rows for _, rows in table.groupby("seed")]`.
        cost: name of a column.
        score: name of another.
        grid_G: costs at which the fronts are looked at, in any order.
        reference: of the hypervolumes; by default the greatest cost and the greatest score of all tables. Give the
            same one to compare what several calls return.
        by: the column that chooses the network within a cost, so that test scores can be shown of networks that
            held-out scores have chosen; `score` itself by default.

    Raises:
        RunError: when there is no table, or none has a row with both figures.
    """
    seeds = [table[[cost, score, by or score]].to_numpy(np.float64) for table in tables]
    chosen = [points[np.isfinite(points).all(axis=1)] for points in seeds]
    finite = [points[:, :2] for points in chosen]
    if not sum(map(len, finite)):
        raise RunError(f"no network has both '{cost}' and '{score}', so there is no front; evaluate some first")
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


def best_stage(table: pd.DataFrame) -> str:
    """The last of STAGES in which any row has a held-out NME (columns `held_out_nme_<stage>`).

    Raises:
        RunError: when none has.
    """
    for stage in reversed(STAGES):
        column = f"held_out_nme_{stage}"
        if column in table and table[column].notna().any():
            return stage
    raise RunError(
        f"no network has a held-out NME ({', '.join(STAGES)}), so none can be chosen; evaluate some on held-out faces"
    )


def _points(points_N2: ArrayLike) -> Floats:
    points = np.asarray(points_N2, dtype=np.float64)
    return points.reshape(len(points), 2)


def _steps(points_N3: Floats, grid_G: Floats) -> Floats:
    """(G,) the score of the network chosen (third column: the least) at a cost of at most each of the grid.

    NaN below the cheapest.
    """
    costs, scores, choosers = points_N3[np.argsort(points_N3[:, 0], kind="stable")].T
    is_better = choosers < np.concatenate([[np.inf], np.minimum.accumulate(choosers)[:-1]])[: len(choosers)]
    last_better = np.maximum.accumulate(np.where(is_better, np.arange(len(costs)), 0))
    best = np.concatenate([[np.nan], scores[last_better]])
    found: Floats = best[np.searchsorted(costs, grid_G, side="right")]
    return found


def _deviation(values_S: Floats) -> Floats:
    """Standard deviation over the first axis, ddof 1; NaN for a single seed, without numpy's warning."""
    if len(values_S) < 2:
        return np.full(values_S.shape[1:], np.nan)
    deviation: Floats = np.std(values_S, axis=0, ddof=1)
    return deviation
