"""A real run that reports are made of: a search on a small scale, and a sweep below it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nasface import recipe as recipes
from nasface import rundir
from nasface.model.source import read_factors
from nasface.rundir import RunDir
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure, sweep
from tests.searched import MACHINE, caching_in, copied, once


def _sweep(searched: Path, folder: Path) -> None:
    """Sweep a searched run: three networks with latency, and a disconnected one.

    A short search leaves all factors much alike. They are spread, so that thresholds give networks that differ.
    """
    run = copied(searched, folder)
    factors = read_factors(run.factors)
    values = np.random.default_rng(4).random(len(factors.importance)).tolist()
    spread = replace(factors, importance=dict(zip(factors.importance, values, strict=True)))
    rundir.write_text(run.factors, spread.to_json())
    wanted = SweepRequest(thresholds=(1e9,), count=3)
    measure = Measure(latency_repeats=2)
    with caching_in(folder):
        sweep(recipes.load(str(run.recipe)), run, RunDir(run.path / "sweep"), wanted, measure, MACHINE)


@pytest.fixture(scope="session")
def swept_and_searched(tmp_path_factory: pytest.TempPathFactory, searched: Path) -> Path:
    """The folder of a searched and swept run and of the cache with its faces; to be `copied`, not changed."""
    return once(tmp_path_factory, "swept", lambda folder: _sweep(searched, folder))
