"""Proximal search: factors are trained under soft-thresholding, which makes them exactly zero, down to a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasface.bounds import Epochs, Portion, Rate, Share, Size, Weight
from nasface.context import Context
from nasface.eager import without_compiler
from nasface.graph import Edge, Graph
from nasface.net import GraphNet, gains
from nasface.search.budget import Budget, cost_weights, group_sums, rivals, sub_graph, switch_off
from nasface.step import Batch, Phase

FLOOR = 1e-3  # strength of an edge that must stay, relative to the mean of its group: zero would mean that it is gone


@dataclass(frozen=True)
class ProxSearcher:
    """Trains factors by proximal steps, which switch edges off for good, in turn with weights, down to a budget.

    What shrinks is the strength of an edge: the factor times the gain of the BN that ends it. Factors keep their sign.
    The strengths of the edges into a node keep their sum, so that edges compete and no node fades as a whole. Edges
    that are off cost nothing in the epochs that follow. With a budget, the sub-network that is left is the result.

    Attributes:
        macs: budget: the largest number of MACs of the whole network.
        share: budget: the largest share of the prunable MACs.
        penalty: each step subtracts the learning rate times `penalty` times the mean strength into the node, and times
            a weight that depends on the cost of the edge.
        cost_power: this weight is proportional to the MACs that an edge is charged, to this power.
        ramp: share of the epochs on the factors in which the penalty rises linearly and the MACs fall to the budget.
        alpha_lr: learning rate of Adam for the factors, constant during the ramp and then falling to zero.
        alpha_share: fraction of the training faces in an epoch on the factors.
        warmup_epochs: number of first epochs that train only the weights, before the factors are trained.
    """

    macs: Size | None = None
    share: Share | None = None
    penalty: Weight = 1.0
    cost_power: Portion = 0.5
    ramp: Share = 0.7
    alpha_lr: Rate = 2e-3
    alpha_share: Share = 0.25
    warmup_epochs: Epochs = 0

    def search(self, net: GraphNet, context: Context) -> Graph | None:
        """Train factors and weights in turn; return the sub-network that meets the budget, or None without a budget."""
        start = sub_graph(net.graph, (net.alpha != 0).tolist())
        budget = Budget.of(start, context.costs, self.share, self.macs)
        edges = ShrinkingFactors(net, budget or Budget.none(start, context.costs), self, budget is not None)

        def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            return {"loss": context.loss(model(batch.images_B3HW, graph=edges.kept), batch)}

        weights = tuple(parameter for name, parameter in net.named_parameters() if name != "alpha")
        factors = Proximal(self, edges.shrink)
        context.fit(
            [
                Phase("alpha", (net.alpha,), factors, step, self.alpha_share, self.warmup_epochs, varies=True),
                Phase("weights", weights, context.optimizer, step),
            ]
        )
        edges.finish()
        return edges.kept if budget is not None else None


def soft_threshold(strength: Tensor, threshold: Tensor, groups: Tensor) -> Tensor:
    """Return max(strength - threshold, 0), scaled so that each group of edges keeps its sum.

    A group of which nothing would be left stays as it is.

    Args:
        strength: (number of prunable edges,) non-negative.
        threshold: the same shape, what is subtracted from each.
        groups: see `nasface.search.budget.rivals`.
    """
    shrunk = (strength - threshold).clamp(min=0)
    left = group_sums(shrunk, groups)
    return torch.where(left > 0, shrunk * group_sums(strength, groups) / left.clamp(min=1e-30), strength)


class ShrinkingFactors:
    """The factors of a network under proximal steps. Which edges are off is read from them: their factor is zero.

    Args:
        net: the supernet.
        budget: what is to be left of it.
        how: options.
        scheduled: whether edges also have to go by a schedule if no threshold reaches them.
    """

    def __init__(self, net: GraphNet, budget: Budget, how: ProxSearcher, scheduled: bool) -> None:
        self.net, self.budget, self.how, self.scheduled = net, budget, how, scheduled
        self.groups = rivals(net.graph).to(net.alpha.device)
        self._last: tuple[tuple[bool, ...], Graph] | None = None

    @property
    def kept(self) -> Graph:
        """The closed sub-graph of the edges that are on."""
        return self._on_in(self.net.alpha.detach())

    def shrink(self, before: Tensor, lr: float, done: float) -> None:
        """Take the proximal step, in place.

        Args:
            before: (number of prunable edges,) the factors before the gradient step.
            lr: its learning rate.
            done: share of the epochs on the factors that have passed.
        """
        was, ramp = self._on_in(before), min(done / self.how.ramp, 1.0)
        sign, gain, unit, weight = before.sign(), gains(self.net), self._unit(before), self._weights(was)
        strength = (self.net.alpha.detach() * sign).clamp(min=0) * gain
        pressing = self.budget.measure(was) > self.budget.limit
        threshold = (lr * self.how.penalty * ramp * pressing) * weight * unit
        shrunk = soft_threshold(strength, threshold, self.groups)
        kept = was
        if pressing:
            order = self._order(strength / (weight * unit), was)
            left = dict(zip(self.net.graph.prunable, shrunk.tolist(), strict=True))
            kept = self._on_schedule(self.budget.drop(was, [edge for edge in order if left[edge] == 0]), order, ramp)
        self._write(kept, sign * shrunk.maximum(FLOOR * unit) / gain)
        if kept.outputs != was.outputs:
            switch_off(self.net, kept)

    def finish(self) -> None:
        """Meet the budget, however few steps there were, and switch off everything else."""
        alpha, kept = self.net.alpha.detach().clone(), self.kept
        order = self._order(alpha.abs() * gains(self.net) / (self._weights(kept) * self._unit(alpha)), kept)
        kept = self._on_schedule(kept, order, 1.0)
        self._write(kept, alpha)
        switch_off(self.net, kept)

    def _on_in(self, alpha: Tensor) -> Graph:
        on = tuple((alpha != 0).tolist())
        if self._last is None or self._last[0] != on:
            self._last = on, sub_graph(self.net.graph, on)
        return self._last[1]

    def _on_schedule(self, kept: Graph, order: Sequence[Edge], ramp: float) -> Graph:
        return self.budget.within(kept, order, self.budget.schedule(ramp)) if self.scheduled else kept

    def _unit(self, alpha: Tensor) -> Tensor:
        """Return for each edge the sum of the strengths in its group, divided by the group's size in the supernet."""
        sums = group_sums(alpha.abs() * gains(self.net), self.groups)
        return sums / group_sums(torch.ones_like(alpha), self.groups)

    def _weights(self, kept: Graph) -> Tensor:
        found = cost_weights(kept, self.budget, self.how.cost_power)
        # the floor keeps the place of an edge that costs nothing finite in the order
        values = [max(found.get(edge, 1.0), 1e-6) for edge in self.net.graph.prunable]
        return torch.tensor(values, device=self.net.alpha.device)

    def _order(self, reach: Tensor, kept: Graph) -> list[Edge]:
        """Return the prunable edges of `kept`, first those that a rising threshold reaches first."""
        at = dict(zip(self.net.graph.prunable, reach.tolist(), strict=True))
        return sorted(kept.prunable, key=at.__getitem__)

    def _write(self, kept: Graph, alpha: Tensor) -> None:
        on = set(kept.prunable)
        mask = torch.tensor([edge in on for edge in self.net.graph.prunable], device=alpha.device)
        with torch.no_grad():
            self.net.alpha.copy_(torch.where(mask, alpha, torch.zeros_like(alpha)))


