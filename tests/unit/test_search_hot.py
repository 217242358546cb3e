"""Prune while hot: the budget at every epoch, nested networks, and a stopped run that ends like any other."""

from __future__ import annotations

import pytest
import torch
from tiny import supernet

from nasface.cost import count_space
from nasface.errors import GraphError
from nasface.model.source import read_arch, read_factors
from nasface.net import edge_values, slim_net
from nasface.rundir import RunDir
from nasface.search.hot import HotSearcher
from nasface.search.shrinking import Shrinking
from nasface.stages.search.run import search
from nasface.testing import check_searcher, trial
from tests.refusal import refused
from tests.searched import MACHINE, caching_in, recipe, stopping_after


def test_the_budget_falls_geometrically_between_start_and_end():
    searcher = HotSearcher(macs=100, start=0.2, end=0.5)
    limits = [searcher.limit(epoch, 10, 1600) for epoch in range(10)]
    assert limits[:2] == [1600, 1600]
    assert limits[2:6] == pytest.approx([800, 400, 200, 100])
    assert limits[6:] == pytest.approx([100] * 4)


def test_a_budget_that_is_met_at_once():
    searcher = HotSearcher(macs=100, start=0, end=0)
    assert [searcher.limit(epoch, 3, 400) for epoch in range(3)] == pytest.approx([100] * 3)
    late = HotSearcher(macs=100, start=1, end=1)
    assert late.limit(2, 3, 400) == pytest.approx(100)  # there is no epoch after the last one


def test_a_budget_below_every_network_is_refused_before_training():
    net, context = trial(supernet(), input_size=32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with refused(GraphError, "10 MACs"):
        HotSearcher(macs=10).search(net, context)
    with refused(GraphError, "start", "0.5", "0.2"):
        HotSearcher(macs=1e9, start=0.5, end=0.2).search(net, context)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.slow
def test_it_returns_a_network_within_the_budget_and_trains_no_more_than_that():
    space = supernet()
    check_searcher(HotSearcher(macs=0.7 * count_space(space, 5, 32).total(space.graph).macs), space, input_size=32)
    net, context = trial(space, input_size=32, epochs=4)
    budget = 0.6 * context.costs.total(net.graph).macs
    kept = HotSearcher(macs=budget, start=0.25, end=0.5).search(net, context)
    assert context.costs.total(kept).macs <= budget
    model = Shrinking(net)
    model.shrink(kept)
    slim, _ = slim_net(net, kept)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), slim.eval()(images))
    assert {edge for edge, value in edge_values(net).items() if value} == set(kept.prunable)


@pytest.mark.slow
def test_a_stopped_search_ends_with_the_same_network(tmp_path):
    wanted = recipe(
        "search.name=hot",
        "search.options={macs: 3.0e5}",
        "search.epochs=4",
        "finetune.epochs=0",
        "criterion.name=taylor",
    )
    whole, stopped = RunDir(tmp_path / "whole"), RunDir(tmp_path / "stopped")
    with caching_in(tmp_path):
        search(wanted, whole, MACHINE)
        with pytest.raises(KeyboardInterrupt):
            search(wanted, stopped, stopping_after(2))
        assert not stopped.slim.exists()
        search(wanted, stopped, MACHINE)
    assert len(read_arch(whole.arch).kept) < len(read_factors(whole.factors).importance)
    assert read_arch(stopped.arch).kept == read_arch(whole.arch).kept
    assert stopped.slim.read_bytes() == whole.slim.read_bytes()
