"""Faces followed through a video, and their landmarks steadied."""

import numpy as np

from nasface import detect, track
from nasface.detect import FoundFaces
from tests.unit.test_detect import found

# --- tracking: a film of faces that look() knows


SIZE = 20


class Film:
    """Frames in which faces of 20 pixels lie at known places; counts what is asked of detector and network."""

    def __init__(self, *places: list[tuple[float, float]]):
        self.frames = [np.full((100, 100, 3), i, np.uint8) for i in range(len(places))]
        self.truth = [np.array([[x, y, x + SIZE, y + SIZE] for x, y in p], dtype=float).reshape(-1, 4) for p in places]
        self.detected: list[int] = []
        self.refined: set[int] = set()

    def detector(self, image: np.ndarray) -> np.ndarray:
        self.detected.append(int(image[0, 0, 0]))
        return self.truth[self.detected[-1]] + 3.0  # a habit of its own

    def look(self, image: np.ndarray, boxes_K4: np.ndarray, refine: int) -> FoundFaces:
        """Snaps to the face that a box covers best; without one it answers with the box and a low score."""
        if len(boxes_K4):
            self.refined.add(refine)
        truth = self.truth[int(image[0, 0, 0])]
        shares = detect.overlap(boxes_K4, truth)
        if not len(truth):
            return found(boxes_K4.tolist(), [0.6] * len(boxes_K4))
        best = truth[shares.argmax(axis=1)] if len(boxes_K4) else boxes_K4
        there = shares.max(axis=1) > 0.3
        return found(np.where(there[:, None], best, boxes_K4).tolist(), np.where(there, 0.9, 0.6).tolist())

    def track(self, every: int = 100, min_score: float = 0.5) -> list[dict[int, list[float]]]:
        seen = track.track(self.frames, self.detector, self.look, every=every, refine=1, min_score=min_score)
        found_in = [faces for _, faces in seen]
        return [dict(zip(f.numbers_K.tolist(), f.landmarks_KL2[:, 0].tolist(), strict=True)) for f in found_in]


def test_a_face_is_followed_without_the_detector_and_keeps_its_number():
    film = Film(*[[(10 + 4 * i, 30)] for i in range(6)])
    assert film.track() == [{0: [10 + 4 * i, 30]} for i in range(6)]
    assert film.detected == [0]
    assert film.refined == {0, 1}  # tracked faces are not refined, detected ones are


def test_a_cut_is_noticed_in_its_very_frame():
    film = Film([(10, 10)], [(10, 10)], [(60, 60)], [(60, 60)])
    assert film.track() == [{0: [10, 10]}, {0: [10, 10]}, {1: [60, 60]}, {1: [60, 60]}]
    assert film.detected == [0, 2]


def test_a_second_face_is_found_at_the_next_detection():
    film = Film([(10, 10)], *[[(10, 10), (60, 60)]] * 3)
    assert film.track(every=2) == [{0: [10, 10]}] * 2 + [{0: [10, 10], 1: [60, 60]}] * 2
    assert film.detected == [0, 2]


def test_while_there_is_no_face_every_frame_is_searched():
    film = Film([], [], [(10, 10)], [(10, 10)], [])
    assert film.track() == [{}, {}, {0: [10, 10]}, {0: [10, 10]}, {}]
    assert film.detected == [0, 1, 2, 4]


def test_two_boxes_on_one_face_become_one():
    film = Film([(15, 10), (35, 10)], [(25, 10)])
    assert film.track() == [{0: [15, 10], 1: [35, 10]}, {0: [25, 10]}]


def test_a_face_that_is_detected_again_beside_its_box_keeps_its_number():
    film = Film(*[[(10, 10)]] * 4)
    film.detector = lambda image: film.truth[0] + 11.0  # overlaps the tracked face by less than half
    film.look = lambda image, boxes_K4, refine: found(
        film.truth[0].repeat(len(boxes_K4), 0).tolist(), [0.8 + 0.1 * refine] * len(boxes_K4)
    )
    assert film.track(every=2) == [{0: [10, 10]}] * 4


