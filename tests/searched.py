"""A searched run on a few synthetic faces, which tests of later stages work on: made once, copied for every module."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from nasface import recipe as recipes
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.search.run import search
from nasface.stages.workspace import Machine
from nasface.step import Row

MACHINE = Machine(device="cpu", workers=1)
SETTINGS = (
    "data.options.train=48", "data.options.test=16", "data.input_size=32", "training.batch=16", "training.threads=1",
    "search.epochs=2", "search.options.warmup_epochs=0", "finetune.epochs=1", "prune.options.share=0.7",
    "space.options.width=4", "space.options.stages=4", "space.options.resolutions=3", "space.options.stem_channels=8",
)  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return recipes.load("demo", (*SETTINGS, *overrides))


@contextmanager
def caching_in(folder: Path) -> Iterator[None]:
    """Prepared faces go to a folder that outlives a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASFACE_CACHE", str(folder / "cache"))
        yield


def stopping_after(epochs: int) -> Machine:
    """A machine on which Ctrl-C is pressed after so many epochs."""
    seen = []

    def epoch(rows: list[Row]) -> None:
        seen.append(rows)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    return replace(MACHINE, progress=replace(MACHINE.progress, epoch=epoch))


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that one process of the test session fills; the processes of pytest-xdist wait for it."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def copied(made: Path, folder: Path, name: str = "run") -> RunDir:
    """Copy the run and the cache of `made` to `folder`; the copied architectures come from the copied run."""
    shutil.copytree(made / "cache", folder / "cache")
    run = shutil.copytree(made / "run", folder / name)
    for arch in run.rglob("arch.json"):
        arch.write_text(arch.read_text().replace(json.dumps(str(made / "run")), json.dumps(str(run))))
    return RunDir(run)


def _search(folder: Path) -> None:
    with caching_in(folder):
        search(recipe(), RunDir(folder / "run"), MACHINE)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a searched run and of the cache with its faces; to be `copied`, not changed."""
    return once(tmp_path_factory, "searched", _search)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of a module."""
    return tmp_path_factory.mktemp("module")


@pytest.fixture(scope="module")
def run(searched: Path, folder: Path) -> RunDir:
    """The searched run of a module."""
    return copied(searched, folder)


@pytest.fixture
def cached(run: RunDir, folder: Path, own_cache: Path) -> Iterator[None]:
    """All tests of a module share the faces of its searched run."""
    with caching_in(folder):
        yield
