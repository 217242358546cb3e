"""The subject of a picture, its materials and light, and the shaded surface of the head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface.data.synthetic.head3d import head
from nasface.data.synthetic.paint import Floats, Rng, speckle
from nasface.data.synthetic.posed import Figure
from nasface.data.synthetic.smooth import bump, ramp

_SKINS = np.array(
    [
        (248, 216, 198), (240, 200, 174), (226, 180, 148), (206, 156, 120),
        (176, 126, 92), (138, 94, 66), (100, 66, 48), (72, 48, 38),
    ],
    float,
)  # fmt: skip
_HAIRS = np.array(
    [(24, 20, 20), (42, 30, 26), (70, 46, 32), (110, 72, 44), (158, 116, 70), (206, 170, 116), (150, 70, 36)],
    float,
)


@dataclass(frozen=True)
class Subject:
    """What is fixed before anything is painted.

    Attributes:
        figure: the head in its pose and place.
        yaw: in degrees; positive is to the viewer's right.
        flags: names of the attributes that hold, such as 'make-up'.
    """

    figure: Figure
    yaw: float
    flags: frozenset[str]


@dataclass(frozen=True)
class Light:
    """A directional light: unit vector towards it in the camera's frame, its colour and the ambient light's."""

    towards: Floats
    key: Floats
    ambient: Floats

    def on(self, normal: tuple[float, float, float]) -> Floats:
        """Return the light (3,) that a flat part with this normal reflects."""
        unit = np.asarray(normal) / np.linalg.norm(normal)
        lit: Floats = self.ambient + self.key * max(float(unit @ self.towards), 0.0)
        return lit

    @property
    def diffuse(self) -> Floats:
        """Light (3,) on rough materials such as hair."""
        mixed: Floats = self.ambient + 0.55 * self.key
        return mixed


@dataclass(frozen=True)
class Scene:
    """A subject with its materials and light, and the geometry that painting needs.

    Attributes:
        subject: who is painted.
        size: side of the picture in pixels.
        rng: source of all further choices.
        unit: one head unit in pixels.
        marks: projected curves (n, 2) by name.
        axes: a step of one head unit along the head's x axis, and along its y axis, in pixels (2,).
        light: the light on the scene.
        skin: colour (3,), 0 to 255.
        hair: colour (3,), 0 to 255.
        female: 0 to 1; decides hair, beard and lashes.
        age: 0 to 1; decides creases and grey hair.
    """

    subject: Subject
    size: int
    rng: Rng
    unit: float
    marks: dict[str, Floats]
    axes: tuple[Floats, Floats]
    light: Light
    skin: Floats
    hair: Floats
    female: float
    age: float

    @property
    def figure(self) -> Figure:
        """The subject's head."""
        return self.subject.figure

    def has(self, flag: str) -> bool:
        """Tell whether the subject has an attribute."""
        return flag in self.subject.flags

    def change(self, name: str) -> float:
        """Return a coefficient of the head model."""
        return float(self.figure.change_C[head().names.index(name)])

    def shift(self, x: float, y: float) -> Floats:
        """Convert a step in head units, in the head's own directions, to pixels (2,)."""
        step: Floats = self.axes[0] * x + self.axes[1] * y
        return step


def compose(subject: Subject, size: int, rng: Rng) -> Scene:
    """Choose materials and light."""
    figure = subject.figure
    camera = figure.camera
    tone = rng.beta(1.3, 1.7)
    skin = _pick(_SKINS, tone) * (1 + rng.normal(0, 0.025, 3))
    age, made_up = float(rng.random()), "make-up" in subject.flags
    hair = _pick(_HAIRS, rng.random() * (1 - min(1.6 * tone, 1.0)))
    grey = float(ramp(np.array(age), 0.65, 1.0)) * rng.random()
    return Scene(
        subject=subject,
        size=size,
        rng=rng,
        unit=camera.scale,
        marks={name: figure.marks_K2[rows] for name, rows in head().at.items()},
        axes=(camera.rotation_33[:2, 0] * camera.scale, camera.rotation_33[:2, 1] * camera.scale),
        light=_pick_light(rng, strong="illumination" in subject.flags),
        skin=skin,
        hair=hair * (1 - grey) + np.array([172.0, 170, 168]) * grey,
        female=0.85 if made_up else float(rng.random()),
        age=age,
    )


