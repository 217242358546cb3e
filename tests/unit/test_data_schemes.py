"""The landmark schemes: sizes, mirrored indices, and which landmarks are eyes and contours."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nasface.data.cofw import COFW
from nasface.data.masked300w import Masked300W
from nasface.data.schemes import SCHEMES
from nasface.data.synthetic import Synthetic
from nasface.data.w300 import W300
from nasface.data.wflw import WFLW

# The published permutations, point by point.
FLIPS = {
    68: "16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0 26 25 24 23 22 21 20 19 18 17 27 28 29 30 35 34 "
    "33 32 31 45 44 43 42 47 46 39 38 37 36 41 40 54 53 52 51 50 49 48 59 58 57 56 55 64 63 62 "
    "61 60 67 66 65",
    98: "32 31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0 "
    "46 45 44 43 42 50 49 48 47 37 36 35 34 33 41 40 39 38 51 52 53 54 59 58 57 56 55 72 71 70 "
    "69 68 75 74 73 64 63 62 61 60 67 66 65 82 81 80 79 78 77 76 87 86 85 84 83 92 91 90 89 88 "
    "95 94 93 97 96",
    29: "1 0 3 2 6 7 4 5 9 8 11 10 14 15 12 13 17 16 19 18 20 21 23 22 24 25 26 27 28",
}
EYES = {68: ((36,), (45,)), 98: ((60,), (72,)), 29: ((8,), (9,))}
PUPILS = {68: (tuple(range(36, 42)), tuple(range(42, 48))), 98: ((96,), (97,)), 29: ((16,), (17,))}


@pytest.mark.parametrize("number", [68, 98, 29])
def test_flip_is_the_published_permutation_and_its_own_inverse(number: int) -> None:
    scheme = SCHEMES[number]
    flip = np.array(scheme.flip)
    assert scheme.num_landmarks == number
    assert " ".join(map(str, scheme.flip)) == FLIPS[number]
    assert (flip[flip] == np.arange(number)).all()


@pytest.mark.parametrize("number", [68, 98, 29])
def test_normalisers_are_the_published_ones_and_mirror_onto_each_other(number: int) -> None:
    scheme = SCHEMES[number]
    assert scheme.inter_ocular == EYES[number]
    assert scheme.inter_pupil == PUPILS[number]
    for left, right in (scheme.inter_ocular, scheme.inter_pupil):
        assert sorted(scheme.flip[i] for i in left) == sorted(right)


@pytest.mark.parametrize("number", [68, 98, 29])
def test_contours_mirror_onto_contours(number: int) -> None:
    scheme = SCHEMES[number]

    def strokes(contour: tuple[int, ...]) -> set[frozenset[int]]:
        return {frozenset(pair) for pair in pairwise(contour)}

    drawn = set().union(*map(strokes, scheme.contours))
    mirrored = {frozenset(scheme.flip[i] for i in stroke) for stroke in drawn}
    assert drawn == mirrored


@pytest.mark.parametrize("dataset", [W300, Masked300W, WFLW, COFW, Synthetic])
def test_built_in_datasets_say_under_which_terms_their_faces_may_be_used(dataset: type) -> None:
    licence = dataset(None).licence
    assert licence.endswith(".")
    assert "\n" not in licence
    assert ("Apache-2.0" in licence) == (dataset is Synthetic)
