"""`nasface train`."""

from __future__ import annotations

from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FILE,
    Place,
    Wanted,
    json_option,
    machine_options,
    new_run,
    of_source,
    out_option,
    recipe_options,
    seed_option,
    show_run,
    tensorboard_option,
)

# heavy imports stand inside the commands: `nasface --help` answers at once


@main.command(short_help="Train one network.")
@recipe_options
@click.option("--arch", type=FILE, help="arch.json of a pruned network; its recipe and weights are found through it.")
@click.option("--weights", type=FILE, help="Weights to start from.  [default: the network's own, else its supernet's]")
@click.option(
    "--backbone", type=FILE, help="Public checkpoint (safetensors) from which to start the full graph of a space."
)
@click.option("--scratch", is_flag=True, help="Start from random weights.")
@seed_option
@out_option
@tensorboard_option
@machine_options
@json_option
def train(
    wanted: Wanted,
    place: Place,
    arch: Path | None,
    weights: Path | None,
    backbone: Path | None,
    scratch: bool,
    out: Path | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train one network: a pruned one (--arch), or the full graph of a space.

    \b
    Examples:
      nasface train --arch runs/half/arch.json --out runs/half-tuned
      nasface train --space hrnet --dataset 300w --data-root data/300w
      nasface train --space hrnet --backbone hrnetv2_w18.safetensors --data-root data/300w --out runs/teacher
    """
    from nasface.model.source import read_source
    from nasface.stages.train import train as run_train

    if scratch and weights:
        raise click.UsageError("--scratch and --weights exclude each other")
    if backbone and (arch or weights or scratch):
        raise click.UsageError("--backbone starts the full graph of a space: it excludes --arch, --weights, --scratch")
    source = read_source(arch) if arch else None
    if source is not None:
        wanted = of_source(wanted, source)
        weights = weights or (None if scratch else source.start())
    resolved = wanted.resolve()
    what = f"train-seed{resolved.seed}" if source is None else "scratch" if scratch else "tuned"
    run = new_run(out, resolved, what, source)
    with place.machines(as_json, tensorboard) as machine:
        final = run_train(resolved, run, machine, source.arch if source else None, weights, backbone)
    show_run(final, run, as_json)
