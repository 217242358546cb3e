"""300W in its three forms: where the points land, what the subsets are, and what each fault says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_files import points, real_data, write_300w_face, write_image, write_pts

from nasface.data.base import Face, Index
from nasface.data.w300 import W300
from nasface.errors import DataError, RecipeError
from tests.refusal import names, refused


def by_name(index: Index) -> dict[str, Face]:
    return {face.name: face for face in index.faces}


def test_official_folders_give_splits_subsets_and_zero_based_points(tmp_path: Path) -> None:
    names = ["afw/1_1", "helen/trainset/2_1", "lfpw/trainset/image_0001", "helen/testset/3_1"]
    names += ["lfpw/testset/image_0002", "ibug/image_092 _01"]
    for seed, name in enumerate(names):
        write_300w_face(tmp_path, name, seed)
    index = W300(tmp_path).index()
    assert not index.problems
    assert {face.name: (face.split, face.subsets) for face in index.faces} == {
        "afw/1_1": ("train", ("afw",)),
        "helen/trainset/2_1": ("train", ("helen",)),
        "lfpw/trainset/image_0001": ("train", ("lfpw",)),
        "helen/testset/3_1": ("test", ("common", "full")),
        "lfpw/testset/image_0002": ("test", ("common", "full")),
        "ibug/image_092 _01": ("test", ("challenge", "full")),
    }
    for seed, name in enumerate(names):
        np.testing.assert_allclose(by_name(index)[name].landmarks_L2, points(seed=seed))
    assert index.expected["train"] == 3148
    assert index.expected["test/challenge"] == 135


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".png", ".PNG", ".webp", ".jpeg", ".bmp"])
def test_any_common_image_extension_is_read(tmp_path: Path, suffix: str) -> None:
    write_300w_face(tmp_path, "afw/a", suffix=suffix)
    dataset = W300(tmp_path)
    image = dataset.read(dataset.index().faces[0])
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)


def test_pts_without_header_and_braces(tmp_path: Path) -> None:
    write_300w_face(tmp_path, "afw/a", header=False)
    np.testing.assert_allclose(W300(tmp_path).index().faces[0].landmarks_L2, points())


def test_folders_in_upper_case_and_one_level_down(tmp_path: Path) -> None:
    write_300w_face(tmp_path / "300W", "AFW/a")
    write_300w_face(tmp_path / "300W", "HELEN/TrainSet/b")
    assert [face.name for face in W300(tmp_path).index().faces] == ["afw/a", "helen/trainset/b"]


def test_mirrored_and_hidden_copies_are_passed_over(tmp_path: Path) -> None:
    for name in ("afw/a", "afw/a_mirror", "afw/._a"):
        write_300w_face(tmp_path, name)
    index = W300(tmp_path).index()
    assert [face.name for face in index.faces] == ["afw/a"]
    assert not index.problems


def test_every_damaged_annotation_is_a_problem_with_its_reason(tmp_path: Path) -> None:
    write_300w_face(tmp_path, "afw/good")
    write_pts(tmp_path / "afw/lonely.pts", points())
    for name, text in {
        "few": "\n".join(["1 2"] * 67),
        "odd": "1 2 3",
        "words": "{ 1 2 three 4 }",
        "empty": "",
        "nan": "\n".join(["1 2", "nan 3"] * 34),
        "same": "\n".join(["5 5"] * 68),
    }.items():
        write_image(tmp_path / f"afw/{name}.jpg")
        (tmp_path / f"afw/{name}.pts").write_text(text)
    write_image(tmp_path / "afw/unmarked.jpg")
    index = W300(tmp_path).index()
    assert [face.name for face in index.faces] == ["afw/good"]
    said = {problem.where: (problem.level, problem.what) for problem in index.problems}
    expected = {
        "afw/lonely.pts": ("error", "no image"),
        "afw/few.pts": ("error", "67 landmarks"),
        "afw/odd.pts": ("error", "3 numbers"),
        "afw/words.pts": ("error", "three"),
        "afw/empty.pts": ("error", "0 landmarks"),
        "afw/nan.pts": ("error", "34 landmarks"),
        "afw/same.pts": ("error", "one place"),
        "afw/unmarked.jpg": ("warning", "no .pts file"),
    }
    assert said.keys() == expected.keys()
    for where, (level, phrase) in expected.items():
        assert said[where][0] == level
        assert phrase in said[where][1]
        assert str(tmp_path / where) in said[where][1]


def test_a_missing_subset_is_no_fault(tmp_path: Path) -> None:
    write_300w_face(tmp_path, "helen/testset/a")
    index = W300(tmp_path).index()
    assert len(index.faces) == 1
    assert not index.problems


@pytest.mark.parametrize("case", ["none", "absent", "file", "empty", "images only"])
def test_without_data_one_message_says_what_where_how_and_from_where(tmp_path: Path, case: str) -> None:
    root: Path | None = tmp_path / "data"
    if case == "none":
        root = None
    elif case == "file":
        (tmp_path / "data").write_text("")
    elif case == "empty":
        (tmp_path / "data").mkdir()
    elif case == "images only":
        write_image(tmp_path / "data/afw/a.png")
    with pytest.raises(DataError) as caught:
        W300(root).index()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("300W", "helen/trainset/", "ibug.doc.ic.ac.uk/resources/300-W", "--dataset synthetic"):
        assert part in message
    assert "--data-root" in message if root is None else str(root) in message


def test_unknown_option_values_are_refused(tmp_path: Path) -> None:
    with refused(RecipeError, "300w", "csv_base", "2"):
        W300(tmp_path, csv_base=2)
    with refused(RecipeError, "300w", "annotations", "auto, pts, csv, xml", "'json'"):
        W300(tmp_path, annotations="json")  # type: ignore[arg-type]


def write_csv(path: Path, rows: dict[str, str]) -> None:
    lines = ["image,scale,center_w,center_h," + ",".join(f"x{i},y{i}" for i in range(68))]
    path.write_text("\n".join(lines + [f"{name},{rest}" for name, rest in rows.items()]) + "\n")


def csv_cells(seed: int) -> str:
    return "0.2,32,30," + ",".join(f"{value:.2f}" for value in points(seed=seed).ravel())


@pytest.mark.parametrize("base", [0, 1])
def test_csv_is_read_by_position_in_either_base(tmp_path: Path, base: int) -> None:
    for name in ("afw/1.jpg", "helen/testset/2.jpg", "ibug/image_092 _01.jpg", "lfpw/testset/3.png"):
        write_image(tmp_path / "images" / name)
    write_csv(tmp_path / "face_landmarks_300w_train.csv", {"afw/1.jpg": csv_cells(1)})
    test = {"helen/testset/2.jpg": csv_cells(2), "ibug/image_092 _01.jpg": csv_cells(3)}
    write_csv(tmp_path / "face_landmarks_300w_valid.csv", test)
    write_csv(tmp_path / "face_landmarks_300w_valid_common.csv", {"helen/testset/2.jpg": csv_cells(2)})
    write_csv(tmp_path / "face_landmarks_300w_test.csv", {"lfpw/testset/3.png": csv_cells(4)})
    index = W300(tmp_path, csv_base=base).index()
    assert not index.problems
    assert [(face.name, face.split, face.subsets) for face in index.faces] == [
        ("afw/1", "train", ("afw",)),
        ("helen/testset/2", "test", ("common", "full")),
        ("ibug/image_092 _01", "test", ("challenge", "full")),
    ]
    np.testing.assert_allclose(index.faces[0].landmarks_L2, points(seed=1) - base)
    assert index.faces[0].box == pytest.approx((12 - base, 10 - base, 40, 40))


def test_damaged_csv_rows_are_problems_with_their_line(tmp_path: Path) -> None:
    write_image(tmp_path / "images/afw/1.jpg")
    rows = {
        "afw/1.jpg": csv_cells(1),
        "afw/2.jpg": csv_cells(2),
        "afw/3.jpg": "1,2,3,4",
        "afw/4.jpg": "1,2,x",
    }
    write_csv(tmp_path / "train.csv", rows)
    index = W300(tmp_path).index()
    assert [face.name for face in index.faces] == ["afw/1"]
    assert [problem.where for problem in index.problems] == [f"train.csv, line {n}" for n in (3, 4, 5)]
    for problem, phrase in zip(index.problems, ("afw/2.jpg", "140", "'x'"), strict=True):
        assert phrase in problem.what


def test_images_of_a_csv_may_have_another_extension(tmp_path: Path) -> None:
    write_image(tmp_path / "afw/1.webp")
    write_csv(tmp_path / "train.csv", {"afw/1.jpg": csv_cells(1)})
    assert W300(tmp_path).index().faces[0].source == tmp_path / "afw/1.webp"


def write_xml(path: Path, faces: list[tuple[str, int]], parts: int = 68) -> None:
    images = []
    for file, seed in faces:
        marks = points(seed=seed)
        inner = "".join(f"<part name='{i:02d}' x='{marks[i, 0]}' y='{marks[i, 1]}'/>" for i in range(parts))
        box = f"<box top='10' left='12' width='30' height='40'>{inner}</box>"
        images.append(f"<image file='{file}'>{box}<box top='1' left='1' width='5' height='5'/></image>")
    path.write_text(f"<dataset><images>{''.join(images)}</images></dataset>")


def test_dlib_xml_is_zero_based_and_its_detections_and_mirrored_copies_are_no_faces(tmp_path: Path) -> None:
    for name in ("helen/trainset/1.jpg", "helen/trainset/1_mirror.jpg", "ibug/2.jpg"):
        write_image(tmp_path / name)
    train = [("helen/trainset/1.jpg", 1), ("helen/trainset/1_mirror.jpg", 2)]
    write_xml(tmp_path / "labels_ibug_300W_train.xml", train)
    write_xml(tmp_path / "labels_ibug_300W_test.xml", [("ibug/2.jpg", 3)])
    write_xml(tmp_path / "labels_ibug_300W.xml", [("ibug/2.jpg", 3)])
    index = W300(tmp_path).index()
    assert [(face.name, face.subsets) for face in index.faces] == [
        ("helen/trainset/1", ("helen",)),
        ("ibug/2", ("challenge", "full")),
    ]
    np.testing.assert_allclose(index.faces[0].landmarks_L2, points(seed=1))
    assert index.faces[0].box == (12, 10, 30, 40)
    assert not index.problems


def test_a_list_that_trains_on_test_images_is_warned_about(tmp_path: Path) -> None:
    write_image(tmp_path / "helen/testset/1.jpg")
    write_xml(tmp_path / "train.xml", [("helen/testset/1.jpg", 1)])
    index = W300(tmp_path).index()
    assert (index.faces[0].split, index.faces[0].subsets) == ("train", ())
    assert [problem.level for problem in index.problems] == ["warning"]
    assert all(fact in index.problems[0].what for fact in ("train.xml", "1 images"))


def test_an_image_listed_twice_gives_two_names(tmp_path: Path) -> None:
    write_image(tmp_path / "afw/1.jpg")
    write_xml(tmp_path / "train.xml", [("afw/1.jpg", 1), ("afw/1.jpg", 2)])
    assert [face.name for face in W300(tmp_path).index().faces] == ["afw/1", "afw/1#2"]


def test_damaged_xml_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "afw/1.jpg")
    write_xml(tmp_path / "train.xml", [("afw/1.jpg", 1)], parts=60)
    assert all(fact in W300(tmp_path).index().problems[0].what for fact in ("train.xml", "60 landmarks", "68"))
    (tmp_path / "train.xml").write_text("<dataset><image")
    with refused(DataError, str(tmp_path / "train.xml"), "XML"):
        W300(tmp_path).index()


@pytest.mark.parametrize(
    ("name", "phrase"),
    [("x" * 5000, "5000 characters"), ("", "no image"), ("/", "image /,")],
)
@pytest.mark.parametrize("form", ["csv", "xml"])
def test_names_that_no_image_can_have_are_problems(tmp_path: Path, form: str, name: str, phrase: str) -> None:
    write_image(tmp_path / "afw/1.jpg")
    if form == "csv":
        write_csv(tmp_path / "train.csv", {"afw/1.jpg": csv_cells(1), name: csv_cells(2)})
    else:
        write_xml(tmp_path / "train.xml", [("afw/1.jpg", 1), (name, 2)])
    index = W300(tmp_path).index()
    assert [face.name for face in index.faces] == ["afw/1"]
    assert [phrase in problem.what for problem in index.problems] == [True]


@pytest.mark.parametrize("encoding", ["shift_jis", "nosuch"])
def test_xml_in_an_encoding_that_cannot_be_read_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "train.xml").write_text(f"<?xml version='1.0' encoding='{encoding}'?><dataset/>")
    with refused(DataError, str(tmp_path / "train.xml"), "encoding", "UTF-8"):
        W300(tmp_path).index()


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "afw").mkdir()
    usual = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "afw":
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with refused(DataError, "300W", str(tmp_path / "afw"), "Permission denied"):
        W300(tmp_path).index()


def test_pts_are_preferred_but_the_form_can_be_chosen(tmp_path: Path) -> None:
    write_300w_face(tmp_path, "afw/a", seed=1)
    write_csv(tmp_path / "train.csv", {"afw/a.png": csv_cells(2)})
    np.testing.assert_allclose(W300(tmp_path).index().faces[0].landmarks_L2, points(seed=1))
    chosen = W300(tmp_path, annotations="csv").index()
    np.testing.assert_allclose(chosen.faces[0].landmarks_L2, points(seed=2))
    with refused(DataError, str(tmp_path), "no xml"):
        W300(tmp_path, annotations="xml").index()


def test_a_truncated_image_is_named_and_a_changed_one_changes_the_fingerprint(tmp_path: Path) -> None:
    write_300w_face(tmp_path, "afw/a", seed=1)
    dataset = W300(tmp_path)
    face = dataset.index().faces[0]
    before = dataset.fingerprint(face)
    write_image(face.source, seed=2)
    assert dataset.fingerprint(face) != before
    face.source.write_bytes(face.source.read_bytes()[:300])
    with refused(DataError, str(face.source)):
        dataset.read(face)


@pytest.mark.slow
def test_the_real_folder_is_complete_as_far_as_it_goes() -> None:
    index = W300(real_data("300w")).index()
    assert not index.problems
    counts = Counter(subset for face in index.faces for subset in face.subsets)
    assert counts == {"afw": 337, "helen": 872, "lfpw": 805, "common": 554, "full": 554}


def test_the_real_originals_and_xml_files_are_read() -> None:
    originals = W300(real_data("samples/300w_originals"))
    index = originals.index()
    assert (len(index.faces), index.problems) == (11, ())
    for face in index.faces:
        height, width = originals.read(face).shape[:2]
        assert (face.landmarks_L2 > 0).all()
        assert (face.landmarks_L2 < (width, height)).all()
    listed = W300(real_data("samples/dlib_xml")).index()
    assert Counter(face.split for face in listed.faces) == {"train": 18, "test": 25}


def test_a_csv_reads_images_below_the_data_root_only(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png")
    root = tmp_path / "data"
    write_image(root / "images" / "a.png")
    cells = ",".join(["1.0", "32", "32", *(str(value) for value in points().ravel())])
    outside = ["../secret.png", str(tmp_path / "secret.png"), "images/../../secret.png", "..\\secret.png", "../secret"]
    (root / "train.csv").write_text("\n".join(f"{image},{cells}" for image in ["a.png", *outside]))
    index = W300(root, annotations="csv").index()
    assert [face.source for face in index.faces] == [root / "images" / "a.png"]
    assert len(index.problems) == len(outside)
    for image, problem in zip(outside, index.problems, strict=True):
        names(problem.what, image, root)
