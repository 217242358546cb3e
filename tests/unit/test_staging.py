"""Crops on their way to the device: the same batches wherever they lie, and no more of them in memory than needed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nasface import device
from nasface import recipe as recipes
from nasface.data import staging
from nasface.data.augment import Augmentation, DeviceFaces, on_device
from nasface.data.prepare import PreparedFaces
from nasface.errors import RecipeError
from nasface.stages import faces as stage
from tests.refusal import refused
from tests.tiny import scheme

CPU = torch.device("cpu")
HOW = Augmentation(colour=0.3, occlusion=0.5, shift=0.1)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedFaces:
    """Eleven faces in a memory-mapped file."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", random.integers(0, 256, (11, 40, 40, 3), dtype=np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    points = random.uniform(8, 32, (11, 4, 2)).astype(np.float32)
    affines = np.zeros((11, 2, 3))
    return PreparedFaces("train", images, points, ("",) * 11, ((),) * 11, affines, scheme(), 32, {}, (), "")


def batches(faces: DeviceFaces) -> list[torch.Tensor]:
    drawn = faces.augmented(3, HOW, torch.Generator().manual_seed(2), 0.8)
    return [t for batch in (*drawn, *faces.plain(4)) for t in (batch.images_B3HW, batch.landmarks_BL2)]


@pytest.mark.parametrize("index", [None, [9, 2, 3, 7, 0]])
def test_batches_are_the_same_wherever_the_crops_lie(prepared, index):
    rows = range(11) if index is None else index
    copy = staging.copied(prepared.images_NHWC, rows, CPU)
    alone = DeviceFaces(copy, torch.from_numpy(prepared.landmarks_NL2[list(rows)]), 32, scheme())
    for staged in (False, True):
        faces = on_device(prepared, CPU, index, staged)
        assert torch.equal(faces.crops(), copy)
        for mine, one in zip(batches(faces), batches(alone), strict=True):
            assert torch.equal(mine, one)


def test_on_a_cpu_crops_are_not_copied(prepared):
    for staged in (False, True):
        held = on_device(prepared, CPU, [1, 2], staged).images_NHWC
        assert held.data_ptr() == prepared.images_NHWC.ctypes.data


def test_faces_are_copied_piece_by_piece(prepared, monkeypatch):
    monkeypatch.setattr(staging, "_AT_ONCE", 3 * 40 * 40 * 3)
    found = staging.copied(prepared.images_NHWC, range(10, -1, -1), CPU)
    assert np.array_equal(found.numpy(), prepared.images_NHWC[::-1])
    assert staging.copied(prepared.images_NHWC[:0], [], CPU).shape == (0, 40, 40, 3)


def test_batches_are_read_ahead_and_only_a_few(prepared):
    asked = []

    def rows():
        for i in range(11):
            asked.append(i)
            yield torch.tensor([i])

    images = staging.in_place(prepared.images_NHWC)
    running = staging.staged(images, rows(), CPU, prepared.images_NHWC.base)
    assert torch.equal(next(running), images[:1])
    assert asked == list(range(staging.AHEAD + 1))
    assert torch.equal(next(running), images[1:2])
    running.close()  # the caller wants no more
    assert len(asked) == staging.AHEAD + 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nasface-staging")]


def test_what_was_read_of_a_mapping_is_given_back(prepared):
    """The resident memory of a file falls to nothing, and reading it again finds the same."""
    size = 64 << 20
    path = Path(prepared.images_NHWC.filename).with_name("large.npy")
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (64, size // 64)})
        file.truncate(file.tell() + size)
    large = np.load(path, mmap_mode="r")

    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile:"))

    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory is used by files")
    before = mapped()
    for mapping, kept in ((large.base, 0), (None, size)):
        for found in staging.staged(staging.in_place(large), torch.arange(64).split(4), CPU, mapping):
            assert not found.any()
        assert abs(mapped() - before - kept) < size / 4


@pytest.mark.parametrize(
    ("wish", "free", "staged"),
    [("auto", 2.1, False), ("auto", 1.9, True), (True, 0.1, False), (False, 9.0, True)],
)
def test_crops_are_staged_if_they_take_more_than_half_of_the_memory(monkeypatch, wish, free, staged):
    needed = 1 << 30
    monkeypatch.setattr(device, "free_bytes", lambda device: int(free * needed))
    recipe = recipes.load("demo", [f"data.on_device={wish}"])
    assert stage._is_staged(recipe, CPU, needed) is staged


def test_the_option_is_written_as_yes_or_no_and_changes_no_run():
    texts = {"yes": True, "no": False, "auto": "auto"}
    found = [recipes.load("demo", [f"data.on_device={text}"]) for text in texts]
    assert [recipe.data.on_device for recipe in found] == list(texts.values())
    assert len({recipe.digest for recipe in found}) == 1
    with refused(RecipeError, "on_device"):
        recipes.load("demo", ["data.on_device=perhaps"])


def test_masks_are_painted_on_staged_faces_too(prepared):
    from nasface.data.masks import cover

    staged = on_device(prepared, CPU, [4, 1, 8], True)
    covered = cover(staged, "half")
    assert len(covered) == 3
    assert torch.equal(covered.images_NHWC, cover(replace(staged, staged=False), "half").images_NHWC)
    assert torch.equal(covered.crops([1]), covered.images_NHWC[1:2])
    assert np.array_equal(np.load(prepared.images_NHWC.filename), prepared.images_NHWC)
