"""Compare the speed of nasface's data pipeline with the usual per-image OpenCV pipeline, with equal numbers of threads.

Run `python benchmarks/data_pipeline.py`. It generates its own photographs, so no dataset is needed. It first checks
that both sides compute the same, then times them in interleaved rounds and prints the median of each.

The per-image side (`per_image.py`) comes in two forms: one decodes a file for every sample, the other holds all
originals decoded in memory. The second separates the gain of decoding only once from that of working in batches.

Every side has the same number of threads T: nasface uses them as torch threads, the per-image side as T OpenCV and
torch threads or as T single-threaded workers. Files are read from a warm page cache.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from per_image import (
    MEAN_255,
    PER_POINT,
    REACH,
    SIGMA,
    STD_255,
    STRIDE,
    PerImage,
    loader,
    patches,
    prepare_with_opencv,
    read_bgr,
    run_through,
    warp,
)
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nasface.data import images as nasface_images
from nasface.data.augment import Augmentation, DeviceFaces, on_device
from nasface.data.base import Dataset, Index
from nasface.data.parallel import default_workers
from nasface.data.prepare import PreparedFaces, PrepareOptions, prepare
from nasface.data.w300 import W300
from nasface.task import decode, targets


@dataclass(frozen=True)
class Row:
    """One timed side.

    Attributes:
        section: what is compared.
        side: which implementation; the others of a section are compared with its first.
        images: number of images in one round.
        seconds: median over the rounds.
        spread: fastest and slowest round, in seconds.
        ratio: seconds divided by those of the first side; above 1 is slower.
    """

    section: str
    side: str
    images: int
    seconds: float
    spread: tuple[float, float]
    ratio: float


class Some:
    """A few training faces, evenly spread over a dataset, whose annotations are parsed beforehand."""

    def __init__(self, dataset: Dataset, number: int) -> None:
        faces = [face for face in dataset.index().faces if face.split == "train"]
        chosen = np.unique(np.linspace(0, len(faces) - 1, number).round().astype(int))
        self.name, self.scheme = dataset.name, dataset.scheme
        self.read, self.fingerprint = dataset.read, dataset.fingerprint
        self.faces = tuple(faces[i] for i in chosen)

    def index(self) -> Index:
        """The chosen faces."""
        return Index(self.faces)


def photographs(folder: Path, number: int, size: tuple[int, int] = (800, 600), seed: int = 0) -> Path:
    """Write JPEG files of cloudy noise, as detailed as photographs, with 68 landmarks each, in the layout of 300W."""
    rng = np.random.default_rng(seed)
    width, height = size

    def clouds() -> Image.Image:
        total = np.full((height, width, 3), 128.0)
        for octave, amplitude in ((8, 50), (32, 25), (128, 10), (min(size), 4)):
            small = rng.normal(0, amplitude, (octave * height // width + 1, octave, 3)).astype(np.float32)
            total += cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
        return Image.fromarray(total.clip(0, 255).astype(np.uint8))

    pictures = [clouds() for _ in range(min(number, 8))]
    target = folder / "afw"
    target.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        shift = rng.integers(0, size).tolist()
        picture = np.roll(np.asarray(pictures[i % len(pictures)]), shift, axis=(1, 0))
        Image.fromarray(picture).save(target / f"{i:05d}.jpg", quality=92)
        side = rng.uniform(0.3, 0.5) * height
        corner = rng.uniform(0.1, 0.9, 2) * (np.array(size) - side)
        points = corner + side * rng.uniform(0, 1, (68, 2)) + 1  # .pts files count from 1
        body = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
        (target / f"{i:05d}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{body}\n}}\n")
    return folder


# The nasface side.


def prepare_with_nasface(dataset: Some, options: PrepareOptions, folder: Path, threads: int) -> PreparedFaces:
    """Prepare the faces with nasface from scratch: without known hashes, in a new cache folder."""
    nasface_images._digests.clear()
    return prepare(dataset, options, folder, workers=threads)["train"]


def nasface_epoch(
    faces: DeviceFaces, batch: int, how: Augmentation, generator: torch.Generator, heatmaps: bool = True
) -> None:
    """Run one epoch of nasface's inputs and heatmaps."""
    cells = faces.input_size // STRIDE
    for part in faces.augmented(batch, how, generator):
        if heatmaps:
            targets(part.landmarks_BL2, (cells, cells), STRIDE, SIGMA)


