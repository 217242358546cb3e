"""Families: the shared trunk and its schedule, nested networks within their budgets, folders, and stopped searches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from click.testing import CliRunner
from tiny import supernet
from torch import nn

import nasface
from nasface.cli import main
from nasface.cost import count_space
from nasface.errors import GraphError
from nasface.model.source import read_arch
from nasface.net import edge_values
from nasface.places import name_fault
from nasface.rundir import RunDir
from nasface.search.family import FamilySearcher, in_words
from nasface.stages.search.run import search
from nasface.stages.select import read_table, select
from nasface.step import Batch, Optimizer
from nasface.task import HeatmapTask
from nasface.testing import check_searcher, trial
from tests.refusal import refused
from tests.searched import MACHINE, caching_in, recipe, stopping_after


def budgets_of(context, *shares: float) -> tuple[float, ...]:
    full = context.costs.total(context.costs.space.graph).macs
    return tuple(share * full for share in shares)


def test_budgets_are_met_at_even_distances_after_the_start():
    assert FamilySearcher((1,), start=0.5).spans(20, 4) == [
        range(0, 12), range(12, 15), range(15, 18), range(18, 20)
    ]  # fmt: skip
    assert FamilySearcher((1,), start=0).spans(3, 3) == [range(0, 1), range(1, 2), range(2, 3)]
    with refused(GraphError, "5 of its 10", "7", "14"):
        FamilySearcher((1,), start=0.5).spans(10, 7)
    with refused(GraphError, "10 MACs"):
        net, context = trial(supernet(), input_size=32)
        FamilySearcher((10,)).search(net, context)


def test_budgets_that_differ_have_names_that_differ():
    assert [in_words(macs) for macs in (8e6, 9.5e6, 10.5e6, 1.2e9, 350_000)] == ["8M", "9.5M", "10.5M", "1.2G", "0.35M"]
    assert [in_words(macs) for macs in (8_000_001, 1_234_567_890)] == ["8.000001M", "1.23456789G"]
    alike = [start + step for start in (1, 350_000, 8e6, 999_999_990, 1.2e9, 1e15 - 20) for step in range(20)]
    alike += [8e6 + 2**-30, 1e15 - 0.125, 1e-300, 1.2345678e-300]
    assert len({in_words(macs) for macs in alike}) == len(alike)
    assert not [name for name in map(in_words, alike) if name_fault(name)]


def rates_of(searcher: FamilySearcher, epochs: int, optimizer: Optimizer) -> dict[str, list[float]]:
    """The learning rates of each training, at the beginning of every epoch and at the end."""
    net, context = trial(supernet(), input_size=32)
    found = {}

    def fit(phases, epochs=None, title=None, net=None):
        phases[0].optimizer.build(phases[0].parameters)
        found[title] = [phases[0].optimizer.lr_at(epoch, epochs) for epoch in range(epochs + 1)]
        return []

    searcher.search(net, replace(context, fit=fit, epochs=epochs, optimizer=optimizer))
    return found


@pytest.mark.slow
def test_the_trunk_stays_at_the_highest_learning_rate_from_which_every_network_is_annealed():
    _, context = trial(supernet(), input_size=32)
    searcher = FamilySearcher(budgets_of(context, 0.9, 0.8), anneal=10, start=0.4)
    one_cycle = rates_of(searcher, 10, Optimizer(lr=1.0, schedule="one_cycle", warmup=0.2))
    first, fall, second, again = one_cycle.values()
    # the warm-up takes a fifth of 10 + 10 epochs, and starts at 1/25
    assert first == pytest.approx([0.04, 0.28, 0.52, 0.76, 1.0, 1.0, 1.0, 1.0])
    assert second == pytest.approx([1.0] * 4)
    assert fall == again
    assert fall[0] == pytest.approx(1.0)
    assert fall[5] == pytest.approx(0.5)  # a cosine
    assert fall[-1] == pytest.approx(0.0, abs=1e-9)
    assert all(later < earlier for earlier, later in pairwise(fall))
    steps = rates_of(searcher, 10, Optimizer(lr=1.0, schedule="steps", milestones=(15,)))
    assert steps[next(iter(steps))] == [1.0] * 8
    assert list(steps.values())[1] == [*[1.0] * 8, *[pytest.approx(0.1)] * 3]


@pytest.mark.slow
def test_networks_are_nested_within_their_budgets_and_go_on_from_the_trunk():
    space = supernet()
    full = count_space(space, 5, 32).total(space.graph).macs
    check_searcher(FamilySearcher((0.9 * full, 0.7 * full), anneal=1, start=0), space, input_size=32)
    net, context = trial(space, input_size=32, epochs=4)
    budgets = budgets_of(context, 0.7, 0.9, 0.8)
    family = FamilySearcher(budgets, anneal=0, start=0.25).search(net, context)
    assert list(family) == [in_words(macs) for macs in sorted(budgets, reverse=True)]
    for macs, one in zip(sorted(budgets, reverse=True), family.values(), strict=True):
        assert context.costs.total(one.graph).macs <= macs
    assert all(set(small.graph.edges) <= set(large.graph.edges) for large, small in pairwise(family.values()))
    smallest = list(family.values())[-1]
    assert {edge for edge, value in edge_values(net).items() if value} == set(smallest.graph.prunable)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():  # without annealing, the last network is the trunk
        torch.testing.assert_close(smallest.eval()(images), net.eval()(images, graph=smallest.graph))


WANTED = (
    "search.name=family",
    "search.options={budgets: [3.5e5, 3.1e5], anneal: 2}",
    "search.epochs=4",
    "finetune.epochs=0",
    "criterion={name: taylor, options: {batches: 1}}",
)


@pytest.mark.slow
def test_no_two_epochs_of_a_family_see_the_same_batches(tmp_path, monkeypatch):
    seen: list[float] = []
    step = HeatmapTask.step

    def watched(task: HeatmapTask, net: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        if batch.seed:  # those of a criterion have none
            seen.append(float(batch.images_B3HW.double().sum()))
        return step(task, net, batch)

    monkeypatch.setattr(HeatmapTask, "step", watched)
    with caching_in(tmp_path):
        search(recipe(*WANTED), RunDir(tmp_path / "run"), MACHINE)
    assert len(seen) >= 8  # one batch or more in each of the trunk's four epochs and of the networks' two
    assert len(set(seen)) == len(seen)


@pytest.mark.slow
def test_a_family_is_a_folder_to_choose_from_and_a_stopped_search_ends_with_the_same_one(tmp_path):
    wanted = recipe(*WANTED)
    whole, stopped = RunDir(tmp_path / "whole"), RunDir(tmp_path / "stopped")
    with caching_in(tmp_path):
        search(wanted, whole, MACHINE)
        for epochs in (1, 3, 2):  # within the trunk, within the second training, and later
            with pytest.raises(KeyboardInterrupt):
                search(wanted, stopped, stopping_after(epochs))
        search(wanted, stopped, MACHINE)
        names = ["0.35M", "0.31M"]
        for name in names:
            assert whole.family().network(name).slim.read_bytes() == stopped.family().network(name).slim.read_bytes()
        assert stopped.slim.read_bytes() == whole.slim.read_bytes()
        table = read_table(whole.path)
        assert table.network.tolist() == ["supernet", *names]
        assert table.held_out_nme_finetuned.notna().tolist() == [False, True, True]
        assert read_arch(whole.arch).kept == read_arch(whole.family().network("0.31M").arch).kept
        assert select(whole.path, max_macs=3.2e5).network == "0.31M"
        made = CliRunner().invoke(
            main, ["select", str(whole.path), "--max-macs", "360000", "--out", str(tmp_path / "chosen")]
        )
        assert made.exit_code == 0, made.output
        for folder in (tmp_path / "chosen", whole.family().network("0.31M").path):
            assert nasface.load(str(folder)).module is not None
