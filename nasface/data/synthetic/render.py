"""Paint one synthetic face: features along the landmark curves on a shaded head, in a scene.

Eyes, brows, lips, nostrils and creases are polygons through the same curves from which the landmarks are read, and
the visible outline, which has the contour landmarks, separates the face from its surroundings. So every feature is
where its landmarks say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface.data.synthetic.paint import (
    Canvas,
    Floats,
    Patch,
    Rng,
    background,
    coverage,
    damage,
    ellipse,
    random_colour,
    ribbon,
    taper,
)
from nasface.data.synthetic.props import (
    hair_style,
    occlude,
    paint_behind,
    paint_body,
    paint_ear,
    paint_glasses,
    paint_hair,
)
from nasface.data.synthetic.smooth import ramp
from nasface.data.synthetic.surface import Scene, Subject, Surface, compose, shade

GLASSES = 0.12  # share of the faces with glasses through which the eyes can be seen
_IRISES = np.array([(58, 36, 22), (84, 54, 30), (110, 84, 48), (84, 104, 76), (92, 122, 152), (120, 136, 148)])


def render(subject: Subject, size: int, rng: Rng) -> NDArray[np.uint8]:
    """Paint a subject.

    Args:
        subject: geometry and attributes.
        size: width and height in pixels.
        rng: source of everything but geometry: materials, light, hair, scene, damage.

    Returns:
        RGB uint8 (size, size, 3).
    """
    scene = compose(subject, size, rng)
    style = hair_style(scene)
    surface = shade(scene, bald=style.bald)
    canvas = Canvas(background(size, rng))
    paint_behind(canvas, scene, style)
    paint_body(canvas, scene)
    near = "r" if subject.yaw < 0 else "l"  # the ear on the side that is turned to the camera
    turned = abs(subject.yaw) > 9
    if not style.over_ears:
        for side in "lr":
            if not turned or side != near:
                paint_ear(canvas, scene, side)
    face = Canvas(surface.skin)
    _paint_face(face, scene, surface)
    canvas.image.paste(face.image, (0, 0), _face_mask(scene, surface))
    if turned and not style.over_ears:
        paint_ear(canvas, scene, near)
    paint_hair(canvas, scene, style)
    if rng.random() < GLASSES:
        paint_glasses(canvas, scene, shades=0.1)
    if scene.has("occlusion"):
        occlude(canvas, scene, surface)
    return damage(canvas.image, rng, blurred=scene.has("blur"))


def _face_mask(scene: Scene, surface: Surface) -> Image.Image:
    """Return the coverage of the face, the nose in profile and the skirt."""
    parts = [scene.figure.outline_A2, *(surface.skirt_ST2[:-1, t] for t in (2, 4, 7))]
    if abs(scene.subject.yaw) > 20:
        parts.append(_nose_hull(scene))
    return coverage(scene.size, parts)


def _nose_hull(scene: Scene) -> Floats:
    """Return the convex outline (n, 2) of the lower nose, which may stand out past the far cheek."""
    tip = np.concatenate([scene.marks["bridge"], scene.marks["base"]])
    pieces = [tip, scene.marks["wing_l"], scene.marks["wing_r"]]
    return _hull(np.concatenate(pieces))


def _hull(points: Floats) -> Floats:
    """Return the convex hull (n, 2), by the monotone chain algorithm."""
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


def _paint_face(face: Canvas, scene: Scene, surface: Surface) -> None:
    """Paint the features on the shaded surface; the far eye comes before the nose, which may hide it."""
    rng, marks = scene.rng, scene.marks
    made_up = scene.has("make-up")
    plain = face.image.copy() if abs(scene.subject.yaw) > 18 else None
    iris = _IRISES[int(rng.integers(0, 2 if scene.skin.mean() < 130 else len(_IRISES)))]
    iris = iris * rng.uniform(0.8, 1.15)
    shadow = random_colour(rng, 0.3) if made_up else None
    brow_dark = rng.uniform(0.45, 0.95)
    far, near = ("r", "l") if scene.subject.yaw > 0 else ("l", "r")
    _paint_wrinkles(face, scene, surface)
    for side in (far, near):
        if made_up and shadow is not None:
            _paint_eye_shadow(face, scene, surface, side, shadow)
        _paint_brow(face, scene, surface, side, brow_dark)
        _paint_eye(face, scene, surface, side, iris, made_up=made_up)
        if side == far and plain is not None:
            ridge = marks["bridge"]
            base = marks[f"wing_{near}"].mean(axis=0)
            nose = np.concatenate([ridge, marks["base"][[2]], base[None]])
            found = face.mask(nose, soft=0.02 * scene.unit)
            if found:
                (x, y), (wide, tall) = found[1], found[0].size
                face.image.paste(plain.crop((x, y, x + wide, y + tall)), found[1], found[0])
    _paint_nose(face, scene, surface)
    _paint_mouth(face, scene, surface, made_up=made_up)


def _paint_brow(face: Canvas, scene: Scene, surface: Surface, side: str, dark: float) -> None:
    """Paint a soft patch and single hairs between the two curves of a brow."""
    rng, unit = scene.rng, scene.unit
    upper, lower = scene.marks[f"brow_upper_{side}"], scene.marks[f"brow_lower_{side}"]
    light = surface.light_at((upper[6] + lower[6]) / 2)
    colour = np.minimum(scene.hair * 0.75 + 5, scene.skin * 0.6) * light  # brows are darker than hair and skin
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


def _paint_eye(face: Canvas, scene: Scene, surface: Surface, side: str, iris: Floats, *, made_up: bool) -> None:
    """Paint the crease of the lid, the eyeball between the lids, and the lashes."""
    rng, unit = scene.rng, scene.unit
    upper, lower = scene.marks[f"lid_upper_{side}"], scene.marks[f"lid_lower_{side}"]
    crease = scene.marks[f"crease_{side}"]
    centre = scene.marks["pupil"][0 if side == "l" else 1]
    skin_here = scene.skin * surface.light_at(crease[6])
    face.fill(np.concatenate([crease, upper[::-1]]), skin_here * 0.5, 0.2, soft=0.015 * unit)
    face.stroke(crease[1:], taper(12, 0.020 * unit), skin_here * 0.55, 0.75, soft=0.007 * unit)
    bag = lower + scene.shift(0, 0.055)
    face.stroke(bag[2:], taper(11, 0.03 * unit), skin_here * 0.72, 0.30, soft=0.015 * unit)
    light = np.maximum(surface.light_at(centre), 0.05)
    opening = np.concatenate([upper, lower[::-1]])
    gap = float(np.abs(lower[6] - upper[6]).sum())
    if gap > 0.012 * unit:
        found = face.mask(opening)
        if found:
            patch = Patch(*found, np.array([236, 228, 224]) * rng.uniform(0.86, 1.0) * light)
            face.image.paste(_eyeball(scene, patch, upper, lower, centre, iris, light), found[1], found[0])
    lash = np.array([26, 20, 20]) * (1 if made_up else 1.3) * (0.4 + 0.6 * light)
    weight = (0.030 if made_up else 0.020) * unit
    face.stroke(upper, taper(13, weight, 0.5), lash, 0.9 if made_up else 0.72, soft=0.003 * unit)
    face.stroke(lower, taper(13, 0.45 * weight, 0.5), lash + 30, 0.55, soft=0.004 * unit)
    if made_up or scene.female > 0.7:
        outer = upper[0:9]
        away = (outer - (centre + scene.shift(0, 0.02))) * (0.30 if made_up else 0.18)
        lift = scene.shift(0, -0.02)
        face.hairs(np.stack([outer, outer + away + lift], 1), 0.010 * unit, lash, 0.85)


def _eyeball(
    scene: Scene, patch: Patch, upper: Floats, lower: Floats, centre: Floats, iris: Floats, light: Floats
) -> Image.Image:
    """Paint caruncle, iris, pupil, the lid's shadow and a glint on the white `patch`."""
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


