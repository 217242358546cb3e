"""Decode and crop every face once into a memory-mapped cache that training and evaluation read."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasface import durable
from nasface.data.base import SPLITS, Dataset, Face, Index, Problem, Scheme, Split
from nasface.data.cache import cache_folder, file_of, read_meta, seal
from nasface.data.crop import Crop, crop_face, find_faces, read_face
from nasface.data.crop import PrepareOptions as PrepareOptions
from nasface.data.images import load_digests, save_digests
from nasface.data.parallel import map_in_order
from nasface.errors import DataError, did_you_mean

_log = logging.getLogger(__name__)

# Part of every key: increase it whenever the same input would give different files.
_FORMAT = 1
TOLERATED = 0.01
"""The share of damaged faces up to which they are left out."""
_PART = ".part-"  # with which the names of folders begin that are not finished
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class PreparedFaces:
    """The faces of one split, decoded and cropped.

    The input of the network is images_NHWC[:, pad : pad + input_size, pad : pad + input_size].

    Attributes:
        split: 'train' or 'test'.
        images_NHWC: uint8 (N, S, S, 3), a read-only memory map; S = input_size + 2 pad.
        landmarks_NL2: float32 (N, L, 2), x and y in pixels of the stored crop, integers at pixel centres.
        names: one per face.
        subsets: the subsets of each face.
        to_original_N23: float64 (N, 2, 3), maps (x, y, 1) of the stored crop to pixels of the original image.
        scheme: the landmark scheme.
        input_size: side of the network's input in pixels.
        expected: official number of faces in this split, by 'split' and 'split/subset'.
        skipped: the faults of the whole dataset (both splits); these faces are left out.
        key: hash of everything that the crops were made from.
    """

    split: Split
    images_NHWC: NDArray[np.uint8] = field(repr=False)
    landmarks_NL2: NDArray[np.float32] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    subsets: tuple[tuple[str, ...], ...] = field(repr=False)
    to_original_N23: NDArray[np.float64] = field(repr=False)
    scheme: Scheme = field(repr=False)
    input_size: int
    expected: Mapping[str, int]
    skipped: tuple[Problem, ...]
    key: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pad(self) -> int:
        """Stored pixels on each side of the network's input."""
        return (int(self.images_NHWC.shape[1]) - self.input_size) // 2

    @property
    def subset_names(self) -> tuple[str, ...]:
        """All subsets that have a face here, or officially should have one, in alphabetical order."""
        official = {name.partition("/")[2] for name in self.expected} - {""}
        return tuple(sorted(official.union(*self.subsets)))

    def membership(self, subset: str) -> NDArray[np.bool_]:
        """Tell which faces belong to a subset, bool (N,). Raises DataError if this split has no such subset."""
        if subset not in self.subset_names:
            hint = did_you_mean(subset, self.subset_names)
            raise DataError(f"the {self.split} split has no subset '{subset}'; {hint}")
        return np.array([subset in of_face for of_face in self.subsets], dtype=np.bool_)

    def count(self, subset: str | None = None) -> int:
        """Return the number of faces in a subset, or of all faces."""
        return len(self) if subset is None else int(self.membership(subset).sum())

    def expected_count(self, subset: str | None = None) -> int | None:
        """Return the official number of faces in a subset, or of all faces; None if there is none."""
        return self.expected.get(self.split if subset is None else f"{self.split}/{subset}")


