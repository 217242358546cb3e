"""Which networks of a sweep are worth fine-tuning, by what they are before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nasface.cost import Costs
from nasface.pareto import front
from nasface.scores import Score, SweepRow
from nasface.stages.sweep.candidates import SweepRequest


def best_networks(
    rows: Iterable[SweepRow], request: SweepRequest, costs: Costs, score: Score, number: int
) -> list[str]:
    """Return the names of the networks with the lowest NME within each budget of a request.

    All networks of the sweep compete, whatever they were asked for. Without a budget, as many networks are taken from
    the front of MACs against the NME, spread over it from end to end.

    Args:
        rows: of the sweep.
        request: the budgets.
        costs: of the search space.
        score: the NME that decides.
        number: how many networks per budget.
    """
    done = [row for row in rows if row.is_slim and score in row.nme]
    if not request.has_budgets:
        return _spread([row.network for row in _on_front(done, score)], number)
    full = costs.prunable(costs.space.graph).macs
    limits = [("macs", float(limit)) for limit in request.macs]
    limits += [("params", float(limit)) for limit in request.params]
    limits += [("macs_prunable", share * full) for share in request.shares]
    found: list[str] = []
    for kind, limit in limits:
        within = [row for row in done if getattr(row, kind) <= limit]
        within.sort(key=lambda row: (row.nme[score], row.macs))
        found += [row.network for row in within[:number]]
    return list(dict.fromkeys(found))


def _on_front(rows: Sequence[SweepRow], score: Score) -> list[SweepRow]:
    points = np.array([[row.macs, row.nme[score]] for row in rows], dtype=float).reshape(-1, 2)
    return [row for row, is_on in zip(rows, front(points), strict=True) if is_on]


def _spread(names: Sequence[str], number: int) -> list[str]:
    places = np.unique(np.linspace(0, len(names) - 1, min(number, len(names))).round().astype(int))
    return [names[place] for place in places]
