"""Find the faces of images and videos and write their landmarks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from nasface import __version__, detect, rundir, track, videos
from nasface.data.parallel import default_workers, map_in_order
from nasface.detect import Boxes, FoundFaces, Pixels
from nasface.errors import DataError, printable
from nasface.model import Model
from nasface.model.files import Saved
from nasface.places import not_ours
from nasface.recipe import Recipe
from nasface.stages.machine import Machine, load
from nasface.stages.predict.pictures import Find, Picture, frame_count, gather, read_picture

log = logging.getLogger(__name__)

SMOOTH = 1.5  # hertz; what it does is measured in docs/how-to/predict.md
_WAITING_BYTES = 256 << 20  # limit of decoded images that wait for a full batch
_WHOLE = 0.95  # share of the frames that a header promises, below which a video was cut short; headers are not exact
_READERS = 4  # threads that decode; few, since each holds whole images in memory


@dataclass(frozen=True)
class FaceSearch:
    """How to look for faces.

    Attributes:
        refine: how many times to run the network again on the box of the landmarks that it found.
        batch: number of faces per forward pass.
        min_score: detected faces with a lower score are dropped; None accepts all boxes as faces.
        every: number of video frames from one detection to the next.
        smooth: cut-off frequency (Hz) of the filter that steadies landmarks in videos, see `track.steadied`; 0: none.
    """

    refine: int = 1
    batch: int = 64
    min_score: float | None = 0.5
    every: int = 10
    smooth: float = SMOOTH

    @classmethod
    def of(
        cls, *, boxes: bool, refine: int | None, batch: int, min_score: float, every: int, smooth: float = SMOOTH
    ) -> FaceSearch:
        """Return settings with the defaults for given boxes, which are accepted as they are, or for detected faces.

        Args:
            boxes: whether the boxes are given.
            refine: None takes 0 for given boxes, else 1.
            batch: see `FaceSearch`.
            min_score: used for detected faces only.
            every: see `FaceSearch`.
            smooth: see `FaceSearch`.
        """
        refine = (0 if boxes else 1) if refine is None else refine
        return cls(refine, batch, None if boxes else min_score, every, smooth)


@dataclass(frozen=True, eq=False)
class Seen:
    """An image, or the frame of a video, and its faces.

    Attributes:
        picture: the image or video.
        frame: 0-based number of the frame, or None for an image.
        image_HW3: RGB pixels.
        faces: the faces that were found.
    """

    picture: Picture
    frame: int | None
    image_HW3: Pixels = field(repr=False)
    faces: FoundFaces

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with coordinates rounded to a thousandth of a pixel."""
        found = self.faces
        numbers = (found.boxes_K4, found.scores_K, found.confidences_KL, found.landmarks_KL2)
        columns = (found.numbers_K, *(column.round(3) for column in numbers))
        height, width = self.image_HW3.shape[:2]
        return {
            "image": printable(self.picture.path.as_posix()),
            **({} if self.frame is None else {"frame": self.frame}),
            "width": width,
            "height": height,
            "faces": [
                dict(zip(("face", "box", "score", "confidence", "landmarks"), face, strict=True))
                for face in zip(*(column.tolist() for column in columns), strict=True)
            ],
        }


