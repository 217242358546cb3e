"""A chart of a benchmark: images per second against the batch size (as Figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nasface.report import COLUMN, Colour, log_if_wide, save, styled
from nasface.stages.bench.run import Benchmark, Row

_LINES = ("-", "--", ":", "-.")


@styled
def throughput(rows: Sequence[Row]) -> Figure:
    """Draw images per second against the batch size.

    A colour stands for a network, and the style of a line for a runtime, its precision and its number of threads.

    Args:
        rows: of a benchmark.
    """
    several = len({row.threads for row in rows}) > 1

    def how(row: Row) -> str:
        return f"{row.runtime}, {row.precision}" + (f", {row.threads} threads" if several else "")

    models = list(dict.fromkeys(row.model for row in rows))
    ways = list(dict.fromkeys(how(row) for row in rows))
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axes = figure.subplots()

    def of_line(row: Row) -> tuple[int, int]:
        return models.index(row.model), ways.index(how(row))

    for (model, way), line in groupby(sorted(rows, key=of_line), of_line):
        points = list(line)
        axes.plot(
            [row.batch for row in points],
            [row.images_per_second for row in points],
            color=Colour.cycle[model % len(Colour.cycle)],
            linestyle=_LINES[way % len(_LINES)],
            marker="o",
            label=f"{models[model]}, {ways[way]}",
        )
    batches = sorted({row.batch for row in rows})
    log_if_wide(axes, batches, [row.images_per_second for row in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else None)
    axes.set(xlabel="batch size", ylabel="images per second")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def write_all(found: Benchmark, folder: Path) -> list[Path]:
    """Write bench.csv, bench.svg and bench.png to a folder, and return their paths."""
    return [found.write(folder), *save(throughput(found.rows), folder / "bench")]
