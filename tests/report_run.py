"""A real run that reports are made of: a search of a small space on few faces, and a sweep below it."""

from __future__ import annotations

from pathlib import Path

from nasface import recipe as recipes
from nasface import stages
from nasface.rundir import RunDir

SMALL = (
    "data.options.train=32", "data.options.test=12", "data.input_size=32", "training.batch=8", "training.threads=1",
    "search.epochs=1", "search.options.warmup_epochs=0", "finetune.epochs=1", "space.options.width=4",
    "space.options.stages=4", "space.options.resolutions=3", "space.options.stem_channels=8",
)  # fmt: skip


def searched(folder: Path) -> RunDir:
    """Search into a folder."""
    run = RunDir(folder)
    stages.search(recipes.load("demo", SMALL), run, stages.Machine("cpu", workers=1))
    return run


def swept(run: RunDir) -> None:
    """Sweep a searched run: three networks with latency, and a disconnected one."""
    wanted = stages.Wanted(thresholds=(1e9,), count=3)
    measure = stages.Measure(latency_repeats=2)
    machine = stages.Machine("cpu", workers=1)
    stages.sweep(recipes.load(str(run.recipe)), run, RunDir(run.path / "sweep"), wanted, measure, machine)
