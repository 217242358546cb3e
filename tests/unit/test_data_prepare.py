"""The cache of crops: what it holds, when it is made anew, and how it fails."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import Toy, picture, real_data, toy, write_300w_face
from PIL import Image

from nasface import durable
from nasface.data import cache
from nasface.data import prepare as module
from nasface.data.base import Face, Problem
from nasface.data.cache import cache_folder
from nasface.data.crop import crop_face
from nasface.data.prepare import PrepareOptions, prepare
from nasface.data.w300 import W300
from nasface.errors import DataError
from tests.refusal import names, refused

pytestmark = pytest.mark.slow

SMALL = PrepareOptions(input_size=32)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "prepared").glob("*"))


def test_a_choice_of_faces_is_prepared_and_few_damaged_ones_are_still_few_of_all(tmp_path: Path):
    data = toy(train=300, test=4)
    chosen = replace(data.index(), faces=data.index().faces[:3])
    found = prepare(data, SMALL, tmp_path, workers=1, some=lambda _: chosen)
    assert found["train"].names == ("train/0", "train/1", "train/2")
    assert len(found["test"]) == 0
    data.broken = frozenset({"train/1"})
    found = prepare(data, SMALL, tmp_path / "damaged", workers=1, some=lambda _: chosen)
    assert found["train"].names == ("train/0", "train/2")


def test_both_splits_hold_the_crops_of_their_faces_in_order(tmp_path: Path) -> None:
    dataset = toy(train=6, test=3)
    done = prepare(dataset, SMALL, tmp_path)
    for split, faces in (("train", dataset.faces[:6]), ("test", dataset.faces[6:])):
        part = done[split]
        assert part.names == tuple(face.name for face in faces)
        assert len(part) == part.count() == len(faces)
        for i, face in enumerate(faces):
            crop = crop_face(dataset.images[face.source], face, 3, SMALL)
            np.testing.assert_array_equal(part.images_NHWC[i], crop.image)
            np.testing.assert_array_equal(part.landmarks_NL2[i], crop.landmarks_L2)
            np.testing.assert_array_equal(part.to_original_N23[i], crop.to_original_23)
    train = done["train"]
    assert isinstance(train.images_NHWC, np.memmap)
    assert not train.images_NHWC.flags.writeable
    assert train.landmarks_NL2.dtype == np.float32
    assert (train.input_size, train.pad, train.images_NHWC.shape) == (32, 10, (6, 52, 52, 3))


def test_counts_and_membership_by_subset(tmp_path: Path) -> None:
    test = prepare(toy(test=3), SMALL, tmp_path)["test"]
    assert test.subset_names == ("full", "hard")
    np.testing.assert_array_equal(test.membership("hard"), [False, True, False])
    assert (test.count("hard"), test.expected_count("hard")) == (1, 5)
    assert (test.count("full"), test.expected_count("full")) == (3, None)
    assert (test.count(), test.expected_count()) == (3, 10)
    assert test.expected == {"test": 10, "test/hard": 5}
    with refused(DataError, "test", "'herd'", "'hard'"):
        test.count("herd")


def test_a_subset_that_is_missing_altogether_counts_zero(tmp_path: Path) -> None:
    test = prepare(toy(test=1), SMALL, tmp_path)["test"]
    assert test.count("hard") == 0


def test_a_split_without_faces_is_empty(tmp_path: Path) -> None:
    done = prepare(toy(test=0), SMALL, tmp_path)
    assert done["test"].images_NHWC.shape == (0, 52, 52, 3)
    assert done["test"].landmarks_NL2.shape == (0, 3, 2)
    assert len(done["test"]) == 0


def test_a_warm_start_reads_no_image_and_gives_the_same(tmp_path: Path) -> None:
    first = prepare(toy(), SMALL, tmp_path)["train"]
    again = toy()
    second = prepare(again, SMALL, tmp_path)["train"]
    assert again.reads == []
    assert second.key == first.key
    np.testing.assert_array_equal(second.images_NHWC, first.images_NHWC)
    np.testing.assert_array_equal(second.landmarks_NL2, first.landmarks_NL2)
    assert len(folders(tmp_path)) == 1


@pytest.mark.parametrize("what", ["image", "landmarks", "order", "subset", "size", "margin", "box", "scale"])
def test_any_change_is_prepared_anew(tmp_path: Path, what: str) -> None:
    before = prepare(toy(), SMALL, tmp_path)["train"].key
    dataset, options = toy(), SMALL
    first, second, *rest = dataset.faces
    if what == "image":
        dataset.images["train/0"] = picture(99)
    elif what == "landmarks":
        dataset.faces = (replace(first, landmarks_L2=first.landmarks_L2 + 1e-6), second, *rest)
    elif what == "order":
        dataset.faces = (second, first, *rest)
    elif what == "subset":
        dataset.faces = (replace(first, subsets=("easy",)), second, *rest)
    else:
        key, value = {
            "size": ("input_size", 48),
            "margin": ("margin", 1.2),
            "box": ("box", "provided"),
            "scale": ("box_scale", 1.3),
        }[what]
        options = replace(SMALL, **{key: value})
    assert prepare(dataset, options, tmp_path)["train"].key != before
    assert dataset.reads


def test_provided_boxes_change_the_key_only_where_they_are_used(tmp_path: Path) -> None:
    before = prepare(toy(), SMALL, tmp_path)["train"].key
    dataset = toy()
    dataset.faces = tuple(replace(face, box=None) for face in dataset.faces)
    assert prepare(dataset, SMALL, tmp_path)["train"].key == before
    with refused(DataError, "toy", "data.box", "landmarks"):
        prepare(dataset, replace(SMALL, box="provided"), tmp_path)


def test_a_few_damaged_faces_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problem = Problem("x.pts", "x.pts has 3 points")
    note = Problem("y.jpg", "y.jpg has no .pts file", "warning")
    for _ in ("made", "found"):
        caplog.clear()
        dataset = toy(train=300, test=3, broken=frozenset({"train/5"}), problems=(problem, note))
        with caplog.at_level("INFO"):
            done = prepare(dataset, SMALL, tmp_path)
        assert [skip.where for skip in done["test"].skipped] == ["x.pts", "train/5"]
        assert done["train"].skipped == done["test"].skipped
        assert len(done["train"]) == 299
        assert "train/5" not in done["train"].names
        crop = crop_face(dataset.images["train/6"], dataset.faces[6], 3, SMALL)
        np.testing.assert_array_equal(done["train"].images_NHWC[5], crop.image)
        (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert all(fact in warning for fact in ("toy", "2 of 304", "x.pts", "train/5"))
        logged = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
        assert any("x.pts has 3 points" in line for line in logged)


def test_more_than_one_percent_of_damage_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    dataset = toy(train=97, test=2, broken=frozenset({"train/90"}), problems=(Problem("a.pts", "a.pts is bad"),))
    with pytest.raises(DataError) as caught:
        prepare(dataset, SMALL, tmp_path)
    message = str(caught.value)
    for part in ("toy", "1 %", "100 faces", "a.pts is bad", "train/90", "nasface data check"):
        assert part in message
    assert folders(tmp_path) == []


def test_one_percent_exactly_is_tolerated(tmp_path: Path) -> None:
    done = prepare(toy(train=98, test=2, broken=frozenset({"train/7"})), SMALL, tmp_path)
    assert len(done["train"]) == 97


def test_a_set_without_faces_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "toy"):
        prepare(toy(train=0, test=0), SMALL, tmp_path)


def test_progress_counts_every_face_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(toy(train=6, test=3), SMALL, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 9) for i in range(1, 10)]


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    one = prepare(toy(train=20), SMALL, tmp_path / "one", workers=1)["train"]
    many = prepare(toy(train=20), SMALL, tmp_path / "many", workers=5)["train"]
    np.testing.assert_array_equal(one.images_NHWC, many.images_NHWC)
    assert one.names == many.names


class Elsewhere(Toy):
    """Marks its images with the process they were read in."""

    def read(self, face: Face) -> np.ndarray:
        image = np.zeros((64, 64, 3), np.uint8)
        image[...] = [os.getpid() >> 16 & 255, os.getpid() >> 8 & 255, os.getpid() & 255]
        return image


@pytest.mark.slow
def test_a_pure_python_set_is_read_in_other_processes(tmp_path: Path) -> None:
    base = toy(train=64, test=0)
    dataset = Elsewhere(base.faces, base.images, parallel="process")
    images = prepare(dataset, SMALL, tmp_path / "a", workers=2)["train"].images_NHWC[:, 26, 26].astype(int)
    pids = set((images @ [1 << 16, 1 << 8, 1]).tolist())
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    alone = prepare(dataset, SMALL, tmp_path / "b", workers=1)["train"].images_NHWC[:, 26, 26].astype(int)
    assert set((alone @ [1 << 16, 1 << 8, 1]).tolist()) == {os.getpid()}


class Deadly(Toy):
    """Kills every process that reads it, but for the one that made it."""

    home = os.getpid()

    def read(self, face: Face) -> np.ndarray:
        if multiprocessing.parent_process() is not None:
            os._exit(1)
        return super().read(face)


@pytest.mark.slow
def test_dying_workers_are_replaced_by_this_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = toy(train=40, test=0)
    done = prepare(Deadly(base.faces, base.images, parallel="process"), SMALL, tmp_path, workers=2)
    assert len(done["train"]) == 40
    assert "worker processes" in caplog.text


class Interrupted(Toy):
    def read(self, face: Face) -> np.ndarray:
        if face.name == "train/4":
            raise KeyboardInterrupt
        return super().read(face)


def test_an_interruption_leaves_no_half_cache(tmp_path: Path) -> None:
    base = toy()
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(base.faces, base.images), SMALL, tmp_path, workers=1)
    assert folders(tmp_path) == []
    assert len(prepare(base, SMALL, tmp_path)["train"]) == 6


def test_folders_left_by_killed_processes_are_removed_and_live_ones_kept(tmp_path: Path) -> None:
    left = tmp_path / "prepared/.part-left"
    left.mkdir(parents=True)
    (left / "train-images.npy").write_bytes(b"x")
    with durable.temporary_folder(left.parent, ".part-") as live:
        (live / "train-images.npy").write_bytes(b"x")
        prepare(toy(), SMALL, tmp_path)
        assert not left.exists()
        assert live.exists()
    left.mkdir()
    prepare(toy(), SMALL, tmp_path)  # nothing is left to do
    assert not left.exists()


@pytest.mark.parametrize(
    "damage", ["cut", "no meta", "no array", "garbage", "pixel", "landmark", "index", "old", "list"]
)
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    before = np.array(prepare(toy(), SMALL, tmp_path)["train"].images_NHWC)
    (folder,) = (tmp_path / "prepared").iterdir()
    if damage == "cut":
        os.truncate(folder / "train-images.npy", 5000)
    elif damage == "no meta":
        (folder / "meta.json").unlink()
    elif damage == "no array":
        (folder / "test-landmarks.npy").unlink()
    elif damage in ("pixel", "landmark"):
        path = folder / ("train-images.npy" if damage == "pixel" else "test-landmarks.npy")
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage in ("index", "old"):
        meta = json.loads((folder / "meta.json").read_text())
        if damage == "index":
            meta["kept"]["train"][0] = 10**6
        else:  # as nasface 0.1.0 wrote it
            del meta["checksum"], meta["checksums"]
        (folder / "meta.json").write_text(json.dumps(meta))
    else:
        (folder / "meta.json").write_text("[" if damage == "garbage" else "[]")
    again = toy()
    np.testing.assert_array_equal(prepare(again, SMALL, tmp_path)["train"].images_NHWC, before)
    assert again.reads
    assert len(folders(tmp_path)) == 1
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    names(line, folder, "prepared again")
    caplog.clear()
    once_more = toy()
    prepare(once_more, SMALL, tmp_path)
    assert not once_more.reads
    assert not caplog.records


def test_a_cache_is_checked_once_by_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(toy(), SMALL, tmp_path)
    checked: list[str] = []
    original = cache.blocks
    monkeypatch.setattr(cache, "blocks", lambda path: (checked.append(path.name), original(path))[1])
    for _ in range(3):
        prepare(toy(), SMALL, tmp_path)
    assert sorted(checked) == sorted(set(checked))
    assert len(checked) == 6


def test_too_small_a_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 1 << 20))
    dataset = toy()
    with refused(DataError, str(tmp_path), "no space", "1 MiB", "NASFACE_CACHE"):
        prepare(dataset, SMALL, tmp_path)
    assert dataset.reads == []
    assert folders(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: object, crop: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module._CropWriter, "add", full)
    with refused(DataError, str(tmp_path), "no space", "NASFACE_CACHE"):
        prepare(toy(), SMALL, tmp_path)
    assert folders(tmp_path) == []


def test_a_cache_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with refused(DataError, str(tmp_path / "cache"), "NASFACE_CACHE"):
        prepare(toy(), SMALL, tmp_path / "cache")


def _prepare_there(cache: Path, gate: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    train = prepare(toy(train=40), SMALL, cache, workers=1)["train"]
    np.testing.assert_array_equal(train.landmarks_NL2.shape, (40, 3, 2))
    assert train.images_NHWC[39].any()


@pytest.mark.slow
def test_two_processes_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(2)
    processes = [context.Process(target=_prepare_there, args=(tmp_path, gate)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(folders(tmp_path)) == 1


def test_the_loser_of_a_race_takes_the_result_of_the_winner(tmp_path: Path) -> None:
    """Another process finishes the same work while this one is at its last face."""
    inner: list[int] = []

    def overtaken(done: int, total: int) -> None:
        if done == total:
            inner.append(len(prepare(toy(), SMALL, tmp_path)["train"]))

    assert len(prepare(toy(), SMALL, tmp_path, progress=overtaken)["train"]) == 6
    assert inner == [6]
    assert len(folders(tmp_path)) == 1


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFACE_CACHE", str(tmp_path / "there"))
    prepare(toy(), SMALL)
    assert len(folders(tmp_path / "there")) == 1
    monkeypatch.delenv("NASFACE_CACHE")
    assert cache_folder().name == "nasface"


def test_files_are_hashed_by_content_and_not_read_again_when_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        write_300w_face(tmp_path / "data", f"afw/{i}", seed=i)
    long_ago = time.time() - 3600
    monkeypatch.setattr("nasface.data.images._RACY_NS", 0)
    before = prepare(W300(tmp_path / "data"), SMALL, tmp_path)["train"].key
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert prepare(W300(tmp_path / "copy"), SMALL, tmp_path)["train"].key == before

    monkeypatch.setattr("nasface.data.images._digests", {})  # another process
    opened: list[Path] = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: (opened.append(path), original(path, *a, **k))[1])
    assert prepare(W300(tmp_path / "data"), SMALL, tmp_path)["train"].key == before
    assert not [path for path in opened if path.suffix == ".png"]

    image = tmp_path / "data/afw/1.png"
    write_300w_face(tmp_path / "data", "afw/1", seed=1)
    image.write_bytes(image.read_bytes() + b"x")
    os.utime(image, (long_ago, long_ago))
    assert prepare(W300(tmp_path / "data"), SMALL, tmp_path)["train"].key != before


def test_exif_orientation_is_not_applied_and_grey_images_become_rgb(tmp_path: Path) -> None:
    write_300w_face(tmp_path, "afw/a", suffix=".jpg")
    grey = Image.fromarray(picture(3)[:40, :, 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    grey.save(tmp_path / "afw/a.jpg", exif=exif)
    dataset = W300(tmp_path)
    image = dataset.read(dataset.index().faces[0])
    assert image.shape == (40, 64, 3)
    assert (image[..., 0] == image[..., 2]).all()


def test_real_faces_show_eyes_where_the_landmarks_are(tmp_path: Path) -> None:
    done = prepare(W300(real_data("samples/300w_originals")), PrepareOptions(input_size=64), tmp_path)
    assert {split: len(part) for split, part in done.items()} == {"train": 5, "test": 6}
    for part in done.values():
        inside = part.landmarks_NL2 - part.pad
        assert (inside > 0).all()
        assert (inside < 64).all()
        width = np.ptp(part.landmarks_NL2, axis=1).max(axis=1)
        np.testing.assert_allclose(width, 64 / 1.25, rtol=0.05)
