"""Paints one synthetic face: a shaded head surface under features drawn along the landmark curves.

The surface (`head3d`) is shaded at half resolution and splatted with a depth test; the visible outline cuts
it out. Eyes, brows, lips, nostrils and creases are polygons through the very curves the landmarks are read
off, so a feature is where its landmark says. Hair, ears, body, clutter and occluders surround it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface.data.head3d import Figure, Head, along_arcs, bump, head, ramp, spline
from nasface.data.paint import (
    Canvas,
    Floats,
    Patch,
    Rng,
    as_image,
    background,
    coverage,
    damage,
    ellipse,
    noise,
    random_colour,
    ribbon,
)

_SKINS = np.array(
    [
        (248, 216, 198),
        (240, 200, 174),
        (226, 180, 148),
        (206, 156, 120),
        (176, 126, 92),
        (138, 94, 66),
        (100, 66, 48),
        (72, 48, 38),
    ],
    float,
)
_HAIRS = np.array(
    [(24, 20, 20), (42, 30, 26), (70, 46, 32), (110, 72, 44), (158, 116, 70), (206, 170, 116), (150, 70, 36)],
    float,
)
_IRISES = np.array([(58, 36, 22), (84, 54, 30), (110, 84, 48), (84, 104, 76), (92, 122, 152), (120, 136, 148)])


@dataclass(frozen=True)
class Subject:
    """What is fixed before anything is painted.

    Attributes:
        figure: the head in its pose and place.
        yaw: in degrees, positive to the viewer's right.
        flags: names of the attributes that hold, such as 'make-up'.
    """

    figure: Figure
    yaw: float
    flags: frozenset[str]


@dataclass(frozen=True)
class _Light:
    """A directional light: unit vector towards it in the camera frame, its colour and the ambient one."""

    towards: Floats
    key: Floats
    ambient: Floats

    def on(self, normal: tuple[float, float, float]) -> Floats:
        """Light (3,) that a flat part with this normal reflects."""
        unit = np.asarray(normal) / np.linalg.norm(normal)
        lit: Floats = self.ambient + self.key * max(float(unit @ self.towards), 0.0)
        return lit


@dataclass
class _Scene:
    """The face being painted: geometry in pixels, materials, and the picture so far."""

    subject: Subject
    size: int
    rng: Rng
    unit: float  # pixels of one head unit
    marks: dict[str, Floats]  # projected curves by name
    arcs_AR2: Floats
    outline_A2: Floats  # the visible outline, closed
    reach_A: Floats  # where on its arc each outline point lies
    light: _Light
    skin: Floats
    hair: Floats
    axes: tuple[Floats, Floats]  # pixels of a step along the head's x and y axis
    female: float = 0.5
    age: float = 0.5
    # Set while the surface is shaded: the light on it (size, size, 3) and the projected skirt.
    shade: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    skirt_ST2: Floats = field(default_factory=lambda: np.zeros((0, 0, 2)))
    hair_HW3: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))

    def middle(self, *names: str) -> Floats:
        """Mean position (2,) of curves."""
        mean: Floats = np.concatenate([self.marks[n] for n in names]).mean(axis=0)
        return mean

    def shift(self, x: float, y: float) -> Floats:
        """Pixels (2,) of a step in head units in the head's own directions."""
        step: Floats = self.axes[0] * x + self.axes[1] * y
        return step

    def light_at(self, point: Floats) -> Floats:
        """Light (3,) on the surface around a pixel."""
        x, y = np.clip(np.rint(point).astype(int), 0, self.size - 1)
        return self.shade[y, x]


def render(subject: Subject, size: int, rng: Rng) -> NDArray[np.uint8]:
    """Paint a subject.

    Args:
        subject: geometry and attributes.
        size: width and height in pixels.
        rng: source of everything that is not geometry: materials, light, hair, scene, damage.

    Returns:
        RGB uint8 (size, size, 3).
    """
    scene, surface = _prepare(subject, size, rng)
    canvas = Canvas(background(size, rng))
    style = _hair_style(scene)
    scene.hair_HW3 = _hair_picture(scene)
    _paint_behind(canvas, scene, style)
    _paint_body(canvas, scene)
    near = "r" if subject.yaw < 0 else "l"  # the ear on the side turned to the camera
    turned = abs(subject.yaw) > 9
    if not style.over_ears:
        for side in "lr":
            if not turned or side != near:
                _paint_ear(canvas, scene, side)
    face = Canvas(surface)
    _paint_face(face, scene)
    canvas.image.paste(face.image, (0, 0), _face_mask(scene))
    if turned and not style.over_ears:
        _paint_ear(canvas, scene, near)
    _paint_hair(canvas, scene, style)
    if "occlusion" in subject.flags:
        _occlude(canvas, scene)
    return damage(canvas.image, rng, blurred="blur" in subject.flags)


# ---------------------------------------------------------------------------------------------- surface


def _prepare(subject: Subject, size: int, rng: Rng) -> tuple[_Scene, Image.Image]:
    """Materials, light and geometry of a scene, and the shaded head surface."""
    model, figure = head(), subject.figure
    camera = figure.camera
    tone = rng.beta(1.3, 1.7) * (len(_SKINS) - 1)
    skin = _pick(_SKINS, tone) * (1 + rng.normal(0, 0.025, 3))
    dark = min(tone / (len(_SKINS) - 1) * 1.6, 1.0)
    shade = rng.uniform(0, len(_HAIRS) - 1) * (1 - dark)
    age = float(rng.random())
    hair = _pick(_HAIRS, shade)
    grey = ramp(np.array(age), 0.65, 1.0) * rng.random()
    hair = hair * (1 - grey) + np.array([172.0, 170, 168]) * grey
    scene = _Scene(
        subject=subject,
        size=size,
        rng=rng,
        unit=camera.scale,
        marks={name: figure.marks_K2[rows] for name, rows in model.at.items()},
        arcs_AR2=figure.arcs_AR2,
        outline_A2=figure.outline_A2,
        reach_A=figure.reach_A,
        light=_pick_light(rng, strong="illumination" in subject.flags),
        skin=skin,
        hair=hair,
        axes=(camera.rotation_33[:2, 0] * camera.scale, camera.rotation_33[:2, 1] * camera.scale),
        female=0.85 if "make-up" in subject.flags else float(rng.random()),
        age=age,
    )
    return scene, _surface(scene, model)


def _pick(table: Floats, place: float) -> Floats:
    """A colour between the rows of a table."""
    low = min(int(place), len(table) - 2)
    mixed: Floats = table[low] * (1 - (place - low)) + table[low + 1] * (place - low)
    return mixed