def _pick(table: Floats, share: float) -> Floats:
    """Interpolate a colour in a table, at a share (0 to 1) of its length."""
    place = share * (len(table) - 1)
    low = min(int(place), len(table) - 2)
    mixed: Floats = table[low] * (1 - (place - low)) + table[low + 1] * (place - low)
    return mixed


def _pick_light(rng: Rng, *, strong: bool) -> Light:
    """Choose soft light from the front, or else hard, dim, glaring or coloured light."""
    warm = rng.normal(0, 0.05)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    side, up = rng.normal(0, 0.7), rng.uniform(-0.1, 1.2)
    ambient, gain = rng.uniform(0.3, 0.62), rng.uniform(0.85, 1.1)
    if strong:
        side, up = float(rng.choice((-1, 1))) * rng.uniform(0.4, 2.6), rng.uniform(-0.9, 1.6)
        kind = int(rng.integers(0, 4))
        ambient = (rng.uniform(0.08, 0.25), 0.4, 0.5, 0.3)[kind]
        gain = (1.1, rng.uniform(0.36, 0.55), rng.uniform(1.25, 1.45), 0.95)[kind]
        if kind == 3:
            tint = tint * rng.uniform(0.6, 1.3, 3)
    towards = np.array([side, -up, 1.0])
    towards /= np.linalg.norm(towards)
    return Light(towards, (1.08 - ambient) * gain * tint, ambient * gain * (0.4 + 0.6 * tint))


@dataclass(frozen=True)
class Surface:
    """The shaded head.

    Attributes:
        skin: RGB picture (size, size), of which only the part inside the face's outline matters.
        light_HW3: light on the surface at half resolution.
        skirt_ST2: the projected skirt.
    """

    skin: Image.Image
    light_HW3: NDArray[np.float32]
    skirt_ST2: Floats

    def light_at(self, point: Floats) -> Floats:
        """Return the light (3,) on the surface around a pixel."""
        last = len(self.light_HW3) - 1
        x, y = (min(max(int(v / 2), 0), last) for v in point.tolist())
        light: Floats = self.light_HW3[y, x]
        return light

    def light_picture(self, size: int, colour: Floats) -> Image.Image:
        """Return a picture (size, size) of the surface in one plain colour."""
        lit = np.clip(self.light_HW3 * colour.astype(np.float32), 0, 255).astype(np.uint8)
        return _enlarge(lit, size)


@dataclass(frozen=True)
class _Masks:
    """Weights (V,) of the points on the surface; V counts the points of the grid, then those of the skirt."""

    hollow: NDArray[np.float32]  # how much light reaches the spot
    red: NDArray[np.float32]
    beard: NDArray[np.float32]
    goatee: NDArray[np.float32]
    circles: NDArray[np.float32]
    scalp: NDArray[np.float32]
    skirt_sign: float  # makes the skirt's normals point outwards


@lru_cache(maxsize=1)
def _masks() -> _Masks:
    model = head()
    tall, strip = model.plane_HW2.shape[0] * model.plane_HW2.shape[1], model.skirt_ST3.astype(float)
    skirt_xy = np.broadcast_to(strip[:, :1, :2], (*strip.shape[:2], 2))
    xy = np.concatenate([model.plane_HW2.reshape(-1, 2), skirt_xy.reshape(-1, 2)])
    x, y = np.abs(xy[:, 0]), xy[:, 1]
    hollow = 1 - 0.30 * bump(xy, 0.24, -0.04, 0.09, 0.05, both=True)
    hollow *= 1 - 0.14 * bump(xy, 0.37, -0.07, 0.14, 0.03, both=True)
    hollow *= 1 - 0.45 * bump(xy, 0.0, 0.535, 0.13, 0.025)
    hollow *= 1 - 0.28 * bump(xy, 0.185, 0.49, 0.022, 0.04, both=True)
    hollow *= 1 - 0.25 * bump(xy, 0.0, 0.925, 0.16, 0.03)
    hollow *= 1 - 0.22 * bump(xy, 0.33, 0.765, 0.03, 0.03, both=True)
    under_jaw = ramp(skirt_xy[..., 1], 0.2, 0.9) * ramp(np.linspace(0, 1, strip.shape[1]), 0.0, 0.7)
    hollow[tall:] *= 1 - 0.45 * under_jaw.ravel()
    red = bump(xy, 0.46, 0.36, 0.17, 0.15, both=True) + 0.8 * bump(xy, 0.0, 0.43, 0.11, 0.07)
    beard = ramp(y, 0.62, 0.85) * ramp(np.hypot(x / 0.8, (y - 0.35) / 0.95), 0.42, 0.6)
    beard = np.maximum(beard, 0.8 * ramp(x, 0.66, 0.82) * ramp(y, 0.0, 0.5))
    beard = np.maximum(beard, bump(xy, 0.0, 0.635, 0.24, 0.045) * ramp(y, 0.54, 0.62))
    scalp = np.zeros(len(xy))
    scalp[tall:] = 1 - ramp(skirt_xy[..., 1], -0.15, 0.05).ravel()
    edges = np.roll(strip, -1, 0) - np.roll(strip, 1, 0), np.gradient(strip, axis=1)
    outward = np.sum(np.cross(*edges)[:, 3] * (strip[:, 3] - (0.0, 0.2, 0.3)))
    return _Masks(
        hollow=hollow.astype(np.float32),
        red=(red + 0.3 * bump(xy, 0.0, 1.1, 0.2, 0.1)).astype(np.float32),
        beard=np.clip(beard, 0, 1).astype(np.float32),
        goatee=np.clip(beard * (1 - ramp(x, 0.22, 0.42)), 0, 1).astype(np.float32),
        circles=bump(xy, 0.33, 0.075, 0.12, 0.035, both=True).astype(np.float32),
        scalp=scalp.astype(np.float32),
        skirt_sign=float(np.sign(outward)),
    )


