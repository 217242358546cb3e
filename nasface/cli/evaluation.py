"""evaluate and count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FILE,
    FOLDER,
    Place,
    Wanted,
    json_option,
    machine_options,
    of_source,
    recipe_options,
    show_costs,
)


@main.command(short_help="NME by test subset, and cost.")
@click.argument("run", type=FOLDER, required=False)
@click.option("--arch", type=FILE, help="arch.json of the network, instead of a run.")
@click.option("--weights", type=FILE, help="Its weights (safetensors).")
@recipe_options
@click.option(
    "--normaliser",
    type=click.Choice(["inter_ocular", "inter_pupil", "box"]),
    default="inter_ocular",
    show_default=True,
    help="What point errors are divided by.",
)
@machine_options
@json_option
def evaluate(
    wanted: Wanted,
    place: Place,
    run: Path | None,
    arch: Path | None,
    weights: Path | None,
    normaliser: str,
    as_json: bool,
) -> None:
    """Evaluate the networks of a RUN folder, or one given by --arch and --weights, on the test subsets.

    \b
    Examples:
      nasface evaluate runs/mini
      nasface evaluate --arch arch.json --weights slim.safetensors --dataset 300w --data-root data/300w
    """
    from nasface import stages

    if (run is None) == (arch is None):
        raise click.UsageError("give either a RUN folder or --arch")
    if arch is not None:
        source = stages.read_source(arch)
        wanted = of_source(wanted, source)
        weights = weights or source.trained_weights() or source.weights()
        networks: stages.Networks = {"slim": (source.arch, weights)}
        click.echo(f"weights: {weights}", err=True)
    else:
        assert run is not None
        if weights is not None:
            raise click.UsageError("--weights goes with --arch; a RUN folder has its own")
        recipe = str(stages.required(run / "recipe.yaml", "a run folder"))
        wanted = replace(wanted, recipe=wanted.recipe or recipe)
        networks = stages.run_networks(run)
    resolved = wanted.resolve()
    with place.machine(as_json) as machine:
        found = {e.network: e.as_dict() for e in stages.evaluate(resolved, machine, networks)}
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        from nasface import terminal

        terminal.show(terminal.network_table(found, str(run or arch), normaliser))


@main.command(short_help="Parameters and MACs, by stage.")
@click.option("--space", help="Search space to count.")
@click.option("--arch", type=FILE, help="Count the network of an arch.json.")
@click.option("--edges", type=FILE, help="Count the sub-network of --space with these edges (JSON).")
@click.option(
    "--landmarks", type=click.IntRange(1, 10_000), default=68, show_default=True, help="Heatmaps of the head."
)
@click.option("--input-size", type=click.IntRange(16, 4096), help="Pixels, square; default 256, or that of --arch.")
@click.option("--set", "overrides", multiple=True, metavar="OPTION=VALUE", help="An option of the space.")
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
    from nasface import recipe as recipes
    from nasface import stages

    if (space is None) == (arch is None):
        raise click.UsageError("give either --space or --arch")
    if arch is not None and (edges or overrides):
        raise click.UsageError("--edges and --set go with --space; an arch.json has its own")
    options: dict[str, Any] = {}
    recipes.override(options, overrides)
    report = stages.count(space, options, landmarks, input_size, arch, edges)
    show_costs(report, str(arch or edges or space), as_json)
