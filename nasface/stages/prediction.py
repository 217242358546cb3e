"""Landmarks of faces in images and videos: cropped as for training, run in batches, mapped back to the image's pixels."""

from __future__ import annotations

import logging
import pkgutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from nasface import __version__, detect, engine, plugins, rundir
from nasface.arch import Architecture
from nasface.data.augment import normalise
from nasface.data.base import Face
from nasface.data.crop import Crop, PrepareOptions, crop_face
from nasface.data.images import IMAGE_SUFFIXES
from nasface.data.parallel import default_workers, map_in_order
from nasface.detect import Boxes, Detector
from nasface.errors import DataError, RecipeError, RunError, did_you_mean
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.stages.networks import arch_graph, build_net, check_size, load_net
from nasface.stages.work import Machine, use_threads
from nasface.task import decode

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
DETECTORS: dict[str, Detector] = {"haar": detect.haar, "whole": detect.whole}
_BYTES_AHEAD = 256 << 20  # of decoded images that wait for a full batch
_STEADY = (0.5, 1.5)  # a tracked face grows or shrinks by no more than this from frame to frame


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """The faces of one image, in its pixels: 0-based, integers at pixel centres.

    Attributes:
        boxes_K4: float64 x0, y0, x1, y1, in which the network looked last (before box_scale).
        landmarks_KL2: float64 x and y.
        scores_K: float64, the mean over landmarks of the heatmap's peak: near 1 for a clear face, near 0 for none.
    """

    boxes_K4: Boxes
    landmarks_KL2: NDArray[np.float64]
    scores_K: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes_K4)

    def take(self, index_K: NDArray[Any]) -> FoundFaces:
        """Some of the faces, by index or mask."""
        return FoundFaces(self.boxes_K4[index_K], self.landmarks_KL2[index_K], self.scores_K[index_K])


@dataclass(frozen=True)
class Settings:
    """How faces are looked for.

    Attributes:
        refine: how often the network runs again on the box of its own landmarks.
        batch: faces in a forward pass.
        min_score: detected faces below it are dropped, and tracked ones given up.
        every: frames of a video from one detection to the next.
        overlay: whether to draw the faces too.
    """

    refine: int = 1
    batch: int = 64
    min_score: float = 0.2
    every: int = 10
    overlay: bool = False


