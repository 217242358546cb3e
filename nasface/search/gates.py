"""Search by hard-concrete gates, whose expected cost a Lagrange multiplier brings to a budget (Louizos et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.func import functional_call

from nasface.bounds import Epochs, Rate, Share, Size, Weight
from nasface.context import Context
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.net import GraphNet
from nasface.search.budget import Budget, sub_graph, switch_off
from nasface.step import Batch, Optimizer, Phase

# temperature and stretch of the hard-concrete distribution, as in section 4 of Louizos et al. 2018
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
# Weight of the square of the excess (an augmented Lagrangian), which damps the swings of the multiplier.
STIFFNESS = 20.0
RAMP = 0.8  # share of the epochs on the gates in which the allowed cost falls to the budget
WEAKEST = 0.1  # least gate of an edge that is kept, so that its weights still learn


@dataclass(frozen=True)
class GateSearcher:
    """Trains a random gate on each edge together with the weights, with a Lagrange multiplier for a budget of MACs.

    A gate is drawn in every step, is exactly zero with some probability, and leaves a sub-network, which is what the
    step computes. When the gates are settled, those most likely to be open that the budget allows are opened for good,
    and the weights of this sub-network are trained for the epochs that are left. With a budget, it is the result.

    Attributes:
        macs: budget: the largest number of MACs of the whole network.
        share: budget: the largest share of the prunable MACs.
        penalty: without a budget, the weight of the expected share of all MACs, relative to the loss of the task.
        settle: share of the epochs after which the gates are settled.
        open: probability that a gate is not zero when the search begins.
        gate_lr: learning rate of Adam for the gates.
        gate_share: fraction of the training faces in an epoch on the gates.
        dual_lr: learning rate of the multiplier: how much a step adds to it if the expected cost exceeds what is
            allowed by all that has to be saved.
        warmup_epochs: number of first epochs that train only the weights, with all gates open.
    """

    macs: Size | None = None
    share: Share | None = None
    penalty: Weight = 1.0
    settle: Share = 0.7
    open: Annotated[float, Interval(gt=0.5, lt=1)] = 0.95
    gate_lr: Rate = 0.1
    gate_share: Share = 0.25
    dual_lr: Rate = 0.03
    warmup_epochs: Epochs = 0

    def search(self, net: GraphNet, context: Context) -> Graph | None:
        """Train gates and weights in turn; return the sub-network that meets the budget, or None without a budget."""
        wanted = Budget.of(net.graph, context.costs, self.share, self.macs)
        budget = wanted or Budget.none(net.graph, context.costs)
        gated = Gated(net, self.open)
        settled_at = max(self.warmup_epochs + 1, round(self.settle * context.epochs))
        cost = ExpectedCost(net.graph, budget)

        def gate_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            task = context.loss(gated.sampled(batch.images_B3HW, batch.seed), batch)
            expected = cost(gated.probabilities())
            if wanted is None:
                pressure = self.penalty * expected / budget.full
            else:
                allowed = budget.schedule(batch.progress / RAMP)
                pressure = gated.pressure((expected - allowed) / max(budget.full - budget.limit, 1), self.dual_lr)
            # relative to the loss of the task, so that its unit does not matter
            loss = task + task.detach() * pressure
            return {"loss": loss, "task": task, "expected_macs": expected, "multiplier": gated.multiplier.clone()}

        def weight_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            epoch = batch.progress * context.epochs + 1e-6  # rounding must not put a step into the epoch before
            if epoch >= settled_at:
                gated.settle(budget, wanted is not None)
            images = batch.images_B3HW
            heatmaps = net(images) if epoch < self.warmup_epochs else gated.sampled(images, batch.seed)
            return {"loss": context.loss(heatmaps, batch)}

        gates, adam, span = (gated.log_alpha,), Optimizer(lr=self.gate_lr), (self.warmup_epochs, settled_at)
        context.fit(
            [
                Phase("gates", gates, adam, gate_step, self.gate_share, *span, varies=True),
                Phase("weights", tuple(net.parameters()), context.optimizer, weight_step, varies=True),
            ],
            net=gated,
        )
        gated.settle(budget, wanted is not None)
        switch_off(net, gated.kept)
        return gated.kept if wanted is not None else None


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a hard-concrete gate is not zero (equation 12 of Louizos et al. 2018)."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def drawn_gates(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Return gates from 0 to 1 for numbers drawn uniformly from (0, 1) (equation 11)."""
    concrete = torch.sigmoid((uniform.log() - (-uniform).log1p() + log_alpha) / BETA)
    return (concrete * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def settled_gates(log_alpha: Tensor) -> Tensor:
    """Return the gates without noise (equation 13)."""
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class Gated(nn.Module):
    """A supernet with a gate on each prunable edge. All that a search has to remember is in its state.

    Args:
        net: the supernet.
        opened: initial probability that a gate is not zero.

    Attributes:
        net: the supernet.
        log_alpha: (number of prunable edges,) location of each gate.
        multiplier: the Lagrange multiplier.
        is_settled: whether the gates no longer change.
        on: (number of prunable edges,) which edges are kept, once the gates are settled.
    """

    multiplier: Tensor
    is_settled: Tensor
    on: Tensor
    _free: Tensor

    def __init__(self, net: GraphNet, opened: float) -> None:
        super().__init__()
        device, count = net.alpha.device, len(net.graph.prunable)
        start = math.log(opened / (1 - opened)) + BETA * math.log(-GAMMA / ZETA)
        self.net = net
        self.log_alpha = nn.Parameter(torch.full((count,), start, device=device))
        self.register_buffer("multiplier", torch.zeros((), device=device))
        self.register_buffer("is_settled", torch.zeros((), dtype=torch.bool, device=device))
        self.register_buffer("on", torch.ones(count, dtype=torch.bool, device=device))
        free = [i for i, edge in enumerate(net.graph.edges) if edge not in net.graph.fixed]
        self.register_buffer("_free", torch.tensor(free, dtype=torch.long, device=device), persistent=False)

    @property
    def kept(self) -> Graph:
        """The closed sub-graph of the edges that are on."""
        return sub_graph(self.net.graph, self.on.tolist())

    def probabilities(self) -> Tensor:
        """Return (number of prunable edges,) the probability that each gate is not zero."""
        return open_probability(self.log_alpha)

    def pressure(self, excess: Tensor, rate: float) -> Tensor:
        """Return the augmented Lagrangian's term for an excess of the expected cost, and move the multiplier.

        With the multiplier m and the stiffness c, it is m * excess + c / 2 * excess^2. The budget is an equality: what
        it allows is also used, and m becomes negative if gates close too fast.
        """
        before = self.multiplier.clone()
        self.multiplier.add_(rate * excess.detach())
        return before * excess + 0.5 * STIFFNESS * excess.square()

    def sampled(self, images_B3HW: Tensor, seed: int) -> Tensor:
        """Compute heatmaps with gates drawn from a seed, or by the kept sub-network once the gates are settled."""
        if self.is_settled:
            out: Tensor = self.net(images_B3HW, graph=self.kept)
            return out
        random = torch.Generator().manual_seed(seed)
        uniform = torch.rand(self.log_alpha.shape, generator=random).clamp(1e-6, 1 - 1e-6)
        return self._run(images_B3HW, drawn_gates(self.log_alpha, uniform.to(self.log_alpha.device)))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Compute heatmaps without noise."""
        if self.is_settled:
            return self.sampled(images_B3HW, 0)
        return self._run(images_B3HW, settled_gates(self.log_alpha))

    def settle(self, budget: Budget, forced: bool = True) -> None:
        """Decide for good which edges are kept, and multiply their factors by their gates. A second call does nothing.

        Args:
            budget: the edges that are most likely to be open are kept, as many as it allows.
            forced: False to drop no edge whose gate is not zero.
        """
        if self.is_settled:
            return
        graph, gates = self.net.graph, settled_gates(self.log_alpha.detach())
        at = dict(zip(graph.prunable, self.log_alpha.tolist(), strict=True))
        order = sorted(graph.prunable, key=at.__getitem__)
        closed = {edge for edge, gate in zip(graph.prunable, gates.tolist(), strict=True) if gate == 0}
        kept = budget.within(graph, order) if forced else budget.drop(graph, [e for e in order if e in closed])
        left = set(kept.prunable)
        with torch.no_grad():
            self.on.copy_(torch.tensor([edge in left for edge in graph.prunable]))
            self.net.alpha.mul_(torch.where(self.on, gates.clamp(min=WEAKEST), torch.zeros_like(gates)))
            self.is_settled.fill_(True)

    def _run(self, images_B3HW: Tensor, gates: Tensor) -> Tensor:
        """Run the sub-network of the gates that are not zero, or the whole network if they disconnect it."""
        graph = self.net.graph
        try:
            run = sub_graph(graph, (gates.detach() > 0).tolist())
        except GraphError:
            run = graph
        gate = torch.ones(len(graph.edges), device=gates.device).index_put((self._free,), gates)
        out: Tensor = functional_call(self.net, {"gate": gate}, (images_B3HW,), {"graph": run})
        return out


class ExpectedCost:
    """The expected MACs of a sub-network, whose edges are kept independently of each other, as a function of torch.

    A part counts with the probability that some path from an input reaches it, times the probability that some path
    leads from it to an output. Both are computed node by node, as if the ways into a node did not share edges. This is
    exact if they do not, and whenever each probability is 0 or 1; then the cost is that of the closed sub-graph. The
    head counts as a quadratic function of the outputs that are reached, which is exact for heads of one or two
    convolutions. A draw that connects nothing counts as the stem alone.

    Args:
        graph: the graph from which the edges are drawn.
        budget: says whether the whole network counts, and what its parts cost.
    """

    def __init__(self, graph: Graph, budget: Budget) -> None:
        self.graph, self.budget = graph, budget
        costs, whole = budget.costs, budget.whole
        free = set() if whole else set(graph.inputs)
        self._fixed = costs.stem.macs if whole else 0
        self._nodes = {n.id: 0 if n.id in free else costs.nodes[n.id].macs for n in graph.nodes}
        self._edges = {edge: costs.edges[edge].macs for edge in graph.edges}
        self._children: dict[str, list[str]] = {n.id: [] for n in graph.nodes}
        for src, dst in graph.edges:
            self._children[src].append(dst)
        self._head: dict[tuple[str, ...], int] = {}
        if whole:
            self._head = {(name,): costs.head((name,)).macs for name in graph.outputs}
            for a, b in combinations(graph.outputs, 2):
                self._head[a, b] = costs.head((a, b)).macs - self._head[a,] - self._head[b,]

    def __call__(self, probabilities: Tensor) -> Tensor:
        """Return the expected MACs.

        Args:
            probabilities: (number of prunable edges,) the probability that each is kept.
        """
        graph, one = self.graph, probabilities.new_ones(())
        chance = dict.fromkeys(graph.fixed, one) | dict(zip(graph.prunable, probabilities.unbind(), strict=True))
        reached: dict[str, Tensor] = {}
        for node in graph.nodes:
            ways = [chance[src, node.id] * reached[src] for src in graph.parents[node.id]]
            reached[node.id] = one if node.id in graph.inputs else _any(ways, one)
        useful: dict[str, Tensor] = {}
        for node in reversed(graph.nodes):
            ways = [chance[node.id, dst] * useful[dst] for dst in self._children[node.id]]
            useful[node.id] = one if node.id in graph.outputs else _any(ways, one)
        parts = [reached[name] * useful[name] * macs for name, macs in self._nodes.items()]
        parts += [reached[e[0]] * chance[e] * useful[e[1]] * macs for e, macs in self._edges.items()]
        parts += [torch.stack([reached[name] for name in names]).prod() * macs for names, macs in self._head.items()]
        return torch.stack(parts).sum() + self._fixed


def _any(ways: list[Tensor], one: Tensor) -> Tensor:
    """Return the probability that at least one of several independent ways is open."""
    return one - (one - torch.stack(ways)).prod() if ways else one * 0
