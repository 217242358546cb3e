"""`nasface search`."""

from __future__ import annotations

from dataclasses import replace
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
    out_option,
    recipe_options,
    seed_option,
    show_run,
    tensorboard_option,
)

# heavy imports stand inside the commands: `nasface --help` answers at once


@main.command(short_help="Search, prune, fine-tune and evaluate.")
@recipe_options
@click.option("--searcher", metavar="NAME", help="Searcher: a name from `nasface plugins`.  [default: the recipe's]")
@click.option("--weights", type=FILE, help="Weights of a supernet to start from.  [default: random]")
@seed_option
@out_option
@tensorboard_option
@machine_options
@json_option
def search(
    wanted: Wanted,
    place: Place,
    searcher: str | None,
    weights: Path | None,
    out: Path | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Search a supernet, prune it, fine-tune and evaluate the slim network.

    Give the same command again to continue where it stopped.

    \b
    Examples:
      nasface search --space hrsupernet --dataset 300w --data-root data/300w
      nasface search --recipe 300w-mini --data-root data/300w --set prune.options.share=0.3 --out runs/mini
      nasface search --recipe demo --searcher nni-random --set search.options.share=0.4 --out runs/random
    """
    from nasface.stages.search.run import search as run_search

    if searcher is not None:
        wanted = replace(wanted, sections={"search": {"name": searcher}})
    resolved = wanted.resolve()
    run = new_run(out, resolved, f"seed{resolved.seed}")
    with place.machines(as_json, tensorboard) as machine:
        final = run_search(resolved, run, machine, weights)
    show_run(final, run, as_json)
