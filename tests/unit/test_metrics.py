"""Error figures, worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nasface.errors import DataError
from nasface.metrics import auc, ced, distances, failure_rate, nme, summarise

FACE = np.array([[0.0, 0.0], [3.0, 3.0], [2.0, 1.0], [8.0, 1.0], [12.0, 2.0], [5.0, 1.0]])  # in a box of 12 x 3
GROUPS = {"inter_ocular": ((0,), (1,)), "inter_pupil": ((2, 5), (3,))}


@pytest.mark.parametrize(
    ("normaliser", "expected"),
    [
        ("inter_ocular", 3 * math.sqrt(2)),  # from (0, 0) to (3, 3)
        ("inter_pupil", 4.5),  # from the mean of (2, 1) and (5, 1) to (8, 1)
        ("box", 6.0),  # sqrt(12 x 3)
    ],
)
def test_normalisers(normaliser, expected):
    faces = np.stack([FACE, 2 * FACE + 7])
    assert distances(faces, normaliser, GROUPS) == pytest.approx([expected, 2 * expected])


def test_nme_by_hand():
    true = np.zeros((2, 2, 2))
    predicted = np.array([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [6.0, 8.0]]])
    # errors 5 and 1 over a distance of 10; errors 0 and 10 over 50
    assert nme(predicted, true, np.array([10.0, 50.0])) == pytest.approx([0.3, 0.1])
    assert nme(predicted.astype(np.float32), true, np.array([1.0, 1.0])).dtype == np.float64


@pytest.mark.parametrize(
    ("normaliser", "points"),
    [
        ("inter_ocular", np.zeros((6, 2))),
        ("inter_pupil", np.ones((6, 2))),
        ("box", FACE * [1, 0]),  # all points on one line
        ("inter_ocular", FACE * np.nan),
    ],
)
def test_a_face_without_size_is_refused(normaliser, points):
    faces = np.stack([FACE, points, points])
    with pytest.raises(DataError, match=rf"2 faces have no {normaliser} distance \(the first is number 1\); mend"):
        distances(faces, normaliser, GROUPS)


def test_failure_rate_counts_what_is_above_the_limit():
    errors = np.array([0.02, 0.10, 0.11, 0.50])
    assert failure_rate(errors) == 0.5  # a face at the limit does not fail
    assert failure_rate(errors, limit=0.3) == 0.25
    assert failure_rate(errors, limit=0.01) == 1


def test_ced_by_hand():
    x, y = ced(np.array([0.3, 0.1, 0.2, 0.2]))
    assert x.tolist() == [0.1, 0.2, 0.2, 0.3]
    assert y.tolist() == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("limit", [0.05, 0.10, 1.0])
def test_auc_is_the_area_under_the_ced(limit):
    errors = np.random.default_rng(0).gamma(2, 0.03, 200)
    x, y = ced(errors)
    grid = (np.arange(100_000) + 0.5) * limit / 100_000
    below = np.searchsorted(x, grid, side="right")
    area = np.concatenate([[0], y])[below].mean()
    assert auc(errors, limit) == pytest.approx(area, abs=1e-4)
    assert 0 < auc(errors, limit) < 1


def test_auc_at_its_ends():
    assert auc(np.zeros(3)) == pytest.approx(1)
    assert auc(np.array([0.1, 0.2])) == 0
    assert auc(np.array([0.05, 0.2])) == pytest.approx(0.25)


def test_a_summary():
    summary = summarise(np.array([0.04, 0.06, 0.20]), expected=5)
    assert (summary.images, summary.expected, summary.limit) == (3, 5, 0.10)
    assert summary.nme == pytest.approx(0.1)
    assert summary.failure_rate == pytest.approx(1 / 3)
    assert summary.auc == pytest.approx((0.6 + 0.4 + 0) / 3)
    assert summary.ced == pytest.approx((0, 0, 0, 1 / 3, 1 / 3, *(5 * [2 / 3])))  # up to 1, 2, ... 10 percent
    assert summarise(np.array([0.04, 0.06]), limit=0.05).failure_rate == 0.5
    assert json.loads(json.dumps(summary.as_dict()))["images"] == 3


def test_a_subset_without_images_has_no_figures():
    summary = summarise(np.array([]), expected=135)
    assert (summary.images, summary.expected) == (0, 135)
    assert all(math.isnan(value) for value in (summary.nme, summary.failure_rate, summary.auc))
    plain = summary.as_dict()
    assert plain["nme"] is plain["failure_rate"] is plain["auc"] is None
    assert plain["limit"] == 0.10
    json.dumps(plain, allow_nan=False)
    assert plain["ced"] == ()
    x, y = ced(np.array([]))
    assert len(x) == len(y) == 0
