"""The command `nasface`: it parses, calls one stage and prints; it decides nothing."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasface import __version__
from nasface.errors import NasfaceError

if TYPE_CHECKING:
    from nasface.recipe import Recipe
    from nasface.stages import Machine, Source

# heavy imports stand inside the commands: `nasface --help` answers at once

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class Commands(click.Group):
    """Turns a NasfaceError into one sentence and exit code 2, wherever it comes from."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except NasfaceError as err:
            click.secho(f"nasface: {err}", fg="red", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("\nnasface: interrupted; give the same command again to go on from the last epoch", err=True)
            ctx.exit(130)
        except (OSError, MemoryError, RuntimeError) as err:
            sentence = self._sentence(err)
            if sentence is None:
                raise
            click.secho(f"nasface: {sentence}", fg="red", err=True)
            ctx.exit(2)

    @staticmethod
    def _sentence(err: Exception) -> str | None:
        """What the machine refused, in one sentence; None for what is a fault of the program, or click's own."""
        if isinstance(err, BrokenPipeError):
            return None  # click ends quietly when the reader of a pipe has gone
        if isinstance(err, OSError):
            reason = err.strerror or " ".join(str(err).split()) or type(err).__name__
            place = "a file" if err.filename is None else f"{err.filename}"
            return f"cannot read or write {place} ({reason}); check that it is there, its permissions and the disk"
        if isinstance(err, RecursionError):
            return "the input is nested too deeply to be read; make the recipe, file or option flatter"
        text = " ".join(str(err).split())
        exhausted = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
        if isinstance(err, (MemoryError, exhausted)) or any(
            words in text.lower() for words in ("out of memory", "can't allocate memory")
        ):
            said = f" ({text[:200]})" if text else ""
            return f"the memory does not suffice{said}; set a smaller training.batch or input size, or another --device"
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Find, slim, distil and ship efficient landmark networks.

    \b
    Try it without any data:
      nasface search --recipe demo --out runs/demo
    """
    logging.getLogger("nasface").addHandler(_WarningsToTerminal())


class _WarningsToTerminal(logging.Handler):
    """Shows warnings as one line each on standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:  # errors are raised as well
            click.secho(f"nasface: {record.getMessage()}", fg="yellow", err=True)


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
        from nasface.stages import Machine

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
tensorboard_option = click.option("--tensorboard", is_flag=True, help="Write event files too (extra 'tensorboard').")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


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
    _show_run(run, as_json)


@main.command(short_help="Train one network.")
@recipe_options
@click.option("--arch", type=FILE, help="arch.json of a pruned network; its recipe and weights are found by it.")
@click.option("--weights", type=FILE, help="Weights to start from, of the network itself or of its supernet.")
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
    """
    from nasface import stages
    from nasface.rundir import RunDir

    if scratch and weights:
        raise click.UsageError("--scratch and --weights exclude each other")
    source = stages.read_source(arch) if arch else None
    if source is not None:
        wanted = _of_source(wanted, source)
        weights = weights or (None if scratch else source.weights())
    resolved = wanted.resolve()
    if source is not None:
        name = f"{source.path.resolve().parent.name}-{'scratch' if scratch else 'tuned'}"
    else:
        name = f"{resolved.space.name}-{resolved.data.name}-train-seed{resolved.seed}"
    run = RunDir(out or Path("runs") / name)
    with place.machine(as_json, tensorboard) as machine:
        stages.train(resolved, run, machine, source.arch if source else None, weights)
    _show_run(run, as_json)


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
    _show_costs(stages.cost_report(costs, graph), f"{out / 'arch.json'}", as_json)


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
        wanted = _of_source(wanted, source)
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
    _show_costs(report, str(arch or edges or space), as_json)


@main.group()
def data() -> None:
    """Check and prepare data sets."""


@data.command("check")
@click.option("--dataset", default="300w", show_default=True, help="Data set.")
@click.option("--data-root", type=FOLDER, help="Folder of the data set.")
@click.option("--workers", type=click.IntRange(1), help="Threads or processes that decode images.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--set", "overrides", multiple=True, metavar="OPTION=VALUE", help="An option of the data set.")
@json_option
def data_check(
    dataset: str,
    data_root: Path | None,
    workers: int | None,
    quiet: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look at every file of a data set and list every fault; exit code 2 when one is damaged.

    \b
    Example:
      nasface data check --dataset 300w --data-root data/300w
    """
    from nasface import plugins, terminal
    from nasface import recipe as recipes
    from nasface.data.check import check

    options: dict[str, Any] = {}
    recipes.override(options, overrides)
    with terminal.progress_bars(quiet or as_json) as hooks:
        report = check(plugins.dataset(dataset, data_root, options), hooks.counter("check"), workers)
    if as_json:
        click.echo(json.dumps({"ok": report.ok, **asdict(report)}, indent=1))
    else:
        rows = [[row.split, row.subset or "total", str(row.found), str(row.expected or "–")] for row in report.counts]
        terminal.show(
            terminal.table(f"{dataset} in {data_root}", ["split", "subset", "found", "expected"], rows, text_columns=2)
        )
        for problem in report.problems:
            click.echo(f"{problem.level}: {problem.where}: {problem.what}")
        errors = sum(problem.level == "error" for problem in report.problems)
        faults = f"{errors} errors, {len(report.problems) - errors} warnings" if report.problems else "no fault found"
        totals = [(row.split, (row.expected or 0) - row.found) for row in report.counts if not row.subset]
        missing = [f"{number} {split}" for split, number in totals if number > 0]
        click.echo(f"{faults}; faces of the official set not here: {', '.join(missing)}" if missing else faults)
    sys.exit(0 if report.ok else 2)


@data.command("prepare")
@recipe_options
@machine_options
def data_prepare(wanted: Wanted, place: Place) -> None:
    """Decode and crop all faces once, into the cache that search and training read.

    \b
    Example:
      nasface data prepare --recipe 300w-mini --data-root data/300w
    """
    from nasface import stages, terminal

    resolved = wanted.resolve()
    with place.machine() as machine:
        prepared = stages.load_prepared(resolved, machine)
    rows = []
    for split, faces in prepared.items():
        for subset in (*faces.subset_names, None):
            expected = faces.expected_count(subset)
            rows.append(
                [
                    split,
                    subset or "total",
                    str(faces.count(subset)),
                    "–" if expected is None else str(expected),
                ]
            )
    terminal.show(
        terminal.table(f"prepared {resolved.data.name}", ["split", "subset", "faces", "expected"], rows, text_columns=2)
    )


@main.command(short_help="Search spaces, data sets, ... and recipes.")
@json_option
def plugins(as_json: bool) -> None:
    """List search spaces, data sets, searchers, pruners and recipes.

    \b
    Example:
      nasface plugins
    """
    from nasface import plugins as found
    from nasface import recipe as recipes
    from nasface import terminal

    rows = found.listing() + recipes.listing()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        columns = ("kind", "name", "package", "about")
        terminal.show(
            terminal.table("plug-ins and recipes", columns, [[r[c] for c in columns] for r in rows], text_columns=4)
        )


def _of_source(wanted: Wanted, source: Source) -> Wanted:
    """The recipe of an architecture's run, or the one given, with the architecture's own space and input size."""
    if wanted.space:
        raise click.UsageError("--space and --arch exclude each other: an arch.json names its space")
    return replace(wanted, recipe=wanted.recipe or source.recipe, sections=source.sections)


def _show_run(run: Any, as_json: bool) -> None:
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


def _show_costs(report: dict[str, Any], title: str, as_json: bool) -> None:
    from nasface import terminal

    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    terminal.show(terminal.cost_table(report, title))
