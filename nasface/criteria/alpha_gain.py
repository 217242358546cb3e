"""The factor times the gain of the BN at the end of the edge."""

from __future__ import annotations

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, edge_values, gains


def alpha_gain(net: GraphNet, context: Context) -> dict[Edge, float]:
    """Rate each edge by the absolute value of its factor times the mean |gain| of the BN at its end.

    A small factor can be made up for by a large gain, because the two are multiplied. An edge without a BN, such as an
    identity, has gain 1.
    """
    rated = zip(edge_values(net).items(), gains(net).tolist(), strict=True)
    return {edge: abs(value) * gain for (edge, value), gain in rated}
