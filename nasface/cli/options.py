"""Options that several commands share, and the tables that they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasface.bounds import MAX_COUNT, MAX_EPOCHS
from nasface.cli.sizes import Whole

if TYPE_CHECKING:
    from nasface.model.files import Saved
    from nasface.model.source import Source
    from nasface.recipe import Recipe
    from nasface.rundir import RunDir
    from nasface.stages.machine import Machine
    from nasface.stages.studies.storage import Kept

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
SEED = Whole(0, 2**63 - 1)
WORKERS = click.IntRange(1, 256)
EPOCHS = click.IntRange(0, MAX_EPOCHS)
COUNT = click.IntRange(0, MAX_COUNT)


@dataclass(frozen=True)
class Wanted:
    """The options of a command line that choose and change a recipe.

    Attributes:
        recipe, space, dataset, data_root, overrides: as given, see `recipe.assemble`.
        seed: as given, where a command has the option; it takes precedence over everything else.
        sections: content of the recipe that an architecture fixes.
    """

    recipe: str | None
    space: str | None
    dataset: str | None
    data_root: Path | None
    overrides: tuple[str, ...]
    seed: int | None = None
    sections: Mapping[str, Any] | None = None

    def resolve(self) -> Recipe:
        """Return the recipe that these options ask for."""
        from nasface import recipe as recipes

        recipe = recipes.assemble(self.recipe, self.space, self.dataset, self.data_root, self.overrides, self.sections)
        return recipe if self.seed is None else recipe.model_copy(update={"seed": self.seed})

    def of_network(self, network: Saved) -> Recipe:
        """Return the recipe of a network with these changes, or the recipe given instead."""
        return network.recipe(self.recipe, self.dataset, self.data_root, self.overrides)


@dataclass(frozen=True)
class Place:
    """The options of a command line that say where and how loudly to work."""

    device: str
    workers: int | None
    quiet: bool

    @contextmanager
    def machine(self, quiet: bool = False, tensorboard: bool = False) -> Iterator[Machine]:
        """Yield the machine that these options ask for, with progress bars while the block runs."""
        from nasface import terminal
        from nasface.stages.machine import Machine

        with terminal.progress_bars(self.quiet or quiet) as hooks:
            yield Machine(self.device, hooks, tensorboard, self.workers)

    @contextmanager
    def machines(self, quiet: bool, tensorboard: bool) -> Iterator[Machine]:
        """Yield the same for a command that torchrun may start in several processes, which then work together.

        After the block, the command continues in one of them.
        """
        from nasface import ranks

        with ranks.joined(self.device) as device:
            leads = ranks.leads()
            with replace(self, device=device).machine(quiet or not leads, tensorboard) as machine:
                yield machine
        if not leads:  # otherwise every process would print the results
            click.get_current_context().exit()


@dataclass(frozen=True)
class Sharing:
    """The options of a command line that make its work a study on which several machines work."""

    storage: str | None
    study_name: str | None
    heartbeat: int

    def kept(self, name: str, where: str | None = None) -> Kept | None:
        """Return where the study is, if there is one.

        Args:
            name: of the study, if none is given.
            where: where it is if no storage is given; None for no study.
        """
        from nasface.stages.studies.storage import Kept

        place = self.storage or where
        return None if place is None else Kept(place, self.study_name or name, self.heartbeat)


def gathered(name: str, kind: type[Any], *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds options to a command and passes their values to it as one object.

    Args:
        name: the command's parameter that receives the object.
        kind: a dataclass with one field per option.
        options: click options (or arguments), in the order of the help text.
    """

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


def read_options(given: Sequence[str]) -> dict[str, Any]:
    """Return the options of a plug-in that are given as NAME=VALUE."""
    from nasface import recipe as recipes

    options: dict[str, Any] = {}
    recipes.override(options, given)
    return options


set_option = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value of the recipe (may be repeated)."
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress bars.")
recipe_options = gathered(
    "wanted",
    Wanted,
    click.option("--space", help="Search space: a name from `nasface plugins`, or 'module:attr'."),
    click.option("--dataset", help="Dataset: a name from `nasface plugins`, or 'module:attr'."),
    click.option("--data-root", type=FOLDER, help="Folder of the dataset."),
    click.option(
        "--recipe",
        help="Recipe: a name from `nasface plugins`, or a YAML file.  [default: the dataset's own, such as 300w, which "
        "needs a GPU]",
    ),
    set_option,
)
machine_options = gathered(
    "place",
    Place,
    click.option("--device", default="auto", show_default=True, help="Device to run on: cpu, cuda, cuda:1, mps, ..."),
    click.option(
        "--workers",
        type=WORKERS,
        help="Number of workers that decode images.  [default: from the number of cores]",
    ),
    quiet_option,
)
sharing_options = gathered(
    "sharing",
    Sharing,
    click.option(
        "--storage",
        metavar="URL",
        envvar="NASFACE_STUDY",
        show_envvar=True,
        help="Optuna storage for the study, shared by all machines; see `nasface worker`.",
    ),
    click.option("--study-name", help="Name of the study.  [default: that of the folder]"),
    click.option(
        "--heartbeat",
        type=click.IntRange(1, 3600),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="Interval between heartbeats in a database; a process counts as dead after missing five.",
    ),
)
out_option = click.option(
    "--out", type=FOLDER, help="Run folder to write.  [default: a folder in runs/, named after the job]"
)
tensorboard_option = click.option(
    "--tensorboard", is_flag=True, help="Write TensorBoard event files too (needs the extra 'tensorboard')."
)
seed_option = click.option("--seed", type=SEED, help="Seed of weights, shuffling and augmentation.")
network_option = click.option(
    "--network", help="Network of the run: slim or supernet.  [default: slim if there is one]"
)
run_data_option = click.option(
    "--data-root", type=FOLDER, help="Folder of the dataset, if it is not where the run found it."
)
run_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="A.B=VALUE",
    help="Change one value of the run's recipe (may be repeated).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def of_source(wanted: Wanted, source: Source) -> Wanted:
    """Return options for the recipe of an architecture's run, or for the recipe given instead.

    The architecture's own search space and input size come over the recipe's. A network that a sweep has fine-tuned is
    trained for as many epochs as its run's recipe says, and not for as few as the sweep did.
    """
    if wanted.space:
        raise click.UsageError("--space does not go with --arch: an arch.json names its own search space")
    sections = source.sections if wanted.recipe else source.to_train | source.sections
    return replace(wanted, recipe=wanted.recipe or source.recipe, sections=sections)


def new_run(out: Path | None, recipe: Recipe, what: str, source: Source | None = None) -> RunDir:
    """Return the run folder to write.

    Args:
        out: as given; by default a folder in runs/, named after what it starts from and what is done.
        recipe: of the run.
        what: the end of the name.
        source: the architecture from which the run starts, if so.
    """
    from nasface.rundir import RunDir

    start = source.path.resolve().parent.name if source else f"{recipe.space.name}-{recipe.data.name}"
    return RunDir(out or Path("runs") / f"{start}-{what}")


def show_run(final: Mapping[str, Any], run: RunDir, as_json: bool) -> None:
    """Print the final figures of a run, the content of its metrics.json, as a table or as JSON."""
    from nasface import terminal

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
    """Print a report made by `stages.count.cost_report`, as a table or as JSON."""
    from nasface import terminal

    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    terminal.show(terminal.cost_table(report, title))
