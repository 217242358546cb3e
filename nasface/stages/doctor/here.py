"""Examine this machine and what is installed on it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from nasface import __version__, plugins
from nasface.data.cache import cache_folder, cached
from nasface.data.crop import find_faces
from nasface.data.parallel import usable_cores
from nasface.data.prepare import TOLERATED
from nasface.errors import NasfaceError
from nasface.model import shipped
from nasface.progress import Progress
from nasface.stages.doctor.finding import Finding, examined, network

_LOW_DISK = 1 << 30
_FOR_DEVELOPERS = {"dev", "docs", "test"}  # extras


def examine(data_root: Path | None = None, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield what is found out about this machine.

    Args:
        data_root: a folder in which every installed dataset looks for its faces.
        progress: follows the check of prepared faces.
    """
    yield from _versions()
    yield from _machine()
    yield from _plugins()
    for name, one in shipped.networks().items():
        yield examined("networks", name, partial(network, one.weights))
    yield from _cache(progress or Progress())
    if data_root is not None:
        yield from _datasets(data_root)


def _versions() -> Iterator[Finding]:
    """The versions of Python, nasface and all that it asks for; extras that are not complete are worth knowing."""
    yield Finding("versions", "Python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Finding("versions", "nasface", "ok", f"{__version__}, {Path(__file__).parents[2]}")
    lacking: dict[str, list[str]] = defaultdict(list)
    try:
        asked = requires("nasface") or ()
    except PackageNotFoundError:
        here = "is not installed, so it has neither plug-ins nor recipes; run pip install . in its folder"
        yield Finding("versions", "installation", "wrong", f"nasface {here}")
        asked = ()
    for requirement in map(Requirement, asked):
        extra = _extra(requirement)
        fault, found = _fault(requirement)
        if extra is not None:
            lacking[extra] += [fault] if fault else []
        elif fault:
            wanted = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Finding("versions", requirement.name, "wrong", f"{fault}; run {wanted}")
        else:
            yield Finding("versions", requirement.name, "ok", found)
    for extra, faults in lacking.items():
        if extra not in _FOR_DEVELOPERS:
            found = (
                f"{', '.join(faults)}; if you need it, run pip install 'nasface[{extra}]'" if faults else "installed"
            )
            yield Finding("versions", f"nasface[{extra}]", "note" if faults else "ok", found)


def _extra(requirement: Requirement) -> str | None:
    """The extra to which a requirement belongs."""
    marker = str(requirement.marker or "")
    _, found, rest = marker.partition("extra == ")
    return rest.strip("\"'") if found else None


def _fault(requirement: Requirement) -> tuple[str, str]:
    """Return what is wrong with an installed package, if anything, and its version."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed", ""
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is version {found}, expected {requirement.specifier}", found
    return "", found


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Finding("machine", "CPU cores", "ok", f"{usable_cores()} usable of {os.cpu_count()}")
    yield examined("machine", "threads", _threads)
    yield examined("machine", "device", _device)
    yield examined("machine", "memory", _memory)


def _threads() -> str:
    import torch

    return f"{torch.get_num_threads()}, unless a recipe asks for another number"


def _device() -> str:
    import torch

    from nasface.device import free_bytes, pick_device

    device = pick_device()
    if device.type == "cpu":
        return "cpu; torch finds no accelerator"
    count, free = torch.accelerator.device_count(), free_bytes(device) / 1e9
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{device} of {count}: {name}, {free:.1f} GB free"


def _memory() -> str:
    import torch

    from nasface.device import free_bytes

    return f"{free_bytes(torch.device('cpu')) / 1e9:.1f} GB free"


def _plugins() -> Iterator[Finding]:
    """One row for the plug-ins of one kind that a package brings, and one for each that cannot be imported."""
    for group, kind in plugins.GROUPS.items():
        by_package = defaultdict(list)
        for name, point in plugins.names(group).items():
            package = point.dist.name if point.dist else "?"
            try:
                plugins.load(group, name)
                by_package[package].append(name)
            except NasfaceError as err:
                yield Finding("plug-ins", f"{kind} '{name}' of {package}", "wrong", str(err))
        for package, names in by_package.items():
            yield Finding("plug-ins", f"{kind}, {package}", "ok", ", ".join(names))


def _cache(progress: Progress) -> Iterator[Finding]:
    """The folder of prepared faces, and all sets in it."""
    folder = cache_folder()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK | os.X_OK):
        fault = f"{place} cannot be written; name another folder in the environment variable NASFACE_CACHE"
        yield Finding("prepared faces", str(folder), "wrong", fault)
    elif free < _LOW_DISK:
        yield Finding("prepared faces", str(folder), "note", f"only {free / 1e9:.1f} GB are free on its disk")
    else:
        yield Finding("prepared faces", str(folder), "ok", f"{free / 1e9:.0f} GB free")
    for path, size, fault in cached(folder, progress.counter("prepared faces")):
        found = f"{size / 1e6:.0f} MB, as written"
        if fault:
            found = f"{fault}; the next command that needs these faces prepares them again, or remove the folder"
        yield Finding("prepared faces", path.name, "note" if fault else "ok", found)


def _datasets(root: Path) -> Iterator[Finding]:
    """What each installed dataset finds in a folder."""
    if not root.is_dir():
        yield Finding("datasets", str(root), "wrong", f"there is no folder {root}; give another with --data-root")
        return
    found = False
    for name in plugins.names("datasets"):
        if _needs_no_folder(name):
            continue
        try:
            index = find_faces(plugins.dataset(name, root))
        except NasfaceError as err:
            yield Finding("datasets", name, "note", str(err))
            continue
        errors = [problem for problem in index.problems if problem.level == "error"]
        if not index.faces and not errors:
            yield Finding("datasets", name, "note", f"no faces found in {root}")
            continue
        found = True
        training = sum(face.split == "train" for face in index.faces)
        faces = f"{training:,} training and {len(index.faces) - training:,} test faces"
        check = f"nasface data check --dataset {name} --data-root {root}"
        if errors:
            few = len(errors) <= TOLERATED * (len(index.faces) + len(errors))
            first = f"{len(errors)} faults, the first: {errors[0].where}: {errors[0].what}"
            yield Finding("datasets", name, "note" if few else "wrong", f"{faces}; {first}; see `{check}`")
        else:
            yield Finding("datasets", name, "ok", f"{faces}; `{check}` decodes them")
    if not found:
        yield Finding("datasets", str(root), "wrong", "no installed dataset finds a face here; see the rows above")


def _needs_no_folder(dataset: str) -> bool:
    """Return whether a dataset makes its faces itself."""
    try:
        return bool(find_faces(plugins.dataset(dataset, None)).faces)
    except NasfaceError:
        return False
