"""The heatmap task: Gaussian targets, the loss, and decoding to landmarks, all batched and on any device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nasface.errors import RecipeError, did_you_mean
from nasface.settings import Decoder as Decoder
from nasface.settings import HeatmapLoss as HeatmapLoss
from nasface.step import Batch

TEMPERATURE = 10.0  # of the soft-argmax; sharpens heatmaps, whose peaks are about 1


def to_cells(landmarks_BL2: Tensor, stride: float) -> Tensor:
    """Convert input pixels to heatmap cells: the centre of cell i is at (i + 0.5) * stride - 0.5 pixels."""
    return (landmarks_BL2 + 0.5) / stride - 0.5


def to_pixels(cells_BL2: Tensor, stride: float) -> Tensor:
    """Convert heatmap cells to input pixels, the inverse of `to_cells`."""
    return (cells_BL2 + 0.5) * stride - 0.5


def targets(landmarks_BL2: Tensor, size_hw: tuple[int, int], stride: float, sigma: float) -> Tensor:
    """Draw a Gaussian with peak 1 at the sub-cell position of every landmark.

    Args:
        landmarks_BL2: x and y in input pixels.
        size_hw: heatmap size in cells.
        stride: input pixels per cell.
        sigma: standard deviation of the Gaussians, in cells.

    Returns:
        The heatmaps (B, L, h, w).
    """
    cells = to_cells(landmarks_BL2, stride)

    def bell(centre_BL: Tensor, length: int) -> Tensor:
        offset = torch.arange(length, device=cells.device, dtype=cells.dtype) - centre_BL[..., None]
        return torch.exp(-offset.square() / (2 * sigma**2))

    # A two-dimensional Gaussian is the outer product of two one-dimensional ones, which need h + w exponentials only.
    return bell(cells[..., 1], size_hw[0])[..., :, None] * bell(cells[..., 0], size_hw[1])[..., None, :]


def adaptive_wing(heatmaps_BLhw: Tensor, goal_BLhw: Tensor) -> Tensor:
    """Return the Adaptive Wing loss, the mean over samples, landmarks and cells (Wang et al. 2019).

    Near a landmark, its gradient hardly fades where the heatmap is nearly right; in the background, it does. Cells in
    which the target is at least 0.2 weigh 11 times as much as others. Wang et al. widen this region by one cell, which
    is left out here.

    Args:
        heatmaps_BLhw: predicted heatmaps.
        goal_BLhw: targets, without gradient; the shape of the loss follows them from 0 to 1.
    """
    loss: Tensor = _AdaptiveWing.apply(heatmaps_BLhw, goal_BLhw)  # type: ignore[no-untyped-call]
    return loss


class _AdaptiveWing(torch.autograd.Function):
    """The loss and its gradient in one pass: autograd takes three times as long (benchmarks/losses.py)."""

    @staticmethod
    def forward(ctx: Any, heatmaps: Tensor, goal: Tensor) -> Tensor:
        # With an error e, a target y and the constants of Wang et al., the loss of a cell is 14 ln(1 + e^(2.1 - y)) up
        # to an error of 0.5, where a line goes on with the same slope.
        difference = heatmaps - goal
        error = difference.abs()
        inner = error.clamp(1e-12, 0.5)
        exponent = 2.1 - goal.clamp(0, 1)
        power = inner.log().mul_(exponent).exp_()
        slope = exponent.mul_(power).div_(torch.addcmul(inner, inner, power))
        loss = power.log1p_().addcmul_(slope, error.sub_(inner))
        weight = torch.where(goal >= 0.2, 154.0, 14.0)
        ctx.save_for_backward(slope.mul_(weight).mul_(difference.sign_()))
        return loss.mul_(weight).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * (factor / gradient.numel()), None


def heatmap_loss(
    heatmaps_BLhw: Tensor, landmarks_BL2: Tensor, input_size: int, sigma: float, loss: HeatmapLoss = "mse"
) -> Tensor:
    """Return a loss between heatmaps and the Gaussian targets of these landmarks, see `LOSSES`."""
    h, w = heatmaps_BLhw.shape[-2:]
    goal = targets(landmarks_BL2, (h, w), input_size / w, sigma)
    return LOSSES[loss](heatmaps_BLhw.float(), goal)  # in float32 under autocast too


LOSSES: dict[HeatmapLoss, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "adaptive_wing": adaptive_wing}
"""Losses of heatmaps (B, L, h, w) and targets; 'mse' is equation 2 of SD-HRNet."""


@dataclass(frozen=True)
class HeatmapTask:
    """Heatmap regression, as a loss and as the step of a phase.

    Attributes:
        input_size: side of the square input in pixels.
        sigma: standard deviation of the Gaussian targets, in cells.
        weight: factor of the loss.
        kind: the loss, see `LOSSES`.
    """

    input_size: int
    sigma: float = 1.5
    weight: float = 1.0
    kind: HeatmapLoss = "mse"

    def loss(self, heatmaps_BLhw: Tensor, batch: Batch) -> Tensor:
        """Return the weighted loss of the heatmaps of a batch."""
        return self.weight * self._unweighted(heatmaps_BLhw, batch)

    def step(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted loss of the network's heatmaps, and the unweighted one by its name, such as 'mse'."""
        found = self._unweighted(net(batch.images_B3HW), batch)
        return {"loss": self.weight * found, self.kind: found}

    def _unweighted(self, heatmaps_BLhw: Tensor, batch: Batch) -> Tensor:
        return heatmap_loss(heatmaps_BLhw, batch.landmarks_BL2, self.input_size, self.sigma, self.kind)


