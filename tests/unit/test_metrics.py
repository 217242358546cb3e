"""Error figures, worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nasface.errors import DataError
from nasface.metrics import auc, ced, distances, failure_rate, mean_std, nme, percentiles, summarise
from tests.refusal import refused

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
    with refused(DataError, "2 faces", normaliser, "number 1"):
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
    assert (summary.images, summary.expected, summary.missing) == (3, 5, 0)
    assert summary.nme == pytest.approx(0.1)
    assert summary.failure_rate == pytest.approx({0.08: 1 / 3, 0.1: 1 / 3})
    assert summary.auc == pytest.approx({0.08: (0.5 + 0.25 + 0) / 3, 0.1: (0.6 + 0.4 + 0) / 3})
    assert summary.percentiles == pytest.approx({50: 0.06, 90: 0.06 + 0.8 * 0.14, 95: 0.06 + 0.9 * 0.14})
    # up to 0, 0.5, 1, ... 10 percent
    assert summary.ced == pytest.approx((*(8 * [0]), *(4 * [1 / 3]), *(9 * [2 / 3])))


def test_a_summary_against_counting_face_by_face():
    errors = np.random.default_rng(1).gamma(3, 0.02, 300)
    plain = json.loads(json.dumps(summarise(errors, 300).as_dict()))
    for limit in (0.08, 0.1):
        assert plain["failure_rate"][f"{limit:g}"] == sum(e > limit for e in errors) / 300
        assert plain["auc"][f"{limit:g}"] == pytest.approx(sum(max(0, limit - e) for e in errors) / limit / 300)
    for percent in (50, 90, 95):
        assert plain["percentiles"][str(percent)] == pytest.approx(np.percentile(errors, percent))
    assert plain["ced"]["nme"] == pytest.approx([0.005 * i for i in range(21)])
    assert plain["ced"]["share"] == [sum(e <= x for e in errors) / 300 for x in plain["ced"]["nme"]]
    assert plain["ced"]["share"][-1] == 1 - plain["failure_rate"]["0.1"]


def test_a_face_without_landmarks_fails_and_is_left_out_of_the_mean():
    summary = summarise(np.array([0.02, np.nan, 0.04, np.nan]))
    assert (summary.images, summary.missing) == (4, 2)
    assert summary.nme == pytest.approx(0.03)
    assert summary.failure_rate == {0.08: 0.5, 0.1: 0.5}
    assert summary.auc[0.1] == pytest.approx((0.8 + 0.6) / 4)
    assert summary.ced[-1] == 0.5
    plain = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert plain["percentiles"] == {"50": None, "90": None, "95": None}
    # a percentile that falls on a face with landmarks, beside one without
    assert percentiles(np.array([0.02, np.nan, 0.04]), (0, 50, 75)) == pytest.approx({0: 0.02, 50: 0.04, 75: math.inf})
    assert math.isnan(summarise(np.array([np.nan])).nme)


def test_a_subset_without_images_has_no_figures():
    summary = summarise(np.array([]), expected=135)
    assert (summary.images, summary.expected, summary.missing) == (0, 135, 0)
    plain = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert plain["nme"] is None
    assert plain["failure_rate"] == plain["auc"] == {"0.08": None, "0.1": None}
    assert plain["percentiles"] == {"50": None, "90": None, "95": None}
    assert plain["ced"] == {"nme": [], "share": []}
    x, y = ced(np.array([]))
    assert len(x) == len(y) == 0


def test_mean_and_deviation_by_hand():
    assert mean_std([1, 2, 6]) == {"mean": 3.0, "std": pytest.approx(7**0.5)}
    assert mean_std([{"network": "a", "x": 0.5}] * 2) == {"network": "a", "x": {"mean": 0.5, "std": 0.0}}
    assert mean_std([0.5, None]) == {"mean": None, "std": None}
