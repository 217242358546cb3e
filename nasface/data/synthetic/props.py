"""What surrounds and hides a synthetic face: hair, ears, neck, clothes, glasses, masks, hands and objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface.data.synthetic.paint import Canvas, Floats, as_image, ellipse, random_colour, weave
from nasface.data.synthetic.posed import along_arcs
from nasface.data.synthetic.smooth import ramp, spline
from nasface.data.synthetic.surface import Scene, Surface


@dataclass(frozen=True)
class HairStyle:
    """The hairline along the upper arcs, the hair's volume, and how far it falls; or a hat in place of the hair."""

    bald: bool
    hat: bool
    over_ears: bool
    volume: float
    length: float  # below the ears, in head units; 0 for short hair
    line_S: Floats
    curl: float
    picture: Image.Image


HATS = 0.07  # share of the heads with a hat
_UPPER = np.concatenate([np.arange(58, 104), np.arange(0, 7)])  # from the right sideburn over to the left


def hair_style(scene: Scene) -> HairStyle:
    """Choose a haircut."""
    rng = scene.rng
    along = np.linspace(-1, 1, len(_UPPER))  # right sideburn to left sideburn
    bald = rng.random() < (0.12 if scene.female < 0.5 else 0.01)
    high = rng.uniform(4.2, 7.2) + (0.0 if scene.age < 0.6 else -1.0)
    temple = rng.uniform(2.5, 4.5)
    line = high + (temple - high) * np.abs(along) ** rng.uniform(1.5, 4)
    if rng.random() < 0.4:  # fringe
        line = line + rng.uniform(0.6, 3.2) * (1 - np.abs(along) ** 2)
        line = line + rng.uniform(0.1, 0.5) * rng.normal(0, 1, len(line))
    side = rng.uniform(-0.6, 0.6)
    hat = not bald and rng.random() < HATS
    if hat:
        line = rng.uniform(4.5, 8.5) - rng.uniform(0.0, 3.0) * along**2
    line = line + 0.8 * side * along + rng.normal(0, 0.02 if hat else 0.12, len(line))
    line = line * ramp(1 - np.abs(along), 0.0, rng.uniform(0.12, 0.3))
    long = scene.female > 0.5 and rng.random() < 0.8
    colour = random_colour(rng, rng.uniform(0.3, 1.0)) if hat else scene.hair
    return HairStyle(
        bald=bald,
        hat=hat,
        over_ears=bool(long and rng.random() < 0.7),
        volume=float(rng.uniform(0.03, 0.10) if rng.random() < 0.6 else rng.uniform(0.1, 0.3)),
        length=float(rng.uniform(0.5, 1.6)) if long else 0.0,
        line_S=np.clip(line, 0, 9.5),
        curl=float(rng.random()),
        picture=weave(scene.size, "cloud" if hat else "strand", colour * scene.light.diffuse + 4, 0.34, rng),
    )


def _lit_round(scene: Scene, centre: Floats, radius: float, colour: Floats) -> Image.Image:
    """Return a picture (size, size) of an upright, lit cylinder."""
    across = np.clip((np.arange(scene.size) - centre[0]) / radius, -0.96, 0.96)
    towards = scene.light.towards
    facing = across * towards[0] + np.sqrt(1 - across**2) * max(float(towards[2]), 0.0)
    lit = scene.light.ambient + np.maximum((facing + 0.15) / 1.15, 0)[:, None] * scene.light.key
    return as_image((lit * colour)[None]).resize((scene.size, scene.size), Image.Resampling.NEAREST)


def paint_behind(canvas: Canvas, scene: Scene, style: HairStyle) -> None:
    """Paint the back of the head and long hair that falls behind the shoulders."""
    camera = scene.figure.camera
    grow = 0.0 if style.bald else style.volume
    spread = np.diag(np.array([0.80 + grow, 0.88 + grow, 0.88 + grow]) ** 2)
    seen = (camera.rotation_33 @ spread @ camera.rotation_33.T)[:2, :2] * camera.scale**2
    half = np.linalg.cholesky(seen)
    centre = camera.project(np.array([0.0, -0.32, -0.28]))
    cranium = ellipse(centre, half[:, 0], half[:, 1], 40)
    if style.bald:
        canvas.texture(cranium, _lit_round(scene, centre, 0.85 * scene.unit, scene.skin * 0.95))
        return
    picture = style.picture
    canvas.texture(cranium, picture)
    if style.length:
        rng, unit = scene.rng, scene.unit
        wide, drop = 0.84 + style.volume, style.length + 0.45
        half_curtain = np.array([(-wide, -0.3), (-wide - 0.08, 0.3), (-wide - 0.16, 0.5 * drop + 0.2)])
        half_curtain = np.concatenate([half_curtain, [(-wide - 0.12, drop), (-0.5 * wide, drop + 0.15)]])
        ring = np.concatenate([half_curtain, half_curtain[::-1] * (-1, 1)])
        ring = ring + rng.normal(0, 0.03 + 0.04 * style.curl, ring.shape)
        lean = np.radians(scene.figure.roll * 0.5)
        turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
        curtain = spline(ring * unit, 4, closed=True) @ turn + centre + (0, 0.3 * unit)
        canvas.texture(curtain, picture)
        canvas.fill(curtain, scene.hair * 0.3, 0.35)


