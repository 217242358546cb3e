"""What the report says in words and tables: headline, facts, errors by subset, costs by stage, and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasface.report.content import Content
from nasface.scores import DASH, DEFAULT_NORMALISER, HELD_OUT, SUPERNET, Normaliser, State, percent
from nasface.stages.count import cost_report
from nasface.stages.select import slim_networks

LIMITS = ("0.08", "0.1")


@dataclass(frozen=True)
class Tile:
    """A figure of the headline.

    Attributes:
        label, value: what it is, and its value with the unit.
        note: what it is compared with.
        better: whether it is better than that; None where it is neither better nor worse, or not compared.
        of: the images behind it.
    """

    label: str
    value: str
    note: str = ""
    better: bool | None = None
    of: str = ""


def tiles(content: Content) -> list[Tile]:
    """Compare the report's network with the supernet; for a sweep alone, give the range of its networks."""
    own = content.networks.get(content.subject)
    if own is None:
        return _sweep_tiles(content)
    before = {} if content.subject == SUPERNET else content.networks.get(SUPERNET, {})
    found = []
    for label, key in (("Parameters", "params"), ("MACs", "macs")):
        if own.get(key) and before.get(key):
            note = f"{100 * own[key] / before[key]:.0f} % of the supernet’s {amount(before[key])}"
            found.append(Tile(label, amount(own[key]), note, own[key] < before[key] or None))
        elif own.get(key):
            found.append(Tile(label, amount(own[key])))
    earlier = _errors(before)
    for name, (nme, images) in _errors(own).items():
        change = 100 * (nme - earlier[name][0]) if name in earlier else None
        against = (
            "" if change is None else f"supernet {percent(earlier[name][0])} %, {change:+.2f} points".replace("-", "−")
        )
        better = None if change is None or abs(change) < 0.005 else change < 0
        found.append(Tile(f"NME {name}", f"{percent(nme)} %", against, better, images))
    return found


def facts(content: Content) -> list[tuple[str, str]]:
    """Describe the run, as (label, text)."""
    metrics, recipe, arch = content.metrics, content.recipe, content.arch
    archs = [arch] if arch else list(content.sweep.archs.values()) if content.sweep else []
    origin: Mapping[str, Any] = metrics or (archs[0].provenance if archs else {})
    found = []
    if known := arch or content.factors:
        found.append(("Search space", _with_options(known.space, known.options)))
    elif recipe is not None:
        found.append(("Search space", _with_options(recipe.space.name, recipe.space.options)))
    if recipe is not None:
        size = recipe.data.input_size
        found.append(("Dataset", f"{recipe.data.name}, {size} × {size} pixels"))
        found.append(("Test images", _test_images(content)))
    if content.factors is not None and recipe is not None:
        found.append(("Searcher", _with_options(recipe.search.name, recipe.search.options)))
    if arch is not None:
        pruner = _with_options(str(arch.provenance.get("pruner", "")), arch.provenance.get("pruner_options") or {})
        found.append(("Pruner", pruner))
    found.append(("Seed", str(origin.get("seed", ""))))
    if metrics:
        count = metrics.get("threads")
        threads = "" if count is None else f"{count} thread{'' if count == 1 else 's'}"
        found.append(
            ("Device", ", ".join(str(p) for p in (metrics.get("device"), metrics.get("machine"), threads) if p))
        )
        found.append(("Training", f"{metrics.get('training_minutes', 0)} minutes{_epochs(content)}"))
        if spent := metrics.get("compute"):
            parts = f"{amount(spent['training'])} in training, {amount(spent['measuring'])} in measuring"
            found.append(("Compute", f"{amount(sum(spent.values()))} multiply-adds ({parts})"))
    found.append(("Created", str(origin.get("created", "")).replace("T", " ").replace("+00:00", " UTC")))
    return [(label, text) for label, text in found if text]


def accuracy(content: Content) -> list[dict[str, Any]]:
    """Return one row per network and test subset: images, NMEs in percent, failure rates and AUCs, as text."""
    rows = []
    for network, figures in content.networks.items():
        tables = figures.get("subsets") or {}
        for subset, summary in tables.get(DEFAULT_NORMALISER, {}).items():
            by_normaliser = [(tables.get(name) or {}).get(subset) or {} for name in Normaliser]
            failures, areas = (_by_limit(summary, name) for name in ("failure_rate", "auc"))
            rows.append(
                {
                    "network": network,
                    "subset": subset,
                    "images": f"{summary['images']} of {summary['expected']}",
                    "nmes": [percent(row.get("nme")) for row in by_normaliser],
                    "failures": [percent(failures.get(limit)) for limit in LIMITS],
                    "aucs": [DASH if (area := areas.get(limit)) is None else f"{area:.3f}" for limit in LIMITS],
                }
            )
    return rows