def decode(heatmaps_BLhw: Tensor, input_size: int, decoder: Decoder = "quarter", sigma: float = 1.5) -> Tensor:
    """Decode heatmaps to landmarks.

    Args:
        heatmaps_BLhw: heatmaps of any float type.
        input_size: width of the input in pixels.
        decoder: 'quarter' (the maximum, shifted by a quarter of a cell towards the higher neighbour, as is usual in the
            field), 'dark' (Zhang et al. 2020: Gaussian smoothing, then a second-order Taylor step in the logarithm),
            'soft' (the expectation under a softmax around the maximum) or 'centroid' (the centre of mass of the cubed
            heatmap around the maximum).
        sigma: standard deviation of the training targets, in cells; used by 'dark' and 'centroid'.

    Returns:
        The landmarks (B, L, 2), x and y in input pixels.

    Raises:
        RecipeError: if the decoder is unknown.
    """
    if decoder not in DECODERS:
        raise RecipeError(f"unknown decoder '{decoder}'; {did_you_mean(str(decoder), get_args(Decoder))}")
    heatmaps = heatmaps_BLhw.float()
    return to_pixels(DECODERS[decoder](heatmaps, sigma), input_size / heatmaps.shape[-1])


def _peak(heatmaps: Tensor) -> Tensor:
    """Return the integer x and y (B, L, 2) of the maximum of each heatmap."""
    y = heatmaps.amax(dim=3).argmax(dim=2)  # two steps, because torch does not vectorise argmax on the CPU
    row = heatmaps.gather(2, y[..., None, None].expand(-1, -1, 1, heatmaps.shape[3])).squeeze(2)
    return torch.stack((row.argmax(dim=2), y), dim=2)


def _around(heatmaps: Tensor, peak_BL2: Tensor, radius: int = 1) -> Tensor:
    """Return the cells (B, L, 2r+1, 2r+1) around each peak; outside the heatmap its border is repeated."""
    h, w = heatmaps.shape[-2:]
    offset = torch.arange(-radius, radius + 1, device=heatmaps.device)
    xs = (peak_BL2[..., 0, None] + offset).clamp(0, w - 1)
    ys = (peak_BL2[..., 1, None] + offset).clamp(0, h - 1)
    index = ys[..., :, None] * w + xs[..., None, :]
    return heatmaps.flatten(2).gather(2, index.flatten(2)).view_as(index)


def _quarter(heatmaps: Tensor, sigma: float) -> Tensor:
    peak = _peak(heatmaps)
    near = _around(heatmaps, peak)
    slope = torch.stack((near[..., 1, 2] - near[..., 1, 0], near[..., 2, 1] - near[..., 0, 1]), dim=2)
    size_xy = torch.tensor(heatmaps.shape[:-3:-1], device=peak.device)
    inside = (peak > 0) & (peak < size_xy - 1)  # on the border one neighbour is missing
    return peak + 0.25 * slope.sign() * inside


