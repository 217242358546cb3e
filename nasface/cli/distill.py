"""distill."""

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
    of_source,
    out_option,
    recipe_options,
    show_run,
    tensorboard_option,
)


@main.command(short_help="Refine a slim network with a teacher, a peer and masks.")
@recipe_options
@click.option("--arch", type=FILE, required=True, help="arch.json; its weights, recipe and teacher are found by it.")
@click.option("--weights", type=FILE, help="Weights to start from, of the network itself or of its supernet.")
@click.option("--teacher", help="Folder of a trained run, or a network as 'module:attr'; default: the supernet.")
@click.option("--no-teacher", is_flag=True, help="Learn from no teacher.")
@click.option("--no-peer", is_flag=True, help="Train one student, not two that learn from each other.")
@click.option("--no-masks", is_flag=True, help="Show the students the whole image.")
@click.option("--epochs", type=click.IntRange(0), help="Instead of the recipe's distill.epochs.")
@out_option
@tensorboard_option
@machine_options
@json_option
def distill(
    wanted: Wanted,
    place: Place,
    arch: Path,
    weights: Path | None,
    teacher: str | None,
    no_teacher: bool,
    no_peer: bool,
    no_masks: bool,
    epochs: int | None,
    out: Path | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Refine a slim network by triple knowledge distillation (section 3.2 of the paper).

    Two copies of it, each seeing its own randomly masked images, learn from the landmarks, from their ensemble and from
    a frozen teacher. The better one on held-out faces becomes slim.safetensors of the new run.

    \b
    Examples:
      nasface distill --arch runs/mini/arch.json
      nasface distill --arch runs/half/arch.json --teacher runs/hrnet --out runs/half-distilled
      nasface distill --arch runs/half/arch.json --no-teacher --no-peer --no-masks --out runs/half-baseline
    """
    from nasface.rundir import RunDir
    from nasface.stages.distill.run import distill as run_distill
    from nasface.stages.sources import read_source

    if teacher and no_teacher:
        raise click.UsageError("--teacher and --no-teacher exclude each other")
    source = read_source(arch)
    wanted = of_source(wanted, source)
    changes = {"teacher": no_teacher, "peer": no_peer, "masked": no_masks}
    settings = [f"distill.{name}=false" for name, off in changes.items() if off]
    settings += [f"distill.epochs={epochs}"] if epochs is not None else []
    resolved = replace(wanted, overrides=(*wanted.overrides, *settings)).resolve()
    run = RunDir(out or Path("runs") / f"{source.path.resolve().parent.name}-distilled")
    with place.machine(as_json, tensorboard) as machine:
        start = weights or source.weights()
        run_distill(resolved, run, machine, source.arch, start, teacher, source.supernet_run)
    show_run(run, as_json)
