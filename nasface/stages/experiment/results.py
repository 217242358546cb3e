"""The results of an experiment: one row per network, and means over seeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from nasface import pareto, rundir
from nasface import recipe as recipes
from nasface.errors import NasfaceError
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import DEFAULT_NORMALISER, HELD_OUT, Score, scores_in
from nasface.stages.experiment.part import figures_of, seeds_in
from nasface.stages.experiment.plan import Experiment
from nasface.stages.select import read_table, slim_networks

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]
COSTS = ("params", "macs", "params_no_head", "macs_no_head", "macs_prunable", "edges")


def results(experiment: Experiment, out: Path) -> pd.DataFrame:
    """Collect the networks of the parts that are finished, and write them to results.csv.

    Returns:
        One row per network. Columns: run, seed, part ('search', or the name of a sweep or variant), network, its costs,
        and its inter-ocular NMEs as shares, named as `Score` names them: of held-out faces, of test subsets, and for
        variants of a distillation of masked test subsets. Where any test subset is complete on disk, those that are
        not are left out. So is a damaged folder, with a warning.
    """
    rows: list[Row] = []
    none: list[Row] = []
    for name in experiment.plan.runs:
        for seed in _seeds(experiment, out, name):
            home = RunDir(out / f"{name}-{seed}")
            parts: dict[str, tuple[Callable[[RunDir], list[Row]], RunDir]] = {"search": (_networks, home)}
            parts |= {title: (_swept, RunDir(home.path / title)) for title in experiment.plan.sweeps}
            parts |= {title: (_networks, RunDir(home.path / title)) for title in experiment.plan.distill}
            for title, (read, folder) in parts.items():
                rows += [
                    {"run": name, "seed": seed, "part": title, **row} for row in _unless_damaged(read, folder, none)
                ]
    complete = {column for row in rows if row["part"] == "search" for column in row}
    for row in rows:  # the table of a sweep does not say how many faces a subset should have
        for score in scores_in(list(row)):
            if score.subset is not None and not score.masked and score.column not in complete:
                del row[score.column]
    if rows:
        rundir.write_rows(out / "results.csv", rows)
    return pd.DataFrame(rows)


def masked_file(run: RunDir) -> Path:
    """Return the file with the figures of a variant on masked test faces."""
    return run.path / "masked.json"


def has_masked(run: RunDir) -> bool:
    """Return whether that file is there; a RunError when it is damaged."""
    return masked_file(run).exists() and bool(_masked(run))


def _masked(run: RunDir) -> Mapping[str, Any]:
    """Read masked.json; nothing where it is not there."""
    if not masked_file(run).exists():
        return {}
    found: dict[str, Any] = rundir.read_json(masked_file(run), "the figures on masked faces")
    return found


def _seeds(experiment: Experiment, out: Path, name: str) -> list[int]:
    """List the seeds of a run that are there, whoever worked on them, except for runs with another recipe."""
    found = []
    for seed in seeds_in(out, name):
        own = partial(_is_of, experiment.recipe(experiment.plan.runs[name], seed))
        if _unless_damaged(own, RunDir(out / f"{name}-{seed}"), False):
            found.append(seed)
    return found


def _is_of(recipe: Recipe, run: RunDir) -> bool:
    return run.recipe.exists() and recipes.load(str(run.recipe)).digest == recipe.digest


def _unless_damaged(read: Callable[[RunDir], T], run: RunDir, otherwise: T) -> T:
    """Return what is read from a folder; something else, and a warning, where the folder is damaged."""
    try:
        return read(run)
    except NasfaceError as err:
        log.warning("%s is left out of results.csv: %s", run.path, err)
        return otherwise


def _networks(run: RunDir) -> list[Row]:
    """Read the networks of metrics.json, and of masked.json where it is there."""
    if not run.metrics.exists():
        return []
    found = figures_of(run)["networks"]
    masked = _masked(run)
    rows = []
    for name, figures in found.items():
        row = {k: figures[k] for k in COSTS}
        row |= {"network": name, HELD_OUT.column: figures[HELD_OUT.column]}
        row |= subset_scores(figures)
        if name == "slim":
            for level, subsets in masked.items():
                row |= {Score(subset, masked=level).column: nme for subset, nme in _subsets(subsets).items()}
        rows.append({k: v for k, v in row.items() if v is not None})
    return rows


def subset_scores(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the NME of each test subset by its column, from the figures of a network in metrics.json."""
    return {Score(subset).column: nme for subset, nme in _subsets(figures["subsets"]).items()}


