"""WFLW: fields of its lists, flags to subsets, several faces in an image, and its faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import points, real_data, write_image

from nasface.data.wflw import WFLW
from nasface.errors import DataError
from tests.refusal import refused

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"


def line(image: str, seed: int = 0, flags: str = "0 0 0 0 0 0", box: str = "10 12 50 60") -> str:
    marks = " ".join(f"{value:.6f}" for value in points(98, seed).ravel())
    return f"{marks} {box} {flags} {image}"


def write_list(root: Path, split: str, lines: list[str], folder: str = LISTS) -> None:
    path = root / folder / f"list_98pt_rect_attr_{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_lists_give_zero_based_points_boxes_and_the_subsets_of_the_flags(tmp_path: Path) -> None:
    for name in ("0--Parade/a", "1--Run/b"):
        write_image(tmp_path / f"WFLW_images/{name}.jpg")
    write_list(tmp_path, "train", [line("0--Parade/a.jpg", 1, "1 1 1 1 1 1")])
    write_list(tmp_path, "test", [line("1--Run/b.jpg", 2, "1 0 0 1 0 1"), line("0--Parade/a.jpg", 3)])
    index = WFLW(tmp_path).index()
    assert not index.problems
    assert [(face.name, face.split, face.subsets) for face in index.faces] == [
        ("0--Parade/a", "train", ()),
        ("1--Run/b", "test", ("full", "pose", "make-up", "blur")),
        ("0--Parade/a", "test", ("full",)),
    ]
    for seed, face in enumerate(index.faces, start=1):
        np.testing.assert_allclose(face.landmarks_L2, points(98, seed))
        assert face.box == (10, 12, 40, 48)
    assert index.expected["train"] == 7500
    assert index.expected["test/full"] == 2500
    subsets = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
    assert [index.expected[f"test/{name}"] for name in subsets] == [326, 314, 698, 206, 736, 773]


def test_each_flag_is_its_subset(tmp_path: Path) -> None:
    write_image(tmp_path / "WFLW_images/a.jpg")
    flags = [" ".join("1" if i == k else "0" for i in range(6)) for k in range(6)]
    write_list(tmp_path, "test", [line("a.jpg", k, flag) for k, flag in enumerate(flags)])
    found = [face.subsets[1] for face in WFLW(tmp_path).index().faces]
    assert found == ["pose", "expression", "illumination", "make-up", "occlusion", "blur"]


def test_several_faces_of_an_image_get_names_of_their_own(tmp_path: Path) -> None:
    write_image(tmp_path / "WFLW_images/a b.jpg")
    write_list(tmp_path, "train", [line("a b.jpg", seed) for seed in range(3)])
    assert [face.name for face in WFLW(tmp_path).index().faces] == ["a b", "a b#2", "a b#3"]


@pytest.mark.parametrize("folder", ["list_98pt_rect_attr_train_test", "."])
def test_lists_beside_the_images_and_a_folder_around_all(tmp_path: Path, folder: str) -> None:
    write_image(tmp_path / "WFLW/WFLW_images/a.jpg")
    write_list(tmp_path / "WFLW", "test", [line("a.jpg")], folder)
    assert len(WFLW(tmp_path).index().faces) == 1


def test_damaged_lines_are_problems_with_their_number(tmp_path: Path) -> None:
    write_image(tmp_path / "WFLW_images/a.jpg")
    broken = [
        line("a.jpg"),
        "1 2 3 a.jpg",
        line("a.jpg").replace(" 10 12 ", " ten 12 "),
        line("gone.jpg"),
        line("a.jpg", box="nan 1 2 3"),
        " ".join(["7"] * 196) + " 1 2 3 4 0 0 0 0 0 0 a.jpg",
    ]
    write_list(tmp_path, "train", broken)
    index = WFLW(tmp_path).index()
    assert len(index.faces) == 1
    phrases = ["207", "'ten'", "gone.jpg", "finite", "one place"]
    for number, phrase, problem in zip(range(2, 7), phrases, index.problems, strict=True):
        assert problem.where == f"list_98pt_rect_attr_train.txt, line {number}"
        assert problem.level == "error"
        assert phrase in problem.what


def test_a_lost_newline_is_a_problem_of_its_line(tmp_path: Path) -> None:
    write_image(tmp_path / "WFLW_images/a.jpg")
    write_list(tmp_path, "train", [f"{line('a.jpg', 1)} {line('a.jpg', 2)}", line("a.jpg", 3)])
    index = WFLW(tmp_path).index()
    assert len(index.faces) == 1
    (problem,) = index.problems
    assert problem.where == "list_98pt_rect_attr_train.txt, line 1"
    assert "a.jpg" in problem.what
    assert len(problem.what) < 1000


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with refused(DataError, "WFLW", str(tmp_path), "Permission denied"):
        WFLW(tmp_path).index()


@pytest.mark.parametrize("case", ["none", "absent", "empty", "no images"])
def test_without_data_one_message_says_what_where_how_and_from_where(tmp_path: Path, case: str) -> None:
    root = None if case == "none" else tmp_path / "data"
    if case == "empty":
        (tmp_path / "data").mkdir()
    elif case == "no images":
        write_list(tmp_path / "data", "train", [line("a.jpg")])
    with pytest.raises(DataError) as caught:
        WFLW(root).index()
    message = str(caught.value)
    for part in ("WFLW_images/", "wywu.github.io/projects/LAB/WFLW.html", "--dataset synthetic"):
        assert part in message
    assert "--data-root" in message if root is None else str(root) in message


def test_the_real_sample_is_read() -> None:
    dataset = WFLW(real_data("samples/wflw"))
    index = dataset.index()
    assert not index.problems
    assert [face.split for face in index.faces] == ["train"] * 2 + ["test"] * 4
    for face in index.faces:
        assert face.box is not None
        x, y, width, height = face.box
        assert (face.landmarks_L2.min(axis=0) > (x, y)).all()
        assert face.landmarks_L2[:, 0].max() < x + width
        assert y + height / 2 < face.landmarks_L2[:, 1].max()  # one box is cut off where its image ends
        assert dataset.read(face).shape[2] == 3


def test_a_list_reads_images_below_its_folder_only(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png")
    (tmp_path / "data" / "WFLW_images").mkdir(parents=True)
    write_list(tmp_path / "data", "train", [line("../../secret.png"), line(str(tmp_path / "secret.png"))])
    index = WFLW(tmp_path / "data").index()
    assert not index.faces
    assert len(index.problems) == 2
