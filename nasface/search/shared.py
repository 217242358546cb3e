"""Shared weights that stand alone: sub-networks near those of interest are trained along with the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Interval
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from nasface.bounds import MAX_EPOCHS, Rate, Share, Weight
from nasface.context import Context
from nasface.cost import Costs
from nasface.errors import RecipeError
from nasface.graph import Graph
from nasface.net import GraphNet, frozen_statistics
from nasface.search.budget import Budget, cost_weights, group_sums, rivals, strengths
from nasface.search.l1 import L1Searcher
from nasface.step import STRICT, Batch, Loss, OptimizerLike, Phase


@dataclass(frozen=True)
class First(L1Searcher):
    """The options of `l1`, for the epochs that come before the shared training."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT


@dataclass(frozen=True)
class SharedSearcher:
    """Trains the whole network, and in each step a few sub-networks too, so that these do well with inherited weights.

    It fine-tunes a supernet that another searcher has trained: start it with `nasface search --weights`, or let it run
    `l1` first. A sub-network learns the task and the heatmaps of the whole network. The criterion and the pruner choose
    afterwards, or a sweep does.

    Attributes:
        first: options of `l1`, which is then run first, for all epochs but the last `epochs`; null to start from the
            weights at hand.
        epochs: number of epochs of shared training; null for all of the recipe's, or with `first` for a quarter.
        draws: number of sub-networks in each step.
        shares: smallest and largest budget of a sub-network, as shares of the prunable MACs. The draws of a step divide
            this range evenly among themselves; it begins at the smallest sub-network if that is larger.
        around: 'criterion' draws sub-networks near those that keep the most important edges by the recipe's criterion;
            'strength' ranks an edge by its factor times the gain of the BN that ends it, relative to the other edges
            into the node and to what it costs; 'random' draws any.
        noise: noise on the rank of an edge, relative to the spread of all ranks. With 0, each budget has one network.
        imitation: weight of the difference to the heatmaps of the whole network, relative to the loss of the task.
        lr_scale: factor of the recipe's learning rate.
    """

    first: dict[str, Any] | None = None
    epochs: Annotated[int, Interval(ge=1, le=MAX_EPOCHS)] | None = None
    draws: Annotated[int, Interval(ge=1, le=8)] = 1
    shares: tuple[Share, Share] = (0.25, 0.9)
    around: Literal["criterion", "strength", "random"] = "criterion"
    noise: Weight = 0.5
    imitation: Weight = 1.0
    lr_scale: Rate = 1.0

    def __post_init__(self) -> None:
        self._first()  # a mistake in its options is found before any work

    def search(self, net: GraphNet, context: Context) -> None:
        """Train the network together with sub-networks of it."""
        epochs = self._run_first(net, context)
        draw = Draw.near(net, context, self)

        def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            random = np.random.default_rng(batch.seed)
            whole = model(batch.images_B3HW)
            task = context.loss(whole, batch)
            losses = []
            with frozen_statistics(net):  # the running statistics stay those of the whole network
                for number in range(self.draws):
                    part = model(batch.images_B3HW, graph=draw(random, number))
                    losses.append((context.loss(part, batch), imitation(context.loss, part, whole.detach(), batch)))
            parts, copied = (torch.stack(terms).mean() for terms in zip(*losses, strict=True))
            loss = task + parts + self.imitation * copied
            return {"loss": loss, "task": task, "parts": parts, "imitation": copied}

        optimizer = Scaled(context.optimizer, self.lr_scale)
        title = "shared" if self.first is not None else None
        phase = Phase("shared", tuple(net.parameters()), optimizer, step, varies=True)
        context.fit([phase], epochs=epochs, title=title)

    def _first(self) -> First | None:
        """Return the searcher that comes first; RecipeError if its options are not those of `l1`."""
        try:
            return None if self.first is None else TypeAdapter(First).validate_python(self.first)
        except ValidationError as err:
            found = err.errors()[0]
            raise RecipeError(
                f"search.options.first.{'.'.join(map(str, found['loc']))}: {found['msg'].lower()}; expected options of "
                f"l1: {', '.join(option.name for option in fields(First))}"
            ) from err

    def _run_first(self, net: GraphNet, context: Context) -> int:
        """Run the searcher that comes first, if there is one, and return how many epochs are left."""
        first = self._first()
        if first is None:
            return self.epochs or context.epochs
        epochs = self.epochs or max(1, context.epochs // 4)
        before = context.epochs - epochs
        if before < 1:
            raise RecipeError(
                f"the shared training takes {epochs} of the search's {context.epochs} epochs, which leaves none for "
                "l1; set more search.epochs, or fewer search.options.epochs"
            )
        first.search(net, replace(context, epochs=before, fit=partial(context.fit, epochs=before)))
        return epochs


def imitation(loss: Loss, part_BLhw: Tensor, whole_BLhw: Tensor, batch: Batch) -> Tensor:
    """Return how far the heatmaps of a sub-network are from those of the whole network, in the unit of the task's loss.

    It is the mean loss of the two heatmaps whole + d and whole - d, with the difference d = part - whole, less the loss
    of the whole network's. For a weighted mean squared error that is the weighted mean square of d, whatever the weight
    and the targets are. The Adaptive Wing loss is concave in larger errors, where this would reward
    a difference; it counts as zero then.
    """
    difference = part_BLhw - whole_BLhw
    mirrored = 0.5 * (loss(whole_BLhw + difference, batch) + loss(whole_BLhw - difference, batch))
    return (mirrored - loss(whole_BLhw, batch)).clamp_min(0)


@dataclass(frozen=True)
class Draw:
    """Draws sub-networks within a range of budgets.

    Attributes:
        graph, costs: the graph and what its parts cost.
        worth: rank of each prunable edge, scaled to a mean of 0 and a standard deviation of 1; all 0 if any is as good.
        noise: standard deviation of the noise on it.
        low, high: smallest and largest budget in prunable MACs.
        parts: the draws of a step, which divide the range evenly.
    """

    graph: Graph
    costs: Costs
    worth: Sequence[float]
    noise: float
    low: int
    high: int
    parts: int

    @classmethod
    def near(cls, net: GraphNet, context: Context, how: SharedSearcher) -> Draw:
        """Return draws around the networks that keep the best edges of `net`, as it is now.

        Raises:
            RecipeError: if the range of budgets is empty.
            GraphError: if no sub-network meets the largest budget.
        """
        graph, costs = net.graph, context.costs
        low, high = (int(share * costs.prunable(graph).macs) for share in how.shares)
        if low > high:
            raise RecipeError(
                f"search.options.shares is {how.shares[0]:g}, {how.shares[1]:g}; expected the smaller share first"
            )
        budget = Budget(graph, costs, high, whole=False)
        low = max(low, budget.measure(budget.cheapest(graph)))
        if how.around == "random":
            return cls(graph, costs, [0.0] * len(graph.prunable), 1.0, low, high, how.draws)
        if how.around == "criterion":
            importance = context.rate(graph)
            values = [importance[edge] for edge in graph.prunable]
        else:
            values = _strength_per_cost(net, budget)
        ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        worth = (ranks - ranks.mean()) / max(ranks.std(), 1e-12)
        return cls(graph, costs, worth.tolist(), how.noise, low, high, how.draws)

    def __call__(self, random: np.random.Generator, number: int) -> Graph:
        """Return the sub-network of draw `number` of a step."""
        place = (number + random.random()) / self.parts
        budget = Budget(self.graph, self.costs, int(self.low + place * (self.high - self.low)), whole=False)
        ranks = np.asarray(self.worth) + self.noise * random.standard_normal(len(self.worth))
        order = [self.graph.prunable[i] for i in np.argsort(ranks, kind="stable")]
        return budget.within(self.graph, order)


def _strength_per_cost(net: GraphNet, budget: Budget) -> list[float]:
    """Return the strength of each prunable edge, relative to the mean into its node and to the root of its cost."""
    weight = cost_weights(net.graph, budget, 0.5)
    strength, groups = strengths(net).cpu(), rivals(net.graph)
    mean = group_sums(strength, groups) / group_sums(torch.ones_like(strength), groups)
    costly = torch.tensor([weight[edge] for edge in net.graph.prunable])
    values: list[float] = (strength / (mean * costly).clamp(min=1e-12)).tolist()
    return values


@dataclass(frozen=True)
class Scaled:
    """An optimizer with its learning rate multiplied by a factor.

    Attributes:
        own: the optimizer.
        factor: what its learning rate is multiplied by.
    """

    own: OptimizerLike
    factor: float

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over these parameters."""
        return self.own.build(parameters)

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the scaled learning rate at a fractional epoch."""
        return self.factor * self.own.lr_at(epoch, epochs)
