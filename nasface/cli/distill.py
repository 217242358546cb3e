"""distill."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FILE,
    Place,
    Wanted,
    gathered,
    json_option,
    machine_options,
    of_source,
    out_option,
    recipe_options,
    show_run,
    tensorboard_option,
)

if TYPE_CHECKING:
    from nasface.recipe import Recipe


@dataclass(frozen=True)
class Changes:
    """What the command line changes in a recipe's section `distill`."""

    no_teacher: bool
    no_peer: bool
    no_masks: bool
    epochs: int | None

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe with these changes."""
        how = recipe.distill
        changed = replace(
            how,
            teacher=how.teacher and not self.no_teacher,
            peer=how.peer and not self.no_peer,
            masked=how.masked and not self.no_masks,
            epochs=how.epochs if self.epochs is None else self.epochs,
        )
        return recipe.model_copy(update={"distill": changed})


@main.command(short_help="Refine a slim network with a teacher, a peer and masks.")
@recipe_options
@click.option("--arch", type=FILE, required=True, help="arch.json; its weights, recipe and teacher are found by it.")
@click.option("--weights", type=FILE, help="Weights to start from, of the network itself or of its supernet.")
@click.option("--teacher", help="Folder of a trained run, or a network as 'module:attr'; default: the supernet.")
@gathered(
    "changes",
    Changes,
    click.option("--no-teacher", is_flag=True, help="Train without a teacher."),
    click.option("--no-peer", is_flag=True, help="Train one student instead of two that learn from each other."),
    click.option("--no-masks", is_flag=True, help="Show the whole image to the students, without random masks."),
    click.option("--epochs", type=click.IntRange(0), help="Epochs, instead of the recipe's distill.epochs."),
)
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
    changes: Changes,
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

    if teacher and changes.no_teacher:
        raise click.UsageError("--teacher and --no-teacher exclude each other")
    source = read_source(arch)
    resolved = changes.apply(of_source(wanted, source).resolve())
    run = RunDir(out or Path("runs") / f"{source.path.resolve().parent.name}-distilled")
    with place.machine(as_json, tensorboard) as machine:
        start = weights or source.weights()
        run_distill(resolved, run, machine, source.arch, start, teacher, source.supernet_run)
    show_run(run, as_json)
