"""What a person sees in the terminal: progress bars with time left, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Any

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
from nasface.step import Row

if TYPE_CHECKING:
    from pandas import DataFrame


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
            if not console.is_terminal:
                console.print(Text(f"{title}: {done} of {total}"))

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
        drawn.add_column(Text(column), justify="left" if i < text_columns else "right", overflow="fold", no_wrap=i == 0)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def network_table(networks: Mapping[str, Mapping[str, Any]], title: str, normaliser: str = "inter_ocular") -> Table:
    """Networks side by side: cost, then NME, failure rate and AUC of each test subset with its number of images.

    Args:
        networks: `Evaluation.as_dict()` by name, or `Accuracy.as_dict()`, which has no cost.
        title: of the table.
        normaliser: whose NME is shown.
    """
    names = list(networks)
    first = networks[names[0]]
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
        if key in first:
            rows.append([label, *(text.format(networks[n][key]) for n in names)])
    if "held_out_nme" in first:
        rows.append(["NME held-out, inter-ocular (%)", *(percent(networks[n]["held_out_nme"]) for n in names)])
    subsets = first["subsets"].get(normaliser, {})
    if subsets:
        rows.append(["test: NME (%) | FR@10 (%) | AUC@10", *("" for _ in names)])
    for subset, counts in subsets.items():
        cells = [_errors(networks[n]["subsets"][normaliser][subset]) for n in names]
        rows.append([f"  {subset} ({of_expected(counts)})", *cells])
    caption = (
        f"NME normalised by {normaliser.replace('_', '-')} distance" if normaliser != "box" else "NME over box size"
    )
    caption += "; FR@10: faces with an NME above 10 %; AUC@10: area under the error curve up to 10 %"
    caption += "; MACs are multiply-adds of one image" if "macs" in first else ""
    if not subsets:
        caption += "; no test face on disk"
    return table(title, ["", *names], rows, caption)


def of_expected(figures: Mapping[str, Any]) -> str:
    """How many faces of a subset were there: '554', or '554 of 689' where the official subset has more."""
    images, expected = figures["images"], figures["expected"]
    return f"{images}" if images == expected else f"{images} of {expected}"


def _errors(figures: Mapping[str, Any]) -> str:
    """NME, failure rate and AUC of a subset, and how many faces have no landmarks."""
    if not figures["images"]:
        return "–"
    parts = [percent(figures["nme"]), percent(figures["failure_rate"]["0.1"]), f"{figures['auc']['0.1']:.4f}"]
    return " | ".join(parts) + (f" ({figures['missing']} without landmarks)" if figures["missing"] else "")


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


def sweep_table(rows: DataFrame, title: str) -> Table:
    """The networks of a pareto.csv: cost, latency against the supernet's, NME by stage, * where on the front."""
    stages = [s for s in ("inherited", "recalibrated", "finetuned") if f"held_out_nme_{s}" in rows]
    subsets = [c[len("images_") :] for c in rows if c.startswith("images_") and rows[c].max() > 0][:1]
    scores = {f"held-out {s}": f"held_out_nme_{s}" for s in stages}
    scores |= {f"{subset} {stages[-1]}": f"nme_{subset}_{stages[-1]}" for subset in subsets if stages}
    done = rows[rows["state"] == "done"]
    lines = []
    for row in done.to_dict("records"):
        ratio = row["latency_ms"] / row["supernet_latency_ms"] if "latency_ms" in row else float("nan")
        cells = [row["network"], "*" if row["on_front"] is True else "", f"{row['edges']:.0f}", f"{row['params']:,.0f}"]
        cells += [f"{row['macs']:,.0f}", f"{100 * row['prunable_share']:.1f}", "–" if isnan(ratio) else f"{ratio:.2f}"]
        lines.append([*cells, *(percent(None if isnan(row[c]) else row[c]) for c in scores.values())])
    columns = ["network", "front", "edges", "params", "MACs", "prunable MACs (%)", "latency / supernet's", *scores]
    lost = rows[rows["state"] == "disconnected"]
    caption = (
        "NME inter-ocular (%), other subsets are in the csv; front: MACs against the held-out NME of the last stage"
    )
    caption += "".join(
        f"\nleft out: {asked}: {error}" for asked, error in zip(lost["asked"], lost["error"], strict=True)
    )
    return table(title, columns, lines, caption, text_columns=2)


def frame(rows: DataFrame, title: str) -> Table:
    """Any table of ours: NMEs in percent, a column X_mean with its X_std as one, counts with separators."""

    def cell(value: Any, column: str) -> str:
        if isinstance(value, str | bool):
            return str(value)
        if value is None or isnan(value):
            return "–"
        return f"{100 * value:.2f}" if "nme" in column.lower() else f"{value:,.0f}"

    lines = []
    columns = [column for column in rows if not column.endswith("_std")]
    for row in rows.to_dict("records"):
        line = []
        for column in columns:
            deviation = cell(row.get(f"{column.removesuffix('_mean')}_std"), column)
            line.append(cell(row[column], column) + (f" ± {deviation}" if deviation != "–" else ""))
        lines.append(line)
    heads = [
        column.removesuffix("_mean").replace("_", " ").replace("nme", "NME").replace("macs", "MACs")
        for column in columns
    ]
    texts = sum(isinstance(value, str | bool) for value in rows.iloc[0]) if len(rows) else 1
    return table(title, heads, lines, "NME inter-ocular (%)", text_columns=texts)


def percent(share: float | None) -> str:
    """A share as percent, or a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f}"
