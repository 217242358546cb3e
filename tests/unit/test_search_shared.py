"""Shared training: the imitated heatmaps, the drawn sub-networks, and what runs first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_search_prox import searched
from tiny import changed, faces, fixed_net, smallest, state, supernet

from nasface import plugins
from nasface.errors import GraphError, RecipeError
from nasface.rundir import RunDir
from nasface.search.shared import Draw, SharedSearcher, imitation
from nasface.stages.search.run import search
from nasface.step import Batch
from nasface.task import HeatmapTask, targets
from nasface.testing import check_searcher, scramble, trial
from tests.refusal import refused
from tests.searched import MACHINE, caching_in, recipe

FIRST = {"alpha_lr": 1e-3}


def batch() -> Batch:
    return next(iter(faces(4).plain(4)))


def test_imitation_never_rewards_a_difference():
    """Where the loss is concave, heatmaps on either side of the whole network's would be better than those."""
    given = batch()
    goal = targets(given.landmarks_BL2, (8, 8), 4.0, 1.5)
    loss, whole, step = HeatmapTask(32, kind="adaptive_wing").loss, 0.6 * goal, 0.05 * (goal > 0.8)
    assert 0.5 * (loss(whole + step, given) + loss(whole - step, given)) < loss(whole, given)
    assert imitation(loss, whole + step, whole, given) == 0


