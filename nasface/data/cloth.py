"""Cloth on faces: its looks, and how it is painted onto crops in the light of their photographs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CELL = 4  # pixels; the distance to an outline is computed on this coarse grid and interpolated
_EDGE_WIDTH = 1 / 150  # of the crop
_SHADOW = 0.06  # how far the shadow of cloth falls, in distances from eyes to chin

# Colour (RGB) of a cloth, and 1 if it is a surgical mask with pleats. None has the colour of skin.
_CLOTHS = (
    (152, 198, 226, 1), (236, 239, 242, 1), (160, 206, 222, 1), (230, 234, 236, 1), (176, 214, 196, 1),
    (30, 30, 34, 0), (40, 40, 44, 0), (228, 230, 234, 0), (30, 46, 98, 0), (20, 92, 84, 0),
    (96, 100, 110, 0), (92, 44, 128, 0), (60, 120, 180, 0), (44, 110, 52, 0), (140, 20, 60, 0),
)  # fmt: skip
_SURGICAL = 5  # the first of them are surgical
_PATTERNS = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0))
LOOKS = 10  # number of random numbers for the looks of a cloth


class Cloth(NamedTuple):
    """A piece of cloth on each of N faces."""

    outline_NV2: Tensor
    colours_N23: Tensor  # of the background and of the pattern
    pattern_N3: Tensor  # weights of stripes, stripes across and dots
    wave_N2: Tensor  # of the pattern: angle, and waves per distance between the eyes
    phase_N3: Tensor  # of the wrinkles
    pleated_N1: Tensor
    lit_N2: Tensor  # from which side it is lit, and how brightly


class Masks(NamedTuple):
    """What N faces wear, in pixels of the crop. The axes u and v run along the eyes and down to the chin."""

    base_N2: Tensor  # base of the nose, where u = v = 0
    across_N2: Tensor  # gradient of u
    down_N2: Tensor  # gradient of v
    straps_NS22: Tensor
    layers: tuple[Cloth, ...]

    def to(self, device: torch.device) -> Masks:
        """Return the same in float32 on a device."""
        layers = (Cloth(*(t.float().to(device) for t in layer)) for layer in self.layers)
        base, across, down, straps = (t.float().to(device) for t in self[:-1])
        return Masks(base, across, down, straps, tuple(layers))


def cut(outline_NV2: Tensor, draws: Tensor, surgical: bool) -> Cloth:
    """Return cloth with an outline; random numbers from 0 to 1, at least LOOKS per face, decide its looks."""
    cloths = torch.tensor(_CLOTHS, dtype=torch.float64)
    dyed = cloths[_SURGICAL:]

    def chosen(number: int, of: Tensor) -> Tensor:
        return of[(draws[:, number] * len(of)).long()]

    ground, second = chosen(0, cloths if surgical else dyed), chosen(1, dyed)
    pleated = ground[:, 3:]
    return Cloth(
        outline_NV2=outline_NV2,
        colours_N23=torch.stack((ground, second), dim=1)[..., :3],
        pattern_N3=chosen(2, torch.tensor(_PATTERNS, dtype=torch.float64)) * (1 - pleated),
        wave_N2=torch.stack((draws[:, 3] * math.pi, 4 + 6 * draws[:, 4]), dim=1),
        phase_N3=draws[:, 5:8] * 2 * math.pi,
        pleated_N1=pleated,
        lit_N2=torch.stack((draws[:, 8] - 0.5, 0.85 + 0.25 * draws[:, 9]), dim=1),
    )


def paint(images_NHWC: Tensor, masks: Masks) -> None:
    """Draw straps and layers on uint8 crops, in place. The side of the crops must be a multiple of CELL."""
    size = images_NHWC.shape[1]
    rows_NH, columns_NW = (images_NHWC.amax((axis, 3)) > 0 for axis in (2, 1))  # inside the photograph
    plane_N3, tint_N1 = _light(images_NHWC, masks)
    ambient, *slopes = plane_N3[..., None, None].unbind(1)
    unit_N1 = 1 / masks.down_N2.norm(dim=1, keepdim=True)
    face = torch.arange(len(images_NHWC), device=images_NHWC.device)[:, None, None]
    for layer in masks.layers:
        tied = layer is masks.layers[0]
        ends_NP2 = torch.cat((layer.outline_NV2, masks.straps_NS22.flatten(1, 2)), 1) if tied else layer.outline_NV2
        x_NW, y_NH = _window(ends_NP2, _SHADOW * unit_N1 + 2 * CELL, size)
        shown = (rows_NH.gather(1, y_NH)[:, :, None] & columns_NW.gather(1, x_NW)[:, None]).float()
        dx, dy = x_NW - masks.base_N2[:, :1], y_NH - masks.base_N2[:, 1:]
        u, v = ((dx * to[:, :1])[:, None] + (dy * to[:, 1:])[:, :, None] for to in (masks.across_N2, masks.down_N2))
        light = (ambient + slopes[0] * u + slopes[1] * v).clamp(0.3, 1.3)[:, None]
        depth = _depth(layer.outline_NV2, x_NW, y_NH)
        opaque = shown * (0.5 + depth / max(1.0, _EDGE_WIDTH * size)).clamp(0, 1)
        depth = depth / unit_N1[..., None]
        shadow = shown * 0.4 * (1 + depth / _SHADOW).clamp(0, 1).square()
        cloth = _lit(_woven(layer, u, v, depth.clamp(min=0)), light, tint_N1)

        place = (face, y_NH[:, :, None], x_NW[:, None])
        pixels = images_NHWC[place].permute(0, 3, 1, 2).float()
        if tied:
            colour = torch.where(layer.pleated_N1 > 0, 215.0, layer.colours_N23[:, 0])[..., None, None]
            strap = shown * _straps_at(masks.straps_NS22, x_NW, y_NH, 0.012 * unit_N1)
            pixels = torch.lerp(pixels, _lit(colour, light, tint_N1), strap[:, None])
        pixels = torch.lerp(pixels * (1 - shadow)[:, None], cloth, opaque[:, None])
        images_NHWC[place] = pixels.round_().to(torch.uint8).permute(0, 2, 3, 1)


def _window(points_NP2: Tensor, margin_N1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return columns (N, W) and rows (N, H) around points, starting at a multiple of CELL.

    All windows are as large as the largest face needs. The colour of a pixel does not depend on where its window is.
    """
    cells = size // CELL
    low = ((points_NP2.amin(1) - margin_N1) / CELL).floor().clamp(0, cells - 1).long()
    high = ((points_NP2.amax(1) + margin_N1) / CELL).ceil().clamp(1, cells).long()
    most = (high - low).amax(0).clamp(min=1)
    start = CELL * torch.minimum(low, cells - most)
    across, down = (torch.arange(CELL * n, device=low.device) for n in most.tolist())
    return start[:, :1] + across, start[:, 1:] + down