def _subsets(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the NME by test subset, of those that are complete on disk, or of all where none is complete."""
    subsets = {name: row for name, row in found.get(DEFAULT_NORMALISER, {}).items() if row["images"]}
    complete = {name: row["nme"] for name, row in subsets.items() if row["images"] == row["expected"]}
    return complete or {name: row["nme"] for name, row in subsets.items()}


def _swept(run: RunDir) -> list[Row]:
    """Read the networks of a sweep, with their scores at the last stage of training that there is."""
    if not run.pareto.exists():
        return []
    table = read_table(run.path)
    if slim_networks(table).empty:
        log.warning("%s holds no pruned network: none of its requests could be met", run.path)
        return []
    stage = pareto.best_stage(table)
    at_stage = [score for score in scores_in(table) if score.stage is stage]
    rows = []
    for row in slim_networks(table).to_dict("records"):
        kept = {k: row[k] for k in ("network", "asked", "pruner", *COSTS)}
        kept |= {"stage": str(stage), "on_front": row["on_front"]}
        rows.append(kept | {score.at(None).column: row[score.column] for score in at_stage})
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of every NME, by run, part and network, without sweeps.

    The networks of sweeps differ between seeds; see `at_equal_macs` for them.
    """
    scores = [score.column for score in scores_in(table)]
    rows = []
    fixed = table[table["asked"].isna()] if "asked" in table else table
    for keys, group in fixed.groupby(["run", "part", "network"], sort=False):
        row: Row = dict(zip(("run", "part", "network"), keys, strict=True)) | {"seeds": len(group)}
        row |= {cost: group[cost].mean() for cost in ("params", "macs")}
        rows.append(row | over_seeds(group, scores))
    return pd.DataFrame(rows)


def over_seeds(group: pd.DataFrame, scores: Sequence[str]) -> dict[str, float]:
    """Mean and standard deviation (ddof 1) of columns, as X_mean and X_std."""
    found: dict[str, float] = {}
    for score in scores:
        found |= {f"{score}_mean": group[score].mean(), f"{score}_std": group[score].std(ddof=1)}
    return found


def at_equal_macs(
    table: pd.DataFrame, part: str, runs: Sequence[str] = (), points: int = 8, score: str = HELD_OUT.column
) -> pd.DataFrame:
    """Compare the NMEs of several runs within a budget of MACs, on a grid that all of them reach.

    Args:
        table: of `run_experiment`.
        part: the name of the sweep.
        runs: those compared; all by default.
        points: of the grid, from the lowest budget within which all runs and seeds have a network, up to the lowest of
            the costs of their most expensive networks.
        score: the column compared. Within each budget, the network with the lowest held-out NME counts.

    Returns:
        `macs`, and for each run `nme RUN_mean` and `nme RUN_std`, the mean and standard deviation over seeds.
    """
    swept = table[(table["part"] == part) & (table["run"].isin(runs) if runs else True)]
    by_run = {name: [rows for _, rows in group.groupby("seed")] for name, group in swept.groupby("run", sort=False)}
    every = [rows["macs"] for tables in by_run.values() for rows in tables]
    columns: Row = {"macs": np.linspace(max(macs.min() for macs in every), min(macs.max() for macs in every), points)}
    for name, tables in by_run.items():
        spread = pareto.spread(tables, "macs", score, columns["macs"], by=HELD_OUT.column)
        columns |= {f"nme {name}_mean": spread.mean_G, f"nme {name}_std": spread.std_G}
    return pd.DataFrame(columns)
