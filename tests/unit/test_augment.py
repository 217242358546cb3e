"""Augmentation: landmarks and pixels move together, and the draws keep to their ranges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import faces, scheme
from torch import Tensor

from nasface.data.augment import MEAN, STD, Augmentation, DeviceFaces, normalise, on_device
from nasface.data.looks import change_looks
from nasface.data.prepare import PreparedFaces
from nasface.ranks import Share
from nasface.step import Batch

NOTHING = Augmentation(scale=0, rotation=0, flip=0)
EVERYTHING = Augmentation(scale=0.25, rotation=40, flip=0.5, shift=0.1)
SIZE, CROP = 64, 104


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(images_B3HW: Tensor) -> Tensor:
    """Undo the normalisation: back to 0 to 255."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return 255 * (images_B3HW * std + mean)


def dots(count: int = 24, seed: int = 0) -> DeviceFaces:
    """Black crops with a soft bright dot at each of five landmarks, each of a brightness of its own."""
    centre = (CROP - 1) / 2
    rest = torch.tensor([[-13.0, -11.0], [12.0, -12.0], [-9.0, 14.0], [10.0, 13.0], [0.0, 0.0]])
    landmarks = centre + rest + 3 * torch.rand(count, 5, 2, generator=generator(seed))
    axis = torch.arange(CROP, dtype=torch.float32)
    x, y = (torch.exp(-(axis - landmarks[..., i, None]).square() / (2 * 1.2**2)) for i in (0, 1))
    brightness = torch.tensor([40.0, 63.0, 99.0, 155.0, 243.0])
    images = torch.einsum("nly,nlx,l->nyx", y, x, brightness)
    return DeviceFaces(images.round().byte()[..., None].repeat(1, 1, 1, 3), landmarks, SIZE, scheme(5))


def centroid(image_HW: Tensor, near: Tensor, reach: int = 6) -> tuple[Tensor, float] | None:
    """Centre of mass (x, y) about a point and the peak there; None where the window leaves the image."""
    cx, cy = (round(v) for v in near.tolist())
    h, w = image_HW.shape
    if not (reach <= cx < w - reach and reach <= cy < h - reach):
        return None
    window = image_HW[cy - reach : cy + reach + 1, cx - reach : cx + reach + 1]
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    place = torch.stack(((window.sum(0) * axis).sum(), (window.sum(1) * axis).sum())) / window.sum()
    return place + torch.tensor([cx, cy]), float(window.max())


@pytest.mark.parametrize(
    "how",
    [
        EVERYTHING,
        replace(NOTHING, rotation=180),
        replace(NOTHING, scale=0.25),
        replace(NOTHING, flip=1),
        replace(NOTHING, shift=0.1),
        replace(NOTHING, rotation=30, flip=1),
        replace(NOTHING, rotation=30, shift=0.1),
        replace(NOTHING, scale=0.2, flip=1, shift=0.1),
        replace(NOTHING, warp=0.015),
        replace(EVERYTHING, warp=0.01),
    ],
    ids=lambda how: ",".join(name for name in ("scale", "rotation", "flip", "shift", "warp") if getattr(how, name)),
)
def test_a_dot_lands_where_its_landmark_says(how):
    seen = 0
    for batch in dots().augmented(8, how, generator(3)):
        for image, landmarks in zip(pixels(batch.images_B3HW).mean(1), batch.landmarks_BL2, strict=True):
            peaks = []
            for landmark in landmarks:
                if (found := centroid(image, landmark)) is None:
                    continue
                assert torch.linalg.vector_norm(found[0] - landmark) < (
                    0.3 if how.warp else 0.12
                )  # warped dots are lopsided
                peaks.append(found[1])
                seen += 1
            if how.flip == 0 and len(peaks) == 5:
                assert peaks == sorted(peaks)  # landmark i is still dot i
            if how.flip == 1 and len(peaks) == 5:
                assert peaks[1] < peaks[0] < peaks[3] < peaks[2] < peaks[4]  # dots 0, 1 and 2, 3 changed names
    assert seen > 0.7 * 24 * 5


def test_without_augmentation_a_batch_is_the_centre_slice():
    source = faces(6, size=32, crop=40)
    plain = next(source.plain(6))
    (batch,) = source.augmented(6, NOTHING, generator())
    order = [int((plain.landmarks_BL2 - landmarks).abs().sum((1, 2)).argmin()) for landmarks in batch.landmarks_BL2]
    assert sorted(order) == list(range(6))
    assert torch.allclose(batch.landmarks_BL2, plain.landmarks_BL2[order], atol=1e-4)
    assert torch.allclose(pixels(batch.images_B3HW), pixels(plain.images_B3HW[order]), atol=0.05)


