"""A real run that reports are made of: a search on a small scale, and a sweep below it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from searched import MACHINE, caching_in, searched_run

from nasface import recipe as recipes
from nasface import rundir
from nasface.model.source import read_factors
from nasface.rundir import RunDir
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure, sweep


def swept_run(folder: Path, name: str = "run") -> RunDir:
    """A searched run in `folder`, and the sweep of it: three networks with latency, and a disconnected one.

    A short search leaves all factors much alike. They are spread, so that thresholds give networks that differ.
    """
    run = RunDir(searched_run(folder).path.rename(folder / name))
    factors = read_factors(run.factors)
    values = np.random.default_rng(4).random(len(factors.importance)).tolist()
    spread = replace(factors, importance=dict(zip(factors.importance, values, strict=True)))
    rundir.write_text(run.factors, spread.to_json())
    wanted = SweepRequest(thresholds=(1e9,), count=3)
    measure = Measure(latency_repeats=2)
    with caching_in(folder):
        sweep(recipes.load(str(run.recipe)), run, RunDir(run.path / "sweep"), wanted, measure, MACHINE)
    return run