def _lit(colour: Tensor, light: Tensor, tint_N1: Tensor) -> Tensor:
    """Return colours (N, 3, ...) in the light of a photograph, as saturated as the photograph is."""
    grey = colour.mean(1, keepdim=True)
    return (torch.lerp(grey, colour, tint_N1[..., None, None]) * light).clamp_(0, 255)


def _light(images_NHWC: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
    """Fit the light on a face, a plane (N, 3: at the nose, along u, along v), and the photograph's saturation (N, 1).

    A plane shows where the light comes from, but nothing of what the mask hides.
    """
    axis = torch.linspace(-0.5, 0.5, 16, device=images_NHWC.device)
    u, v = (t.flatten() for t in torch.meshgrid(axis, axis, indexing="ij"))
    right, down = (to[:, None] / to.square().sum(1)[:, None, None] for to in (masks.across_N2, masks.down_N2))
    places = masks.base_N2[:, None] + u[:, None] * right + v[:, None] * down
    x, y = places.round().long().clamp(0, images_NHWC.shape[1] - 1).unbind(2)
    seen = images_NHWC[torch.arange(len(x), device=axis.device)[:, None], y, x].float()
    fit_3P = torch.linalg.pinv(torch.stack((torch.ones_like(u), u, v), dim=1).cpu()).to(axis.device)
    plane = (seen.mean(2)[:, None] * fit_3P).sum(2)
    slopes = (plane[:, 1:] / plane[:, :1].clamp(min=20)).clamp(-0.6, 0.6)
    gain = (0.3 + plane[:, :1] / 200).clamp(0.35, 1) * masks.layers[0].lit_N2[:, 1:]
    tint = ((seen.amax(2) - seen.amin(2)).mean(1, keepdim=True) / 12).clamp(max=1)
    return gain * torch.cat((torch.ones_like(gain), slopes), dim=1), tint


def _straps_at(straps_NS22: Tensor, x_NW: Tensor, y_NH: Tensor, half_N1: Tensor) -> Tensor:
    """Return how much of each pixel the straps cover, (N, H, W); each is a line with a half width."""
    covered = torch.zeros((), device=x_NW.device)
    for ends in straps_NS22.unbind(1):
        way = ends[:, 1] - ends[:, 0]
        distance = _to_line(x_NW - ends[:, 0, :1], y_NH - ends[:, 0, 1:], way[:, :1], way[:, 1:]).sqrt_()
        covered = torch.maximum(covered, half_N1.clamp(min=0.6)[..., None] + 0.5 - distance)
    return covered.clamp(max=1)


def _depth(outline_NV2: Tensor, x_NW: Tensor, y_NH: Tensor) -> Tensor:
    """Return how deep inside polygons pixels lie, (N, H, W), negative outside; exact at every CELL-th pixel."""
    x, y = (line[:, ::CELL] + (CELL - 1) / 2 for line in (x_NW, y_NH))
    nearest = torch.full((), math.inf, device=outline_NV2.device)
    for start, end in _edges(outline_NV2):
        way = end - start
        nearest = torch.minimum(nearest, _to_line(x - start[:, :1], y - start[:, 1:], way[:, :1], way[:, 1:]))
    depth = torch.where(inside(outline_NV2, x, y), 1, -1) * nearest.sqrt()
    return F.interpolate(depth[:, None], scale_factor=CELL, mode="bilinear")[:, 0]


def inside(outline_NV2: Tensor, x_NW: Tensor, y_NH: Tensor) -> Tensor:
    """Tell which points of a grid lie inside polygons, bool (N, H, W).

    This is the non-zero winding rule, so that parts where a polygon overlaps itself are inside too.
    """
    winding = torch.zeros((), device=x_NW.device)
    for start, end in _edges(outline_NV2):
        way = end - start
        upwards = ((start[:, 1:] <= y_NH).float() - (end[:, 1:] <= y_NH).float())[:, :, None]
        side = (way[:, :1] * (y_NH - start[:, 1:]))[:, :, None] - (way[:, 1:] * (x_NW - start[:, :1]))[:, None]
        winding = winding + upwards * (side * upwards > 0)
    return winding != 0


def _edges(outline_NV2: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, edge by edge, the two ends of that edge in every polygon, each (N, 2)."""
    return zip(outline_NV2.unbind(1), outline_NV2.roll(-1, 1).unbind(1), strict=True)


def _to_line(dx_NW: Tensor, dy_NH: Tensor, ex_N1: Tensor, ey_N1: Tensor) -> Tensor:
    """Return the squared distance (N, H, W) of the points of a grid from the line segment between 0 and e."""
    squared = (ex_N1.square() + ey_N1.square()).clamp(min=1e-6)
    along = ((dx_NW * ex_N1 / squared)[:, None] + (dy_NH * ey_N1 / squared)[:, :, None]).clamp_(0, 1)
    x = torch.addcmul(dx_NW[:, None], along, ex_N1[..., None], value=-1)
    y = torch.addcmul(dy_NH[:, :, None], along, ey_N1[..., None], value=-1)
    return x.square_().addcmul_(y, y)


def _woven(cloth: Cloth, u: Tensor, v: Tensor, depth: Tensor) -> Tensor:
    """Return the colours (N, 3, H, W) of cloth with its pattern, folds and curvature, before the photograph's light."""

    def each(values_N: Tensor) -> Tensor:
        return values_N[:, None, None]

    bow, wrap = v + 0.12 * u.square(), u + 0.25 * u**3
    cos, sin = each(cloth.wave_N2[:, 0].cos()), each(cloth.wave_N2[:, 0].sin())
    waves, phase = each(2 * math.pi * cloth.wave_N2[:, 1]), cloth.phase_N3
    p, q = wrap * cos + bow * sin, bow * cos - wrap * sin
    stripes, across = torch.sin(waves * p), torch.sin(waves * q)
    kinds = torch.sigmoid(torch.stack((5 * stripes, 5 * across, 6 * stripes * across - 2), dim=1))
    pattern = (kinds * cloth.pattern_N3[..., None, None]).sum(1, keepdim=True)

    pleated, side = each(cloth.pleated_N1[:, 0]), each(cloth.lit_N2[:, 0])
    pleat = (bow + 0.06) / 0.15
    below = pleat.frac()
    fold = (0.22 * torch.exp(-7 * below) - 0.06 * below) * ((pleat > 0) & (pleat < 3)) * (depth * 20).clamp(max=1)
    nose = torch.exp(-(u / 0.13).square() - ((v + 0.2) / 0.3).square())
    seam = 0.18 * (1 - pleated) * torch.exp(-(u / 0.015).square()) * (v > -0.5)
    wrinkles = torch.sin(9 * p + 2 * torch.sin(3 * q + each(phase[:, 0])) + each(phase[:, 1]))
    wrinkles = wrinkles + torch.sin(17 * q + 2 * torch.sin(5 * p + each(phase[:, 2])))
    hem = 0.13 * torch.exp(-((depth - 0.035) / 0.007).square()) + 0.25 * torch.exp(-depth / 0.012)
    shade = 1.03 + (0.5 * side - 0.5 * u) * u - 0.5 * (v - 0.3).clamp(min=0) + nose * (0.08 + 1.6 * side * u)
    shade = shade - pleated * fold - seam - hem + 0.03 * wrinkles
    ground, second = cloth.colours_N23[:, :, :, None, None].unbind(1)
    return torch.lerp(ground, second, pattern) * shade.clamp(min=0.15)[:, None]