def test_a_flip_mirrors_the_image_and_permutes_the_landmarks():
    source = faces(1, size=32, crop=40)
    plain = next(source.plain(1))
    (batch,) = source.augmented(1, replace(NOTHING, flip=1), generator())
    assert torch.allclose(pixels(batch.images_B3HW), pixels(plain.images_B3HW).flip(3), atol=0.05)
    mirrored = torch.stack((31 - plain.landmarks_BL2[..., 0], plain.landmarks_BL2[..., 1]), dim=2)
    assert torch.allclose(batch.landmarks_BL2, mirrored[:, [1, 0, 3, 2]], atol=1e-4)


def test_half_of_the_faces_are_flipped_by_default():
    source = faces(200, size=16, crop=16)
    (batch,) = source.augmented(200, replace(NOTHING, flip=0.5), generator())
    points = source.input_landmarks()
    unflipped = sum(bool((points - landmarks).abs().sum((1, 2)).min() < 1e-3) for landmarks in batch.landmarks_BL2)
    assert 70 < unflipped < 130


def test_draws_keep_to_their_ranges_and_use_them():
    """The similarity that maps two landmarks, as complex numbers: z -> a z + b about the centres."""
    source = dots(200)
    source = replace(source, landmarks_NL2=source.landmarks_NL2[:1].repeat(200, 1, 1))
    (batch,) = source.augmented(200, replace(EVERYTHING, flip=0), generator(1))
    old = torch.view_as_complex(source.landmarks_NL2 - (CROP - 1) / 2)
    new = torch.view_as_complex(batch.landmarks_BL2.contiguous() - (SIZE - 1) / 2)
    a = (new[:, 0] - new[:, 1]) / (old[:, 0] - old[:, 1])
    b = torch.view_as_real(new[:, 0] - a * old[:, 0]) / SIZE
    assert torch.allclose(new[:, 4], a * old[:, 4] + SIZE * torch.view_as_complex(b), atol=1e-3)  # rigid, but for scale
    degrees = a.angle() * 180 / math.pi
    for values, low, high in ((a.abs(), 0.75, 1.25), (degrees, -40, 40), (b[:, 0], -0.1, 0.1), (b[:, 1], -0.1, 0.1)):
        tolerance = 1e-4 * (high - low)
        assert low - tolerance <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high + tolerance
    assert np.abs(np.corrcoef(torch.stack((a.abs(), degrees, *b.T)).numpy()) - np.eye(4)).max() < 0.3  # independent


def test_the_same_seed_gives_the_same_batches():
    source = faces(8)
    how = replace(EVERYTHING, colour=0.3, occlusion=0.5)

    def epoch(seed: int) -> list[Batch]:
        return list(source.augmented(4, how, generator(seed)))

    for one, two, other in zip(epoch(1), epoch(1), epoch(2), strict=True):
        assert torch.equal(one.images_B3HW, two.images_B3HW)
        assert torch.equal(one.landmarks_BL2, two.landmarks_BL2)
        assert not torch.equal(one.landmarks_BL2, other.landmarks_BL2)


@pytest.mark.parametrize(
    ("batch", "share", "sizes"),
    [
        (4, 1.0, [4, 4]),
        (3, 1.0, [3, 3, 3]),
        (10, 1.0, [10]),
        (64, 1.0, [10]),
        (2, 0.5, [2, 2]),
        (4, 0.2, [4]),
        (4, 0.01, [4]),
    ],
)
def test_an_epoch_is_whole_batches_of_a_share_without_repeats(batch, share, sizes):
    source = faces(10)
    batches = list(source.augmented(batch, NOTHING, generator(), share))
    assert [len(b.images_B3HW) for b in batches] == sizes
    firsts = torch.cat([b.landmarks_BL2[:, 0, 0] for b in batches])
    assert len(firsts.round(decimals=2).unique()) == sum(sizes)


def test_plain_gives_every_face_in_order():
    source = faces(5, size=32, crop=40)
    batches = list(source.plain(2))
    assert [len(b.images_B3HW) for b in batches] == [2, 2, 1]
    landmarks = torch.cat([b.landmarks_BL2 for b in batches])
    assert torch.equal(landmarks, source.landmarks_NL2 - 4)
    assert torch.equal(landmarks, source.input_landmarks())
    images = torch.cat([b.images_B3HW for b in batches])
    slices = source.images_NHWC[:, 4:36, 4:36].permute(0, 3, 1, 2)
    assert torch.equal(images, normalise(slices))
    assert torch.allclose(pixels(images), slices.float(), atol=1e-3)


