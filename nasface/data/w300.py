"""300W: faces with 68 landmarks from AFW, HELEN, LFPW and IBUG, in the three forms in which it is distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, get_args

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from nasface import untrusted
from nasface.data.base import SPLITS, Face, Index, Problem, Split
from nasface.data.facelists import ListedFace, is_below, read_csv, read_imglab_xml, readable
from nasface.data.images import IMAGE_SUFFIXES, decode, file_digest, find_images
from nasface.data.reading import Source, candidates, landmark_fault, number, unique_names
from nasface.data.schemes import SCHEMES
from nasface.errors import DataError, RecipeError, shortened

Form = Literal["auto", "pts", "csv", "xml"]

_SOURCE = Source(
    title="300W",
    layout="afw/, helen/trainset/, helen/testset/, lfpw/trainset/, lfpw/testset/ and ibug/ with images and "
    "their .pts files (or one HRNet-style CSV file per split, or dlib's labels_ibug_300W_{train,test}.xml)",
    page="https://ibug.doc.ic.ac.uk/resources/300-W/",
)

# (folder, split, subsets); the case of the folders does not matter
_FOLDERS: tuple[tuple[str, Split, tuple[str, ...]], ...] = (
    ("afw", "train", ("afw",)),
    ("helen/trainset", "train", ("helen",)),
    ("lfpw/trainset", "train", ("lfpw",)),
    ("helen/testset", "test", ("common", "full")),
    ("lfpw/testset", "test", ("common", "full")),
    ("ibug", "test", ("challenge", "full")),
)

_EXPECTED = {
    "train": 3148, "train/afw": 337, "train/helen": 2000, "train/lfpw": 811,
    "test": 689, "test/common": 554, "test/challenge": 135, "test/full": 689,
}  # fmt: skip


class W300:
    """300W, read from its official folders, from HRNet-style CSV files or from dlib's XML files.

    Test faces are in 'full' and in 'common' (HELEN and LFPW) or 'challenge' (IBUG); training faces in 'afw',
    'helen' or 'lfpw'. The names of CSV and XML files tell the split; the subset follows from the path of the
    image. The copies '..._mirror' that dlib adds are skipped.

    Attributes:
        root: the dataset's folder, or its parent folder.
        annotations: 'pts', 'csv' or 'xml'; 'auto' takes the first of these that is there.
        csv_base: 1 if the coordinates in the CSV files start at 1, else 0. Those in `.pts` files always start at 1.
    """

    name = "300w"
    scheme = SCHEMES[68]
    licence = "For research use only; the images are from AFW, HELEN, LFPW and IBUG, each with its own terms."

    def __init__(
        self, root: Path | None, *, annotations: Form = "auto", csv_base: Annotated[int, Interval(ge=0, le=1)] = 0
    ):
        forms = get_args(Form)
        if annotations not in forms:
            raise RecipeError(f"300w: annotations must be one of {', '.join(forms)}, not {annotations!r}")
        if csv_base not in (0, 1):
            raise RecipeError(f"300w: csv_base must be 0 or 1, not {csv_base!r}")
        self.root = root
        self.annotations = annotations
        self.csv_base = csv_base

    @readable(_SOURCE.title)
    def index(self) -> Index:
        """Find the faces in all folders or lists that are there.

        Raises:
            DataError: the folder is missing or holds none of the three forms, or a list cannot be read.
        """
        root = _SOURCE.folder(self.root)
        readers = {"pts": _index_folders, "csv": self._index_csv, "xml": _index_xml}
        for form, reader in readers.items():
            if self.annotations in ("auto", form):
                for folder in candidates(root):
                    faces, problems = reader(folder)
                    if faces or problems:
                        return Index(tuple(faces), tuple(problems), _EXPECTED)
        form = "annotations" if self.annotations == "auto" else f"{self.annotations} annotations"
        raise _SOURCE.missing(f"{root} holds no {form} of 300W")

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Decode the image of a face to RGB uint8 (H, W, 3)."""
        return decode(face.source)

    def fingerprint(self, face: Face) -> bytes:
        """Return the hash of the image file."""
        return file_digest(face.source)

    def _index_csv(self, root: Path) -> tuple[list[Face], list[Problem]]:
        train, rest = _by_name(root, ".csv", "train")
        # HRNet's 'valid' is the official test set, and its 'test' is the private set of 600 images; the lists of the
        # common and challenge subsets repeat the faces of 'valid'.
        whole = [path for path in rest if not any(part in path.stem.lower() for part in ("common", "challenge"))]
        test = [path for path in whole if "valid" in path.stem.lower()]
        test = test or [path for path in whole if "test" in path.stem.lower()]
        splits: tuple[tuple[Split, list[Path]], ...] = (("train", train), ("test", test))
        return _index_lists(
            root,
            [(s, path, list(read_csv(path, 68, self.csv_base))) for s, paths in splits for path in paths],
        )


