"""Landmarks drawn on images and videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nasface import detect, videos
from nasface.detect import FoundFaces, Pixels
from nasface.errors import RunError
from nasface.rundir import atomic
from nasface.stages.predict.run import Seen

BOX, POINT, RIM = (240, 228, 66), (0, 200, 140), (0, 0, 0)


def draw(image_HW3: Pixels, faces: FoundFaces) -> Pixels:
    """Return a copy of an image with the box and the points of every face drawn on it."""
    picture = Image.fromarray(image_HW3)
    pen = ImageDraw.Draw(picture)
    sides_K = detect.sides(faces.boxes_K4).tolist()
    for box, points, side in zip(faces.boxes_K4.tolist(), faces.landmarks_KL2.tolist(), sides_K, strict=True):
        pen.rectangle(box, outline=BOX, width=max(1, round(side / 150)))
        radius = max(1.0, side / 110)
        for x, y in points:
            pen.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=POINT, outline=RIM if radius > 2 else None
            )
    return np.asarray(picture)


@contextmanager
def overlays(folder: Path) -> Iterator[Callable[[Seen], None]]:
    """Return a function that draws every image and frame that it is called with and writes it to `folder`.

    An image keeps its name, as .png if it was one and as .jpg otherwise. A video becomes .mp4; it is complete when the
    next picture comes or the block ends, and is removed when the block fails.

    Raises:
        RunError: when a file cannot be written.
    """
    with ExitStack() as open_video:
        writers: dict[Path, Callable[[Pixels], None]] = {}

        def show(seen: Seen) -> None:
            drawn = draw(seen.image_HW3, seen.faces)
            kind = (
                ".mp4" if seen.frame is not None else ".png" if seen.picture.path.suffix.lower() == ".png" else ".jpg"
            )
            path = folder / (seen.picture.name + kind)
            if seen.frame is None:
                with atomic(path) as temporary:
                    Image.fromarray(drawn).save(temporary, "PNG" if kind == ".png" else "JPEG", quality=92)
                return
            if path not in writers:
                open_video.close()
                writers.clear()
                rate = videos.probe(seen.picture.path)[1]
                writers[path] = open_video.enter_context(_video(path, rate, drawn.shape[1], drawn.shape[0]))
            writers[path](drawn)

        yield show


@contextmanager
def _video(path: Path, rate: float, width: int, height: int) -> Iterator[Callable[[Pixels], None]]:
    """Return a function that appends a frame to an MPEG-4 file, which is put in place when the block ends well."""
    cv2 = detect.opencv()
    with atomic(path) as part:
        writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
        if not writer.isOpened():
            raise RunError(f"cannot write the video {path}; leave --overlay out, or give another folder with --out")
        try:
            yield lambda frame_HW3: writer.write(cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
