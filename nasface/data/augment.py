"""Batches on the device: from cached crops to augmented network inputs and their landmarks, in plain torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nasface.data.base import Scheme
from nasface.data.images import MEAN as MEAN
from nasface.data.images import STD as STD
from nasface.data.patches import random_mask
from nasface.data.prepare import PreparedFaces
from nasface.errors import DataError, out_of_memory
from nasface.settings import Augmentation as Augmentation
from nasface.step import Batch


@dataclass(frozen=True)
class DeviceFaces:
    """Prepared faces on the device.

    Attributes:
        images_NHWC: uint8 crops, wider than the input so that augmentation has context.
        landmarks_NL2: float32, in pixels of the crop.
        input_size: side in pixels of the network's input, which is the centre of the crop.
        scheme: the landmark scheme.
    """

    images_NHWC: Tensor
    landmarks_NL2: Tensor
    input_size: int
    scheme: Scheme

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def device(self) -> torch.device:
        """Where the faces lie."""
        return self.images_NHWC.device

    def plain(self, batch: int) -> Iterator[Batch]:
        """Yield all faces in order, unchanged: the centre of each crop."""
        pad = (self.images_NHWC.shape[1] - self.input_size) // 2
        window = slice(pad, pad + self.input_size)
        points_NL2 = self.input_landmarks()
        for start in range(0, len(self), batch):
            images = self.images_NHWC[start : start + batch, window, window]
            yield Batch(normalise(images.permute(0, 3, 1, 2)), points_NL2[start : start + batch])

    def input_landmarks(self) -> Tensor:
        """Return the landmarks (N, L, 2) in pixels of the unchanged input."""
        return self.landmarks_NL2 - (self.images_NHWC.shape[1] - self.input_size) // 2

    def steps(self, batch: int, share: float = 1.0) -> int:
        """Return the number of batches that `augmented` yields."""
        return max(1, self._drawn(batch, share) // batch)

    def _drawn(self, batch: int, share: float) -> int:
        return min(len(self), max(batch, round(share * len(self))))

    def augmented(self, batch: int, how: Augmentation, random: torch.Generator, share: float = 1.0) -> Iterator[Batch]:
        """Yield one epoch of shuffled, augmented batches.

        Args:
            batch: number of faces in a batch; an incomplete last batch is left out.
            how: the augmentation.
            random: a CPU generator, so that the same seed draws the same batches on any device.
            share: share of the faces that makes an epoch, but at least one batch.
        """
        order = torch.randperm(len(self), generator=random)[: self._drawn(batch, share)]
        batch = min(batch, len(order))
        for start in range(0, len(order) - batch + 1, batch):
            yield self._augment(order[start : start + batch], how, random)

    def _augment(self, index_B: Tensor, how: Augmentation, random: torch.Generator) -> Batch:
        device, size, crop = self.images_NHWC.device, self.input_size, self.images_NHWC.shape[1]
        n = len(index_B)

        def uniform(limit: float, *shape: int) -> Tensor:
            return (2 * torch.rand(n, *shape, generator=random) - 1) * limit

        zoom = 1 + uniform(how.scale)
        angle = uniform(math.radians(how.rotation))
        flipped = torch.rand(n, generator=random) < how.flip
        shift_B2 = uniform(how.shift, 2) * size
        light_B2 = 1 + uniform(how.colour, 2)
        # The forward map takes pixels relative to the crop's centre to pixels relative to the input's centre:
        # q = mirror(zoom * R p) + shift, where x is mirrored after the rotation.
        cos, sin, mirror = zoom * angle.cos(), zoom * angle.sin(), 1.0 - 2.0 * flipped.float()
        forward_B22 = torch.stack((torch.stack((mirror * cos, -mirror * sin), 1), torch.stack((sin, cos), 1)), 1)
        backward_B22 = torch.linalg.inv(forward_B22)

        forward_B22, backward_B22, shift_B2, light_B2, flipped, index_B = (
            t.to(device, non_blocking=True) for t in (forward_B22, backward_B22, shift_B2, light_B2, flipped, index_B)
        )
        points = self.landmarks_NL2[index_B] - (crop - 1) / 2
        points = points @ forward_B22.transpose(1, 2) + shift_B2[:, None] + (size - 1) / 2
        swapped = points[:, torch.tensor(self.scheme.flip, device=device)]
        points = torch.where(flipped[:, None, None], swapped, points)

        # For each pixel of the input, grid_sample needs its position in the crop in units of half the crop's size.
        theta_B23 = torch.cat((backward_B22 * (size / crop), -(backward_B22 @ shift_B2[..., None]) * (2 / crop)), dim=2)
        # few at a time stay in the CPU's cache
        few = max(4, torch.get_num_threads()) if device.type == "cpu" else n
        parts = zip(torch.split(index_B, few), torch.split(theta_B23, few), strict=True)
        images = torch.cat([_warp(self.images_NHWC[index], theta, size) for index, theta in parts])
        if how.colour:
            brightness, contrast = light_B2[:, :1, None, None], light_B2[:, 1:, None, None]
            grey = images.mean(dim=(1, 2, 3), keepdim=True)
            images = torch.addcmul(grey * (brightness - contrast), images, contrast).clamp_(0, 255)
        images = normalise(images)
        if how.occlusion:
            images = random_mask(images, how.occlusion, (0.1, 0.5), random, fill="noise")
        return Batch(images, points)


def on_device(faces: PreparedFaces, device: torch.device, index: list[int] | None = None) -> DeviceFaces:
    """Copy the crops of a split, or of some of its faces, to the device.

    Raises:
        DataError: there is not enough memory for them; the message says how much they need.
    """
    count, side = len(faces) if index is None else len(index), faces.images_NHWC.shape[1]
    need = 2 * count * 3 * side**2  # the chosen crops, and the copy of them
    free = memory_left() if device.type == "cpu" else None
    short = DataError(
        f"{count:,} faces of {side} x {side} pixels need {need / 2**30:.1f} GiB of memory on {device.type}"
        + ("" if free is None else f", where {free / 2**30:.1f} GiB are free")
        + "; use fewer faces, or a smaller data.input_size or data.margin, or choose another --device"
    )
    if free is not None and need > free:
        raise short
    try:
        images = faces.images_NHWC if index is None else faces.images_NHWC[index]
        landmarks = faces.landmarks_NL2 if index is None else faces.landmarks_NL2[index]
        return DeviceFaces(
            torch.tensor(images, device=device),
            torch.tensor(landmarks, dtype=torch.float32, device=device),
            faces.input_size,
            faces.scheme,
        )
    except (MemoryError, RuntimeError) as err:
        if out_of_memory(err):
            raise short from err
        raise


def memory_left() -> int | None:
    """Return how many bytes of memory the machine can still give to a process; None where it does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return None


def normalise(images_B3HW: Tensor) -> Tensor:
    """Scale RGB of 0 to 255, of any type, to zero mean and unit deviation, with channels last (fast on CPUs)."""
    mean = torch.tensor(MEAN, device=images_B3HW.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images_B3HW.device).view(3, 1, 1)
    images = torch.addcmul(-mean / std, images_B3HW.float(), 1 / (255 * std))
    return images.contiguous(memory_format=torch.channels_last)


def _warp(crops_NHWC: Tensor, theta_B23: Tensor, size: int) -> Tensor:
    """Sample crops on a grid built from rows and columns; affine_grid would multiply matrices for every pixel."""
    line = (2 * torch.arange(size, device=theta_B23.device) + 1) / size - 1
    across = line[:, None] * theta_B23[:, None, :, 0]
    down = line[:, None] * theta_B23[:, None, :, 1] + theta_B23[:, None, :, 2]
    grid = across[:, None] + down[:, :, None]
    crops = crops_NHWC.permute(0, 3, 1, 2).float()
    return F.grid_sample(crops, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
