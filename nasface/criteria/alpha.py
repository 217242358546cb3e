"""The paper's criterion: the absolute value of the factor."""

from __future__ import annotations

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, edge_values


def alpha(net: GraphNet, context: Context) -> dict[Edge, float]:
    """Rate each edge by the absolute value of its factor, as in the paper (section 3.1)."""
    return {edge: abs(value) for edge, value in edge_values(net).items()}
