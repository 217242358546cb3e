"""The figures and tables of an experiment, beside what is published."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nasface import rundir
from nasface.report import figures, save
from nasface.report.published import published
from nasface.rundir import RunDir
from nasface.stages.experiment.plan import Experiment
from nasface.stages.select import read_table

SWITCHES = ("teacher", "peer", "masked")
FIGURE6 = ("hrnet-residual", "hrsupernet-residual", "hrnet-mbconv", "hrsupernet-mbconv")


def experiment_figures(experiment: Experiment, folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Draw Figure 6 for every sweep of an experiment whose runs have its four names; gives the files written."""
    if not set(FIGURE6) <= set(experiment.plan.runs):
        return []
    written: list[Path] = []
    for title in experiment.plan.sweeps:
        for score in ("nme_common_finetuned", "held_out_nme_finetuned"):
            figure = figure6_of(folder, title, seeds, score)
            if figure is not None:
                written += save(figure, folder / f"figure6-{title}-{score}")
    return written


def figure6_of(folder: Path, sweep: str, seeds: Sequence[int], score: str) -> Figure | None:
    """Figure 6 of an experiment's folder; None where one of the four has no network with this score yet.

    Args:
        folder: of the experiment.
        sweep: its name in the plan.
        seeds: as far as they are there.
        score: a column of pareto.csv.
    """
    curves = {}
    for name in FIGURE6:
        places = [folder / f"{name}-{seed}" / sweep for seed in seeds]
        tables = [read_table(place) for place in places if RunDir(place).pareto.exists()]
        curves[name] = [table for table in tables if score in table and table[score].notna().any()]
    return figures.figure6(curves, score=score) if all(curves.values()) else None


def ablation(experiment: Experiment, table: pd.DataFrame) -> pd.DataFrame:
    """Table 6: one row for each run and variant of a distillation, mean and deviation over seeds, beside the paper's.

    Args:
        experiment: whose `distill` names the variants.
        table: of `run_experiment`.

    Returns:
        Columns run, variant, teacher, peer, masked (True or False), seeds, every NME of the slim networks as X_mean and
        X_std, and `paper: full NME at 256 px` where the paper has that row. Empty where no variant is finished.
    """
    rows = []
    paper = {tuple(row[switch] for switch in SWITCHES): row["nme"] for row in published()["ablation"]}
    scores = [column for column in table if "nme" in column]
    for run, changes in experiment.plan.runs.items():
        for variant, how in experiment.plan.distill.items():
            found = table[(table["run"] == run) & (table["part"] == variant) & (table["network"] == "slim")]
            if not len(found):
                continue
            recipe = experiment.recipe(changes, 0, how)
            switches = {switch: getattr(recipe.distill, switch) for switch in SWITCHES}
            row = {"run": run, "variant": variant, **switches, "seeds": len(found)}
            for score in scores:
                row |= {f"{score}_mean": found[score].mean(), f"{score}_std": found[score].std(ddof=1)}
            rows.append(row | {"paper: full NME at 256 px": paper.get(tuple(switches.values()), float("nan"))})
    return pd.DataFrame(rows)


def write_ablation(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `ablation`'s rows as ablation.csv (shares) and ablation.md (percent)."""
    rundir.write_rows(folder / "ablation.csv", rows.to_dict("records"))
    shown = pd.DataFrame(index=rows.index)
    for column in rows:
        if column.endswith("_mean"):
            cells = zip(rows[column], rows[f"{column.removesuffix('_mean')}_std"], strict=True)
            shown[f"{column.removesuffix('_mean')} (%)"] = [
                f"{100 * mean:.2f}" + ("" if isnan(std) else f" ± {100 * std:.2f}") for mean, std in cells
            ]
        elif "NME" in column:
            shown[f"{column} (%)"] = [f"{100 * value:.2f}" for value in rows[column]]
        elif not column.endswith("_std"):
            shown[column] = rows[column]
    rundir.write_text(folder / "ablation.md", shown.to_markdown(index=False, disable_numparse=True) + "\n")
    return [folder / "ablation.csv", folder / "ablation.md"]
