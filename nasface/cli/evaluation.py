"""evaluate and count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
    show_costs,
)

if TYPE_CHECKING:
    from nasface.stages import Comparison, Subject
    from nasface.stages.evaluating import Worst


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
    type=click.Choice(["inter_ocular", "inter_pupil", "box"]),
    default="inter_ocular",
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
    from nasface import stages

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
            found = stages.judge(
                wanted.resolve(), machine, predictions, one_based=one_based, missing=missing or "error"
            )
        else:
            found = stages.compare(subjects, machine, masked)
    for path, write in ((per_image, found.write_errors), (save_predictions, found.save_predictions)):
        if path is not None:
            write(path)
    if worst is not None:
        _draw(found.worst(worst_count), worst)
    _show(found, form, normaliser, metrics, published)


def _of_run(run: Path, wanted: Wanted) -> Subject:
    """The networks of a run folder with its recipe, or the one that is wanted."""
    from nasface import stages

    recipe = str(stages.required(run / "recipe.yaml", "a run folder"))
    resolved = replace(wanted, recipe=wanted.recipe or recipe).resolve()
    return stages.Subject(str(run), resolved, stages.run_networks(run))


def _of_arch(arch: Path, weights: Path | None, wanted: Wanted) -> Subject:
    """The network of an arch.json with its recipe, or the one that is wanted."""
    from nasface import stages

    source = stages.read_source(arch)
    weights = weights or source.trained_weights() or source.weights()
    click.echo(f"weights: {weights}", err=True)
    return stages.Subject(str(arch), of_source(wanted, source).resolve(), {"slim": (source.arch, weights)})


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
        terminal.show(terminal.network_table(plain["runs"][0]["networks"], found.title, normaliser))
        return
    above = published_figures() if published else None
    table = tables.layout(plain, title=found.title, normaliser=normaliser, metrics=metrics, published=above)
    if form in (None, "text"):
        terminal.show(terminal.table(table.title, table.header(), table.cells(), table.note))
    else:
        click.echo({"markdown": tables.markdown, "latex": tables.latex, "csv": tables.csv}[str(form)](table), nl=False)


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
    show_costs(report, str(arch or edges or space), as_json)
