"""evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    recipe_options,
)
from nasface.scores import DEFAULT_NORMALISER, Normaliser

if TYPE_CHECKING:
    from nasface.stages.evaluate.compare import Comparison, Subject, Worst


@main.command(short_help="NME, failure rate and AUC by test subset; tables; other programs' landmarks.")
@click.argument("runs", metavar="[RUN]...", type=FOLDER, nargs=-1)
@click.option("--arch", type=FILE, help="arch.json of the network, instead of a run.")
@click.option("--weights", type=FILE, help="Its weights (safetensors).")
@click.option("--predictions", type=FILE, multiple=True, help="csv of landmarks by any program, instead of a run.")
@click.option("--one-based", is_flag=True, help="The first pixel of --predictions is 1, not 0.")
@click.option("--missing", type=click.Choice(["error", "fail"]), help="Faces that --predictions lack (default: error).")
@recipe_options
@click.option(
    "--masked", type=click.Choice(["light", "half", "hard"]), help="Cover the test faces with synthetic masks."
)
@click.option(
    "--normaliser",
    type=click.Choice([normaliser.value for normaliser in Normaliser]),
    default=DEFAULT_NORMALISER.value,
    show_default=True,
    help="What point errors are divided by.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(["nme", "fr8", "fr10", "auc8", "auc10", "p50", "p90", "p95"]),
    help="Columns of the table (default: nme; on COFW fr10 too).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "latex", "csv", "json"]),
    help="A table a row a method (default: one run in detail, several as text).",
)
@click.option("--published", is_flag=True, help="Put the paper's rows above.")
@click.option("--per-image", type=FILE, help="Write the NME of every test face (csv).")
@click.option("--save-predictions", type=FILE, help="Write the landmarks in the form of --predictions.")
@click.option("--worst", type=FILE, help="Draw the worst faces of the last network (.png, .svg or .pdf).")
@click.option("--worst-count", type=click.IntRange(1, 100), default=12, show_default=True, help="How many of them.")
@machine_options
@json_option
def evaluate(
    wanted: Wanted,
    place: Place,
    runs: tuple[Path, ...],
    arch: Path | None,
    weights: Path | None,
    predictions: tuple[Path, ...],
    one_based: bool,
    missing: Literal["error", "fail"] | None,
    masked: Literal["light", "half", "hard"] | None,
    normaliser: str,
    metrics: tuple[str, ...],
    form: str | None,
    published: bool,
    per_image: Path | None,
    save_predictions: Path | None,
    worst: Path | None,
    worst_count: int,
    as_json: bool,
) -> None:
    """Evaluate the networks of RUN folders, one given by --arch and --weights, or --predictions of any program.

    Runs that differ in their seed alone are averaged. A subset that is not all on disk is shown with its count.

    \b
    Examples:
      nasface evaluate runs/mini
      nasface evaluate runs/mini-0 runs/mini-1 runs/mini-2 --format latex --published
      nasface evaluate runs/mini --masked half --worst worst.png --per-image errors.csv
      nasface evaluate runs/mini --dataset masked300w --data-root data/masked300w
      nasface evaluate --arch arch.json --weights slim.safetensors --dataset 300w --data-root data/300w
      nasface evaluate --predictions other.csv --dataset 300w --data-root data/300w
    """
    from nasface.stages.evaluate.compare import compare, judge

    if sum(map(bool, (runs, arch, predictions))) != 1:
        raise click.UsageError("give either RUN folders, --arch or --predictions")
    if len({run.resolve() for run in runs}) < len(runs):
        raise click.UsageError("a RUN folder is given twice")
    if weights and not arch:
        raise click.UsageError("--weights goes with --arch; a RUN folder has its own")
    if (one_based or missing) and not predictions:
        raise click.UsageError("--one-based and --missing go with --predictions")
    if masked and predictions:
        raise click.UsageError("--masked covers the faces that a network sees; --predictions are made already")
    form = "json" if as_json else form
    subjects = [] if predictions else [_of_arch(arch, weights, wanted)] if arch else [_of_run(r, wanted) for r in runs]
    if published and form != "json":  # before the work, not after it
        from nasface.report.published import published as published_figures
        from nasface.report.tables import require_published

        names = [subject.recipe.data.name for subject in subjects] or [wanted.resolve().data.name]
        for name in names:
            require_published(name, published_figures())
    with place.machine(form == "json") as machine:
        if predictions:
            found = judge(wanted.resolve(), machine, predictions, one_based=one_based, missing=missing or "error")
        else:
            found = compare(subjects, machine, masked)
    for path, write in ((per_image, found.write_errors), (save_predictions, found.save_predictions)):
        if path is not None:
            write(path)
    if worst is not None:
        _draw(found.worst(worst_count), worst)
    _show(found, form, normaliser, metrics, published)


def _of_run(run: Path, wanted: Wanted) -> Subject:
    """The networks of a run folder with its recipe, or the one that is wanted."""
    from nasface.stages.evaluate.compare import Subject
    from nasface.stages.sources import required, run_networks

    recipe = str(required(run / "recipe.yaml", "a run folder"))
    resolved = replace(wanted, recipe=wanted.recipe or recipe).resolve()
    return Subject(str(run), resolved, run_networks(run))


def _of_arch(arch: Path, weights: Path | None, wanted: Wanted) -> Subject:
    """The network of an arch.json with its recipe, or the one that is wanted."""
    from nasface.stages.evaluate.compare import Subject
    from nasface.stages.sources import read_source

    source = read_source(arch)
    weights = weights or source.trained_weights() or source.weights()
    click.echo(f"weights: {weights}", err=True)
    return Subject(str(arch), of_source(wanted, source).resolve(), {"slim": (source.arch, weights)})


def _draw(worst: Worst, path: Path) -> None:
    from nasface import report
    from nasface.report import figures

    stems = [name.rpartition("/")[2] for name in worst.names]
    titles = [stem if len(stem) <= 10 else f"…{stem[-9:]}" for stem in stems]  # as wide as a face is drawn
    drawn = figures.faces(worst.images_NHWC, worst.predicted_NL2, worst.true_NL2, worst.nmes_N, titles)
    click.echo(f"worst faces of {worst.network}: {report.write(drawn, path)}", err=True)


def _show(found: Comparison, form: str | None, normaliser: str, metrics: tuple[str, ...], published: bool) -> None:
    """Print in the form asked for; by default one run in detail, and several as a table."""
    from nasface import terminal
    from nasface.report import tables
    from nasface.report.published import published as published_figures

    plain = found.as_dict()
    if form == "json":
        click.echo(json.dumps({**plain, **({"published": published_figures()} if published else {})}, indent=1))
        return
    if form is None and len(plain["runs"]) == 1 and not (metrics or published):
        terminal.show(terminal.network_table(plain["runs"][0]["networks"], found.title, Normaliser(normaliser)))
        return
    above = published_figures() if published else None
    table = tables.layout(plain, title=found.title, normaliser=Normaliser(normaliser), metrics=metrics, published=above)
    if form in (None, "text"):
        terminal.show(terminal.table(table.title, table.header(), table.cells(), table.note))
    else:
        click.echo({"markdown": tables.markdown, "latex": tables.latex, "csv": tables.csv}[str(form)](table), nl=False)
