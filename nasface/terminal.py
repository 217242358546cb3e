"""What a person sees in the terminal: progress bars with the time left, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from nasface.progress import Progress as Hooks
from nasface.scores import (
    DASH,
    DEFAULT_NORMALISER,
    HELD_OUT,
    SUPERNET,
    Normaliser,
    Score,
    Stage,
    State,
    SweepRow,
    of_expected,
    percent,
)
from nasface.step import Row

if TYPE_CHECKING:
    from pandas import DataFrame

    from nasface.stages.bench.run import Benchmark


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Hooks]:
    """Return hooks that draw bars on standard error, or print one plain line per epoch where that is not a terminal."""
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
    """Describe the last epoch in a few words."""
    last = rows[-1]
    seconds = sum(row["seconds"] for row in rows if row["epoch"] == last["epoch"])
    held_out = f", held-out NME {percent(last[HELD_OUT.column])} %" if HELD_OUT.column in last else ""
    return f"epoch {last['epoch']}: loss {last['loss']:.4g}{held_out}, {seconds:.0f} s"


def show(table: Table) -> None:
    """Print a table to standard output, as wide as it needs to be where that is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    # printed separately, since a title or caption may be wider than the table
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
    """Lay out a table whose first columns are text and whose other columns are right-aligned figures.

    All text is shown literally, since a path may contain what rich would take for markup or an emoji.
    """
    drawn = Table(
        title=Text(title), caption=Text(caption) if caption else None, title_justify="left", caption_justify="left"
    )
    for i, column in enumerate(columns):
        drawn.add_column(Text(column), justify="left" if i < text_columns else "right", overflow="fold", no_wrap=i == 0)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def network_table(
    networks: Mapping[str, Mapping[str, Any]], title: str, normaliser: Normaliser = DEFAULT_NORMALISER
) -> Table:
    """Lay out networks side by side: cost, then NME, failure rate and AUC by test subset with its number of images.

    Args:
        networks: `Evaluation.as_dict()` by name, or `Accuracy.as_dict()`, which has no cost.
        title: of the table.
        normaliser: of the NMEs shown.
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
    if HELD_OUT.column in first:
        label = f"NME {HELD_OUT.faces}, {DEFAULT_NORMALISER.adjective} (%)"
        rows.append([label, *(percent(networks[n][HELD_OUT.column]) for n in names)])
    subsets = first["subsets"].get(normaliser, {})
    if subsets:
        rows.append(["test: NME (%) | FR@10 (%) | AUC@10", *("" for _ in names)])
    for subset, counts in subsets.items():
        cells = [_errors(networks[n]["subsets"][normaliser][subset]) for n in names]
        rows.append([f"  {subset} ({of_expected(counts['images'], counts['expected'])})", *cells])
    caption = f"NME normalised by {normaliser.label}; FR@10: share of faces with an NME above 10 %"
    caption += "; AUC@10: area under the cumulative error curve up to 10 %"
    caption += "; MACs are multiply-adds of one image" if "macs" in first else ""
    if not subsets:
        caption += "; no test faces on disk"
    return table(title, ["", *names], rows, caption)


def _errors(figures: Mapping[str, Any]) -> str:
    """Format the NME, failure rate and AUC of a subset, and how many of its faces have no landmarks."""
    if not figures["images"]:
        return DASH
    parts = [percent(figures["nme"]), percent(figures["failure_rate"]["0.1"]), f"{figures['auc']['0.1']:.4f}"]
    return " | ".join(parts) + (f" ({figures['missing']} without landmarks)" if figures["missing"] else "")


def cost_table(report: Mapping[str, Any], title: str) -> Table:
    """Lay out parameters and MACs by stage and in total; `report` comes from `stages.count`."""
    rows = [[name, f"{c['params']:,}", f"{c['macs']:,}"] for name, c in report["stages"].items()]
    rows.append(["total", f"{report['params']:,}", f"{report['macs']:,}"])
    rows.append(["total without head", f"{report['params_no_head']:,}", f"{report['macs_no_head']:,}"])
    size, share = report["input_size"], 100 * report["prunable_share"]
    caption = (
        f"input 3 x {size} x {size}, {report['num_landmarks']} landmarks; {report['edges']} of {report['edges_full']} "
        f"edges, {report['blocks']} of {report['blocks_full']} prunable blocks, {share:.1f} % of the prunable MACs"
    )
    if "latency_ms" in report:
        caption += (
            f"; {report['latency_ms']:.3g} ms in {report['latency_runtime']} with {report['threads']} threads, the "
            f"supernet {report['supernet_latency_ms']:.3g} ms"
        )
    return table(title, ["", "params", "MACs"], rows, caption)


def sweep_table(rows: Sequence[SweepRow], title: str) -> Table:
    """Lay out the networks of a sweep: cost, latency, and NME by stage; * marks the front.

    The number of edges stands in the name of each network.
    """
    scores = {score for row in rows for score in row.nme}
    reached = [stage for stage in Stage if any(score.stage is stage for score in scores)]
    shown = [HELD_OUT.at(stage) for stage in reached if HELD_OUT.at(stage) in scores]
    subsets = dict.fromkeys(subset for row in rows for subset, images in row.images.items() if images)
    shown += [Score(subset, reached[-1]) for subset in list(subsets)[:1] if reached]
    lines = [
        [
            row.network,
            "*" if row.on_front else "",
            _count(row.params),
            _count(row.macs),
            DASH if row.prunable_share is None else f"{100 * row.prunable_share:.1f}",
            _latency(row),
            *(percent(row.nme.get(score)) for score in shown),
        ]
        for row in rows
        if row.state is State.DONE
    ]
    columns = ["network", "front", "params", "MACs", "prunable\nMACs (%)", "latency\n(ms)"]
    columns += [f"{score.faces},\n{score.stage.words}" for score in shown if score.stage]
    caption = (
        f"NME {DEFAULT_NORMALISER.adjective} (%), other subsets are in the CSV file; latency with its ratio to the "
        "supernet's; front: MACs against the held-out NME of the last stage"
    )
    if reached and all(score.subset is not None for score in shown):
        caption += "\nno face is held out, so there is no front, and nothing to choose by"
    caption += "".join(f"\nleft out: {row.asked}: {row.error}" for row in rows if row.state is not State.DONE)
    return table(title, columns, lines, caption, text_columns=2)


def row_table(row: SweepRow, stage: Stage, title: str, caption: str) -> Table:
    """Lay out one network of a sweep: its costs, and its NMEs at a stage of its weights."""
    costs = [
        ("params", _count(row.params)),
        ("MACs", _count(row.macs)),
        ("params without head", _count(row.params_no_head)),
        ("MACs without head", _count(row.macs_no_head)),
        ("latency (ms)", _latency(row)),
        ("  batch", _count(row.latency_batch)),
        ("  runtime", row.latency_runtime or DASH),
        ("  threads", _count(row.threads)),
        ("  device", row.device or DASH),
    ]
    lines = [["requested as", row.asked or DASH], *([label, text] for label, text in costs if text != DASH)]
    for score, nme in row.nme.items():
        if score.stage is stage:
            images = row.images.get(score.subset or "")
            count = "" if score.subset is None else f", {'?' if images is None else images} images"
            lines.append([f"NME {score.faces}{count}, {stage.words} (%)", percent(nme)])
    note = f"{caption}; NME normalised by {DEFAULT_NORMALISER.label}, MACs are multiply-adds of one image"
    return table(title, ["", row.network], lines, note)


def bench_table(found: Benchmark) -> Table:
    """Lay out the figures of `nasface bench`."""
    lines = [
        [
            row.model,
            row.runtime,
            row.precision,
            _count(row.macs),
            f"{row.threads}",
            f"{row.batch}",
            f"{row.median_ms:.2f}",
            f"{row.p95_ms:.2f}",
            f"{row.images_per_second:,.1f}",
            f"x {row.ratio:.2f}",
            DASH if row.peak_memory_mib is None else f"{row.peak_memory_mib:,.0f}",
        ]
        for row in found.rows
    ]
    columns = ["network", "runtime", "precision", "MACs", "threads", "batch", "median\n(ms)", "p95\n(ms)"]
    columns += ["images\nper second", "ratio", "memory\n(MiB)"]
    caption = (
        f"{found.rounds} rounds in turn on {found.machine}, from uint8 crops to landmarks; MACs: multiply-adds of an "
        f"image\nratio: how many times as fast as {found.reference}, with the same threads and batch\nmemory: what a "
        "fresh process gains at its peak, with the libraries of the runtime"
    )
    return table("speed of networks", columns, lines, caption, text_columns=3)


def frame(rows: DataFrame, title: str) -> Table:
    """Lay out any results: NMEs in percent, a column X_mean together with its X_std, counts with separators."""

    def cell(value: Any, column: str) -> str:
        if isinstance(value, str | bool):
            return str(value)
        if "nme" in column.lower():
            return percent(value)
        return DASH if value is None or value != value else f"{value:,.0f}"

    lines = []
    columns = [column for column in rows if not column.endswith("_std")]
    for row in rows.to_dict("records"):
        line = []
        for column in columns:
            deviation = cell(row.get(f"{column.removesuffix('_mean')}_std"), column)
            line.append(cell(row[column], column) + (f" ± {deviation}" if deviation != DASH else ""))
        lines.append(line)
    heads = [
        column.removesuffix("_mean").replace("_", " ").replace("nme", "NME").replace("macs", "MACs")
        for column in columns
    ]
    texts = sum(isinstance(value, str | bool) for value in rows.iloc[0]) if len(rows) else 1
    return table(title, heads, lines, f"NME {DEFAULT_NORMALISER.adjective} (%)", text_columns=texts)


def _count(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"


def _latency(row: SweepRow) -> str:
    """Format the latency in ms, with its ratio to that of the supernet, which was timed in turn with the network."""
    own, full = row.latency_ms, row.supernet_latency_ms
    if own is None:
        return DASH
    return f"{own:.2f}" if full is None or row.network == SUPERNET else f"{own:.2f} (x {own / full:.2f})"