def costs(content: Content) -> dict[str, Any] | None:
    """Count parameters and MACs by stage, of the full graph and of the chosen network.

    Raises:
        GraphError: when the architecture was made for another graph.
    """
    if content.costs is None:
        return None
    graph = content.costs.space.graph
    full = cost_report(content.costs, graph)
    own = cost_report(content.costs, content.arch.subgraph(graph)) if content.arch else None

    def row(report: Mapping[str, Any], name: str) -> tuple[int, int]:
        if name in report["stages"]:
            return report["stages"][name]["params"], report["stages"][name]["macs"]
        if not name.startswith("total"):
            return 0, 0  # pruning has removed the whole stage
        ending = "" if name == "total" else "_no_head"
        return report[f"params{ending}"], report[f"macs{ending}"]

    rows = []
    for name in (*full["stages"], "total", "total without head"):
        (params, macs), (own_params, own_macs) = row(full, name), row(own, name) if own else (0, 0)
        rows.append(
            {
                "name": name,
                "params": [params, own_params],
                "macs": [macs, own_macs],
                "kept": own_macs / macs if macs else 1.0,
            }
        )
    return {"full": full, "own": own, "rows": rows}


def provenance(content: Content) -> list[tuple[str, list[tuple[str, str]]]]:
    """Say what made each file, as (file, [(key, text)]): versions, digests and times."""
    metrics = {name: value for name, value in content.metrics.items() if name != "networks"}
    sources: list[tuple[str, Mapping[str, Any]]] = [("metrics.json", metrics)]
    for name, made in (("arch.json", content.arch), ("factors.json", content.factors)):
        if made is not None:
            sources.append((name, {"graph_digest": made.graph_digest, **made.provenance}))
    return [
        (name, [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in found.items()])
        for name, found in sources
        if found
    ]


def whole_subsets(content: Content) -> list[str]:
    """List the test subsets of which every official image was there, the largest first."""
    subsets = _subsets(content.networks.get(content.subject, {}))
    whole = [name for name, summary in subsets.items() if summary["images"] == summary["expected"] > 0]
    return sorted(whole, key=lambda name: -subsets[name]["images"])


def amount(number: float) -> str:
    """Format a count in k, M, G, T or P with three significant digits."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # from there on, three digits round up to the next unit
            return f"{number / size:.3g} {unit}" if number < 999.5 * size else f"{number / size:.0f} {unit}"
    return f"{number:g}"


def _errors(figures: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Collect the NMEs that there are, with the number of images: by test subset, and then of the held-out faces."""
    found = {
        name: (float(summary["nme"]), f"{summary['images']} of {summary['expected']} images")
        for name, summary in _subsets(figures).items()
        if summary["nme"] is not None
    }
    if figures.get(HELD_OUT.column) is not None:
        found[HELD_OUT.faces] = (float(figures[HELD_OUT.column]), "")
    return found


def _subsets(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Inter-ocular summaries by test subset."""
    found: Mapping[str, Any] = (figures.get("subsets") or {}).get(DEFAULT_NORMALISER) or {}
    return found


def _sweep_tiles(content: Content) -> list[Tile]:
    if content.sweep is None:
        return []
    table = content.sweep.table
    pruned = slim_networks(table)
    apart = int((table["state"] == State.DISCONNECTED).sum())
    found = [Tile("Networks", str(len(pruned)), f"{apart} more would be disconnected" if apart else "")]
    for label, key in (("Parameters", "params"), ("MACs", "macs")):
        if pruned[key].notna().any():
            found.append(Tile(label, f"{amount(pruned[key].min())} – {amount(pruned[key].max())}"))
    return found


def _test_images(content: Content) -> str:
    """Give the number of images by subset, of those on disk and of the official ones."""
    subsets = _subsets(content.networks.get(content.subject, {}))
    return ", ".join(f"{name} {summary['images']} of {summary['expected']}" for name, summary in subsets.items())


def _epochs(content: Content) -> str:
    if content.epochs is None or "stage" not in content.epochs:
        return ""
    counts = content.epochs.groupby("stage", sort=False)["epoch"].max()
    return "".join(f", {count:.0f} epochs of {stage}" for stage, count in counts.items())


def _by_limit(summary: Mapping[str, Any], name: str) -> Mapping[str, float | None]:
    """Return the figures by limit; runs of nasface 0.1 have a single one, at the limit that they name."""
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {f"{summary.get('limit', 0.1):g}": found}


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    shown = ", ".join(
        f"{key} {json.dumps(value)}".replace('"', "") for key, value in options.items() if value is not None
    )
    return f"{name} ({shown})" if shown else name
