"""`nasface draw`."""

from __future__ import annotations

from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import FILE


@main.command(short_help="Draw the network of an arch.json.")
@click.argument("arch", type=FILE)
@click.option("--out", type=FILE, help="File to write (.svg, .png or .pdf).  [default: an .svg beside ARCH]")
@click.option("--heatmap", is_flag=True, help="Draw the factors as heat maps instead of the graph.")
@click.option("--title", default="", help="Title of the figure.")
def draw(arch: Path, out: Path | None, heatmap: bool, title: str) -> None:
    """Draw the network of an arch.json inside its search space.

    The width of an edge shows its factor |alpha|, which is read from the factors.json of the run, or else from the
    weights beside the arch.json.

    \b
    Examples:
      nasface draw runs/mini/arch.json
      nasface draw runs/mini/arch.json --heatmap --out factors.png
    """
    from nasface import plugins
    from nasface.model.source import read_source
    from nasface.report import drawing, write

    source = read_source(arch)
    full = plugins.space(source.arch.space, source.arch.options).graph
    kept = source.arch.subgraph(full)
    values, origin = drawing.read_alphas(source, full, kept)
    if heatmap:
        figure = drawing.alpha_heatmap(full, kept, values or {}, title)
    else:
        figure = drawing.architecture(full, kept, values, title)
    path = write(figure, out or arch.with_suffix(".svg"))
    click.echo(f"{path} (factors: {origin or 'none found, so all edges are drawn with the same width'})")