def test_detected_faces_of_a_low_score_are_dropped():
    assert Film([(10, 10)]).track(min_score=0.95) == [{}]


def test_a_face_that_grows_at_once_is_lost():
    film = Film([(40, 40)], [(40, 40)])
    film.truth[1] = np.array([[30.0, 30, 70, 70]])  # twice the size
    assert list(film.track()[1]) == [1]


def test_a_face_whose_landmarks_leave_the_image_is_lost():
    film = Film([(90, 40)], [])
    drifting = found([[105, 40, 125, 60]], [0.9])
    tracked = track.track(
        film.frames,
        film.detector,
        lambda image, boxes_K4, refine: drifting if len(boxes_K4) else found([], []),
        every=100,
        refine=1,
        min_score=0.5,
    )
    assert [len(faces) for _, faces in tracked] == [1, 0]


# --- steadied landmarks


def film(points_TL2: np.ndarray) -> list[tuple[np.ndarray, FoundFaces]]:
    """Frames of one face, whose landmarks are given."""
    still = [np.array([[0.0, 0, 100, 100]]), np.ones((1, points_TL2.shape[1])), np.zeros(1, np.int64)]
    image = np.zeros((4, 4, 3), np.uint8)
    return [(image, FoundFaces(still[0], points_L2[None], still[1], still[2])) for points_L2 in points_TL2]


def steady(points_TL2: np.ndarray, rate: float = 30, cutoff: float = 1.5) -> np.ndarray:
    return np.array([faces.landmarks_KL2[0] for _, faces in track.steadied(film(points_TL2), rate, cutoff)])


CORNERS = np.array([[0.0, 0], [100, 0], [0, 100], [100, 100]])


def test_the_landmarks_of_a_still_face_tremble_less():
    noisy = CORNERS + np.random.default_rng(0).normal(0, 0.5, (200, 4, 2))
    assert steady(noisy)[50:].std(axis=0).max() < 0.65 * noisy[50:].std(axis=0).min()


def test_a_fast_face_is_followed_closely():
    moving = CORNERS + np.arange(60)[:, None, None] * np.array([4.0, 0])  # more than a face size per second
    lag = np.abs(steady(moving) - moving)[20:].max()
    assert lag < 1.0
    fixed = 4 / (1 / (1 + 30 / (2 * np.pi * 1.5))) - 4  # of a low-pass filter whose cut-off stays at 1.5 Hz
    assert lag < 0.1 * fixed


def test_steadiness_does_not_depend_on_the_size_of_the_picture():
    noisy = CORNERS + np.random.default_rng(0).normal(0, 2, (40, 4, 2)).cumsum(axis=0)
    np.testing.assert_allclose(steady(8 * noisy), 8 * steady(noisy), atol=0.5)  # boxes end at whole pixels


def test_a_cutoff_of_zero_changes_nothing_and_the_first_frame_is_as_it_was():
    noisy = CORNERS + np.random.default_rng(0).normal(0, 2, (5, 4, 2))
    np.testing.assert_array_equal(steady(noisy, cutoff=0), noisy)
    np.testing.assert_array_equal(steady(noisy)[0], noisy[0])


def test_a_new_face_starts_where_it_is():
    here, there = film(CORNERS[None])[0], film(CORNERS[None] + 50)[0]
    new = (there[0], FoundFaces(there[1].boxes_K4, there[1].landmarks_KL2, there[1].confidences_KL, np.array([1])))
    (_, one), (_, none), (_, other) = track.steadied([here, (here[0], here[1].take(np.zeros(1, bool))), new], 30, 1.5)
    assert len(none) == 0
    np.testing.assert_array_equal(one.landmarks_KL2[0], CORNERS)
    np.testing.assert_array_equal(other.landmarks_KL2[0], CORNERS + 50)