def prepare(
    dataset: Dataset,
    options: PrepareOptions | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    some: Callable[[Index], Index] = lambda index: index,
) -> dict[Split, PreparedFaces]:
    """Crop the faces of a dataset, or find the crops that were made earlier from exactly the same data.

    A damaged face is left out, logged and listed in `skipped`.

    Args:
        dataset: the plug-in.
        options: how to crop.
        cache: folder of the cache; None takes `cache_folder()`.
        workers: number of threads or processes; None takes the number of cores.
        progress: called with (faces done, faces in all) while cropping.
        some: chooses from the index of the dataset; all by default. The share of damaged faces is of all.

    Returns:
        Both splits; a split without faces has length 0.

    Raises:
        DataError: there are no faces, more than 1 % of them are damaged, or the cache cannot be written.
    """
    options = options or PrepareOptions()
    root = cache or cache_folder()
    whole = find_faces(dataset)
    index = some(whole)
    unread = [problem for problem in index.problems if problem.level == "error"]
    total = len(whole.faces) + len(unread)
    if not index.faces and not unread:
        raise DataError(f"{dataset.name}: no face was found; 'nasface data check' says what is there")
    _refuse_if_damaged(dataset, unread, total)
    if options.box == "provided" and any(face.box is None for face in index.faces):
        raise DataError(f"{dataset.name}: these files have no face boxes; set data.box to 'landmarks'")
    key = _key(dataset, index, options, root, workers)
    target = root / "prepared" / f"{dataset.name}-{key[:20]}"
    durable.remove_abandoned(target.parent.glob(f"{_PART}*"))
    meta = read_meta(target)
    if isinstance(meta, str):
        if meta:
            _log.warning("%s is not as it was written (%s), so the faces are prepared again", target, meta)
        meta = _build(dataset, index, options, target, workers, progress, unread, total)
    problems = (*unread, *(Problem(**entry) for entry in meta["problems"]))
    _report(dataset, problems, total)
    return {
        split: _open_split(dataset, index, options, split, target, meta["kept"][split], problems, key)
        for split in SPLITS
    }


def _crop_or_problem(dataset: Dataset, options: PrepareOptions, face: Face) -> Crop | Problem:
    try:
        return crop_face(read_face(dataset, face), face, dataset.scheme.num_landmarks, options)
    except DataError as error:
        return Problem(face.name, str(error))


def _fingerprint(dataset: Dataset, face: Face) -> bytes:
    with suppress(DataError, OSError):  # reading the face will fail too, and say why
        return dataset.fingerprint(face)
    return b"unreadable"


def _key(dataset: Dataset, index: Index, options: PrepareOptions, root: Path, workers: int | None) -> str:
    load_digests(root / "digests.json")
    digest = hashlib.blake2b(digest_size=20)
    shape = (options.input_size, options.pad, options.box, options.box_scale)
    digest.update(repr((_FORMAT, dataset.name, dataset.scheme.num_landmarks, shape)).encode())
    prints = map_in_order(partial(_fingerprint, dataset), index.faces, workers=workers)
    with closing(prints):
        for face, content in zip(index.faces, prints, strict=True):
            box = face.box if options.box == "provided" else None
            digest.update(repr((face.split, face.name, face.subsets, box, content)).encode())
            digest.update(np.ascontiguousarray(face.landmarks_L2, dtype="<f8").tobytes())
    with suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
    save_digests(root / "digests.json")
    return digest.hexdigest()


def _build(
    dataset: Dataset,
    index: Index,
    options: PrepareOptions,
    target: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    unread: Sequence[Problem],
    total: int,
) -> dict[str, Any]:
    """Crop all faces into a temporary folder beside the target and move it there in one step."""
    try:
        durable.make_folder(target.parent)
        need = len(index.faces) * options.stored_size**2 * 3
        free = shutil.disk_usage(target.parent).free
        if free < need + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, f"{need >> 20} MiB are needed, {free >> 20} MiB are free")
        with durable.temporary_folder(target.parent, _PART) as part:
            meta = _crop_all(dataset, index, options, part, workers, progress, unread, total)
            return _publish(part, target, meta)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            reason = f"no space left ({reason})"
        raise DataError(
            f"{target.parent}: the prepared faces cannot be written here: {reason}; free some space, or name "
            "another folder in the environment variable NASFACE_CACHE"
        ) from error


