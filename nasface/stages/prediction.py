"""Landmarks of faces in images and videos: cropped as for training, run in batches, mapped back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nasface import __version__, detect, engine, plugins, rundir
from nasface.arch import Architecture
from nasface.data.augment import normalise
from nasface.data.base import Face
from nasface.data.crop import Crop, PrepareOptions, crop_face
from nasface.data.images import IMAGE_SUFFIXES
from nasface.data.parallel import default_workers, map_in_order
from nasface.detect import Boxes, FoundFaces, Pixels
from nasface.errors import DataError, RunError
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.stages.networks import arch_graph, build_net, check_size, load_net
from nasface.stages.work import Machine
from nasface.task import decode

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
_WAITING_BYTES = 256 << 20  # decoded images that wait for a full batch
_READERS = 4  # threads that decode: each holds some whole images


@dataclass(frozen=True)
class Settings:
    """How faces are looked for.

    Attributes:
        refine: how often the network runs again on the box of its own landmarks.
        batch: faces in a forward pass.
        min_score: detected faces below it are dropped; None takes all boxes as faces.
        every: frames of a video from one detection to the next.
    """

    refine: int = 1
    batch: int = 64
    min_score: float | None = 0.5
    every: int = 10


@dataclass(frozen=True)
class Picture:
    """An image or video: its file, and what it is called below the output folder, without extension."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """By the extension."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True, eq=False)
