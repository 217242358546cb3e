"""Painting for the synthetic faces: anti-aliased shapes on an image, noise textures, scenes and damage.

Coordinates are pixels with integers at pixel centres, as for landmarks. Small shapes are drawn on an
enlarged mask of their own and shrunk, which costs far less than enlarging the whole picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Floats: TypeAlias = NDArray[np.floating]
Rng: TypeAlias = np.random.Generator


class Canvas:
    """An RGB picture, and ways to paint polygons on it."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def mask(
        self, points: Floats, soft: float = 0.0, opacity: float = 1.0
    ) -> tuple[Image.Image, tuple[int, int]] | None:
        """Return the coverage of a polygon (n, 2) as a small grey image and its corner; None outside the frame."""
        margin = 2 + int(2.5 * soft)
        (low_x, low_y), (high_x, high_y) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        x0, y0 = max(int(low_x) - margin, 0), max(int(low_y) - margin, 0)
        x1 = min(int(high_x) + margin + 2, self.image.width)
        y1 = min(int(high_y) + margin + 2, self.image.height)
        value = round(255 * min(opacity, 1.0))
        if x1 <= x0 or y1 <= y0 or value <= 0:
            return None
        wide, tall = x1 - x0, y1 - y0
        over = 4 if wide * tall < 2500 and soft < 0.5 else 2
        big = Image.new("L", (wide * over, tall * over))
        ImageDraw.Draw(big).polygon(_flat(points, x0, y0, over), fill=value)
        small = big.reduce(over)
        if soft > 0:
            # A box blur is good enough, and three times as fast, where the blur is hardly visible.
            small = small.filter(ImageFilter.GaussianBlur(soft) if soft > 4 else ImageFilter.BoxBlur(1.3 * soft))
        return small, (x0, y0)

    def fill(self, points: Floats, colour: ArrayLike, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Paint a polygon in one colour (3,), 0 to 255; `soft` is the blur of its edge in pixels."""
        found = self.mask(points, soft, opacity)
        if found:
            self.image.paste(as_rgb(colour), found[1], found[0])

    def tint(self, points: Floats, factor: ArrayLike, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Multiply the pixels in a polygon by `factor` (3,), which keeps their shading."""
        found = self.mask(points, soft, opacity)
        if found:
            mask, (x, y) = found
            part = np.asarray(self.image.crop((x, y, x + mask.width, y + mask.height)), np.float32)
            self.image.paste(as_image(part * np.asarray(factor, np.float32)), (x, y), mask)

    def stroke(
        self,
        points: Floats,
        width: float | Sequence[float] | Floats,
        colour: ArrayLike,
        opacity: float = 1.0,
        soft: float = 0.0,
    ) -> None:
        """Paint a line (n, 2). The width in pixels is one number, or one per point."""
        self.fill(ribbon(points, width), colour, opacity, soft)

    def texture(self, points: Floats, picture: Image.Image, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Show a picture as large as the frame through a polygon."""
        found = self.mask(points, soft, opacity)
        if found:
            mask, (x, y) = found
            self.image.paste(picture.crop((x, y, x + mask.width, y + mask.height)), (x, y), mask)

    def hairs(self, lines_N22: Floats, width: float, colour: ArrayLike, opacity: float = 1.0) -> None:
        """Paint many straight lines of the same width and colour through one mask."""
        spots = lines_N22.reshape(-1, 2)
        (low_x, low_y), (high_x, high_y) = spots.min(axis=0).tolist(), spots.max(axis=0).tolist()
        x0, y0 = max(int(low_x) - 2, 0), max(int(low_y) - 2, 0)
        x1, y1 = min(int(high_x) + 4, self.image.width), min(int(high_y) + 4, self.image.height)
        if x1 <= x0 or y1 <= y0:
            return
        over = 2
        big = Image.new("L", ((x1 - x0) * over, (y1 - y0) * over))
        draw, thick = ImageDraw.Draw(big), max(1, round(width * over))
        value = round(255 * min(opacity, 1.0))
        flat = _flat(spots, x0, y0, over)
        for k in range(0, len(flat), 4):
            draw.line(flat[k : k + 4], fill=value, width=thick)
        self.image.paste(as_rgb(colour), (x0, y0), big.reduce(over))


class Patch:
    """A small picture, drawn at four times its size, for what lies under one mask (an eye, a mouth)."""

    over = 4

    def __init__(self, mask: Image.Image, corner: tuple[int, int], colour: ArrayLike) -> None:
        self.corner = corner
        self.image = Image.new("RGB", (mask.width * self.over, mask.height * self.over), as_rgb(colour))
        self._draw = ImageDraw.Draw(self.image)

    def fill(self, points: Floats, colour: ArrayLike) -> None:
        """Paint a polygon (n, 2), given in pixels of the whole picture."""
        self._draw.polygon(_flat(points, *self.corner, self.over), fill=as_rgb(colour))

    def veil(self, points: Floats, colour: ArrayLike, opacity: float) -> None:
        """Paint a translucent polygon (n, 2)."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(_flat(points, *self.corner, self.over), fill=round(255 * opacity))
        self.image.paste(as_rgb(colour), (0, 0), mask)

    def shrink(self) -> Image.Image:
        """Return the picture at its true size."""
        return self.image.reduce(self.over)


def _flat(points: Floats, x0: int, y0: int, over: int) -> list[float]:
    """Return points (n, 2) as x, y, x, y, ... on an enlarged picture with its corner at (x0, y0)."""
    flat = np.multiply(points, over, dtype=float)
    flat[:, 0] += (0.5 - x0) * over - 0.5
    flat[:, 1] += (0.5 - y0) * over - 0.5
    coordinates: list[float] = flat.ravel().tolist()
    return coordinates


def coverage(size: int, polygons: Sequence[Floats]) -> Image.Image:
    """Return a grey picture (size, size) of the union of polygons."""
    big = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(big)
    for points in polygons:
        draw.polygon(_flat(points, 0, 0, 2), fill=255)
    return big.reduce(2)


def as_rgb(colour: ArrayLike) -> tuple[int, int, int]:
    """Return a colour (3,) as clipped integers."""
    r, g, b = np.asarray(colour).tolist()
    return min(max(round(r), 0), 255), min(max(round(g), 0), 255), min(max(round(b), 0), 255)


def as_image(pixels: Floats) -> Image.Image:
    """Turn float pixels (h, w, 3), 0 to 255, into a picture."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def ribbon(points: Floats, width: float | Sequence[float] | Floats) -> Floats:
    """Return the outline (2n, 2) of a line (n, 2). The width is one number, or one per point."""
    across = np.empty((len(points), 2))
    across[1:-1] = points[2:, ::-1] - points[:-2, ::-1]
    across[0], across[-1] = points[1, ::-1] - points[0, ::-1], points[-1, ::-1] - points[-2, ::-1]
    across[:, 0] *= -1
    half = across * (np.asarray(width) / (2 * np.sqrt(np.einsum("nd,nd->n", across, across)) + 1e-6))[:, None]
    outline: Floats = np.concatenate([points + half, (points - half)[::-1]])
    return outline


def taper(count: int, width: float, ends: float = 0.25) -> Floats:
    """Return the widths (count,) of a line that tapers at both ends."""
    widths: Floats = width * _bow(count, ends)
    return widths


@lru_cache(maxsize=64)
def _bow(count: int, ends: float) -> Floats:
    bow: Floats = ends + (1 - ends) * np.sin(np.linspace(0.06, np.pi - 0.06, count))
    return bow


def ellipse(centre: ArrayLike, first: ArrayLike, second: ArrayLike, count: int = 24) -> Floats:
    """Return the outline (count, 2) of an ellipse with two conjugate half axes (2,)."""
    outline: Floats = np.asarray(centre) + circle(count) @ np.array([first, second])
    return outline


@lru_cache(maxsize=16)
def circle(count: int) -> Floats:
    """Return points (count, 2) on the unit circle."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], axis=-1)


@lru_cache(maxsize=16)
def _noise(kind: str, size: int) -> Image.Image:
    """Return noise (2 * size, 2 * size) with mean 128 and deviation 32, from which windows are cropped."""
    rng = np.random.Generator(np.random.PCG64([7, ("cloud", "fine", "skin", "strand").index(kind)]))
    side, unit = 2 * size, size / 192

    def smooth(across: float, down: float) -> NDArray[np.float32]:
        shape = max(2, int(side / down)), max(2, int(side / across))
        raw = Image.fromarray(rng.standard_normal(shape).astype(np.float32))
        return np.asarray(raw.resize((side, side), Image.Resampling.BICUBIC))

    if kind == "fine":
        field = smooth(1.2, 1.2)
    elif kind == "skin":
        field = smooth(1.0, 1.0) + 1.2 * smooth(2.2 * unit, 2.2 * unit) + 1.5 * smooth(9 * unit, 9 * unit)
    elif kind == "cloud":
        field = np.sum([2.0**k * smooth(2.0**k * 2 * unit, 2.0**k * 2 * unit) for k in range(5)], axis=0)
    else:
        field = smooth(1.3, 16 * unit) + 1.3 * smooth(2.6 * unit, 30 * unit) + smooth(7 * unit, 40 * unit)
    scaled = (field - field.mean()) / field.std() * 32 + 128
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _window(kind: str, size: int, rng: Rng) -> Image.Image:
    """Return a random window (size, size) of a noise texture: 'cloud', 'fine', 'skin' or 'strand'."""
    x, y = rng.integers(0, size, 2).tolist()
    return _noise(kind, size).crop((x, y, x + size, y + size))


def speckle(image: Image.Image, kind: str, strength: float, rng: Rng) -> Image.Image:
    """Add grey noise with a standard deviation of `strength` to a picture."""
    grain = _window(kind, image.width, rng).point(_scaling(round(8 * strength)))
    return ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), 1, -128)