def shade(scene: Scene, *, bald: bool) -> Surface:
    """Shade the head: points of the surface are lit, then splatted at half resolution with a depth test."""
    camera = scene.figure.camera
    # The coordinates come first, so that each step runs over long contiguous rows.
    grid, skirt = (np.ascontiguousarray(camera.turn(p).transpose(2, 0, 1)) for p in _changed(scene))
    points = np.concatenate([grid.reshape(3, -1), skirt.reshape(3, -1)], axis=1)
    normal = _normals(grid, skirt)
    colour, received = _lit(scene, normal, bald)
    half = (scene.size + 1) // 2
    zoom = np.float32(camera.scale * camera.distance) / (np.float32(camera.distance) - points[2])
    flat_x, flat_y = (points[k] * zoom + np.float32(camera.shift[k]) for k in range(2))
    column, row = ((flat_x + 0.5) * 0.5).astype(np.int32), ((flat_y + 0.5) * 0.5).astype(np.int32)
    inside = (flat_x > 0) & (flat_y > 0) & (column < half) & (row < half) & (normal[2] > -0.15)
    kept = np.flatnonzero(inside)
    place, depth = (row * half + column)[kept], points[2, kept]
    # A radix sort of coarse depths; the nearest point is written last and wins.
    order = np.argsort((depth * 4000).astype(np.int16), kind="stable")
    nearest = np.full(half * half, -9, np.float32)
    nearest[place[order]] = depth[order]
    front = depth > nearest[place] - np.float32(0.10)
    kept, place = kept[front], place[front]
    layers = np.concatenate([colour, received])[:, kept]
    total = np.empty((7, half * half), np.float32)
    for k in range(6):
        total[k] = np.bincount(place, layers[k], half * half)
    total[6] = np.bincount(place, minlength=half * half)
    total = _soften(total.reshape(7, half, half))
    # A trace of the mean fills pixels that no point has reached.
    mean = layers.mean(axis=1) if len(kept) else np.ones(6, np.float32)
    filled = (total[:6] + 1e-3 * mean[:, None, None]) * (1 / (total[6] + np.float32(1e-3)))
    small = np.clip(filled[:3], 0, 255).astype(np.uint8).transpose(1, 2, 0)
    grain = float(scene.rng.uniform(0.5, 2.4)) * (0.6 + 0.8 * scene.age) * (0.3 + 0.7 * scene.skin.mean() / 200)
    skin = speckle(_enlarge(small, scene.size), "skin", grain, scene.rng)
    skirt_flat = np.stack([flat_x, flat_y], axis=-1)[grid[0].size :].reshape(*skirt.shape[1:], 2)
    return Surface(skin, filled[3:].transpose(1, 2, 0), skirt_flat.astype(float))


