"""`nasface experiment`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FOLDER,
    MAX_SEED,
    Place,
    Sharing,
    gathered,
    json_option,
    machine_options,
    sharing_options,
)
from nasface.cli.worker import show_tally

if TYPE_CHECKING:
    from nasface.stages.experiment.plan import Experiment


@dataclass(frozen=True)
class Planned:
    """The options that say which experiment it is."""

    data_root: Path | None
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]

    def read(self, name: str) -> Experiment:
        """The experiment of that name, changed as the options say."""
        from nasface.stages.experiment.plan import read_experiment

        return read_experiment(name, self.data_root, self.overrides, self.seeds)


plan_options = gathered(
    "planned",
    Planned,
    click.option("--data-root", type=FOLDER, help="Folder of the dataset."),
    click.option(
        "--seed",
        "seeds",
        type=click.IntRange(0, MAX_SEED),
        multiple=True,
        help="A seed, instead of those of the experiment.",
    ),
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change a value of every run's recipe."
    ),
)


@main.command(short_help="Several runs over seeds, with one table of results: Figure 6, Table 6.")
@click.argument("name")
@plan_options
@click.option("--only", multiple=True, metavar="RUN", help="Work on this run; those not named wait.")
@click.option("--dry-run", is_flag=True, help="List what would be done and what is finished, without doing it.")
@click.option("--out", type=FOLDER, help="Folder of the experiment; by default runs/NAME.")
@sharing_options
@click.option(
    "--enqueue-only",
    is_flag=True,
    help="Only make it a study; without --storage, in the journal OUT/study.log, for workers on this machine.",
)
@machine_options
@json_option
def experiment(
    name: str,
    planned: Planned,
    only: tuple[str, ...],
    dry_run: bool,
    out: Path | None,
    sharing: Sharing,
    enqueue_only: bool,
    place: Place,
    as_json: bool,
) -> None:
    """Do all runs of an experiment: a recipe with a section `experiment`, given by NAME or as a YAML file.

    The same command again goes on where it stopped. Several processes may share one --out; each leaves alone what
    another is working on. results.csv has one row per network.

    \b
    Examples:
      nasface experiment figure6-mini --data-root data/300w
      nasface experiment figure6-mini --data-root data/300w --dry-run
      nasface experiment table6-mini --data-root data/300w --seed 0 --set training.threads=2
      nasface experiment figure6 --data-root data/300w --storage postgresql://nasface@db/studies --enqueue-only
    """
    from nasface import terminal
    from nasface.report.experiment import findings
    from nasface.rundir import RunDir
    from nasface.stages.experiment import shared
    from nasface.stages.experiment.run import outline, run_experiment

    folder = out or Path("runs") / Path(name).stem
    plan = planned.read(name)
    if dry_run:
        parts = outline(plan, folder, only)
        if as_json:
            click.echo(json.dumps(parts.to_dict("records"), indent=1))
        else:
            lines = [[str(cell) for cell in row] for row in parts.itertuples(index=False)]
            terminal.show(terminal.table(f"{name}: what would be done", list(parts), lines, text_columns=len(parts.T)))
        return
    kept = sharing.kept(folder.resolve().name, str(RunDir(folder).study) if enqueue_only else None)
    if kept is not None and enqueue_only:
        with shared.sharing(plan, folder, only, kept) as study:
            show_tally(study.enqueue(), as_json)
        return
    with place.machine(as_json) as machine:
        if kept is None:
            table = run_experiment(plan, folder, machine, only)
        else:
            table = shared.work_on(plan, folder, machine, only, kept)
    found = findings(plan, folder, table)
    if as_json:
        click.echo(json.dumps(json.loads(table.to_json(orient="records")), indent=1))
        return
    for title, rows in found.tables:
        terminal.show(terminal.frame(rows, title))
    for path in found.files:
        click.echo(f"written: {path}")
