"""Landmarks of given faces: cropped as for training, run in batches, mapped back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasface import detect, engine, plugins
from nasface.data.augment import normalise
from nasface.data.base import Face
from nasface.data.crop import Crop, PrepareOptions, crop_face
from nasface.data.parallel import default_workers, map_in_order
from nasface.detect import Boxes, FoundFaces, Pixels
from nasface.errors import DataError
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.task import decode

log = logging.getLogger(__name__)


def predict_faces(
    net: GraphNet,
    images: Sequence[Pixels],
    boxes: Sequence[NDArray[Any]],
    recipe: Recipe,
    *,
    refine: int = 0,
    batch: int = 64,
    workers: int | None = None,
) -> list[FoundFaces]:
    """Landmarks of given faces, cropped and decoded as the recipe says.

    Args:
        net: on any device; it is left in eval mode.
        images: uint8 (H, W, 3), RGB, each of a size of its own.
        boxes: (K, 4) x0, y0, x1, y1 of each image's faces in its pixels (0-based, integers at pixel centres): the boxes
            of the landmarks, or near them. K may be 0.
        recipe: of the network; its sections `data` and `task`, and `training.precision`.
        refine: how often to run again on the box of the network's own landmarks.
        batch: faces in a forward pass, whichever images they come from.
        workers: threads that crop; None takes the number of cores.

    Returns:
        The faces of each image, in the order of its boxes.

    Raises:
        DataError: when a box does not fit its image.
    """
    counts = [len(of_image) for of_image in boxes]
    image_N = np.repeat(np.arange(len(images)), counts)
    sizes_N2 = np.array([image.shape[1::-1] for image in images]).reshape(-1, 2)[image_N]
    boxes_N4 = np.concatenate([np.empty((0, 4)), *boxes])
    if not (sound := detect.fits(boxes_N4, sizes_N2)).all():
        bad = int(np.argmin(sound))
        raise DataError(
            f"the box {boxes_N4[bad].tolist()} does not fit image {image_N[bad]} of {sizes_N2[bad, 0]} x "
            f"{sizes_N2[bad, 1]} pixels; give x0, y0, x1, y1 that lie in it"
        )

    def look() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return _in_boxes(net, [images[i] for i in image_N.tolist()], boxes_N4, recipe, batch, workers)

    landmarks_NL2, scores_N = look()
    for _ in range(refine):
        own_N4 = detect.landmark_boxes(landmarks_NL2)
        boxes_N4 = np.where(detect.fits(own_N4, sizes_N2)[:, None], own_N4, boxes_N4)
        landmarks_NL2, scores_N = look()
    numbers_N = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
    faces = FoundFaces(boxes_N4, landmarks_NL2, scores_N, numbers_N)
    return [faces.take(image_N == i) for i in range(len(images))]


def _in_boxes(
    net: GraphNet, images_N: Sequence[Pixels], boxes_N4: Boxes, recipe: Recipe, batch: int, workers: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Landmarks (N, L, 2) in pixels of the images, and scores (N,)."""
    task, size, device = recipe.task, recipe.data.input_size, net.alpha.device
    # the crop of evaluation, with the box given
    options = PrepareOptions(size, margin=1, box="provided", box_scale=recipe.data.box_scale)
    flip = None
    if task.flip_test:
        scheme = plugins.dataset(recipe.data.name, recipe.data.root, recipe.data.options).scheme
        flip = torch.tensor(scheme.flip, device=device)

    def cut(i: int) -> Crop:
        x0, y0, x1, y1 = boxes_N4[i].tolist()
        face = Face(str(i), "test", (), boxes_N4[i].reshape(2, 2), None, (x0, y0, x1 - x0, y1 - y0))
        return crop_face(images_N[i], face, 2, options)

    landmarks, scores = [np.empty((0, net.num_landmarks, 2))], [np.empty(0)]
    net.eval()
    for start in range(0, len(boxes_N4), batch):
        part = range(start, min(start + batch, len(boxes_N4)))
        crops = list(map_in_order(cut, part, workers=min(workers or default_workers(), len(part))))
        pixels = torch.from_numpy(np.stack([crop.image for crop in crops])).to(device)
        with torch.inference_mode():
            images_B3HW = normalise(pixels.permute(0, 3, 1, 2))
            with engine.autocast(device, recipe.training.precision):
                heatmaps = engine.heatmaps_of(net, images_B3HW, flip)
            points = decode(heatmaps, size, task.decoder, task.sigma)
            peaks = heatmaps.float().amax(dim=(2, 3)).mean(dim=1)
        way = np.stack([crop.to_original_23 for crop in crops])
        points_BL2 = points.cpu().double().numpy()  # MPS has no float64
        landmarks.append(points_BL2 @ way[:, :, :2].transpose(0, 2, 1) + way[:, None, :, 2])
        scores.append(peaks.cpu().double().numpy())
    return np.concatenate(landmarks), np.concatenate(scores)
