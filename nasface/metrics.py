"""NME by normaliser, failure rate, AUC, percentiles and CED, over subsets of a test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError
from nasface.scores import Normaliser

Groups = tuple[tuple[int, ...], tuple[int, ...]]

LIMITS = (0.08, 0.10)
"""NMEs above which a face counts as a failure, and up to which the AUC is taken; both are in common use."""
PERCENTS = (50, 90, 95)
CED_AXIS: tuple[float, ...] = tuple(i / 200 for i in range(21))
"""NMEs at which a summary samples the CED: 0 to 10 % in steps of half a percent."""


@dataclass(frozen=True)
class Summary:
    """The figures of one subset. NMEs are fractions of the normaliser, not percent.

    A face without landmarks (NaN) is left out of the mean, counted in `missing`, and is a failure at any limit.

    Attributes:
        images: number of faces evaluated.
        expected: number of faces in the official subset.
        missing: number of faces without landmarks.
        nme: mean over the images of the mean point error.
        failure_rate: by limit, the share of images with a greater NME.
        auc: by limit, the area under the CED up to the limit, divided by the limit.
        percentiles: of the images' NMEs, by percent.
        ced: for each value of `CED_AXIS`, the share of images whose NME is no greater.
    """

    images: int
    expected: int
    missing: int
    nme: float
    failure_rate: Mapping[float, float]
    auc: Mapping[float, float]
    percentiles: Mapping[int, float]
    ced: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with limits and percents as text ('0.08', '50') and the CED with its axis.

        The figures of an empty subset are None, as is a percentile that falls on a face without landmarks.
        """
        by_key = {
            name: {f"{key:g}": _finite(value) for key, value in getattr(self, name).items()}
            for name in ("failure_rate", "auc", "percentiles")
        }
        ced = {"nme": list(CED_AXIS[: len(self.ced)]), "share": list(self.ced)}
        counts = {"images": self.images, "expected": self.expected, "missing": self.missing}
        return {**counts, "nme": _finite(self.nme), **by_key, "ced": ced}


def distances(
    landmarks_NL2: NDArray[Any], normaliser: Normaliser, groups: Mapping[Normaliser, Groups]
) -> NDArray[np.float64]:
    """Return the normalising distance of each face (N,), in the unit of the landmarks.

    Args:
        landmarks_NL2: true landmarks.
        normaliser: a distance between two groups' means, or the box size: the square root of width x height of the
            landmark box.
        groups: the landmark scheme's two groups of indices, by normaliser.

    Raises:
        DataError: the distance of a face is zero or not a number.
    """
    points = np.asarray(landmarks_NL2, dtype=np.float64)
    if normaliser == Normaliser.BOX:
        size: NDArray[np.float64] = np.sqrt(np.prod(points.max(axis=1) - points.min(axis=1), axis=1))
    else:
        left, right = (points[:, list(group)].mean(axis=1) for group in groups[normaliser])
        size = np.linalg.norm(left - right, axis=1)
    if bad := np.flatnonzero(~(size > 0)).tolist():
        raise DataError(
            f"{len(bad)} faces have no {normaliser} distance (the first is number {bad[0]}); correct their landmarks"
        )
    return size


def nme(predicted_NL2: NDArray[Any], true_NL2: NDArray[Any], distances_N: NDArray[Any]) -> NDArray[np.float64]:
    """Return the NME of each face (N,): the mean over its landmarks of the point error, divided by its distance."""
    error = np.linalg.norm(np.asarray(predicted_NL2, np.float64) - np.asarray(true_NL2, np.float64), axis=2)
    result: NDArray[np.float64] = error.mean(axis=1) / distances_N
    return result


def failure_rate(nme_N: NDArray[np.float64], limit: float = 0.10) -> float:
    """Return the share of images whose NME is above the limit or not a number."""
    return float(np.mean(~(nme_N <= limit))) if len(nme_N) else float("nan")


def ced(nme_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cumulative error distribution: the sorted NMEs, and the share of images at or below each of them."""
    return np.sort(nme_N), np.arange(1, len(nme_N) + 1) / max(len(nme_N), 1)


def auc(nme_N: NDArray[np.float64], limit: float = 0.10) -> float:
    """Return the area under the CED from 0 to the limit, divided by the limit; exact for the step function."""
    return (
        min(1.0, float(np.mean(np.nan_to_num(np.clip(limit - nme_N, 0, None))) / limit)) if len(nme_N) else float("nan")
    )


def percentiles(nme_N: NDArray[np.float64], percents: Sequence[int] = PERCENTS) -> dict[int, float]:
    """Return percentiles of the NMEs, interpolated between images; the NME of a face without landmarks is infinite."""
    if not len(nme_N):
        return dict.fromkeys(percents, float("nan"))
    ordered = np.sort(np.where(np.isnan(nme_N), np.inf, nme_N))
    # as np.percentile does, except that it returns NaN next to an infinite value
    values = np.interp((len(ordered) - 1) * np.array(percents) / 100, np.arange(len(ordered)), ordered)
    return dict(zip(percents, values.tolist(), strict=True))


def summarise(nme_N: NDArray[np.float64], expected: int = 0) -> Summary:
    """Return the figures of one subset; NaN and an empty CED if it has no image."""
    here = nme_N[~np.isnan(nme_N)]
    return Summary(
        images=len(nme_N),
        expected=expected,
        missing=len(nme_N) - len(here),
        nme=float(here.mean()) if len(here) else float("nan"),
        failure_rate={limit: failure_rate(nme_N, limit) for limit in LIMITS},
        auc={limit: auc(nme_N, limit) for limit in LIMITS},
        percentiles=percentiles(nme_N),
        ced=tuple(float(np.mean(nme_N <= x)) for x in CED_AXIS) if len(nme_N) else (),
    )


def mean_std(values: Sequence[Any]) -> Any:
    """Return {mean, std} (ddof 1) of each figure over several networks; None where one of them lacks the figure.

    Names and numbers of faces, which all networks share, are kept as they are; the CED is left out.

    Args:
        values: two or more of the same form: numbers, or `Accuracy.as_dict()` and mappings within it.
    """
    first = values[0]
    if isinstance(first, Mapping):
        return {
            key: value if key in ("network", "images", "expected") else mean_std([other[key] for other in values])
            for key, value in first.items()
            if key != "ced"
        }
    if any(value is None for value in values):
        return {"mean": None, "std": None}
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
