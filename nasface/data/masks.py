"""Synthetic masks on faces, for measuring how robust a network is to occlusion."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from nasface.data.augment import DeviceFaces
from nasface.data.cloth import CELL, paint
from nasface.data.outlines import Level, hidden_share, plans

__all__ = ["Level", "cover", "coverage"]

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
    for few, _, masks in plans(faces.landmarks_NL2, faces.scheme, level, seed, _AT_ONCE.get(images.device.type, 128)):
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
    planned = plans(faces.landmarks_NL2, faces.scheme, level, seed, 64)
    shares = [hidden_share(hull_NP2, masks.layers) for _, hull_NP2, masks in planned]
    return torch.cat(shares) if shares else torch.zeros(0, dtype=torch.float64)
