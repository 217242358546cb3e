"""Videos, read with OpenCV. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nasface import untrusted
from nasface.detect import Pixels, opencv
from nasface.errors import DataError, shortened


def probe(video: Path) -> tuple[int, float]:
    """Return the number of frames of a video and its frames per second, as its header says; else 1 and 25.

    Raises:
        DataError: not even the first frame can be read.
        RunError: OpenCV is not installed.
    """
    cv2 = opencv()
    try:
        untrusted.check_file(video)
    except OSError as err:
        raise DataError(f"{video}: cannot be read as a video ({err.strerror}); give a video file") from err
    capture = _capture(cv2, video)
    try:
        if not capture.grab():
            raise DataError(f"{video}: cannot be read as a video; convert it to another format, such as H.264 in MP4")
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), rate if 0 < rate < 1000 else 25.0
    finally:
        capture.release()


def _capture(cv2: Any, video: Path) -> Any:
    """Open a video. OpenCV crashes on a text with bytes that are not UTF-8, and before 4.12 it takes only texts."""
    try:
        return cv2.VideoCapture(os.fsencode(video))
    except cv2.error as err:
        text = str(video)
        if text != text.encode(errors="replace").decode():
            raise DataError(
                f"{shortened(text)}: this version of OpenCV cannot open names that are not UTF-8; rename the file"
            ) from err
        return cv2.VideoCapture(text)


def frames(video: Path) -> Iterator[Pixels]:
    """Yield the frames of a video, RGB and upright, up to its end or to the first damaged one."""
    cv2 = opencv()
    capture = _capture(cv2, video)
    try:
        while True:
            there, frame_HW3 = capture.read()
            if not there:
                return
            yield cv2.cvtColor(frame_HW3, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
