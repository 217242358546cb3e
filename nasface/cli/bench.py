"""`nasface bench`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, json_option, quiet_option
from nasface.cli.sizes import Several


@main.command(short_help="Measure the speed and memory of networks in each runtime.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--runtime",
    "runtimes",
    type=Several(),
    help="Runtimes of networks that are not exported yet: torch,onnxruntime,openvino.  [default: all installed]",
)
@click.option("--batch", "batches", type=Several(1, 1024), default="1,8,32", show_default=True, help="Images per pass.")
@click.option("--threads", type=Several(1, 1024), help="CPU threads to use, such as 1,2.  [default: all cores]")
@click.option("--rounds", type=click.IntRange(2, 10_000), default=30, show_default=True, help="Number of timed rounds.")
@click.option("--reference", metavar="MODEL", help="Network with which the others are compared.  [default: the first]")
@click.option("--out", type=FOLDER, help="Folder for bench.csv and a chart of images per second against batch size.")
@quiet_option
@json_option
def bench(
    models: tuple[str, ...],
    runtimes: tuple[str, ...] | None,
    batches: tuple[int, ...],
    threads: tuple[int, ...] | None,
    rounds: int,
    reference: str | None,
    out: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure how fast networks run on this machine's CPU, and how much memory they need.

    A MODEL is a run folder, a file of weights, an arch.json, the name of a network that comes with nasface, or an
    exported file. An exported file runs in its own runtime. Any other network runs in PyTorch, and is temporarily
    exported for every other runtime. A pass goes from uint8 crops to landmarks. All rows of the table are timed in
    turn, so that their ratios hold even on a busy machine.

    \b
    Examples:
      nasface bench runs/mini --runtime torch,onnxruntime --batch 1,8
      nasface bench runs/mini/supernet.safetensors runs/mini/slim.safetensors --threads 1,2 --out runs/speed
      nasface bench exported/slim-fp32.onnx exported/slim-int8.onnx --json
    """
    from nasface import terminal
    from nasface.stages.bench.run import BenchOptions
    from nasface.stages.bench.run import bench as run_bench
    from nasface.stages.machine import Machine

    options = BenchOptions(models, runtimes or (), batches, threads or (), rounds, reference)
    with terminal.progress_bars(quiet or as_json) as hooks:
        found = run_bench(options, Machine("cpu", hooks))
    written = []
    if out is not None:
        from nasface.report.throughput import write_all

        written = write_all(found, out)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
        return
    terminal.show(terminal.bench_table(found))
    for path in written:
        click.echo(f"written: {path}")
