"""sweep-thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, Place, json_option, machine_options
from nasface.cli.sizes import SIZE


@main.command("sweep-thresholds", short_help="Many sub-networks of a searched run, and their Pareto front.")
@click.argument("run", type=FOLDER)
@click.option("--threshold", "thresholds", type=float, multiple=True, help="Keep edges of importance above this.")
@click.option("--count", type=click.IntRange(0), help="So many networks, spread over all that a threshold gives.")
@click.option("--target-macs", type=SIZE, multiple=True, help="The nearest network under so many MACs, e.g. 0.6G.")
@click.option("--target-params", type=SIZE, multiple=True, help="The nearest network under so many parameters.")
@click.option("--share", "shares", type=float, multiple=True, help="The nearest under this share of the prunable MACs.")
@click.option("--pruner", default="threshold", show_default=True, help="Who meets budgets: a plug-in with a share.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the pruner.")
@click.option("--draws", type=click.IntRange(1), default=1, help="Networks a budget, from the pruner's seeds 0, 1, ...")
@click.option("--inherited/--no-inherited", default=True, help="Evaluate with inherited weights.  [default: yes]")
@click.option("--recalibrated/--no-recalibrated", default=True, help="... with BN measured afresh.  [default: yes]")
@click.option("--epochs", type=click.IntRange(0), default=0, help="... and after so many epochs of fine-tuning.")
@click.option(
    "--latency-batch", type=click.IntRange(0), default=1, show_default=True, help="Images a timed pass; 0: none."
)
@click.option("--data-root", type=FOLDER, help="Folder of the data set, where it is not the run's.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change a value of the run's recipe.")
@click.option("--out", type=FOLDER, help="Folder of the sweep; by default RUN/sweep.")
@machine_options
@json_option
def sweep_thresholds(
    run: Path,
    thresholds: tuple[float, ...],
    count: int | None,
    target_macs: tuple[int, ...],
    target_params: tuple[int, ...],
    shares: tuple[float, ...],
    pruner: str,
    options: tuple[str, ...],
    draws: int,
    inherited: bool,
    recalibrated: bool,
    epochs: int,
    latency_batch: int,
    data_root: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    place: Place,
    as_json: bool,
) -> None:
    """Turn one searched RUN into a family of slim networks and mark its Pareto front.

    By default ten networks. Given again, it goes on where it stopped; with other thresholds it adds to what is there,
    and several processes may work on one sweep at a time. `nasface select` chooses a network, `nasface report` shows
    them all.

    \b
    Examples:
      nasface sweep-thresholds runs/mini --count 20
      nasface sweep-thresholds runs/mini --target-macs 60M --target-macs 80M --epochs 20
      nasface sweep-thresholds runs/mini --share 0.5 --pruner random --draws 3 --epochs 20
    """
    from nasface import recipe as recipes
    from nasface.rundir import RunDir
    from nasface.stages.sources import required
    from nasface.stages.sweep.candidates import Wanted
    from nasface.stages.sweep.run import Measure
    from nasface.stages.sweep.run import sweep as run_sweep

    if not (thresholds or count or target_macs or target_params or shares):
        count = 10
    content = recipes.read(str(required(run / "recipe.yaml", "a run folder")))
    if data_root is not None:
        content["data"]["root"] = str(data_root.resolve())
    recipes.override(content, overrides)
    given: dict[str, Any] = {}
    recipes.override(given, options)
    wanted = Wanted(thresholds, count or 0, target_macs, target_params, shares, pruner, given, draws)
    measure = Measure(inherited, recalibrated, epochs, latency_batch)
    resolved = recipes.resolve(content, f"the recipe of {run}")
    with place.machine(as_json) as machine:
        table = run_sweep(resolved, RunDir(run), RunDir(out or run / "sweep"), wanted, measure, machine)
    import pandas as pd

    from nasface import terminal

    rows = pd.read_csv(table)
    if as_json:
        click.echo(json.dumps(json.loads(rows.to_json(orient="records")), indent=1))
    else:
        terminal.show(terminal.sweep_table(rows, f"sweep of {run}"))
        click.echo(f"table: {table}")
