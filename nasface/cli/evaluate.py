"""`nasface evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from nasface.cli.group import main
from nasface.cli.options import FILE, Place, Wanted, gathered, json_option, machine_options, recipe_options
from nasface.scores import DEFAULT_NORMALISER, METRICS, MaskLevel, Normaliser

if TYPE_CHECKING:
    from nasface.stages.evaluate.compare import Predictions, Subject


@dataclass(frozen=True)
class Inputs:
    """The options that say what to evaluate."""

    models: tuple[str, ...]
    arch: Path | None
    weights: Path | None
    predictions: tuple[Path, ...]
    one_based: bool
    missing: Literal["error", "fail"] | None
    masked: MaskLevel | None

    def check(self, wanted: Wanted) -> None:
        """Refuse options that do not go together with a UsageError."""
        if sum(map(bool, (self.models, self.arch, self.predictions))) != 1:
            raise click.UsageError("give either MODELs (run folders or files of weights), --arch or --predictions")
        if len({Path(model).resolve() for model in self.models}) < len(self.models):
            raise click.UsageError("a MODEL is given twice")
        if self.weights and not self.arch:
            raise click.UsageError("--weights goes with --arch; a MODEL has its own weights")
        if wanted.space:
            raise click.UsageError("leave out --space: a network names its own search space")
        if (self.one_based or self.missing) and not self.predictions:
            raise click.UsageError("--one-based and --missing go with --predictions")
        if self.masked and self.predictions:
            raise click.UsageError("--masked covers the faces that a network sees; it does not go with --predictions")

    def subjects(self, wanted: Wanted) -> Sequence[Subject | Predictions]:
        """Return what to evaluate, each with the recipe that the user wants for it."""
        from nasface.model.files import at
        from nasface.stages.evaluate.compare import Predictions, Subject

        if self.predictions:
            recipe, missing = wanted.resolve(), self.missing or "error"
            return [Predictions(path, recipe, self.one_based, missing) for path in self.predictions]
        found = [(place, at(place, self.weights)) for place in self.models or [str(self.arch)]]
        return [Subject(place, wanted.of_network(networks[0]), networks) for place, networks in found]


@dataclass(frozen=True)
class Display:
    """The options that say how to print the figures; see `report.evaluation.present`."""

    normaliser: Normaliser
    metrics: tuple[str, ...]
    form: Literal["text", "markdown", "latex", "csv", "json"] | None
    published: bool


@dataclass(frozen=True)
class Files:
    """The options that name files to write."""

    per_image: Path | None
    save_predictions: Path | None
    worst: Path | None
    worst_count: int


@main.command(short_help="Measure NME, failure rate and AUC by test subset.")
@gathered(
    "inputs",
    Inputs,
    click.argument("models", metavar="[MODEL]...", nargs=-1),
    click.option("--arch", type=FILE, help="Evaluate the network of this arch.json instead of a run."),
    click.option("--weights", type=FILE, help="Weights of --arch (safetensors)."),
    click.option(
        "--predictions", type=FILE, multiple=True, help="Evaluate a CSV file of landmarks from any program instead."
    ),
    click.option("--one-based", is_flag=True, help="Count the pixels of --predictions from 1, not from 0."),
    click.option(
        "--missing",
        type=click.Choice(["error", "fail"]),
        help="What to do with faces missing from --predictions: stop, or count them as failures.  [default: error]",
    ),
    click.option("--masked", type=click.Choice(get_args(MaskLevel)), help="Cover the test faces with synthetic masks."),
)
@recipe_options
@gathered(
    "display",
    Display,
    click.option(
        "--normaliser",
        type=click.Choice([normaliser.value for normaliser in Normaliser]),
        default=DEFAULT_NORMALISER.value,
        show_default=True,
        help="Distance by which point errors are divided.",
    ),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        type=click.Choice(list(METRICS)),
        help="Metric to show in the table (may be repeated).  [default: nme, and on COFW also fr10]",
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "markdown", "latex", "csv", "json"]),
        help="Print a table with one row per method.  [default: details of a single run, text for several]",
    ),
    click.option("--published", is_flag=True, help="Include the results published in the paper."),
)
@gathered(
    "files",
    Files,
    click.option("--per-image", type=FILE, help="Write the NME of every test face to a CSV file."),
    click.option("--save-predictions", type=FILE, help="Write the landmarks to a CSV file that --predictions reads."),
    click.option("--worst", type=FILE, help="Draw the worst faces of the last network (.png, .svg or .pdf)."),
    click.option(
        "--worst-count", type=click.IntRange(1, 100), default=12, show_default=True, help="Number of faces in --worst."
    ),
)
@machine_options
@json_option
def evaluate(inputs: Inputs, wanted: Wanted, display: Display, files: Files, place: Place, as_json: bool) -> None:
    """Evaluate networks, or landmarks that any program has predicted, on a test set.

    A MODEL is a run folder or a file of weights. Runs of the same kind that differ only in their seeds are averaged. A
    subset that is incomplete on disk is shown with the number of faces found.

    \b
    Examples:
      nasface evaluate runs/mini
      nasface evaluate runs/mini-0 runs/mini-1 runs/mini-2 --format latex --published
      nasface evaluate runs/mini --masked half --worst worst.png --per-image errors.csv
      nasface evaluate runs/mini --dataset masked300w --data-root data/masked300w
      nasface evaluate --arch arch.json --weights slim.safetensors --dataset 300w --data-root data/300w
      nasface evaluate --predictions other.csv --dataset 300w --data-root data/300w
    """
    inputs.check(wanted)
    from nasface.report import check_name, evaluation
    from nasface.stages.evaluate.compare import Subject, compare

    form = "json" if as_json else display.form
    subjects = inputs.subjects(wanted)
    if inputs.arch and isinstance(subjects[0], Subject):
        click.echo(f"weights: {subjects[0].networks[0].weights}", err=True)
    normaliser = Normaliser(display.normaliser)
    if display.published:
        evaluation.check_published((subject.recipe.data.name for subject in subjects), form, normaliser)
    if files.worst:
        check_name(files.worst)
    with place.machine(form == "json") as machine:
        found = compare(subjects, machine, inputs.masked)
    if files.per_image:
        found.write_errors(files.per_image)
    if files.save_predictions:
        found.save_predictions(files.save_predictions)
    if files.worst:
        worst = found.worst(files.worst_count)
        click.echo(f"worst faces of {worst.network}: {evaluation.draw_worst(worst, files.worst)}", err=True)
    _show(
        evaluation.present(
            found,
            form=form,
            normaliser=normaliser,
            metrics=display.metrics,
            published=display.published,
        )
    )


def _show(shown: object) -> None:
    """Print what `report.evaluation.present` returned."""
    from nasface import terminal
    from nasface.report.evaluation import Detail
    from nasface.report.tables import Table

    if isinstance(shown, Detail):
        terminal.show(terminal.network_table(shown.networks, shown.title, shown.normaliser))
    elif isinstance(shown, Table):
        terminal.show(terminal.table(shown.title, shown.header(), shown.cells(), shown.note))
    else:
        click.echo(shown, nl=False)