def _paint_eye_shadow(face: Canvas, scene: Scene, surface: Surface, side: str, colour: Floats) -> None:
    upper, brow = scene.marks[f"lid_upper_{side}"], scene.marks[f"brow_lower_{side}"]
    reach = scene.rng.uniform(0.4, 0.75)
    top = upper + (brow - upper) * reach
    patch = np.concatenate([upper, top[::-1]])
    light = surface.light_at(upper[6])
    face.fill(patch, colour * light, scene.rng.uniform(0.35, 0.75), soft=0.018 * scene.unit)


def _paint_nose(face: Canvas, scene: Scene, surface: Surface) -> None:
    """Paint the nostrils, wings and base of the nose; the far nostril fades as the head turns."""
    unit, marks, yaw = scene.unit, scene.marks, scene.subject.yaw
    dark = scene.skin * np.array([0.30, 0.22, 0.22]) * (0.25 + 0.75 * surface.light_at(marks["base"][2]))
    for side, sign in (("l", -1), ("r", 1)):
        hidden = float(ramp(np.array(sign * yaw), 22, 48))
        hole = marks[f"nostril_{side}"]
        tall = float(np.ptp(hole[:, 1]))
        face.fill(hole, dark, (1 - hidden) * min(1.0, tall / (0.022 * unit)) * 0.9, soft=0.008 * unit)
        face.stroke(
            marks[f"wing_{side}"],
            taper(13, 0.022 * unit),
            dark * 1.5,
            0.55 * (1 - hidden),
            soft=0.009 * unit,
        )
    base = marks["base"] + scene.shift(0, 0.006)
    face.stroke(base, taper(5, 0.020 * unit), dark * 1.6, 0.35, soft=0.010 * unit)


