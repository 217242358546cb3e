"""`nasface report`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import FILE, FOLDER, Place, json_option, machine_options, run_data_option


@main.command(short_help="Write an HTML page about a run.")
@click.argument("run", type=FOLDER)
@click.option("--out", type=FILE, help="File to write; figures go into figures/ beside it.  [default: RUN/report.html]")
@run_data_option
@click.option("--no-faces", is_flag=True, help="Leave out the images of faces, so that the page can be shared.")
@machine_options
@json_option
def report(run: Path, out: Path | None, data_root: Path | None, no_faces: bool, place: Place, as_json: bool) -> None:
    """Write a self-contained HTML page about a RUN of search, train, prune, distill, select or sweep-thresholds.

    The page shows whatever the run has: headline figures, an interactive plot of cost against error for its sweep,
    errors by test subset, drawings, training curves, example faces, the recipe, and what made each file. It can be read
    offline. The figures are also written as SVG and PNG.

    \b
    Examples:
      nasface report runs/mini
      nasface report runs/mini --no-faces --out mini.html
    """
    from nasface.report.html import write_report

    with place.machine(as_json) as machine:
        written = write_report(run, out, machine=machine, data_root=data_root, faces=not no_faces)
    if as_json:
        content = {
            "page": str(written.page),
            "bytes": written.page.stat().st_size,
            "figures": [str(path) for path in written.figures],
            "missing": dict(written.missing),
        }
        click.echo(json.dumps(content, indent=1))
        return
    for part, why in written.missing.items():
        click.echo(f"without {part}: {why}")
    if written.figures:
        click.echo(f"figures: {written.figures[0].parent} ({len(written.figures)} files)")
    click.echo(f"report: {written.page} ({written.page.stat().st_size / 1e6:.1f} MB)")
