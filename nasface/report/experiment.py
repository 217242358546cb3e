"""The figures of an experiment."""

from __future__ import annotations

from pathlib import Path

from nasface.report import figures, save
from nasface.stages.experiments import Experiment
from nasface.stages.selection import read_table

FIGURE6 = ("hrnet-residual", "hrsupernet-residual", "hrnet-mbconv", "hrsupernet-mbconv")


def experiment_figures(experiment: Experiment, folder: Path) -> list[Path]:
    """Draw Figure 6 for every sweep of an experiment whose runs have its four names; gives the files written."""
    if not set(FIGURE6) <= set(experiment.plan.runs):
        return []
    written: list[Path] = []
    for title in experiment.plan.sweeps:
        places = {name: [folder / f"{name}-{seed}" / title for seed in experiment.plan.seeds] for name in FIGURE6}
        curves = {
            name: [read_table(place) for place in found if (place / "pareto.csv").exists()]
            for name, found in places.items()
        }
        if not all(curves.values()):
            continue
        scores = [column for tables in curves.values() for column in tables[0] if column.endswith("_finetuned")]
        tests = [column for column in dict.fromkeys(scores) if column.startswith("nme_")]
        for score in [*tests[:1], "held_out_nme_finetuned"]:
            written += save(figures.figure6(curves, score=score), folder / f"figure6-{title}-{score}")
    return written