@lru_cache(maxsize=256)
def _scaling(eighths: int) -> list[int]:
    """Return a table that rescales noise of deviation 32 around 128."""
    return [min(max(round(128 + (v - 128) / 256 * eighths), 0), 255) for v in range(256)]


def weave(size: int, kind: str, colour: ArrayLike, contrast: float, rng: Rng) -> Image.Image:
    """Return a texture (size, size) in shades of one colour (3,); `contrast` is their relative deviation."""
    window = _window(kind, size, rng)
    shades = 1 + (np.arange(256) - 128) / 32 * contrast
    bands = np.clip(np.outer(np.asarray(colour), shades), 0, 255).astype(int).tolist()
    return Image.merge("RGB", [window.point(band) for band in bands])


def random_colour(rng: Rng, dull: float = 0.5) -> Floats:
    """Return a random colour (3,); `dull` moves it towards grey."""
    colour = rng.uniform(10, 245, 3)
    mixed: Floats = colour * (1 - dull) + colour.mean() * dull
    return mixed


def background(size: int, rng: Rng) -> Image.Image:
    """Paint a cluttered scene of gradients, shapes, patterns and noise, often out of focus."""
    side = size // int(rng.choice((1, 1, 2, 3, 4, 6)))  # what is drawn small and enlarged looks out of focus
    cells = int(rng.integers(2, 9))
    grid = random_colour(rng, rng.uniform(0.5, 1.0))
    grid = grid + rng.normal(0, rng.uniform(8, 50), (cells, cells, 1)) + rng.normal(0, 9, (cells, cells, 3))
    image = as_image(grid).resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 12))):
        colour = as_rgb(random_colour(rng, rng.uniform(0.2, 1.0)))
        centre, reach = rng.uniform(0, side, 2), rng.uniform(0.04, 0.35, 2) * side
        kind = rng.integers(0, 4)
        if kind == 0:
            draw.ellipse([*(centre - reach), *(centre + reach)], fill=colour)
        elif kind == 1:
            draw.rectangle([*(centre - reach), *(centre + reach * 2)], fill=colour)
        elif kind == 2:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
            corners = centre + np.stack([np.cos(angles), np.sin(angles)], -1) * reach
            draw.polygon(corners.ravel().tolist(), fill=colour)
        else:
            end = centre + rng.normal(0, side, 2)
            draw.line([*centre.tolist(), *end.tolist()], fill=colour, width=int(rng.integers(1, 9)))
    if rng.random() < 0.2:
        step, colour = float(rng.uniform(0.03, 0.15)) * side, as_rgb(random_colour(rng))
        lean = float(rng.uniform(-1, 1)) * side
        for start in np.arange(-side, 2 * side, step):
            draw.line([start, 0, start + lean, side], fill=colour, width=max(1, int(step / 3)))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = speckle(image, "cloud", rng.uniform(2, 14), rng)
    return image


