"""`nasface score`."""

from __future__ import annotations

from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FOLDER,
    Place,
    json_option,
    machine_options,
    read_options,
    run_data_option,
    run_set_option,
)

# heavy imports stand inside the commands: `nasface --help` answers at once


@main.command(short_help="Rate the edges of a searched run by another criterion.")
@click.argument("run", type=FOLDER)
@click.option("--criterion", required=True, help="Criterion: a name from `nasface plugins`, or 'module:attr'.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the criterion (may be repeated)."
)
@click.option(
    "--again",
    is_flag=True,
    help="Rate the edges again, even if RUN has factors by this criterion with these options. --set implies it.",
)
@run_data_option
@run_set_option
@machine_options
@json_option
def score(
    run: Path,
    criterion: str,
    options: tuple[str, ...],
    again: bool,
    data_root: Path | None,
    overrides: tuple[str, ...],
    place: Place,
    as_json: bool,
) -> None:
    """Rate how much each edge of a searched RUN matters, and write RUN/factors-CRITERION.json.

    The run's own factors.json stays as it is; if CRITERION is the run's own, factors.json is shown instead. Factors
    that are there already, for the same options and weights, are shown too. `nasface prune` and `nasface
    sweep-thresholds` use the new file when they are given the same --criterion.

    \b
    Examples:
      nasface score runs/mini --criterion taylor
      nasface score runs/mini --criterion mymodule:by_macs --option power=0.5
    """
    from nasface.model.source import run_recipe
    from nasface.rundir import RunDir
    from nasface.sections import Criterion
    from nasface.stages.score import score as run_score

    source, chosen = RunDir(run), Criterion(name=criterion, options=read_options(options))
    resolved = run_recipe(source, data_root=data_root, overrides=overrides)
    with place.machine(as_json) as machine:
        found, path = run_score(resolved, source, chosen, machine, again=again or bool(overrides))
    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    ranked = sorted(found.importance.items(), key=lambda item: item[1])
    for title, some in (("least", ranked[:3]), ("most", ranked[-3:][::-1])):
        shown = ", ".join(f"{src} -> {dst} ({value:.4g})" for (src, dst), value in some)
        click.echo(f"{title} important: {shown}")
    click.echo(f"factors: {path}")
