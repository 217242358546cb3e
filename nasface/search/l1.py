"""Sparsity search: an epoch on the factors under an L1 penalty, an epoch on the weights (the paper's Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from nasface.graph import Edge
from nasface.net import GraphNet, key
from nasface.step import Batch, Batches, Fit, Optimizer, Phase, Step


@dataclass(frozen=True)
class L1Searcher:
    """Alternates factors and weights; the importance of an edge is read off its factor.

    Attributes:
        alpha_lr: Adam's learning rate for the factors (1.8e-4 on 300W and WFLW, 3.5e-4 on COFW).
        penalty: lambda, the weight of the sum of |alpha| in the factors' loss (5e-5).
        alpha_share: part of the training faces in an alpha epoch; below 1 it saves time.
        alpha_schedule: learning-rate schedule of the factors.
        warmup_epochs: epochs on the weights alone before the factors move.
        importance: 'alpha' is the paper's |alpha|. 'alpha_gain' multiplies by the mean |gain| of the BN that
            ends T: factor and gain are redundant, so that a small alpha can hide behind a large gain. An
            edge that ends in no BN, an identity, counts with gain 1. 'taylor' is the root mean square over
            training batches of alpha times the gradient of the task's loss: to first order, how far the loss
            moves when the edge goes (Molchanov et al. 2019).
    """

    alpha_lr: Annotated[float, Gt(0)] = 1.8e-4
    penalty: Annotated[float, Ge(0)] = 5e-5
    alpha_share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    alpha_schedule: Literal["constant", "one_cycle"] = "constant"
    warmup_epochs: Annotated[int, Ge(0)] = 0
    importance: Literal["alpha", "alpha_gain", "taylor"] = "alpha"

    def search(
        self, net: GraphNet, step: Step, optimizer: Optimizer, fit: Fit, batches: Batches
    ) -> Mapping[Edge, float]:
        """Train factors and weights in turn; gives the importance of every prunable edge."""

        def sparse_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            losses = step(model, batch)
            l1 = net.alpha.abs().sum()
            return {**losses, "l1": l1, "loss": losses["loss"] + self.penalty * l1}

        alpha_optimizer = Optimizer(name="adam", lr=self.alpha_lr, schedule=self.alpha_schedule)
        weights = tuple(parameter for name, parameter in net.named_parameters() if name != "alpha")
        fit(
            [
                Phase("alpha", (net.alpha,), alpha_optimizer, sparse_step, self.alpha_share, self.warmup_epochs),
                Phase("weights", weights, optimizer, step),
            ]
        )
        if self.importance == "taylor":
            return _taylor(net, step, batches)
        alpha = dict(zip(net.graph.prunable, net.alpha.detach().abs().cpu().tolist(), strict=True))
        if self.importance == "alpha":
            return alpha
        return {edge: value * _gain(net.edges[key(*edge)]) for edge, value in alpha.items()}


def _taylor(net: GraphNet, step: Step, batches: Batches) -> dict[Edge, float]:
    """Root mean square over batches of alpha times its gradient; the network's BN statistics stay as they are."""
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    net.train()
    squares = []
    for batch in batches():
        (gradient,) = torch.autograd.grad(step(net, batch)["loss"], net.alpha)
        squares.append((gradient * net.alpha.detach()).square())
    with torch.no_grad():
        for name, value in net.named_buffers():
            value.copy_(statistics[name])
    return dict(zip(net.graph.prunable, torch.stack(squares).mean(dim=0).sqrt().cpu().tolist(), strict=True))


def _gain(transform: nn.Module) -> float:
    """Mean |gain| of the last BN of an edge, 1 where there is none."""
    norms = [m for m in transform.modules() if isinstance(m, nn.BatchNorm2d)]
    return float(norms[-1].weight.detach().abs().mean()) if norms else 1.0
