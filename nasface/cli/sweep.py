"""`nasface sweep-thresholds`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasface.bounds import MAX_COUNT
from nasface.cli.group import main
from nasface.cli.options import (
    COUNT,
    EPOCHS,
    FILE,
    FOLDER,
    Place,
    Sharing,
    gathered,
    json_option,
    machine_options,
    read_options,
    run_data_option,
    run_set_option,
    sharing_options,
)
from nasface.cli.sizes import SIZE, Real, Share

if TYPE_CHECKING:
    from nasface.recipe import Recipe
    from nasface.rundir import RunDir
    from nasface.stages.sweep.candidates import SweepRequest
    from nasface.stages.sweep.run import Measure


@dataclass(frozen=True)
class Networks:
    """The options that say which networks are asked for."""

    thresholds: tuple[float, ...]
    count: int | None
    target_macs: tuple[int, ...]
    target_params: tuple[int, ...]
    shares: tuple[float, ...]
    archs: tuple[Path, ...]
    pruner: str | None
    options: tuple[str, ...]
    draws: int
    refine: int

    def request(self) -> SweepRequest:
        """The request that they make."""
        from nasface.stages.sweep.candidates import SweepRequest

        return SweepRequest(
            thresholds=self.thresholds,
            count=self.count,
            macs=self.target_macs,
            params=self.target_params,
            shares=self.shares,
            pruner=self.pruner,
            options=read_options(self.options),
            draws=self.draws,
            archs=self.archs,
            refine=self.refine,
        )


@dataclass(frozen=True)
class Steps:
    """The options that say what is done with each network."""

    inherited: bool
    recalibrated: bool
    epochs: int
    best: int
    latency_batch: int
    latency_runtime: str

    def measure(self) -> Measure:
        """The measurements that they ask for."""
        from nasface.stages.sweep.run import Measure

        return Measure(
            inherited=self.inherited,
            recalibrated=self.recalibrated,
            epochs=self.epochs,
            latency_batch=self.latency_batch,
            latency_runtime=self.latency_runtime,
            best=self.best,
        )


@dataclass(frozen=True)
class Changes:
    """The options that change the recipe of the run."""

    criterion: str | None
    data_root: Path | None
    overrides: tuple[str, ...]

    def resolve(self, run: RunDir) -> Recipe:
        """The recipe of a run with the changes."""
        from nasface.model.source import run_recipe

        return run_recipe(run, criterion=self.criterion, data_root=self.data_root, overrides=self.overrides)


network_options = gathered(
    "networks",
    Networks,
    click.option(
        "--threshold", "thresholds", type=Real(0), multiple=True,
        help="Add the network that keeps the edges whose importance is above this (may be repeated).",
    ),
    click.option("--count", type=COUNT, help="Number of networks, spread over all that a threshold can give."),
    click.option(
        "--target-macs", type=SIZE, multiple=True,
        help="Add a network with this many MACs, or up to 2 % fewer (may be repeated).",
    ),
    click.option(
        "--target-params", type=SIZE, multiple=True,
        help="Add a network with this many parameters, or up to 2 % fewer (may be repeated).",
    ),
    click.option(
        "--share", "shares", type=Share(), multiple=True,
        help="Add the largest network within this share of the prunable MACs (may be repeated).",
    ),
    click.option(
        "--arch", "archs", type=FILE, multiple=True,
        help="Add the network of an arch.json of your own, from the same space (may be repeated).",
    ),
    click.option(
        "--pruner",
        help="Pruner that meets budgets; it must accept `macs`, `params` or `share`.  [default: budget if only "
        "targets are given, else threshold]",
    ),
    click.option(
        "--option", "options", multiple=True, metavar="NAME=VALUE",
        help="Another option of the pruner (may be repeated).",
    ),
    click.option(
        "--draws", type=click.IntRange(1, MAX_COUNT), default=1, show_default=True,
        help="Number of networks per budget, drawn with the pruner's seeds 0, 1, ...",
    ),
    click.option(
        "--refine", type=COUNT, default=0,
        help="Number of networks to breed from those of the sweep, by their error before fine-tuning (NSGA-II).",
    ),
)  # fmt: skip
step_options = gathered(
    "steps",
    Steps,
    click.option(
        "--inherited/--no-inherited", default=True, help="Evaluate with the supernet's weights.  [default: yes]"
    ),
    click.option(
        "--recalibrated/--no-recalibrated", default=True, help="Also evaluate after BN recalibration.  [default: yes]"
    ),
    click.option(
        "--epochs", type=EPOCHS, default=0, help="Also fine-tune for this many epochs and evaluate.  [default: 0]"
    ),
    click.option(
        "--tune-best", "best", type=COUNT, default=0, metavar="N",
        help="Fine-tune only the N best within each budget (without budgets, N networks along the front).  "
        "[default: all]",
    ),
    click.option(
        "--latency-batch", type=click.IntRange(0, 1024), default=1, show_default=True,
        help="Images per timed forward pass; 0 switches timing off.",
    ),
    click.option(
        "--latency-runtime", default="torch", show_default=True, metavar="NAME",
        help="Runtime of the timed passes: torch; or onnxruntime or openvino, after an export.",
    ),
)  # fmt: skip
change_options = gathered(
    "changes",
    Changes,
    click.option(
        "--criterion", help="Criterion that rates the edges (see `nasface plugins`), instead of the run's own."
    ),
    run_data_option,
    run_set_option,
)


@main.command("sweep-thresholds", short_help="Measure many sub-networks of a searched run and mark their Pareto front.")
@click.argument("run", type=FOLDER)
@network_options
@step_options
@change_options
@click.option("--out", type=FOLDER, help="Folder of the sweep.  [default: RUN/sweep, or RUN/sweep-CRITERION]")
@sharing_options
@machine_options
@json_option
def sweep_thresholds(
    run: Path,
    networks: Networks,
    steps: Steps,
    changes: Changes,
    out: Path | None,
    sharing: Sharing,
    place: Place,
    as_json: bool,
) -> None:
    """Measure many slim networks of one searched RUN, and mark their Pareto front.

    If no networks are requested, it measures ten. Give the same command again to continue where it stopped; give other
    requests to add networks to the sweep. Several processes may work on one sweep at the same time, and so may several
    machines that share a --storage. `nasface select` chooses a network of the sweep, and `nasface report` shows them
    all; both take the folder of the sweep, or a RUN whose sweep is in RUN/sweep.

    \b
    Examples:
      nasface sweep-thresholds runs/mini --count 20
      nasface sweep-thresholds runs/mini --target-macs 60M --target-macs 80M --epochs 20
      nasface sweep-thresholds runs/mini --share 0.5 --pruner random --draws 3 --epochs 20
      nasface sweep-thresholds runs/mini --count 20 --criterion taylor
      nasface sweep-thresholds runs/mini --pruner budget --target-macs 60M --refine 40 --epochs 20 --tune-best 2
      nasface sweep-thresholds runs/mini --count 0 --arch mine/arch.json
      nasface sweep-thresholds runs/mini --count 20 --latency-runtime onnxruntime --out runs/timed
    """
    from nasface import scores, terminal
    from nasface.rundir import RunDir
    from nasface.stages.sweep.run import sweep

    source = RunDir(run)
    folder = source.sweep_by(changes.criterion) if out is None else RunDir(out)
    own = folder.path.resolve()
    kept = sharing.kept(f"{own.parent.name}/{own.name}")
    with place.machine(as_json) as machine:
        rows = sweep(
            changes.resolve(source),
            source=source,
            out=folder,
            request=networks.request(),
            measure=steps.measure(),
            machine=machine,
            kept=kept,
        )
    if as_json:
        click.echo(json.dumps(scores.table_of(rows), indent=1))
        return
    terminal.show(terminal.sweep_table(rows, f"sweep of {run}"))
    click.echo(f"table: {folder.pareto}")
