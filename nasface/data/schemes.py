"""The landmark schemes of 300W (68), WFLW (98) and COFW (29), by number of landmarks."""

from __future__ import annotations

from nasface.data.base import Scheme


def _line(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _loop(first: int, last: int) -> tuple[int, ...]:
    return (*_line(first, last), first)


# Written as reversed runs: in a mirrored face, every contour runs from its other end.
_FLIP_68 = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
_FLIP_98 = (
    *range(32, -1, -1), *range(46, 41, -1), *range(50, 46, -1), *range(37, 32, -1), *range(41, 37, -1),
    *range(51, 55), *range(59, 54, -1),
    *range(72, 67, -1), *range(75, 72, -1), *range(64, 59, -1), *range(67, 64, -1),
    *range(82, 75, -1), *range(87, 82, -1), *range(92, 87, -1), *range(95, 92, -1), 97, 96,
)  # fmt: skip
_FLIP_29 = (
    1, 0, 3, 2, 6, 7, 4, 5, 9, 8, 11, 10, 14, 15, 12, 13, 17, 16, 19, 18, 20, 21, 23, 22,
    *range(24, 29),
)  # fmt: skip

_CONTOURS_68 = (
    _line(0, 16), _line(17, 21), _line(22, 26), _line(27, 30), _line(31, 35),
    _loop(36, 41), _loop(42, 47), _loop(48, 59), _loop(60, 67),
)  # fmt: skip
_CONTOURS_98 = (
    _line(0, 32), _loop(33, 41), _loop(42, 50), _line(51, 54), _line(55, 59),
    _loop(60, 67), _loop(68, 75), _loop(76, 87), _loop(88, 95),
)  # fmt: skip
_CONTOURS_29 = (
    (0, 4, 2, 5, 0), (1, 6, 3, 7, 1), (8, 12, 10, 13, 8), (9, 14, 11, 15, 9),
    (18, 20, 19, 21, 18), (22, 24, 23, 27, 22), (22, 25, 23, 26, 22),
)  # fmt: skip

SCHEMES: dict[int, Scheme] = {
    68: Scheme(
        num_landmarks=68,
        flip=_FLIP_68,
        inter_ocular=((36,), (45,)),
        inter_pupil=(_line(36, 41), _line(42, 47)),  # pupils are not annotated: the means of the eyes
        contours=_CONTOURS_68,
    ),
    98: Scheme(
        num_landmarks=98,
        flip=_FLIP_98,
        inter_ocular=((60,), (72,)),
        inter_pupil=((96,), (97,)),
        contours=_CONTOURS_98,
    ),
    29: Scheme(
        num_landmarks=29,
        flip=_FLIP_29,
        inter_ocular=((8,), (9,)),
        inter_pupil=((16,), (17,)),
        contours=_CONTOURS_29,
    ),
}