@dataclass
class Proximal:
    """Adam for the factors, each step of which is followed by a proximal step.

    Attributes:
        how: learning rate, and the share of the epochs after which it falls.
        prox: takes the factors before the step, the learning rate, and the share of the epochs that have passed.
        done: this share; the training loop asks for the learning rate before each step, which brings it up to date.
    """

    how: ProxSearcher
    prox: Callable[[Tensor, float, float], None]
    done: float = 0.0

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over the factors."""
        return _ProximalAdam(parameters, self)

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the learning rate at a fractional epoch, and remember how much of the phase has passed."""
        self.done = epoch / epochs
        left = (1 - self.done) / (1 - self.how.ramp) if self.how.ramp < 1 else 1.0
        return self.how.alpha_lr * min(1.0, left)


class _ProximalAdam(without_compiler(torch.optim.Adam)):  # type: ignore[misc]
    def __init__(self, parameters: Sequence[nn.Parameter], own: Proximal) -> None:
        super().__init__(parameters, lr=own.how.alpha_lr)
        self._own = own

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a gradient step and then a proximal step."""
        group = self.param_groups[0]
        (alpha,) = group["params"]
        before = alpha.detach().clone()
        loss = super().step(closure)
        self._own.prox(before, group["lr"], self._own.done)
        return loss
