"""Synthetic masks on faces, for measuring how robust a network is to occlusion."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from nasface.data.augment import DeviceFaces
from nasface.data.cloth import CELL, paint
from nasface.data.outlines import hidden_share, plans
from nasface.scores import MaskLevel

_AT_ONCE = {"cpu": 16}  # faces at once, so that they stay in the CPU's cache; 128 on other devices


def cover(faces: DeviceFaces, level: MaskLevel, seed: int = 0) -> DeviceFaces:
    """Put a mask on every face.

    The mask of a face depends only on its landmarks and the seed, not on the batch, the device, the position in the
    picture or the size of the crop. The levels of one seed differ in how far the same mask reaches. Black pixels
    outside the photograph stay black.

    Args:
        faces: in any landmark scheme. Those with 68, 98 and 29 landmarks are known; for others, the two ends of the
            inter-ocular distance and the lowest landmarks are used.
        level: 'light' hides the mouth and chin; 'half' also hides the nose up to its ridge; 'hard' hides everything
            below the eyes and, with a cap or a scarf, so much of the rest that at least half of every face is hidden
            (see `coverage`).
        seed: decides shapes, cloths and colours.

    Returns:
        Faces with new crops and the given landmarks.

    Raises:
        RecipeError: there is no such level.
    """
    images = faces.crops().clone()
    size = images.shape[1]
    for few, _, masks in plans(faces.landmarks_NL2, faces.scheme, level, seed, _AT_ONCE.get(images.device.type, 128)):
        part = F.pad(images[few], (0, 0, 0, -size % CELL, 0, -size % CELL))
        paint(part, masks.to(images.device))
        images[few] = part[:, :size, :size]
    return replace(faces, images_NHWC=images, rows_N=None, mapping=None)


def coverage(faces: DeviceFaces, level: MaskLevel, seed: int = 0) -> Tensor:
    """Return the share of each face that the masks of `cover` hide.

    A face is the convex hull of its landmarks, jaw and forehead; the forehead reaches as far above the brows as the
    base of the nose lies below them. Straps and shadows do not count; what lies outside the crop does.

    Returns:
        float64 (N,), on the CPU, measured on a grid of 48 x 48 points per face.

    Raises:
        RecipeError: there is no such level.
    """
    planned = plans(faces.landmarks_NL2, faces.scheme, level, seed, 64)
    shares = [hidden_share(hull_NP2, masks.layers) for _, hull_NP2, masks in planned]
    return torch.cat(shares) if shares else torch.zeros(0, dtype=torch.float64)
