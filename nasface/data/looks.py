"""How training images look: light, colour, focus and grain, changed at random in batches on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nasface.settings import Augmentation

_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
_LIGHTS = 4  # a field of light has this many knots in each direction


def change_looks(images_B3HW: Tensor, how: Augmentation, random: torch.Generator, place: tuple[int, int]) -> Tensor:
    """Change the looks of images as far as an augmentation asks for it.

    Args:
        images_B3HW: RGB, 0 to 255, float.
        how: its fields `shading`, `gamma`, `tint`, `grey`, `blur` and `noise`; what is 0 draws no random numbers.
        random: a CPU generator.
        place: the number of the first of these images in a batch, and how many images that batch has: random numbers
            are drawn for the whole batch, so that they do not depend on how it is divided.

    Returns:
        Images of 0 to 255; the given ones if nothing is asked for.
    """
    (first, whole), (n, _, h, w), device = place, images_B3HW.shape, images_B3HW.device

    def share(*shape: int) -> Tensor:
        return torch.rand(whole, *shape, generator=random)[first : first + n].to(device)

    def uniform(limit: float, *shape: int) -> Tensor:
        return (2 * share(*shape) - 1) * limit

    images = images_B3HW
    if how.shading:
        knots = torch.randn(whole, 1, _LIGHTS, _LIGHTS, generator=random)[first : first + n].to(device)
        field = F.interpolate(knots, (h, w), mode="bicubic", align_corners=False)
        images = images * (field * (how.shading * share(1, 1, 1))).exp()
    if how.gamma:
        images = (images.clamp(0, 255) / 255) ** uniform(math.log1p(how.gamma), 1, 1, 1).exp() * 255
    if how.tint:
        images = images * (1 + uniform(how.tint, 3, 1, 1))
    if how.grey:
        luma = torch.einsum("bchw,c->bhw", images, torch.tensor(_GREY, device=device))[:, None]
        images = torch.where(share(1, 1, 1) < how.grey, luma, images)
    if how.blur:
        sigma_B1 = how.blur * w * torch.rand(whole, 1, generator=random) ** 2
        widest = float(sigma_B1.max())  # of the whole batch, so that the kernels do not depend on how it is divided
        images = _blurred(images, sigma_B1[first : first + n].to(device), max(1, math.ceil(2 * widest)))
    if how.noise:
        grain = torch.randn(1, 3, h, w, generator=random).to(device)
        images = images + grain * (255 * how.noise * share(1, 1, 1) ** 2)
    return images if images is images_B3HW else images.clamp(0, 255)


def _blurred(images_B3HW: Tensor, sigma_B1: Tensor, reach: int) -> Tensor:
    """Blur each image by a Gaussian of its own standard deviation, down one axis and then the other, all in pixels."""
    n, channels, h, w = images_B3HW.shape
    steps = torch.arange(-reach, reach + 1, device=images_B3HW.device)
    kernel_BK = torch.exp(-0.5 * (steps / sigma_B1.clamp(min=1e-2)) ** 2)
    kernel_BK = kernel_BK / kernel_BK.sum(dim=1, keepdim=True)
    flat = images_B3HW.reshape(1, n * channels, h, w)
    for shape, pad in (((-1, 1), (0, 0, reach, reach)), ((1, -1), (reach, reach, 0, 0))):
        kernels = kernel_BK.repeat_interleave(channels, dim=0).reshape(n * channels, 1, *shape)
        flat = F.conv2d(F.pad(flat, pad, mode="replicate"), kernels, groups=n * channels)
    return flat.reshape(n, channels, h, w)
