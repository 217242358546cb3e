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
    SEED,
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
        type=SEED,
        multiple=True,
        help="Use this seed instead of the experiment's seeds (may be repeated).",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="A.B=VALUE",
        help="Change one value of every run's recipe (may be repeated).",
    ),
)


@main.command(short_help="Run an experiment over several seeds, such as Figure 6 or Table 6, into one table.")
@click.argument("name")
@plan_options
@click.option("--only", multiple=True, metavar="RUN", help="Work on this run only (may be repeated).")
@click.option("--dry-run", is_flag=True, help="List what would be done and what is finished, without doing it.")
@click.option("--out", type=FOLDER, help="Folder of the experiment.  [default: runs/NAME]")
@sharing_options
@click.option(
    "--enqueue-only",
    is_flag=True,
    help="Enqueue the parts as a study and exit; without --storage, the study is the journal OUT/study.log, for "
    "workers on this machine.",
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

    Give the same command again to continue where it stopped. Several processes may share one --out; none touches what
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
