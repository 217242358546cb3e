"""Masked faces: how much is hidden, that a mask belongs to its face alone, and the patches of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_files import real_data
from numpy.typing import NDArray
from torch import Tensor

from nasface.data import cloth as cloths
from nasface.data import outlines
from nasface.data.augment import DeviceFaces
from nasface.data.base import Dataset, Scheme
from nasface.data.masks import cover, coverage
from nasface.data.patches import random_mask
from nasface.data.schemes import SCHEMES
from nasface.data.synthetic import Synthetic
from nasface.data.w300 import W300
from nasface.errors import RecipeError
from nasface.scores import MaskLevel
from tests.refusal import refused

pytestmark = pytest.mark.slow

LEVELS = ("light", "half", "hard")
MAGENTA = (255, 0, 255)  # no cloth looks like it
FIVE = Scheme(5, (1, 0, 2, 4, 3), ((0,), (1,)), ((0,), (1,)))


def put(landmarks_NL2: Tensor, scheme: Scheme, size: int = 64, crop: int = 104) -> DeviceFaces:
    """Magenta crops with the landmarks where preparation would put them."""
    low, high = landmarks_NL2.amin(1, keepdim=True), landmarks_NL2.amax(1, keepdim=True)
    scale = size / (1.25 * (high - low).amax(2, keepdim=True))
    landmarks = (landmarks_NL2 - (low + high) / 2) * scale + (crop - 1) / 2
    images = torch.tensor(MAGENTA, dtype=torch.uint8).expand(len(landmarks), crop, crop, 3).clone()
    return DeviceFaces(images, landmarks.float(), size, scheme)


def marked(dataset: Dataset, split: str) -> DeviceFaces:
    points = np.stack([face.landmarks_L2 for face in dataset.index().faces if face.split == split])
    return put(torch.from_numpy(points), dataset.scheme)


def synthetic(landmarks: int = 68, count: int = 24) -> DeviceFaces:
    return marked(Synthetic(landmarks=landmarks, train=0, test=count), "test")


def five_points(faces: DeviceFaces) -> DeviceFaces:
    """Pupils, nose tip and mouth corners: a landmark scheme that is unknown to the masks."""
    groups = (range(36, 42), range(42, 48), (30,), (48,), (54,))
    points = torch.stack([faces.landmarks_NL2[:, list(group)].mean(1) for group in groups], dim=1)
    return replace(faces, landmarks_NL2=points, scheme=FIVE)


def photographs(faces: DeviceFaces, seed: int = 0) -> DeviceFaces:
    """The same faces on coloured blots, without any black."""
    blots = torch.rand(len(faces), 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    size = faces.images_NHWC.shape[1]
    images = 20 + 235 * torch.nn.functional.interpolate(blots, size=(size, size), mode="bilinear")
    return replace(faces, images_NHWC=images.byte().permute(0, 2, 3, 1).contiguous())


def part(faces: DeviceFaces, index: list[int]) -> DeviceFaces:
    return replace(faces, images_NHWC=faces.images_NHWC[index], landmarks_NL2=faces.landmarks_NL2[index])


def hidden(faces: DeviceFaces, level: MaskLevel, seed: int = 0) -> NDArray[np.bool_]:
    """Pixels (N, H, W) of magenta crops that cloth has hidden; where a shadow falls they still have no green."""
    covered = cover(faces, level, seed).images_NHWC.numpy().astype(float)
    return covered[..., 1] > 0.08 * covered[..., [0, 2]].mean(3)


def check_shares(faces: DeviceFaces, seeds: tuple[int, ...] = (0, 1)) -> None:
    for seed in seeds:
        light, half, hard = (coverage(faces, level, seed) for level in LEVELS)
        assert light.shape == (len(faces),)
        assert (light < half).all()
        assert (half < hard).all()
        assert hard.min() >= 0.5
        assert hard.max() < 1
        assert light.min() > 0.05
        assert 0.15 < light.mean() < 0.33 < half.mean() < 0.5 < hard.mean() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("landmarks", [68, 98, 29])
def test_hard_masks_hide_half_of_every_synthetic_face_and_levels_are_ordered(landmarks: int) -> None:
    check_shares(synthetic(landmarks, 120))


@pytest.mark.slow
def test_hard_masks_hide_half_of_every_real_test_face() -> None:
    faces = marked(W300(real_data("300w")), "test")
    assert len(faces) > 500
    assert coverage(faces, "hard").min() >= 0.5
    check_shares(part(faces, list(range(0, len(faces), 4))), seeds=(1,))


def test_a_scheme_of_which_only_the_eyes_are_known_is_masked_too() -> None:
    check_shares(five_points(synthetic(count=60)))


def test_the_share_is_that_of_the_pixels_in_face_and_forehead(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    faces = put(synthetic(count=12).landmarks_NL2, SCHEMES[68], crop=200)  # no forehead ends at the crop
    monkeypatch.setattr(cloths, "_straps_at", lambda *_: torch.zeros(()))  # they do not count
    for level in LEVELS:
        for p, pixels, share in zip(
            faces.landmarks_NL2.numpy(), hidden(faces, level), coverage(faces, level), strict=True
        ):
            brows = p[[17, 19, 21, 22, 24, 26]]
            up = p[[19, 24]].mean(0) - p[33]
            forehead = brows + np.array([[0.5], [0.9], [1], [1], [0.9], [0.5]]) * up
            hull = cv2.convexHull(np.concatenate([p, forehead]).astype(np.float32))
            face = cv2.fillConvexPoly(np.zeros((200, 200), np.uint8), hull.round().astype(np.int32), 1).astype(bool)
            assert pixels[face].mean() == pytest.approx(float(share), abs=0.025)


@pytest.mark.parametrize("least", [0.85, 0.99])
def test_what_hides_too_little_becomes_a_cap_as_large_as_needed(monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    faces = synthetic(count=40)
    before = coverage(faces, "hard")
    assert (before < least).any()
    monkeypatch.setattr(outlines, "_HALF", least)
    after = coverage(faces, "hard")
    assert after.min() >= least
    assert torch.equal(after[before >= least], before[before >= least])


@pytest.mark.slow
def test_levels_hide_the_parts_of_the_face_they_name() -> None:
    faces = synthetic(count=240)
    x, y = faces.landmarks_NL2.round().long().unbind(2)
    gone = {level: hidden(faces, level)[np.arange(240)[:, None], y, x].mean(0) for level in LEVELS}
    mouth, nose, eyes, brows = range(48, 68), range(29, 36), range(36, 48), range(17, 27)
    assert gone["light"][mouth].min() > 0.95
    assert gone["light"][nose].max() < 0.05
    assert gone["half"][[*mouth, *nose]].min() > 0.95
    assert max(gone[level][[*eyes, *brows]].max() for level in ("light", "half")) < 0.05
    assert gone["hard"][[*mouth, *nose]].min() > 0.95
    assert 0.2 < gone["hard"][eyes].mean() < 0.6  # a scarf hides one eye of half of the faces
    assert all(gone[level][7:10].min() > 0.9 for level in LEVELS)  # the chin


@pytest.mark.slow
def test_a_mask_belongs_to_its_face_whatever_the_batch() -> None:
    faces = photographs(synthetic(count=19))
    for level in LEVELS:
        together = cover(faces, level, seed=5).images_NHWC
        order = list(range(19))[::-1]
        assert torch.equal(cover(part(faces, order), level, seed=5).images_NHWC, together[order])
        alone = [cover(part(faces, [i]), level, seed=5).images_NHWC for i in order[::3]]
        assert torch.equal(torch.cat(alone), together[order[::3]])
        assert torch.equal(coverage(part(faces, order), level, 5), coverage(faces, level, 5)[order])


def test_other_seeds_give_other_masks_and_faces_stay_as_they_are() -> None:
    faces = photographs(synthetic(count=6))
    before = faces.images_NHWC.clone(), faces.landmarks_NL2.clone()
    first, second = cover(faces, "half", 0), cover(faces, "half", 1)
    changed = (first.images_NHWC != second.images_NHWC).any(3).float().mean((1, 2))
    assert (changed > 0.1).all()
    assert torch.equal(faces.images_NHWC, before[0])
    assert torch.equal(faces.landmarks_NL2, before[1])
    assert torch.equal(first.landmarks_NL2, before[1])
    assert (first.images_NHWC.dtype, first.input_size, first.scheme) == (torch.uint8, 64, faces.scheme)


def test_masks_are_of_many_colours() -> None:
    faces = synthetic(count=40)
    x, y = faces.landmarks_NL2[:, 57].round().long().unbind(1)  # below the lower lip
    colours = cover(faces, "half").images_NHWC[torch.arange(40), y, x].float()
    assert (torch.cdist(colours, colours) > 60).float().mean() > 0.5


@pytest.mark.parametrize("level", LEVELS)
def test_pixels_change_within_the_outlines_their_shadow_and_the_straps_only(level: MaskLevel) -> None:
    cv2 = pytest.importorskip("cv2")
    faces = synthetic(count=16)
    changed = (cover(faces, level).images_NHWC != faces.images_NHWC).any(3).numpy()
    opaque = hidden(faces, level)
    ((_, _, worn),) = outlines.plans(faces.landmarks_NL2, faces.scheme, level, 0, 16)
    for i in range(16):
        size = changed.shape[1]
        cloth, straps = np.zeros((2, size, size), np.uint8)
        for layer in worn.layers:
            cv2.fillPoly(cloth, [layer.outline_NV2[i].numpy().round().astype(np.int32)], 1)
        for line in worn.straps_NS22[i].numpy().round().astype(np.int32):
            cv2.line(straps, line[0].tolist(), line[1].tolist(), 1, thickness=5)
        reach = 2 + int(np.ceil(0.06 / float(worn.down_N2[i].norm())))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        assert not (changed[i] & ~(cv2.dilate(cloth, disc) | straps).astype(bool)).any()
        inner = cv2.erode(cloth, np.ones((5, 5), np.uint8), borderValue=1).astype(bool)
        assert opaque[i][inner].all()


def test_a_mask_moves_with_the_face() -> None:
    faces = photographs(put(synthetic(count=10).landmarks_NL2, SCHEMES[68], crop=128))
    for (dx, dy), tolerance in (((8, -4), 1), ((7, -5), 40)):  # places between two cells are interpolated
        images = faces.images_NHWC.roll((dy, dx), (1, 2))
        moved = DeviceFaces(images, faces.landmarks_NL2 + torch.tensor([dx, dy]), 64, faces.scheme)
        there = cover(moved, "half").images_NHWC.roll((-dy, -dx), (1, 2))
        inner = slice(12, -12)
        difference = (there.int() - cover(faces, "half").images_NHWC.int()).abs()[:, inner, inner]
        assert (difference > tolerance).float().mean() < 0.005
        assert difference.float().mean() < 0.5


def test_a_mask_scales_with_the_face() -> None:
    points = synthetic(count=20).landmarks_NL2
    small, large = put(points, SCHEMES[68], 64, 104), put(points, SCHEMES[68], 128, 204)
    for level in LEVELS:
        assert torch.allclose(coverage(small, level, 3), coverage(large, level, 3), atol=0.004)


def test_black_beyond_the_photograph_stays_black() -> None:
    faces = photographs(synthetic(count=8))
    faces.images_NHWC[:, 70:] = 0
    faces.images_NHWC[:, :, :40] = 0
    covered = cover(faces, "hard").images_NHWC
    assert not covered[:, 70:].any()
    assert not covered[:, :, :40].any()
    assert (covered != faces.images_NHWC).any(3).sum((1, 2)).min() > 100


def test_odd_crops_faces_at_the_border_and_points_in_one_line() -> None:
    faces = photographs(put(synthetic(count=4).landmarks_NL2, SCHEMES[68], 60, 77))
    points = faces.landmarks_NL2.clone()
    points[0] += 45
    points[1] -= 500
    points[2, :, 0] = 30
    points[3] = 30 + points[3] / 1e4
    covered = cover(replace(faces, landmarks_NL2=points), "hard")
    assert covered.images_NHWC.shape == (4, 77, 77, 3)
    assert torch.equal(covered.images_NHWC[1], faces.images_NHWC[1])


def test_no_face_and_no_such_level() -> None:
    faces = synthetic(count=2)
    assert len(cover(part(faces, []), "hard")) == 0
    assert coverage(part(faces, []), "hard").shape == (0,)
    with refused(RecipeError, "light, half, hard", "'full'"):
        cover(faces, "full")  # type: ignore[arg-type]
    with refused(RecipeError, "'full'"):
        coverage(faces, "full")  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sides(images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the zero rectangle of each image, and that it is one."""
    zero = (images_B3HW == 0).all(1)
    wide, tall = zero.any(1).sum(1), zero.any(2).sum(1)
    assert torch.equal(zero.sum((1, 2)), wide * tall)
    return wide, tall


