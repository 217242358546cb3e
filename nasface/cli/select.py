"""`nasface select`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, json_option
from nasface.cli.sizes import SIZE, Latency

if TYPE_CHECKING:
    from nasface.stages.select import Choice


@main.command(short_help="Choose a network of a sweep.")
@click.argument("run", type=FOLDER)
@click.option("--max-macs", type=SIZE, help="Maximum number of MACs (often called FLOPs), such as 0.6G or 80M.")
@click.option("--max-params", type=SIZE, help="Maximum number of parameters, such as 1M or 350k.")
@click.option(
    "--max-latency",
    type=Latency(),
    metavar="MS|RATIOx",
    help="Maximum latency in milliseconds (5), or as a multiple of the supernet's (0.5x), as measured by the sweep.",
)
@click.option("--knee", is_flag=True, help="Choose the knee of the front, its point of diminishing returns.")
@click.option(
    "--cost",
    type=click.Choice(["macs", "params", "latency"]),
    help="Cost that --knee weighs against the error.  [default: macs]",
)
@click.option("--out", type=FOLDER, help="Copy arch.json, weights and recipe to this folder.")
@json_option
def select(
    run: Path,
    max_macs: int | None,
    max_params: int | None,
    max_latency: tuple[float, bool] | None,
    knee: bool,
    cost: Literal["macs", "params", "latency"] | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Choose a network of RUN, which is a sweep or a run that was swept.

    Of the pruned networks within the limits, it chooses the one with the lowest NME on held-out faces (ties go to the
    one with the fewest MACs), or the knee. Test faces have no influence on the choice.

    \b
    Examples:
      nasface select runs/mini --max-macs 80M --out runs/small
      nasface select runs/mini --max-params 1M --max-latency 5 --json
      nasface select runs/mini --max-latency 0.5x
      nasface select runs/mini --knee --cost params
    """
    from nasface.rundir import RunDir
    from nasface.stages import select as selection

    if not knee and max_macs is None and max_params is None and max_latency is None:
        raise click.UsageError("give --max-macs, --max-params or --max-latency, or --knee")
    if cost and not knee:
        raise click.UsageError("--cost needs --knee; without it, give the limit on that cost")
    choice = selection.select(
        run,
        max_macs=max_macs,
        max_params=max_params,
        max_latency=max_latency and max_latency[0],
        relative=bool(max_latency and max_latency[1]),
        cost="latency_ms" if cost == "latency" else cost or "macs",
        knee=knee,
    )
    arch = choice.arch
    if out is not None:
        selection.copy_network(choice, RunDir(out))
        arch = RunDir(out).arch
    if as_json:
        click.echo(json.dumps({**choice.as_dict(), "arch": str(arch)}, indent=1))
        return
    _show(choice, arch, knee)


def _show(choice: Choice, arch: Path, knee: bool) -> None:
    from nasface import terminal
    from nasface.scores import Stage

    chosen = "the knee" if knee else "the lowest"
    terminal.show(
        terminal.row_table(
            choice.row,
            choice.stage,
            str(choice.folder),
            f"{chosen} by held-out NME among {choice.compared} of {choice.networks} pruned networks",
        )
    )
    click.echo(f"architecture: {arch}")
    if choice.stage is not Stage.FINETUNED:
        click.echo(f"it has not been fine-tuned ({choice.stage.words}); next: nasface train --arch {arch}, or distill")
