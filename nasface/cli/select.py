"""select."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, json_option
from nasface.cli.sizes import SIZE

if TYPE_CHECKING:
    from nasface.stages.select import Choice


@main.command(short_help="Choose a network of a sweep.")
@click.argument("run", type=FOLDER)
@click.option("--max-macs", type=SIZE, help="At most so many MACs (often called FLOPs), such as 0.6G or 80M.")
@click.option("--max-params", type=SIZE, help="At most so many parameters, such as 1M or 350k.")
@click.option("--max-latency", type=float, metavar="MS", help="At most so many milliseconds, as the sweep measured.")
@click.option("--knee", is_flag=True, help="The network after which more cost buys least, within any limits.")
@click.option(
    "--cost",
    type=click.Choice(["macs", "params", "latency"]),
    help="What --knee weighs the error against; by default MACs.",
)
@click.option("--out", type=FOLDER, help="Copy arch.json, weights and recipe there.")
@json_option
def select(
    run: Path,
    max_macs: int | None,
    max_params: int | None,
    max_latency: float | None,
    knee: bool,
    cost: Literal["macs", "params", "latency"] | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Choose a network of RUN, a sweep or a run that was swept.

    Of the pruned networks within the limits, it takes the one with the lowest NME on held-out faces (ties: fewer
    MACs), or the knee. Test faces have no say in it.

    \b
    Examples:
      nasface select runs/mini --max-macs 80M --out runs/small
      nasface select runs/mini --max-params 1M --max-latency 5 --json
      nasface select runs/mini --knee --cost params
    """
    from nasface.rundir import RunDir
    from nasface.stages import select as selection

    if not knee and max_macs is None and max_params is None and max_latency is None:
        raise click.UsageError("give --max-macs, --max-params or --max-latency, or --knee")
    if cost and not knee:
        raise click.UsageError("--cost goes with --knee; a limit says itself what it limits")
    choice = selection.select(
        run,
        max_macs=max_macs,
        max_params=max_params,
        max_latency=max_latency,
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
    _show(choice, knee)
    click.echo(f"architecture: {arch}")
    if choice.stage != "finetuned":
        click.echo(f"it is {choice.stage}, not trained; next: nasface train --arch {arch}, or distill")


def _show(choice: Choice, knee: bool) -> None:
    from nasface import terminal

    figures = choice.figures
    rows = [
        [label, text.format(figures[name])]
        for label, name, text in (
            ("asked", "asked", "{}"),
            ("params", "params", "{:,}"),
            ("MACs", "macs", "{:,}"),
            ("params without head", "params_no_head", "{:,}"),
            ("MACs without head", "macs_no_head", "{:,}"),
            ("latency (ms)", "latency_ms", "{:.2f}"),
            ("  images at once", "latency_batch", "{}"),
            ("  threads", "threads", "{}"),
            ("  device", "device", "{}"),
        )
        if figures.get(name) is not None
    ]
    rows.append([f"NME held-out, {choice.stage} (%)", terminal.percent(choice.held_out_nme)])
    ending = f"_{choice.stage}"
    for name, value in figures.items():
        if name.startswith("nme_") and name.endswith(ending) and value is not None:
            subset = name.removeprefix("nme_").removesuffix(ending)
            rows.append([f"NME {subset}, {figures.get(f'images_{subset}', '?')} images (%)", terminal.percent(value)])
    chosen = "the knee" if knee else "the lowest"
    caption = (
        f"{chosen} of held-out NME among {choice.compared} of {choice.networks} pruned networks; NME normalised by "
        "inter-ocular distance, MACs are multiply-adds of one image"
    )
    terminal.show(terminal.table(str(choice.folder), ["", choice.network], rows, caption))
