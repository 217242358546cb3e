"""Batches on the device: from cached crops to augmented network inputs and their landmarks, in plain torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from mmap import mmap

import torch
from torch import Tensor
from torch.nn import functional as F

from nasface.compute import counting
from nasface.data import staging
from nasface.data.base import Scheme
from nasface.data.images import MEAN as MEAN
from nasface.data.images import STD as STD
from nasface.data.looks import change_looks
from nasface.data.patches import random_mask
from nasface.data.prepare import PreparedFaces
from nasface.errors import RecipeError
from nasface.ranks import ALL, Share
from nasface.settings import Augmentation as Augmentation
from nasface.step import Batch

_KNOTS = 6  # of a field of displacements, in each direction


@dataclass(frozen=True)
class DeviceFaces:
    """Prepared faces, for networks on a device.

    Attributes:
        images_NHWC: uint8 crops, wider than the input so that augmentation has context.
        landmarks_NL2: float32, in pixels of the crop, on the device.
        input_size: side in pixels of the network's input, which is the centre of the crop.
        scheme: the landmark scheme.
        rows_N: where the crops of the faces lie in `images_NHWC`; None if each lies in the place of its landmarks.
        staged: whether the crops stay where they are, such as in a memory map, and are brought to the device batch by
            batch, ahead of the step. Otherwise they lie on the device.
        mapping: the memory map that holds staged crops, or None.
    """

    images_NHWC: Tensor
    landmarks_NL2: Tensor
    input_size: int
    scheme: Scheme
    rows_N: Tensor | None = None
    staged: bool = False
    mapping: mmap | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.landmarks_NL2)

    @property
    def device(self) -> torch.device:
        """The device on which batches are wanted."""
        return self.landmarks_NL2.device

    def crops(self, which: Tensor | slice | list[int] = slice(None)) -> Tensor:
        """Return the crops (B, S, S, 3) of some faces, or of all, where they lie."""
        return self.images_NHWC[which if self.rows_N is None else self.rows_N[which]]

    def plain(self, batch: int, places: range | None = None) -> Iterator[Batch]:
        """Yield faces in order, unchanged: the centre of each crop.

        Args:
            batch: number of faces in a batch; the last one may have fewer.
            places: which faces; None for all.
        """
        pad = (self.images_NHWC.shape[1] - self.input_size) // 2
        window = slice(pad, pad + self.input_size)
        points_NL2 = self.input_landmarks()
        places = range(len(self)) if places is None else places
        parts = [places[start : start + batch] for start in range(0, len(places), batch)]
        centres = replace(self, images_NHWC=self.images_NHWC[:, window, window])
        ahead = centres._ahead(torch.arange(part.start, part.stop) for part in parts)
        for part, ready in zip(parts, ahead, strict=True):
            here = slice(part.start, part.stop)
            images = centres.crops(here) if ready is None else ready
            yield Batch(normalise(images.permute(0, 3, 1, 2)), points_NL2[here])

    def input_landmarks(self) -> Tensor:
        """Return the landmarks (N, L, 2) in pixels of the unchanged input."""
        return self.landmarks_NL2 - (self.images_NHWC.shape[1] - self.input_size) // 2

    def steps(self, batch: int, share: float = 1.0) -> int:
        """Return the number of batches that `augmented` yields."""
        return max(1, self._drawn(batch, share) // batch)

    def _drawn(self, batch: int, share: float) -> int:
        return min(len(self), max(batch, round(share * len(self))))

    def augmented(
        self, batch: int, how: Augmentation, random: torch.Generator, share: float = 1.0, own: Share = ALL
    ) -> Iterator[Batch]:
        """Yield one epoch of shuffled, augmented batches.

        Args:
            batch: number of faces in a batch; an incomplete last batch is left out.
            how: the augmentation.
            random: a CPU generator, so that the same seed draws the same batches on any device.
            share: share of the faces that makes an epoch, but at least one batch.
            own: which part of every batch is wanted. All parts together are the batches of a single process.

        Raises:
            RecipeError: if a batch has too few faces for all processes to get one.
        """
        order = torch.randperm(len(self), generator=random)[: self._drawn(batch, share)]
        batch = min(batch, len(order))
        if batch < own.count:
            raise RecipeError(
                f"a batch of {batch} faces cannot be divided among {own.count} processes; set training.batch to at "
                f"least {own.count}, or start fewer processes"
            )
        mine = own.of(batch)
        parts = [order[start : start + batch][mine] for start in range(0, len(order) - batch + 1, batch)]
        for part, ready in zip(parts, self._ahead(parts), strict=True):
            drawn = self._augment(part, ready, how, random, (mine.start, batch))
            yield drawn if own.count == 1 else replace(drawn, first=mine.start, whole=batch)

    def _ahead(self, parts: Iterable[Tensor]) -> Iterator[Tensor | None]:
        """Yield the crops of each batch of faces if they are staged, else None."""
        if not self.staged:
            return (None for _ in parts)
        rows = (part if self.rows_N is None else self.rows_N[part] for part in parts)
        return staging.staged(self.images_NHWC, rows, self.device, self.mapping)

    @counting(0)  # it is no part of what a network computes
    def _augment(
        self, index_B: Tensor, ready: Tensor | None, how: Augmentation, random: torch.Generator, place: tuple[int, int]
    ) -> Batch:
        """Augment the faces that are number place[0] and the following ones of a batch of place[1] faces.

        Random numbers are drawn for the whole batch, so that they do not depend on how it is divided.
        """
        device, size, crop = self.device, self.input_size, self.images_NHWC.shape[1]
        n, (first, whole) = len(index_B), place

        def share(*shape: int) -> Tensor:
            return torch.rand(whole, *shape, generator=random)[first : first + n]

        def uniform(limit: float, *shape: int) -> Tensor:
            return (2 * share(*shape) - 1) * limit

        zoom = 1 + uniform(how.scale)
        angle = uniform(math.radians(how.rotation))
        flipped = share() < how.flip
        shift_B2 = uniform(how.shift, 2) * size
        light_B2 = 1 + uniform(how.colour, 2)
        bend_B2KK = None
        if how.warp:  # in units of half the input's side
            knots = torch.randn(whole, 2, _KNOTS, _KNOTS, generator=random)[first : first + n]
            bend_B2KK = (knots * (2 * how.warp * share(1, 1, 1))).to(device)
        # The forward map takes pixels relative to the crop's centre to pixels relative to the input's centre:
        # q = mirror(zoom * R p) + shift, where x is mirrored after the rotation.
        cos, sin, mirror = zoom * angle.cos(), zoom * angle.sin(), 1.0 - 2.0 * flipped.float()
        forward_B22 = torch.stack((torch.stack((mirror * cos, -mirror * sin), 1), torch.stack((sin, cos), 1)), 1)
        backward_B22 = torch.linalg.inv(forward_B22)

        forward_B22, backward_B22, shift_B2, light_B2, flipped, index_B = (
            t.to(device, non_blocking=True) for t in (forward_B22, backward_B22, shift_B2, light_B2, flipped, index_B)
        )
        points = self.landmarks_NL2[index_B] - (crop - 1) / 2
        points = points @ forward_B22.transpose(1, 2) + shift_B2[:, None]
        if bend_B2KK is not None:
            points = _bent(points * (2 / size), bend_B2KK, size) * (size / 2)
        points = points + (size - 1) / 2
        swapped = points[:, torch.tensor(self.scheme.flip, device=device)]
        points = torch.where(flipped[:, None, None], swapped, points)

        # For each pixel of the input, grid_sample needs its position in the crop in units of half the crop's size.
        theta_B23 = torch.cat((backward_B22 * (size / crop), -(backward_B22 @ shift_B2[..., None]) * (2 / crop)), dim=2)
        # few at a time stay in the CPU's cache
        few = max(4, torch.get_num_threads()) if device.type == "cpu" else n
        crops = map(self.crops, torch.split(index_B, few)) if ready is None else torch.split(ready, few)
        bends = repeat(None) if bend_B2KK is None else torch.split(bend_B2KK, few)
        parts = zip(crops, torch.split(theta_B23, few), bends, strict=False)
        images = torch.cat([_warp(some, theta, size, bend) for some, theta, bend in parts])
        if how.colour:
            brightness, contrast = light_B2[:, :1, None, None], light_B2[:, 1:, None, None]
            grey = images.mean(dim=(1, 2, 3), keepdim=True)
            images = torch.addcmul(grey * (brightness - contrast), images, contrast).clamp_(0, 255)
        images = normalise(change_looks(images, how, random, place))
        if how.occlusion:
            images = random_mask(images, how.occlusion, (0.1, 0.5), random, fill="noise", place=place)
        return Batch(images, points)


def on_device(
    faces: PreparedFaces, device: torch.device, index: Sequence[int] | None = None, staged: bool = False
) -> DeviceFaces:
    """Bring a split, or some of its faces, to a device.

    On the CPU, the crops stay in the memory-mapped cache. To another device they are copied once, unless they are to
    be staged.

    Args:
        faces: the split.
        device: the device.
        index: numbers of the faces; None for all.
        staged: whether to bring the crops there batch by batch, see `DeviceFaces`.

    Raises:
        DataError: if the device has too little memory for them.
    """
    landmarks = faces.landmarks_NL2 if index is None else faces.landmarks_NL2[list(index)]
    points = torch.tensor(landmarks, dtype=torch.float32, device=device)
    if device.type != "cpu" and not staged:
        images = staging.copied(faces.images_NHWC, range(len(faces)) if index is None else index, device)
        return DeviceFaces(images, points, faces.input_size, faces.scheme)
    rows = None if index is None else torch.tensor(index, dtype=torch.long)
    base = faces.images_NHWC.base
    mapping = base if staged and isinstance(base, mmap) else None
    return DeviceFaces(
        staging.in_place(faces.images_NHWC), points, faces.input_size, faces.scheme, rows, staged, mapping
    )


def normalise(images_B3HW: Tensor) -> Tensor:
    """Scale RGB of 0 to 255, of any type, to zero mean and unit deviation, with channels last (fast on CPUs)."""
    mean = torch.tensor(MEAN, device=images_B3HW.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images_B3HW.device).view(3, 1, 1)
    images = torch.addcmul(-mean / std, images_B3HW.float(), 1 / (255 * std))
    return images.contiguous(memory_format=torch.channels_last)


def _warp(crops_NHWC: Tensor, theta_B23: Tensor, size: int, bend_B2KK: Tensor | None) -> Tensor:
    """Sample crops on a grid built from rows and columns; affine_grid would multiply matrices for every pixel."""
    line = (2 * torch.arange(size, device=theta_B23.device) + 1) / size - 1
    across = line[:, None] * theta_B23[:, None, :, 0]
    down = line[:, None] * theta_B23[:, None, :, 1] + theta_B23[:, None, :, 2]
    grid = across[:, None] + down[:, :, None]
    if bend_B2KK is not None:
        bend_B2HW = F.interpolate(bend_B2KK, (size, size), mode="bilinear", align_corners=True)
        grid = grid + torch.einsum("bjhw,bij->bhwi", bend_B2HW, theta_B23[:, :, :2])
    crops = crops_NHWC.permute(0, 3, 1, 2).float()
    return F.grid_sample(crops, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _bent(points_BL2: Tensor, bend_B2KK: Tensor, size: int) -> Tensor:
    """Return where points are seen when the picture is sampled at q + bend(q) for q: the q with q + bend(q) = p.

    Args:
        points_BL2: in units of half the picture's side, from its centre.
        bend_B2KK: displacements at knots that span the picture, from the centres of its first to those of its last
            pixels, in the same units.
        size: side of the picture in pixels.
    """
    seen = points_BL2
    for _ in range(8):  # the field is smooth and small, so that this contracts
        at = seen[:, :, None] * (size / (size - 1))
        bend_B2L1 = F.grid_sample(bend_B2KK, at, padding_mode="border", align_corners=True)
        seen = points_BL2 - bend_B2L1[..., 0].transpose(1, 2)
    return seen
