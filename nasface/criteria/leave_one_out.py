"""The held-out error without the edge."""

from __future__ import annotations

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet


def leave_one_out(net: GraphNet, context: Context, *, excess: bool = False) -> dict[Edge, float]:
    """Rate each edge by the held-out error of the network without it, after BN statistics are recalibrated.

    An edge without which the network would be disconnected is rated 1 above the largest of these errors.

    Args:
        net: the searched supernet, which is not changed.
        context: the function that measures the error.
        excess: subtract the smallest of these errors, so that the importances of several edges can be added up, as the
            pruners `budget` and `exact` do.
    """
    errors: dict[Edge, float] = {}
    for edge in net.graph.prunable:
        rest = net.graph.without(edge)
        if rest is not None:
            errors[edge] = context.evaluate(rest)
    vital = 1 + max(errors.values(), default=0.0)
    base = min(errors.values(), default=0.0) if excess else 0.0
    return {edge: errors.get(edge, vital) - base for edge in net.graph.prunable}