def test_patches_are_as_frequent_and_as_large_as_asked_for() -> None:
    images = torch.ones(3000, 3, 50, 50)
    wide, tall = sides(random_mask(images, 0.3, (0.2, 0.6), generator()))
    masked = wide > 0
    assert masked.float().mean() == pytest.approx(0.3, abs=0.03)
    side = (wide * tall).float().sqrt()[masked] / 50
    assert side.mean() == pytest.approx(0.4, abs=0.01)
    assert side.std() == pytest.approx(0.4 / 12**0.5, abs=0.01)
    assert side.min() > 0.17
    assert side.max() < 0.63
    ratio = (wide / tall)[masked]
    assert ratio.log().mean() == pytest.approx(0, abs=0.03)
    assert ratio.quantile(0.98) == pytest.approx(1.5, abs=0.15)


def test_squares_and_whole_images() -> None:
    images = torch.ones(200, 3, 40, 40)
    wide, tall = sides(random_mask(images, 1, (0.3, 0.5), generator(), aspect=1))
    assert ((wide - tall).abs() <= 1).all()
    assert not random_mask(images, 1, (1, 1), generator(), aspect=1).any()
    assert torch.equal(random_mask(images, 0, (0.3, 0.5), generator()), images)


def test_patches_lie_everywhere() -> None:
    hits = (random_mask(torch.ones(2000, 1, 20, 20), 1, (0.5, 0.5), generator(), aspect=1) == 0).float().mean(0)[0]
    assert hits[10, 10] > 0.8
    assert torch.allclose(hits, hits.flip(0), atol=0.06)
    assert torch.allclose(hits, hits.T, atol=0.06)


