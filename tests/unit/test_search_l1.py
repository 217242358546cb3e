"""Sparsity search: who trains when, what the penalty does, and how importance is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tiny import changed, faces, fixed_net, state, step, supernet
from torch import nn

from nasface.data.augment import Augmentation
from nasface.engine import Progress, Row, Settings, fit, training_batches
from nasface.errors import RecipeError
from nasface.graph import Edge
from nasface.net import GraphNet, edge_values, key
from nasface.search.l1 import L1Searcher
from nasface.step import Optimizer
from searchspaces.highres import HighResolutionSpace

FACES = faces(8)


def small() -> HighResolutionSpace:
    return supernet(width=2, stages=4, resolutions=2, stem_channels=4)


def search(
    searcher: L1Searcher, net: GraphNet, epochs: int = 3, lr: float = 1e-3, advance: Callable[[], None] = lambda: None
) -> tuple[dict[Edge, float], list[Row]]:
    rows: list[Row] = []
    settings = Settings(epochs, 2, Augmentation(), seed=1)

    def train(phases: Any) -> None:
        rows.extend(fit(net, phases, FACES, settings, progress=Progress(advance=advance)))

    batches = partial(training_batches, FACES, settings)
    return dict(searcher.search(net, step, Optimizer(lr=lr), train, batches)), rows


def new_net(space: HighResolutionSpace | None = None) -> GraphNet:
    torch.manual_seed(0)
    return GraphNet(space or small(), 4)


def test_factors_and_weights_train_in_turn():
    net = new_net()
    before = state(net)
    importance, rows = search(L1Searcher(alpha_lr=1e-2), net)
    assert [row["phase"] for row in rows] == ["alpha", "weights"] * 3
    assert importance == {edge: abs(value) for edge, value in edge_values(net).items()}
    assert list(importance) == list(net.graph.prunable)
    for name in ("alpha", "stem.0.weight", "head.heatmaps.weight", "nodes.2_1.1.0.body.0.weight"):
        assert not torch.equal(net.state_dict()[name], before[name])


def test_the_loss_of_the_factors_has_the_penalty():
    net = new_net()
    total = float(net.alpha.detach().abs().sum())
    _, rows = search(L1Searcher(alpha_lr=1e-9, penalty=0.5), net, epochs=1)
    alpha, weights = rows
    assert alpha["l1"] == pytest.approx(total, rel=1e-4)
    assert alpha["loss"] > 0.5 * total
    assert "l1" not in weights
    assert weights["loss"] < 0.5 * total  # the weights' loss is the task's alone


def test_the_penalty_shrinks_the_factors():
    found = {}
    for penalty in (0.0, 100.0):
        net = new_net()
        with torch.no_grad():
            net.alpha[::2] *= -1  # either sign is shrunk
        start = net.alpha.detach().abs().clone()
        importance, _ = search(L1Searcher(alpha_lr=2e-3, penalty=penalty), net, epochs=4)
        found[penalty] = torch.tensor(list(importance.values())) / start
    steps = 4 * 4  # an Adam step is about the learning rate, whatever the size of the penalty
    expected = 1 - steps * 2e-3 / new_net().alpha.detach()
    assert torch.allclose(found[100.0], expected, atol=0.02)
    assert found[0.0].mean() > 0.99
    assert (found[100.0] < found[0.0]).all()


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
    with pytest.raises(RecipeError, match="would start after epoch 2"):
        search(L1Searcher(alpha_lr=1e-2, warmup_epochs=2), net, epochs=2)
    assert torch.equal(net.alpha, before)
    _, rows = search(L1Searcher(alpha_lr=1e-2, warmup_epochs=2), net, epochs=3)
    phases = [(row["epoch"], row["phase"]) for row in rows]
    assert phases == [(1, "weights"), (2, "weights"), (3, "alpha"), (3, "weights")]
    assert not torch.equal(net.alpha, before)


def test_the_schedule_of_the_factors():
    for schedule, last in (("constant", 1e-2), ("one_cycle", None)):
        searcher = L1Searcher(alpha_lr=1e-2, alpha_schedule=schedule)
        _, rows = search(searcher, new_net(), epochs=4)
        rates = [row["lr"] for row in rows if row["phase"] == "alpha"]
        if last:
            assert set(rates) == {last}
        else:
            assert rates[-1] < 1e-3 < max(rates) <= 1e-2


def test_importance_is_read_off_factor_and_gain():
    net = new_net(supernet(width=4, stages=3, resolutions=2, stem_channels=4))
    with torch.no_grad():
        net.alpha.copy_(torch.linspace(-1, 1, len(net.alpha)))
        for module in net.edges.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()
    alpha = edge_values(net)
    plain, _ = search(L1Searcher(), net, epochs=0)
    assert plain == {edge: abs(value) for edge, value in alpha.items()}
    gained, _ = search(L1Searcher(importance="alpha_gain"), net, epochs=0)
    down, up = net.edges[key("2.0", "3.1")], net.edges[key("2.1", "3.0")]
    assert gained["2.0", "3.0"] == abs(alpha["2.0", "3.0"])  # an identity has no gain
    assert gained["2.0", "3.1"] == pytest.approx(abs(alpha["2.0", "3.1"]) * float(down[1].weight.detach().abs().mean()))
    assert gained["2.1", "3.0"] == pytest.approx(abs(alpha["2.1", "3.0"]) * float(up[1].weight.detach().abs().mean()))


def test_the_gain_of_a_chain_is_that_of_its_last_bn():
    net = new_net(supernet(width=4, stages=3, resolutions=3, stem_channels=4))
    chain = net.edges[key("2.0", "3.2")]
    first, last = (m for m in chain.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        first.weight.fill_(50)
        last.weight.fill_(-3)
    gained, _ = search(L1Searcher(importance="alpha_gain"), net, epochs=0)
    assert gained["2.0", "3.2"] == pytest.approx(3 * edge_values(net)["2.0", "3.2"])


def test_taylor_is_how_far_the_loss_moves():
    net = new_net()
    with torch.no_grad():
        net.alpha.uniform_(-1, 1)
    slope = torch.randn(len(net.alpha))
    brightness = []

    def linear(model, batch):
        model(batch.images_B3HW)  # moves the BN statistics
        brightness.append(batch.images_B3HW.mean())
        return {"loss": (slope * model.alpha).sum() * brightness[-1]}

    before = state(net)
    batches = partial(training_batches, FACES, Settings(0, 2, Augmentation(), seed=1))
    found = L1Searcher(importance="taylor").search(net, linear, Optimizer(), lambda phases: None, batches)
    assert not changed(before, net)
    assert len(brightness) == 4
    expected = (net.alpha.detach() * slope).abs() * torch.stack(brightness).square().mean().sqrt()
    assert list(found) == list(net.graph.prunable)
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-4)


def test_fixed_edges_have_no_importance():
    net = new_net(fixed_net())
    importance, _ = search(L1Searcher(), net, epochs=1)
    assert set(importance) == set(net.graph.prunable)
    assert not set(importance) & net.graph.fixed
