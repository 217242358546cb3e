"""The tables and the figure of a comparison of searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nasface import rundir
from nasface.report import COLUMN, Colour, save, styled
from nasface.report.fronts import score_label
from nasface.scores import HELD_OUT, percent, scores_in
from nasface.stages.experiment.compare.plan import ComparisonPlan
from nasface.stages.experiment.compare.results import (
    DIFFERENCE,
    HIGH,
    LOW,
    by_budget,
    comparable,
    differences,
    half_width,
    hypervolumes,
    rank_correlations,
)

_MARKERS = "osD^vP*X"


def comparison_tables(table: pd.DataFrame, plan: ComparisonPlan) -> dict[str, pd.DataFrame]:
    """Return the tables of a comparison by title, with NMEs in percent as text."""
    found: dict[str, pd.DataFrame] = {}
    summary = by_budget(table)
    for budget, rows in summary.groupby("budget") if len(summary) else ():
        found[f"budget of {budget:,.0f} MACs: mean and standard deviation over seeds"] = _shown(
            rows.drop(columns="budget")
        )
    claims = differences(table, plan)
    if len(claims):
        found["baseline minus row, in points of NME, with the 95 % interval over seeds"] = _claims(claims)
    if len(comparable(table)):
        score = main_score(table)
        areas = hypervolumes(table, plan, score)
        if len(areas):
            shares = [
                f"{mean:.4f}" + ("" if np.isnan(std) else f" ± {std:.4f}")
                for mean, std in areas[["mean", "std"]].values
            ]
            title = f"hypervolume of MACs and {score}, as a share of the largest of both"
            found[title] = areas[["row", "seeds"]].astype(str).assign(hypervolume=shares)
    ranks = rank_correlations(table)
    if len(ranks):
        found["rank correlation of the held-out NME as inherited with that after training"] = ranks.assign(
            networks=ranks["networks"].astype(str), correlation=[f"{value:.2f}" for value in ranks["correlation"]]
        )
    apart = table[~table["comparable"].astype(bool)] if len(table) else table
    if len(apart):
        found["not comparable, and left out above"] = apart[["row", "budget", "seed", "why_not"]].astype(str)
    return found


def write_comparison(table: pd.DataFrame, plan: ComparisonPlan, folder: Path) -> list[Path]:
    """Write differences.csv, comparison.md with all tables, and the figure for held-out and for test faces."""
    written = []
    claims = differences(table, plan)
    if len(claims):
        rundir.write_rows(folder / "differences.csv", claims.to_dict("records"))
        written.append(folder / "differences.csv")
    parts = [
        f"## {title}\n\n{rows.to_markdown(index=False, disable_numparse=True)}\n"
        for title, rows in comparison_tables(table, plan).items()
    ]
    rundir.write_text(folder / "comparison.md", "\n".join(parts))
    written.append(folder / "comparison.md")
    if len(comparable(table)):
        for score in dict.fromkeys((main_score(table), HELD_OUT.column)):
            written += save(comparison_figure(table, score), folder / f"comparison-{score}")
    return written


def main_score(table: pd.DataFrame) -> str:
    """Return the column of the first test subset that all networks have; of the held-out faces where there is none."""
    tests = [score.column for score in scores_in(table) if score.subset is not None]
    return next((column for column in tests if comparable(table)[column].notna().all()), HELD_OUT.column)


@styled
def comparison_figure(table: pd.DataFrame, score: str) -> Figure:
    """Draw the mean error of each row at each budget against the MACs of the whole network, with 95 % intervals."""
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, rows) in enumerate(comparable(table).groupby("row", sort=False)):
        budgets = rows.groupby("budget")
        spread = budgets[score].apply(half_width).fillna(0)
        axes.errorbar(
            budgets["macs"].mean() / 1e6, 100 * budgets[score].mean(), 100 * spread, label=name, capsize=2,
            elinewidth=0.6, color=Colour.cycle[number % len(Colour.cycle)], marker=_MARKERS[number % len(_MARKERS)],
        )  # fmt: skip
    axes.set_xlabel("MACs of the whole network (M)")
    axes.set_ylabel(score_label(table, score))
    axes.legend()
    return figure


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a summary as text: counts in M or T, and NMEs in percent."""
    shown = pd.DataFrame({"row": rows["row"], "seeds": rows["seeds"].astype(str)})
    shown["MACs (M)"] = [f"{value / 1e6:.2f}" for value in rows["macs"]]
    shown["params (k)"] = [f"{value / 1e3:.0f}" for value in rows["params"]]
    shown["compute (T)"] = [f"{value / 1e12:.4g}" for value in rows["compute"]]
    for column in rows:
        if column.endswith("_mean"):
            name = column.removesuffix("_mean")
            values = zip(rows[column], rows[f"{name}_std"], strict=True)
            shown[f"{name.replace('_', ' ').replace('nme', 'NME')} (%)"] = [percent(mean, std) for mean, std in values]
    return shown


def _claims(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of claims as text."""
    shown = rows[["row", "against", "faces"]].copy()
    shown.insert(0, "budget (M)", [f"{value / 1e6:g}" for value in rows["budget"]])
    shown["seeds"] = rows["seeds"].astype(str)
    for column, head in ((DIFFERENCE, "difference"), (LOW, "from"), (HIGH, "to")):
        shown[head] = ["–" if np.isnan(value) else f"{100 * value:+.2f}" for value in rows[column]]
    shown["better"] = ["yes" if low > 0 else "no" if high < 0 else "open" for low, high in rows[[LOW, HIGH]].values]
    return shown
