"""Landmarks as CSV: there and back, what other programs write, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_files import Toy, toy
from numpy.typing import NDArray

from nasface.data.crop import PrepareOptions
from nasface.data.prepare import PreparedFaces, prepare
from nasface.errors import DataError
from nasface.stages.evaluate.landmarks_csv import read_predictions, write_predictions
from nasface.stages.measure import measure, true_landmarks
from tests.refusal import names, refused

DATA = toy(test=4)


@pytest.fixture
def test(tmp_path: Path) -> PreparedFaces:
    return prepared(DATA)


def prepared(data: Toy) -> PreparedFaces:
    return prepare(data, PrepareOptions(input_size=32), workers=1)["test"]


def guess(test: PreparedFaces) -> NDArray[np.float64]:
    """Landmarks some pixels off."""
    return true_landmarks(test) + np.random.default_rng(0).normal(0, 1, (len(test), 3, 2))


def originals() -> NDArray[np.float64]:
    """The true landmarks of the test faces in their images, as the dataset has them."""
    return np.stack([face.landmarks_L2 for face in DATA.faces if face.split == "test"])


def write(path: Path, points_NL2: NDArray[np.float64], names: list[str] | None = None, **columns: object) -> Path:
    """A CSV file as another program would write it."""
    names = [f"test/{i}" for i in range(len(points_NL2))] if names is None else names
    flat = points_NL2.reshape(len(points_NL2), -1)
    keys = [f"{axis}{i}" for i in range(flat.shape[1] // 2) for axis in "xy"]
    pd.DataFrame({"image": names, **dict(zip(keys, flat.T, strict=True)), **columns}).to_csv(path, index=False)
    return path


def test_a_name_in_another_folder_of_the_dataset_is_no_test_face(tmp_path: Path, test: PreparedFaces, caplog):
    points = np.concatenate([originals(), originals()[:1] + 50])
    names = [*(f"test/crops/{i}.png" for i in range(4)), "data/train/0.png"]
    (back,) = read_predictions(write(tmp_path / "p.csv", points, names), test, others=["train/0"]).values()
    np.testing.assert_allclose(back, true_landmarks(test), atol=1e-9)
    assert "ignoring 1 rows" in caplog.text


def test_there_and_back_gives_the_same_landmarks_and_errors(tmp_path: Path, test: PreparedFaces):
    one, other = guess(test), guess(test) * 1.1
    path = tmp_path / "p.csv"
    write_predictions(path, [("one", one, test), ("other", other, test)])
    back = read_predictions(path, test)
    assert list(back) == ["one", "other"]
    np.testing.assert_allclose(back["one"], one, atol=1e-12)
    for name, points in (("one", one), ("other", other)):
        before, after = measure(name, points, test), measure(name, back[name], test)
        assert [r["face"] for r in before.faces] == [r["face"] for r in after.faces]
        for normaliser in ("inter_ocular", "inter_pupil", "box"):
            a, b = (np.array([row[f"nme_{normaliser}"] for row in m.faces]) for m in (before, after))
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_errors_are_those_in_the_original_images(tmp_path: Path, test: PreparedFaces):
    true = originals()
    shifted = true + np.random.default_rng(3).normal(0, 2, true.shape)
    found = measure("x", read_predictions(write(tmp_path / "x.csv", shifted), test)["x"], test)
    for face, (p, t) in enumerate(zip(shifted, true, strict=True)):
        distance = np.hypot(*(t[0] - t[1]))  # the toy's outer eye corners are its points 0 and 1
        expected = sum(np.hypot(*(p[i] - t[i])) for i in range(3)) / 3 / distance
        assert found.faces[face]["nme_inter_ocular"] == pytest.approx(expected, rel=1e-5)
    hard = [row["nme_inter_ocular"] for row in found.faces if "hard" in row["subsets"].split(";")]
    assert found.subsets["inter_ocular"]["hard"].nme == pytest.approx(np.mean(hard))
    assert found.subsets["inter_ocular"]["hard"].expected == 5


@pytest.mark.parametrize("form", ["pixel one", "lm", "lm and box", "spaces", "bom", "order"])
def test_other_forms_of_the_same(tmp_path: Path, test: PreparedFaces, form: str):
    path = write(tmp_path / "x.csv", originals())
    frame = pd.read_csv(path)
    if form == "pixel one":
        frame.iloc[:, 1:] += 1
    if form.startswith("lm"):
        frame.columns = ["image", *(f"lm{i}_{axis}" for i in range(3) for axis in "xy")]
    if form == "lm and box":
        frame = frame.assign(x0=1, y0=2, x1=30, y1=40)
    if form == "order":
        frame = frame.iloc[::-1, ::-1].assign(score=1.0)
    text = frame.to_csv(index=False)
    text = text.replace(",", " , ") if form == "spaces" else text
    path.write_text(text, encoding="utf-8-sig" if form == "bom" else "utf-8")
    found = read_predictions(path, test, one_based=form == "pixel one")["x"]
    np.testing.assert_allclose(found, true_landmarks(test), atol=1e-4)


@pytest.mark.parametrize("name", ["{}", "test/{}.jpg", "{}.PNG", "/data/toy/test/{}.png", "C:\\toy\\test\\{}.jpg"])
def test_faces_are_found_by_their_files(tmp_path: Path, test: PreparedFaces, name: str):
    names = [name.format(i) for i in (2, 0, 3, 1)]
    path = write(tmp_path / "x.csv", originals()[[2, 0, 3, 1]], names)
    np.testing.assert_allclose(read_predictions(path, test)["x"], true_landmarks(test), atol=1e-4)


def test_missing_faces_fail_only_when_that_is_said(tmp_path: Path, test: PreparedFaces):
    points = originals()
    points[2, 1] = np.nan  # half a face is none
    path = write(tmp_path / "x.csv", points[:3])
    with refused(DataError, path, "2 of 4", "'test/2'", "--missing fail"):
        read_predictions(path, test)
    found = read_predictions(path, test, missing="fail")["x"]
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, False, True, True]
    full = measure("x", found, test).subsets["box"]["full"]
    assert (full.missing, full.failure_rate[0.1]) == (2, 0.5)
    assert full.nme == pytest.approx(0, abs=1e-5)


def test_rows_of_no_test_face_are_left_out_with_a_warning(
    tmp_path: Path, test: PreparedFaces, caplog: pytest.LogCaptureFixture
):
    points = originals()
    path = write(tmp_path / "x.csv", np.concatenate([points, points[:1]]), [*(f"test/{i}" for i in range(4)), "odd"])
    with caplog.at_level(logging.WARNING, "nasface"):
        found = read_predictions(path, test)["x"]
    (warning,) = [record.getMessage() for record in caplog.records]
    names(warning, path, "1 rows", "'odd'")
    np.testing.assert_allclose(found, true_landmarks(test), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", ["image, x0, y0"]),
        ("image,x0\n\x00", []),
        ("face,x0,y0\na,1,2\n", ["face, x0, y0", "image, x0, y0"]),
        ("image,x0,x0\na,1,2\n", ["image, x0, x0", "once"]),
        ("image,x0,y0\ntest/0,1,2\n", ["1 landmarks", "3", "x0, y0, ... x2, y2"]),
        ("image,x0,y0,x1,y1,x2,y2,x3,y3\ntest/0,1,2,3,4,5,6,7,8\n", ["4 landmarks", "3"]),
        ("image,lm0_x,lm0_y\ntest/0,1,2\n", ["1 landmarks", "3", "lm0_x"]),
        ("image,x0,y0,x1,y1,x2,y2\ntest/0,1,2,3,4,5,six\n", ["six"]),
        ("image,x0,y0,x1,y1,x2,y2\ntest/0,1,2,3,4,5,6,7\n", ["line 2"]),
        ("image,x0,y0,x1,y1,x2,y2\nodd,1,2,3,4,5,6\n", ["'odd'", "'test/0'"]),
        ("image,x0,y0,x1,y1,x2,y2\n", ["'test/0'"]),
        ("image,x0,y0,x1,y1,x2,y2\n" + 2 * "test/1,1,2,3,4,5,6\n", ["1 faces", "'test/1'"]),
    ],
)
def test_what_is_refused(tmp_path: Path, test: PreparedFaces, text: str, facts: list[str]):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with refused(DataError, path, *facts):
        read_predictions(path, test)


def test_a_file_name_of_several_faces_is_refused(tmp_path: Path):
    data = toy(test=2)
    names = {"test/0": "a/face", "test/1": "b/face"}
    faces = tuple(face.__class__(**{**vars(face), "name": names.get(face.name, face.name)}) for face in data.faces)
    test = prepared(Toy(faces, data.images))
    path = write(tmp_path / "x.csv", true_landmarks(test), ["face.jpg", "b/face.jpg"])
    with refused(DataError, path, "'face.jpg'", "2 faces", "'a/face'", "'b/face'"):
        read_predictions(path, test)


def test_a_missing_file_and_an_empty_test_set(tmp_path: Path, test: PreparedFaces):
    with refused(DataError, tmp_path / "nowhere.csv"):
        read_predictions(tmp_path / "nowhere.csv", test)
    with refused(DataError, tmp_path / "x.csv", "--data-root"):
        read_predictions(write(tmp_path / "x.csv", originals()), prepared(toy(test=0)))
