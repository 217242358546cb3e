"""The results of a comparison: a row per network, and what the rows of the experiment say about its claims."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from nasface import pareto, rundir
from nasface.errors import NasfaceError, NotComparableError
from nasface.scores import HELD_OUT, scores_in
from nasface.stages.experiment.compare.entries import Comparison, Entry
from nasface.stages.experiment.compare.plan import ComparisonPlan
from nasface.stages.experiment.compare.rest import TOLERANCE, check_compute, total
from nasface.stages.experiment.part import figures_of, seeds_in
from nasface.stages.experiment.results import over_seeds, subset_scores

log = logging.getLogger(__name__)

Row = dict[str, Any]
INHERITED = f"inherited_{HELD_OUT.column}"
DIFFERENCE, LOW, HIGH = "nme_difference", "nme_low", "nme_high"
"""The columns of differences.csv with the mean and the ends of its interval."""
CONFIDENCE = 0.95


def results(comparison: Comparison) -> pd.DataFrame:
    """Collect the networks that are finished, whoever worked on them, and write them to results.csv.

    Returns:
        One row per network. Columns: row, budget, seed; macs, params, edges; epochs of the training to the end;
        compute and the reference's, in multiply-adds; comparable, and why not; and inter-ocular NMEs as shares: of
        held-out faces, of test subsets, and of held-out faces as inherited, when the network was chosen. A network
        that needs a damaged folder is left out, with a warning.
    """
    rows, faults = [], []
    for entry in _entries(comparison):
        try:
            if _is_finished(comparison, entry):
                rows.append(_row(comparison, entry))
        except NasfaceError as err:
            faults.append(str(err))
    for fault in dict.fromkeys(faults):  # several networks may need the same folder
        log.warning("what needs this is left out of results.csv: %s", fault)
    if rows:
        rundir.write_rows(comparison.out / "results.csv", rows)
    return pd.DataFrame(rows)


def _entries(comparison: Comparison) -> Iterator[Entry]:
    """Yield the networks of the seeds that are there, whoever worked on them."""
    for name in comparison.plan.rows:
        for seed, budget in product(seeds_in(comparison.out, name), comparison.plan.budgets):
            yield comparison.entry(name, budget, seed)


def _is_finished(comparison: Comparison, entry: Entry) -> bool:
    reference = comparison.entry(comparison.plan.reference, entry.budget, entry.seed)
    return all(comparison.is_finished(part) for part in (*reference.parts, *entry.parts))


def _row(comparison: Comparison, entry: Entry) -> Row:
    reference = comparison.entry(comparison.plan.reference, entry.budget, entry.seed)
    metrics = figures_of(entry.home)
    figures = metrics["networks"].get("slim") or metrics["networks"]["supernet"]
    compute, limit = total(entry.bill), total(reference.bill)
    why = _why_not(entry, figures["macs"], compute, limit)
    row: Row = {"row": entry.row, "budget": entry.budget, "seed": entry.seed}
    row |= {cost: figures[cost] for cost in ("macs", "params", "edges")}
    row |= {"compute": round(compute), "reference_compute": round(limit), "comparable": not why, "why_not": why}
    row |= {HELD_OUT.column: figures[HELD_OUT.column], **subset_scores(figures)}
    if entry.chosen is not None and entry.chosen != entry.home:
        chosen = figures_of(entry.chosen)["networks"]["slim"]
        row[INHERITED] = chosen[HELD_OUT.column]
    return row


def _why_not(entry: Entry, macs: int, compute: float, limit: float) -> str:
    """Say in a sentence why a network cannot be compared; empty if it can."""
    name = f"{entry.row}, seed {entry.seed}"
    if macs > (1 + TOLERANCE) * entry.budget:
        return f"{name} has {macs:,} MACs, which is more than its budget of {entry.budget:,.0f}"
    try:
        check_compute(name, compute, limit)
    except NotComparableError as err:
        return str(err)
    return ""


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of results.csv that can be compared."""
    return table[table["comparable"].astype(bool)] if len(table) else table


