"""The proximal search: hand-computed steps, exact zeros, budgets, and resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import changed, diamond, faces, fixed_net, smallest, space_of, state, supernet

from nasface.context import Context
from nasface.cost import count_space
from nasface.data.augment import Augmentation
from nasface.engine import Progress, Settings, fit
from nasface.errors import GraphError, RecipeError
from nasface.graph import Graph
from nasface.net import GraphNet, slim_net
from nasface.rundir import RunDir
from nasface.search.budget import Budget, cost_weights
from nasface.search.prox import FLOOR, Proximal, ProxSearcher, ShrinkingFactors, soft_threshold
from nasface.space import SearchSpace
from nasface.stages.search.run import search
from nasface.step import Optimizer
from nasface.testing import check_searcher, trial
from tests.refusal import refused
from tests.searched import MACHINE, caching_in, recipe

FACES = faces(16)


def searched(
    searcher: Any, space: SearchSpace, epochs: int = 6, checkpoint: Path | None = None, stop_at: int = 0
) -> tuple[GraphNet, Graph | None]:
    """Search on noise with the engine's own loop; stop in the middle of step `stop_at`, if it is not 0."""
    net, context = trial(space, num_landmarks=4, input_size=32)
    steps: list[int] = []

    def advance() -> None:
        steps.append(1)
        if len(steps) == stop_at:
            raise KeyboardInterrupt

    def train(phases: Any, epochs: int = epochs, title: str | None = None, net: Any = net) -> Any:
        settings = Settings(epochs, 4, Augmentation(), seed=1)
        return fit(net, phases, FACES, settings, checkpoint=checkpoint, progress=Progress(advance=advance))

    context = replace(context, optimizer=Optimizer(lr=1e-3), epochs=epochs, fit=train)
    return net, searcher.search(net, context)


def context_of(space: SearchSpace) -> Context:
    return trial(space, num_landmarks=4, input_size=32)[1]


def test_soft_thresholding_by_hand():
    groups = torch.tensor([0, 0, 0, 1, 1])
    found = soft_threshold(torch.tensor([0.5, 0.3, 0.2, 1.0, 0.1]), torch.tensor([0.1, 0.1, 0.25, 0.2, 0.2]), groups)
    # 0.4, 0.2, 0 sum up to 0.6 and are scaled to 1.0; 0.8, 0 to 1.1
    assert torch.allclose(found, torch.tensor([0.4 / 0.6, 0.2 / 0.6, 0.0, 1.1, 0.0]))
    same = torch.tensor([0.1, 0.2])
    assert torch.equal(soft_threshold(same, torch.tensor([1.0, 1.0]), torch.zeros(2, dtype=torch.long)), same)


def test_a_proximal_step_by_hand():
    graph = diamond()
    net = GraphNet(space_of(graph), 4)
    costs = count_space(net.space, 4, 32)
    budget = Budget.none(graph, costs)
    how = ProxSearcher(penalty=2.0, cost_power=1.0, ramp=0.5)
    edges = ShrinkingFactors(net, budget, how, scheduled=False)
    before = torch.tensor([1.0, 1.0, 0.6, -0.4, 1.0, 0.2])  # a-b, a-c, b-d, c-d, c-x, x-e; the norms have a gain of 1
    after = torch.tensor([1.1, 0.9, 0.5, -0.5, 1.0, -0.1])  # after the gradient step; x-e has changed its sign
    with torch.no_grad():
        net.alpha.copy_(after)
    edges.shrink(before, lr=0.01, done=0.25)  # half of the ramp
    weight = torch.tensor([cost_weights(graph, budget, 1.0)[edge] for edge in graph.prunable])
    unit = torch.tensor([1.0, 1.0, 0.4, 0.4, 1.0, 0.4])  # b-d, c-d and x-e lead to outputs: 1.2 / 3
    left = (torch.tensor([1.1, 0.9, 0.5, 0.5, 1.0, 0.0]) - 0.01 * 2.0 * 0.5 * weight * unit).clamp(min=0)
    outputs = 1.0 / float(left[2] + left[3])
    expected = torch.tensor([1.1, 0.9, outputs * left[2], -outputs * left[3], 1.0, 0.0])  # groups of one keep all
    expected[4] = 0.0  # c-x leads nowhere without x-e
    assert torch.allclose(net.alpha, expected, atol=1e-6)
    assert edges.kept == graph.keep_prunable([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    with torch.no_grad():
        net.alpha += 0.1  # momentum
    edges.shrink(expected, lr=0.01, done=0.25)
    assert net.alpha[4] == net.alpha[5] == 0  # gone for good


@pytest.mark.slow
def test_an_edge_that_must_stay_keeps_a_little():
    graph = supernet().graph
    net = GraphNet(supernet(), 4)
    costs = count_space(net.space, 4, 32)
    budget = Budget(graph, costs, costs.total(graph).macs)  # is met
    before = net.alpha.detach().clone()
    with torch.no_grad():
        net.alpha[0] = -1.0
    ShrinkingFactors(net, budget, ProxSearcher(), scheduled=True).shrink(before, 0.01, 1.0)
    assert net.alpha.tolist()[0] == pytest.approx(FLOOR * float(before[0]))


def test_the_rate_of_the_factors_falls_after_the_ramp():
    optimizer = Proximal(ProxSearcher(alpha_lr=0.1, ramp=0.6), lambda before, lr, done: None)
    assert optimizer.lr_at(0, 10) == optimizer.lr_at(6, 10) == 0.1
    assert optimizer.lr_at(8, 10) == pytest.approx(0.05)
    assert optimizer.done == 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "share", "tolerance"),
    [(supernet, 0.75, 0.1), (supernet, 0.5, 0.1), (fixed_net, 0.6, 0.4)],  # fixed edges leave the latter few sizes
)
def test_a_share_is_reached_and_not_overshot(build, share, tolerance):
    space = build()
    costs = context_of(space).costs
    net, kept = searched(ProxSearcher(share=share, alpha_lr=0.02), space)
    assert kept is not None
    assert kept == space.graph.keep(kept.edges)
    assert (1 - tolerance) * share <= costs.prunable(kept).macs / costs.prunable(space.graph).macs <= share
    on = set(kept.prunable)
    assert [value != 0 for value in net.alpha.tolist()] == [edge in on for edge in space.graph.prunable]
    assert float(net.alpha.detach().min()) >= 0
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(net.eval()(images), slim_net(net, kept)[0](images), atol=1e-5)


