"""Sparsity search: who trains when, and what the penalty does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from tiny import faces, state, step, supernet

from nasface.data.augment import Augmentation
from nasface.engine import Progress, Settings, fit
from nasface.errors import RecipeError
from nasface.net import GraphNet
from nasface.search.l1 import L1Searcher
from nasface.step import Optimizer, Phase, Row
from nasface.testing import trial
from searchspaces.highres import HighResolutionSpace
from tests.refusal import refused

FACES = faces(8)


def small() -> HighResolutionSpace:
    return supernet(width=2, stages=4, resolutions=2, stem_channels=4)


def search(
    searcher: L1Searcher, net: GraphNet, epochs: int = 3, lr: float = 1e-3, advance: Callable[[], None] = lambda: None
) -> list[Row]:
    rows: list[Row] = []
    settings = Settings(epochs, 2, Augmentation(), seed=1)

    def train(phases: Sequence[Phase]) -> list[Row]:
        rows.extend(fit(net, phases, FACES, settings, progress=Progress(advance=advance)))
        return rows

    _, context = trial(small(), input_size=32)
    searcher.search(net, replace(context, step=step, optimizer=Optimizer(lr=lr), epochs=epochs, fit=train))
    return rows


def new_net() -> GraphNet:
    torch.manual_seed(0)
    return GraphNet(small(), 4)


@pytest.mark.slow
def test_factors_and_weights_train_in_turn():
    net = new_net()
    before = state(net)
    rows = search(L1Searcher(alpha_lr=1e-2), net)
    assert [row["phase"] for row in rows] == ["alpha", "weights"] * 3
    for name in ("alpha", "stem.0.weight", "head.heatmaps.weight", "nodes.2_1.1.0.body.0.weight"):
        assert not torch.equal(net.state_dict()[name], before[name])


def test_the_loss_of_the_factors_has_the_penalty():
    net = new_net()
    total = float(net.alpha.detach().abs().sum())
    alpha, weights = search(L1Searcher(alpha_lr=1e-9, penalty=0.5), net, epochs=1)
    assert alpha["l1"] == pytest.approx(total, rel=1e-4)
    assert alpha["loss"] > 0.5 * total
    assert "l1" not in weights
    assert weights["loss"] < 0.5 * total  # the weights' loss is the task's alone


@pytest.mark.slow
def test_the_penalty_shrinks_the_factors():
    found = {}
    for penalty in (0.0, 100.0):
        net = new_net()
        with torch.no_grad():
            net.alpha[::2] *= -1  # either sign is shrunk
        start = net.alpha.detach().abs().clone()
        search(L1Searcher(alpha_lr=2e-3, penalty=penalty), net, epochs=4)
        found[penalty] = net.alpha.detach().abs() / start
    steps = 4 * 4  # an Adam step is about the learning rate, whatever the size of the penalty
    expected = 1 - steps * 2e-3 / new_net().alpha.detach()
    assert torch.allclose(found[100.0], expected, atol=0.02)
    assert found[0.0].mean() > 0.99
    assert (found[100.0] < found[0.0]).all()


@pytest.mark.slow
def test_a_share_of_the_faces_moves_the_factors():
    counts = {}
    for share in (1.0, 0.5):
        steps: list[int] = []
        search(L1Searcher(alpha_share=share), new_net(), epochs=2, advance=lambda s=steps: s.append(1))
        counts[share] = len(steps)
    assert counts == {1.0: 2 * (4 + 4), 0.5: 2 * (2 + 4)}


def test_warm_up_epochs_leave_the_factors_alone():
    net = new_net()
    before = net.alpha.detach().clone()
    with refused(RecipeError, "alpha phase", "2 epochs", "warmup_epochs"):
        search(L1Searcher(alpha_lr=1e-2, warmup_epochs=2), net, epochs=2)
    assert torch.equal(net.alpha, before)
    rows = search(L1Searcher(alpha_lr=1e-2, warmup_epochs=2), net, epochs=3)
    phases = [(row["epoch"], row["phase"]) for row in rows]
    assert phases == [(1, "weights"), (2, "weights"), (3, "alpha"), (3, "weights")]
    assert not torch.equal(net.alpha, before)


@pytest.mark.slow
def test_the_schedule_of_the_factors():
    for schedule, last in (("constant", 1e-2), ("one_cycle", None)):
        rows = search(L1Searcher(alpha_lr=1e-2, alpha_schedule=schedule), new_net(), epochs=4)
        rates = [row["lr"] for row in rows if row["phase"] == "alpha"]
        if last:
            assert set(rates) == {last}
        else:
            assert rates[-1] < 1e-3 < max(rates) <= 1e-2