def _crop_all(
    dataset: Dataset,
    index: Index,
    options: PrepareOptions,
    part: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    unread: Sequence[Problem],
    total: int,
) -> dict[str, Any]:
    """Crop all faces into a folder and return its description."""
    meta: dict[str, Any] = {"kept": {}, "problems": []}
    done = 0
    for split in SPLITS:
        positions = [i for i, face in enumerate(index.faces) if face.split == split]
        crops = map_in_order(
            partial(_crop_or_problem, dataset, options),
            [index.faces[i] for i in positions],
            workers=workers,
            kind=getattr(dataset, "parallel", "thread"),
        )
        writing = _CropWriter(part, split, options.stored_size, dataset.scheme.num_landmarks)
        with closing(crops), writing as writer:
            kept = meta["kept"][split] = []
            for position, crop in zip(positions, crops, strict=True):
                if isinstance(crop, Problem):
                    meta["problems"].append(vars(crop))
                    problems = [*unread, *(Problem(**entry) for entry in meta["problems"])]
                    _refuse_if_damaged(dataset, problems, total)
                else:
                    writer.add(crop)
                    kept.append(position)
                done += 1
                if progress:
                    progress(done, len(index.faces))
    seal(part, meta)
    return meta


class _CropWriter:
    """Appends crops to a .npy file whose length is not known until the end.

    It uses plain writes: on a full disk they raise an error, whereas a writable memory map kills the process.
    """

    def __init__(self, folder: Path, split: Split, size: int, num_landmarks: int):
        self._folder, self._split, self._size = folder, split, size
        self._landmarks: list[NDArray[np.float32]] = [np.empty((0, num_landmarks, 2), np.float32)]
        self._affines: list[NDArray[np.float64]] = [np.empty((0, 2, 3))]

    def __enter__(self) -> _CropWriter:
        self._file = file_of(self._folder, self._split, "images").open("wb")
        self._write_header()
        return self

    def __exit__(self, *failure: object) -> None:
        with self._file:
            if failure[0] is None:
                self._file.seek(0)
                self._write_header()
        if failure[0] is None:
            np.save(file_of(self._folder, self._split, "landmarks"), np.concatenate(self._landmarks))
            np.save(file_of(self._folder, self._split, "affines"), np.concatenate(self._affines))

    def add(self, crop: Crop) -> None:
        self._file.write(np.ascontiguousarray(crop.image).data)
        self._landmarks.append(crop.landmarks_L2[None])
        self._affines.append(crop.to_original_23[None])

    def _write_header(self) -> None:
        # numpy leaves room for the first axis to grow, so the length of the header does not change
        shape = (len(self._landmarks) - 1, self._size, self._size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _publish(part: Path, target: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Move the finished folder to its place; if another process was faster, take its result."""
    try:
        durable.put(part, target)
    except OSError:
        other = read_meta(target)
        if not isinstance(other, str):
            return other
        shutil.rmtree(target, ignore_errors=True)  # damaged
        durable.put(part, target)
    return meta


def _open_split(
    dataset: Dataset,
    index: Index,
    options: PrepareOptions,
    split: Split,
    target: Path,
    kept: Sequence[int],
    problems: tuple[Problem, ...],
    key: str,
) -> PreparedFaces:
    faces = [index.faces[i] for i in kept]
    official = {name: number for name, number in index.expected.items() if name.partition("/")[0] == split}
    return PreparedFaces(
        split=split,
        images_NHWC=np.load(file_of(target, split, "images"), mmap_mode="r"),
        landmarks_NL2=np.load(file_of(target, split, "landmarks")),
        names=tuple(face.name for face in faces),
        subsets=tuple(face.subsets for face in faces),
        to_original_N23=np.load(file_of(target, split, "affines")),
        scheme=dataset.scheme,
        input_size=options.input_size,
        expected=official,
        skipped=problems,
        key=key,
    )


def _refuse_if_damaged(dataset: Dataset, problems: Sequence[Problem], total: int) -> None:
    if len(problems) > TOLERATED * total:
        first = "; ".join(problem.what for problem in problems[:3])
        raise DataError(
            f"{dataset.name}: more than 1 % of {total} faces are damaged, the first are: "
            f"{first}; 'nasface data check' lists all of them; replace or delete them"
        )


def _report(dataset: Dataset, problems: Sequence[Problem], total: int) -> None:
    if not problems:
        return
    for problem in problems:
        _log.info("skipped %s: %s", problem.where, problem.what)
    first = ", ".join(problem.where for problem in problems[:10])
    more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
    _log.warning("%s: %d of %d faces are damaged and left out: %s%s", dataset.name, len(problems), total, first, more)
