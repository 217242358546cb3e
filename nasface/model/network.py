"""A network in use: from images and face boxes to landmarks in pixels of the images. Without torch of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nasface import detect, untrusted
from nasface.arch import Architecture
from nasface.data.crop import Crop, crop_box
from nasface.data.images import check_pixels, decoded, to_rgb
from nasface.data.parallel import default_workers, map_in_order
from nasface.detect import Boxes, Detector, FoundFaces, Pixels
from nasface.errors import DataError, RunError, shortened, similar
from nasface.model.card import Card, View, write_net
from nasface.model.runtime import Runtime, TorchRuntime

if TYPE_CHECKING:
    from nasface.net import GraphNet

AnyImage = str | Path | Image.Image | NDArray[Any]
"""A file, a PIL image, or a uint8 array: (H, W, 3) in RGB order, or (H, W) in grey."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image.

    Attributes:
        box: (4,) x0, y0, x1, y1 in pixels of the image, 0-based, with integers at pixel centres.
        landmarks: (L, 2) x and y in the same coordinates.
        score: mean over the landmarks of the heatmap's peak: near 1 for a face like those of the training set, near 0
            where there is no face.
        confidence: (L,) the peak of each landmark's heatmap; `score` is their mean.
    """

    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    score: float
    confidence: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """A landmark network with everything needed to use it, as `nasface.load` returns it.

    Attributes:
        runtime: what runs it, PyTorch or that of an exported file.
        architecture: its search space and its kept edges.
        view: how it sees a face: landmark scheme, input size, crop and decoder.
        training: what it was trained on: dataset, licence of the faces, seed and digest of the recipe.
        name: its name in its run, or the stem of its file.
    """

    runtime: Runtime = field(repr=False)
    architecture: Architecture = field(repr=False)
    view: View = field(repr=False)
    training: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def device(self) -> str:
        """Where the network runs, for example 'cpu' or 'cuda:0'."""
        return self.runtime.place

    @property
    def module(self) -> GraphNet:
        """The network itself, an nn.Module from normalised images (B, 3, H, W) to heatmaps (B, L, h, w).

        Raises:
            RunError: when the network was exported; it can be run, but not trained, exported or saved again.
        """
        if not isinstance(self.runtime, TorchRuntime):
            raise RunError(
                f"the network '{self.name}' was exported and can only be run; give the run folder or the file of "
                "weights (.safetensors) from which it was exported"
            )
        return self.runtime.module

    def predict(
        self, image: AnyImage, *, detector: str | Detector = "best", refine: int = 1, min_score: float = 0.5
    ) -> list[Face]:
        """Find the faces of an image and their landmarks.

        Args:
            image: a file, a PIL image, or a uint8 array, (H, W, 3) in RGB order or (H, W) in grey. Files and PIL
                images are turned upright by their EXIF orientation.
            detector: 'yunet' (a small network), 'haar' (OpenCV's detector of frontal faces), 'best' (the first of these
                whose weights are installed), 'yunet-fast' (takes a third of yunet's time, but misses small faces),
                'whole' (the image is one face), 'module:attr', or any callable from an RGB image to boxes (K, 4).
            refine: how many times to run the network again on the box of the landmarks that it found.
            min_score: faces with a lower score are left out.

        Returns:
            The faces, in the order in which the detector found them.

        Raises:
            DataError: when the image cannot be decoded, or is an array of another shape or type, or when the detector
                fails.
        """
        pixels = read_image(image)
        find = detect.find_detector(detector) if isinstance(detector, str) else detect.checked(detector)
        boxes_K4 = find(pixels)
        boxes_K4 = boxes_K4[detect.fits(boxes_K4, np.array(pixels.shape[1::-1]))]
        found = self.find([pixels], [boxes_K4], refine=refine)[0].plausible(min_score)
        return [
            Face(box, points, float(confidence.mean()), confidence)
            for box, points, confidence in zip(found.boxes_K4, found.landmarks_KL2, found.confidences_KL, strict=True)
        ]

    def landmarks(self, image: AnyImage, boxes: NDArray[Any], *, refine: int = 0) -> NDArray[np.float64]:
        """Find the landmarks of faces whose boxes are known, in one batch.

        Args:
            image: see `predict`.
            boxes: (K, 4) x0, y0, x1, y1 in pixels of the image: boxes of the landmarks (brows to chin), or close to
                these.
            refine: see `predict`.

        Returns:
            (K, L, 2) x and y in pixels of the image, 0-based, with integers at pixel centres.

        Raises:
            DataError: when the image cannot be decoded, or a box does not fit it.
        """
        boxes_K4 = np.asarray(boxes, dtype=np.float64)
        if boxes_K4.ndim != 2 or boxes_K4.shape[1] != 4:
            raise DataError(f"the boxes have shape {boxes_K4.shape}; expected (K, 4): x0, y0, x1, y1 of each face")
        return self.find([read_image(image)], [boxes_K4], refine=refine)[0].landmarks_KL2

    def find(
        self,
        images: Sequence[Pixels],
        boxes: Sequence[NDArray[Any]],
        *,
        refine: int = 0,
        batch: int = 64,
        workers: int | None = None,
    ) -> list[FoundFaces]:
        """Find the landmarks of the faces of many images, in batches that span images.

        Args:
            images: RGB images, uint8 (H, W, 3); their sizes may differ.
            boxes: (K, 4) for each image: x0, y0, x1, y1 of its faces, see `landmarks`. K may be 0.
            refine: see `predict`.
            batch: number of faces per forward pass.
            workers: number of threads that crop; None takes the number of cores.

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
                f"{sizes_N2[bad, 1]} pixels; give x0, y0, x1, y1 inside the image"
            )
        of_faces = [images[i] for i in image_N.tolist()]
        landmarks_NL2, confidences_NL = self._look(of_faces, boxes_N4, batch, workers)
        for _ in range(refine):
            own_N4 = detect.landmark_boxes(landmarks_NL2)
            boxes_N4 = np.where(detect.fits(own_N4, sizes_N2)[:, None], own_N4, boxes_N4)
            landmarks_NL2, confidences_NL = self._look(of_faces, boxes_N4, batch, workers)
        numbers_N = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
        faces = FoundFaces(boxes_N4, landmarks_NL2, confidences_NL, numbers_N)
        return [faces.take(image_N == i) for i in range(len(images))]

    def save(self, path: str | Path) -> None:
        """Write the network as one self-describing safetensors file, which `nasface.load` reads on its own.

        Raises:
            RunError: when the network was exported.
        """
        write_net(Path(path), self.module, Card(self.architecture, self.view, self.training))

    def _look(
        self, images_N: Sequence[Pixels], boxes_N4: Boxes, batch: int, workers: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Run the network once: landmarks (N, L, 2) in pixels of the images, and confidences (N, L)."""

        def cut(i: int) -> Crop:
            return crop_box(images_N[i], boxes_N4[i], self.view.crop)

        points_of = self.view.scheme.num_landmarks
        landmarks, confidences = [np.empty((0, points_of, 2))], [np.empty((0, points_of))]
        for start in range(0, len(boxes_N4), batch):
            part = range(start, min(start + batch, len(boxes_N4)))
            crops = list(map_in_order(cut, part, workers=min(workers or default_workers(), len(part))))
            points_BL2, confidences_BL = self.runtime.run(np.stack([crop.image for crop in crops]))
            way = np.stack([crop.to_original_23 for crop in crops])
            landmarks.append(points_BL2 @ way[:, :, :2].transpose(0, 2, 1) + way[:, None, :, 2])
            confidences.append(confidences_BL)
        return np.concatenate(landmarks), np.concatenate(confidences)


def read_image(image: AnyImage) -> Pixels:
    """Return any image as RGB uint8 (H, W, 3), turned upright by its EXIF orientation.

    Raises:
        DataError: when a file cannot be decoded, or an array has another shape or type.
    """
    if isinstance(image, np.ndarray):
        grey = image.ndim == 2
        if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
            raise DataError(
                f"the image is an array of type {image.dtype} and shape {image.shape}; expected uint8 and (H, W, 3) in "
                "RGB order, or (H, W) in grey"
            )
        return np.repeat(image[..., None], 3, axis=2) if grey else image
    try:
        if isinstance(image, Image.Image):
            check_pixels(image.width, image.height)
            return to_rgb(ImageOps.exif_transpose(image))
    except Exception as err:  # decoders raise a dozen types on damaged files
        raise DataError(f"the image cannot be decoded ({shortened(str(err), 200)}); give another image") from err
    if not untrusted.exists(Path(image)):
        raise DataError(f"{shortened(str(image))} does not exist; give the path of an image{similar(Path(image))}")
    return decoded(Path(image), ImageOps.exif_transpose)
