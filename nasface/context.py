"""What searchers and criteria get besides the network: one object, so that both can measure and train alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nasface.cost import Costs
from nasface.graph import Graph
from nasface.step import Batches, Fit, Loss, OptimizerLike, Step


@dataclass(frozen=True)
class Context:
    """The task, the data and the means of a search.

    Attributes:
        costs: parameters and MACs of every part of the space; `costs.total(graph)` is what a sub-network costs.
        loss: the task's loss of heatmaps for a batch.
        step: the task's step, `loss` of what the network predicts; ready to be used in a phase.
        optimizer: of the weights, as the recipe says.
        epochs: of the search, as the recipe says.
        batches: one pass of augmented training batches, which no epoch of the training draws.
        held_out: one pass of the held-out faces, not augmented.
        evaluate: the held-out error (inter-ocular NME, a share) of a sub-network as it is inherited from the network
            now, after BN statistics are recalibrated. The network itself does not change.
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
    fit: Fit

    @property
    def input_size(self) -> int:
        """Pixels of the network's input, square."""
        return self.costs.input_size
