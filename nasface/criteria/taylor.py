"""A first-order Taylor estimate of how much the loss changes when an edge is removed."""

from __future__ import annotations

import torch

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, frozen_statistics


def taylor(net: GraphNet, context: Context) -> dict[Edge, float]:
    """Rate each edge by the root mean square of factor times gradient over training batches (Molchanov et al. 2019).

    To first order, factor times gradient is the change of the task's loss when the edge is removed.
    """
    training = net.training
    net.train()
    squares = []
    try:
        with frozen_statistics(net):  # a criterion must leave the network unchanged
            for batch in context.batches():
                (gradient,) = torch.autograd.grad(context.step(net, batch)["loss"], net.alpha)
                squares.append((gradient * net.alpha.detach()).square())
    finally:
        net.train(training)
    return dict(zip(net.graph.prunable, torch.stack(squares).mean(dim=0).sqrt().cpu().tolist(), strict=True))
