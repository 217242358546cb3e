"""A budget of a pruner: a limit on the size of a network, and the sizes of the parts that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from nasface.cost import Cost, Costs
from nasface.errors import RecipeError
from nasface.graph import Edge, Graph

SLACK = 0.02
"""How far below its limit, as a share of it, a network may be."""


@dataclass(frozen=True)
class Limit:
    """The largest size that a network may have. All sizes are in the same unit, and a size is the sum of its parts.

    Attributes:
        value: the largest allowed size.
        unit: of all sizes, in words.
        base: size of what every network has: the stem.
        nodes, edges: size of each node and edge.
        head: returns the size of the head that reads these output nodes.
        measure: returns the size of a network, independently of the parts.
    """

    value: float
    unit: str
    base: int
    nodes: Mapping[str, int]
    edges: Mapping[Edge, int]
    head: Callable[[tuple[str, ...]], int]
    measure: Callable[[Graph], int]

    def words(self, size: float) -> str:
        """A size with its unit, for a message."""
        return f"{size:,.0f} {self.unit}"


def check_one_budget(pruner: str, *budgets: float | None) -> None:
    """Raise a RecipeError unless a pruner with this name is given exactly one budget."""
    if sum(value is not None for value in budgets) != 1:
        raise RecipeError(
            f"the pruner '{pruner}' needs exactly one budget: macs, params or latency_ms of the whole network, or a "
            "share of the prunable MACs, for example prune.options.macs=12000000"
        )


def limit_of(
    graph: Graph, costs: Costs, macs: int | None = None, params: int | None = None, share: float | None = None
) -> Limit:
    """Return a limit on the size of networks; exactly one of the last three is given.

    Args:
        graph: the graph to be pruned.
        costs: of the search space.
        macs: most multiply-adds of the whole network.
        params: most parameters of the whole network.
        share: most of the prunable MACs of `graph`.
    """
    if share is not None:
        full = costs.prunable(graph).macs
        return Limit(
            value=share * full,
            unit="prunable MACs",
            base=0,
            nodes={n.id: 0 if n.id in graph.inputs else costs.nodes[n.id].macs for n in graph.nodes},
            edges={edge: costs.edges[edge].macs for edge in graph.edges},
            head=lambda outputs: 0,
            measure=lambda kept: costs.prunable(kept).macs,
        )
    kind: Literal["macs", "params"] = "macs" if macs is not None else "params"

    def of(cost: Cost) -> int:
        return cost.macs if kind == "macs" else cost.params

    return Limit(
        value=float(macs or params or 0),
        unit="MACs" if kind == "macs" else "parameters",
        base=of(costs.stem),
        nodes={n.id: of(costs.nodes[n.id]) for n in graph.nodes},
        edges={edge: of(costs.edges[edge]) for edge in graph.edges},
        head=lambda outputs: of(costs.head(outputs)),
        measure=lambda kept: of(costs.total(kept)),
    )
