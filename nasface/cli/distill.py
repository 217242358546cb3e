"""`nasface distill`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasface.cli.group import main
from nasface.cli.options import (
    EPOCHS,
    FILE,
    Place,
    Wanted,
    gathered,
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

if TYPE_CHECKING:
    from nasface.recipe import Recipe


@dataclass(frozen=True)
class Changes:
    """The options that change the section `distill` of a recipe."""

    no_teacher: bool
    no_peer: bool
    no_masks: bool
    epochs: int | None

    def apply(self, recipe: Recipe) -> Recipe:
        """Return the recipe with these changes."""
        off = {"teacher": self.no_teacher, "peer": self.no_peer, "masked": self.no_masks}
        changed = recipe.distill.without(*(source for source, chosen in off.items() if chosen))
        if self.epochs is not None:
            changed = replace(changed, epochs=self.epochs)
        return recipe.model_copy(update={"distill": changed})


@main.command(short_help="Refine a slim network with a teacher, a peer and masks.")
@recipe_options
@click.option(
    "--arch",
    type=FILE,
    required=True,
    help="arch.json of the slim network; its weights, recipe and teacher are found through it.",
)
@click.option("--weights", type=FILE, help="Weights to start from.  [default: the network's own, else its supernet's]")
@click.option("--teacher", help="Teacher: a run folder, a file of weights, or 'module:attr'.  [default: the supernet]")
@gathered(
    "changes",
    Changes,
    click.option("--no-teacher", is_flag=True, help="Train without a teacher."),
    click.option("--no-peer", is_flag=True, help="Train one student instead of two that learn from each other."),
    click.option("--no-masks", is_flag=True, help="Show the students whole images, without random masks."),
    click.option("--epochs", type=EPOCHS, help="Number of epochs.  [default: distill.epochs of the recipe]"),
)
@seed_option
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

    Two copies of the network, each seeing its own randomly masked images, learn from the landmarks, from the mean of
    their heatmaps and from a frozen teacher. The copy that does better on held-out faces becomes slim.safetensors of
    the new run.

    \b
    Examples:
      nasface distill --arch runs/mini/arch.json
      nasface distill --arch runs/half/arch.json --teacher runs/hrnet --out runs/half-distilled
      nasface distill --arch runs/half/arch.json --no-teacher --no-peer --no-masks --out runs/half-baseline
    """
    from nasface.model.source import read_source
    from nasface.stages.distill.run import distill as run_distill

    if teacher and changes.no_teacher:
        raise click.UsageError("--teacher does not go with --no-teacher")
    source = read_source(arch)
    resolved = changes.apply(of_source(wanted, source).resolve())
    run = new_run(out, resolved, "distilled", source)
    with place.machines(as_json, tensorboard) as machine:
        final = run_distill(
            resolved,
            run,
            machine,
            arch=source.arch,
            weights=weights or source.start(),
            teacher=teacher,
            fallback=source.supernet_run,
        )
    show_run(final, run, as_json)
