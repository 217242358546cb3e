"""`nasface count`."""

from __future__ import annotations

from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import FILE, json_option, read_options, show_costs


@main.command(short_help="Count parameters and MACs by stage.")
@click.option("--space", help="Count a search space: a name from `nasface plugins`, or 'module:attr'.")
@click.option("--arch", type=FILE, help="Count the network of an arch.json.")
@click.option("--edges", type=FILE, help="Count the sub-network of --space with these edges (JSON).")
@click.option("--landmarks", type=click.IntRange(1, 10_000), default=68, show_default=True, help="Number of landmarks.")
@click.option(
    "--input-size",
    type=click.IntRange(16, 4096),
    help="Side of the square input in pixels.  [default: 256, or that of --arch]",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="OPTION=VALUE", help="An option of the space (may be repeated)."
)
@json_option
def count(
    space: str | None,
    arch: Path | None,
    edges: Path | None,
    landmarks: int,
    input_size: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Count parameters and multiply-adds (MACs) of a space or a sub-network, by stage and in total.

    \b
    Examples:
      nasface count --space hrsupernet
      nasface count --space hrnet --set encoder=mbconv --json
      nasface count --arch runs/mini/arch.json
    """
    from nasface.stages.count import count as run_count

    if (space is None) == (arch is None):
        raise click.UsageError("give either --space or --arch")
    if arch is not None and (edges or overrides):
        raise click.UsageError("--edges and --set go with --space; an arch.json has its own")
    report = run_count(space, read_options(overrides), landmarks, input_size, arch, edges)
    show_costs(report, str(arch or edges or space), as_json)