def paint_body(canvas: Canvas, scene: Scene) -> None:
    """Paint the neck in the shadow of the chin, the shoulders and clothes."""
    rng, unit, camera = scene.rng, scene.unit, scene.figure.camera
    left, right = camera.project(np.array([[-0.5, 0.80, -0.25], [0.5, 0.80, -0.25]]))
    down = np.array([np.sin(-np.radians(scene.figure.roll)) * 0.4, 1.0])
    foot = (left + right) / 2 + down * unit * rng.uniform(0.95, 1.2)
    half = np.array([0.55, 0.0]) * unit
    neck = np.stack([left, right, foot + half * 1.15, foot - half * 1.15])
    canvas.texture(neck, _lit_round(scene, foot, 0.66 * unit, scene.skin * 0.92))
    shadow = scene.figure.outline_A2[8:57] + np.array([-scene.light.towards[0] * 0.06, 0.16]) * unit
    canvas.fill(shadow, scene.skin * (0.25, 0.17, 0.15) * scene.light.diffuse, 0.42, soft=0.04 * unit)
    cloth = random_colour(rng, 0.5) * scene.light.on((0.0, -0.3, 0.9))
    slope, wide = rng.uniform(0.25, 0.5), rng.uniform(1.3, 1.8)
    x = np.array([-wide, -wide * 0.75, -0.62, -0.3, 0.0, 0.3, 0.62, wide * 0.75, wide])
    collar = rng.uniform(-0.1, 0.35)
    y = np.array([1.5, slope, 0.0, collar * 0.8, collar, collar * 0.8, 0.0, slope, 1.5]) - 0.12
    body = np.concatenate([np.stack([x, y], -1), [(wide, 4.0), (-wide, 4.0)]]) * unit + foot
    canvas.fill(body, cloth, soft=0.01 * unit)
    if rng.random() < 0.4:
        stripe = random_colour(rng) * scene.light.on((0.0, -0.3, 0.9))
        lines = [[(t, 0.35), (1.1 * t, 3.0)] for t in np.arange(-1.6, 1.6, rng.uniform(0.15, 0.5))]
        canvas.hairs(np.array(lines) * unit + foot, rng.uniform(0.03, 0.1) * unit, stripe, 0.8)
    rim = np.stack([x[2:7], y[2:7]], -1) * unit + foot
    canvas.stroke(rim, 0.07 * unit, cloth * rng.uniform(0.5, 1.4), 0.8, soft=0.01 * unit)


def paint_ear(canvas: Canvas, scene: Scene, side: str) -> None:
    """Paint one ear; hair may cover it later."""
    rim = scene.marks[f"ear_{side}"]
    middle = rim.mean(axis=0)
    facing = (-0.7 if side == "l" else 0.7, 0.0, 0.7)
    turned = scene.figure.camera.rotation_33 @ np.array(facing)
    colour = scene.skin * scene.light.on(tuple(turned)) * np.array([1.0, 0.93, 0.92])
    canvas.fill(rim, colour * 0.95)
    canvas.fill(middle + (rim - middle) * 0.72, colour * 0.68, 0.7, soft=0.02 * scene.unit)
    canvas.fill(middle + (rim - middle) * 0.40, colour * 0.5, 0.7, soft=0.02 * scene.unit)