@dataclass(frozen=True)
class Picture:
    """An image or video: its file, and what it is called below the output folder."""

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """By the extension."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True, eq=False)
class Seen:
    """One image, or one frame of a video, and the faces found; `numbers` tells the faces of a video apart."""

    picture: Picture
    frame: int | None
    image_HW3: NDArray[np.uint8] = field(repr=False)
    faces: FoundFaces
    numbers: Sequence[int]


def load_network(recipe: Recipe, arch: Architecture | None, weights: Path, device: torch.device) -> GraphNet:
    """A trained network in eval mode.

    Args:
        recipe: its space and input size.
        arch: of a slim network; None for the full graph of the recipe's space.
        weights: of the network, or of its supernet.
        device: where it goes.

    Raises:
        RunError: the weights do not fit.
        GraphError: the architecture or the input size does not fit the space.
    """
    if arch is None:
        meta = rundir.read_tensors(weights)[1]
        if "num_landmarks" not in meta:
            raise RunError(f"{weights} does not say how many landmarks its network has; give weights made by nasface")
        num_landmarks = int(meta["num_landmarks"])
    else:
        num_landmarks = arch.num_landmarks
    full = build_net(recipe, num_landmarks, device)
    check_size(recipe.data.input_size, full.space)
    return load_net(full, full.graph if arch is None else arch_graph(arch, full), weights).eval()


def predict_faces(
    net: GraphNet,
    images: Sequence[NDArray[np.uint8]],
    boxes: Sequence[NDArray[Any]],
    recipe: Recipe,
    *,
    refine: int = 0,
    batch: int = 64,
    workers: int | None = None,
) -> list[FoundFaces]:
    """Landmarks of given faces, decoded as the recipe says (its sections `data`, `task`, and `training.precision`).

    Args:
        net: on any device; it runs in eval mode.
        images: uint8 (H, W, 3), RGB, each of a size of its own.
        boxes: (K, 4) x0, y0, x1, y1 of each image's faces in its pixels; K may be 0.
        recipe: of the network.
        refine: how often to run again on the box of the network's own landmarks.
        batch: faces in a forward pass, whichever images they come from.
        workers: threads that crop; None takes the number of cores.

    Returns:
        The faces of each image, in the order of its boxes.

    Raises:
        DataError: when a box does not fit its image.
    """
    image_N = np.repeat(np.arange(len(images)), [len(b) for b in boxes])
    sizes_N2 = np.array([image.shape[1::-1] for image in images]).reshape(-1, 2)[image_N]
    boxes_N4 = np.concatenate([np.empty((0, 4)), *boxes])
    if not (sound := detect.fits(boxes_N4, sizes_N2)).all():
        bad = int(np.argmin(sound))
        raise DataError(
            f"box {boxes_N4[bad].tolist()} does not fit image {image_N[bad]} of {sizes_N2[bad, 0]} x {sizes_N2[bad, 1]}"
        )
    crops = partial(_crops, images, image_N, options=_cropping(recipe), workers=workers)
    landmarks_NL2, scores_N = _look(net, crops, boxes_N4, recipe, batch)
    for _ in range(refine):
        own_N4 = detect.landmark_boxes(landmarks_NL2)
        boxes_N4 = np.where(detect.fits(own_N4, sizes_N2)[:, None], own_N4, boxes_N4)
        landmarks_NL2, scores_N = _look(net, crops, boxes_N4, recipe, batch)
    faces = FoundFaces(boxes_N4, landmarks_NL2, scores_N)
    return [faces.take(image_N == i) for i in range(len(images))]


def _cropping(recipe: Recipe) -> PrepareOptions:
    """The crop of evaluation for a given box: what training sees without augmentation."""
    return PrepareOptions(recipe.data.input_size, margin=1, box="provided", box_scale=recipe.data.box_scale)


def _crops(
    images: Sequence[NDArray[np.uint8]],
    image_N: NDArray[np.intp],
    boxes_N4: Boxes,
    part: range,
    options: PrepareOptions,
    workers: int | None,
) -> list[Crop]:
    def cut(i: int) -> Crop:
        corners_22 = boxes_N4[i].reshape(2, 2)
        x, y, width, height = *corners_22[0].tolist(), *(corners_22[1] - corners_22[0]).tolist()
        face = Face(str(i), "test", (), corners_22, None, (x, y, width, height))
        return crop_face(images[image_N[i]], face, 2, options)

    return list(map_in_order(cut, part, workers=min(workers or default_workers(), len(part))))


def _look(
    net: GraphNet, crops: Callable[[Boxes, range], list[Crop]], boxes_N4: Boxes, recipe: Recipe, batch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Landmarks (N, L, 2) in pixels of the images and scores (N,), in batches."""
    task, device, total = recipe.task, net.alpha.device, len(boxes_N4)
    flip = None
    if task.flip_test:
        flip = torch.tensor(plugins.dataset(recipe.data.name, recipe.data.root, recipe.data.options).scheme.flip)
    found, scores = [np.empty((0, net.num_landmarks, 2))], [np.empty(0)]
    net.eval()
    for start in range(0, total, batch):
        cut = crops(boxes_N4, range(start, min(start + batch, total)))
        inputs = torch.from_numpy(np.stack([crop.image for crop in cut])).to(device)
        with torch.inference_mode(), engine.autocast(device, recipe.training.precision):
            images_B3HW = normalise(inputs.permute(0, 3, 1, 2))
            heatmaps = net(images_B3HW)
            if flip is not None:
                heatmaps = 0.5 * (heatmaps + net(images_B3HW.flip(3)).flip(3)[:, flip.to(device)])
        points = decode(heatmaps, recipe.data.input_size, task.decoder, task.sigma).cpu().double().numpy()
        way = np.stack([crop.to_original_23 for crop in cut])
        found.append(points @ way[:, :, :2].transpose(0, 2, 1) + way[:, None, :, 2])
        scores.append(heatmaps.float().amax(dim=(2, 3)).mean(dim=1).cpu().double().numpy())
    return np.concatenate(found), np.concatenate(scores)


def predict(
    recipe: Recipe,
    arch: Architecture | None,
    weights: Path,
    inputs: Sequence[Path],
    out: Path,
    machine: Machine,
    *,
    detector: str = "haar",
    boxes: Path | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Find the landmarks of all faces in images, folders and videos.

    Writes landmarks.csv and landmarks.json into `out`, and pictures into `out`/overlays if the settings say so.

    Args:
        recipe, arch, weights: see `load_network`.
        inputs: image files, videos and folders of them; may be empty where `boxes` names the images.
        out: folder.
        machine: device, progress and workers.
        detector: a name of `DETECTORS`, or 'module:attr' of a `nasface.detect.Detector`.
        boxes: a csv of face boxes (see `nasface.detect.read_boxes`), instead of a detector.
        settings: how faces are looked for.

    Returns:
        The content of landmarks.json.

    Raises:
        DataError: when there is no readable image, or no face in any.
        RecipeError, RunError: when detector or network cannot be had.
    """
    settings = settings or Settings()
    pictures = find_pictures(inputs, out)
    if boxes is None:
        find: Find = partial(_detect, find_detector(detector), detector)
    else:
        pictures, given = _boxed(boxes, inputs, pictures)
        find = partial(_given, given)
    if not pictures:
        raise DataError("there is no image or video to look at; name image files, videos or folders that hold some")
    videos = {picture: _open_video(picture.path) for picture in pictures if picture.is_video}
    device = engine.pick_device(machine.device)
    use_threads(recipe)
    net = load_network(recipe, arch, weights, device)
    started = time.perf_counter()
    images = [picture for picture in pictures if not picture.is_video]
    machine.progress.begin("predict", len(images) + sum(_frame_count(video) for video in videos.values()), 0)
