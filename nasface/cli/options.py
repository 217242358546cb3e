"""Options that commands share, and what they show at their end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nasface.recipe import Recipe
    from nasface.rundir import RunDir
    from nasface.stages.sources import Source
    from nasface.stages.workspace import Machine

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class Wanted:
    """The recipe options of a command line."""

    recipe: str | None
    space: str | None
    dataset: str | None
    data_root: Path | None
    overrides: tuple[str, ...]
    sections: Mapping[str, Any] | None = None

    def resolve(self) -> Recipe:
        """The recipe that they ask for."""
        from nasface import recipe as recipes

        return recipes.assemble(self.recipe, self.space, self.dataset, self.data_root, self.overrides, self.sections)

    def seeded(self, seed: int | None) -> Wanted:
        """The same with a seed, if one is given."""
        return self if seed is None else replace(self, overrides=(*self.overrides, f"seed={seed}"))


@dataclass(frozen=True)
class Place:
    """The machine options of a command line."""

    device: str
    workers: int | None
    quiet: bool

    @contextmanager
    def machine(self, quiet: bool = False, tensorboard: bool = False) -> Iterator[Machine]:
        """The machine that they ask for, with progress bars while the block runs."""
        from nasface import terminal
        from nasface.stages.workspace import Machine

        with terminal.progress_bars(self.quiet or quiet) as hooks:
            yield Machine(self.device, hooks, tensorboard, self.workers)


def _gathered(name: str, kind: type[Any], *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decorator that adds options and hands them to the command as one object."""

    def decorate(command: Callable[..., None]) -> Any:
        @wraps(command)
        def call(**given: Any) -> None:
            values = {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}
            command(**given, **{name: kind(**values)})

        decorated: Any = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


recipe_options = _gathered(
    "wanted",
    Wanted,
    click.option("--space", help="Search space (see `nasface plugins`), or 'module:attr'."),
    click.option("--dataset", help="Data set (see `nasface plugins`), or 'module:attr'."),
    click.option("--data-root", type=FOLDER, help="Folder of the data set."),
    click.option("--recipe", help="Shipped recipe or a YAML file; default: the one named as the data set, else 300w."),
    click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change a value of the recipe."),
)
machine_options = _gathered(
    "place",
    Place,
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps, ..."),
    click.option("--workers", type=click.IntRange(1), help="Threads or processes that decode images."),
    click.option("--quiet", is_flag=True, help="No progress bars."),
)
out_option = click.option("--out", type=FOLDER, help="Run folder; by default one below runs/, named after the job.")
seed_option = click.option("--seed", type=click.IntRange(0), help="Seed of weights, shuffling and augmentation.")
tensorboard_option = click.option("--tensorboard", is_flag=True, help="Write event files too (extra 'tensorboard').")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def of_source(wanted: Wanted, source: Source) -> Wanted:
    """The recipe of an architecture's run, or the one given, with the architecture's own space and input size."""
    if wanted.space:
        raise click.UsageError("--space and --arch exclude each other: an arch.json names its space")
    return replace(wanted, recipe=wanted.recipe or source.recipe, sections=source.sections)


def show_run(run: RunDir, as_json: bool) -> None:
    """The final figures of a run."""
    from nasface import rundir, terminal

    final = rundir.read_json(run.metrics, "the figures of a finished run")
    if as_json:
        click.echo(json.dumps(final, indent=1))
        return
    minutes = final["training_minutes"]
    title = (
        f"{final['space']} on {final['data']}, seed {final['seed']}, {minutes:.1f} min of training on {final['device']}"
    )
    terminal.show(terminal.network_table(final["networks"], title))
    click.echo(f"run folder: {run.path}")


def show_costs(report: dict[str, Any], title: str, as_json: bool) -> None:
    """What `stages.cost_report` says."""
    from nasface import terminal

    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    terminal.show(terminal.cost_table(report, title))
