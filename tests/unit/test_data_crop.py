"""Cropping: a dot painted at a known place must be found where its landmark says, at any scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nasface.data.base import Face
from nasface.data.crop import PrepareOptions, crop_face
from nasface.errors import DataError, RecipeError
from tests.refusal import refused


def face(marks: NDArray[np.float64], box: tuple[float, float, float, float] | None = None) -> Face:
    return Face("face", "train", (), np.asarray(marks, dtype=np.float64), None, box)


def dot(at: NDArray[np.float64], sigma: float, size: int) -> NDArray[np.uint8]:
    """A white Gaussian spot on black, centred at a sub-pixel place."""
    x, y = (np.exp(-((np.arange(size) - c) ** 2) / (2 * sigma**2)) for c in at)
    return np.repeat(np.round(255 * np.outer(y, x))[..., None], 3, axis=2).astype(np.uint8)


def centroid(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    grey = image[..., 0].astype(float)
    return np.array([(grey.sum(axis=axis) * np.arange(grey.shape[1 - axis])).sum() for axis in (0, 1)]) / grey.sum()


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([120, 500, 900]),
    input_size=st.sampled_from([32, 64, 96, 255]),
    margin=st.sampled_from([1.0, 1.3, 1.6]),
    seed=st.integers(0, 10_000),
)
def test_a_dot_lands_where_its_landmark_says(size: int, input_size: int, margin: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    spread = random.uniform(0.2, 0.35) * size
    marks = size / 2 + random.uniform(-0.05, 0.05, 2) * size + random.uniform(-1, 1, (5, 2)) * spread
    marks[0] = marks.mean(axis=0)
    options = PrepareOptions(input_size=input_size, margin=margin)
    scale = 1.25 * float(np.ptp(marks, axis=0).max()) / input_size
    crop = crop_face(dot(marks[0], max(1.5, scale), size), face(marks), 5, options)
    np.testing.assert_allclose(centroid(crop.image), crop.landmarks_L2[0], atol=0.1)
    back = crop.landmarks_L2 @ crop.to_original_23[:, :2].T + crop.to_original_23[:, 2]
    np.testing.assert_allclose(back, marks, atol=1e-3)


def test_the_input_is_the_box_times_its_scale_around_its_centre() -> None:
    marks = np.array([[20.3, 30.2], [59.6, 30.9], [40.0, 49.5]])  # floor and ceil: 20..60 x 30..50
    crop = crop_face(np.zeros((100, 100, 3), np.uint8), face(marks), 3, PrepareOptions(input_size=50, margin=1.4))
    assert crop.image.shape == (70, 70, 3)
    assert crop.to_original_23[0, 0] == pytest.approx(40 * 1.25 / 50)
    # the centre of an even number of pixels lies between the two in the middle
    centre = crop.to_original_23 @ np.array([34.5, 34.5, 1])
    np.testing.assert_allclose(centre, [40, 40])


def test_a_crop_at_scale_one_is_the_image_itself_with_black_around() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    marks = np.array([[0.0, 0.0], [39.0, 39.0], [3.0, 4.0]])  # box 39, centre 19.5
    options = PrepareOptions(input_size=40, margin=1.5, box_scale=40 / 39)
    crop = crop_face(image, face(marks), 3, options)
    expected = np.zeros((60, 60, 3), np.uint8)
    expected[10:50, 10:50] = image
    np.testing.assert_array_equal(crop.image, expected)
    np.testing.assert_allclose(crop.landmarks_L2, marks + 10, atol=1e-5)


def test_downsizing_is_anti_aliased() -> None:
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    marks = np.array([[100.0, 100.0], [400.0, 400.0], [200.0, 300.0]])
    options = PrepareOptions(input_size=32, margin=1.0)
    crop = crop_face(np.repeat(board[..., None], 3, axis=2), face(marks), 3, options)
    assert np.abs(crop.image.astype(int) - 127).max() <= 3


def test_provided_boxes_are_used_where_asked_for() -> None:
    marks = np.array([[20.0, 20.0], [40.0, 21.0], [30.0, 44.0]])
    image = np.zeros((100, 100, 3), np.uint8)
    options = PrepareOptions(input_size=40, margin=1.0, box="provided", box_scale=1.0)
    crop = crop_face(image, face(marks, (10.0, 20.0, 40.0, 20.0)), 3, options)
    np.testing.assert_allclose(crop.to_original_23 @ np.array([19.5, 19.5, 1]), [30, 30])
    assert crop.to_original_23[0, 0] == 1


@pytest.mark.parametrize(
    ("marks", "box", "facts"),
    [
        ([[1, 1], [2, np.nan], [3, 3]], None, ["1 landmarks", "finite"]),
        ([[1, 1], [9, 9]], None, ["2 landmarks", "3"]),
        ([[5, 5], [5, 5], [5, 5]], None, ["one place"]),
        ([[0, 0], [90_000, 5], [3, 3]], None, ["50 x 50"]),
        ([[500, 500], [520, 500], [510, 520]], None, ["outside", "50 x 50"]),
        ([[10, 10], [30, 10], [20, 20]], (5.0, 5.0, 0.0, 0.0), ["0 pixels"]),
        ([[10, 10], [30, 10], [20, 20]], (np.nan, 5.0, 9.0, 9.0), ["50 x 50"]),
    ],
)
def test_points_that_do_not_fit_the_image_are_refused(
    marks: list[list[float]], box: tuple[float, float, float, float] | None, facts: list[str]
) -> None:
    options = PrepareOptions(input_size=32, box="provided" if box else "landmarks")
    with refused(DataError, "face", *facts):
        crop_face(np.zeros((50, 50, 3), np.uint8), face(np.array(marks), box), 3, options)


@pytest.mark.parametrize("input_size", [32, 63, 128, 256])
@pytest.mark.parametrize("margin", [1.0, 1.25, 1.6, 2.0])
def test_the_stored_size_keeps_an_integer_border(input_size: int, margin: float) -> None:
    options = PrepareOptions(input_size=input_size, margin=margin)
    assert options.stored_size == input_size + 2 * options.pad
    assert options.stored_size == pytest.approx(input_size * margin, abs=1)


@pytest.mark.parametrize(
    "wrong", [{"input_size": 4}, {"margin": 0.9}, {"margin": 9}, {"box": "given"}, {"box_scale": 0}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with refused(RecipeError, *(str(part) for item in wrong.items() for part in item)):
        PrepareOptions(**wrong)  # type: ignore[arg-type]