def _changed(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return head().surface(scene.figure.change_C)


def _normals(grid_3HW: Floats, skirt_3ST: Floats) -> Floats:
    """Return the unit normals (3, V) of grid and skirt."""
    across, down = np.empty_like(grid_3HW), np.empty_like(grid_3HW)
    np.subtract(grid_3HW[:, :, 2:], grid_3HW[:, :, :-2], out=across[:, :, 1:-1])
    across[:, :, 0], across[:, :, -1] = across[:, :, 1], across[:, :, -2]
    np.subtract(grid_3HW[:, 2:], grid_3HW[:, :-2], out=down[:, 1:-1])
    down[:, 0], down[:, -1] = down[:, 1], down[:, -2]
    around = np.roll(skirt_3ST, -1, 1) - np.roll(skirt_3ST, 1, 1)
    back = np.empty_like(skirt_3ST)
    back[:, :, 1:-1] = skirt_3ST[:, :, 2:] - skirt_3ST[:, :, :-2]
    back[:, :, 0], back[:, :, -1] = back[:, :, 1], back[:, :, -2]
    parts = _cross(across, down).reshape(3, -1), _masks().skirt_sign * _cross(around, back).reshape(3, -1)
    normal = np.concatenate(parts, axis=1)
    normal /= np.sqrt(np.einsum("dv,dv->v", normal, normal)) + np.float32(1e-9)
    return normal


def _cross(a: Floats, b: Floats) -> Floats:
    """Return the cross product (3, ...) along the first axis."""
    product = np.empty_like(a)
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        product[k] = a[i] * b[j] - a[j] * b[i]
    return product


def _lit(scene: Scene, normal_3V: Floats, bald: bool) -> tuple[Floats, Floats]:
    """Return the reflected colours (3, V), 0 to 255, and the received light (3, V)."""
    masks, light = _masks(), scene.light
    facing = light.towards.astype(np.float32) @ normal_3V
    halfway = light.towards + np.array([0.0, 0.0, 1.0])
    gloss = np.maximum((halfway / np.linalg.norm(halfway)).astype(np.float32) @ normal_3V, 0)
    gloss = gloss * gloss
    gloss = (gloss * gloss * gloss) ** 3
    albedo = _skin_colours(scene, bald)
    received = np.empty_like(normal_3V)
    colour = np.empty_like(normal_3V)
    shine = scene.rng.uniform(5, 42)
    # Inside the skin, light spreads past the boundary of the shadow; red spreads farthest.
    for k, creep in enumerate((0.30, 0.16, 0.10)):
        lit = np.maximum(facing + np.float32(creep), 0) * np.float32(light.key[k] / (1 + creep))
        received[k] = (lit + np.float32(light.ambient[k])) * masks.hollow
        colour[k] = albedo[k] * received[k] + gloss * np.float32(shine * light.key[k])
    return colour, received


def _skin_colours(scene: Scene, bald: bool) -> Floats:
    """Return the albedo (3, V), with flushed cheeks, circles under the eyes, beard and scalp."""
    rng, masks = scene.rng, _masks()
    flush = float(rng.uniform(0.02, 0.16)) * scene.skin.mean() / 200
    dark = 1 - masks.circles * np.float32(rng.uniform(0, 0.22))
    stubble = 0.0
    if scene.female < 0.5 and rng.random() < 0.75:
        stubble = rng.uniform(0.7, 0.95) if rng.random() < 0.3 else rng.uniform(0.0, 0.55)
    grown = masks.goatee if rng.random() < 0.35 else masks.beard
    colour = np.empty((3, len(dark)), np.float32)
    for k, share in enumerate((0.05, 1.0, 0.8)):
        plain = np.float32(scene.skin[k]) * dark * (1 - masks.red * np.float32(flush * share))
        if stubble:
            beard = np.float32(scene.hair[k] * 0.75 + scene.skin[k] * 0.12)
            plain += (beard - plain) * (grown * np.float32(stubble))
        colour[k] = plain if bald else plain + (np.float32(0.8 * scene.hair[k]) - plain) * masks.scalp
    return colour


def _soften(layers_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a 3x3 binomial blur, which joins the splats and reaches one pixel past the outline."""
    soft = np.zeros_like(layers_CHW)
    tall = layers_CHW * 2
    tall[:, 1:] += layers_CHW[:, :-1]
    tall[:, :-1] += layers_CHW[:, 1:]
    soft += 2 * tall
    soft[:, :, 1:] += tall[:, :, :-1]
    soft[:, :, :-1] += tall[:, :, 1:]
    return soft


def _enlarge(small_HW3: NDArray[np.uint8], size: int) -> Image.Image:
    """Enlarge a half-resolution picture to full size."""
    picture = Image.fromarray(np.ascontiguousarray(small_HW3))
    big = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BILINEAR)
    return big if big.width == size else big.crop((0, 0, size, size))
