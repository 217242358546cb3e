"""The embedded synthetic faces: exact, repeatable, and painted where the landmarks say."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nasface.data.base import Face
from nasface.data.schemes import SCHEMES
from nasface.data.synthetic import Synthetic
from nasface.data.synthetic.faces import LARGE_YAW, RATES, _stream, _subject
from nasface.data.synthetic.head3d import head
from nasface.data.synthetic.paint import damage
from nasface.data.synthetic.posed import Camera, figure, landmarks, rotation
from nasface.data.synthetic.render import render
from nasface.data.synthetic.surface import Subject
from nasface.errors import DataError, NasfaceError
from tests.refusal import refused

pytestmark = pytest.mark.slow


def neutral(yaw: float = 0.0, flags: frozenset[str] = frozenset(), **values: float) -> Subject:
    """A subject of the mean shape, 75 pixels from eye corner to eye corner, amid a 192-pixel frame."""
    shape = head().coefficients(values)
    return Subject(figure(shape, Camera(rotation(yaw, 0, 0), 9.0, 75.0, (95.5, 90.0)), 0.0), yaw, flags)


def paint(subject: Subject, number: int = 0) -> np.ndarray:
    return render(subject, 192, np.random.Generator(np.random.PCG64([number, 99]))).astype(float)


def grey_at(picture: np.ndarray, point: np.ndarray, reach: int = 1) -> float:
    x, y = np.rint(point).astype(int)
    return float(picture[y - reach : y + reach + 1, x - reach : x + reach + 1].mean())


@pytest.fixture(scope="module")
def many() -> tuple[Face, ...]:
    return Synthetic(train=1500, test=500).index().faces


def test_same_bytes_in_any_order_and_instance() -> None:
    first, second = Synthetic(train=6, test=3), Synthetic(train=6, test=3, landmarks=98)
    pictures = {face.name: first.read(face) for face in first.index().faces}
    for face in reversed(second.index().faces):
        assert np.array_equal(second.read(face), pictures[face.name])
    again = pickle.loads(pickle.dumps(first))
    face = again.index().faces[0]
    assert again.read(face).tobytes() == pictures[face.name].tobytes()


def test_pictures_have_the_asked_size_and_differ() -> None:
    for size in (96, 131):
        data = Synthetic(train=2, test=1, size=size)
        pictures = [data.read(face) for face in data.index().faces]
        assert all(p.shape == (size, size, 3) and p.dtype == np.uint8 for p in pictures)
        assert len({p.tobytes() for p in pictures}) == 3


@pytest.mark.slow
def test_fingerprint_names_all_the_picture_depends_on() -> None:
    prints = set()
    for options in ({}, {"seed": 1}, {"size": 128}):
        data = Synthetic(train=2, test=2, **options)
        faces = data.index().faces
        prints |= {data.fingerprint(face) for face in faces}
        assert data.fingerprint(faces[0]) == data.fingerprint(replace(faces[0], subsets=()))
    assert len(prints) == 12
    one, other = Synthetic(train=2), Synthetic(train=5, landmarks=29)
    assert one.fingerprint(one.index().faces[1]) == other.fingerprint(other.index().faces[1])


@pytest.mark.parametrize("count", [68, 98, 29])
def test_index_counts_and_scheme(count: int) -> None:
    data = Synthetic(landmarks=count, train=30, test=20)
    index = data.index()
    assert data.scheme is SCHEMES[count]
    assert len(index.faces) == 50
    assert not index.problems
    assert index.expected["train"] == 30
    assert index.expected["test/full"] == 20
    assert len({(face.split, face.name) for face in index.faces}) == 50
    for face in index.faces:
        assert face.landmarks_L2.shape == (count, 2)
        assert face.landmarks_L2.dtype == np.float64
        hash(face.source)


def test_schemes_agree_on_shared_points() -> None:
    by_count = {count: Synthetic(landmarks=count, train=40, test=0).index().faces for count in (68, 98, 29)}
    for f68, f98, f29 in zip(*by_count.values(), strict=True):
        a, b, c = f68.landmarks_L2, f98.landmarks_L2, f29.landmarks_L2
        assert f68.subsets == f98.subsets == f29.subsets
        assert np.allclose(a[:17], b[:33:2])
        assert np.allclose(a[[36, 39, 42, 45]], b[[60, 64, 68, 72]])
        assert np.allclose(a[[36, 45, 39, 42]], c[8:12])
        assert np.allclose(a[48:60], b[76:88])
        assert np.allclose(a[27:36], b[51:60])
        assert np.allclose(b[[96, 97]], c[16:18])
        assert np.allclose(a[[8, 30, 33, 48, 54, 51, 57]], c[[28, 20, 21, 22, 23, 24, 27]])


@pytest.mark.parametrize("count", [68, 98, 29])
def test_neutral_face_is_symmetric_under_the_flip(count: int) -> None:
    points = landmarks(neutral().figure, count)
    mirrored = points[list(SCHEMES[count].flip)]
    mirrored[:, 0] = 2 * 95.5 - mirrored[:, 0]
    assert np.allclose(points, mirrored, atol=1e-6)


def test_turning_left_mirrors_turning_right() -> None:
    left, right = (landmarks(neutral(yaw).figure, 98) for yaw in (-35.0, 35.0))
    mirrored = left[list(SCHEMES[98].flip)]
    assert np.allclose(np.stack([191 - mirrored[:, 0], mirrored[:, 1]], -1), right, atol=1e-6)
    assert right[54, 0] > 95.5  # positive yaw turns the nose to the viewer's right


def test_proportions_of_the_mean_face() -> None:
    points = landmarks(neutral().figure, 68)
    unit = points[45, 0] - points[36, 0]
    assert 1.55 < (points[16, 0] - points[0, 0]) / unit < 1.68
    assert 1.2 < (points[8, 1] - points[36, 1]) / unit < 1.35
    assert 0.35 < (points[30, 1] - points[36, 1]) / unit < 0.45


def test_landmarks_fill_the_frame_with_a_margin(many: tuple[Face, ...]) -> None:
    for face in many:
        low, high = face.landmarks_L2.min(axis=0), face.landmarks_L2.max(axis=0)
        assert low.min() > 20
        assert high.max() < 171
        assert 0.45 < (high - low).max() / 192 < 0.66
        assert face.box is not None
        assert face.box[0] <= low[0] + 1e-9


def test_attribute_rates(many: tuple[Face, ...]) -> None:
    rates = {**RATES, "pose": 0.096}
    for name, rate in rates.items():
        share = np.mean([name in face.subsets for face in many])
        assert abs(share - rate) < 0.035, name
    assert all("full" in face.subsets for face in many)


def test_pose_subset_is_large_yaw() -> None:
    for i in range(300):
        subject = _subject(_stream(0, "test", i, 0), 192)
        assert ("pose" in subject.flags) == (abs(subject.yaw) > LARGE_YAW)
        assert abs(subject.yaw) <= 60


@pytest.mark.parametrize("flag", ["illumination", "make-up", "occlusion", "blur"])
def test_attributes_show(flag: str) -> None:
    """Painted from the same random stream, a face changes when it gets an attribute."""
    changes = [np.abs(paint(neutral(), i) - paint(neutral(flags=frozenset({flag})), i)).mean() for i in range(4)]
    assert min(changes) > 0.5


def test_blur_widens_edges() -> None:
    bars = np.zeros((192, 192, 3), np.uint8)
    bars[:, 64:128] = 200

    def steepest(blurred: bool) -> float:
        rows = [
            damage(Image.fromarray(bars), np.random.Generator(np.random.PCG64(i)), blurred=blurred) for i in range(9)
        ]
        return float(np.median([np.abs(np.diff(row.astype(float).mean(axis=(0, 2)))).max() for row in rows]))

    assert steepest(True) < 0.5 * steepest(False)


def test_expressions_move_the_landmarks() -> None:
    calm, shut = (landmarks(neutral(close_l=c, close_r=c).figure, 98) for c in (0.0, 1.0))
    assert calm[66, 1] - calm[62, 1] > 5
    assert abs(shut[66, 1] - shut[62, 1]) < 0.5
    opened = landmarks(neutral(jaw_open=1.0).figure, 98)
    assert opened[94, 1] - opened[90, 1] > 10
    assert opened[16, 1] - calm[16, 1] > 10
    assert np.allclose(opened[60:76], calm[60:76], atol=0.5)


def test_iris_is_darker_than_the_white_of_the_eye() -> None:
    subject = neutral(close_l=-0.3, close_r=-0.3)
    points = landmarks(subject.figure, 98)
    for i in range(8):
        picture = paint(subject, i)
        for pupil, outer, inner in ((96, 60, 64), (97, 72, 68)):
            middle = grey_at(picture, points[pupil])
            for corner in (outer, inner):
                white = points[pupil] * 0.42 + points[corner] * 0.58
                assert middle < grey_at(picture, white, 0) - 8, (i, pupil)


def test_brows_nostrils_and_open_mouths_are_dark() -> None:
    subject = neutral(jaw_open=1.2)
    points = landmarks(subject.figure, 98)
    nostril = subject.figure.marks_K2[head().at["nostril_l"]].mean(axis=0)
    cheek = points[57] + (-45, 0)
    spots = {
        "brow": ((points[35] + points[40]) / 2, points[35] - (0, 8)),
        "nostril": (nostril, cheek),
        "mouth": ((points[90] + points[94]) / 2, cheek),
    }
    pictures = [paint(subject, i) for i in range(9)]
    for name, (dark, bright) in spots.items():
        assert sum(grey_at(p, dark) < grey_at(p, bright) - 5 for p in pictures) >= 7, name


@pytest.mark.parametrize("yaw", [-45.0, 0.0, 30.0])
def test_contour_lies_on_an_edge_of_the_picture(yaw: float) -> None:
    """Across the jaw line the picture changes more than a little inside it."""
    subject = neutral(yaw)
    contour = landmarks(subject.figure, 98)[10:23]
    out = contour - subject.figure.outline_A2.mean(axis=0)
    out /= np.linalg.norm(out, axis=1, keepdims=True)

    def step(picture: np.ndarray, depth: float) -> float:
        pairs = [
            (grey_at(picture, p + o * (2.5 - depth)), grey_at(picture, p - o * (2.5 + depth)))
            for p, o in zip(contour, out, strict=True)
        ]
        return float(np.mean([abs(a - b) for a, b in pairs]))

    pictures = [paint(subject, i) for i in range(10)]
    assert np.mean([step(p, 0.0) for p in pictures]) > 1.5 * np.mean([step(p, 9.0) for p in pictures])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"landmarks": 70}, ["landmarks=70", "29, 68, 98"]),
        ({"train": -1}, ["train=-1"]),
        ({"train": 0, "test": 0}, ["no face"]),
        ({"size": 8}, ["size=8", "48"]),
        ({"seed": 1.5}, ["seed=1.5", "whole number"]),
    ],
)
def test_bad_options_are_named(options: dict[str, int], words: list[str]) -> None:
    with pytest.raises(NasfaceError) as caught:
        Synthetic(**options)
    assert all(word in str(caught.value) for word in words)


def test_foreign_face_is_refused() -> None:
    data = Synthetic(train=1)
    stranger = replace(data.index().faces[0], source="photo.jpg")
    with refused(DataError, stranger.name, "photo.jpg"):
        data.read(stranger)
