"""A first-order Taylor estimate of how much the loss changes when an edge is removed."""

from __future__ import annotations

from itertools import islice

import torch

from nasface.bounds import Count
from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, frozen_statistics


def taylor(net: GraphNet, context: Context, *, batches: Count = 0) -> dict[Edge, float]:
    """Rate each edge by the root mean square of factor times gradient over training batches (Molchanov et al. 2019).

    To first order, factor times gradient is the change of the task's loss when the edge is removed.

    Args:
        net: the searched supernet.
        context: the task and the data.
        batches: number of training batches; 0 takes one pass over all training faces.
    """
    training = net.training
    net.train()
    squares = []
    try:
        with frozen_statistics(net):  # a criterion must leave the network unchanged
            for batch in islice(context.batches(), batches or None):
                (gradient,) = torch.autograd.grad(context.step(net, batch)["loss"], net.alpha)
                squares.append((gradient * net.alpha.detach()).square())
    finally:
        net.train(training)
    return dict(zip(net.graph.prunable, torch.stack(squares).mean(dim=0).sqrt().cpu().tolist(), strict=True))
