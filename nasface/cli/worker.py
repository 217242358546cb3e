"""`nasface worker`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, Place, json_option, machine_options

if TYPE_CHECKING:
    from nasface.stages.experiment.shared import Tally


@main.command(short_help="Work on an experiment whose study many machines share.")
@click.option(
    "--study", required=True, envvar="NASFACE_STUDY", show_envvar=True, metavar="URL",
    help="Where the study is: postgresql://USER@HOST/NAME, sqlite:///FILE, grpc://HOST:PORT, or a journal file.",
)  # fmt: skip
@click.option("--study-name", help="Name of the study.  [default: the study of --out, or else the only one there]")
@click.option(
    "--out", type=FOLDER, help="Folder of the experiment, shared by all machines.  [default: runs/STUDY_NAME]"
)
@click.option("--data-root", type=FOLDER, help="Folder of the dataset, if it is elsewhere on this machine.")
@machine_options
@json_option
def worker(
    study: str, study_name: str | None, out: Path | None, data_root: Path | None, place: Place, as_json: bool
) -> None:
    """Work on an experiment that `nasface experiment --storage` or `--enqueue-only` has turned into a study.

    Start any number of workers on any machine: each worker takes open parts, resumes those of dead workers from their
    checkpoints, and ends when nothing is left. A worker that receives SIGTERM gives its part back.

    \b
    Examples:
      nasface worker --study postgresql://nasface@db/studies --out /shared/figure6
      nasface worker --study runs/figure6-mini/study.log --device cuda:1
    """
    from nasface.stages.experiment.shared import joining

    with place.machine(as_json) as machine, joining(study, study_name, out, data_root) as shared:
        shared.work(machine)
        tally = shared.tally()
    show_tally(tally, as_json)


def show_tally(tally: Tally, as_json: bool) -> None:
    """Print how far an experiment has come."""
    if as_json:
        click.echo(json.dumps(asdict(tally), indent=1))
        return
    states = {"waiting": tally.waiting, "at work": tally.at_work, "given up": tally.given_up}
    states["blocked by others"] = tally.blocked
    left = "".join(f", {count} {state}" for state, count in states.items() if count)
    click.echo(f"parts: {tally.finished} finished{left}")
    if tally.mine:
        click.echo(f"this worker finished {tally.mine}, {tally.resumed} of them begun by other workers")
