"""Fronts against brute force and by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasface import pareto
from nasface.errors import RunError
from tests.refusal import refused

NAN = math.nan
# few values, so that ties and duplicates are common
small = st.one_of(st.integers(0, 6).map(float), st.sampled_from([NAN, math.inf]))
clouds = st.lists(st.tuples(small, small), max_size=12)
exact = st.floats(-1e3, 1e3, allow_nan=False)


def dominated(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)


def finite(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for point in points if all(map(math.isfinite, point))]


@given(st.one_of(clouds, st.lists(st.tuples(exact, exact), max_size=12)))
def test_a_front_is_what_nothing_dominates(points):
    valid = finite(points)
    assert pareto.front(points).tolist() == [p in valid and not dominated(p, valid) for p in points]


def test_a_front_by_hand():
    points = [(3, 1), (1, 3), (2, 2), (2, 2), (2, 3), (3, 2), (1, 4), (NAN, 0), (0, NAN)]
    assert np.flatnonzero(pareto.front(points)).tolist() == [0, 1, 2, 3]
    assert pareto.front([]).tolist() == []


@given(clouds, st.integers(0, 7), st.integers(0, 7))
def test_a_hypervolume_counts_the_cells_that_some_point_dominates(points, cost, score):
    cells = sum(any(a <= x and b <= y for a, b in finite(points)) for x in range(cost) for y in range(score))
    assert pareto.hypervolume(points, (cost, score)) == cells


def test_a_hypervolume_by_hand():
    points = [(1.0, 0.5), (2.0, 0.25), (2.0, 0.25), (5.0, 0.1), (0.5, 2.0)]
    assert pareto.hypervolume(points, (4.0, 1.0)) == pytest.approx(1 * 0.5 + 2 * 0.75)
    assert pareto.hypervolume(points[:1], (1.0, 1.0)) == 0
    assert pareto.hypervolume([], (4.0, 1.0)) == 0
    with refused(RunError, "(nan, 1.0)"):
        pareto.hypervolume(points, (NAN, 1.0))


@pytest.mark.parametrize(
    ("points", "index"),
    [
        # scaled to [0, 1]: (0, 1), (.1, .5), (.5, .1), (1, 0); 1 - x - y is 0, .4, .4 and 0: the cheaper of the two
        ([(200, 0.03), (150, 0.031), (110, 0.035), (100, 0.04)], 2),
        ([(100, 0.04), (110, 0.035), (150, 0.0305), (200, 0.03)], 2),  # .1 + .5 against .5 + .05
        ([(NAN, 0.0), (7, 3)], 1),
        ([(2, 1), (1, 2)], 1),  # two: the cheaper
        ([(2, 1), (2, 1)], 0),
        ([(4, 0), (3, 1), (2, 2), (1, 3), (0, 4)], 4),  # a straight line
        ([(0, 1), (0.9, 0.9), (1, 0)], 0),  # bulges outwards: no point is below the line
        ([(0, 4), (9, 9), (1, 1), (4, 0)], 2),  # what is dominated does not count, nor stretch the axes
        ([(0, 1), (0.1, 0.3), (1, 0), (5, 0.3)], 1),
    ],
)
def test_a_knee_lies_farthest_below_the_line_between_the_ends(points, index):
    assert pareto.knee(points) == index


@given(clouds, st.sampled_from([1e-9, 0.5, 1e9]), st.sampled_from([1e-6, 3.0]))
def test_a_knee_is_on_the_front_whatever_the_units(points, cost_unit, score_unit):
    if not finite(points):
        with refused(RunError, "knee"):
            pareto.knee(points)
        return
    index = pareto.knee(points)
    assert pareto.front(points)[index]
    assert pareto.knee(np.array(points) * [cost_unit, score_unit]) == index


def table(*points: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["macs", "nme"])


def test_a_spread_by_hand():
    first = table((30, 0.2), (10, 0.5), (20, 0.6), (40, NAN))  # 0.6 is dominated: the step goes on at 0.5
    second = table((20, 0.3), (10, 0.7))
    found = pareto.spread([first, second], "macs", "nme", [5, 10, 15, 20, 29.9, 30, 99], reference=(40, 1.0))
    np.testing.assert_array_equal(
        found.best_SG, [[NAN, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2], [NAN, 0.7, 0.7, 0.3, 0.3, 0.3, 0.3]]
    )
    np.testing.assert_allclose(found.mean_G, [NAN, 0.6, 0.6, 0.4, 0.4, 0.25, 0.25])
    deviation = np.array([NAN, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]) / math.sqrt(2)  # of two values, ddof 1
    np.testing.assert_allclose(found.std_G, deviation)
    areas = [20 * 0.5 + 10 * 0.8, 10 * 0.3 + 20 * 0.7]
    np.testing.assert_allclose(found.hypervolume_S, areas)
    assert found.hypervolume_mean == pytest.approx(17.5)
    assert found.hypervolume_std == pytest.approx(1 / math.sqrt(2))


def test_a_seed_without_a_network_that_cheap_leaves_no_mean():
    found = pareto.spread([table((10, 0.5)), table((20, 0.3))], "macs", "nme", [10, 20])
    np.testing.assert_array_equal(found.mean_G, [NAN, 0.4])
    assert np.isnan(found.std_G).tolist() == [True, False]


def test_a_spread_of_one_seed_has_no_deviation_and_its_reference_is_the_worst_there_is():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pareto.spread([table((1, 5), (3, 2), (4, NAN))], "macs", "nme", [3])
    assert (found.mean_G.tolist(), found.reference, found.hypervolume_mean) == ([2], (3, 5), 0)
    assert np.isnan([*found.std_G, found.hypervolume_std]).all()


def test_a_seed_in_which_nothing_was_evaluated_is_not_passed_over():
    found = pareto.spread([table((1, 5), (3, 2)), table((1, NAN))], "macs", "nme", [3])
    assert np.isnan(found.mean_G).all()
    assert found.hypervolume_S.tolist() == [0, 0]


@pytest.mark.parametrize("tables", [[], [table((1, NAN))]])
def test_a_spread_of_nothing_is_refused(tables):
    with refused(RunError, "'macs'", "'nme'"):
        pareto.spread(tables, "macs", "nme", [1])


@pytest.mark.parametrize(
    ("columns", "stage"),
    [
        ({"inherited": [0.5, 0.4]}, "inherited"),
        ({"inherited": [0.5, 0.4], "recalibrated": [0.3, NAN], "finetuned": [NAN, NAN]}, "recalibrated"),
        ({"finetuned": [NAN, 0.2], "inherited": [0.1, 0.1]}, "finetuned"),
    ],
)
def test_the_best_stage_is_the_last_with_a_figure(columns, stage):
    assert pareto.best_stage(pd.DataFrame({f"held_out_nme_{k}": v for k, v in columns.items()})) == stage


def test_no_stage_without_a_held_out_figure():
    with refused(RunError, "held-out NME"):
        pareto.best_stage(pd.DataFrame({"nme_full_finetuned": [0.1], "held_out_nme_inherited": [NAN]}))


def test_the_score_shown_can_be_of_a_network_that_another_score_chose():
    seed = pd.DataFrame({"macs": [10, 20, 30], "test": [5.0, 3.0, 4.0], "held_out": [5.0, 4.0, 3.0]})
    found = pareto.spread([seed], "macs", "test", [5, 10, 25, 30, 99], by="held_out")
    np.testing.assert_array_equal(found.mean_G, [np.nan, 5, 3, 4, 4])  # not 3 at 30: the test score does not choose
    own = pareto.spread([seed], "macs", "test", [5, 10, 25, 30, 99])
    np.testing.assert_array_equal(own.mean_G, [np.nan, 5, 3, 3, 3])