@dataclass(frozen=True)
class Viewer:
    """Finds the landmarks of pictures.

    Attributes:
        model: a trained network.
        find: the source of face boxes.
        how: how to look for faces.
        machine: progress and workers.
    """

    model: Model
    find: Find
    how: FaceSearch
    machine: Machine

    def images(self, pictures: Sequence[Picture]) -> Iterator[Seen]:
        """Yield all images in order, with faces run in full batches. An unreadable image is skipped with a warning."""
        waiting: list[tuple[Picture, Pixels, Boxes]] = []

        def look() -> Iterator[Seen]:
            found = self._look([image for _, image, _ in waiting], [boxes for _, _, boxes in waiting])
            for (picture, image, _), faces in zip(waiting, found, strict=True):
                least = self.how.min_score
                yield Seen(picture, None, image, faces if least is None else faces.plausible(least))
            waiting.clear()

        readers = self.machine.workers or min(_READERS, default_workers())
        for picture, image in zip(pictures, map_in_order(read_picture, pictures, workers=readers), strict=True):
            self.machine.progress.advance()
            if isinstance(image, DataError):
                log.warning("%s", image)
                continue
            waiting.append((picture, image, self._boxes(picture, image)))
            faces = sum(len(boxes) for _, _, boxes in waiting)
            if faces >= self.how.batch or sum(image.nbytes for _, image, _ in waiting) >= _WAITING_BYTES:
                yield from look()
        yield from look()

    def video(self, picture: Picture) -> Iterator[Seen]:
        """Yield all frames of a video in order, with faces tracked from frame to frame and their landmarks steadied."""
        least = self.how.min_score
        tracked = track.track(
            videos.frames(picture.path),
            partial(self._boxes, picture),
            lambda image, boxes_K4, refine: self._look([image], [boxes_K4], refine)[0],
            every=self.how.every,
            refine=self.how.refine,
            min_score=-np.inf if least is None else least,
        )
        steady = track.steadied(tracked, videos.probe(picture.path)[1], self.how.smooth)
        for number, (image, faces) in enumerate(steady):
            self.machine.progress.advance()
            yield Seen(picture, number, image, faces)

    def _boxes(self, picture: Picture, image_HW3: Pixels) -> Boxes:
        boxes_K4 = self.find(picture, image_HW3)
        inside = detect.fits(boxes_K4, np.array(image_HW3.shape[1::-1]))
        if not inside.all():
            log.warning("%s: ignoring %d face boxes outside the image", picture.path, (~inside).sum())
        return boxes_K4[inside]

    def _look(self, images: Sequence[Pixels], boxes: Sequence[Boxes], refine: int | None = None) -> list[FoundFaces]:
        return self.model.find(
            images,
            boxes,
            refine=self.how.refine if refine is None else refine,
            batch=self.how.batch,
            workers=self.machine.workers,
        )


def predict(
    saved: Saved,
    recipe: Recipe,
    inputs: Sequence[Path],
    out: Path,
    machine: Machine,
    how: FaceSearch,
    *,
    boxes: Path | None = None,
    detector: str = "best",
    show: Callable[[Seen], None] | None = None,
) -> dict[str, Any]:
    """Load a network and write the landmarks of images and videos; see `predict_files`.

    Args:
        saved: the network.
        recipe: how it sees a face.
        inputs: images, videos, and folders of them.
        out: the folder to write to.
        machine: device, progress and workers.
        how: how to look for faces.
        boxes: a CSV file of face boxes, instead of the detector.
        detector: see `detect.find_detector`.
        show: called with every image and frame, for drawing.
    """
    pictures, find = gather(inputs, boxes, detector, out / "overlays")
    model = load(saved, recipe, machine)
    return predict_files(Viewer(model, find, how, machine), pictures, out, show)


