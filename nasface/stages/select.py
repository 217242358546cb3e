"""Choosing a network of a sweep: pareto.csv read and checked, the choice by held-out faces alone, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nasface import pareto, rundir
from nasface import recipe as recipes
from nasface.errors import RunError
from nasface.rundir import RunDir
from nasface.stages.networks import read_arch
from nasface.stages.sources import required
from nasface.stages.workspace import claim

Cost = Literal["macs", "params", "latency_ms"]


_UNITS: Mapping[Cost, str] = {"macs": "MACs", "params": "params", "latency_ms": "ms"}


_COLUMNS = ("network", "state", "pruner", "seed", "params", "macs", "latency_ms", "on_front", "arch")


_FIGURES = r"(params|macs)(_no_head)?|latency_ms|threshold|(held_out_)?nme_.+"  # must be numbers, where they are


@dataclass(frozen=True)
class Choice:
    """A chosen network of a sweep.

    Attributes:
        network: its id in the sweep.
        folder: of the sweep.
        arch: its arch.json.
        stage: whose held-out NME decided, see `pareto.STAGES`.
        held_out_nme: that figure, a share.
        compared: networks within the limits that have this figure.
        networks: pruned networks of the sweep.
        figures: its row of pareto.csv, plain values; None where there is none.
    """

    network: str
    folder: Path
    arch: Path
    stage: str
    held_out_nme: float
    compared: int
    networks: int
    figures: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}


def sweep_folder(folder: Path) -> Path:
    """The folder that holds pareto.csv: `folder` itself, or its `sweep` where `folder` is a search run.

    Raises:
        RunError: when neither does.
    """
    for place in (folder, folder / "sweep"):
        if RunDir(place).pareto.is_file():
            return place
    raise RunError(f"{folder} holds no pareto.csv; give a run that `nasface sweep-thresholds` swept, or its --out")


def read_table(folder: Path) -> pd.DataFrame:
    """The table of a sweep, one row a network, disconnected ones and the supernet included.

    Args:
        folder: see `sweep_folder`; paths in column `arch` are relative to what it returns.

    Returns:
        The columns of pareto.csv, `on_front` as booleans. Columns of NMEs may be absent, any figure NaN.

    Raises:
        RunError: when there is no pareto.csv, or it is not the table of a sweep.
    """
    path = RunDir(sweep_folder(folder)).pareto
    try:
        table = pd.read_csv(path, dtype={"network": str})
    except (OSError, ValueError) as err:  # pandas' parser errors and what is no UTF-8 are ValueErrors
        reason = " ".join(str(err).split())
        raise RunError(f"cannot read {path} ({reason}); let the sweep finish, or sweep again") from err
    if not {"network", "state"} <= set(table.columns):
        raise RunError(f"{path} has no columns 'network' and 'state', so it is no sweep's table; sweep again")
    # of a sweep in which every network is disconnected, the table has no costs
    table = table.reindex(columns=table.columns.union(_COLUMNS, sort=False))
    for name in table.columns[table.columns.str.fullmatch(_FIGURES)]:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise RunError(f"{path}: the column '{name}' holds what is no number; sweep again")
    lacks = table[["params", "macs"]].isna().any(axis=1) | (table["arch"].isna() & (table["network"] != "supernet"))
    if bad := table.loc[lacks & (table["state"] == "done"), "network"].tolist():
        raise RunError(f"{path}: the network '{bad[0]}' is done but lacks params, macs or arch; sweep again")
    table["on_front"] = table["on_front"].astype(str).str.lower() == "true"
    return table


def select(
    folder: Path,
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_latency: float | None = None,
    cost: Cost = "macs",
    knee: bool = False,
) -> Choice:
    """Choose among the pruned networks of a sweep, by their error on held-out faces and never on test faces.

    What decides is the held-out NME after the last stage that any network within the limits has reached; of equal ones,
    that of fewer MACs is taken.

    Args:
        folder: see `sweep_folder`.
        max_macs: multiply-adds of the whole network.
        max_params: parameters of the whole network.
        max_latency: milliseconds, as the sweep measured them.
        cost: what the knee weighs the NME against.
        knee: choose the knee (`pareto.knee`) instead of the lowest NME.

    Raises:
        RunError: when no network is within the limits, with the smallest there is, or none has the figures.
    """
    home = sweep_folder(folder)
    table = read_table(home)
    table = table[(table["state"] == "done") & (table["network"] != "supernet")]
    if table.empty:
        raise RunError(f"{RunDir(home).pareto} holds no pruned network that is done; let the sweep finish, or sweep on")
    limits: dict[Cost, float | None] = {"macs": max_macs, "params": max_params, "latency_ms": max_latency}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    found = _within(table, given, home)
    stage = pareto.best_stage(found)
    score = f"held_out_nme_{stage}"
    found = found[found[score].notna()].sort_values([score, "macs"], kind="stable")
    best = 0
    if knee:
        _check_measured(found, cost, home)
        best = pareto.knee(found[[cost, score]].to_numpy(float))
    row = found.iloc[[best]].convert_dtypes().to_dict("records")[0]
    return Choice(
        network=row["network"],
        folder=home,
        arch=home / row["arch"],
        stage=stage,
        held_out_nme=float(row[score]),
        compared=len(found),
        networks=len(table),
        figures={name: None if pd.isna(value) else value for name, value in row.items()},
    )


def copy_network(choice: Choice, out: RunDir) -> None:
    """Copy a chosen network to where `evaluate`, `train` and `distill` can work from it.

    Writes arch.json as it is, slim.safetensors if there is one (else the weights are inherited, from the run that
    arch.json names), and recipe.yaml. The same network may be copied again.

    Raises:
        RunError: when a file of the sweep is gone, or `out` holds something else.
    """
    read_arch(choice.arch)
    network = RunDir(choice.arch.parent)
    recipe = network.recipe if network.recipe.exists() else RunDir(choice.folder).recipe
    job = {"job": "select", "from": str(choice.arch.resolve()), "arch_sha256": rundir.file_digest(choice.arch)}
    claim(out, recipes.load(str(required(recipe, "the recipe of a swept run"))), job)
    # the arch.json last: one without its weights would be taken for a network still to be inherited
    for source, target in ((network.slim, out.slim), (choice.arch, out.arch)):
        if source.exists():
            with rundir.atomic(target) as temporary:
                shutil.copyfile(source, temporary)


def _within(table: pd.DataFrame, limits: Mapping[Cost, float], home: Path) -> pd.DataFrame:
    """The rows within all limits; a RunError names the smallest there is of each when there is none."""
    fits = pd.Series(True, index=table.index)
    for name, limit in limits.items():
        if not limit > 0:
            raise RunError(f"a limit of {limit!r} {_UNITS[name]} can hold no network; give a number above 0")
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
        f"none of the {len(table)} pruned networks of {home} has {wanted}; the smallest there is has {smallest}: "
        "allow more, or sweep to smaller networks"
    )


def _check_measured(table: pd.DataFrame, name: Cost, home: Path) -> None:
    if table[name].isna().all():
        raise RunError(f"{RunDir(home).pareto} has no '{name}' to choose by; sweep again with it, or choose by MACs")
