"""What searchers and criteria receive besides the network: the same object, so that both can measure and train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nasface.cost import Costs
from nasface.graph import Edge, Graph
from nasface.step import Batches, Fit, Loss, OptimizerLike, Step


@dataclass(frozen=True)
class Context:
    """The task and the data of a search, and the functions with which to train and measure.

    Attributes:
        costs: parameters and MACs of every part of the space; `costs.total(graph)` is the cost of a sub-network.
        loss: the task's loss of heatmaps for a batch.
        step: the task's step, which is the `loss` of the network's heatmaps; use it as the step of a phase.
        optimizer: the recipe's optimizer for the weights.
        epochs: the recipe's number of search epochs.
        batches: returns one pass of augmented training batches, which no epoch of the training draws.
        held_out: returns one pass of the held-out faces, without augmentation.
        evaluate: returns the held-out error (inter-ocular NME, as a fraction) of a sub-network with the network's
            current weights, after its BN statistics are recalibrated. The network itself is not changed.
        rate: returns the importance of every prunable edge of a sub-network, by the recipe's criterion and with the
            network's current weights. The network itself is not changed.
        fit: trains the network, or another one; see `nasface.step.Fit`.
    """

    costs: Costs
    loss: Loss
    step: Step
    optimizer: OptimizerLike
    epochs: int
    batches: Batches
    held_out: Batches
    evaluate: Callable[[Graph], float]
    rate: Callable[[Graph], Mapping[Edge, float]]
    fit: Fit

    @property
    def input_size(self) -> int:
        """Side of the network's square input, in pixels."""
        return self.costs.input_size