def _pick_light(rng: Rng, *, strong: bool) -> _Light:
    warm = rng.normal(0, 0.05)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    if not strong:
        side, up, ambient = rng.normal(0, 0.55), rng.uniform(-0.1, 1.0), rng.uniform(0.42, 0.62)
        gain = rng.uniform(0.9, 1.08)
    else:
        side, up = rng.choice([-1, 1]) * rng.uniform(0.4, 2.6), rng.uniform(-0.9, 1.6)
        kind = rng.integers(0, 4)
        ambient, gain = (
            (rng.uniform(0.08, 0.25), 1.1),
            (0.35, rng.uniform(0.28, 0.5)),
            (0.6, rng.uniform(1.35, 1.65)),
            (0.3, 0.95),
        )[kind]
        if kind == 3:
            tint = tint * rng.uniform(0.6, 1.3, 3)
    towards = np.array([side, -up, 1.0])
    towards /= np.linalg.norm(towards)
    key = (1.08 - ambient) * gain * tint
    return _Light(towards, key, ambient * gain * (0.4 + 0.6 * tint))


@dataclass(frozen=True)
class _Masks:
    """Weights (V,) of the surface points for colour and shading; V counts grid then skirt points."""

    hollow: NDArray[np.float32]
    red: NDArray[np.float32]
    beard: NDArray[np.float32]
    circles: NDArray[np.float32]
    scalp: NDArray[np.float32]
    skirt_sign: float


_masks_cache: list[_Masks] = []


def _masks(model: Head) -> _Masks:
    if not _masks_cache:
        skirt_xy = np.broadcast_to(model.skirt_ST3[:, :1, :2].astype(float), (*model.skirt_ST3.shape[:2], 2))
        xy = np.concatenate([model.plane_HW2.reshape(-1, 2), skirt_xy.reshape(-1, 2)])
        hollow = 1 - 0.30 * bump(xy, 0.24, -0.04, 0.09, 0.05, both=True)
        hollow *= 1 - 0.14 * bump(xy, 0.37, -0.07, 0.14, 0.03, both=True)
        hollow *= 1 - 0.45 * bump(xy, 0.0, 0.535, 0.13, 0.025)
        hollow *= 1 - 0.28 * bump(xy, 0.185, 0.49, 0.022, 0.04, both=True)
        hollow *= 1 - 0.25 * bump(xy, 0.0, 0.925, 0.16, 0.03)
        hollow *= 1 - 0.22 * bump(xy, 0.33, 0.765, 0.03, 0.03, both=True)
        below = np.linspace(0, 1, model.skirt_ST3.shape[1])
        lower = ramp(skirt_xy[..., 1], 0.2, 0.9)
        hollow[model.plane_HW2[..., 0].size :] *= (1 - 0.45 * lower * ramp(below, 0.0, 0.7)).ravel()
        red = bump(xy, 0.46, 0.36, 0.17, 0.15, both=True) + 0.8 * bump(xy, 0.0, 0.43, 0.11, 0.07)
        red = red + 0.3 * bump(xy, 0.0, 1.1, 0.2, 0.1)
        beard = ramp(xy[:, 1], 0.62, 0.85) * ramp(np.hypot(xy[:, 0] / 0.8, (xy[:, 1] - 0.35) / 0.95), 0.42, 0.6)
        sides = ramp(np.abs(xy[:, 0]), 0.56, 0.74) * ramp(xy[:, 1], 0.0, 0.3)
        above_lip = bump(xy, 0.0, 0.635, 0.24, 0.045) * ramp(xy[:, 1], 0.54, 0.62)
        circles = bump(xy, 0.33, 0.075, 0.12, 0.035, both=True)
        scalp = np.zeros(len(xy))
        scalp[model.plane_HW2[..., 0].size :] = (1 - ramp(skirt_xy[..., 1], -0.15, 0.05)).ravel()
        edge_a = np.roll(model.skirt_ST3, -1, 0) - np.roll(model.skirt_ST3, 1, 0)
        edge_t = np.gradient(model.skirt_ST3, axis=1)
        outward = model.skirt_ST3[:, 3] - np.array([0.0, 0.2, 0.3])
        facing = np.sum(np.cross(edge_a, edge_t)[:, 3] * outward)
        _masks_cache.append(
            _Masks(
                hollow.astype(np.float32),
                red.astype(np.float32),
                np.clip(np.maximum(np.maximum(beard, sides), above_lip), 0, 1).astype(np.float32),
                circles.astype(np.float32),
                scalp.astype(np.float32),
                float(np.sign(facing)),
            )
        )
    return _masks_cache[0]


