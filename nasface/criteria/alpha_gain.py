"""The factor times the gain of the BN at the end of the edge."""

from __future__ import annotations

from torch import nn

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, edge_values, key


def alpha_gain(net: GraphNet, context: Context) -> dict[Edge, float]:
    """Rate each edge by the absolute value of its factor times the mean |gain| of the BN at its end.

    A small factor can be made up for by a large gain, because the two are multiplied. An edge without a BN, such as an
    identity, has gain 1.
    """
    return {edge: abs(value) * _gain(net.edges[key(*edge)]) for edge, value in edge_values(net).items()}


def _gain(transform: nn.Module) -> float:
    """Return the mean |gain| of the last BN of an edge, or 1 if there is none."""
    norms = [m for m in transform.modules() if isinstance(m, nn.BatchNorm2d)]
    return float(norms[-1].weight.detach().abs().mean()) if norms else 1.0
