"""`nasface prune`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import (
    FOLDER,
    Place,
    json_option,
    machine_options,
    run_data_option,
    run_set_option,
    show_costs,
)
from nasface.cli.sizes import SIZE, Real, Share

# heavy imports stand inside the commands: `nasface --help` answers at once


@main.command(short_help="Choose a sub-network of a searched run.")
@click.argument("run", type=FOLDER)
@click.option("--threshold", type=Real(0), help="Keep edges whose importance is above this.")
@click.option("--share", type=Share(), help="Keep at most this share of the prunable MACs.")
@click.option("--top", type=click.IntRange(1, 1_000_000), help="Keep this many edges.")
@click.option("--macs", type=SIZE, help="Keep at most this many MACs in the whole network, for example 12M.")
@click.option("--params", type=SIZE, help="Keep at most this many parameters in the whole network.")
@click.option(
    "--latency", "latency_ms", type=Real(0, min_open=True), metavar="MS",
    help="Keep a network that takes at most this many milliseconds for one image, measured on this machine's CPU.",
)  # fmt: skip
@click.option(
    "--latency-runtime", metavar="NAME",
    help="Runtime in which --latency is measured: torch, onnxruntime or openvino.  [default: torch]",
)  # fmt: skip
@click.option("--pruner", help="Pruner (see `nasface plugins`).  [default: the run's own, if it takes the option]")
@click.option(
    "--criterion",
    help="Criterion (see `nasface plugins`); it is computed if the run has no factors by it.  [default: the run's own]",
)
@run_data_option
@run_set_option
@click.option("--out", type=FOLDER, required=True, help="Folder for arch.json and the inherited weights.")
@machine_options
@json_option
def prune(
    run: Path,
    threshold: float | None,
    share: float | None,
    top: int | None,
    macs: int | None,
    params: int | None,
    latency_ms: float | None,
    latency_runtime: str | None,
    pruner: str | None,
    criterion: str | None,
    data_root: Path | None,
    overrides: tuple[str, ...],
    out: Path,
    place: Place,
    as_json: bool,
) -> None:
    """Choose a sub-network of a searched RUN; train it with `nasface train --arch`.

    \b
    Examples:
      nasface prune runs/mini --share 0.5 --out runs/half
      nasface prune runs/mini --pruner random --share 0.5 --set prune.options.seed=1 --out runs/random
      nasface prune runs/mini --threshold 0.0017 --out runs/paper
      nasface prune runs/mini --criterion taylor --share 0.5 --out runs/taylor
      nasface prune runs/mini --macs 60M --out runs/small
      nasface prune runs/mini --latency 4 --latency-runtime onnxruntime --out runs/fast
    """
    from nasface.model.source import run_recipe
    from nasface.rundir import RunDir
    from nasface.stages.count import cost_report
    from nasface.stages.prune import prune as run_prune

    limits = {
        "threshold": threshold, "share": share, "edges": top, "macs": macs, "params": params, "latency_ms": latency_ms
    }  # fmt: skip
    given = [(option, value) for option, value in limits.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(
            "--threshold, --share, --top, --macs, --params and --latency exclude one another; give only one"
        )
    if latency_runtime is not None:
        if latency_ms is None:
            raise click.UsageError("--latency-runtime needs --latency")
        overrides = (f"prune.options.runtime={latency_runtime}", *overrides)
    source = RunDir(run)
    budget = given[0] if given else None
    resolved = run_recipe(
        source, criterion=criterion, pruner=pruner, budget=budget, data_root=data_root, overrides=overrides
    )
    with place.machine(as_json) as machine:
        costs, graph = run_prune(source, resolved, RunDir(out), machine)
        report = cost_report(costs, graph)
        if latency_ms is not None:
            report |= asdict(costs.latency(graph, resolved.prune.options.get("runtime", "torch")))
    show_costs(report, f"{out / 'arch.json'}", as_json)
