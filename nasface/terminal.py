"""What a person sees in the terminal: progress bars with time left, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from nasface.engine import Progress as Hooks
from nasface.engine import Row


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Hooks]:
    """Hooks that draw bars on standard error; one plain line an epoch where that is no terminal."""
    console = Console(stderr=True)
    if quiet:
        yield Hooks()
        return
    columns = (
        TextColumn("{task.description:9}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = []

        def begin(title: str, total: int, done: int) -> None:
            tasks.append(bars.add_task(title, total=total, completed=done, note=""))

        def advance() -> None:
            bars.advance(tasks[-1])

        def epoch(rows: list[Row]) -> None:
            note = epoch_note(rows)
            bars.update(tasks[-1], note=note)
            if not console.is_terminal:
                console.print(Text(f"{rows[-1]['stage']} {note}"))

        yield Hooks(begin, advance, epoch)


def epoch_note(rows: Sequence[Row]) -> str:
    """The last epoch in a few words."""
    last = rows[-1]
    seconds = sum(row["seconds"] for row in rows if row["epoch"] == last["epoch"])
    held_out = f", held-out NME {100 * last['held_out_nme']:.2f} %" if "held_out_nme" in last else ""
    return f"epoch {last['epoch']}: loss {last['loss']:.4g}{held_out}, {seconds:.0f} s"


def show(table: Table) -> None:
    """Print a table to standard output, as wide as it needs to be where that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    # a title or caption of its own may be wider than the table
    title, caption, table.title, table.caption = table.title, table.caption, None, None
    if title:
        console.print(title, style="bold", highlight=False)
    console.print(table)
    if caption:
        console.print(caption, style="dim", highlight=False)


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    text_columns: int = 1,
) -> Table:
    """A table whose first columns are text and whose other columns are right-aligned figures.

    All of it is shown as it stands: a path may hold what rich takes for mark-up or an emoji.
    """
    drawn = Table(
        title=Text(title), caption=Text(caption) if caption else None, title_justify="left", caption_justify="left"
    )
    for i, column in enumerate(columns):
        drawn.add_column(Text(column), justify="left" if i < text_columns else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def network_table(networks: Mapping[str, Mapping[str, Any]], title: str, normaliser: str = "inter_ocular") -> Table:
    """Networks side by side: cost, then the NME of each test subset with its number of images.

    Args:
        networks: `Evaluation.as_dict()` by name.
        title: of the table.
        normaliser: whose NME is shown.
    """
    names = list(networks)
    rows: list[list[str]] = []
    for label, key, text in (
        ("params", "params", "{:,}"),
        ("MACs", "macs", "{:,}"),
        ("params without head", "params_no_head", "{:,}"),
        ("MACs without head", "macs_no_head", "{:,}"),
        ("prunable MACs", "macs_prunable", "{:,}"),
        ("edges", "edges", "{}"),
        ("blocks", "blocks", "{}"),
    ):
        rows.append([label, *(text.format(networks[n][key]) for n in names)])
    rows.append(["NME held-out, inter-ocular (%)", *(percent(networks[n]["held_out_nme"]) for n in names)])
    subsets = networks[names[0]]["subsets"].get(normaliser, {})
    for subset, first in subsets.items():
        cells = [networks[n]["subsets"][normaliser][subset] for n in names]
        count = f"{subset}, {first['images']} of {first['expected']}"
        rows.append([f"NME {count} (%)", *(percent(c["nme"]) for c in cells)])
        if first["images"]:
            rows.append(
                [
                    f"  failures above {100 * first['limit']:.0f} % (%)",
                    *(percent(c["failure_rate"]) for c in cells),
                ]
            )
            rows.append(["  AUC", *(f"{c['auc']:.4f}" for c in cells)])
    caption = f"NME normalised by {normaliser.replace('_', '-')} distance; MACs are multiply-adds of one image"
    if not subsets:
        caption += "; no test face on disk"
    return table(title, ["", *names], rows, caption)


def cost_table(report: Mapping[str, Any], title: str) -> Table:
    """Parameters and MACs by stage and in total; `report` as `stages.count` gives it."""
    rows = [[name, f"{c['params']:,}", f"{c['macs']:,}"] for name, c in report["stages"].items()]
    rows.append(["total", f"{report['params']:,}", f"{report['macs']:,}"])
    rows.append(["total without head", f"{report['params_no_head']:,}", f"{report['macs_no_head']:,}"])
    size, share = report["input_size"], 100 * report["prunable_share"]
    caption = (
        f"input 3 x {size} x {size}, {report['num_landmarks']} landmarks; {report['edges']} of {report['edges_full']} "
        f"edges, {report['blocks']} of {report['blocks_full']} prunable blocks, {share:.1f} % of the prunable MACs"
    )
    return table(title, ["", "params", "MACs"], rows, caption)


def percent(share: float | None) -> str:
    """A share as percent, or a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f}"
