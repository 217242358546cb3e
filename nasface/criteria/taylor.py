"""A first-order Taylor estimate of how far the loss moves when an edge goes."""

from __future__ import annotations

import torch

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet, frozen_statistics


def taylor(net: GraphNet, context: Context) -> dict[Edge, float]:
    """The root mean square over training batches of factor times gradient (Molchanov et al. 2019).

    To first order, this is how far the task's loss moves when the edge goes.
    """
    training = net.training
    net.train()
    squares = []
    with frozen_statistics(net):
        for batch in context.batches():
            (gradient,) = torch.autograd.grad(context.step(net, batch)["loss"], net.alpha)
            squares.append((gradient * net.alpha.detach()).square())
    net.train(training)
    return dict(zip(net.graph.prunable, torch.stack(squares).mean(dim=0).sqrt().cpu().tolist(), strict=True))
