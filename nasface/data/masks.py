"""Faces behind masks: synthetic ones for measuring robustness, and plain patches for training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nasface.data.cloth import CELL, paint
from nasface.data.outlines import Level, hidden_share, plans
from nasface.errors import RecipeError

if TYPE_CHECKING:
    from nasface.data.augment import DeviceFaces

__all__ = ["Fill", "Level", "cover", "coverage", "random_mask"]

Fill = Literal["mean", "noise"]

_AT_ONCE = {"cpu": 16}  # faces, 128 elsewhere: what stays in the CPU's cache


def cover(faces: DeviceFaces, level: Level, seed: int = 0) -> DeviceFaces:
    """Put a mask on every face.

    The mask of a face follows from its landmarks and the seed alone: whatever the batch, the device, the place in the
    picture or the size of the crop. The levels of one seed differ in how far the same mask reaches. What is black
    because it lies outside the photograph stays black.

    Args:
        faces: of any mark-up. 68, 98 and 29 points are known; of others the two ends of the inter-ocular distance and
            the lowest points are used.
        level: 'light' hides mouth and chin, 'half' also the nose up to its ridge, 'hard' all below the eyes, and by a
            cap or a scarf so much of the rest that at least half of every face is hidden (see `coverage`).
        seed: of shapes, cloths and colours.

    Returns:
        Faces whose crops are new and whose landmarks are those given.

    Raises:
        RecipeError: no such level.
    """
    images = faces.images_NHWC.clone()
    size = images.shape[1]
    for few, _, masks in plans(faces, level, seed, _AT_ONCE.get(images.device.type, 128)):
        part = F.pad(images[few], (0, 0, 0, -size % CELL, 0, -size % CELL))
        paint(part, masks.to(images.device))
        images[few] = part[:, :size, :size]
    return replace(faces, images_NHWC=images)


def coverage(faces: DeviceFaces, level: Level, seed: int = 0) -> Tensor:
    """How much of each face the masks of `cover` hide.

    The face is the convex hull of its landmarks, its jaw and its forehead, which reaches as far above the brows as the
    nose base lies below them. Straps and shadows do not count; what lies outside the crop does.

    Returns:
        float64 (N,) shares, on the CPU, measured on 48 x 48 points a face.

    Raises:
        RecipeError: no such level.
    """
    shares = [hidden_share(hull_NP2, masks.layers) for _, hull_NP2, masks in plans(faces, level, seed, 64)]
    return torch.cat(shares) if shares else torch.zeros(0, dtype=torch.float64)


def random_mask(
    images_B3HW: Tensor,
    probability: float,
    size: tuple[float, float],
    random: torch.Generator,
    *,
    fill: Fill = "mean",
    aspect: float = 1.5,
) -> Tensor:
    """Hide a rectangle of a random size at a random place in some images, as section 3.2 of the paper does to students.

    Args:
        images_B3HW: normalised images.
        probability: that an image gets a rectangle.
        size: least and largest side of the rectangle, as shares of the image's side; drawn uniformly for each image.
        random: a CPU generator; it is drawn from as often whatever the probability.
        fill: 'mean' is the mean colour, zero; 'noise' a random colour for each image, grained.
        aspect: width over height is drawn from 1 / aspect to aspect, at the same area.

    Returns:
        New images, in the memory format of the given ones.

    Raises:
        RecipeError: a size that is no pair of shares, the smaller first.
    """
    if not 0 <= size[0] <= size[1] <= 1:
        raise RecipeError(f"the sides of a random mask must be two shares of 0 to 1, the smaller first, not {size}")
    n, _, h, w = images_B3HW.shape
    device = images_B3HW.device
    side_B1 = size[0] + (size[1] - size[0]) * torch.rand(n, 1, generator=random)
    stretch_B1 = aspect ** (torch.rand(n, 1, generator=random) - 0.5)
    sides_B2 = torch.cat((side_B1 * stretch_B1, side_B1 / stretch_B1), dim=1).clamp(max=1)
    low_B2 = torch.rand(n, 2, generator=random) * (1 - sides_B2)
    chosen_B = torch.rand(n, generator=random) < probability
    filling = torch.zeros(1, 1, 1, 1)
    if fill == "noise":  # normalised colours have unit deviation
        filling = torch.randn(n, 3, 1, 1, generator=random) + 0.5 * torch.randn(1, 3, h, w, generator=random)
    low, high, chosen, filling = (t.to(device) for t in (low_B2, low_B2 + sides_B2, chosen_B, filling))
    x, y = ((torch.arange(pixels, device=device) + 0.5) / pixels for pixels in (w, h))
    columns = (x >= low[:, :1]) & (x < high[:, :1]) & chosen[:, None]
    rows = (y >= low[:, 1:]) & (y < high[:, 1:])
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], filling.to(images_B3HW), images_B3HW)
