"""search, train and prune."""

from __future__ import annotations

from pathlib import Path

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
    out_option,
    recipe_options,
    show_costs,
    show_run,
    tensorboard_option,
)

# heavy imports stand inside the commands: `nasface --help` answers at once


@main.command(short_help="Search, prune, fine-tune and evaluate.")
@recipe_options
@out_option
@tensorboard_option
@machine_options
@json_option
def search(wanted: Wanted, place: Place, out: Path | None, tensorboard: bool, as_json: bool) -> None:
    """Search a supernet, prune it, fine-tune and evaluate the slim network.

    Given again with the same --out, it goes on where it stopped.

    \b
    Examples:
      nasface search --space hrsupernet --dataset 300w --data-root data/300w
      nasface search --recipe 300w-mini --data-root data/300w --set prune.options.share=0.3 --out runs/mini
    """
    from nasface import stages
    from nasface.rundir import RunDir

    resolved = wanted.resolve()
    run = RunDir(out or Path("runs") / f"{resolved.space.name}-{resolved.data.name}-seed{resolved.seed}")
    with place.machine(as_json, tensorboard) as machine:
        stages.search(resolved, run, machine)
    show_run(run, as_json)


@main.command(short_help="Train one network.")
@recipe_options
@click.option("--arch", type=FILE, help="arch.json of a pruned network; its recipe and weights are found by it.")
@click.option("--weights", type=FILE, help="Weights to start from, of the network itself or of its supernet.")
@click.option("--backbone", type=FILE, help="Public checkpoint (safetensors) to start the full graph of a space from.")
@click.option("--scratch", is_flag=True, help="Start from random weights.")
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
    from nasface import stages
    from nasface.rundir import RunDir

    if scratch and weights:
        raise click.UsageError("--scratch and --weights exclude each other")
    if backbone and (arch or weights or scratch):
        raise click.UsageError("--backbone starts the full graph of a space: it excludes --arch, --weights, --scratch")
    source = stages.read_source(arch) if arch else None
    if source is not None:
        wanted = of_source(wanted, source)
        weights = weights or (None if scratch else source.weights())
    resolved = wanted.resolve()
    if source is not None:
        name = f"{source.path.resolve().parent.name}-{'scratch' if scratch else 'tuned'}"
    else:
        name = f"{resolved.space.name}-{resolved.data.name}-train-seed{resolved.seed}"
    run = RunDir(out or Path("runs") / name)
    with place.machine(as_json, tensorboard) as machine:
        stages.train(resolved, run, machine, source.arch if source else None, weights, backbone)
    show_run(run, as_json)


@main.command(short_help="Choose a sub-network of a searched run.")
@click.argument("run", type=FOLDER)
@click.option("--threshold", type=float, help="Keep edges whose importance is above this.")
@click.option("--share", type=float, help="Keep at most this share of the prunable MACs.")
@click.option("--top", type=int, help="Keep this many edges.")
@click.option("--pruner", help="Pruner plug-in (see `nasface plugins`); by default the run's, if it takes the option.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change a value of the run's recipe.")
@click.option("--out", type=FOLDER, required=True, help="Folder for arch.json and the inherited weights.")
@json_option
def prune(
    run: Path,
    threshold: float | None,
    share: float | None,
    top: int | None,
    pruner: str | None,
    overrides: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Choose a sub-network of a searched RUN; train it with `nasface train --arch`.

    \b
    Examples:
      nasface prune runs/mini --share 0.5 --out runs/half
      nasface prune runs/mini --pruner random --share 0.5 --set prune.options.seed=1 --out runs/random
      nasface prune runs/mini --threshold 0.0017 --out runs/paper
    """
    from nasface import recipe as recipes
    from nasface import stages
    from nasface.rundir import RunDir

    given = [
        (option, value, default)
        for option, value, default in (
            ("threshold", threshold, "threshold"),
            ("share", share, "share"),
            ("edges", top, "top"),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise click.UsageError("--threshold, --share and --top exclude one another; give one")
    source = RunDir(run)
    content = recipes.read(str(stages.required(source.recipe, "a run folder")))
    recipes.choose_pruner(content, pruner, *given[:1])
    recipes.override(content, overrides)
    resolved = recipes.resolve(content, f"the recipe of {run}")
    costs, graph = stages.prune(source, resolved, RunDir(out))
    show_costs(stages.cost_report(costs, graph), f"{out / 'arch.json'}", as_json)
