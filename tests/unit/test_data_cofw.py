"""COFW: transposed, 1-based MATLAB files, grey images, and its faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import picture, points, real_data
from numpy.typing import NDArray

from nasface.data.cofw import COFW
from nasface.errors import DataError
from tests.refusal import refused

h5py = pytest.importorskip("h5py")


def write_mat(path: Path, suffix: str, faces: int = 3, **changes: object) -> None:
    """A file as MATLAB writes it: every array transposed, images behind references. Image 2 is grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = [points(29, seed) for seed in range(faces)]
    occluded = np.zeros((29, faces))
    phis = np.concatenate([np.stack([(m + 1).T.ravel() for m in marks], axis=1), occluded])
    with h5py.File(path, "w") as file:
        cells = file.create_dataset(f"Is{suffix}", (1, faces), dtype=h5py.ref_dtype)
        for i in range(faces):
            image = wide(i)[..., 0] if i == 2 else wide(i)
            cells[0, i] = file.create_dataset(f"#refs#/{i}", data=image.T).ref
        file[f"phis{suffix}"] = changes.get("phis", phis)
        file[f"bboxes{suffix}"] = np.tile([[11.0], [13.0], [40.0], [50.0]], (1, faces))


def wide(seed: int) -> NDArray[np.uint8]:
    """Not square, so that a wrong transposition shows."""
    return picture(seed)[:, :50]


def test_points_boxes_and_images_come_out_upright_and_zero_based(tmp_path: Path) -> None:
    write_mat(tmp_path / "COFW_train_color.mat", "Tr")
    write_mat(tmp_path / "COFW_test_color.mat", "T", faces=1)
    dataset = COFW(tmp_path)
    index = dataset.index()
    assert not index.problems
    assert index.expected == {"train": 1345, "test": 507, "test/full": 507}
    assert [face.subsets for face in index.faces] == [(), (), (), ("full",)]
    names = ["train/0001", "train/0002", "train/0003", "test/0001"]
    assert [(face.name, face.split) for face in index.faces] == [(name, name.split("/")[0]) for name in names]
    for seed, face in zip((0, 1, 2, 0), index.faces, strict=True):
        np.testing.assert_allclose(face.landmarks_L2, points(29, seed))
        assert face.box == (10, 12, 40, 50)
        expected = wide(seed)
        if face.name == "train/0003":
            expected = np.repeat(expected[..., :1], 3, axis=2)
        np.testing.assert_array_equal(dataset.read(face), expected)


def test_one_file_alone_in_a_folder_below_is_enough(tmp_path: Path) -> None:
    write_mat(tmp_path / "COFW_color/cofw_test_color.mat", "T")
    assert [face.split for face in COFW(tmp_path).index().faces] == ["test"] * 3


def test_fingerprints_tell_images_apart_and_follow_the_file(tmp_path: Path) -> None:
    write_mat(tmp_path / "COFW_train_color.mat", "Tr", faces=2)
    dataset = COFW(tmp_path)
    one, two = dataset.index().faces
    before = dataset.fingerprint(one)
    assert before != dataset.fingerprint(two)
    write_mat(tmp_path / "COFW_train_color.mat", "Tr", faces=3)
    assert dataset.fingerprint(one) != before


def test_points_that_are_not_finite_are_a_problem_of_that_face(tmp_path: Path) -> None:
    phis = np.stack([np.concatenate([(points(29, s) + 1).T.ravel(), np.zeros(29)]) for s in range(3)], axis=1)
    phis[4, 1] = np.nan
    write_mat(tmp_path / "COFW_train_color.mat", "Tr", phis=phis)
    index = COFW(tmp_path).index()
    assert [face.name for face in index.faces] == ["train/0001", "train/0003"]
    assert [problem.where for problem in index.problems] == ["train/0002"]
    assert all(fact in index.problems[0].what for fact in ("face 2", "COFW_train_color.mat", "1 landmarks", "finite"))


def test_a_file_of_another_kind_or_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "COFW_train_color.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500))
    with refused(DataError, str(path), "MATLAB 7.3"):
        COFW(tmp_path).index()
    write_mat(path, "T")  # the variables of the other split
    with refused(DataError, str(path), "MATLAB 7.3", "COFW"):
        COFW(tmp_path).index()
    write_mat(path, "Tr", phis=np.zeros((86, 3)))
    with refused(DataError, str(path), "phisTr", "(86, 3)", "(87, N)"):
        COFW(tmp_path).index()
    write_mat(path, "Tr")
    path.write_bytes(path.read_bytes()[:3000])
    with refused(DataError, str(path)):
        COFW(tmp_path).index()


@pytest.mark.parametrize("name", ["phisTr", "bboxesTr", "IsTr"])
def test_a_group_in_place_of_an_array_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "COFW_train_color.mat"
    write_mat(path, "Tr")
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_group(name)
    with refused(DataError, str(path), name, "group", "array"):
        COFW(tmp_path).index()


@pytest.mark.parametrize("case", ["none", "absent", "empty"])
def test_without_data_one_message_says_what_where_how_and_from_where(tmp_path: Path, case: str) -> None:
    root = None if case == "none" else tmp_path / "data"
    if case == "empty":
        (tmp_path / "data").mkdir()
    with pytest.raises(DataError) as caught:
        COFW(root).index()
    message = str(caught.value)
    for part in ("COFW_train_color.mat and COFW_test_color.mat", "data.caltech.edu", "--dataset synthetic"):
        assert part in message
    assert "--data-root" in message if root is None else str(root) in message


def test_the_readers_import_nothing_heavy() -> None:
    modules = "nasface.data.w300, nasface.data.wflw, nasface.data.cofw, nasface.data.prepare, nasface.data.check"
    code = f"import sys, {modules}; print([m for m in ('torch', 'h5py', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_real_sample_is_read() -> None:
    dataset = COFW(real_data("samples/cofw"))
    index = dataset.index()
    assert not index.problems
    assert len(index.faces) == 6
    for face in index.faces:
        image = dataset.read(face)
        assert image.shape[2] == 3
        assert (face.landmarks_L2 > 0).all()
        assert (face.landmarks_L2 < (image.shape[1], image.shape[0])).all()
        eyes = face.landmarks_L2[[8, 9]]
        assert eyes[0, 0] < eyes[1, 0]  # upright and not mirrored
        assert face.landmarks_L2[28, 1] > eyes[:, 1].max()
