"""Masked 300W: its layouts, where the points come from, and that 300W itself is not taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import points, write_300w_face, write_image, write_pts

from nasface.data.check import check
from nasface.data.crop import PrepareOptions
from nasface.data.masked300w import Masked300W
from nasface.data.prepare import prepare
from nasface.data.w300 import W300
from nasface.errors import DataError
from nasface.testing import check_dataset
from tests.refusal import refused

NAMES = ("helen/testset/3_1", "lfpw/testset/image_0002", "ibug/image_092 _01")


def masked(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    for seed, name in enumerate(names):
        write_300w_face(root, name, seed)
    return root


def originals(root: Path) -> Path:
    """300W with the same test faces, one training face and one test face more."""
    for seed, name in enumerate((*NAMES, "afw/1_1", "helen/testset/9_1")):
        write_300w_face(root, name, seed)
    return root


def test_official_folders_give_test_faces_named_and_grouped_as_those_of_300w(tmp_path: Path) -> None:
    root = masked(tmp_path)
    index, of_300w = Masked300W(root).index(), W300(root).index()
    assert not index.problems
    assert {f.name: (f.split, f.subsets) for f in index.faces} == {
        "helen/testset/3_1": ("test", ("common", "full")),
        "lfpw/testset/image_0002": ("test", ("common", "full")),
        "ibug/image_092 _01": ("test", ("challenge", "full")),
    }
    for face, other in zip(index.faces, of_300w.faces, strict=True):
        assert (face.name, face.subsets, face.source) == (other.name, other.subsets, other.source)
        np.testing.assert_array_equal(face.landmarks_L2, other.landmarks_L2)
    expected = {name: number for name, number in of_300w.expected.items() if name.startswith("test")}
    assert index.expected == expected


def test_it_conforms(tmp_path: Path) -> None:
    check_dataset(Masked300W(masked(tmp_path)))


@pytest.mark.parametrize("helen", ["HELEN/TestSet", "helen", "Helen"])
def test_folders_in_any_case_with_or_without_testset(tmp_path: Path, helen: str) -> None:
    masked(tmp_path / "Masked_300W", (f"{helen}/3_1", "lfpw/image_0002", "IBUG/image_003_1"))
    index = Masked300W(tmp_path).index()
    assert [face.name for face in index.faces] == [
        "helen/testset/3_1", "lfpw/testset/image_0002", "ibug/image_003_1",
    ]  # fmt: skip


def test_300w_beside_the_masked_images_is_passed_over(tmp_path: Path) -> None:
    originals(tmp_path)
    write_300w_face(tmp_path / "Masked 300W", "ibug/image_003_1", 7)
    (face,) = Masked300W(tmp_path).index().faces
    assert face.source == tmp_path / "Masked 300W" / "ibug" / "image_003_1.png"


@pytest.mark.parametrize("training", ["afw/1_1", "helen/trainset/1_1", "lfpw/TrainSet/image_0001"])
def test_300w_itself_is_refused(tmp_path: Path, training: str) -> None:
    masked(tmp_path)
    write_300w_face(tmp_path, training)
    with refused(DataError, str(tmp_path), training.rpartition("/")[0].lower()):
        Masked300W(tmp_path).index()


def test_images_alone_take_their_points_from_300w(tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES):
        write_image(tmp_path / "masked" / f"{name}.jpg", 50 + seed)
    write_image(tmp_path / "masked" / "ibug" / "unknown.jpg")
    dataset = Masked300W(tmp_path / "masked", annotations=str(originals(tmp_path / "300w")))
    index = dataset.index()
    assert [face.name for face in index.faces] == list(NAMES)
    for seed, face in enumerate(index.faces):
        np.testing.assert_allclose(face.landmarks_L2, points(seed=seed))
        assert face.source == tmp_path / "masked" / f"{face.name}.jpg"
    (problem,) = index.problems
    assert (problem.where, problem.level) == ("ibug/unknown", "warning")
    check_dataset(dataset)


def test_points_from_a_csv_of_300w(tmp_path: Path) -> None:
    root = tmp_path / "300w"
    write_image(root / "images" / "ibug" / "image_003_1.jpg")
    row = ",".join(f"{value:.2f}" for value in points(seed=3).ravel())
    (root / "face_landmarks_300w_valid.csv").write_text(f"ibug/image_003_1.jpg,1,30,30,{row}\n")
    write_image(tmp_path / "masked" / "ibug" / "image_003_1.png", 5)
    (face,) = Masked300W(tmp_path / "masked", annotations=str(root)).index().faces
    assert face.name == "ibug/image_003_1"
    np.testing.assert_allclose(face.landmarks_L2, points(seed=3))


def test_a_partial_copy_says_how_much_of_each_subset_is_there(tmp_path: Path) -> None:
    report = check(Masked300W(masked(tmp_path, NAMES[:1])), workers=1)
    assert report.ok
    assert {(c.split, c.subset): (c.found, c.expected) for c in report.counts} == {
        ("train", ""): (0, None),
        ("test", ""): (1, 689),
        ("test", "common"): (1, 554),
        ("test", "challenge"): (0, 135),
        ("test", "full"): (1, 689),
    }


def test_damaged_annotations_and_images_without_any_are_told(tmp_path: Path) -> None:
    masked(tmp_path)
    write_pts(tmp_path / "ibug" / "lonely.pts", points())
    write_pts(tmp_path / "ibug" / "._hidden.pts", points())
    write_image(tmp_path / "ibug" / "bare.jpg")
    write_image(tmp_path / "ibug" / "bare_mirror.jpg")
    write_image(tmp_path / "ibug" / "few.jpg")
    write_pts(tmp_path / "ibug" / "few.pts", points(67))
    write_image(tmp_path / "ibug" / "odd.jpg")
    (tmp_path / "ibug" / "odd.pts").write_text("1 2 3")
    index = Masked300W(tmp_path).index()
    assert len(index.faces) == 3
    said = {problem.where: (problem.level, problem.what) for problem in index.problems}
    expected = {
        "ibug/lonely": ("error", "no image"),
        "ibug/bare": ("warning", "no landmarks"),
        "ibug/few": ("error", "67 landmarks"),
        "ibug/odd": ("error", "3 numbers"),
    }
    assert said.keys() == expected.keys()
    for where, (level, phrase) in expected.items():
        assert said[where][0] == level
        assert phrase in said[where][1]


def test_prepared_it_has_a_test_split_alone(tmp_path: Path) -> None:
    prepared = prepare(Masked300W(masked(tmp_path)), PrepareOptions(32), workers=1)
    assert len(prepared["train"]) == 0
    assert prepared["test"].names == NAMES
    assert (prepared["test"].count("common"), prepared["test"].expected_count("common")) == (2, 554)


@pytest.mark.parametrize("case", ["none", "absent", "empty", "no points", "no such annotations"])
def test_what_is_missing_is_said_in_one_sentence(tmp_path: Path, case: str) -> None:
    root: Path | None = None if case == "none" else tmp_path / "data"
    if case not in ("none", "absent"):
        (tmp_path / "data").mkdir()
    if case in ("no points", "no such annotations"):
        write_image(tmp_path / "data" / "ibug" / "image_003_1.jpg")
    annotations = str(tmp_path / "nowhere") if case == "no such annotations" else None
    with pytest.raises(DataError) as caught:
        Masked300W(root, annotations=annotations).index()
    said = {
        "none": "--data-root",
        "absent": f"{root} is missing",
        "empty": f"{root} holds no image",
        "no points": f"{root} holds images",
        "no such annotations": f"{tmp_path / 'nowhere'} is missing",
    }
    assert said[case] in str(caught.value)
    assert "\n" not in str(caught.value)
