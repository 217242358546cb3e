"""The check lists every offender and counts what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import picture, points, real_data, toy, write_300w_face, write_pts

from nasface.data.base import Problem
from nasface.data.check import Count, check
from nasface.data.cofw import COFW
from nasface.data.w300 import W300
from nasface.data.wflw import WFLW
from nasface.errors import DataError
from tests.refusal import refused


def test_a_sound_set_is_ok_and_counted() -> None:
    report = check(toy(train=6, test=3))
    assert report.ok
    assert report.problems == ()
    assert report.counts == (
        Count("train", "", 6, 100),
        Count("test", "", 3, 10),
        Count("test", "hard", 1, 5),
        Count("test", "full", 3, None),
    )


def test_every_damaged_file_is_listed_not_the_first_only(tmp_path: Path) -> None:
    for i in range(6):
        write_300w_face(tmp_path, f"afw/{i}", seed=i)
    for i in (1, 3):
        image = tmp_path / f"afw/{i}.png"
        image.write_bytes(image.read_bytes()[:200])
    (tmp_path / "afw/4.png").unlink()
    write_pts(tmp_path / "afw/5.pts", points(67))
    seen: list[tuple[int, int]] = []
    report = check(W300(tmp_path), progress=lambda done, total: seen.append((done, total)), workers=2)
    assert not report.ok
    assert {problem.where for problem in report.problems} == {"afw/1", "afw/3", "afw/4.pts", "afw/5.pts"}
    assert seen == [(i, 4) for i in range(1, 5)]
    assert next(count.found for count in report.counts if (count.split, count.subset) == ("train", "afw")) == 2


def test_points_far_outside_are_warned_about_and_points_near_the_border_are_not() -> None:
    dataset = toy(train=3)
    near, far, lost = (face.landmarks_L2.copy() for face in dataset.faces[:3])
    near[0, 0] = -5
    far[0, 0] = -200
    lost += 1000
    marks = (near, far, lost)
    faces = tuple(replace(face, landmarks_L2=m) for face, m in zip(dataset.faces, marks, strict=False))
    dataset.faces = faces + dataset.faces[3:]
    report = check(dataset)
    assert [(problem.where, problem.level) for problem in report.problems] == [
        ("train/1", "warning"),
        ("train/2", "error"),
    ]
    assert all(fact in report.problems[0].what for fact in ("train/1", "1 landmarks", "64 x 64"))
    assert "all landmarks" in report.problems[1].what


def test_degenerate_points_and_images_of_another_kind_are_errors() -> None:
    dataset = toy(train=4)
    dataset.faces = (replace(dataset.faces[0], landmarks_L2=np.ones((3, 2))), *dataset.faces[1:])
    dataset.images["train/1"] = np.zeros((64, 64), np.uint8)
    dataset.images["train/2"] = np.zeros((64, 64, 3), np.float32)  # type: ignore[assignment]
    said = {problem.where: problem.what for problem in check(dataset).problems}
    assert "one place" in said["train/0"]
    assert "uint8 (64, 64)" in said["train/1"]
    assert "float32 (64, 64, 3)" in said["train/2"]


def test_a_face_in_training_and_test_is_an_error_another_face_of_the_image_a_warning() -> None:
    dataset = toy(train=2, test=2)
    dataset.images["test/0"] = dataset.images["train/0"] = picture(1, size=200)
    dataset.images["test/1"] = dataset.images["train/1"] = picture(2, size=200)
    same, other, *tested = dataset.faces
    dataset.faces = (same, replace(other, landmarks_L2=other.landmarks_L2 + 100), *tested)
    report = check(dataset)
    assert [(problem.where, problem.level) for problem in report.problems] == [
        ("train/0", "error"),
        ("train/1", "warning"),
    ]
    assert all(name in report.problems[0].what for name in ("train/0", "test/0"))


def test_warnings_alone_leave_the_report_ok() -> None:
    dataset = toy(problems=(Problem("a.jpg", "a.jpg has no .pts file", "warning"),))
    assert check(dataset).ok
    dataset.problems = (Problem("a.pts", "a.pts has no image"),)
    assert not check(dataset).ok


def test_no_data_at_all_is_one_error(tmp_path: Path) -> None:
    with refused(DataError, "300W", str(tmp_path)):
        check(W300(tmp_path))


def test_the_real_samples_share_faces_between_their_splits() -> None:
    wflw = check(WFLW(real_data("samples/wflw")))
    assert [problem.level for problem in wflw.problems] == ["error", "error"]
    cofw = check(COFW(real_data("samples/cofw")))
    assert len(cofw.problems) == 3
    assert check(W300(real_data("samples/300w_originals"))).problems == ()


@pytest.mark.slow
@pytest.mark.slow
def test_the_real_300w_comes_out_clean() -> None:
    report = check(W300(real_data("300w")))
    assert report.problems == ()
    counts = {(row.split, row.subset): (row.found, row.expected) for row in report.counts}
    assert counts[("train", "")] == (2014, 3148)
    assert counts[("test", "")] == (554, 689)
    assert counts[("test", "challenge")] == (0, 135)
