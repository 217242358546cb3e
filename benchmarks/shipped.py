"""Put a trained network into nasface/networks, and measure what its card says: NAME.safetensors and NAME.json.

    python benchmarks/shipped.py face68 --data-root DIR                     # measure again
    python benchmarks/shipped.py face68 --data-root DIR --run runs/face68   # first take the network of this run

`DIR` holds the folders of 300W. The words of the card (about, licence, trained_on, chosen_by, command, limits) are
those that NAME.json has already.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.stats import spearmanr

import nasface
from nasface import plugins, rundir
from nasface.cost import count_module
from nasface.data.prepare import PreparedFaces, PrepareOptions, prepare
from nasface.model import Model, shipped
from nasface.scores import Normaliser
from nasface.stages.measure import errors as errors_of
from nasface.stages.measure import measure, true_landmarks
from nasface.timing import in_turn

SEEN = {"precision": "fp32", "flip_test": True}
"""How a network in the box sees a face, whatever it was trained with: bf16 is slow on most processors, and the mean of
the heatmaps of a face and of its mirror image is worth a second pass."""
TILE = 144  # pixels
WORDS = ("about", "licence", "trained_on", "chosen_by", "command", "limits")


def predicted(model: Model, faces: PreparedFaces) -> tuple[Any, Any]:
    """Return the landmarks (N, L, 2) and confidences (N, L) of prepared faces, in pixels of the network's input."""
    window = slice(faces.pad, faces.pad + faces.input_size)
    crops = faces.images_NHWC[:, window, window]
    parts = [model.runtime.run(np.ascontiguousarray(crops[i : i + 64])) for i in range(0, len(crops), 64)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def faces_of(model: Model, dataset: str, root: Path | None, options: dict[str, Any]) -> PreparedFaces:
    """Return the test faces of a dataset, cropped as the network sees them."""
    view = model.view
    crop = PrepareOptions(view.input_size, view.margin, view.box, view.box_scale)
    return prepare(plugins.dataset(dataset, root, options), crop)["test"]


def figures_of(model: Model, test: PreparedFaces, points: Any) -> dict[str, Any]:
    """Return the figures of each test subset."""
    rows = measure(model.name, points, test).subsets[Normaliser.INTER_OCULAR].items()
    return {
        name: {"faces": r.images, "nme": round(r.nme, 5), "fr10": round(r.failure_rate[0.1], 4)}
        for name, r in rows
        if r.images
    }


def sheet(model: Model, faces: PreparedFaces, points_NL2: Any) -> Image.Image:
    """Draw the landmarks of six typical faces, and of the six with the largest errors below them."""
    by_error = np.argsort(errors_of(points_NL2, true_landmarks(faces), faces.scheme)[Normaliser.INTER_OCULAR])
    middle = len(by_error) // 2
    chosen = [*by_error[middle - 3 : middle + 3], *by_error[-6:]]
    picture, side = Image.new("RGB", (6 * TILE, 2 * TILE)), faces.input_size
    for place, i in enumerate(chosen):
        crop = faces.images_NHWC[i, faces.pad : faces.pad + side, faces.pad : faces.pad + side]
        tile = Image.fromarray(crop).resize((TILE, TILE), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(tile)
        for x, y in (points_NL2[i] + 0.5) * TILE / side - 0.5:
            pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(0, 220, 150))
        picture.paste(tile, (place % 6 * TILE, place // 6 * TILE))
    return picture


def confidence(peaks_NL: Any, points_NL2: Any, faces: PreparedFaces) -> dict[str, float]:
    """Return how the confidence is distributed, and its rank correlation with the error (Spearman)."""
    true = true_landmarks(faces)
    eyes_N = np.linalg.norm(true[:, 36] - true[:, 45], axis=1)  # of the 68 landmarks
    error_NL = np.linalg.norm(points_NL2 - true, axis=2) / eyes_N[:, None]
    found = {f"p{p}": float(np.percentile(peaks_NL.mean(axis=1), p)) for p in (5, 50, 95)}
    found["rank_correlation_of_landmarks"] = spearmanr(peaks_NL.ravel(), error_NL.ravel()).statistic
    found["rank_correlation_of_faces"] = spearmanr(peaks_NL.mean(axis=1), error_NL.mean(axis=1)).statistic
    return {name: round(float(value), 3) for name, value in found.items()}


def detected(model: Model, root: Path) -> dict[str, Any]:
    """Return the error with a detector instead of true boxes, as `nasface predict` finds the faces of the pictures.

    Of the faces in a picture, the one whose landmarks are nearest to the annotated ones is taken. A face is missed if
    there is none within one inter-ocular distance.
    """
    dataset = plugins.dataset("300w", root, {})
    found = []
    for face in dataset.index().faces:
        if face.split == "test":
            true = face.landmarks_L2
            eyes = np.linalg.norm(true[36] - true[45])
            seen = model.predict(dataset.read(face))
            found.append(min((np.linalg.norm(f.landmarks - true, axis=1).mean() / eyes for f in seen), default=np.inf))
    error_N = np.array(found)
    hit = error_N < 1
    return {"faces": len(hit), "missed": int((~hit).sum()), "nme": round(float(error_N[hit].mean()), 5)}


def latency_ms(model: Model, rounds: int = 50) -> float:
    """Return the median time in milliseconds from the crop of one face to its landmarks."""
    crop = np.zeros((1, model.view.input_size, model.view.input_size, 3), np.uint8)
    (seconds,) = in_turn([lambda: model.runtime.run(crop)], rounds, warmup=0)
    return 1e3 * median(seconds)


@click.command()
@click.argument("name")
@click.option("--data-root", type=click.Path(path_type=Path, exists=True), required=True, help="Folders of 300W.")
@click.option("--picture", type=click.Path(path_type=Path), default="docs/images/face68.jpg", show_default=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), help="Run folder to take the network from.")
def main(name: str, data_root: Path, run: Path | None, picture: Path) -> None:
    """Measure a network that comes with nasface."""
    torch.set_num_threads(1)
    weights = shipped.FOLDER / f"{name}.safetensors"
    if run:
        found = nasface.load(run)
        replace(found, view=replace(found.view, **SEEN)).save(weights)
    path = weights.with_suffix(".json")
    words = json.loads(path.read_text())
    model = nasface.load(name)
    real = faces_of(model, "300w", data_root, {})
    painted = faces_of(model, "synthetic", None, {"train": 0, "test": 400})
    (real_points, real_peaks), (points, peaks) = predicted(model, real), predicted(model, painted)
    sheet(model, painted, points).save(picture, quality=85)
    cost = count_module(model.module, torch.zeros(1, 3, model.view.input_size, model.view.input_size))
    passes = 2 if model.view.flip_test else 1
    content = {key: words[key] for key in WORDS} | {
        "params": cost.params,
        "passes": passes,
        "macs": cost.macs * passes,
        "nme": {
            "300w": {k: v for k, v in figures_of(model, real, real_points).items() if k != "full"},
            "synthetic": figures_of(model, painted, points),
        },
        "detected": detected(model, data_root),
        "latency_ms": round(latency_ms(model), 2),
        "latency_of": "one face on one CPU core, from crop to landmarks, PyTorch",
        "score": {
            "300w": confidence(real_peaks, real_points, real),
            "synthetic": confidence(peaks, points, painted),
        },
    }
    rundir.write_text(path, json.dumps(content, indent=1) + "\n")
    click.echo(path.read_text())


if __name__ == "__main__":
    main()