def paint_hair(canvas: Canvas, scene: Scene, style: HairStyle) -> None:
    """Paint the hair above the hairline, single strands, and locks beside the face."""
    if style.bald:
        return
    rng, unit = scene.rng, scene.unit
    rim = scene.figure.outline_A2[_UPPER]
    inner = along_arcs(scene.figure.arcs_AR2[_UPPER], np.maximum(style.line_S, scene.figure.reach_A[_UPPER]))
    along = np.linspace(-1, 1, len(_UPPER))
    thick = style.volume * ramp(1 - np.abs(along), 0.0, 0.35) + 0.012
    out = rim - scene.figure.outline_A2.mean(axis=0)
    out /= np.hypot(out[:, 0], out[:, 1])[:, None]
    ragged = 1 + 0.15 * style.curl * rng.normal(0, 1, len(thick))
    outer = rim + out * (thick * ragged * unit)[:, None]
    picture = style.picture
    canvas.texture(np.concatenate([outer, inner[::-1]]), picture)
    shadow = inner + (inner - outer) * 0.04
    canvas.stroke(shadow, 0.04 * unit, scene.skin * 0.35, 0.30, soft=0.02 * unit)
    if style.hat:
        brim = rng.uniform(0.03, 0.12) * unit
        canvas.stroke(inner, brim, random_colour(rng, 0.7) * scene.light.diffuse, soft=0.01 * unit)
        return
    count = 36
    first = rng.uniform(2, len(_UPPER) - 3, count)
    second = np.clip(first + rng.normal(0, 2.5, count), 1, len(_UPPER) - 2)
    grow = rng.uniform(0.75, 1.12, (count, 1))
    index = np.arange(len(_UPPER))
    root = np.stack([np.interp(first, index, outer[:, k]) for k in range(2)], -1)
    tip = np.stack([np.interp(second, index, inner[:, k]) for k in range(2)], -1)
    strands = np.stack([root, root + (tip - root) * grow], 1)
    lit = scene.hair * scene.light.diffuse
    canvas.hairs(strands[::2], 0.014 * unit, lit * 0.55, 0.6)
    canvas.hairs(strands[1::2], 0.012 * unit, lit * 1.5 + 10, 0.35)
    if style.over_ears:
        for indices, sign in ((_UPPER[:10], -1), (_UPPER[-10:][::-1], 1)):
            _paint_lock(canvas, scene, style, indices, sign)


def _paint_lock(
    canvas: Canvas,
    scene: Scene,
    style: HairStyle,
    arcs: NDArray[np.intp],
    side: int,
) -> None:
    """Paint long hair beside the face, outside its outline, from the temple down past the jaw."""
    rng, unit = scene.rng, scene.unit
    jaw = scene.figure.outline_A2[[61, 54, 46] if side < 0 else [3, 10, 18]]
    temple = scene.figure.outline_A2[arcs[6]]
    edge = np.stack([temple, *jaw])
    out = edge - scene.figure.outline_A2.mean(axis=0)
    out = out / np.hypot(out[:, 0], out[:, 1])[:, None]
    across = np.array([1.0 if side < 0 else -1.0, 0.0])
    over = rng.uniform(0.0, 0.14) if rng.random() < 0.5 else 0.0  # how far the hair covers the cheek
    inside = edge + out * ((np.array([0.02, 0.01, 0.015, 0.03]) - over) * unit)[:, None]
    inside[3] = inside[2] + (inside[3] - inside[2]) * 0.5 + across * 0.10 * unit
    wide = np.array([0.05, 0.09, 0.17, 0.24]) + style.volume * np.array([0.4, 0.4, 0.6, 0.7])
    outside = edge + across * (wide * unit)[:, None] + rng.normal(0, 0.02 + 0.03 * style.curl, (4, 2)) * unit
    end = inside[3] + across * rng.uniform(0.0, 0.25) * unit + np.array([0.0, style.length * 0.8 * unit])
    lock = spline(np.concatenate([inside, end[None], outside[::-1]]), 5, closed=True)
    canvas.texture(lock, style.picture)


# ------------------------------------------------------------------------------------------- occluders


def occlude(canvas: Canvas, scene: Scene, surface: Surface) -> None:
    """Paint one of the things that hide parts of a face."""
    kind = int(scene.rng.integers(0, 6))
    if kind == 0:
        _surgical_mask(canvas, scene, surface)
    else:
        (paint_glasses, paint_glasses, _hand, _hair_lock, _object)[kind - 1](canvas, scene)


def paint_glasses(canvas: Canvas, scene: Scene, shades: float = 0.6) -> None:
    """Paint glasses, which have dark lenses with the probability `shades`."""
    rng, unit = scene.rng, scene.unit
    dark = rng.random() < shades
    frame = random_colour(rng, 0.6) * rng.uniform(0.1, 0.9) * scene.light.on((0, -0.2, 0.9))
    wide, tall, square = rng.uniform(0.19, 0.275), rng.uniform(0.09, 0.21), rng.uniform(2.0, 4.5)
    thick = rng.uniform(0.015, 0.05) * unit
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.stack([np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / square) * wide,
                     np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / square) * tall + 0.03], -1)  # fmt: skip
    camera = scene.figure.camera
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
        if sign * scene.subject.yaw < 8:  # the arm of the glasses shows on the side that is turned to the camera
            hinge = rim[np.argmax(np.abs(ring[:, 0] * sign + (ring[:, 0] * sign > 0)))]
            hinge = camera.project(np.array([(0.35 + wide) * sign, -0.02, 0.95]))
            ear = camera.project(np.array([0.84 * sign, 0.0, -0.02]))
            canvas.stroke(np.stack([hinge, ear]), thick, frame)