def _surface(scene: _Scene, model: Head) -> Image.Image:
    """Shade the head at half resolution; also sets `scene.shade`, the light (size, size, 3) on it."""
    rng, light, camera = scene.rng, scene.light, scene.subject.figure.camera
    masks = _masks(model)
    grid, skirt = map(camera.turn, model.surface(scene.subject.figure.change_C))
    across, down = np.empty_like(grid), np.empty_like(grid)
    across[:, 1:-1] = grid[:, 2:] - grid[:, :-2]
    across[:, 0], across[:, -1] = grid[:, 1] - grid[:, 0], grid[:, -1] - grid[:, -2]
    down[1:-1] = grid[2:] - grid[:-2]
    down[0], down[-1] = grid[1] - grid[0], grid[-1] - grid[-2]
    around = np.roll(skirt, -1, 0) - np.roll(skirt, 1, 0)
    back = np.empty_like(skirt)
    back[:, 1:-1] = skirt[:, 2:] - skirt[:, :-2]
    back[:, 0], back[:, -1] = back[:, 1], back[:, -2]
    points = np.concatenate([grid.reshape(-1, 3), skirt.reshape(-1, 3)])
    normal = np.concatenate(
        [_cross(across, down).reshape(-1, 3), masks.skirt_sign * _cross(around, back).reshape(-1, 3)]
    )
    normal /= np.sqrt(np.einsum("vd,vd->v", normal, normal))[:, None] + np.float32(1e-9)

    scene.skirt_ST2 = camera.flatten(skirt)
    facing = normal @ light.towards.astype(np.float32)
    # Light creeps past the terminator inside the skin, red the farthest.
    creep = np.array([0.30, 0.16, 0.10], np.float32)
    lit = np.maximum((facing[:, None] + creep) / (1 + creep), 0) * light.key.astype(np.float32)
    halfway = light.towards + (0, 0, 1)
    gloss = np.maximum(normal @ (halfway / np.linalg.norm(halfway)).astype(np.float32), 0) ** 18
    received = (lit + light.ambient.astype(np.float32)) * masks.hollow[:, None]
    albedo = _skin_colours(scene, masks)
    shine = np.float32(rng.uniform(5, 42)) * light.key.astype(np.float32)
    colour = albedo * received + gloss[:, None] * shine

    half = (scene.size + 1) // 2
    pixels = camera.flatten(points)
    column = ((pixels[:, 0] + 0.5) / 2).astype(np.int32)
    row = ((pixels[:, 1] + 0.5) / 2).astype(np.int32)
    seen = (column >= 0) & (column < half) & (row >= 0) & (row < half) & (normal[:, 2] > -0.15)
    kept = np.flatnonzero(seen)
    place, depth = (row * half + column)[kept], points[kept, 2]
    # Radix sort of coarse depths; the last write, the nearest point, wins.
    order = np.argsort((depth * 4000).astype(np.int16), kind="stable")
    nearest = np.full(half * half, -9, np.float32)
    nearest[place[order]] = depth[order]
    front = depth > nearest[place] - np.float32(0.10)
    kept, place = kept[front], place[front]
    layers = np.concatenate([colour, received], axis=1)[kept]
    total = np.empty((7, half * half), np.float32)
    for k in range(6):
        total[k] = np.bincount(place, layers[:, k], half * half)
    total[6] = np.bincount(place, minlength=half * half)
    total = _soften(total.reshape(7, half, half))
    # A whisper of the mean fills what no point reached.
    mean = layers.mean(axis=0) if len(layers) else np.ones(6, np.float32)
    filled = (total[:6] + 1e-3 * mean[:, None, None]) / (total[6] + 1e-3)
    filled[3:] *= 100  # light in steps of a hundredth
    packed = np.clip(filled, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    frame = [
        np.asarray(Image.fromarray(part).resize((2 * half, 2 * half), Image.Resampling.BICUBIC), np.float32)
        for part in (np.ascontiguousarray(packed[..., :3]), np.ascontiguousarray(packed[..., 3:]))
    ]
    skin, scene.shade = (part[: scene.size, : scene.size] for part in frame)
    scene.shade *= np.float32(0.01)
    grain = noise("skin", scene.size, rng) * np.float32(rng.uniform(0.004, 0.02) * (0.6 + 0.8 * scene.age))
    return as_image(skin * (1 + grain[..., None]))


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross product (..., 3); numpy's own is several times slower on small last axes."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    product: Floats = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
    return product


def _soften(layers_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """A 3x3 binomial blur: joins the splats and reaches one pixel past the outline."""
    padded = np.pad(layers_CHW, ((0, 0), (1, 1), (1, 1)))
    tall = padded[:, :-2] + padded[:, 2:] + 2 * padded[:, 1:-1]
    soft: NDArray[np.float32] = tall[:, :, :-2] + tall[:, :, 2:] + 2 * tall[:, :, 1:-1]
    return soft


def _skin_colours(scene: _Scene, masks: _Masks) -> Floats:
    """Albedo (V, 3): flushed cheeks, circles under the eyes, beard and scalp."""
    rng = scene.rng
    pale = scene.skin.mean() / 200
    colour = scene.skin.astype(np.float32) * np.ones((len(masks.red), 1), np.float32)
    flush = np.float32(rng.uniform(0.02, 0.16) * pale)
    colour *= 1 - masks.red[:, None] * flush * np.array([0.05, 1.0, 0.8], np.float32)
    colour *= 1 - masks.circles[:, None] * np.float32(rng.uniform(0, 0.22))
    if scene.female < 0.5 and rng.random() < 0.75:
        stubble = np.float32(rng.uniform(0.0, 0.55))
        if rng.random() < 0.3:
            stubble = np.float32(rng.uniform(0.7, 0.95))
        target = (scene.hair * 0.75 + scene.skin * 0.12).astype(np.float32)
        weight = (masks.beard * stubble)[:, None]
        colour = colour * (1 - weight) + target * weight
    scalp = masks.scalp[:, None]
    return colour * (1 - scalp) + scene.hair.astype(np.float32) * scalp * 0.8


def _face_mask(scene: _Scene) -> Image.Image:
    """Coverage of face, nose in profile and skirt."""
    rings = [scene.skirt_ST2[:-1, t] for t in (2, 4, 7)]
    return coverage(scene.size, [scene.outline_A2, _nose_hull(scene), *rings])


def _nose_hull(scene: _Scene) -> Floats:
    """Convex outline (n, 2) of the lower nose, which may stand out past the far cheek."""
    tip = np.concatenate([scene.marks["bridge"], scene.marks["base"]])
    pieces = [tip, scene.marks["wing_l"], scene.marks["wing_r"]]
    return _hull(np.concatenate(pieces))


def _hull(points: Floats) -> Floats:
    """Convex hull (n, 2), by the monotone chain."""
    ordered = sorted(map(tuple, points.tolist()))

    def chain(items: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        kept: list[tuple[float, ...]] = []
        for x, y in items:
            while len(kept) > 1 and (
                (kept[-1][0] - kept[-2][0]) * (y - kept[-2][1]) <= (kept[-1][1] - kept[-2][1]) * (x - kept[-2][0])
            ):
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


# ------------------------------------------------------------------------------------------------- face


def _paint_face(face: Canvas, scene: _Scene) -> None:
    """Features on the shaded surface, the far eye before the nose that may hide it."""
    rng, marks = scene.rng, scene.marks
    made_up = "make-up" in scene.subject.flags
    plain = face.image.copy() if abs(scene.subject.yaw) > 18 else None
    iris = _IRISES[int(rng.integers(0, 2 if scene.skin.mean() < 130 else len(_IRISES)))]
    iris = iris * rng.uniform(0.8, 1.15)
    shadow = random_colour(rng, 0.3) if made_up else None
    brow_dark = rng.uniform(0.45, 0.95)
    far, near = ("r", "l") if scene.subject.yaw > 0 else ("l", "r")
    _paint_wrinkles(face, scene)
    for side in (far, near):
        if made_up and shadow is not None:
            _paint_eye_shadow(face, scene, side, shadow)
        _paint_brow(face, scene, side, brow_dark)
        _paint_eye(face, scene, side, iris, made_up=made_up)
        if side == far and plain is not None:
            ridge = marks["bridge"]
            base = marks[f"wing_{near}"].mean(axis=0)
            nose = np.concatenate([ridge, marks["base"][[2]], base[None]])
            found = face.mask(nose, soft=0.02 * scene.unit)
            if found:
                (x, y), (wide, tall) = found[1], found[0].size
                face.image.paste(plain.crop((x, y, x + wide, y + tall)), found[1], found[0])
    _paint_nose(face, scene)
    _paint_mouth(face, scene, made_up=made_up)


def _paint_brow(face: Canvas, scene: _Scene, side: str, dark: float) -> None:
    """A soft patch and single hairs between the two curves of a brow."""
    rng, unit = scene.rng, scene.unit
    upper, lower = scene.marks[f"brow_upper_{side}"], scene.marks[f"brow_lower_{side}"]
    light = scene.light_at((upper[6] + lower[6]) / 2)
    colour = (scene.hair * 0.8 + scene.skin * 0.05) * light
    patch = np.concatenate([upper, lower[::-1]])
    face.fill(patch, colour, 0.62 * dark, soft=0.012 * unit)
    t = np.sort(rng.uniform(0.02, 1.0, 22))
    low = np.minimum((t * 11.99).astype(int), 11)
    part = (t * 12 - low)[:, None]
    top = upper[low] * (1 - part) + upper[low + 1] * part
    bottom = lower[low] * (1 - part) + lower[low + 1] * part
    start = bottom + (top - bottom) * rng.uniform(-0.05, 0.4, (22, 1))
    lean = (upper[0] - upper[12]) * 0.06  # hairs lean outwards
    stop = bottom + (top - bottom) * rng.uniform(0.6, 1.05, (22, 1)) + lean
    hairs = np.stack([start, stop], axis=1)
    face.hairs(hairs, 0.013 * unit, colour * 0.8, 0.75 * dark)


def _paint_eye(face: Canvas, scene: _Scene, side: str, iris: Floats, *, made_up: bool) -> None:
    """Lid crease, eyeball seen between the lids, lashes."""
    rng, unit = scene.rng, scene.unit
    upper, lower = scene.marks[f"lid_upper_{side}"], scene.marks[f"lid_lower_{side}"]
    crease = scene.marks[f"crease_{side}"]
    centre = scene.marks["pupil"][0 if side == "l" else 1]
    skin_here = scene.skin * scene.light_at(crease[6])
    face.tint(np.concatenate([crease, upper[::-1]]), (0.90, 0.86, 0.85), soft=0.015 * unit)
    face.stroke(crease[1:], _taper(12, 0.020 * unit), skin_here * 0.55, 0.75, soft=0.007 * unit)
    bag = lower + scene.shift(0, 0.055)
    face.stroke(bag[2:], _taper(11, 0.03 * unit), skin_here * 0.72, 0.30, soft=0.015 * unit)
    light = np.maximum(scene.light_at(centre), 0.05)
    opening = np.concatenate([upper, lower[::-1]])
    gap = float(np.abs(lower[6] - upper[6]).sum())
    if gap > 0.012 * unit:
        found = face.mask(opening)
        if found:
            patch = Patch(*found, np.array([236, 228, 224]) * rng.uniform(0.86, 1.0) * light)
            face.image.paste(_eyeball(scene, patch, upper, lower, centre, iris, light), found[1], found[0])
    lash = np.array([26, 20, 20]) * (1 if made_up else 1.3) * (0.4 + 0.6 * light)
    weight = (0.030 if made_up else 0.020) * unit
    face.stroke(upper, _taper(13, weight, 0.5), lash, 0.9 if made_up else 0.72, soft=0.003 * unit)
    face.stroke(lower, _taper(13, 0.45 * weight, 0.5), lash + 30, 0.55, soft=0.004 * unit)
    if made_up or scene.female > 0.7:
        outer = upper[0:9]
        away = (outer - (centre + scene.shift(0, 0.02))) * (0.30 if made_up else 0.18)
        lift = scene.shift(0, -0.02)
        face.hairs(np.stack([outer, outer + away + lift], 1), 0.010 * unit, lash, 0.85)


def _eyeball(
    scene: _Scene, patch: Patch, upper: Floats, lower: Floats, centre: Floats, iris: Floats, light: Floats
) -> Image.Image:
    """Caruncle, iris, pupil, the lid's shadow and a glint on the white `patch`."""
    rng = scene.rng
    axis_x, axis_y = scene.axes
    inner = (upper[12] + lower[11]) / 2
    patch.fill(ellipse(inner, axis_x * 0.032, axis_y * 0.028, 10), np.array([206, 140, 130]) * light)
    patch.fill(ellipse(upper[0], axis_x * 0.05, axis_y * 0.05, 10), np.array([186, 178, 174]) * light)
    radius = rng.uniform(0.060, 0.068)
    for share, tone in ((1.0, 0.45), (0.86, 1.0), (0.62, 1.25)):
        patch.fill(ellipse(centre, axis_x * radius * share, axis_y * radius * share), iris * tone * light)
    pupil = radius * rng.uniform(0.32, 0.5)
    patch.fill(ellipse(centre, axis_x * pupil, axis_y * pupil, 14), (10, 8, 8))
    lid = np.concatenate([upper + scene.shift(0, -0.03), (upper + scene.shift(0, 0.020))[::-1]])
    patch.veil(lid, np.array([44, 30, 28]) * light, 0.4)
    side = 1.0 if scene.light.towards[0] > 0 else -1.0
    glint = centre + scene.shift(0.022 * side, -0.024)
    bright = np.full(3, 250) * np.minimum(light + 0.25, 1)
    patch.fill(ellipse(glint, axis_x * 0.016, axis_y * 0.016, 8), bright)
    return patch.shrink()


def _taper(count: int, width: float, ends: float = 0.25) -> Floats:
    """Widths (count,) of a line that thins out at both ends."""
    return width * _bow(count, ends)


@lru_cache(maxsize=64)
def _bow(count: int, ends: float) -> Floats:
    bow: Floats = ends + (1 - ends) * np.sin(np.linspace(0.06, np.pi - 0.06, count))
    return bow


def _paint_eye_shadow(face: Canvas, scene: _Scene, side: str, colour: Floats) -> None:
    upper, brow = scene.marks[f"lid_upper_{side}"], scene.marks[f"brow_lower_{side}"]
    reach = scene.rng.uniform(0.4, 0.75)
    top = upper + (brow - upper) * reach
    patch = np.concatenate([upper, top[::-1]])
    light = scene.light_at(upper[6])
    face.fill(patch, colour * light, scene.rng.uniform(0.35, 0.75), soft=0.018 * scene.unit)


def _paint_nose(face: Canvas, scene: _Scene) -> None:
    """Nostrils, wings and a light on the tip; the far nostril fades as the head turns."""
    unit, marks, yaw = scene.unit, scene.marks, scene.subject.yaw
    dark = scene.skin * np.array([0.30, 0.22, 0.22]) * (0.25 + 0.75 * scene.light_at(marks["base"][2]))
    for side, sign in (("l", -1), ("r", 1)):
        hidden = float(ramp(np.array(sign * yaw), 22, 48))
        hole = marks[f"nostril_{side}"]
        tall = float(np.ptp(hole[:, 1]))
        face.fill(hole, dark, (1 - hidden) * min(1.0, tall / (0.022 * unit)) * 0.9, soft=0.008 * unit)
        face.stroke(
            marks[f"wing_{side}"],
            _taper(13, 0.022 * unit),
            dark * 1.5,
            0.55 * (1 - hidden),
            soft=0.009 * unit,
        )
    base = marks["base"] + scene.shift(0, 0.006)
    face.stroke(base, _taper(5, 0.020 * unit), dark * 1.6, 0.35, soft=0.010 * unit)


def _paint_mouth(face: Canvas, scene: _Scene, *, made_up: bool) -> None:
    """Lips, and what shows between them."""
    rng, unit, marks = scene.rng, scene.unit, scene.marks
    outer_up, outer_low = marks["lip_outer_upper"], marks["lip_outer_lower"]
    inner_up, inner_low = marks["lip_inner_upper"], marks["lip_inner_lower"]
    light = scene.light_at((outer_up[6] + outer_low[6]) / 2)
    whole = np.concatenate([outer_up, outer_low[::-1]])
    upper = np.concatenate([outer_up, inner_up[::-1]])
    lower = np.concatenate([inner_low, outer_low[::-1]])
    strength = rng.uniform(0.7, 1.0) if scene.female > 0.5 else rng.uniform(0.4, 0.9)
    face.tint(whole, (0.93, 0.66, 0.67), strength, soft=0.006 * unit)
    if made_up:
        stick = np.array([rng.uniform(120, 215), rng.uniform(10, 70), rng.uniform(25, 100)])
        face.fill(whole, stick * light, rng.uniform(0.55, 0.9), soft=0.004 * unit)
    face.tint(upper, (0.86, 0.80, 0.80), 0.8, soft=0.008 * unit)
    glow = (outer_low * 0.55 + inner_low * 0.45)[3:10]
    shine = rng.uniform(0.1, 0.45) * (1.4 if made_up else 1.0)
    face.stroke(glow, _taper(7, 0.032 * unit), np.array([255, 228, 220]) * light, shine, soft=0.012 * unit)
    face.stroke(
        outer_low + scene.shift(0, 0.012),
        _taper(13, 0.03 * unit, 0.1),
        scene.skin * light * 0.6,
        0.35,
        soft=0.012 * unit,
    )
    gap = float(np.hypot(*(inner_low[6] - inner_up[6])))
    if gap > 0.015 * unit:
        inside = np.concatenate([inner_up, inner_low[::-1]])
        found = face.mask(inside)
        if found:
            patch = Patch(*found, np.array([46, 14, 16]) * light)
            face.image.paste(_mouth_inside(scene, patch, gap, light), found[1], found[0])
    seam = (inner_up + inner_low) / 2 if gap < 0.03 * unit else inner_up
    line = np.concatenate([outer_up[:1], seam, outer_up[-1:]])
    face.stroke(line, _taper(15, 0.020 * unit, 0.4), np.array([62, 28, 28]) * light, 0.75, soft=0.004 * unit)
    for corner in (outer_up[0], outer_up[12]):
        spot = ellipse(corner, scene.axes[0] * 0.022, scene.axes[1] * 0.018, 8)
        face.fill(spot, scene.skin * 0.4 * light, 0.5, soft=0.010 * unit)


def _mouth_inside(scene: _Scene, patch: Patch, gap: float, light: Floats) -> Image.Image:
    """Teeth and tongue on the dark `patch`."""
    rng, unit, marks = scene.rng, scene.unit, scene.marks
    up, low = marks["lip_inner_upper"], marks["lip_inner_lower"]
    if gap > 0.06 * unit:
        tongue = (low[3] + low[9]) / 2 + scene.shift(0, -0.02)
        width, height = scene.axes[0] * 0.14, scene.axes[1] * min(0.09, 0.55 * gap / unit)
        patch.fill(ellipse(tongue, width, height), np.array([168, 78, 80]) * light)
    tooth = np.array([238, 230, 216]) * rng.uniform(0.82, 1.0) * light
    drop = min(rng.uniform(0.05, 0.085) * unit, 0.85 * gap) if rng.random() < 0.85 else 0.0
    down = scene.axes[1] / max(float(np.hypot(*scene.axes[1])), 1e-6) * drop
    bow = np.sin(np.linspace(0.15, np.pi - 0.15, 13))[:, None]
    patch.fill(np.concatenate([up, (up + down * bow)[::-1]]), tooth)
    for k in range(3, 10):
        thin = ribbon(np.stack([up[k], up[k] + down * bow[k]]), 0.006 * unit)
        patch.fill(thin, tooth * 0.8)
    if gap > 0.12 * unit and rng.random() < 0.5:
        patch.fill(np.concatenate([low, (low - down * bow * 0.6)[::-1]]), tooth * 0.85)
    return patch.shrink()


def _paint_wrinkles(face: Canvas, scene: _Scene) -> None:
    """Creases of age and of the smile, freckles, moles, blush and moustache."""
    rng, unit, marks = scene.rng, scene.unit, scene.marks
    smile = float(scene.subject.figure.change_C[head().names.index("smile")])
    depth = 0.10 + 0.35 * scene.age * rng.random() + 0.22 * max(smile, 0.0)
    for side in "lr":
        fold = marks[f"fold_{side}"]
        dark = scene.skin * 0.55 * scene.light_at(fold[4])
        face.stroke(fold, _taper(9, 0.030 * unit, 0.1), dark, min(depth, 0.75), soft=0.014 * unit)
        if scene.age > 0.6:
            outer = marks[f"lid_upper_{side}"][0]
            way = -1 if side == "l" else 1
            for lift in (-0.06, 0.0, 0.05):
                foot = np.stack([outer + scene.shift(0.04 * way, lift * 0.5), outer + scene.shift(0.12 * way, lift)])
                face.stroke(foot, 0.012 * unit, dark, 0.35, soft=0.006 * unit)
    lift = float(scene.subject.figure.change_C[head().names.index("brow_up")])
    if scene.age > 0.5 or lift > 0.7:
        brow = np.concatenate([marks["brow_upper_l"][4:], marks["brow_upper_r"][:3:-1]])
        for k in range(int(rng.integers(1, 4))):
            line = brow + scene.shift(0, -0.13 - 0.09 * k)
            dark = scene.skin * 0.6 * scene.light_at(line[8])
            face.stroke(line, _taper(len(line), 0.016 * unit), dark, 0.35, soft=0.008 * unit)
    if "make-up" in scene.subject.flags and rng.random() < 0.7:
        rouge = np.array([rng.uniform(190, 230), 80, 90])
        for side in "lr":
            spot = marks[f"fold_{side}"][0] + scene.shift(-0.28 if side == "l" else 0.28, -0.1)
            patch = ellipse(spot, scene.axes[0] * 0.13, scene.axes[1] * 0.09)
            face.fill(patch, rouge * scene.light_at(spot), rng.uniform(0.15, 0.4), soft=0.05 * unit)
    for _ in range(int(rng.integers(0, 4))):
        arc, place = rng.integers(0, len(scene.arcs_AR2)), rng.integers(3, 12)
        mole = scene.arcs_AR2[arc, place]
        size = rng.uniform(0.008, 0.02)
        face.fill(ellipse(mole, scene.axes[0] * size, scene.axes[1] * size, 8), scene.skin * 0.4, 0.6)


# -------------------------------------------------------------------------------------- hair and body


@dataclass(frozen=True)
class _HairStyle:
    """Hairline and volume along the upper arcs, and how far the hair falls."""

    bald: bool
    over_ears: bool
    volume: float
    length: float  # below the ears, in head units; 0 for short hair
    line_S: Floats
    curl: float


_UPPER = np.concatenate([np.arange(58, 104), np.arange(0, 7)])  # from the right sideburn over to the left


def _hair_style(scene: _Scene) -> _HairStyle:
    rng = scene.rng
    along = np.linspace(-1, 1, len(_UPPER))  # right sideburn to left sideburn
    bald = rng.random() < (0.12 if scene.female < 0.5 else 0.01)
    high = rng.uniform(4.2, 7.2) + (0.0 if scene.age < 0.6 else -1.0)
    temple = rng.uniform(2.5, 4.5)
    line = high + (temple - high) * np.abs(along) ** rng.uniform(1.5, 4)
    if rng.random() < 0.35:  # fringe
        line = line + rng.uniform(0.6, 2.6) * (1 - np.abs(along) ** 2)
        line = line + rng.uniform(0.1, 0.5) * rng.normal(0, 1, len(line))
    side = rng.uniform(-0.6, 0.6)
    line = line + 0.8 * side * along + rng.normal(0, 0.12, len(line))
    line = line * ramp(1 - np.abs(along), 0.0, rng.uniform(0.12, 0.3))
    long = scene.female > 0.5 and rng.random() < 0.8
    return _HairStyle(
        bald=bald,
        over_ears=bool(long and rng.random() < 0.7),
        volume=float(rng.uniform(0.03, 0.10) if rng.random() < 0.6 else rng.uniform(0.1, 0.3)),
        length=float(rng.uniform(0.5, 1.6)) if long else 0.0,
        line_S=np.clip(line, 0, 9.5),
        curl=float(rng.random()),
    )


def _hair_picture(scene: _Scene, strength: float = 0.34) -> NDArray[np.float32]:
    """Streaky hair (size, size, 3), lit from where the light comes."""
    size = scene.size
    streaks = 1 + np.float32(strength) * noise("strand", size, scene.rng)
    side, up = scene.light.towards[0], -scene.light.towards[1]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    gleam = 1 + np.float32(0.25) * (axis[None] * np.float32(side) - axis[:, None] * np.float32(up))
    base = scene.hair * (scene.light.ambient + 0.55 * scene.light.key) + 4
    return (streaks * gleam)[..., None] * base.astype(np.float32)


def _lit_round(scene: _Scene, centre: Floats, radius: float, colour: Floats) -> NDArray[np.float32]:
    """A picture (size, size, 3) of an upright, lit cylinder."""
    across = np.clip((np.arange(scene.size) - centre[0]) / radius, -0.96, 0.96)
    towards = scene.light.towards
    facing = across * towards[0] + np.sqrt(1 - across**2) * max(float(towards[2]), 0.0)
    lit = scene.light.ambient + np.maximum((facing + 0.15) / 1.15, 0)[:, None] * scene.light.key
    column = (lit * colour).astype(np.float32)
    return np.broadcast_to(column, (scene.size, scene.size, 3))


def _paint_behind(canvas: Canvas, scene: _Scene, style: _HairStyle) -> None:
    """The back of the head and long hair falling behind the shoulders."""
    camera = scene.subject.figure.camera
    grow = 0.0 if style.bald else style.volume
    spread = np.diag(np.array([0.80 + grow, 0.88 + grow, 0.88 + grow]) ** 2)
    seen = (camera.rotation_33 @ spread @ camera.rotation_33.T)[:2, :2] * camera.scale**2
    half = np.linalg.cholesky(seen)
    centre = camera.project(np.array([0.0, -0.32, -0.28]))
    cranium = ellipse(centre, half[:, 0], half[:, 1], 40)
    if style.bald:
        canvas.texture(cranium, _lit_round(scene, centre, 0.85 * scene.unit, scene.skin * 0.95))
        return
    picture = scene.hair_HW3
    canvas.texture(cranium, picture, soft=0.015 * scene.unit)
    if style.length:
        rng, unit = scene.rng, scene.unit
        wide, drop = 0.84 + style.volume, style.length + 0.45
        half_curtain = np.array([(-wide, -0.3), (-wide - 0.08, 0.3), (-wide - 0.16, 0.5 * drop + 0.2)])
        half_curtain = np.concatenate([half_curtain, [(-wide - 0.12, drop), (-0.5 * wide, drop + 0.15)]])
        ring = np.concatenate([half_curtain, half_curtain[::-1] * (-1, 1)])
        ring = ring + rng.normal(0, 0.03 + 0.04 * style.curl, ring.shape)
        lean = np.radians(scene.subject.figure.roll * 0.5)
        turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
        curtain = spline(ring * unit, 4, closed=True) @ turn + centre + (0, 0.3 * unit)
        canvas.texture(curtain, picture * np.float32(0.8), soft=0.02 * unit)


def _paint_body(canvas: Canvas, scene: _Scene) -> None:
    """Neck in the shadow of the chin, shoulders and clothes."""
    rng, unit, camera = scene.rng, scene.unit, scene.subject.figure.camera
    left, right = camera.project(np.array([[-0.5, 0.80, -0.25], [0.5, 0.80, -0.25]]))
    down = np.array([np.sin(-np.radians(scene.subject.figure.roll)) * 0.4, 1.0])
    foot = (left + right) / 2 + down * unit * rng.uniform(0.95, 1.2)
    half = np.array([0.55, 0.0]) * unit
    neck = np.stack([left, right, foot + half * 1.15, foot - half * 1.15])
    canvas.texture(neck, _lit_round(scene, foot, 0.66 * unit, scene.skin * 0.92))
    shadow = scene.outline_A2[8:57] + np.array([-scene.light.towards[0] * 0.06, 0.16]) * unit
    canvas.tint(shadow, (0.62, 0.56, 0.55), soft=0.05 * unit)
    cloth = random_colour(rng, 0.5) * scene.light.on((0.0, -0.3, 0.9))
    slope, wide = rng.uniform(0.25, 0.5), rng.uniform(1.3, 1.8)
    x = np.array([-wide, -wide * 0.75, -0.62, -0.3, 0.0, 0.3, 0.62, wide * 0.75, wide])
    collar = rng.uniform(-0.1, 0.35)
    y = np.array([1.5, slope, 0.0, collar * 0.8, collar, collar * 0.8, 0.0, slope, 1.5]) - 0.12
    body = np.concatenate([np.stack([x, y], -1), [(wide, 4.0), (-wide, 4.0)]]) * unit + foot
    canvas.fill(body, cloth, soft=0.01 * unit)
    if rng.random() < 0.4:
        stripe = random_colour(rng) * scene.light.on((0.0, -0.3, 0.9))
        for offset in np.arange(-1.6, 1.6, rng.uniform(0.15, 0.5)):
            line = np.array([(offset, 0.35), (offset * 1.1, 3.0)]) * unit + foot
            canvas.stroke(line, rng.uniform(0.03, 0.1) * unit, stripe, 0.8)
    rim = np.stack([x[2:7], y[2:7]], -1) * unit + foot
    canvas.stroke(rim, 0.07 * unit, cloth * rng.uniform(0.5, 1.4), 0.8, soft=0.01 * unit)


def _paint_ear(canvas: Canvas, scene: _Scene, side: str) -> None:
    rim = scene.marks[f"ear_{side}"]
    middle = rim.mean(axis=0)
    facing = (-0.7 if side == "l" else 0.7, 0.0, 0.7)
    turned = scene.subject.figure.camera.rotation_33 @ np.array(facing)
    colour = scene.skin * scene.light.on(tuple(turned)) * np.array([1.0, 0.93, 0.92])
    canvas.fill(rim, colour * 0.95)
    canvas.fill(middle + (rim - middle) * 0.72, colour * 0.68, 0.7, soft=0.02 * scene.unit)
    canvas.fill(middle + (rim - middle) * 0.40, colour * 0.5, 0.7, soft=0.02 * scene.unit)


def _paint_hair(canvas: Canvas, scene: _Scene, style: _HairStyle) -> None:
    """The cap of hair above the hairline, single strands and locks beside the face."""
    if style.bald:
        return
    rng, unit = scene.rng, scene.unit
    rim = scene.outline_A2[_UPPER]
    inner = along_arcs(scene.arcs_AR2[_UPPER], np.maximum(style.line_S, scene.reach_A[_UPPER]))
    along = np.linspace(-1, 1, len(_UPPER))
    thick = style.volume * ramp(1 - np.abs(along), 0.0, 0.35) + 0.012
    out = rim - scene.outline_A2.mean(axis=0)
    out /= np.hypot(out[:, 0], out[:, 1])[:, None]
    ragged = 1 + 0.15 * style.curl * rng.normal(0, 1, len(thick))
    outer = rim + out * (thick * ragged * unit)[:, None]
    picture = scene.hair_HW3
    canvas.texture(np.concatenate([outer, inner[::-1]]), picture, soft=0.010 * unit)
    shadow = inner + (inner - outer) * 0.04
    canvas.stroke(shadow, 0.04 * unit, scene.skin * 0.35, 0.30, soft=0.02 * unit)
    count = 36
    first = rng.uniform(2, len(_UPPER) - 3, count)
    second = np.clip(first + rng.normal(0, 2.5, count), 1, len(_UPPER) - 2)
    grow = rng.uniform(0.75, 1.12, (count, 1))
    index = np.arange(len(_UPPER))
    root = np.stack([np.interp(first, index, outer[:, k]) for k in range(2)], -1)
    tip = np.stack([np.interp(second, index, inner[:, k]) for k in range(2)], -1)
    strands = np.stack([root, root + (tip - root) * grow], 1)
    lit = scene.hair * (scene.light.ambient + 0.5 * scene.light.key)
    canvas.hairs(strands[::2], 0.014 * unit, lit * 0.55, 0.6)
    canvas.hairs(strands[1::2], 0.012 * unit, lit * 1.5 + 10, 0.35)
    if style.over_ears:
        for indices, sign in ((_UPPER[:10], -1), (_UPPER[-10:][::-1], 1)):
            _paint_lock(canvas, scene, style, indices, sign, picture)


def _paint_lock(
    canvas: Canvas,
    scene: _Scene,
    style: _HairStyle,
    arcs: NDArray[np.intp],
    side: int,
    picture: NDArray[np.float32],
) -> None:
    """Long hair beside the face, outside its outline, from the temple down past the jaw."""
    rng, unit = scene.rng, scene.unit
    jaw = scene.outline_A2[[61, 54, 46] if side < 0 else [3, 10, 18]]
    temple = scene.outline_A2[arcs[6]]
    edge = np.stack([temple, *jaw])
    out = edge - scene.outline_A2.mean(axis=0)
    out = out / np.hypot(out[:, 0], out[:, 1])[:, None]
    across = np.array([1.0 if side < 0 else -1.0, 0.0])
    inside = edge + out * (np.array([0.02, 0.01, 0.015, 0.03]) * unit)[:, None]
    inside[3] = inside[2] + (inside[3] - inside[2]) * 0.5 + across * 0.10 * unit
    wide = np.array([0.07, 0.14, 0.24, 0.26]) + style.volume * np.array([0.7, 0.9, 0.8, 0.7])
    outside = edge + across * (wide * unit)[:, None] + rng.normal(0, 0.02 + 0.03 * style.curl, (4, 2)) * unit
    end = inside[3] + across * rng.uniform(0.0, 0.25) * unit + np.array([0.0, style.length * 0.8 * unit])
    lock = spline(np.concatenate([inside, end[None], outside[::-1]]), 5, closed=True)
    canvas.texture(lock, picture, soft=0.012 * unit)


# ------------------------------------------------------------------------------------------- occluders


def _occlude(canvas: Canvas, scene: _Scene) -> None:
    """One of the things that hide parts of a face."""
    paint = (_glasses, _glasses, _surgical_mask, _hand, _hair_lock, _object)[int(scene.rng.integers(0, 6))]
    paint(canvas, scene)


def _glasses(canvas: Canvas, scene: _Scene) -> None:
    rng, unit = scene.rng, scene.unit
    dark = rng.random() < 0.45
    frame = random_colour(rng, 0.6) * rng.uniform(0.1, 0.9) * scene.light.on((0, -0.2, 0.9))
    wide, tall, square = rng.uniform(0.20, 0.255), rng.uniform(0.12, 0.2), rng.uniform(2.0, 4.5)
    thick = rng.uniform(0.015, 0.05) * unit
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.stack([np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / square) * wide,
                     np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / square) * tall + 0.03], -1)  # fmt: skip
    camera = scene.subject.figure.camera
    lens_colour = random_colour(rng, 0.8) * 0.2
    rims = []
    for sign in (-1, 1):
        middle = np.array([0.35 * sign, 0.0, 1.02])
        bend = -0.25 * np.maximum(ring[:, 0] * sign, 0)
        points = middle + np.concatenate([ring, bend[:, None]], axis=1)
        rim = camera.project(points)
        rims.append(rim)
        if dark:
            canvas.fill(rim, lens_colour * scene.light.on((0, 0, 1)), rng.uniform(0.75, 0.98))
        glare = camera.project(
            middle + np.array([[-0.08, -0.07, 0], [0.02, -0.07, 0], [-0.06, 0.1, 0], [-0.12, 0.1, 0]])
        )
        if rng.random() < 0.5:
            canvas.fill(glare, (250, 250, 250), rng.uniform(0.1, 0.35), soft=0.01 * unit)
        canvas.stroke(np.concatenate([rim, rim[:2]]), thick, frame)
    bridge = camera.project(np.array([[-0.35 + wide, -0.01, 1.02], [0, -0.035, 1.08], [0.35 - wide, -0.01, 1.02]]))
    canvas.stroke(bridge, thick, frame)
    for sign, rim in zip((-1, 1), rims, strict=True):
        if sign * scene.subject.yaw < 8:  # the temple on the side turned to the camera shows
            hinge = rim[np.argmax(np.abs(ring[:, 0] * sign + (ring[:, 0] * sign > 0)))]
            hinge = camera.project(np.array([(0.35 + wide) * sign, -0.02, 0.95]))
            ear = camera.project(np.array([0.84 * sign, 0.0, -0.02]))
            canvas.stroke(np.stack([hinge, ear]), thick, frame)


def _surgical_mask(canvas: Canvas, scene: _Scene) -> None:
    rng, unit = scene.rng, scene.unit
    jaw = scene.outline_A2[10:55]
    centre = scene.outline_A2.mean(axis=0)
    out = jaw - centre
    jaw = jaw + out / np.hypot(out[:, 0], out[:, 1])[:, None] * (0.02 * unit)
    top = scene.marks["bridge"][int(rng.integers(1, 3))] + scene.shift(0, rng.uniform(-0.02, 0.06))
    left, right = (
        scene.marks["fold_l"][0] + scene.shift(-0.2, -0.16),
        scene.marks["fold_r"][0] + scene.shift(0.2, -0.16),
    )
    colour = np.array([(150, 196, 222), (236, 238, 240), (34, 34, 38), random_colour(rng)][int(rng.integers(0, 4))])
    for side, ear in (("l", jaw[0]), ("r", jaw[-1])):
        loop = np.stack([ear, scene.marks[f"ear_{side}"].mean(axis=0)])
        canvas.stroke(loop, 0.02 * unit, (230, 230, 230))
    nose = [top + scene.shift(0.10, 0.04), top, top + scene.shift(-0.10, 0.04)]
    rim = spline(np.stack([jaw[-1], right, *nose, left, jaw[0]]), 4)
    shape = np.concatenate([jaw, rim])
    folds = 1 + np.float32(0.03) * noise("cloud", scene.size, rng)[..., None]
    canvas.texture(shape, scene.shade * folds * colour.astype(np.float32), soft=0.006 * unit)
    for share in (0.25, 0.5, 0.75):
        line = np.stack(
            [
                jaw[int(20 * share)],
                scene.marks["base"][2] * (1 - share) + jaw[22] * share,
                jaw[-1 - int(20 * share)],
            ]
        )
        canvas.stroke(line, 0.015 * unit, colour * 0.6, 0.5, soft=0.006 * unit)


def _hand(canvas: Canvas, scene: _Scene) -> None:
    rng, unit = scene.rng, scene.unit
    base = scene.skin * scene.light.on((0, 0, 1)) * rng.uniform(0.9, 1.08)
    side = rng.choice([-1, 1])
    target = scene.middle("base") + scene.shift(side * rng.uniform(0.15, 0.7), rng.uniform(-0.6, 0.7))
    lean = np.radians(rng.normal(0, 25)) + side * 0.4
    up = np.array([-np.sin(lean), -np.cos(lean)])
    across = np.array([-up[1], up[0]])
    palm = target - up * 0.75 * unit
    canvas.fill(ellipse(palm - up * 0.9 * unit, across * 0.26 * unit, up * 0.95 * unit), base * 0.9, soft=0.01 * unit)
    canvas.fill(ellipse(palm, across * 0.40 * unit, up * 0.42 * unit), base * 0.95, soft=0.01 * unit)
    for k, reach in enumerate((0.62, 0.74, 0.80, 0.70, 0.35)):
        spread = (k - 1.5) * 0.19 if k < 4 else -side * 0.52
        tilt = (k - 1.5) * 0.05 if k < 4 else -side * 0.5
        root = palm + across * spread * unit * (1 if k < 4 else 0.7) + up * (0.25 if k < 4 else 0.0) * unit
        way = up + across * tilt
        t = np.linspace(0, 1, 10)[:, None]
        finger = root + way * t * reach * unit
        width = 0.18 * np.sqrt(np.clip(1.02 - t[:, 0] ** 6, 0.05, 1)) * unit
        canvas.stroke(finger, width * 1.12, base * 0.58, 0.9, soft=0.008 * unit)
        canvas.stroke(finger, width * 0.9, base, soft=0.015 * unit)
        nail = finger[-2]
        canvas.fill(ellipse(nail, across * 0.05 * unit, up * 0.07 * unit, 12), base * 1.08 + 8, 0.6, soft=0.008 * unit)


def _hair_lock(canvas: Canvas, scene: _Scene) -> None:
    rng, unit = scene.rng, scene.unit
    lit = scene.hair * (scene.light.ambient + 0.5 * scene.light.key) + 4
    start = scene.arcs_AR2[84, 3] + scene.shift(rng.normal(0, 0.25), 0)
    end = scene.middle("base") + scene.shift(rng.choice([-1, 1]) * rng.uniform(0.25, 0.75), rng.uniform(-0.5, 0.6))
    t = np.linspace(0, 1, 14)[:, None]
    for _ in range(int(rng.integers(14, 30))):
        bow = scene.shift(rng.normal(0, 0.12), rng.normal(0, 0.1)) * 4 * t * (1 - t)
        line = start + (end - start) * t + bow + rng.normal(0, 0.07, 2) * unit * (0.4 + t)
        width = rng.uniform(0.015, 0.06) * unit * (1.1 - t[:, 0])
        canvas.stroke(line, width, lit * rng.uniform(0.6, 1.4), 0.9)


def _object(canvas: Canvas, scene: _Scene) -> None:
    """A cup, a microphone, a book: a lit shape over a part of the face."""
    rng, unit = scene.rng, scene.unit
    places = ("lip_outer_lower", "lid_upper_l", "lid_upper_r", "fold_l", "fold_r")
    centre = scene.middle(places[int(rng.integers(0, 5))]) + rng.normal(0, 0.2, 2) * unit
    angle = rng.uniform(0, np.pi)
    first = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.2, 0.55) * unit
    second = np.array([-np.sin(angle), np.cos(angle)]) * rng.uniform(0.2, 0.45) * unit
    shape = ellipse(centre, first, second) if rng.random() < 0.5 else _corners(centre, first, second)
    colour = (random_colour(rng, 0.2) * scene.light.on((0, 0, 1))).astype(np.float32)
    picture = colour * (1 + np.float32(rng.uniform(0, 0.25)) * noise("cloud", scene.size, rng)[..., None])
    canvas.texture(shape, picture)
    canvas.stroke(np.concatenate([shape, shape[:2]]), 0.03 * unit, colour * 0.6, 0.8, soft=0.01 * unit)
    canvas.stroke(np.stack([centre - first * 0.7, centre + first * 0.7]) - second * 0.4, 0.1 * unit, colour * 1.3 + 20, 0.5, soft=0.04 * unit)  # fmt: skip


def _corners(centre: Floats, first: Floats, second: Floats) -> Floats:
    corners: Floats = np.stack([centre + a * first + b * second for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    return corners
