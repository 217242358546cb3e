"""predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasface.cli.group import main
from nasface.cli.options import FILE, FOLDER, Place, json_option, machine_options

if TYPE_CHECKING:
    from nasface.model.files import Saved


@main.command(short_help="Landmarks on images, folders and videos.")
@click.argument("inputs", metavar="[IMAGE|FOLDER|VIDEO]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model", "--run", "model", help="Run folder, file of weights, or the name of a network that comes with nasface."
)
@click.option("--network", help="Which network of the run: slim (default where there is one) or supernet.")
@click.option("--arch", type=FILE, help="arch.json of the network, instead of a run.")
@click.option("--weights", type=FILE, help="Weights of --arch; by default those beside it.")
@click.option("--recipe", help="Recipe instead of the one of the run, or beside --arch.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Change a value of the recipe.")
@click.option(
    "--detector", default="haar", show_default=True, help="What finds faces: haar, whole (the image), or 'module:attr'."
)
@click.option("--boxes", type=FILE, help="Face boxes instead of a detector: csv with image, x0, y0, x1, y1.")
@click.option(
    "--refine",
    type=click.IntRange(0, 100),
    help="Run again on the box of the found landmarks, so many times; default 1, with --boxes 0.",
)
@click.option("--min-score", type=float, default=0.5, show_default=True, help="Drop detected faces of a lower score.")
@click.option(
    "--every", type=click.IntRange(1), default=10, show_default=True, help="Video frames from detection to detection."
)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Faces in a forward pass.")
@click.option(
    "--out", type=FOLDER, default=Path("predictions"), show_default=True, help="Folder for landmarks.csv and .json."
)
@click.option("--overlay", is_flag=True, help="Draw boxes and points too, into the folder 'overlays' of --out.")
@machine_options
@json_option
def predict(
    place: Place,
    inputs: tuple[Path, ...],
    model: str | None,
    network: str | None,
    arch: Path | None,
    weights: Path | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    detector: str,
    boxes: Path | None,
    refine: int | None,
    min_score: float,
    every: int,
    batch: int,
    out: Path,
    overlay: bool,
    as_json: bool,
) -> None:
    """Find faces and their landmarks in images, folders of them and videos, with a trained network.

    Landmarks are in pixels of the upright image: 0-based, integers at pixel centres. The faces of a video are tracked.
    Without a face in any image, the exit code is 2. --json prints landmarks.json.

    \b
    Examples:
      nasface predict --model runs/mini photos --overlay
      nasface predict --model runs/mini --network supernet talk.mp4 --every 30 --overlay --out talk
      nasface predict --arch arch.json --weights slim.safetensors face.jpg --json
      nasface predict --model runs/mini photos --boxes boxes.csv
      nasface predict --model runs/mini photos --detector mydetector:find_faces --refine 2
    """
    from contextlib import nullcontext

    from nasface.model.files import pick_device
    from nasface.stages.predict.pictures import gather
    from nasface.stages.predict.run import FaceSearch, Viewer, predict_files
    from nasface.stages.workspace import use_threads

    if not (inputs or boxes):
        raise click.UsageError("name images, folders or videos, or the images by --boxes")
    saved = _network(model, network, arch, weights, recipe)
    resolved = saved.recipe(recipe, overrides=overrides)
    how = FaceSearch.of(boxes=boxes is not None, refine=refine, batch=batch, min_score=min_score, every=every)
    pictures, find = gather(inputs, boxes, detector, out / "overlays")
    if overlay:
        from nasface.report.overlay import overlays

        drawing = overlays(out / "overlays")
    use_threads(resolved)
    loaded = saved.load(resolved, pick_device(place.device))
    with place.machine(as_json) as machine, drawing if overlay else nullcontext() as show:
        report = predict_files(Viewer(loaded, find, how, machine), pictures, out, show)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        _show(report["summary"], out, overlay)


def _network(
    model: str | None, network: str | None, arch: Path | None, weights: Path | None, recipe: str | None
) -> Saved:
    """The network asked for."""
    from nasface.model.files import one

    if (model is None) == (arch is None):
        raise click.UsageError("give the network either by --model or by --arch")
    if (weights and model) or (network and arch):
        raise click.UsageError("--weights goes with --arch, and --network with --model")
    saved = one(model or str(arch), network, weights)
    if arch is not None:
        if not (recipe or saved.recipe_file):
            click.echo("nasface: no recipe beside the arch.json; crop and decoder are those of recipe 300w", err=True)
        click.echo(f"weights: {saved.weights}", err=True)
    return saved


def _show(summary: dict[str, Any], out: Path, overlay: bool) -> None:
    from nasface import terminal

    rows = [
        ["images", f"{summary['images']:,}"],
        ["video frames", f"{summary['frames']:,}"],
        ["cannot be read", f"{summary['unreadable']:,}"],
        ["without a face", f"{summary['without_face']:,}"],
        ["faces", f"{summary['faces']:,}"],
        ["faces per second", f"{summary['faces_per_second']:,.1f}"],
    ]
    caption = "per second of all that was done: reading, detecting, landmarks" + (", drawing" if overlay else "")
    terminal.show(terminal.table("Predictions", ["", "number"], rows, caption))
    click.echo(f"written: {out / 'landmarks.csv'}, {out / 'landmarks.json'}" + (f", {out / 'overlays'}" * overlay))