def test_colour_leaves_landmarks_alone_and_scales_brightness_and_contrast():
    source = faces(64, size=16, crop=16)
    source = replace(source, images_NHWC=(80 + source.images_NHWC // 4))  # away from 0 and 255
    (before,), (after,) = (source.augmented(64, how, generator()) for how in (NOTHING, replace(NOTHING, colour=0.3)))
    assert torch.equal(before.landmarks_BL2, after.landmarks_BL2)
    old, new = pixels(before.images_B3HW).flatten(1), pixels(after.images_B3HW).flatten(1)
    brightness, contrast = new.mean(1) / old.mean(1), new.std(1) / old.std(1)
    for factor in (brightness, contrast):
        assert 0.69 < factor.min() < 0.8
        assert 1.2 < factor.max() < 1.31
    assert (brightness - contrast).abs().max() > 0.2


def test_an_occlusion_is_one_rectangle_of_coloured_noise():
    source = replace(faces(200, size=64, crop=64), images_NHWC=torch.full((200, 64, 64, 3), 255, dtype=torch.uint8))

    def occluded(probability: float) -> tuple[Tensor, Tensor]:
        (batch,) = source.augmented(200, replace(NOTHING, occlusion=probability), generator())
        images = pixels(batch.images_B3HW)
        return images, ((images - 255).abs() > 0.5).any(dim=1)

    images, covered = occluded(1)
    sides, colours, grains = [], [], []
    for image, face in zip(images, covered, strict=True):
        rows, columns = face.any(1).nonzero(), face.any(0).nonzero()
        sides.append([int(span.max() - span.min()) + 1 for span in (rows, columns)])
        assert face.sum() == sides[-1][0] * sides[-1][1]
        colours.append(image[:, face].mean(1))
        grains.append(image[:, face].std(1))
    heights, widths = torch.tensor(sides).T / 64
    size, aspect = (heights * widths).sqrt(), (widths / heights)[heights * widths > 0.1]  # of small ones it is coarse
    assert 0.08 < size.min() < 0.15
    assert 0.45 < size.max() < 0.52
    assert 0.6 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.67
    assert (torch.stack(colours).std(0) > 40).all()
    assert 20 < torch.stack(grains).mean() < 40
    some = occluded(0.5)[1].flatten(1).any(1).sum()
    assert 70 < some < 130
    assert not occluded(0)[1].any()


def test_on_device_takes_all_or_some():
    random = np.random.default_rng(0)
    prepared = PreparedFaces(
        split="train",
        images_NHWC=random.integers(0, 256, (4, 20, 20, 3), dtype=np.uint8),
        landmarks_NL2=random.random((4, 4, 2)).astype(np.float32),
        names=("a", "b", "c", "d"),
        subsets=((),) * 4,
        to_original_N23=np.zeros((4, 2, 3)),
        scheme=scheme(),
        input_size=16,
        expected={},
        skipped=(),
        key="",
    )
    everyone, some = on_device(prepared, torch.device("cpu")), on_device(prepared, torch.device("cpu"), [3, 1])
    assert len(everyone) == 4
    assert everyone.input_size == 16
    assert torch.equal(some.crops(), everyone.images_NHWC[[3, 1]])
    assert torch.equal(some.landmarks_NL2, everyone.landmarks_NL2[[3, 1]])
    assert torch.equal(everyone.images_NHWC, torch.from_numpy(prepared.images_NHWC))


LOOKS = {"shading": 0.5, "gamma": 0.5, "tint": 0.2, "grey": 0.5, "blur": 0.05, "noise": 0.1}


@pytest.mark.parametrize("name", LOOKS)
def test_looks_change_the_picture_and_leave_landmarks_alone(name: str):
    source = faces(16, size=64, crop=64)
    how = replace(NOTHING, **{name: LOOKS[name]})
    (before,), (after,) = (source.augmented(16, h, generator()) for h in (NOTHING, how))
    assert torch.equal(before.landmarks_BL2, after.landmarks_BL2)
    changed = (pixels(before.images_B3HW) - pixels(after.images_B3HW)).abs().amax(dim=(1, 2, 3)) > 1
    assert changed.float().mean() > 0.25
    assert pixels(after.images_B3HW).min() > -1e-3
    assert pixels(after.images_B3HW).max() < 255 + 1e-3


def test_grey_faces_have_three_equal_channels_as_often_as_asked():
    (batch,) = faces(400, size=32, crop=32).augmented(400, replace(NOTHING, grey=0.25), generator())
    rgb = pixels(batch.images_B3HW)
    grey = (rgb - rgb.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-2
    assert 0.18 < grey.float().mean() < 0.32


def test_blur_keeps_the_mean_and_removes_detail():
    images = torch.zeros(8, 3, 33, 33)
    images[:, :, 16, 16] = 255
    soft = change_looks(images, replace(NOTHING, blur=0.1), generator(), (0, 8))
    assert soft.sum(dim=(2, 3)).sub(255).abs().max() < 0.5
    assert soft.amax(dim=(1, 2, 3)).min() < 60


def test_processes_together_see_the_batch_of_one():
    source = faces(12, size=32, crop=48)
    how = replace(EVERYTHING, colour=0.3, occlusion=0.5, warp=0.02, **LOOKS)
    (whole,) = source.augmented(12, how, generator(5))
    parts = [next(source.augmented(12, how, generator(5), own=Share(rank, 3))) for rank in range(3)]
    torch.testing.assert_close(torch.cat([part.landmarks_BL2 for part in parts]), whole.landmarks_BL2)
    torch.testing.assert_close(torch.cat([part.images_B3HW for part in parts]), whole.images_B3HW, atol=1e-4, rtol=0)
