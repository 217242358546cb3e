"""The images and videos in which to find landmarks, and the source of their face boxes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np

from nasface import detect, untrusted, videos
from nasface.data.facelists import is_there
from nasface.data.images import IMAGE_SUFFIXES
from nasface.detect import Boxes, Pixels
from nasface.errors import DataError, shortened, similar
from nasface.model.network import read_image

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Picture:
    """An image or video: its file, and its name in the output folder, without extension."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the extension is that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


Find = Callable[[Picture, Pixels], Boxes]
"""A function from a picture and its pixels to the boxes (K, 4) of its faces."""


def find_pictures(inputs: Sequence[Path], but: Path | None = None) -> list[Picture]:
    """Find image files and videos, each once: those named, and those in the folders named, recursively and sorted.

    Args:
        inputs: files and folders. A file is taken as an image unless its extension is that of a video.
        but: a folder to skip, such as the drawings of an earlier run.

    Raises:
        DataError: when an input does not exist.
    """
    found: dict[Path, Picture] = {}
    names: set[str] = set()
    for given in inputs:
        if not untrusted.exists(given):
            what = f"{shortened(str(given))} does not exist"
            raise DataError(f"{what}; name image files, videos or folders{similar(given)}")
        folder = given if given.is_dir() else given.parent
        inside = (
            [p for p in sorted(given.rglob("*")) if _is_picture(p.relative_to(given))] if given.is_dir() else [given]
        )
        if not inside:
            log.warning("%s contains no image or video", given)
        for path in inside:
            real = _real(path)
            if real not in found and (but is None or _real(but) not in real.parents):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                name = next(n for n in chain([stem], (f"{stem}-{i}" for i in count(2))) if n not in names)
                names.add(name)
                found[real] = Picture(path, name)
    return list(found.values())


def gather(
    inputs: Sequence[Path], boxes: Path | None, detector: str, but: Path | None = None
) -> tuple[list[Picture], Find]:
    """Find the pictures, and the source of their face boxes: a CSV file if there is one, else a detector.

    Args:
        inputs: files and folders, see `find_pictures`.
        boxes: a CSV file of face boxes, see `by_file`.
        detector: name of a detector, see `detect.find_detector`.
        but: a folder to skip.
    """
    pictures = find_pictures(inputs, but)
    return by_file(boxes, inputs, pictures) if boxes else (pictures, by_detector(detector))


def by_detector(name: str) -> Find:
    """Take boxes from a detector, see `detect.find_detector`."""
    detector = detect.find_detector(name)
    return lambda picture, image_HW3: detector(image_HW3)


def by_file(file: Path, inputs: Sequence[Path], pictures: list[Picture]) -> tuple[list[Picture], Find]:
    """Take boxes from a CSV file (`detect.read_boxes`). Without inputs, the pictures are the images that it names.

    Args:
        file: the CSV file. It names an image by its path, or by its path relative to the CSV file, to an input folder,
            or to the folder of an input image.
        inputs: files and folders that the user gave.
        pictures: the pictures found there.

    Raises:
        DataError: when the file is damaged or has no box for any image, or when a picture is a video.
    """
    given = {_real(picture.path) for picture in pictures}
    folders = [Path(), file.parent, *dict.fromkeys(path if path.is_dir() else path.parent for path in inputs)]
    paths: list[Path] = []
    boxes: dict[Path, list[Boxes]] = {}
    for name, boxes_K4 in detect.read_boxes(file).items():
        there = [folder / name for folder in folders if is_there(folder / name)]
        path = next((path for path in there if _real(path) in given), next(iter(there), None))
        if path is None:
            log.warning("%s: image %s does not exist", file, name)
        else:
            paths.append(path)
            boxes.setdefault(_real(path), []).append(boxes_K4)
    pictures = pictures if inputs else find_pictures(paths)
    if videos := [picture.path for picture in pictures if picture.is_video]:
        raise DataError(
            f"--boxes does not go with the video {videos[0]}, whose faces are detected and tracked; leave one out"
        )
    if not any(_real(picture.path) in boxes for picture in pictures):
        raise DataError(
            f"{file} has no box for any of the images; its column 'image' must hold paths, or names in an input folder"
        )
    return pictures, lambda picture, _: np.concatenate([np.empty((0, 4)), *boxes.get(_real(picture.path), [])])


def _real(path: Path) -> Path:
    """Return a path without links; Path.resolve fails on links that lead in a circle."""
    return Path(os.path.realpath(path))


def _is_picture(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def frame_count(video: Path) -> int:
    """Return the number of frames of a video; 0, with a warning, if it cannot be read."""
    try:
        return videos.probe(video)[0]
    except DataError as err:
        log.warning("%s", err)
        return 0


def read_picture(picture: Picture) -> Pixels | DataError:
    """Read an image file as upright RGB; return the error, instead of raising it, if it cannot be read."""
    try:
        return read_image(picture.path)
    except DataError as err:
        return err