def predicted_heatmaps(batch: int, size: int = 64, landmarks: int = 68, seed: int = 0) -> Tensor:
    """Return Gaussians with some noise, like the output of a network: (batch, landmarks, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, landmarks, 2, generator=generator) * (size * STRIDE - 1)
    heatmaps = targets(points, (size, size), STRIDE, SIGMA)
    return heatmaps + 0.02 * torch.rand(heatmaps.shape, generator=generator)


# Do both sides compute the same?


def check_preparation(dataset: Some, options: PrepareOptions, folder: Path) -> dict[str, float]:
    """Check that both sides prepare the same landmarks, and crops that differ only by interpolation.

    Raises:
        AssertionError: if they do not.
    """
    ours = prepare_with_nasface(dataset, options, folder / "check", 1)
    images, points = prepare_with_opencv(dataset.faces, options, folder / "check")
    apart = float(np.abs(ours.landmarks_NL2 - points).max())
    assert apart < 0.01, f"the points of the crops differ by {apart} px"
    return {"crop_points_px": apart, "crop_grey_levels": _image_difference(ours.images_NHWC, images)}


def check_batches(dataset: Some, prepared: PreparedFaces, how: Augmentation, number: int = 8) -> dict[str, float]:
    """Check that both sides give the same inputs and heatmaps for the augmentation that nasface draws.

    Raises:
        AssertionError: if they differ.
    """
    generator = torch.Generator().manual_seed(0)
    size, flip = prepared.input_size, np.array(prepared.scheme.flip)
    spread = STD_255[:, None, None], MEAN_255[:, None, None]
    theirs, ours, heatmap_difference = [], [], 0.0
    for i, face in enumerate(dataset.faces[:number]):
        (batch,) = on_device(prepared, torch.device("cpu"), [i]).augmented(1, how, generator)
        moved = batch.landmarks_BL2[0].double().numpy()
        fits = (_fit(face.landmarks_L2, moved), _fit(face.landmarks_L2, moved[flip]))
        matrix, error = min(fits, key=lambda fit: fit[1])
        assert error < 0.01, f"{face.name}: the points were moved by no affine map ({error} px)"
        theirs.append(warp(read_bgr(face), matrix, size) * spread[0] + spread[1])
        ours.append(batch.images_B3HW[0].numpy() * spread[0] + spread[1])
        cells = size // STRIDE
        heatmaps = targets(batch.landmarks_BL2, (cells, cells), STRIDE, SIGMA)[0].numpy()
        drawn = patches(moved, cells, STRIDE, SIGMA)
        heatmap_difference = max(heatmap_difference, float(np.abs(heatmaps - drawn).max()))
    # the patches of the per-image side end at three sigma
    assert heatmap_difference < math.exp(-(REACH**2) / 2) + 1e-4, f"the heatmaps differ by {heatmap_difference}"
    stacked = (np.stack(images).transpose(0, 2, 3, 1) for images in (ours, theirs))
    return {"input_grey_levels": _image_difference(*stacked), "heatmaps": heatmap_difference}


def check_decoding(heatmaps_BLhw: Tensor) -> dict[str, float]:
    """Check that both sides decode the same landmarks, in input pixels.

    Raises:
        AssertionError: if they differ.
    """
    found = {}
    size = heatmaps_BLhw.shape[-1] * STRIDE
    for decoder, per_point in PER_POINT.items():
        ours = decode(heatmaps_BLhw, size, decoder, SIGMA).numpy()
        found[f"{decoder}_px"] = apart = float(np.abs(ours - per_point(heatmaps_BLhw.numpy(), size)).max())
        assert apart < 0.01, f"{decoder}: the decoded points differ by {apart} px"
    return found


def _fit(source_L2: NDArray[np.float64], target_L2: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the affine map (2, 3) that fits `source_L2` to `target_L2`, and its largest error."""
    full = np.column_stack((source_L2, np.ones(len(source_L2))))
    matrix = np.linalg.lstsq(full, target_L2, rcond=None)[0]
    return matrix.T, float(np.abs(full @ matrix - target_L2).max())


