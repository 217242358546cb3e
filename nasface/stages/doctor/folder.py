"""Examine a folder of results: of a run, a sweep, a family or an experiment, with all that lies below it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path

from nasface import plugins, rundir, untrusted
from nasface import recipe as recipes
from nasface.arch import check_digest
from nasface.errors import RunError, shortened
from nasface.model.files import WEIGHTS
from nasface.model.source import read_arch, read_factors, read_source
from nasface.places import is_own
from nasface.progress import Progress
from nasface.recipe import Recipe
from nasface.rundir import PARTIAL, RunDir
from nasface.stages.doctor.finding import Finding, examined, network
from nasface.stages.studies.storage import in_journal

_MOST = 1_000_000  # files
_RECIPES = 16  # that are remembered
_LONGEST_LINE = 1 << 20  # bytes of a journal

Look = Callable[[Path], str]
"""Examines a file: returns what it holds, and raises what is wrong with it."""


def examine(folder: Path, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield what is found out about each file that nasface has written there; nothing is changed.

    Recipes and architectures must be valid, weights must fit their network and be finite, and checkpoints must be as
    they were written. Other files are only counted. Nothing is opened for writing, locks included.

    Args:
        folder: the folder.
        progress: follows the files.

    Raises:
        RunError: when there is no such folder, or when nothing in it is from nasface.
    """
    if not folder.is_dir():
        raise RunError(f"there is no folder {shortened(str(folder))}; give that of a run, a sweep or an experiment")
    folder = folder.resolve()  # what a file is depends on the name of its folder too
    found = sorted(_files(folder))
    count, others, ours = (progress or Progress()).counter("files"), 0, 0
    load = lru_cache(_RECIPES)(lambda path: recipes.load(str(path)))  # two files ask for that of a run
    looks = _LOOKS | {"*/recipe.yaml": lambda path: _recipe(load(path))}
    for number, path in enumerate(found, 1):
        count(number, len(found))
        name, look = str(path.relative_to(folder)), _look(path, looks)
        if path.is_symlink() and (is_own(path.name) or look or path.name == ".lock"):
            fault = "is a symbolic link, through which nothing is written; put what it points to in its place"
            yield Finding("files", name, "wrong", f"{path} {fault}")
        elif path.parent.name.endswith(PARTIAL) or path.name.endswith(PARTIAL):
            left = "being written, or left by a process that was killed; the next command in this folder removes it"
            yield Finding("files", name, "note", left)
        elif path.name == ".lock" and _is_held(path):
            yield Finding("files", name, "note", "a process is working in this folder")
        elif look and not _is_of_others(path):
            ours += 1
            looked = [examined("files", name, partial(look, path)), *_consistent(path, name, load)]
            if path.exists():  # a command at work may have removed it meanwhile
                yield from looked
        else:
            others += not path.name.endswith(".lock")
    if not ours:
        raise RunError(f"{folder} holds nothing that nasface has written; give the folder of a run")
    if others:
        yield Finding("files", "others", "ok", f"{others} files that doctor does not look into")


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder; links to folders are not followed, but named."""
    number = 0
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*names, *links):
            number += 1
            if number > _MOST:
                raise RunError(f"{folder} holds more than {_MOST:,} files; give the folder of a single run")
            yield Path(place, name)


def _is_held(lock: Path) -> bool:
    """Return whether a process holds a lock, as far as that can be found out without writing."""
    try:
        import fcntl

        file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _is_of_others(path: Path) -> bool:
    """Return whether a file holds weights of another program."""
    if path.suffix != WEIGHTS or is_own(path.name) or is_own(path.parent.name):
        return False
    try:
        return not rundir.read_meta(path)
    except (RunError, ValueError):
        return False


def _look(path: Path, looks: Mapping[str, Look]) -> Look | None:
    """Return what examines a file, or None for a file that is none of a run's."""
    for pattern, look in looks.items():
        if fnmatch(f"{path.parent.name}/{path.name}", pattern):
            return look
    return None


def _recipe(recipe: Recipe) -> str:
    return f"{recipe.space.name} on {recipe.data.name}, {recipe.data.input_size} px, seed {recipe.seed}"


def _arch(path: Path) -> str:
    arch = read_arch(path)
    arch.subgraph(plugins.space(arch.space, arch.options).graph)
    return f"{len(arch.kept)} edges of {arch.space}"


def _factors(path: Path) -> str:
    factors = read_factors(path)
    check_digest(str(path), factors.graph_digest, plugins.space(factors.space, factors.options).graph)
    return f"{len(factors.importance)} factors of {factors.space}"


def _checkpoint(path: Path) -> str:
    from nasface.checkpoint import verified

    title, epoch = verified(path)
    return f"{shortened(title)}, after epoch {epoch}"


def _json(path: Path) -> str:
    content = rundir.read_json(path, "a JSON object")
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a JSON object; restore the file, or run its command again")
    return f"{len(content)} entries"


def _table(path: Path) -> str:
    rows, columns = untrusted.read_table(path).shape
    return f"{rows} rows of {columns} columns"


def _study(path: Path) -> str:
    with in_journal(path) as storage:
        studies = storage.get_all_studies()
        trials = sum(len(storage.get_all_trials(study._study_id, deepcopy=False)) for study in studies)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_LINE))
        rest, _, last = file.read().rstrip(b"\n").rpartition(b"\n")
        whole = file.seek(0, os.SEEK_END) == 0 or (file.seek(-1, os.SEEK_END) and file.read() == b"\n")
    if whole and (last or rest):
        json.loads(last)  # Optuna forgives the last line alone, but no later one
    return f"{len(studies)} studies of {trials} trials" + "; its torn last line will be left out" * (not whole)


_LOOKS: dict[str, Look] = {
    "*/arch.json": _arch,
    "*/factors.json": _factors,
    "*/factors-*.json": _factors,
    "checkpoints/*.safetensors": _checkpoint,
    "*/*.safetensors": network,
    "*/job.json": _json,
    "*/metrics.json": _json,
    "*/masked.json": _json,
    "*/experiment.json": _json,
    "*/metrics.csv": _table,
    "*/errors.csv": _table,
    "*/pareto.csv": _table,
    "*/results.csv": _table,
    "*/study.log": _study,
}


def _consistent(path: Path, name: str, load: Callable[[Path], Recipe]) -> Iterator[Finding]:
    """Whether a file goes with those beside it."""
    run = RunDir(path.parent)
    if path == run.metrics and run.recipe.exists():
        finding = examined("files", name, lambda: _same_recipe(run, load))
        if finding.state == "wrong":
            yield replace(finding, state="note")  # the recipe itself is looked at too
    if path == run.arch and not run.slim.exists():
        finding = examined("files", name, lambda: str(read_source(path).weights()))
        if finding.state == "wrong":
            yield finding


def _same_recipe(run: RunDir, load: Callable[[Path], Recipe]) -> str:
    content = rundir.read_json(run.metrics, "the figures of a run")
    digest = content.get("recipe_digest") if isinstance(content, dict) else None
    if digest not in (None, load(run.recipe).digest):
        raise RunError(
            f"{run.metrics} was written with another recipe than {run.recipe}, or by another version of nasface"
        )
    return ""