def damage(image: Image.Image, rng: Rng, *, blurred: bool) -> NDArray[np.uint8]:
    """Do what cameras and file formats do to a picture: blur, colour, exposure, grain and compression.

    Args:
        image: the finished scene.
        rng: source of all choices.
        blurred: strong blur (defocus, motion or low resolution) instead of hardly any.
    """
    size = image.width
    unit = size / 192
    kind = rng.integers(0, 3)
    if not blurred:
        if kind == 0:
            image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 0.9)) * unit))
    elif kind == 0:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.6, 3.2)) * unit))
    elif kind == 1:
        small = max(8, int(size / rng.uniform(3.0, 5.5)))
        image = image.resize((small, small), Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC)
    else:
        image = _motion(image, float(rng.uniform(6, 13)) * unit, float(rng.uniform(0, np.pi)))
    contrast, level, shifts = rng.normal(1.0, 0.10), rng.normal(0, 8), rng.normal(0, 4, 3)
    rows = (np.arange(256) - 128) * contrast + 128 + level + shifts[:, None]
    image = image.point(np.clip(np.rint(rows), 0, 255).astype(int).ravel().tolist())
    if rng.random() < 0.06:
        image = image.convert("L").convert("RGB")
    strength = abs(rng.normal(0, 3))
    if strength > 1.5:
        image = speckle(image, "fine", strength, rng)
    if rng.random() < 0.35:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(25, 85)))
        image = Image.open(file)
    return np.array(image)


def _motion(image: Image.Image, length: float, angle: float) -> Image.Image:
    """Return the mean of the picture shifted along a line of `length` pixels."""
    pixels = np.asarray(image, np.float32)
    total = np.zeros_like(pixels)
    steps = np.linspace(-0.5, 0.5, 7) * length
    reach = int(np.ceil(length / 2))
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    tall, wide = pixels.shape[:2]
    for step in steps:
        x, y = (reach + round(step * f(angle)) for f in (np.cos, np.sin))
        total += padded[y : y + tall, x : x + wide]
    return as_image(total / len(steps))
