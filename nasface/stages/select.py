"""Choose a network of a sweep: read and check pareto.csv, choose by held-out faces alone, and copy the files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nasface import pareto, rundir, untrusted
from nasface import recipe as recipes
from nasface.deploy.runtimes import TORCH
from nasface.errors import RunError, shortened
from nasface.model.source import read_arch, required
from nasface.places import below
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, SUPERNET, Stage, State, SweepRow, scores_in
from nasface.stages.workspace import claim

Cost = Literal["macs", "params", "latency_ms"]

_RATIO = "latency_ratio"  # a column that only this file makes
_UNITS: Mapping[str, str] = {
    "macs": "MACs",
    "params": "parameters",
    "latency_ms": "ms",
    _RATIO: "times the supernet's latency",
}
_SETTINGS = {
    "latency_runtime": "runtimes",
    "latency_batch": "numbers of images per pass",
    "threads": "numbers of threads",
    "device": "devices",
}
"""What latencies depend on: the columns, and each in words."""
_COLUMNS = ("network", "state", "pruner", "seed", "params", "macs", "latency_ms", *_SETTINGS, "on_front", "arch")
_NUMBERS = (
    "params", "macs", "params_no_head", "macs_no_head", "macs_prunable", "prunable_share", "edges", "blocks",
    "latency_ms", "supernet_latency_ms", "latency_batch", "threads", "threshold",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A network chosen from a sweep.

    Attributes:
        folder: of the sweep.
        row: the network's row of pareto.csv.
        stage: the stage of the weights whose held-out NME decided.
        compared: how many networks within the limits have that figure.
        networks: how many pruned networks the sweep has measured.
    """

    folder: Path
    row: SweepRow
    stage: Stage
    compared: int
    networks: int

    @property
    def network(self) -> str:
        """Its name in the sweep."""
        return self.row.network

    @property
    def arch(self) -> Path:
        """Its arch.json."""
        return below(self.folder, self.row.arch, RunDir(self.folder).pareto)

    @property
    def held_out_nme(self) -> float:
        """The NME that decided, a share."""
        return self.row.nme[HELD_OUT.at(self.stage)]

    @property
    def figures(self) -> Mapping[str, Any]:
        """Its row of pareto.csv as plain values; None where there is no figure."""
        return self.row.as_columns()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "network": self.network,
            "folder": str(self.folder),
            "arch": str(self.arch),
            "stage": str(self.stage),
            HELD_OUT.column: self.held_out_nme,
            "compared": self.compared,
            "networks": self.networks,
            "figures": dict(self.figures),
        }


def sweep_folder(folder: Path) -> Path:
    """Return the folder that holds pareto.csv: `folder` itself, or the sweep or family in it if it is a searched run.

    Raises:
        RunError: when neither holds one.
    """
    run = RunDir(folder)
    for place in (run, run.sweep_by(None), run.family()):
        if place.pareto.is_file():
            return place.path
    raise RunError(
        f"{folder} holds no pareto.csv; give a run that `nasface sweep-thresholds` swept, its --out, or a run of the "
        "searcher 'family'"
    )


def read_table(folder: Path) -> pd.DataFrame:
    """Read the table of a sweep: one row per network, including the supernet and disconnected networks.

    Args:
        folder: see `sweep_folder`; paths in the column `arch` are relative to the folder that it returns.

    Returns:
        The columns of pareto.csv, with `on_front` as booleans. Columns of scores may be absent, and any figure NaN.

    Raises:
        RunError: when there is no pareto.csv, or it is not the table of a sweep.
    """
    path = RunDir(sweep_folder(folder)).pareto
    try:
        untrusted.check_table(path)
        table = pd.read_csv(path, dtype={"network": str})
    except (OSError, ValueError) as err:  # pandas' parser errors and bytes that are not UTF-8 are ValueErrors
        reason = shortened(" ".join(str(err).split()))
        raise RunError(f"cannot read {path} ({reason}); let the sweep finish, or sweep again") from err
    if not {"network", "state"} <= set(table.columns):
        raise RunError(f"{path} has no columns 'network' and 'state', so it is not the table of a sweep; sweep again")
    # a sweep in which every network is disconnected has no costs in its table
    table = table.reindex(columns=table.columns.union(_COLUMNS, sort=False))
    scores = scores_in(table)
    for name in [*_NUMBERS, *(column for score in scores for column in (score.column, score.images_column))]:
        if name in table and not pd.api.types.is_numeric_dtype(table[name]):
            raise RunError(f"{path}: the column '{name}' holds something that is not a number; sweep again")
    lacks = table[["params", "macs"]].isna().any(axis=1) | (table["arch"].isna() & (table["network"] != SUPERNET))
    if bad := table.loc[lacks & (table["state"] == State.DONE), "network"].tolist():
        raise RunError(f"{path}: the network '{bad[0]}' is done but lacks params, macs or arch; sweep again")
    table["on_front"] = table["on_front"].astype(str).str.lower() == "true"
    return table


