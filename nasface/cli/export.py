"""`nasface export`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, WORKERS, gathered, json_option, network_option, quiet_option, set_option
from nasface.cli.sizes import Real

if TYPE_CHECKING:
    from nasface.formats import Inputs, Outputs, Precision
    from nasface.stages.export.run import Exported, ExportOptions, NetworkAndFaces


@dataclass(frozen=True)
class Network:
    """The options that choose the network and its faces."""

    model: str
    network: str | None
    dataset: str | None
    data_root: Path | None
    overrides: tuple[str, ...]

    def source(self) -> NetworkAndFaces:
        """Return the network, not yet loaded."""
        from nasface.model.files import one
        from nasface.stages.export.run import NetworkAndFaces

        return NetworkAndFaces(one(self.model, self.network), self.dataset, self.data_root, self.overrides)


@dataclass(frozen=True)
class What:
    """The options that say what to export."""

    form: str
    precision: Precision
    inputs: Inputs
    outputs: Outputs
    max_loss: float
    calibrate: int
    keep: tuple[str, ...]
    local_runtime: Path | None

    def export_options(self) -> ExportOptions:
        """Return them as the stage takes them."""
        from nasface.deploy.plain import Ends
        from nasface.stages.export.run import ExportOptions

        ends = Ends(self.inputs, self.outputs)
        return ExportOptions(
            self.form, self.precision, ends, self.max_loss, self.calibrate, self.keep, self.local_runtime
        )


@main.command(short_help="Export a network to ONNX, OpenVINO or a web page, and check its results.")
@gathered(
    "network",
    Network,
    click.argument("model"),
    network_option,
    click.option("--dataset", help="Dataset for the checks and for int8.  [default: that of the training]"),
    click.option("--data-root", type=FOLDER, help="Folder of the dataset.  [default: where the run found it]"),
    set_option,
)
@gathered(
    "what",
    What,
    click.option(
        "--format",
        "form",
        default="onnx",
        show_default=True,
        help="onnx, openvino, web (a page on which to try it), another one from `nasface plugins`, or 'module:attr'.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8"]),
        default="fp32",
        show_default=True,
        help="fp16 halves the file; int8 also computes in 8 bits, calibrated on training faces.",
    ),
    click.option(
        "--inputs",
        type=click.Choice(["uint8", "normalised"]),
        default="uint8",
        show_default=True,
        help="RGB crops (N, H, W, 3) of 0 to 255, or normalised float32 (N, 3, H, W).",
    ),
    click.option(
        "--outputs",
        type=click.Choice(["landmarks", "heatmaps"]),
        default="landmarks",
        show_default=True,
        help="Landmarks (N, L, 2) in pixels of the crop with confidences (N, L), or heatmaps (N, L, h, w).",
    ),
    click.option(
        "--max-loss",
        type=Real(0, 100),
        default=0.1,
        show_default=True,
        help="Points of NME on held-out faces that fp16 and int8 may lose.",
    ),
    click.option(
        "--calibrate",
        type=click.IntRange(1, 100_000),
        default=256,
        show_default=True,
        help="Number of training faces on which int8 is calibrated.",
    ),
    click.option(
        "--keep-float",
        "keep",
        multiple=True,
        metavar="PART",
        help="Part of the network that int8 keeps in float, such as head, stem or 'nodes.4*' (may be repeated).",
    ),
    click.option(
        "--local-runtime",
        type=FOLDER,
        help="Folder of the npm package onnxruntime-web, to copy for --format web.  [default: the page loads it from a "
        "public file host]",
    ),
)
@click.option("--out", type=FOLDER, default=Path("exported"), show_default=True, help="Folder to write to.")
@click.option("--workers", type=WORKERS, help="Number of workers that decode images.")
@quiet_option
@json_option
def export(network: Network, what: What, out: Path, workers: int | None, quiet: bool, as_json: bool) -> None:
    """Export a network to a file that runs without PyTorch.

    MODEL is a run folder, a file of weights, an arch.json, or the name of a network that comes with nasface. The file
    is compared with PyTorch on faces of the network's dataset, or on synthetic ones, and is written only if it
    computes the same. `nasface predict` and `nasface evaluate` take it like any other network.

    \b
    Examples:
      nasface export runs/mini --out exported
      nasface export runs/mini --format openvino --precision int8 --out exported
      nasface export slim.safetensors --precision int8 --data-root data/300w --keep-float head
      nasface export runs/mini --format web --out page
    """
    from nasface import terminal
    from nasface.stages.export.run import export as run_export
    from nasface.stages.machine import Machine

    source, options = network.source(), what.export_options()
    with terminal.progress_bars(quiet or as_json) as hooks:
        found = run_export(source, options, out, Machine("cpu", hooks, workers=workers))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
    else:
        terminal.show(terminal.table(f"{found.path.stem}, {found.format}", ["", ""], _rows(found), ""))
        click.echo(f"written: {found.path}")
        if page := next((file for file in found.files if file.suffix == ".html"), None):
            click.echo(
                f"written: {page}; to see it, serve its folder: python -m http.server -d {shlex.quote(str(out))}"
            )


def _rows(found: Exported) -> list[list[Any]]:
    """Return what was measured, as the rows of a table."""
    difference = found.difference
    rows = [
        ["size", f"{found.size / 1e6:.2f} MB"],
        ["compared on", f"{found.compared} faces ({found.faces}), {difference.landmarks} landmarks"],
        ["farthest from PyTorch", f"{difference.worst:.2g} px"],
        ["mean distance from PyTorch", f"{difference.mean:.2g} px"],
        ["left out, decided by rounding", f"{difference.undecided} landmarks"],
    ]
    if found.calibrated:
        rows.append(["calibrated on", f"{found.calibrated} training faces"])
    if found.nme_before is not None and found.nme_after is not None:
        loss = 100 * (found.nme_after - found.nme_before)
        rows.append([f"NME on {found.judged} held-out faces, PyTorch", f"{found.nme_before:.3%}"])
        rows.append(["NME of the file", f"{found.nme_after:.3%} ({loss:+.3f} points)"])
    return rows
