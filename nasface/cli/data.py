"""`nasface data check` and `nasface data prepare`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FOLDER,
    WORKERS,
    Place,
    Wanted,
    json_option,
    machine_options,
    quiet_option,
    read_options,
    recipe_options,
)


@main.group()
def data() -> None:
    """Check and prepare datasets."""


@data.command("check")
@click.option("--dataset", default="300w", show_default=True, help="Name of the dataset, or 'module:attr'.")
@click.option("--data-root", type=FOLDER, help="Folder of the dataset.")
@click.option("--workers", type=WORKERS, help="Number of threads or processes that decode images.")
@quiet_option
@click.option(
    "--set", "overrides", multiple=True, metavar="OPTION=VALUE", help="An option of the dataset (may be repeated)."
)
@json_option
def data_check(
    dataset: str,
    data_root: Path | None,
    workers: int | None,
    quiet: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check every file of a dataset and list all faults; exit with code 2 if a file is damaged.

    \b
    Example:
      nasface data check --dataset 300w --data-root data/300w
    """
    from nasface import plugins, terminal
    from nasface.data.check import check

    with terminal.progress_bars(quiet or as_json) as hooks:
        report = check(plugins.dataset(dataset, data_root, read_options(overrides)), hooks.counter("check"), workers)
    if as_json:
        click.echo(json.dumps({"ok": report.ok, **asdict(report)}, indent=1))
    else:
        rows = [[row.split, row.subset or "total", str(row.found), str(row.expected or "–")] for row in report.counts]
        title = dataset if data_root is None else f"{dataset} in {data_root}"
        terminal.show(terminal.table(title, ["split", "subset", "found", "expected"], rows, text_columns=2))
        for problem in report.problems:
            click.echo(f"{problem.level}: {problem.where}: {problem.what}")
        errors = sum(problem.level == "error" for problem in report.problems)
        faults = f"{errors} errors, {len(report.problems) - errors} warnings" if report.problems else "no faults found"
        totals = [(row.split, (row.expected or 0) - row.found) for row in report.counts if not row.subset]
        missing = [f"{number} {split}" for split, number in totals if number > 0]
        click.echo(f"{faults}; faces missing from the official set: {', '.join(missing)}" if missing else faults)
    sys.exit(0 if report.ok else 2)


@data.command("prepare")
@recipe_options
@machine_options
def data_prepare(wanted: Wanted, place: Place) -> None:
    """Decode and crop all faces once, into the cache that the other commands read.

    \b
    Example:
      nasface data prepare --recipe 300w-mini --data-root data/300w
    """
    from nasface import terminal
    from nasface.stages.faces import load_prepared

    resolved = wanted.resolve()
    with place.machine() as machine:
        prepared = load_prepared(resolved, machine)
    rows = []
    for split, faces in prepared.items():
        for subset in (*faces.subset_names, None):
            expected = faces.expected_count(subset)
            rows.append(
                [
                    split,
                    subset or "total",
                    str(faces.count(subset)),
                    "–" if expected is None else str(expected),
                ]
            )
    terminal.show(
        terminal.table(f"prepared {resolved.data.name}", ["split", "subset", "faces", "expected"], rows, text_columns=2)
    )