def test_the_same_generator_gives_the_same_patches_and_is_drawn_from_alike() -> None:
    images = torch.randn(16, 3, 32, 32, generator=generator(9)).contiguous(memory_format=torch.channels_last)
    kept = images.clone()
    one, other = generator(4), generator(4)
    first = random_mask(images, 0.5, (0.2, 0.5), one)
    assert torch.equal(first, random_mask(images, 0.5, (0.2, 0.5), other))
    assert first.data_ptr() != images.data_ptr()
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, kept)
    random_mask(images, 0.1, (0.2, 0.5), one)
    random_mask(images, 0.9, (0.2, 0.5), other)
    assert torch.equal(one.get_state(), other.get_state())


def test_noise_is_another_colour_for_each_image() -> None:
    images = torch.full((64, 3, 32, 32), 9.0)
    noisy = random_mask(images, 1, (0.4, 0.6), generator(), fill="noise")
    inside = noisy != 9
    means = torch.stack([image[i].view(3, -1).mean(1) for image, i in zip(noisy, inside, strict=True)])
    assert means.std(0).min() > 0.7
    assert all(image[i].std() > 0.3 for image, i in zip(noisy, inside, strict=True))


@pytest.mark.parametrize("size", [(0.5, 0.2), (-0.1, 0.2), (0.2, 1.1)])
def test_sizes_that_are_no_shares_are_refused(size: tuple[float, float]) -> None:
    with refused(RecipeError, str(size)):
        random_mask(torch.ones(2, 3, 8, 8), 1, size, generator())