def _dark(heatmaps: Tensor, sigma: float) -> Tensor:
    peak = _peak(heatmaps)
    # Smooth only a window around the peak, because the Taylor step reads no more than 5 x 5 smoothed cells. The
    # kernel reaches 1.5 sigma to either side.
    reach = min(max(1, round(1.5 * sigma)), max(heatmaps.shape[-2:]))
    window = _around(heatmaps, peak, reach + 2)
    offset = torch.arange(-reach, reach + 1, device=heatmaps.device, dtype=heatmaps.dtype)
    bell = torch.exp(-offset.square() / (2 * sigma**2))
    kernel = (bell[:, None] * bell) / bell.sum() ** 2
    size = window.shape[-1]
    smooth = F.conv2d(window.reshape(-1, 1, size, size), kernel[None, None]).view(*window.shape[:2], 5, 5)
    # The logarithm of a Gaussian is a parabola, whose maximum is one Newton step away: -H^-1 g, with the gradient g and
    # the Hessian H by central differences at the peak (Zhang et al. 2020).
    log = smooth.clamp_min(1e-10).log()
    dx = 0.5 * (log[..., 2, 3] - log[..., 2, 1])
    dy = 0.5 * (log[..., 3, 2] - log[..., 1, 2])
    dxx = 0.25 * (log[..., 2, 4] - 2 * log[..., 2, 2] + log[..., 2, 0])
    dyy = 0.25 * (log[..., 4, 2] - 2 * log[..., 2, 2] + log[..., 0, 2])
    dxy = 0.25 * (log[..., 3, 3] - log[..., 1, 3] - log[..., 3, 1] + log[..., 1, 1])
    determinant = dxx * dyy - dxy.square()
    safe = determinant.abs().clamp_min(1e-8) * determinant.sign().where(determinant != 0, torch.ones_like(dx))
    step = -torch.stack((dyy * dx - dxy * dy, dxx * dy - dxy * dx), dim=2) / safe[..., None]
    size_xy = torch.tensor(heatmaps.shape[:-3:-1], device=peak.device)
    inside = ((peak > 1) & (peak < size_xy - 2)).all(dim=2, keepdim=True)
    sound = (
        inside & (determinant > 0)[..., None] & (dxx < 0)[..., None]
    )  # H is negative definite, and no derivative reads repeated cells
    return peak + torch.where(sound, step.clamp(-1, 1), torch.zeros_like(step))


def _soft(heatmaps: Tensor, sigma: float) -> Tensor:
    h, w = heatmaps.shape[-2:]
    peak = heatmaps.amax(dim=(2, 3), keepdim=True)
    # Without this mask, the small weights of the many cells far from the peak would pull towards the centre.
    near = heatmaps >= peak - 0.9 * peak.abs()
    weight = (TEMPERATURE * (heatmaps - peak)).exp_() * near
    columns, rows = weight.sum(dim=2), weight.sum(dim=3)
    total = columns.sum(dim=2)
    x = columns @ torch.arange(w, device=heatmaps.device, dtype=heatmaps.dtype) / total
    y = rows @ torch.arange(h, device=heatmaps.device, dtype=heatmaps.dtype) / total
    return torch.stack((x, y), dim=2)


def _centroid(heatmaps: Tensor, sigma: float) -> Tensor:
    h, w = heatmaps.shape[-2:]
    peak = _peak(heatmaps)
    # The cube of a Gaussian is one of sigma / sqrt(3): beyond 2 sigma there is nothing but noise.
    reach = min(math.ceil(2 * sigma), max(h, w))
    offset = torch.arange(-reach, reach + 1, device=heatmaps.device)
    xs, ys = (place[..., None] + offset for place in peak.unbind(2))
    inside = ((ys >= 0) & (ys < h))[..., :, None] & ((xs >= 0) & (xs < w))[..., None, :]
    mass = _around(heatmaps, peak, reach).clamp_min(0) ** 3 * inside
    columns, rows = mass.sum(dim=2), mass.sum(dim=3)
    moments = torch.stack((columns, rows), dim=2) @ offset.to(mass.dtype)
    return peak + moments / rows.sum(dim=2, keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)


DECODERS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "quarter": _quarter,
    "dark": _dark,
    "soft": _soft,
    "centroid": _centroid,
}
