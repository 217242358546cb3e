"""The training loss without the edge, with the BN statistics of each batch."""

from __future__ import annotations

from itertools import islice

import torch

from nasface.bounds import Some
from nasface.context import Context
from nasface.graph import Edge, Graph
from nasface.net import GraphNet, frozen_statistics


def ablation(net: GraphNet, context: Context, *, batches: Some = 4) -> dict[Edge, float]:
    """Rate each edge by how much the loss on training batches grows when it is removed; 0 if it does not grow.

    BN layers use the statistics of each batch, so that nothing has to be recalibrated: this is `leave_one_out` at a
    fraction of its cost. An edge without which the network would be disconnected is rated above all others.

    Args:
        net: the searched supernet.
        context: the task and the data.
        batches: number of training batches on which every sub-network is measured.
    """
    faces = list(islice(context.batches(), batches))
    training = net.training
    net.train()

    def loss(graph: Graph) -> float:
        return float(torch.stack([context.loss(net(b.images_B3HW, graph=graph), b) for b in faces]).mean())

    try:
        with frozen_statistics(net), torch.no_grad():
            whole = loss(net.graph)
            grown: dict[Edge, float] = {}
            for edge in net.graph.prunable:
                rest = net.graph.without(edge)
                if rest is not None:
                    growth = loss(rest) - whole
                    grown[edge] = growth if growth != growth else max(0.0, growth)  # NaN, of which `rated` tells
    finally:
        net.train(training)
    vital = 1 + max(grown.values(), default=0.0)
    return {edge: grown.get(edge, vital) for edge in net.graph.prunable}
