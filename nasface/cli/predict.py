"""`nasface predict`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasface.cli.group import main
from nasface.cli.options import FILE, FOLDER, Place, gathered, json_option, machine_options, network_option, set_option
from nasface.cli.sizes import Real

if TYPE_CHECKING:
    from nasface.model.files import Saved
    from nasface.recipe import Recipe
    from nasface.stages.predict.run import FaceSearch


@dataclass(frozen=True)
class Network:
    """The options that choose a network and how it sees a face."""

    model: str | None
    network: str | None
    arch: Path | None
    weights: Path | None
    recipe: str | None
    overrides: tuple[str, ...]

    def check(self) -> None:
        """Refuse options that do not go together with a UsageError."""
        if self.model and self.arch:
            raise click.UsageError("name the network with either --model or --arch")
        if (self.weights and not self.arch) or (self.network and not self.model):
            raise click.UsageError("--weights goes with --arch, and --network with --model")

    def saved(self) -> tuple[Saved, Recipe]:
        """Return the network, not yet loaded, and the recipe that says how it sees."""
        from nasface.model.files import one
        from nasface.model.shipped import DEFAULT

        saved = one(self.model or self.arch or DEFAULT, self.network, self.weights)
        return saved, saved.recipe(self.recipe, overrides=self.overrides, faces=False)


@dataclass(frozen=True)
class Looking:
    """The options that say how to look for faces."""

    detector: str
    boxes: Path | None
    refine: int | None
    min_score: float
    every: int
    smooth: float
    batch: int

    def search(self) -> FaceSearch:
        """Return them with the defaults that depend on whether the boxes are given."""
        from nasface.stages.predict.run import FaceSearch

        return FaceSearch.of(
            boxes=self.boxes is not None,
            refine=self.refine,
            batch=self.batch,
            min_score=self.min_score,
            every=self.every,
            smooth=self.smooth,
        )


@main.command(short_help="Find facial landmarks in images, folders and videos.")
@click.argument("inputs", metavar="[IMAGE|FOLDER|VIDEO]...", nargs=-1, type=click.Path(path_type=Path))
@gathered(
    "chosen",
    Network,
    click.option(
        "--model",
        "--run",
        "model",
        help="Network to use: a run folder, a file of weights, or the name of a network that comes with nasface (see "
        "`nasface models`).  [default: face68, which comes with nasface]",
    ),
    network_option,
    click.option("--arch", type=FILE, help="Use the network of this arch.json instead of --model."),
    click.option("--weights", type=FILE, help="Weights of --arch.  [default: those beside it]"),
    click.option("--recipe", help="Use this recipe instead of the network's own."),
    set_option,
)
@gathered(
    "looking",
    Looking,
    click.option(
        "--detector",
        default="best",
        show_default=True,
        help="Face detector: yunet, haar, best (the first of the two that is installed), yunet-fast (misses small "
        "faces), whole (the image is one face), or 'module:attr'.",
    ),
    click.option(
        "--boxes", type=FILE, help="Take face boxes from a CSV file (image, x0, y0, x1, y1) instead of a detector."
    ),
    click.option(
        "--refine",
        type=click.IntRange(0, 100),
        help="Run the network again on the box of the landmarks that it found, this many times.  "
        "[default: 1; 0 with --boxes]",
    ),
    click.option(
        "--min-score",
        type=Real(-1e12, 1e12),
        default=0.5,
        show_default=True,
        help="Drop detected faces with a lower score.",
    ),
    click.option(
        "--every",
        type=click.IntRange(1, 1_000_000),
        default=10,
        show_default=True,
        help="Detect faces in every N-th video frame.",
    ),
    click.option(
        "--batch", type=click.IntRange(1, 4096), default=64, show_default=True, help="Faces per forward pass."
    ),
    click.option(
        "--smooth",
        type=Real(0, 1000),
        default=1.5,
        show_default=True,
        metavar="HZ",
        help="Cut-off frequency of the filter that steadies landmarks in videos; lower is steadier, 0 switches it off.",
    ),
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("predictions"),
    show_default=True,
    help="Folder for landmarks.csv and landmarks.json.",
)
@click.option("--overlay", is_flag=True, help="Draw boxes and landmarks into the folder 'overlays' of --out.")
@machine_options
@json_option
def predict(
    inputs: tuple[Path, ...],
    chosen: Network,
    looking: Looking,
    out: Path,
    overlay: bool,
    place: Place,
    as_json: bool,
) -> None:
    """Find faces and their landmarks in images, folders of images and videos.

    Coordinates are in pixels of the upright image; they are 0-based, with integers at pixel centres. Faces are tracked
    through a video, and their landmarks are steadied. The exit code is 2 when no face is found at all. --json prints
    the content of landmarks.json.

    \b
    Examples:
      nasface predict photo.jpg --overlay
      nasface predict --model runs/mini photos --overlay
      nasface predict --model runs/mini --network supernet talk.mp4 --every 30 --overlay --out talk
      nasface predict --arch arch.json --weights slim.safetensors face.jpg --json
      nasface predict --model runs/mini photos --boxes boxes.csv
      nasface predict --model runs/mini photos --detector mydetector:find_faces --refine 2
    """
    if not (inputs or looking.boxes):
        raise click.UsageError("name images, folders or videos, or give a list of images with --boxes")
    chosen.check()
    from nasface.stages.predict.run import predict as run_predict

    saved, recipe = chosen.saved()
    if chosen.arch is not None:
        if not (chosen.recipe or saved.recipe_file):
            click.echo("nasface: no recipe beside the arch.json; using crop and decoder of the recipe 300w", err=True)
        click.echo(f"weights: {saved.weights}", err=True)
    if overlay:
        from nasface.report.overlay import overlays

        drawing = overlays(out / "overlays")
    how, boxes, detector = looking.search(), looking.boxes, looking.detector
    with place.machine(as_json) as machine, drawing if overlay else nullcontext() as show:
        report = run_predict(saved, recipe, inputs, out, machine, how, boxes=boxes, detector=detector, show=show)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        _show(report["summary"], out, overlay)


def _show(summary: dict[str, Any], out: Path, overlay: bool) -> None:
    """Print how many images and faces there were, and where the landmarks are."""
    from nasface import terminal

    rows = [
        ["images", f"{summary['images']:,}"],
        *([["video frames", f"{summary['frames']:,}"]] if summary["frames"] else []),
        ["unreadable", f"{summary['unreadable']:,}"],
        ["without a face", f"{summary['without_face']:,}"],
        ["faces", f"{summary['faces']:,}"],
        ["faces per second", f"{summary['faces_per_second']:,.1f}"],
    ]
    if "frames_per_second" in summary:
        rows.append(["video frames per second", f"{summary['frames_per_second']:,.1f}"])
    caption = "the speed includes image reading, detection" + (
        ", landmarks and drawing" if overlay else " and landmarks"
    )
    terminal.show(terminal.table("Predictions", ["", "number"], rows, caption))
    click.echo(f"written: {out / 'landmarks.csv'}, {out / 'landmarks.json'}" + (f", {out / 'overlays'}" * overlay))
