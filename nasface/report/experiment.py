"""The figures and tables of an experiment, beside the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nasface import rundir
from nasface.report import figures, save
from nasface.report.comparison import comparison_tables, write_comparison
from nasface.report.fronts import FIGURE6
from nasface.report.published import published
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, Score, Stage, percent, scores_in
from nasface.stages.experiment.plan import Experiment
from nasface.stages.experiment.results import at_equal_macs, over_seeds, summary
from nasface.stages.select import read_table

__all__ = ["FIGURE6", "Findings", "ablation", "experiment_figures", "figure6_of", "findings", "write_ablation"]

SWITCHES = ("teacher", "peer", "masked")
_PAPER = "paper: full NME at 256 px"


@dataclass(frozen=True)
class Findings:
    """What an experiment has come to.

    Attributes:
        tables: (title, rows) to show.
        files: what was written.
    """

    tables: tuple[tuple[str, pd.DataFrame], ...]
    files: tuple[Path, ...]


def findings(experiment: Experiment, folder: Path, table: pd.DataFrame) -> Findings:
    """Write the figures and tables that the finished parts of an experiment allow.

    Args:
        experiment: its plan.
        folder: its folder.
        table: of `run_experiment`; may be empty.
    """
    if not len(table):
        return Findings((), ())
    if (comparison := experiment.plan.comparison) is not None:
        tables = [(f"{experiment.name}, {title}", rows) for title, rows in comparison_tables(table, comparison).items()]
        return Findings(tuple(tables), (folder / "results.csv", *write_comparison(table, comparison, folder)))
    files = experiment_figures(experiment, folder, sorted(set(table["seed"])))
    variants = ablation(experiment, table)
    if len(variants):
        files += write_ablation(variants, folder)
    shown = variants if len(variants) else summary(table)
    tables = [(f"{experiment.name}: mean and standard deviation over seeds", shown)]
    tables += [
        (f"{experiment.name}, sweep {sweep}: lowest held-out NME within a budget of MACs", rows)
        for sweep, rows in _comparisons(experiment, table)
    ]
    return Findings(tuple(tables), (folder / "results.csv", *files))


def _comparisons(experiment: Experiment, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Compare the runs that the plan groups, in every sweep that has networks of all of them."""
    plan = experiment.plan
    for sweep in plan.sweeps:
        there = set(table.loc[table["part"] == sweep, "run"])
        for runs in plan.compare or (tuple(plan.runs),):
            if set(runs) <= there:
                yield sweep, at_equal_macs(table, sweep, runs)


def experiment_figures(experiment: Experiment, folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Draw Figure 6 for every sweep of an experiment whose runs have its four names, and return the files written."""
    if not set(FIGURE6) <= set(experiment.plan.runs):
        return []
    written: list[Path] = []
    for title in experiment.plan.sweeps:
        for score in (Score("common", Stage.FINETUNED), HELD_OUT.at(Stage.FINETUNED)):
            figure = figure6_of(folder, title, seeds, score.column)
            if figure is not None:
                written += save(figure, folder / f"figure6-{title}-{score.column}")
    return written


def figure6_of(folder: Path, sweep: str, seeds: Sequence[int], score: str) -> Figure | None:
    """Draw Figure 6 of an experiment's folder; None where one of the four runs has no network with this score yet.

    Args:
        folder: of the experiment.
        sweep: its name in the plan.
        seeds: those that may be there.
        score: a column of pareto.csv.
    """
    curves = {}
    for name in FIGURE6:
        places = [folder / f"{name}-{seed}" / sweep for seed in seeds]
        tables = [read_table(place) for place in places if RunDir(place).pareto.exists()]
        curves[name] = [table for table in tables if score in table and table[score].notna().any()]
    return figures.figure6(curves, score=score) if all(curves.values()) else None


def ablation(experiment: Experiment, table: pd.DataFrame) -> pd.DataFrame:
    """Lay out Table 6: mean and standard deviation over seeds for each run and variant, beside the paper's NME.

    Args:
        experiment: whose `distill` names the variants.
        table: of `run_experiment`.

    Returns:
        Columns run, variant, teacher, peer, masked (True or False), seeds, every NME of the slim networks as X_mean and
        X_std, and `paper: full NME at 256 px` where the paper has that row. Empty where no variant is finished.
    """
    rows = []
    paper = {tuple(row[switch] for switch in SWITCHES): row["nme"] for row in published()["ablation"]}
    scores = [score.column for score in scores_in(table)]
    for run, changes in experiment.plan.runs.items():
        for variant, how in experiment.plan.distill.items():
            found = table[(table["run"] == run) & (table["part"] == variant) & (table["network"] == "slim")]
            if not len(found):
                continue
            recipe = experiment.recipe(changes, 0, how)
            switches = {switch: getattr(recipe.distill, switch) for switch in SWITCHES}
            row = {"run": run, "variant": variant, **switches, "seeds": len(found), **over_seeds(found, scores)}
            rows.append(row | {_PAPER: paper.get(tuple(switches.values()), float("nan"))})
    return pd.DataFrame(rows)


def write_ablation(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the rows of `ablation` as ablation.csv (shares) and ablation.md (percent)."""
    rundir.write_rows(folder / "ablation.csv", rows.to_dict("records"))
    shown = pd.DataFrame(index=rows.index)
    for column in rows:
        if column.endswith("_mean"):
            cells = zip(rows[column], rows[f"{column.removesuffix('_mean')}_std"], strict=True)
            shown[f"{column.removesuffix('_mean')} (%)"] = [percent(mean, std) for mean, std in cells]
        elif column == _PAPER:
            shown[f"{column} (%)"] = [percent(value) for value in rows[column]]
        elif not column.endswith("_std"):
            shown[column] = rows[column]
    rundir.write_text(folder / "ablation.md", shown.to_markdown(index=False, disable_numparse=True) + "\n")
    return [folder / "ablation.csv", folder / "ablation.md"]
