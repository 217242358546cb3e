"""Sparsity search: epochs on the factors with an L1 penalty alternate with epochs on the weights (Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from nasface.bounds import Epochs, Rate, Share, Weight
from nasface.context import Context
from nasface.net import GraphNet
from nasface.step import Batch, Optimizer, Phase


@dataclass(frozen=True)
class L1Searcher:
    """Trains factors with an L1 penalty, and weights, in turn (the paper's Algorithm 1).

    Attributes:
        alpha_lr: learning rate of Adam for the factors (in the paper 1.8e-4 on 300W and WFLW, 3.5e-4 on COFW).
        penalty: lambda, the weight of the sum of |alpha| in the loss of the factors (in the paper 5e-5).
        alpha_share: fraction of the training faces in an epoch on the factors; a value below 1 saves time.
        alpha_schedule: learning-rate schedule of the factors.
        warmup_epochs: number of first epochs that train only the weights, before the factors are trained.
    """

    alpha_lr: Rate = 1.8e-4
    penalty: Weight = 5e-5
    alpha_share: Share = 1.0
    alpha_schedule: Literal["constant", "one_cycle"] = "constant"
    warmup_epochs: Epochs = 0

    def search(self, net: GraphNet, context: Context) -> None:
        """Train factors and weights in turn, one epoch each."""

        def sparse_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            losses = context.step(model, batch)
            l1 = net.alpha.abs().sum()
            return {**losses, "l1": l1, "loss": losses["loss"] + self.penalty * l1}

        alpha_optimizer = Optimizer(name="adam", lr=self.alpha_lr, schedule=self.alpha_schedule)
        weights = tuple(parameter for name, parameter in net.named_parameters() if name != "alpha")
        context.fit(
            [
                Phase("alpha", (net.alpha,), alpha_optimizer, sparse_step, self.alpha_share, self.warmup_epochs),
                Phase("weights", weights, context.optimizer, context.step),
            ]
        )