def _paint_mouth(face: Canvas, scene: Scene, surface: Surface, *, made_up: bool) -> None:
    """Paint the lips and what shows between them."""
    rng, unit, marks = scene.rng, scene.unit, scene.marks
    outer_up, outer_low = marks["lip_outer_upper"], marks["lip_outer_lower"]
    inner_up, inner_low = marks["lip_inner_upper"], marks["lip_inner_lower"]
    light = surface.light_at((outer_up[6] + outer_low[6]) / 2)
    whole = np.concatenate([outer_up, outer_low[::-1]])
    upper = np.concatenate([outer_up, inner_up[::-1]])
    strength = rng.uniform(0.7, 1.0) if scene.female > 0.5 else rng.uniform(0.4, 0.9)
    face.tint(whole, (0.93, 0.66, 0.67), strength, soft=0.006 * unit)
    if made_up:
        stick = np.array([rng.uniform(120, 215), rng.uniform(10, 70), rng.uniform(25, 100)])
        face.fill(whole, stick * light, rng.uniform(0.55, 0.9), soft=0.004 * unit)
    face.fill(upper, np.array([60, 20, 24]) * light, 0.2, soft=0.008 * unit)
    glow = (outer_low * 0.55 + inner_low * 0.45)[3:10]
    shine = rng.uniform(0.1, 0.45) * (1.4 if made_up else 1.0)
    face.stroke(glow, taper(7, 0.032 * unit), np.array([255, 228, 220]) * light, shine, soft=0.012 * unit)
    face.stroke(
        outer_low + scene.shift(0, 0.012),
        taper(13, 0.03 * unit, 0.1),
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
    face.stroke(line, taper(15, 0.020 * unit, 0.4), np.array([62, 28, 28]) * light, 0.75, soft=0.004 * unit)
    for corner in (outer_up[0], outer_up[12]):
        spot = ellipse(corner, scene.axes[0] * 0.022, scene.axes[1] * 0.018, 8)
        face.fill(spot, scene.skin * 0.4 * light, 0.5, soft=0.010 * unit)


def _mouth_inside(scene: Scene, patch: Patch, gap: float, light: Floats) -> Image.Image:
    """Paint teeth and tongue on the dark `patch`."""
    rng, unit, marks = scene.rng, scene.unit, scene.marks
    up, low = marks["lip_inner_upper"], marks["lip_inner_lower"]
    if gap > 0.06 * unit:
        tongue = (low[3] + low[9]) / 2 + scene.shift(0, -0.02)
        width, height = scene.axes[0] * 0.14, scene.axes[1] * min(0.09, 0.55 * gap / unit)
        patch.fill(ellipse(tongue, width, height), np.array([168, 78, 80]) * light)
    tooth = np.array([238, 230, 216]) * rng.uniform(0.82, 1.0) * light
    drop = min(rng.uniform(0.05, 0.14) * unit, 0.95 * gap) if rng.random() < 0.9 else 0.0
    down = scene.axes[1] / max(float(np.hypot(*scene.axes[1])), 1e-6) * drop
    bow = np.sin(np.linspace(0.15, np.pi - 0.15, 13))[:, None]
    patch.fill(np.concatenate([up, (up + down * bow)[::-1]]), tooth)
    for k in range(3, 10):
        thin = ribbon(np.stack([up[k], up[k] + down * bow[k]]), 0.006 * unit)
        patch.fill(thin, tooth * 0.8)
    if gap > 0.12 * unit and rng.random() < 0.5:
        patch.fill(np.concatenate([low, (low - down * bow * 0.6)[::-1]]), tooth * 0.85)
    return patch.shrink()


def _paint_wrinkles(face: Canvas, scene: Scene, surface: Surface) -> None:
    """Paint creases of age and of the smile, blush and moles."""
    rng, unit, marks = scene.rng, scene.unit, scene.marks
    smile = scene.change("smile")
    depth = 0.10 + 0.35 * scene.age * rng.random() + 0.22 * max(smile, 0.0)
    for side in "lr":
        fold = marks[f"fold_{side}"]
        dark = scene.skin * 0.55 * surface.light_at(fold[4])
        face.stroke(fold, taper(9, 0.030 * unit, 0.1), dark, min(depth, 0.75), soft=0.014 * unit)
        if scene.age > 0.6:
            outer = marks[f"lid_upper_{side}"][0]
            way = -1 if side == "l" else 1
            steps = np.array([[(0.04 * way, lift / 2), (0.12 * way, lift)] for lift in (-0.06, 0.0, 0.05)])
            face.hairs(outer + steps @ np.stack(scene.axes), 0.012 * unit, dark, 0.35)
    lift = scene.change("brow_up")
    if scene.age > 0.5 or lift > 0.7:
        brow = np.concatenate([marks["brow_upper_l"][4:], marks["brow_upper_r"][:3:-1]])
        for k in range(int(rng.integers(1, 4))):
            line = brow + scene.shift(0, -0.13 - 0.09 * k)
            dark = scene.skin * 0.6 * surface.light_at(line[8])
            face.stroke(line, taper(len(line), 0.016 * unit), dark, 0.35, soft=0.008 * unit)
    if scene.has("make-up") and rng.random() < 0.7:
        rouge = np.array([rng.uniform(190, 230), 80, 90])
        for side in "lr":
            spot = marks[f"fold_{side}"][0] + scene.shift(-0.28 if side == "l" else 0.28, -0.1)
            patch = ellipse(spot, scene.axes[0] * 0.13, scene.axes[1] * 0.09)
            face.fill(patch, rouge * surface.light_at(spot), rng.uniform(0.15, 0.4), soft=0.05 * unit)
    for _ in range(int(rng.integers(0, 4))):
        arc, place = rng.integers(0, len(scene.figure.arcs_AR2)), rng.integers(3, 12)
        mole = scene.figure.arcs_AR2[arc, place]
        size = rng.uniform(0.008, 0.02)
        face.fill(ellipse(mole, scene.axes[0] * size, scene.axes[1] * size, 8), scene.skin * 0.4, 0.6)