def by_budget(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation over seeds of every NME, and mean costs, by budget and row."""
    scores = [*(score.column for score in scores_in(table)), *([INHERITED] if INHERITED in table else [])]
    rows = []
    for (budget, name), group in comparable(table).groupby(["budget", "row"], sort=False):
        row: Row = {"budget": budget, "row": name, "seeds": len(group)}
        row |= {cost: group[cost].mean() for cost in ("macs", "params", "compute")}
        rows.append(row | over_seeds(group, scores))
    return pd.DataFrame(rows).sort_values("budget", kind="stable") if rows else pd.DataFrame()


def differences(table: pd.DataFrame, plan: ComparisonPlan) -> pd.DataFrame:
    """Return the paired differences of each claim, by budget and score.

    The baselines of a claim are the rows that it names and the best of the `thin` rows: the one with the lowest mean
    held-out NME at the budget, over the seeds that all thin rows have.

    Returns:
        Columns budget, row, against, faces (the column of the NME), seeds, and the mean of baseline minus row with its
        95 % t interval from `LOW` to `HIGH`. Where all of the interval is above zero, the row is better.
    """
    rows: list[Row] = []
    scores = [score.column for score in scores_in(table)]
    for claim in plan.claims:
        for budget, group in comparable(table).groupby("budget"):
            best = _best_thin(group, plan)
            against = {name: name for name in claim.against} | ({f"best thin: {best}": best} if best else {})
            for title, name in against.items():
                for score in scores:
                    by_row = group.pivot(index="seed", columns="row", values=score)
                    if {name, claim.row} <= set(by_row) and name != claim.row:
                        pairs = (by_row[name] - by_row[claim.row]).dropna().to_numpy(float)
                        if len(pairs):
                            row: Row = {"budget": budget, "row": claim.row, "against": title, "faces": score}
                            rows.append(row | _interval(pairs))
    return pd.DataFrame(rows)


def _best_thin(group: pd.DataFrame, plan: ComparisonPlan) -> str | None:
    """Return the best of the thin rows at a budget."""
    thin = [name for name, row in plan.rows.items() if row.thin is not None]
    held_out = group[group["row"].isin(thin)].pivot(index="seed", columns="row", values=HELD_OUT.column)
    shared = held_out.dropna()
    means = (shared if len(shared) else held_out).mean()
    return str(means.idxmin()) if len(means) else None


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Return the mean of paired differences with its t interval, NaN for a single pair."""
    mean, half = float(values.mean()), half_width(pd.Series(values))
    return {"seeds": len(values), DIFFERENCE: mean, LOW: mean - half, HIGH: mean + half}


def half_width(values: pd.Series) -> float:
    """Return half the width of the 95 % t interval of a mean; NaN for a single value."""
    if len(values) < 2:
        return float("nan")
    from scipy import stats  # slow to load, and commands that train do not need it

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(skipna=False) / np.sqrt(len(values)))


def hypervolumes(table: pd.DataFrame, plan: ComparisonPlan, score: str) -> pd.DataFrame:
    """Return mean and standard deviation over seeds of the hypervolume of each row that has all budgets.

    The hypervolume is the part of the rectangle from nothing to the largest MACs and NME of all networks that a row's
    networks dominate.
    """
    found = comparable(table)
    # just beyond the worst network, which would otherwise add nothing
    reference = (1.001 * float(found["macs"].max()), 1.001 * float(found[score].max()))
    rows = []
    for name, group in found.groupby("row", sort=False):
        areas = [
            pareto.hypervolume(seed[["macs", score]], reference) / (reference[0] * reference[1])
            for _, seed in group.groupby("seed")
            if set(plan.budgets) <= set(seed["budget"])
        ]
        if areas:
            rows.append({"row": name, "seeds": len(areas), "mean": np.mean(areas), "std": pd.Series(areas).std()})
    return pd.DataFrame(rows)


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of the held-out NME as inherited with that after training, by budget."""
    found = comparable(table)
    if INHERITED not in found:
        return pd.DataFrame()
    pairs = found.dropna(subset=[INHERITED])
    groups = [*((f"{budget:,.0f}", group) for budget, group in pairs.groupby("budget")), ("all", pairs)]
    return pd.DataFrame(
        [
            {"budget": title, "networks": len(group), "correlation": _spearman(group)}
            for title, group in groups
            if len(group) > 2
        ]
    )


def _spearman(group: pd.DataFrame) -> float:
    if group[INHERITED].nunique() == 1 or group[HELD_OUT.column].nunique() == 1:
        return float("nan")
    from scipy import stats

    return float(stats.spearmanr(group[INHERITED], group[HELD_OUT.column]).statistic)