def _image_difference(a_NHWC: NDArray[Any], b_NHWC: NDArray[Any]) -> float:
    """Return the mean absolute difference in grey levels, which must be smaller than if one were moved by a pixel."""
    a, b = a_NHWC.astype(np.float32), b_NHWC.astype(np.float32)
    inner = slice(2, -2)

    def difference(y: int, x: int) -> float:
        return float(np.abs(a - np.roll(b, (y, x), axis=(1, 2)))[:, inner, inner].mean())

    here, moved = difference(0, 0), min(difference(*by) for by in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    assert here < 0.7 * moved, f"the images differ by {here} grey levels, and by {moved} when moved by a pixel"
    return here


# Timing.


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each side in each round, after one warm-up call; rounds start with different sides."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(section: str, images: int, sides: Mapping[str, Callable[[], object]], rounds: int) -> list[Row]:
    """Time the sides of a section; the first one is nasface."""
    seconds = interleaved(sides, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = medians[next(iter(sides))]
    return [
        Row(section, name, images, medians[name], (min(values), max(values)), medians[name] / first)
        for name, values in seconds.items()
    ]


def time_preparation(dataset: Some, options: PrepareOptions, folder: Path, threads: int, rounds: int) -> list[Row]:
    """Time cold preparation. Only nasface hashes files, averages the pixels of large faces and checks annotations."""
    number = count()

    def fresh(call: Callable[[Path], object]) -> None:
        target = folder / f"round-{next(number)}"
        call(target)
        shutil.rmtree(target)

    sides = {
        f"nasface, {threads} threads": partial(
            fresh, lambda target: prepare_with_nasface(dataset, options, target, threads)
        ),
        f"OpenCV loop, {threads} OpenCV threads": partial(
            fresh, lambda target: prepare_with_opencv(dataset.faces, options, target)
        ),
    }
    if threads > 1:
        sides[f"OpenCV loop in {threads} Python threads"] = partial(
            fresh, lambda target: prepare_with_opencv(dataset.faces, options, target, threads)
        )
    return compare("preparation, cold", len(dataset.faces), sides, rounds)


def time_batches(
    dataset: Some, prepared: PreparedFaces, how: Augmentation, batch: int, threads: int, rounds: int
) -> list[Row]:
    """Time epochs of augmented inputs and heatmaps, then each of these two parts alone."""
    size, scheme, faces = prepared.input_size, prepared.scheme, dataset.faces
    ours, generator = on_device(prepared, torch.device("cpu")), torch.Generator().manual_seed(0)
    decoded = [read_bgr(face) for face in faces]
    images = len(faces) // batch * batch
    random.seed(0)
    sides: dict[str, Callable[[], object]] = {
        f"nasface, {threads} threads": partial(nasface_epoch, ours, batch, how, generator)
    }
    for title, kept in (("files", None), ("decoded originals", decoded)):
        samples = PerImage(faces, size, scheme, how, kept)
        for workers in (0, threads):
            sides[f"per image from {title}, {workers} workers"] = partial(run_through, loader(samples, batch, workers))
    rows = compare(f"training batches of {batch}", images, sides, rounds)

    bare = loader(PerImage(faces, size, scheme, how, decoded, heatmaps=False), batch, 0)
    parts: dict[str, Callable[[], object]] = {
        "nasface": partial(nasface_epoch, ours, batch, how, generator, heatmaps=False),
        "per image from decoded originals": partial(run_through, bare),
    }
    rows += compare("of these, inputs only", images, parts, rounds)

    points = ours.input_landmarks()[:batch]
    cells = size // STRIDE
    parts = {
        "nasface": lambda: targets(points, (cells, cells), STRIDE, SIGMA),
        "per landmark": lambda: torch.from_numpy(
            np.stack([patches(face.numpy(), cells, STRIDE, SIGMA) for face in points])
        ),
    }
    return rows + compare("of these, heatmaps only", len(points), parts, max(rounds, 3))


def time_decoding(heatmaps_BLhw: Tensor, rounds: int) -> list[Row]:
    """Time the decoding of heatmaps to landmarks."""
    batch, landmarks, size, _ = heatmaps_BLhw.shape
    rows = []
    for decoder, per_point in PER_POINT.items():
        sides = {
            "nasface": partial(decode, heatmaps_BLhw, size * STRIDE, decoder, SIGMA),
            "per point": partial(per_point, heatmaps_BLhw.numpy(), size * STRIDE),
        }
        rows += compare(f"decoding '{decoder}', {landmarks} x {size} x {size}", batch, sides, rounds)
    return rows


def use_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def benchmark(
    data_root: Path | None, faces: int, threads: int, rounds: int, batch: int, input_size: int
) -> dict[str, Any]:
    """Check and time everything, and return the result as plain values for JSON.

    Args:
        data_root: folder of 300W, or None for generated photographs.
        faces: number of faces.
        threads: number of threads of every side.
        rounds: number of interleaved rounds.
        batch: number of faces in a training batch.
        input_size: side of the network's input, in pixels.
    """
    use_threads(threads)
    options, how = PrepareOptions(input_size=input_size), Augmentation()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="nasface-benchmark-") as scratch:
        folder = Path(scratch)
        dataset = Some(W300(data_root or photographs(folder / "photographs", faces)), faces)
        batch = min(batch, len(dataset.faces))
        prepared = prepare_with_nasface(dataset, options, folder / "cache", threads)
        heatmaps = predicted_heatmaps(64)
        same = check_preparation(dataset, options, folder)
        same |= check_batches(dataset, prepared, how)
        same |= check_decoding(heatmaps[:8])
        rows = time_preparation(dataset, options, folder, threads, rounds)
        rows += time_batches(dataset, prepared, how, batch, threads, rounds)
        rows += time_decoding(heatmaps, rounds)
    return {
        "machine": f"{platform.processor() or platform.machine()}, {default_workers()} cores, load {load:.1f} at start",
        "versions": {"torch": torch.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
        "data": "300W" if data_root else "generated photographs, 800 x 600",
        "faces": len(dataset.faces),
        "threads": threads,
        "rounds": rounds,
        "batch": batch,
        "input_size": input_size,
        "differences": same,
        "rows": [asdict(row) for row in rows],
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the table and the notes below it."""
    table = Table(title="nasface against per-image code", title_justify="left")
    for column in ("", "side"):
        table.add_column(column, no_wrap=True)
    for column in ("ms / image", "images / s", "fastest - slowest round, ms", "time / nasface's"):
        table.add_column(column, justify="right", no_wrap=True)
    section = None
    for row in result["rows"]:
        each = [1e3 * value / row["images"] for value in (row["seconds"], *row["spread"])]
        if row["section"] != section:
            table.add_section()
        table.add_row(
            row["section"] if row["section"] != section else "",
            row["side"],
            f"{each[0]:.3f}",
            f"{1e3 / each[0]:.0f}",
            f"{each[1]:.3f} - {each[2]:.3f}",
            f"{row['ratio']:.2f}",
        )
        section = row["section"]
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    once = result["rows"][0]["seconds"]
    training = [row for row in result["rows"] if row["section"].startswith("training")]
    gain = min(row["seconds"] for row in training if "from files" in row["side"]) - training[0]["seconds"]
    pays = f"is repaid after {once / gain:.1f} epochs" if gain > 0 else "is not repaid"
    for line in (
        f"{result['data']}, {result['faces']} faces, input {result['input_size']} px, "
        f"heatmaps of a quarter; median of {result['rounds']} interleaved rounds.",
        f"{result['threads']} threads per side; {result['machine']}; {versions}.",
        f"Preparing once ({once:.2f} s) is not in nasface's training batches; against the fastest reader of files "
        f"it {pays}.",
        "Largest (landmarks, heatmaps) or mean (grey levels) differences between the two sides: "
        + ", ".join(f"{name} {value:.2g}" for name, value in result["differences"].items())
        + ".",
    ):
        console.print(line, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=256, help="number of faces, all held decoded in memory")
    parser.add_argument("--threads", type=int, default=default_workers(), help="number of threads of every side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--data-root", type=Path, help="folder of 300W, instead of generated photographs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args()
    result = benchmark(given.data_root, given.faces, given.threads, given.rounds, given.batch, given.input_size)
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