def test_imitation_is_the_weighted_square_of_the_difference_whatever_the_targets():
    part, whole = torch.randn(4, 4, 8, 8, requires_grad=True), torch.randn(4, 4, 8, 8)
    found = imitation(HeatmapTask(32, 1.5, weight=7.0).loss, part, whole, batch())
    expected = 7.0 * (part - whole).square().mean()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    (slope,), (wanted,) = torch.autograd.grad(found, part), torch.autograd.grad(expected, part)
    assert torch.allclose(slope, wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("build", [supernet, fixed_net])
@pytest.mark.parametrize("around", ["criterion", "strength", "random"])
def test_draws_are_connected_and_fill_the_range_of_budgets(build, around):
    net, context = trial(build(), num_landmarks=4, input_size=32)
    scramble(net)
    costs = context.costs
    full = costs.prunable(net.graph).macs
    draw = Draw.near(net, context, SharedSearcher(draws=2, shares=(0.3, 0.9), around=around))
    found: dict[int, list[float]] = {0: [], 1: []}
    kinds = set()
    for seed in range(16):
        for number, shares in found.items():
            kept = draw(np.random.default_rng(seed), number)
            assert kept == net.graph.keep(kept.edges)
            assert seed or kept == draw(np.random.default_rng(seed), number)
            shares.append(costs.prunable(kept).macs / full)
            kinds.add(kept.edges)
    middle = (draw.low + draw.high) / 2 / full
    assert max(found[0]) <= middle < max(found[1]) <= 0.9  # the second draw takes the upper half
    assert np.mean(found[1]) > np.mean(found[0]) + 0.1
    assert len(kinds) > 10


@pytest.mark.slow
@pytest.mark.parametrize("around", ["criterion", "strength"])
def test_draws_prefer_strong_edges_and_noise_blurs_that(around):
    net, context = trial(supernet(), num_landmarks=4, input_size=32)
    family = net.graph.random_subgraph(np.random.default_rng(5), 0.5)
    strong = set(family.prunable)
    with torch.no_grad():
        net.alpha.copy_(torch.tensor([1.0 if edge in strong else 0.01 for edge in net.graph.prunable]))
    share = context.costs.prunable(family).macs / context.costs.prunable(net.graph).macs
    common = {}
    for noise in (0.0, 0.5, 20.0):
        how = SharedSearcher(shares=(share, share), noise=noise, around=around)
        draw = Draw.near(net, context, how)
        drawn = [set(draw(np.random.default_rng(seed), 0).edges) for seed in range(12)]
        common[noise] = np.mean([len(strong & edges) / len(strong | edges) for edges in drawn])
        if noise == 0:
            assert all(edges == drawn[0] for edges in drawn)
    assert common[0.0] >= common[0.5] > common[20.0]


@pytest.mark.slow
def test_sub_networks_learn_too_and_leave_the_statistics_alone():
    """With an imitation of weight 0 and one of weight 1, the weights differ; the draws are the same."""
    plain, _ = searched(SharedSearcher(imitation=0.0), smallest(), epochs=1)
    taught, none = searched(SharedSearcher(imitation=1.0), smallest(), epochs=1)
    assert none is None
    assert changed(state(plain), taught)
    batches = {name for name in state(plain) if name.endswith("num_batches_tracked")}
    counts = {int(state(plain)[name]) for name in batches}
    assert counts == {4}  # one update per step of the whole network


@pytest.mark.slow
def test_first_runs_l1_for_the_epochs_before():
    net, context = trial(supernet(), num_landmarks=4, input_size=32, epochs=4)
    rows: list[tuple[str, int, str]] = []

    def fit(phases, epochs=None, title=None, net=None):
        found = context.fit(phases, epochs=epochs, title=title, net=net)
        rows.extend((row["stage"], row["epoch"], row["phase"]) for row in found)
        return found

    SharedSearcher(first=FIRST).search(net, replace(context, fit=fit))
    assert rows == [
        *(("search", epoch, phase) for epoch in (1, 2, 3) for phase in ("alpha", "weights")),
        ("shared", 1, "shared"),
    ]


@pytest.mark.slow
def test_a_stopped_search_continues_bit_for_bit(tmp_path):
    searcher = SharedSearcher(draws=2)
    whole, _ = searched(searcher, smallest(), epochs=3)
    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        searched(searcher, smallest(), epochs=3, checkpoint=checkpoint, stop_at=6)
    again, _ = searched(searcher, smallest(), epochs=3, checkpoint=checkpoint)
    assert not changed(state(whole), again)


def test_options_that_make_no_sense_are_refused():
    net, context = trial(supernet(), num_landmarks=4, input_size=32, epochs=2)
    with refused(RecipeError, "2 epochs", "search.options.epochs", "l1"):
        SharedSearcher(first=FIRST, epochs=2).search(net, context)
    with refused(RecipeError, "search.options.shares", "0.9", "0.3"):
        SharedSearcher(shares=(0.9, 0.3)).search(net, context)
    with refused(GraphError, "prunable", "search.options"):
        SharedSearcher(shares=(0.001, 0.002)).search(net, context)
    shared = "nasface.search.shared:SharedSearcher"
    with refused(RecipeError, "search.options.first.penalti", "penalty"):
        plugins.searcher(shared, {"first": {"penalti": 1.0}})
    with refused(RecipeError, "search.options.first.penalty", "0"):
        plugins.searcher(shared, {"first": {"penalty": -1.0}})


@pytest.mark.slow
@pytest.mark.parametrize(
    "searcher", [SharedSearcher(), SharedSearcher(draws=2, around="random", first=FIRST, epochs=1)]
)
def test_it_conforms(searcher):
    check_searcher(searcher, smallest(), input_size=32)
    check_searcher(searcher, fixed_net(modules=(1,)), input_size=32)


@pytest.mark.slow
def test_in_a_run_folder_after_l1(tmp_path):
    run = RunDir(tmp_path / "run")
    wanted = (
        "search.name=nasface.search.shared:SharedSearcher",
        "search.options={first: {alpha_share: 0.5}, epochs: 1}",
        "finetune.epochs=0",
    )
    with caching_in(tmp_path):
        search(recipe(*wanted), run, MACHINE)
    rows = pd.read_csv(run.metrics_csv)
    assert list(rows.stage) == ["search", "search", "search-shared"]
    assert run.slim.exists()
