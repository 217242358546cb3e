"""Where names that were read from a file may lead: never out of the folder they belong to, and never over a link."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from nasface.errors import RunError
from nasface.rundir import RunDir

_HERE = RunDir(Path())
_OWN = {
    path.name
    for path in (
        _HERE.recipe, _HERE.job, _HERE.factors, _HERE.arch, _HERE.supernet, _HERE.slim, _HERE.metrics_csv,
        _HERE.metrics, _HERE.errors, _HERE.study, _HERE.pareto, _HERE.log,
    )
} | {"masked.json", "study.log.lock"}  # fmt: skip
_NUMBERED = re.compile(r"factors-.*\.json|student-\d+\.safetensors", re.DOTALL)
_FOLDERS = {"checkpoints", "events", "family", "figures", "networks", "trained"}
_LONGEST = 100  # characters of a name
_START = 8192  # bytes of a file in which a mark of nasface's stands


def name_fault(name: str) -> str:
    """Say why a text cannot be the name of a run, sweep, variant, network or file; empty if it can."""
    if not 0 < len(name) <= _LONGEST:
        return f"has {len(name)} characters; expected 1 to {_LONGEST}"
    if strange := [letter for letter in name if letter in "/\\:" or not letter.isprintable()]:
        return f"holds {strange[0]!r}, which a name cannot; choose a name without separators"
    return "begins with a dot; choose another name" if name.startswith(".") else ""


def is_own(name: str) -> bool:
    """Return whether nasface itself gives this name to a file or folder of a run; case does not matter."""
    lower = name.lower()
    return lower in _OWN | _FOLDERS or _NUMBERED.fullmatch(lower) is not None


def checked_name(name: object, where: object) -> str:
    """Return a name that was read from the file `where`; RunError if it is not one."""
    fault = name_fault(name) if isinstance(name, str) else "is not a text"
    if fault:
        raise RunError(f"{where} names {str(name)[:120]!r}, which {fault}")
    return str(name)


def below(folder: Path, path: object, where: object) -> Path:
    """Return `folder / path` for a path that was read from the file `where`; RunError if that is not below the folder.

    Links are not looked at: whoever made the folder may have put any file there.
    """
    inside = PurePosixPath(str(path).replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or not inside.parts or Path(str(path)).drive:
        raise RunError(f"{where} names '{str(path)[:120]}', which is not below {folder}; expected a path inside it")
    return folder / inside


def refuse_links(folder: Path) -> None:
    """Raise a RunError if anything that nasface writes to in a run folder is a symbolic link."""
    own = [path for path in _entries(folder) if is_own(path.name) or path.name == ".lock"]
    for path in own:
        refuse_link(path)
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                refuse_link(Path(parent, name))


def refuse_link(path: Path) -> None:
    """Raise a RunError if a file or folder is a symbolic link."""
    if path.is_symlink():
        raise RunError(
            f"{path} is a symbolic link; nothing is written through links in a run folder: put what it points to in "
            "its place, or choose another folder with --out"
        )


def not_ours(path: Path) -> RunError:
    """Return the error for a file of the user's own that a command would replace."""
    return RunError(
        f"{path} is not from nasface, but would be replaced; give another place with --out, or move the file away"
    )


def begins_with(path: Path, *marks: str) -> bool:
    """Return whether one of these texts stands near the start of a file, by which nasface knows what it has written."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError:
        return False
    return any(mark.encode() in start for mark in marks)


def own_files(folder: Path) -> list[Path]:
    """List the files in a folder whose names are those of a run's own files."""
    return [path for path in _entries(folder) if path.is_file() and is_own(path.name)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