@pytest.mark.slow
def test_a_budget_in_macs_of_the_whole_network():
    costs = context_of(supernet()).costs
    macs = int(0.8 * costs.total(supernet().graph).macs)
    _, kept = searched(ProxSearcher(macs=macs, alpha_lr=0.02), supernet())
    assert kept is not None
    assert 0.85 * macs <= costs.total(kept).macs <= macs


@pytest.mark.slow
def test_without_a_budget_the_penalty_decides_and_keeps_the_network_connected():
    left = {}
    for penalty in (0.0, 20.0, 500.0):
        net, kept = searched(ProxSearcher(penalty=penalty, alpha_lr=0.01, alpha_share=1.0), supernet(), epochs=3)
        assert kept is None
        on = [edge for edge, value in zip(net.graph.prunable, net.alpha.tolist(), strict=True) if value]
        assert net.graph.keep_prunable(on).prunable == tuple(on)
        left[penalty] = len(on)
    assert 21 == left[0.0] > left[20.0] > left[500.0]


def test_warm_up_leaves_the_factors_alone():
    net, context = trial(supernet(), num_landmarks=4, input_size=32)
    before = state(net)
    ProxSearcher(warmup_epochs=1).search(net, replace(context, fit=lambda phases: context.fit(phases[1:])))
    assert "alpha" not in changed(before, net)


@pytest.mark.slow
def test_a_stopped_search_continues_bit_for_bit(tmp_path):
    searcher = ProxSearcher(share=0.6, alpha_lr=0.02)
    whole, kept = searched(searcher, smallest())
    with pytest.raises(KeyboardInterrupt):
        searched(searcher, smallest(), checkpoint=tmp_path / "state.safetensors", stop_at=18)
    again, same = searched(searcher, smallest(), checkpoint=tmp_path / "state.safetensors")
    assert kept == same
    assert not changed(state(whole), again)


def test_budgets_out_of_reach_are_refused():
    with refused(GraphError, 10, "search.options"):
        searched(ProxSearcher(macs=10), supernet())
    with refused(RecipeError, "0.5", 10):
        searched(ProxSearcher(share=0.5, macs=10), supernet())


@pytest.mark.slow
@pytest.mark.parametrize("searcher", [ProxSearcher(), ProxSearcher(share=0.6)])
def test_it_conforms(searcher):
    check_searcher(searcher, smallest(), input_size=32)
    check_searcher(searcher, fixed_net(modules=(1,)), input_size=32)


@pytest.mark.slow
def test_in_a_run_folder_the_chosen_network_is_the_slim_one(tmp_path):
    run = RunDir(tmp_path / "run")
    searcher = "nasface.search.prox:ProxSearcher"
    wanted = (f"search.name={searcher}", "search.options={share: 0.6}", "finetune.epochs=0")
    with caching_in(tmp_path):
        search(recipe(*wanted), run, MACHINE)
        before = run.supernet.read_bytes(), run.slim.read_bytes()
        run.metrics.unlink()
        search(recipe(*wanted), run, MACHINE)  # from the checkpoint
    assert (run.supernet.read_bytes(), run.slim.read_bytes()) == before
    arch = json.loads(run.arch.read_text())
    assert arch["provenance"]["pruner"] == searcher
    assert arch["provenance"]["greatest_dropped_importance"] == 0
