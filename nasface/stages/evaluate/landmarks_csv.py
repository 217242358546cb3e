"""Read and write predicted landmarks as CSV files that any other program can exchange.

Each row is a face: `image` names it, and x0, y0, x1, y1, ... are its landmarks in pixels of the original image, 0-based
with integers at pixel centres. A column `network` tells several predictors apart. lm0_x, lm0_y, ... are read as well.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasface import rundir, untrusted
from nasface.data.images import IMAGE_SUFFIXES
from nasface.data.prepare import PreparedFaces
from nasface.errors import DataError, shortened

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)

Missing = Literal["error", "fail"]

_FORMS = (("x{}", "y{}"), ("lm{}_x", "lm{}_y"))
_EXPECTED = "the columns image, x0, y0, x1, y1, ... (or lm0_x, lm0_y, ...)"


def write_predictions(path: Path, found: Iterable[tuple[str, NDArray[np.float64], PreparedFaces]]) -> None:
    """Write landmarks in full precision, atomically.

    Args:
        path: the CSV file.
        found: for each network its name, its landmarks (N, L, 2) in pixels of the network's input, and the faces.
    """
    import pandas as pd

    frames = []
    for network, predicted_NL2, test in found:
        points_NL2 = _to_original(predicted_NL2, test)
        columns = [form.format(i) for i in range(points_NL2.shape[1]) for form in _FORMS[0]]
        frame = pd.DataFrame(points_NL2.reshape(len(test), -1), columns=columns)
        frame.insert(0, "network", network)
        frame.insert(1, "image", test.names)
        frames.append(frame)
    with rundir.atomic(path) as temporary:
        pd.concat(frames).to_csv(temporary, index=False, errors="backslashreplace")


def read_predictions(
    path: Path,
    test: PreparedFaces,
    *,
    others: Iterable[str] = (),
    one_based: bool = False,
    missing: Missing = "error",
) -> dict[str, NDArray[np.float64]]:
    """Read the landmarks of every test face.

    Args:
        path: the CSV file; if it has no column `network`, its stem is the name of the network.
        test: the test faces; `image` is the name of a face, or the path or name of its file if only one face has it.
        others: the names of faces of the dataset that are not tested; rows with these names are ignored.
        one_based: whether the first pixel is 1.
        missing: what to do with a face without a row or with empty coordinates: 'fail' gives it NaN, 'error' raises.

    Returns:
        Landmarks (N, L, 2) in pixels of the network's input, by network.

    Raises:
        DataError: when the file has another format, names faces twice or names none, or has another number of
            landmarks.
    """
    if not len(test):
        raise DataError(
            f"{path}: no test face on disk to compare with; give the folder of the dataset with --data-root"
        )
    frame = _read(path)
    points_RL2 = _points(frame, path, test.scheme.num_landmarks) - one_based
    find = _finder(test.names, frozenset(others), path)
    images = frame["image"].tolist()
    face_R = np.array([find(image) for image in images], dtype=np.int64)
    strange = [image for image, face in zip(images, face_R, strict=True) if face < 0]
    if len(strange) == len(images):
        raise DataError(
            f"{path}: no row names a test face (the first row names '{shortened(images[0]) if images else ''}'); "
            f"expected names such as '{test.names[0]}', with or without folder and extension"
        )
    if strange:
        log.warning(
            "%s: ignoring %d rows that name no test face; the first is '%s'", path, len(strange), shortened(strange[0])
        )
    groups = frame.groupby("network", sort=False).indices if "network" in frame else {path.stem: np.arange(len(frame))}
    found = {}
    for network, rows in groups.items():
        rows = rows[face_R[rows] >= 0]
        faces, counts = np.unique(face_R[rows], return_counts=True)
        if (counts > 1).any():
            twice = test.names[faces[counts > 1][0]]
            raise DataError(
                f"{path}: {int((counts > 1).sum())} faces have several rows, first '{twice}'; give one row per face"
                + (", and use the full names of faces that share an image" if "#" in "".join(test.names) else "")
            )
        points_NL2 = np.full((len(test), *points_RL2.shape[1:]), np.nan)
        points_NL2[face_R[rows]] = points_RL2[rows]
        lost = ~np.isfinite(points_NL2).all(axis=(1, 2))
        if lost.any() and missing == "error":
            raise DataError(
                f"{path}: {int(lost.sum())} of {len(test)} test faces have no landmarks, the first is "
                f"'{test.names[int(lost.argmax())]}'; add them, or count them as failures with --missing fail"
            )
        points_NL2[lost] = np.nan
        found[str(network)] = _to_input(points_NL2, test)
    return found


def _read(path: Path) -> DataFrame:
    """Read the file as texts."""
    try:
        frame = untrusted.read_table(path)
    except (OSError, ValueError) as err:  # pandas' errors are ValueErrors
        reason = getattr(err, "strerror", None) or shortened(" ".join(str(err).split()))
        raise DataError(f"{path} cannot be read as CSV ({reason}); expected {_EXPECTED}, each once") from err
    if "image" not in frame:
        names = shortened(", ".join(frame.columns[:4]))
        raise DataError(f"{path}: the columns are {names}, ...; expected {_EXPECTED}")
    return frame


def _points(frame: DataFrame, path: Path, num_landmarks: int) -> NDArray[np.float64]:
    """Parse the landmarks (R, L, 2) of the rows; empty cells become NaN."""
    columns = [[form.format(i) for i in range(num_landmarks) for form in forms] for forms in _FORMS]
    names = columns["lm0_x" in frame]  # beside lm0_x, the columns x0, y0, x1, y1 are a box
    pattern = re.compile(names[0].replace("0", r"\d+"))
    given = sum(pattern.fullmatch(column) is not None for column in frame)
    if given != num_landmarks or not set(names) <= set(frame):
        raise DataError(
            f"{path} has {given} landmarks per face, but the dataset has {num_landmarks}; expected the columns "
            f"{names[0]}, {names[1]}, ... {names[-2]}, {names[-1]}"
        )
    texts = frame[names].apply(lambda column: column.str.strip()).replace("", "nan")
    try:
        numbers: NDArray[np.float64] = texts.to_numpy().astype(np.float64)
    except ValueError as err:
        raise DataError(
            f"{path}: a coordinate is not a number ({shortened(str(err))}); give pixels, or leave the cells of a "
            "missing face empty"
        ) from err
    return numbers.reshape(len(frame), num_landmarks, 2)


def _finder(names: Sequence[str], others: frozenset[str], path: Path) -> Callable[[str], int]:
    """Return a function from the name that a program gives to an image to the index of the face, or -1 for none."""
    by_name = {name: i for i, name in enumerate(names)}
    by_stem: defaultdict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        by_stem[PurePosixPath(name).name].append(i)

    def find(image: str) -> int:
        given = PurePosixPath(image.strip().replace("\\", "/"))
        bare = given.with_suffix("") if given.suffix.lower() in IMAGE_SUFFIXES else given
        for form in (given, bare):
            for start in range(len(form.parts)):
                if (tail := "/".join(form.parts[start:])) in by_name:
                    return by_name[tail]
        if others.intersection("/".join(form.parts[i:]) for form in (given, bare) for i in range(len(form.parts) - 1)):
            return -1  # lfpw/trainset/image_0001 is not lfpw/testset/image_0001
        faces = by_stem.get(given.name) or by_stem.get(bare.name) or [-1]
        if len(faces) > 1:
            raise DataError(
                f"{path}: '{shortened(image)}' could be any of {len(faces)} faces, such as '{names[faces[0]]}' and "
                f"'{names[faces[1]]}'; give the folder too"
            )
        return faces[0]

    return find


def _to_original(points_NL2: NDArray[np.float64], faces: PreparedFaces) -> NDArray[np.float64]:
    """Convert pixels of the network's input to pixels of the original image."""
    way = faces.to_original_N23
    original: NDArray[np.float64] = (points_NL2 + faces.pad) @ way[:, :, :2].transpose(0, 2, 1) + way[:, None, :, 2]
    return original


def _to_input(points_NL2: NDArray[np.float64], faces: PreparedFaces) -> NDArray[Any]:
    """Convert pixels of the original image to pixels of the network's input."""
    way = faces.to_original_N23
    shifted = (points_NL2 - way[:, None, :, 2]).transpose(0, 2, 1)
    points: NDArray[Any] = np.linalg.solve(way[:, :, :2], shifted).transpose(0, 2, 1) - faces.pad
    return points