def read_pts(path: Path) -> NDArray[np.float64]:
    """Read a `.pts` file, with or without header and braces. Coordinates are returned as they are, 1-based.

    Returns:
        float64 (number of landmarks, 2).

    Raises:
        DataError: the file cannot be read or holds anything but pairs of numbers.
    """
    try:
        untrusted.check_file(path, untrusted.MAX_JSON)
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    body = text.partition("{")[2].partition("}")[0] if "{" in text else text
    words = [
        word
        for line in body.splitlines()
        if not line.strip().lower().startswith(("version", "n_points"))
        for word in line.replace(",", " ").split()
    ]
    try:
        numbers = np.array([number(word) for word in words])
    except ValueError as error:
        raise DataError(f"{path}: is not a list of landmarks ({error})") from None
    if len(numbers) % 2:
        raise DataError(f"{path}: has {len(numbers)} numbers; expected an even number")
    return numbers.reshape(-1, 2)


def _index_folders(root: Path) -> tuple[list[Face], list[Problem]]:
    faces: list[Face] = []
    problems: list[Problem] = []
    for official, split, subsets in _FOLDERS:
        folder = _descend(root, official)
        if folder is None:
            continue
        images = {stem: path for stem, path in find_images(folder).items() if not _mirrored(path)}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() != ".pts" or path.name.startswith(".") or _mirrored(path):
                continue
            where = f"{official}/{path.name}"
            image = images.pop(path.stem, None)
            try:
                points = read_pts(path) - 1
            except DataError as error:
                problems.append(Problem(where, str(error)))
                continue
            fault = landmark_fault(points, 68)
            if fault:
                problems.append(Problem(where, f"{path} {fault}"))
            elif image is None:
                problems.append(Problem(where, f"{path} has no image of the same name beside it"))
            else:
                faces.append(Face(f"{official}/{path.stem}", split, subsets, points, image))
        problems += [
            Problem(f"{official}/{path.name}", f"{path} has no .pts file and is not used", "warning")
            for path in images.values()
        ]
    if not faces and all(problem.level == "warning" for problem in problems):
        return [], []  # images without any .pts file: the annotations are in a CSV or XML file
    return faces, problems


def _index_xml(root: Path) -> tuple[list[Face], list[Problem]]:
    train, rest = _by_name(root, ".xml", "train")
    test = [path for path in rest if "test" in path.stem.lower()]
    splits: tuple[tuple[Split, list[Path]], ...] = (("train", train), ("test", test))
    return _index_lists(root, [(s, path, read_imglab_xml(path)) for s, paths in splits for path in paths])


def _index_lists(root: Path, lists: Sequence[tuple[Split, Path, list[ListedFace]]]) -> tuple[list[Face], list[Problem]]:
    faces: list[Face] = []
    problems: list[Problem] = []
    for split, path, entries in lists:
        strangers = 0
        for entry in entries:
            if _mirrored(Path(entry.image)):
                continue
            fault = entry.fault or landmark_fault(entry.points_L2, 68)
            image = None if fault else _find_image(root, entry.image)
            if fault or image is None:
                named = f"names the image {shortened(entry.image)}, which is not below {root}"
                fault = fault or (named if entry.image.strip() else "names no image")
                problems.append(Problem(entry.where, f"{entry.where} {fault}"))
                continue
            official = _official(entry.image)
            subsets = official[1] if official and official[0] == split else ()
            strangers += official is not None and official[0] != split
            faces.append(Face(entry.image, split, subsets, entry.points_L2, image, entry.box))
        if strangers:
            what = (
                f"{path} lists {strangers} images as {split} that officially are not; "
                "results cannot be compared with published ones"
            )
            problems.append(Problem(path.name, what, "warning"))
    return _named_apart(faces), problems


def _named_apart(faces: Sequence[Face]) -> list[Face]:
    """Turn the image paths by which listed faces are named into names that are unique within each split."""
    grouped = [[face for face in faces if face.split == split] for split in SPLITS]
    names = chain.from_iterable(unique_names([face.name for face in group]) for group in grouped)
    return [replace(face, name=name) for face, name in zip(chain(*grouped), names, strict=True)]


def _by_name(root: Path, suffix: str, word: str) -> tuple[list[Path], list[Path]]:
    """Return the files of a folder with a suffix: those with a word in their name, and the others."""
    files = [p for p in sorted(root.iterdir()) if p.suffix.lower() == suffix and not p.name.startswith(".")]
    return [p for p in files if word in p.stem.lower()], [p for p in files if word not in p.stem.lower()]


def _mirrored(path: Path) -> bool:
    return path.stem.endswith("_mirror")


def _descend(root: Path, parts: str) -> Path | None:
    """Return the folder root/parts, ignoring case, or None."""
    folder = root
    for part in parts.split("/"):
        exact = folder / part
        match = [exact] if exact.is_dir() else [p for p in folder.iterdir() if p.name.lower() == part]
        if not match or not match[0].is_dir():
            return None
        folder = match[0]
    return folder


def _find_image(root: Path, name: str) -> Path | None:
    """Find the image that a list names, below root or root/images, with the given suffix or another one."""
    inside = PurePosixPath(name.replace("\\", "/"))
    if not inside.name:
        return None
    for folder in (root, root / "images"):
        for choice in (inside, *(inside.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)):
            if is_below(folder, choice):
                return folder / choice
    return None


def _official(image: str) -> tuple[Split, tuple[str, ...]] | None:
    """Return the split and subsets of an image by the folder it is in; None if that is not a folder of 300W."""
    parent = f"/{PurePosixPath(image.replace(chr(92), '/').lower()).parent}/"
    return next(((split, subsets) for folder, split, subsets in _FOLDERS if f"/{folder}/" in parent), None)