class Seen:
    """An image, or the frame of a video with this number, and its faces."""

    picture: Picture
    frame: int | None
    image_HW3: Pixels = field(repr=False)
    faces: FoundFaces

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, places to a thousandth of a pixel."""
        found = self.faces
        columns = (found.numbers_K, found.boxes_K4.round(3), found.scores_K.round(3), found.landmarks_KL2.round(3))
        height, width = self.image_HW3.shape[:2]
        return {
            "image": self.picture.path.as_posix(),
            **({} if self.frame is None else {"frame": self.frame}),
            "width": width,
            "height": height,
            "faces": [
                dict(zip(("face", "box", "score", "landmarks"), face, strict=True))
                for face in zip(*(column.tolist() for column in columns), strict=True)
            ],
        }


Find = Callable[[Picture, Pixels], Boxes]
"""Boxes of the faces of a picture."""


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
    meta = {} if arch is not None else rundir.read_tensors(weights)[1]
    num_landmarks = arch.num_landmarks if arch is not None else int(meta.get("num_landmarks", 0))
    if not num_landmarks:
        raise RunError(f"{weights} does not say how many landmarks its network has; give weights that nasface wrote")
    full = build_net(recipe, num_landmarks, device)
    check_size(recipe.data.input_size, full.space)
    return load_net(full, full.graph if arch is None else arch_graph(arch, full), weights).eval()


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


@dataclass(frozen=True)
class Viewer:
    """What looks at pictures.

    Attributes:
        net, recipe: a trained network and its recipe.
        find: gives the boxes of a picture's faces.
        settings: how faces are looked for.
        machine: progress and workers.
    """

    net: GraphNet
    recipe: Recipe
    find: Find
    settings: Settings
    machine: Machine

    def images(self, pictures: Sequence[Picture]) -> Iterator[Seen]:
        """All images in order, their faces run in full batches; one that cannot be read is left out with a warning."""
        waiting: list[tuple[Picture, Pixels, Boxes]] = []

        def look() -> Iterator[Seen]:
            found = self._look([image for _, image, _ in waiting], [boxes for _, _, boxes in waiting])
            for (picture, image, _), faces in zip(waiting, found, strict=True):
                least = self.settings.min_score
                yield Seen(picture, None, image, faces if least is None else faces.plausible(least))
            waiting.clear()

        readers = self.machine.workers or min(_READERS, default_workers())
        for picture, image in zip(pictures, map_in_order(_read, pictures, workers=readers), strict=True):
            self.machine.progress.advance()
            if isinstance(image, DataError):
                log.warning("%s", image)
                continue
            waiting.append((picture, image, self._boxes(picture, image)))
            faces = sum(len(boxes) for _, _, boxes in waiting)
            if faces >= self.settings.batch or sum(image.nbytes for _, image, _ in waiting) >= _WAITING_BYTES:
                yield from look()
        yield from look()

    def video(self, picture: Picture) -> Iterator[Seen]:
        """All frames of a video in order; a face is looked for where it was in the frame before."""
        least = self.settings.min_score
        tracked = detect.track(
            detect.frames(picture.path),
            partial(self._boxes, picture),
            lambda image, boxes_K4, refine: self._look([image], [boxes_K4], refine)[0],
            every=self.settings.every,
            refine=self.settings.refine,
            min_score=-np.inf if least is None else least,
        )
        for number, (image, faces) in enumerate(tracked):
            self.machine.progress.advance()
            yield Seen(picture, number, image, faces)

    def _boxes(self, picture: Picture, image_HW3: Pixels) -> Boxes:
        boxes_K4 = self.find(picture, image_HW3)
        inside = detect.fits(boxes_K4, np.array(image_HW3.shape[1::-1]))
        if not inside.all():
            log.warning("%s: %d face boxes lie outside the image and are left out", picture.path, (~inside).sum())
        return boxes_K4[inside]

    def _look(self, images: Sequence[Pixels], boxes: Sequence[Boxes], refine: int | None = None) -> list[FoundFaces]:
        return predict_faces(
            self.net,
            images,
            boxes,
            self.recipe,
            refine=self.settings.refine if refine is None else refine,
            batch=self.settings.batch,
            workers=self.machine.workers,
        )


def predict_files(
    viewer: Viewer, pictures: Sequence[Picture], out: Path, show: Callable[[Seen], None] | None = None
) -> dict[str, Any]:
    """Find the faces of images and videos; landmarks.csv and landmarks.json go to the folder `out`.

    Args:
        viewer: looks at them.
        pictures: see `find_pictures`.
        out: a folder.
        show: called with every image and frame, for drawing.

    Returns:
        The content of landmarks.json: `summary`, and `images` with the faces of each image and frame.

    Raises:
        DataError: when no picture is readable, or none has a face.
    """
    if not pictures:
        raise DataError("there is no image or video to look at; name image files, videos, or folders that hold some")
    images = [picture for picture in pictures if not picture.is_video]
    lengths = {picture: _length(picture.path) for picture in pictures if picture.is_video}
    viewer.machine.progress.begin("predict", len(images) + sum(lengths.values()), 0)
    entries = []
    readable = set()
    started = time.perf_counter()
    for seen in chain(viewer.images(images), *(viewer.video(video) for video, length in lengths.items() if length)):
        entries.append(seen.as_dict())
        readable.add(seen.picture)
        if show is not None:
            show(seen)
    seconds = time.perf_counter() - started
    if not entries:
        raise DataError(f"none of the images and videos ({len(pictures)}) can be read; name others")
    faces, without = sum(len(entry["faces"]) for entry in entries), [entry for entry in entries if not entry["faces"]]
    if not faces:
        mend = "try a lower --min-score or another --detector, or give the faces by --boxes"
        if viewer.settings.min_score is None:
            mend = "give boxes that lie in the images"
        raise DataError(f"no face found in {len(entries)} images and frames; {mend}")
    if without:
        named = ", ".join(dict.fromkeys(entry["image"] for entry in without))
        least = viewer.settings.min_score
        limit = "" if least is None else f" (none found, or none of a score of --min-score {least:g})"
        log.warning(
            "no face in %d of %d images and frames%s: %s", len(without), len(entries), limit, shorten(named, 200)
        )
    summary = {
        "images": len(readable - set(lengths)),
        "frames": len(entries) - len(readable - set(lengths)),
        "unreadable": len(pictures) - len(readable),
        "without_face": len(without),
        "faces": faces,
        "seconds": round(seconds, 3),
        "faces_per_second": round(faces / seconds, 2),
    }
    report = {"nasface": __version__, "summary": summary, "images": entries}
    rundir.write_rows(out / "landmarks.csv", [row for entry in entries for row in _rows(entry)])
    rundir.write_json(out / "landmarks.json", report)
    return report


def find_pictures(inputs: Sequence[Path], but: Path | None = None) -> list[Picture]:
    """Image files and videos as named, and those of folders, recursively and in order; each once.

    Args:
        inputs: files and folders. A file is taken for an image unless its extension is a video's.
        but: a folder to pass over: what an earlier run has drawn.

    Raises:
        DataError: when one does not exist.
    """
    found: dict[Path, Picture] = {}
    names: set[str] = set()
    for given in inputs:
        if not given.exists():
            raise DataError(f"{given} does not exist; name image files, videos or folders")
        folder = given if given.is_dir() else given.parent
        inside = (
            [p for p in sorted(given.rglob("*")) if _is_picture(p.relative_to(given))] if given.is_dir() else [given]
        )
        if not inside:
            log.warning("%s holds no image or video", given)
        for path in inside:
            real = path.resolve()
            if real not in found and (but is None or but.resolve() not in real.parents):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                name = next(n for n in chain([stem], (f"{stem}-{i}" for i in count(2))) if n not in names)
                names.add(name)
                found[real] = Picture(path, name)
    return list(found.values())


def by_detector(name: str) -> Find:
    """Boxes by `detect.find_detector`."""
    detector = detect.find_detector(name)
    return lambda picture, image_HW3: detector(image_HW3)


def by_file(file: Path, inputs: Sequence[Path], pictures: list[Picture]) -> tuple[list[Picture], Find]:
    """Boxes by a csv (`detect.read_boxes`), and the images: those that it names where there are no inputs.

    An image in it is a path as it stands, or relative to the csv, to a folder given, or to that of an image given.

    Raises:
        DataError: the csv is damaged or has no box for any image, or there is a video.
    """
    if videos := [picture.path for picture in pictures if picture.is_video]:
        raise DataError(f"{videos[0]} is a video, whose faces are detected and tracked; leave --boxes out")
    folders = [Path(), file.parent, *dict.fromkeys(path if path.is_dir() else path.parent for path in inputs)]
    paths: list[Path] = []
    boxes: dict[Path, list[Boxes]] = {}
    for name, boxes_K4 in detect.read_boxes(file).items():
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            log.warning("%s: there is no image %s", file, name)
        else:
            paths.append(path)
            boxes.setdefault(path.resolve(), []).append(boxes_K4)
    pictures = pictures if inputs else find_pictures(paths)
    if not any(picture.path.resolve() in boxes for picture in pictures):
        raise DataError(
            f"{file} has no box for any of the images; its column image holds paths, or names in a folder given"
        )
    return pictures, lambda picture, _: np.concatenate([np.empty((0, 4)), *boxes.get(picture.path.resolve(), [])])


def _is_picture(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _length(video: Path) -> int:
    """Frames of a video; 0 with a warning where it cannot be read."""
    try:
        return detect.probe(video)[0]
    except DataError as err:
        log.warning("%s", err)
        return 0


def _read(picture: Picture) -> Pixels | DataError:
    """An image file as RGB, upright as its EXIF orientation says, or what is wrong with it."""
    try:
        with Image.open(picture.path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as err:  # decoders raise a dozen types on damaged files
        return DataError(f"{picture.path}: cannot be decoded as an image ({err}); it is left out")


def _rows(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of landmarks.csv, a face each."""
    for face in entry["faces"]:
        points = {
            f"lm{i}_{axis}": p for i, xy in enumerate(face["landmarks"]) for axis, p in zip("xy", xy, strict=True)
        }
        box = dict(zip(("x0", "y0", "x1", "y1"), face["box"], strict=True))
        place = {"image": entry["image"], "frame": entry.get("frame", ""), "face": face["face"]}
        yield {**place, **box, "score": face["score"], **points}
