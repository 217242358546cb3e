"""A family of networks from one search: a trunk that shrinks while the learning rate is high, annealed at each budget.

Networks of several sizes that are trained one by one each pay for the long part of a training in which the learning
rate is high. Here, they share it: one network, the trunk, is pruned from budget to budget at the highest learning rate,
and a copy of it is annealed at each of them. What a network of the family takes for itself is the short last part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated

import torch
from annotated_types import Interval, Len
from torch import nn

from nasface.bounds import Epochs, Macs
from nasface.context import Context
from nasface.errors import GraphError
from nasface.net import GraphNet, slim_net
from nasface.search.budget import switch_off
from nasface.search.shrinking import Shrinking, between, check_budget
from nasface.step import OptimizerLike, Phase

_MOMENTS = 1000  # of a schedule at which its learning rate is looked up to find the highest one


@dataclass(frozen=True)
class FamilySearcher:
    """Trains a network for each of several budgets: a trunk that shrinks at the highest learning rate, and its copies.

    The recipe's epochs are those of the trunk. The schedule of the learning rate is that of one network: the rise and
    the highest value are the trunk's, and what follows the highest value is stretched over the epochs of each copy.
    The networks are nested, and edges are dropped by the recipe's criterion.

    Attributes:
        budgets: multiply-adds of the whole network, one for each network of the family.
        anneal: number of epochs for which each network is trained on its own.
        start: the part of the trunk's epochs before the first edges go. In the rest of them, the budgets are met one
            after the other at even distances; the trunk shrinks in the first half of each distance.
    """

    budgets: Annotated[tuple[Macs, ...], Len(1, 1000)]
    anneal: Epochs = 10
    start: Annotated[float, Interval(ge=0, lt=1)] = 0.5

    def search(self, net: GraphNet, context: Context) -> dict[str, GraphNet]:
        """Train the networks, and return them by their budgets, such as '8M', the largest first.

        Raises:
            GraphError: if a budget cannot be met without disconnecting the network, or if there are fewer epochs than
                budgets after `start`.
        """
        budgets = sorted(set(self.budgets), reverse=True)
        check_budget(net, context, budgets[-1])  # before the training
        trunk = _Trunk(Shrinking(net), context, self.anneal)
        networks = {}
        for macs, span in zip(budgets, self.spans(context.epochs, len(budgets)), strict=True):
            name = in_words(macs)
            trunk.train_to(macs, span, round(self.start * context.epochs), name)
            networks[name] = trunk.annealed(name)
        switch_off(net, trunk.model.graph)
        return networks

    def spans(self, epochs: int, count: int) -> list[range]:
        """Return the epochs of the trunk, counted from 0, that lead to each of `count` budgets."""
        first = round(self.start * epochs)
        if epochs - first < count:
            raise GraphError(
                f"the trunk of the searcher 'family' has {epochs - first} of its {epochs} epochs to meet {count} "
                f"budgets in; give search.epochs at least {math.ceil(count / (1 - self.start))}, or a smaller start"
            )
        ends = [first + round((epochs - first) * (i + 1) / count) for i in range(count)]
        return [range(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def in_words(macs: float) -> str:
    """Return a number of MACs as names and folders have it, such as '8M' or '1.2G'; no two numbers share a name."""
    unit, letter = (10**9, "G") if macs >= 1e9 else (10**6, "M")
    exact = Decimal(repr(float(macs))) / unit
    short = f"{macs / unit:g}"
    return (short if Decimal(short) == exact else str(exact)) + letter


@dataclass
class _Trunk:
    """The network that shrinks, with the state of its optimizer.

    Attributes:
        model: the network.
        context: the data, the criterion and the schedule.
        anneal: epochs in which the learning rate falls after the trunk's.
        optimizer: the torch optimizer of its last training.
    """

    model: Shrinking
    context: Context
    anneal: int
    optimizer: torch.optim.Optimizer | None = None

    def train_to(self, macs: float, span: range, start: int, name: str) -> None:
        """Train through some epochs, and shrink to a budget in the first half of those from `start` on."""
        full = self.context.costs.total(self.model.graph).macs
        first = max(start - span.start, 0)
        steps = max(1, (len(span) - first) // 2)

        def begin(epoch: int) -> None:
            self.model.meet(between(full, macs, (epoch - first + 1) / steps), self.context)

        schedule = _Carried(self.context.optimizer, self.epochs, (span.start, span.stop), self.peak, self.optimizer)
        phase = Phase("weights", tuple(self.model.parameters()), schedule, self.context.step, begin=begin)
        self.context.fit([phase], len(span), f"trunk-{name}", self.model)
        self.optimizer = schedule.built[-1]

    def annealed(self, name: str) -> GraphNet:
        """Return the network as it is now, trained on its own until its learning rate has fallen."""
        copy = deepcopy(self.model)
        schedule = _Carried(self.context.optimizer, self.epochs, (self.peak, self.epochs), self.epochs, self.optimizer)
        phase = Phase("weights", tuple(copy.parameters()), schedule, self.context.step)
        self.context.fit([phase], self.anneal, f"anneal-{name}", copy)
        return slim_net(copy.net, copy.graph)[0]

    @property
    def epochs(self) -> int:
        """The length of the whole schedule."""
        return self.context.epochs + self.anneal

    @property
    def peak(self) -> float:
        """The moment of the highest learning rate, in epochs."""
        moments = [self.epochs * i / _MOMENTS for i in range(_MOMENTS)]
        return max(moments, key=lambda moment: self.context.optimizer.lr_at(moment, self.epochs))


@dataclass(frozen=True)
class _Carried:
    """A part of a schedule, for an optimizer that goes on with the state of an earlier one.

    Attributes:
        whole: the optimizer with the whole schedule, of `epochs` epochs.
        part: the part of the schedule, from epoch to epoch, over which the training stretches.
        last: the moment at which the learning rate stays as it is.
        earlier: the torch optimizer with the state, or None for a new one.
        built: the torch optimizers that were built.
    """

    whole: OptimizerLike
    epochs: int
    part: tuple[float, float]
    last: float
    earlier: torch.optim.Optimizer | None
    built: list[torch.optim.Optimizer] = field(default_factory=list)

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over these parameters."""
        built = self.whole.build(parameters)
        if self.earlier is not None:
            built.load_state_dict(deepcopy(self.earlier.state_dict()))  # torch would share the moments
        self.built.append(built)
        return built

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the learning rate at a fractional epoch of a training of so many epochs."""
        start, end = self.part
        return self.whole.lr_at(min(start + (end - start) * epoch / epochs, self.last), self.epochs)