def _surgical_mask(canvas: Canvas, scene: Scene, surface: Surface) -> None:
    rng, unit = scene.rng, scene.unit
    jaw = scene.figure.outline_A2[10:55]
    centre = scene.figure.outline_A2.mean(axis=0)
    out = jaw - centre
    jaw = jaw + out / np.hypot(out[:, 0], out[:, 1])[:, None] * (0.02 * unit)
    top = scene.marks["bridge"][int(rng.integers(1, 3))] + scene.shift(0, rng.uniform(-0.02, 0.06))
    left, right = (
        scene.marks["fold_l"][0] + scene.shift(-0.2, -0.16),
        scene.marks["fold_r"][0] + scene.shift(0.2, -0.16),
    )
    colour = np.array([(150, 196, 222), (236, 238, 240), (34, 34, 38), random_colour(rng)][int(rng.integers(0, 4))])
    for side, ear in (("l", jaw[0]), ("r", jaw[-1])):
        if (scene.subject.yaw if side == "r" else -scene.subject.yaw) < 12:  # otherwise the head hides the loop
            loop = np.stack([ear, scene.marks[f"ear_{side}"].mean(axis=0)])
            canvas.stroke(loop, 0.02 * unit, (230, 230, 230))
    nose = [top + scene.shift(0.10, 0.04), top, top + scene.shift(-0.10, 0.04)]
    rim = spline(np.stack([jaw[-1], right, *nose, left, jaw[0]]), 4)
    shape = np.concatenate([jaw, rim])
    canvas.texture(shape, surface.light_picture(scene.size, colour), soft=0.006 * unit)
    for share in (0.25, 0.5, 0.75):
        line = np.stack(
            [
                jaw[int(20 * share)],
                scene.marks["base"][2] * (1 - share) + jaw[22] * share,
                jaw[-1 - int(20 * share)],
            ]
        )
        canvas.stroke(line, 0.015 * unit, colour * 0.6, 0.5, soft=0.006 * unit)


def _hand(canvas: Canvas, scene: Scene) -> None:
    rng, unit = scene.rng, scene.unit
    base = scene.skin * scene.light.on((0, 0, 1)) * rng.uniform(0.9, 1.08)
    side = rng.choice([-1, 1])
    target = scene.marks["base"].mean(axis=0) + scene.shift(side * rng.uniform(0.15, 0.7), rng.uniform(-0.6, 0.7))
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


def _hair_lock(canvas: Canvas, scene: Scene) -> None:
    rng, unit = scene.rng, scene.unit
    lit = scene.hair * scene.light.diffuse + 4
    start = scene.figure.arcs_AR2[84, 3] + scene.shift(rng.normal(0, 0.25), 0)
    end = scene.marks["base"].mean(axis=0) + scene.shift(
        rng.choice([-1, 1]) * rng.uniform(0.25, 0.75), rng.uniform(-0.5, 0.6)
    )
    t = np.linspace(0, 1, 14)[:, None]
    for _ in range(int(rng.integers(14, 30))):
        bow = scene.shift(rng.normal(0, 0.12), rng.normal(0, 0.1)) * 4 * t * (1 - t)
        line = start + (end - start) * t + bow + rng.normal(0, 0.07, 2) * unit * (0.4 + t)
        width = rng.uniform(0.015, 0.06) * unit * (1.1 - t[:, 0])
        canvas.stroke(line, width, lit * rng.uniform(0.6, 1.4), 0.9)


def _object(canvas: Canvas, scene: Scene) -> None:
    """Paint a lit shape over a part of the face, such as a cup, a microphone or a book."""
    rng, unit = scene.rng, scene.unit
    places = ("lip_outer_lower", "lid_upper_l", "lid_upper_r", "fold_l", "fold_r")
    centre = scene.marks[places[int(rng.integers(0, 5))]].mean(axis=0) + rng.normal(0, 0.2, 2) * unit
    angle = rng.uniform(0, np.pi)
    first = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.2, 0.55) * unit
    second = np.array([-np.sin(angle), np.cos(angle)]) * rng.uniform(0.2, 0.45) * unit
    shape = ellipse(centre, first, second) if rng.random() < 0.5 else _corners(centre, first, second)
    colour = random_colour(rng, 0.2) * scene.light.on((0, 0, 1))
    canvas.texture(shape, weave(scene.size, "cloud", colour, rng.uniform(0, 0.25), rng))
    canvas.stroke(np.concatenate([shape, shape[:2]]), 0.03 * unit, colour * 0.6, 0.8, soft=0.01 * unit)
    gleam = np.stack([centre - first * 0.7, centre + first * 0.7]) - second * 0.4
    canvas.stroke(gleam, 0.1 * unit, colour * 1.3 + 20, 0.5, soft=0.04 * unit)


def _corners(centre: Floats, first: Floats, second: Floats) -> Floats:
    corners: Floats = np.stack([centre + a * first + b * second for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    return corners
