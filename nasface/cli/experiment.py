"""experiment."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, Place, json_option, machine_options


@main.command(short_help="Several runs over seeds, to one table: Figure 6, Table 6.")
@click.argument("name")
@click.option("--data-root", type=FOLDER, help="Folder of the data set.")
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="Instead of the experiment's seeds.")
@click.option("--only", multiple=True, metavar="RUN", help="Work on these runs; the others wait.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change a value of every run's recipe.")
@click.option("--out", type=FOLDER, help="Folder of the experiment; by default runs/NAME.")
@machine_options
@json_option
def experiment(
    name: str,
    data_root: Path | None,
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    out: Path | None,
    place: Place,
    as_json: bool,
) -> None:
    """Do all runs of an experiment (a recipe with a section `experiment`, by NAME or as a YAML file).

    Given again, it goes on where it stopped. Several processes may share one --out: what one works on, the others leave
    alone. results.csv has a row for each network.

    \b
    Examples:
      nasface experiment figure6-mini --data-root data/300w
      nasface experiment table6-mini --data-root data/300w --seed 0 --set training.threads=2
    """
    from nasface import terminal
    from nasface.report.experiment import ablation, experiment_figures, write_ablation
    from nasface.stages.experiment.plan import read_experiment
    from nasface.stages.experiment.results import at_equal_macs, summary
    from nasface.stages.experiment.run import run_experiment

    folder = out or Path("runs") / Path(name).stem
    planned = read_experiment(name, data_root, overrides, seeds)
    with place.machine(as_json) as machine:
        table = run_experiment(planned, folder, machine, only)
    written = experiment_figures(planned, folder, sorted(set(table["seed"]))) if len(table) else []
    variants = ablation(planned, table) if len(table) else table
    if len(variants):
        written += write_ablation(variants, folder)
    if as_json:
        click.echo(json.dumps(json.loads(table.to_json(orient="records")), indent=1))
        return
    if len(table):
        shown = variants if len(variants) else summary(table)
        terminal.show(terminal.frame(shown, f"{name}: mean and deviation over seeds"))
        for part in planned.plan.sweeps:
            for runs in planned.plan.compare or (tuple(planned.plan.runs),):
                if set(runs) <= set(table.loc[table["part"] == part, "run"]):
                    title = f"{name}, sweep {part}: best held-out NME within a budget of MACs"
                    terminal.show(terminal.frame(at_equal_macs(table, part, runs), title))
    for path in (folder / "results.csv", *written):
        click.echo(f"written: {path}")