def predict_files(
    viewer: Viewer, pictures: Sequence[Picture], out: Path, show: Callable[[Seen], None] | None = None
) -> dict[str, Any]:
    """Find the faces of images and videos, and write landmarks.csv and landmarks.json.

    Args:
        viewer: finds the landmarks.
        pictures: the images and videos, see `find_pictures`.
        out: the folder to write to.
        show: called with every image and frame, for drawing.

    Returns:
        The content of landmarks.json: `summary`, and `images` with the faces of each image and frame.

    Raises:
        DataError: when no picture can be read, or none has a face.
        RunError: when a file in `out` that would be replaced is not nasface's.
    """
    _check_out(out)
    if not pictures:
        raise DataError("there is no image or video to read; name image files, videos, or folders that contain some")
    images = [picture for picture in pictures if not picture.is_video]
    lengths = {picture: frame_count(picture.path) for picture in pictures if picture.is_video}
    viewer.machine.progress.begin("predict", len(images) + sum(lengths.values()), 0)
    entries: list[dict[str, Any]] = []
    readable: set[Picture] = set()

    def see(found: Iterable[Seen]) -> float:
        """Collect and show what is found; return the seconds that it took."""
        started = time.perf_counter()
        for seen in found:
            entries.append(seen.as_dict())
            readable.add(seen.picture)
            if show is not None:
                show(seen)
        return time.perf_counter() - started

    seconds = see(viewer.images(images))
    frames, film_seconds, cut = -len(entries), 0.0, 0
    for video, length in ((video, length) for video, length in lengths.items() if length):
        before = len(entries)
        film_seconds += see(viewer.video(video))
        if (read := len(entries) - before) < _WHOLE * length:
            cut += 1
            log.warning("%s ends after %d of its %d frames; it is damaged or not complete", video.path, read, length)
    frames += len(entries)
    _require_faces(entries, pictures, viewer.how.min_score)
    faces = sum(len(entry["faces"]) for entry in entries)
    summary = {
        "images": len(readable - set(lengths)),
        "frames": frames,
        "unreadable": len(pictures) - len(readable),
        "without_face": sum(not entry["faces"] for entry in entries),
        "faces": faces,
        "seconds": round(seconds + film_seconds, 3),
        "faces_per_second": round(faces / (seconds + film_seconds), 2),
        **({"cut_short": cut, "frames_per_second": round(frames / film_seconds, 2)} if frames else {}),
    }
    report = {"nasface": __version__, "summary": summary, "images": entries}
    rundir.write_json(out / "landmarks.json", report)  # first: it says that both files are nasface's
    rundir.write_rows(out / "landmarks.csv", [row for entry in entries for row in _rows(entry)])
    return report


def _check_out(out: Path) -> None:
    """Raise a RunError if the results would replace files that are not of an earlier prediction."""
    table, report = out / "landmarks.csv", out / "landmarks.json"
    if not (table.exists() or report.exists()):
        return
    made = rundir.read_json(report, "the landmarks of an earlier prediction") if report.exists() else None
    if not (isinstance(made, dict) and "nasface" in made):
        raise not_ours(report if report.exists() else table)


def _require_faces(entries: Sequence[Mapping[str, Any]], pictures: Sequence[Picture], min_score: float | None) -> None:
    """Warn about images and frames without a face; raise a DataError if none has one, or no picture can be read."""
    if not entries:
        raise DataError(
            f"none of the {len(pictures)} images and videos can be read, such as {pictures[0].path}; name others"
        )
    without = [entry["image"] for entry in entries if not entry["faces"]]
    if len(without) == len(entries):
        fix = "try a lower --min-score or another --detector, or give face boxes with --boxes"
        if min_score is None:
            fix = "give boxes that lie inside the images"
        raise DataError(f"no face found in {len(entries)} images and frames; {fix}")
    if without:
        limit = "" if min_score is None else f" (none was found, or none reaches --min-score {min_score:g})"
        named = shorten(", ".join(dict.fromkeys(without)), 200)
        log.warning("no face found in %d of %d images and frames%s: %s", len(without), len(entries), limit, named)


def _rows(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of landmarks.csv, one per face."""
    for face in entry["faces"]:
        points = {
            f"lm{i}_{axis}": p for i, xy in enumerate(face["landmarks"]) for axis, p in zip("xy", xy, strict=True)
        }
        box = dict(zip(("x0", "y0", "x1", "y1"), face["box"], strict=True))
        sure = {f"lm{i}_confidence": value for i, value in enumerate(face["confidence"])}
        place = {"image": entry["image"], "frame": entry.get("frame", ""), "face": face["face"]}
        yield {**place, **box, "score": face["score"], **points, **sure}
