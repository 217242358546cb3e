"""What a searcher can do with its context alone: sample sub-networks, and prune the network while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import supernet
from torch import Tensor, nn
from torch.nn import functional as F

from nasface import plugins
from nasface.context import Context
from nasface.errors import RunError
from nasface.graph import Graph
from nasface.model.source import read_arch
from nasface.net import GraphNet, edge_values, frozen_statistics, give_back, slim_net
from nasface.prune import share
from nasface.rundir import RunDir
from nasface.stages.search.run import search
from nasface.step import Batch, Phase
from nasface.testing import check_searcher
from tests.refusal import refused
from tests.searched import MACHINE, caching_in, recipe, stopping_after


@dataclass(frozen=True)
class Sampling:
    """Trains the whole network, and in each step a random sub-network that imitates it."""

    keep: float = 0.6

    def search(self, net: GraphNet, context: Context) -> None:
        def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            whole = model(batch.images_B3HW)
            graph = net.graph.random_subgraph(np.random.default_rng(batch.seed), self.keep)
            with frozen_statistics(net):
                part = model(batch.images_B3HW, graph=graph)
            task, imitation = context.loss(whole, batch), F.mse_loss(part, whole.detach())
            return {"loss": task + imitation, "task": task, "imitation": imitation}

        context.fit([Phase("sampled", tuple(net.parameters()), context.optimizer, step)])


@dataclass(frozen=True)
class Shrinking:
    """Trains the network, prunes it physically to fewer and fewer MACs, and goes on with what is left."""

    shares: tuple[float, ...] = (0.9, 0.7)
    titles: Callable[[float], str | None] = lambda keep: f"{keep:.0%}"

    def search(self, net: GraphNet, context: Context) -> None:
        small = net
        for keep in (1.0, *self.shares):
            if keep < 1:
                alpha = {edge: abs(value) for edge, value in edge_values(net).items()}
                small, _ = slim_net(net, share(net.graph, alpha, context.costs, share=keep))
            phase = Phase("weights", tuple(small.parameters()), context.optimizer, context.step)
            title = None if keep == 1 else self.titles(keep)
            context.fit([phase], epochs=max(1, context.epochs // 3), title=title, net=small)
            if small is not net:
                give_back(small, net)


@pytest.mark.slow
@pytest.mark.parametrize("searcher", [Sampling(), Shrinking()])
def test_searchers_that_need_no_more_than_the_context(searcher):
    check_searcher(searcher, supernet(), input_size=32)


def shrinking(*, same: bool = False) -> Shrinking:
    return Shrinking(titles=lambda keep: "again") if same else Shrinking()


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_search_of_several_trainings_in_a_run_folder(tmp_path):
    run = RunDir(tmp_path / "run")
    wanted = ("search.name=test_search_seam:shrinking", "search.options={}", "finetune.epochs=0")
    search(recipe(*wanted), run, MACHINE)
    rows = pd.read_csv(run.metrics_csv)
    assert list(rows.stage) == ["search", "search-90%", "search-70%"]
    assert sorted(path.stem for path in run.path.glob("checkpoints/search*")) == sorted(rows.stage)
    before = run.supernet.read_bytes()
    run.metrics.unlink()
    search(recipe(*wanted), run, MACHINE)  # every training is taken from its checkpoint
    assert run.supernet.read_bytes() == before
    with refused(RunError, "again"):
        search(recipe(*wanted, "search.options.same=true"), RunDir(tmp_path / "same"), MACHINE)


@dataclass(frozen=True)
class Choosing:
    """Drops one edge before each epoch, the one that the recipe's criterion rates lowest, and returns what is left."""

    def search(self, net: GraphNet, context: Context) -> Graph:
        whole = net.graph

        class Part(nn.Module):
            kept: Tensor

            def __init__(self) -> None:
                super().__init__()
                self.net = net
                self.register_buffer("kept", torch.ones(len(whole.prunable), dtype=torch.bool))

            def graph(self) -> Graph:
                return whole.keep_prunable(
                    e for e, kept in zip(whole.prunable, self.kept.tolist(), strict=True) if kept
                )

            def forward(self, images: Tensor) -> Tensor:
                heatmaps: Tensor = self.net(images, graph=self.graph())
                return heatmaps

        model = Part()

        def begin(epoch: int) -> None:
            rated = context.rate(model.graph())
            assert set(rated) == set(model.graph().prunable)
            model.kept[whole.prunable.index(min(rated, key=lambda edge: rated[edge]))] = False

        context.fit(
            [Phase("weights", tuple(net.parameters()), context.optimizer, context.step, begin=begin)], net=model
        )
        return model.graph()


@pytest.mark.slow
def test_a_searcher_may_choose_the_sub_network_itself(tmp_path):
    check_searcher(Choosing(), supernet(), input_size=32)
    whole, run = RunDir(tmp_path / "whole"), RunDir(tmp_path / "run")
    wanted = recipe(
        "search.name=test_search_seam:Choosing", "search.options={}", "search.epochs=3", "finetune.epochs=0"
    )
    with caching_in(tmp_path):
        search(wanted, whole, MACHINE)
        arch = read_arch(whole.arch)
        space = plugins.space(arch.space, arch.options)
        assert len(space.graph.edges) - len(arch.kept) >= 3
        assert arch.provenance["pruner"] == "test_search_seam:Choosing"
        with pytest.raises(KeyboardInterrupt):
            search(wanted, run, stopping_after(2))
        search(wanted, run, MACHINE)
        assert run.arch.read_text().partition('"provenance"')[0] == whole.arch.read_text().partition('"provenance"')[0]
        assert run.slim.read_bytes() == whole.slim.read_bytes()
