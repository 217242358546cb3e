"""The results of an experiment: one row for each network, and means over seeds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nasface import pareto, rundir
from nasface import recipe as recipes
from nasface.rundir import RunDir
from nasface.stages.experiment.plan import Experiment
from nasface.stages.select import read_table

log = logging.getLogger(__name__)


Row = dict[str, Any]


COSTS = ("params", "macs", "params_no_head", "macs_no_head", "macs_prunable", "edges")


def results(experiment: Experiment, out: Path) -> pd.DataFrame:
    """One row for each network of the parts that are finished, written to results.csv.

    Columns: run, seed, part ('search', a sweep's or a variant's name), network, its costs and its inter-ocular NMEs
    as shares: held_out_nme, nme_SUBSET, and nme_SUBSET_masked_LEVEL for variants of a distillation. Subsets that are
    not complete on disk are left out where another one is.
    """
    rows: list[Row] = []
    for name in experiment.plan.runs:
        for seed in _seeds(experiment, out, name):
            home = RunDir(out / f"{name}-{seed}")
            about = {"run": name, "seed": seed}
            rows += [{**about, "part": "search", **row} for row in _networks(home)]
            for title in experiment.plan.sweeps:
                if RunDir(home.path / title).pareto.exists():
                    rows += [{**about, "part": title, **row} for row in _swept(home.path / title)]
            for title in experiment.plan.distill:
                rows += [{**about, "part": title, **row} for row in _networks(RunDir(home.path / title))]
    scored = {column for row in rows if row["part"] == "search" for column in row}
    for row in rows:  # a sweep's table does not say how many faces a subset should have
        for column in [c for c in row if c.startswith("nme_") and "_masked_" not in c and c not in scored]:
            del row[column]
    if rows:
        rundir.write_rows(out / "results.csv", rows)
    return pd.DataFrame(rows)


def _seeds(experiment: Experiment, out: Path, name: str) -> list[int]:
    """The seeds of a run that are there, whichever process has worked on them; a run of another recipe is none."""
    ends = (path.name.removeprefix(f"{name}-") for path in out.glob(f"{name}-*"))
    found = []
    for seed in sorted(int(end) for end in ends if end.isdecimal()):
        kept = RunDir(out / f"{name}-{seed}").recipe
        if (
            kept.exists()
            and recipes.load(str(kept)).digest == experiment.recipe(experiment.plan.runs[name], seed).digest
        ):
            found.append(seed)
    return found


def _networks(run: RunDir) -> list[Row]:
    """The networks of metrics.json, and masked.json where it is there."""
    if not run.metrics.exists():
        return []
    found = rundir.read_json(run.metrics, "the figures of a finished run")["networks"]
    covered = run.path / "masked.json"
    masked = rundir.read_json(covered, "the figures on covered faces") if covered.exists() else {}
    rows = []
    for name, figures in found.items():
        row = {k: figures[k] for k in COSTS}
        row |= {"network": name, "held_out_nme": figures["held_out_nme"]}
        row |= {f"nme_{s}": nme for s, nme in _subsets(figures["subsets"]).items()}
        if name == "slim":
            for level, subsets in masked.items():
                row |= {f"nme_{s}_masked_{level}": nme for s, nme in _subsets(subsets).items()}
        rows.append({k: v for k, v in row.items() if v is not None})
    return rows


def _subsets(found: Mapping[str, Any]) -> dict[str, float]:
    """Inter-ocular NME by test subset: of those that are complete on disk, or of all where none is."""
    subsets = {name: row for name, row in found.get("inter_ocular", {}).items() if row["images"]}
    complete = {name: row["nme"] for name, row in subsets.items() if row["images"] == row["expected"]}
    return complete or {name: row["nme"] for name, row in subsets.items()}


def _swept(folder: Path) -> list[Row]:
    """The networks of a sweep, at the last stage of training that there is."""
    table = read_table(folder)
    stage = pareto.best_stage(table)
    done = table[(table["state"] == "done") & (table["network"] != "supernet")]
    rows = []
    for row in done.to_dict("records"):
        kept = {k: row[k] for k in ("network", "asked", "pruner", *COSTS)}
        kept |= {"held_out_nme": row[f"held_out_nme_{stage}"], "stage": stage, "on_front": row["on_front"]}
        ends = f"_{stage}"
        rows.append(
            kept | {k.removesuffix(ends): v for k, v in row.items() if k.startswith("nme_") and k.endswith(ends)}
        )
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over seeds of every NME, by run, part and network; sweeps are left to `at_equal_macs`."""
    scores = [column for column in table if "nme" in column]
    rows = []
    fixed = table[table["asked"].isna()] if "asked" in table else table
    for keys, group in fixed.groupby(["run", "part", "network"], sort=False):
        row: Row = dict(zip(("run", "part", "network"), keys, strict=True)) | {"seeds": len(group)}
        row |= {cost: group[cost].mean() for cost in ("params", "macs")}
        for score in scores:
            row |= {f"{score}_mean": group[score].mean(), f"{score}_std": group[score].std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


def at_equal_macs(
    table: pd.DataFrame, part: str, runs: Sequence[str] = (), points: int = 8, score: str = "held_out_nme"
) -> pd.DataFrame:
    """The NME of several runs within a budget of MACs: mean and deviation over seeds, on a grid that all reach.

    Args:
        table: of `run_experiment`.
        part: the sweep's name.
        runs: those compared; all by default.
        points: of the grid, from the cheapest network that all runs and seeds reach to the least of their dearest.
        score: the column compared. The network within each budget is the one with the lowest held-out NME.

    Returns:
        `macs`, and for each run `nme RUN_mean` and `nme RUN_std`.
    """
    swept = table[(table["part"] == part) & (table["run"].isin(runs) if runs else True)]
    by_run = {name: [rows for _, rows in group.groupby("seed")] for name, group in swept.groupby("run", sort=False)}
    every = [rows["macs"] for tables in by_run.values() for rows in tables]
    columns: Row = {"macs": np.linspace(max(macs.min() for macs in every), min(macs.max() for macs in every), points)}
    for name, tables in by_run.items():
        spread = pareto.spread(tables, "macs", score, columns["macs"], by="held_out_nme")
        columns |= {f"nme {name}_mean": spread.mean_G, f"nme {name}_std": spread.std_G}
    return pd.DataFrame(columns)
