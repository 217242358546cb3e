"""The factor times the gain of the BN that ends the edge."""

from __future__ import annotations

from torch import nn

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, edge_values, key


def alpha_gain(net: GraphNet, context: Context) -> dict[Edge, float]:
    """The absolute value of each factor times the mean |gain| of the BN that ends the edge.

    Factor and gain are redundant, so that a small factor can hide behind a large gain. An edge that ends in no BN,
    such as an identity, counts with gain 1.
    """
    return {edge: abs(value) * _gain(net.edges[key(*edge)]) for edge, value in edge_values(net).items()}


def _gain(transform: nn.Module) -> float:
    """Return the mean |gain| of the last BN of an edge, or 1 where there is none."""
    norms = [m for m in transform.modules() if isinstance(m, nn.BatchNorm2d)]
    return float(norms[-1].weight.detach().abs().mean()) if norms else 1.0
