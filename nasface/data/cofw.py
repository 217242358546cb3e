"""COFW: occluded faces with 29 landmarks; one MATLAB 7.3 (HDF5) file per split holds annotations and images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasface import untrusted
from nasface.data.base import Face, Index, Problem, Split
from nasface.data.facelists import readable
from nasface.data.images import MAX_PIXELS, file_digest
from nasface.data.reading import Source, candidates, landmark_fault
from nasface.data.schemes import SCHEMES
from nasface.errors import DataError

_SOURCE = Source(
    title="COFW",
    layout="COFW_train_color.mat and COFW_test_color.mat (MATLAB 7.3)",
    page="https://data.caltech.edu/records/bc0bf-nc666",
)

# (split, suffix of the variables, file names in order of preference)
_FILES: tuple[tuple[Split, str, tuple[str, ...]], ...] = (
    ("train", "Tr", ("cofw_train_color.mat", "cofw_train.mat")),
    ("test", "T", ("cofw_test_color.mat", "cofw_test.mat")),
)
_MAX_VALUES = 20_000_000  # of a variable; COFW's largest has 117,015


class COFW:
    """COFW, read from its official MATLAB files; landmarks, boxes and images are stored transposed and 1-based.

    Test faces are in the subset 'full'. Each image is read only when it is needed, so that a file of a gigabyte is
    never in memory as a whole.

    Attributes:
        root: the dataset's folder, or its parent folder.
    """

    name = "cofw"
    scheme = SCHEMES[29]
    licence = "For research use; see the terms of its authors."

    def __init__(self, root: Path | None):
        self.root = root

    @readable(_SOURCE.title)
    def index(self) -> Index:
        """Read the landmarks and boxes of the files that are there.

        Raises:
            DataError: the folder is missing, both files are missing, or a file is damaged as a whole.
        """
        root = _SOURCE.folder(self.root)
        faces: list[Face] = []
        problems: list[Problem] = []
        found = False
        for split, suffix, names in _FILES:
            path = _find(root, names)
            if path is None:
                continue
            found = True
            subsets = ("full",) if split == "test" else ()
            points_NL2, boxes_N4 = _annotations(path, suffix)
            for i, (points, box) in enumerate(zip(points_NL2, boxes_N4, strict=True)):
                name = f"{split}/{i + 1:04d}"
                fault = landmark_fault(points, 29)
                if not fault and not np.isfinite(box).all():
                    fault = "has a box that is not finite"
                if fault:
                    problems.append(Problem(name, f"face {i + 1} of {path} {fault}"))
                else:
                    x, y, width, height = box.tolist()
                    faces.append(Face(name, split, subsets, points, (path, suffix, i), (x, y, width, height)))
        if not found:
            raise _SOURCE.missing(f"{root} holds neither of the two files")
        return Index(tuple(faces), tuple(problems), {"train": 1345, "test": 507, "test/full": 507})

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Read one image of the MATLAB file as RGB uint8 (H, W, 3); grey images get three equal channels."""
        path, suffix, i = face.source
        with _opened(path) as file:
            image = _referred(path, file, f"image {i + 1}", _variable(path, file, f"Is{suffix}")[:].ravel()[i])
            if image.size > 3 * MAX_PIXELS:
                raise ValueError(f"image {i + 1} has the shape {image.shape}, more than {MAX_PIXELS:,} pixels")
            stored = np.asarray(image)
        if stored.dtype != np.uint8 or not (stored.ndim == 2 or (stored.ndim == 3 and stored.shape[0] == 3)):
            raise DataError(
                f"{path}: image {i + 1} is {stored.dtype} {stored.shape}; expected uint8 (3, W, H) or (W, H)"
            )
        image_HW = stored.T
        return np.ascontiguousarray(np.stack([image_HW] * 3, axis=2) if image_HW.ndim == 2 else image_HW)

    def fingerprint(self, face: Face) -> bytes:
        """Return the hash of the whole MATLAB file and the position in it."""
        path, suffix, i = face.source
        return file_digest(path) + f"{suffix}{i}".encode()


def _find(root: Path, names: tuple[str, ...]) -> Path | None:
    files = {path.name.lower(): path for folder in candidates(root) for path in folder.glob("*.[mM][aA][tT]")}
    return next((files[name] for name in names if name in files), None)


def _annotations(path: Path, suffix: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return landmarks (N, 29, 2) and boxes (N, 4) as x, y, width, height, both 0-based."""
    with _opened(path) as file:
        found = {name: _variable(path, file, f"{name}{suffix}") for name in ("phis", "bboxes", "Is")}
        for name, array in found.items():
            if array.size > _MAX_VALUES:
                raise ValueError(f"{name}{suffix} has {array.size:,} values, more than {_MAX_VALUES:,}")
        phis, boxes = (np.asarray(found[name], dtype=np.float64) for name in ("phis", "bboxes"))
        images = found["Is"].size
    if phis.ndim != 2 or phis.shape[0] != 87 or boxes.shape != (4, phis.shape[1]) or images != phis.shape[1]:
        raise DataError(
            f"{path}: phis{suffix} is {phis.shape}, bboxes{suffix} {boxes.shape}, Is{suffix} {images}; "
            "expected (87, N), (4, N) and N; this is not a file of COFW, or it is damaged; copy or download it again"
        )
    points_NL2 = phis[:58].reshape(2, 29, -1).transpose(2, 1, 0) - 1
    return points_NL2, boxes.T - (1, 1, 0, 0)


def _variable(path: Path, file: Any, name: str) -> Any:
    """Return an array of the file by its name, without following a link, which could lead to another file."""
    import h5py

    # file.get(name, getlink=True) would open the other file to see whether it is there
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise _strange(path, name, "a link")
    return _inside(path, name, file[name])


def _referred(path: Path, file: Any, name: str, reference: Any) -> Any:
    """Return an array of the file by a reference to it; a text in its place would be a path, which leads anywhere."""
    import h5py

    if not isinstance(reference, h5py.Reference):
        raise _strange(path, name, "without a reference")
    return _inside(path, name, file[reference])


def _inside(path: Path, name: str, found: Any) -> Any:
    """Return an array, unless its values are in other files, which h5py would read wherever they are."""
    import h5py

    if not isinstance(found, h5py.Dataset):
        raise _strange(path, name, "a group" if isinstance(found, h5py.Group) else "a type")
    if found.is_virtual or found.external:
        raise _strange(path, name, "kept in other files")
    return found


def _strange(path: Path, name: str, what: str) -> DataError:
    return DataError(
        f"{path}: {name} is {what}, expected an array in this file; this is not a file of COFW, or it is damaged; copy "
        "or download it again"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the HDF5 file, and report its faults as DataError. It is opened for every image, which takes 1 ms."""
    import h5py

    try:
        untrusted.check_file(path)
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as a MATLAB 7.3 file of COFW ({error}); copy or download it again"
        ) from error
