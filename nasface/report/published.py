"""Published figures to compare with: Tables 1 to 6 of Lin et al. 2023 (doi 10.3390/s23031532, CC BY) as data."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from nasface.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame


def published() -> dict[str, Any]:
    """Return the paper's tables in this toolkit's units: errors as shares, parameters and MACs as numbers.

    Returns:
        `source` (title, doi, licence, ...); `cost` by method (`backbone`, `params` and `macs` of Table 1, None where
        the paper gives none); `slim` by dataset, the row of `cost` for the methods S-HRNet, SD-HRNet_1 and SD-HRNet_2;
        `errors` and `std` by dataset, method and column (Tables 2 to 5, with subset names as in nasface's datasets);
        `ablation`, the rows of Table 6.
    """
    content = yaml.safe_load(resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8"))
    return {
        "source": content["source"],
        "cost": {
            method: {"backbone": backbone, "params": _times(1e6, params), "macs": _times(1e9, macs)}
            for method, (backbone, params, macs) in content["cost"].items()
        },
        "slim": content["slim"],
        "errors": {name: _shares(table, "mean") for name, table in content["errors"].items()},
        "std": {name: _shares(table, "std") for name, table in content["errors"].items()},
        "ablation": [{**row, "nme": _share(row["nme"])} for row in content["ablation"]],
    }


def costs_and_nme(dataset: str = "300w") -> DataFrame:
    """Put cost and error side by side, with one row per method of the dataset's table, in its order.

    Args:
        dataset: '300w', 'masked-300w', 'cofw' or 'wflw'.

    Returns:
        Columns `method`, `params`, `macs` (NaN where Table 1 has none), and those of the table: for 300W `common`,
        `challenge` and `full`, as shares.

    Raises:
        DataError: for a dataset of which the paper has no table.
    """
    import pandas as pd

    tables = published()
    if dataset not in tables["errors"]:
        raise DataError(
            f"there are no published figures for the dataset '{dataset}'; {did_you_mean(dataset, tables['errors'])}"
        )
    slim = tables["slim"].get(dataset.removeprefix("masked-"))
    aliases = dict.fromkeys(("S-HRNet", "SD-HRNet_1", "SD-HRNet_2"), slim)
    rows = []
    for method, errors in tables["errors"][dataset].items():
        cost = tables["cost"].get(aliases.get(method, method), {})
        rows.append({"method": method, "params": cost.get("params"), "macs": cost.get("macs"), **errors})
    return pd.DataFrame(rows).astype({"params": float, "macs": float})


def _shares(table: dict[str, Any], part: str) -> dict[str, dict[str, float]]:
    """Turn figures in percent into shares, by method and column."""
    return {method: dict(zip(table["columns"], map(_share, row), strict=True)) for method, row in table[part].items()}


def _share(percent: float) -> float:
    return round(percent / 100, 6)  # 3.07 / 100 is 0.030699999999999998


def _times(unit: float, number: float | None) -> int | None:
    return None if number is None else round(number * unit)
