"""A searched run on a few synthetic faces, which tests of later stages work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nasface import recipe as recipes
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.search import search
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


def searched_run(folder: Path) -> RunDir:
    """Search on a small scale below `folder`."""
    run = RunDir(folder / "run")
    with caching_in(folder):
        search(recipe(), run, MACHINE)
    return run