def select(
    folder: Path,
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_latency: float | None = None,
    relative: bool = False,
    cost: Cost = "macs",
    knee: bool = False,
) -> Choice:
    """Choose among the pruned networks of a sweep by their error on held-out faces, never on test faces.

    The held-out NME after the last stage that any network within the limits has reached decides. Of networks with equal
    NMEs, the one with the fewest MACs is taken.

    Args:
        folder: see `sweep_folder`.
        max_macs: limit on the multiply-adds of the whole network.
        max_params: limit on the parameters of the whole network.
        max_latency: limit on the latency in milliseconds, as the sweep measured it.
        relative: `max_latency` is a multiple of the supernet's latency, which was timed in turn with the network's.
        cost: the cost that the knee weighs against the NME.
        knee: choose the knee (`pareto.knee`) instead of the lowest NME.

    Raises:
        RunError: when no network is within the limits (it then names the smallest), or none has the figures.
    """
    home = sweep_folder(folder)
    table = read_table(home)
    table = slim_networks(table)
    if table.empty:
        raise RunError(
            f"{RunDir(home).pareto} holds no pruned network that is done; let the sweep finish, or ask it for more"
        )
    latency = _RATIO if relative else "latency_ms"
    if relative:
        full = table.get("supernet_latency_ms", pd.Series(float("nan"), table.index))
        table = table.assign(**{_RATIO: table["latency_ms"] / full})
    limits: dict[str, float | None] = {"macs": max_macs, "params": max_params, latency: max_latency}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    found = _within(table, given, home)
    stage = pareto.best_stage(found)
    score = HELD_OUT.at(stage).column
    found = found[found[score].notna()].sort_values([score, "macs"], kind="stable")
    best = 0
    if knee:
        _check_measured(found, cost, home)
        best = pareto.knee(found[[cost, score]].to_numpy(float))
    row = SweepRow.from_columns(found.iloc[[best]].to_dict("records")[0])
    return Choice(home, row, stage, compared=len(found), networks=len(table))


def slim_networks(table: pd.DataFrame) -> pd.DataFrame:
    """Select the pruned networks of a sweep's table that have been measured."""
    return table[(table["state"] == State.DONE) & (table["network"] != SUPERNET)]


def copy_network(choice: Choice, out: RunDir) -> None:
    """Copy a chosen network to a folder from which `evaluate`, `train` and `distill` can work.

    It copies arch.json unchanged, recipe.yaml, and, if the sweep has fine-tuned the network, slim.safetensors and the
    figures of its evaluation. Otherwise, the weights are inherited from the run that arch.json names. The same network
    may be copied again.

    Raises:
        RunError: when a file of the sweep is gone, or `out` holds something else.
    """
    read_arch(choice.arch)
    network = RunDir(choice.arch.parent)
    recipe = network.recipe if network.recipe.exists() else RunDir(choice.folder).recipe
    job = {"job": "select", "from": str(choice.arch.resolve()), "arch_sha256": rundir.file_digest(choice.arch)}
    claim(out, recipes.load(str(required(recipe, "the recipe of a swept run"))), job)
    # arch.json comes last: without its weights beside it, the network would count as one that inherits
    figures = (network.metrics, network.metrics_csv, network.errors)
    for source in (*figures, network.slim, choice.arch):
        target = out.path / source.name
        if source.exists():
            with rundir.atomic(target) as temporary:
                shutil.copyfile(source, temporary)


def _within(table: pd.DataFrame, limits: Mapping[str, float], home: Path) -> pd.DataFrame:
    """Select the rows within all limits; without any, a RunError names the smallest network by each limit."""
    fits = pd.Series(True, index=table.index)
    for name, limit in limits.items():
        if not limit > 0:
            raise RunError(f"no network can meet a limit of {limit!r} {_UNITS[name]}; give a number above 0")
        _check_measured(table, name, home)
        fits &= table[name] <= limit
    if fits.any():
        return table[fits]
    wanted = " and ".join(f"at most {limit:,.15g} {_UNITS[name]}" for name, limit in limits.items())
    least = [table.loc[table[name].idxmin()] for name in limits]
    smallest = " and ".join(
        f"{row[name]:,.15g} {_UNITS[name]} ({row['network']})" for name, row in zip(limits, least, strict=True)
    )
    raise RunError(
        f"none of the {len(table)} pruned networks of {home} has {wanted}; the smallest has {smallest}: raise the "
        "limit, or ask the sweep for smaller networks"
    )


def _check_measured(table: pd.DataFrame, name: str, home: Path) -> None:
    """Refuse a table in which nobody has this cost, or whose latencies were measured in several ways."""
    path = RunDir(home).pareto
    if table[name].isna().all():
        if name in (_RATIO, "latency_ms"):
            raise RunError(f"{path} has no latencies, as the sweep timed no network; sweep again, or choose by MACs")
        raise RunError(f"{path} has no {_UNITS[name]} to choose by; sweep again and measure them, or choose by MACs")
    if name not in (_RATIO, "latency_ms"):
        return
    timed = table[table["latency_ms"].notna()]
    timed = timed.assign(latency_runtime=timed["latency_runtime"].astype(object).fillna(TORCH))
    for column, what in _SETTINGS.items():
        found = [f"{value:g}" if isinstance(value, float) else str(value) for value in timed[column].dropna().unique()]
        if len(found) > 1:
            raise RunError(
                f"the latencies in {path} were measured with several {what} ({', '.join(sorted(found))}), which cannot "
                "be compared; sweep into one folder for each"
            )
