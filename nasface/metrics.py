"""NME by normaliser, failure rate, AUC and CED, over subsets of a test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError

Normaliser = Literal["inter_ocular", "inter_pupil", "box"]
Groups = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Summary:
    """One subset's figures. NMEs are shares of the normaliser, not percent.

    Attributes:
        images: number of faces counted; expected: how many the official subset has.
        nme: mean over images of the mean point error.
        failure_rate: share of images with an NME above `limit`.
        auc: area under the CED up to `limit`, divided by `limit`.
        ced: share of images with an NME of at most 1, 2, ... 10 percent.
    """

    images: int
    expected: int
    nme: float
    failure_rate: float
    auc: float
    limit: float
    ced: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; figures of an empty subset are None."""
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(self).items()}


def distances(landmarks_NL2: NDArray[Any], normaliser: Normaliser, groups: Mapping[str, Groups]) -> NDArray[np.float64]:
    """(N,) the normalising distance of each face, in the unit of the landmarks.

    Args:
        landmarks_NL2: true points.
        normaliser: 'inter_ocular' or 'inter_pupil' (distance of two groups' means), or 'box'
            (square root of width x height of the landmark box).
        groups: index groups of the mark-up by normaliser.

    Raises:
        DataError: when a face has no size.
    """
    points = np.asarray(landmarks_NL2, dtype=np.float64)
    if normaliser == "box":
        size: NDArray[np.float64] = np.sqrt(np.prod(points.max(axis=1) - points.min(axis=1), axis=1))
    else:
        left, right = (points[:, list(group)].mean(axis=1) for group in groups[normaliser])
        size = np.linalg.norm(left - right, axis=1)
    if bad := np.flatnonzero(~(size > 0)).tolist():
        raise DataError(
            f"{len(bad)} faces have no {normaliser} distance (the first is number {bad[0]}); mend their points"
        )
    return size


def nme(predicted_NL2: NDArray[Any], true_NL2: NDArray[Any], distances_N: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) mean over landmarks of the point error divided by the face's distance."""
    error = np.linalg.norm(np.asarray(predicted_NL2, np.float64) - np.asarray(true_NL2, np.float64), axis=2)
    result: NDArray[np.float64] = error.mean(axis=1) / distances_N
    return result


def failure_rate(nme_N: NDArray[np.float64], limit: float = 0.10) -> float:
    """Share of images whose NME is above the limit, or not a number."""
    return float(np.mean(~(nme_N <= limit))) if len(nme_N) else float("nan")


def ced(nme_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulative error distribution: sorted NMEs and the share of images at or below each."""
    return np.sort(nme_N), np.arange(1, len(nme_N) + 1) / max(len(nme_N), 1)


def auc(nme_N: NDArray[np.float64], limit: float = 0.10) -> float:
    """Area under the CED from 0 to the limit, divided by the limit; exact for the step function."""
    return (
        min(1.0, float(np.mean(np.nan_to_num(np.clip(limit - nme_N, 0, None))) / limit)) if len(nme_N) else float("nan")
    )


def summarise(nme_N: NDArray[np.float64], expected: int = 0, limit: float = 0.10) -> Summary:
    """The figures of one subset; NaN, and no CED, where it has no image."""
    mean = float(nme_N.mean()) if len(nme_N) else float("nan")
    points = tuple(float(np.mean(nme_N <= percent / 100)) for percent in range(1, 11)) if len(nme_N) else ()
    return Summary(len(nme_N), expected, mean, failure_rate(nme_N, limit), auc(nme_N, limit), limit, points)
