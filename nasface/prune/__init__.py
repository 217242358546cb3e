"""Pruners: functions that map a graph, the importance of its edges and their costs to a closed sub-graph.

`threshold`, `share` and `random` keep the edges above a threshold; `top` keeps a number of edges; `greedy` and `budget`
drop edges step by step; `exact` solves an integer programme. Fixed edges have no importance: they stay unless closure
removes them.
"""

from nasface.prune.base import Importance, Pruner
from nasface.prune.budgets import budget
from nasface.prune.programme import exact
from nasface.prune.steps import greedy, top
from nasface.prune.thresholds import above, largest, networks, random, share, threshold

__all__ = [
    "Importance", "Pruner", "above", "budget", "exact", "greedy", "largest", "networks", "random", "share", "threshold",
    "top",
]  # fmt: skip
