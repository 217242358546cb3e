"""Rectangular patches that hide parts of training images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nasface.errors import RecipeError

Fill = Literal["mean", "noise"]


def random_mask(
    images_B3HW: Tensor,
    probability: float,
    size: tuple[float, float],
    random: torch.Generator,
    *,
    fill: Fill = "mean",
    aspect: float = 1.5,
    place: tuple[int, int | None] = (0, None),
) -> Tensor:
    """Hide a rectangle of random size and position in some images, as section 3.2 of the paper does for the students.

    Args:
        images_B3HW: normalised images.
        probability: probability that an image gets a rectangle.
        size: smallest and largest side of the rectangle, as shares of the image's side; the side is drawn uniformly
            for each image.
        random: a CPU generator; the number of draws does not depend on the probability.
        fill: 'mean' is the mean colour, zero; 'noise' is a random, grainy colour for each image.
        aspect: width over height is drawn from 1 / aspect to aspect, at the same area.
        place: the number of the first of these images in a batch, and how many images that batch has. Rectangles are
            drawn for the whole batch, so that several processes may each have a part of it.

    Returns:
        New images, in the memory format of the given ones.

    Raises:
        RecipeError: `size` is not two shares from 0 to 1, the smaller first.
    """
    if not 0 <= size[0] <= size[1] <= 1:
        raise RecipeError(f"the sides of a random mask must be two shares from 0 to 1, the smaller first, not {size}")
    first, whole = place
    n, own = whole or len(images_B3HW), slice(first, first + len(images_B3HW))
    device, (h, w) = images_B3HW.device, images_B3HW.shape[2:]
    side_B1 = size[0] + (size[1] - size[0]) * torch.rand(n, 1, generator=random)
    stretch_B1 = aspect ** (torch.rand(n, 1, generator=random) - 0.5)
    sides_B2 = torch.cat((side_B1 * stretch_B1, side_B1 / stretch_B1), dim=1).clamp(max=1)
    low_B2 = torch.rand(n, 2, generator=random) * (1 - sides_B2)
    chosen_B = torch.rand(n, generator=random) < probability
    filling = torch.zeros(1, 1, 1, 1)
    if fill == "noise":  # as normalised colours have unit deviation
        colours = torch.randn(n, 3, 1, 1, generator=random)
        filling = colours[own] + 0.5 * torch.randn(1, 3, h, w, generator=random)
    drawn = (low_B2[own], (low_B2 + sides_B2)[own], chosen_B[own], filling)
    low, high, chosen, filling = (t.to(device) for t in drawn)
    x, y = ((torch.arange(pixels, device=device) + 0.5) / pixels for pixels in (w, h))
    columns = (x >= low[:, :1]) & (x < high[:, :1]) & chosen[:, None]
    rows = (y >= low[:, 1:]) & (y < high[:, 1:])
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], filling.to(images_B3HW), images_B3HW)
