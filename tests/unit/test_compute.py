"""Counting multiply-adds: against hand-computed numbers, against fvcore, and against runs counted in full."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nasface import engine, rundir
from nasface.compute import Loop, counting, metering
from nasface.cost import count_space
from nasface.data.augment import Augmentation
from nasface.model.build import build_net, net_costs
from nasface.net import GraphNet
from nasface.rundir import RunDir
from nasface.search.gates import GateSearcher
from nasface.search.prox import ProxSearcher
from nasface.stages.measure import evaluate_net
from nasface.stages.search.run import search
from nasface.step import Batch, Optimizer, Phase
from nasface.testing import trial
from tests import tiny
from tests.searched import MACHINE, recipe


def counted(run) -> int:
    with metering() as meter, counting():
        run()
    return meter.total


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_costs_as_much_for_each_gradient_as_forwards(groups: int, transposed: bool):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(8, 16, 3, stride=2, groups=groups)
    images = torch.randn(2, 8, 9, 7)
    # a convolution applies the kernel once per output, a transposed one once per input
    out_height, out_width = (9, 7) if transposed else (4, 3)
    forward = 2 * out_height * out_width * 9 * 8 * 16 // groups
    assert counted(lambda: conv(images)) == forward
    with torch.inference_mode():
        assert counted(lambda: conv(images)) == forward
    assert counted(lambda: conv(images).sum().backward()) == 2 * forward  # the weights' gradient
    images.requires_grad_()
    assert counted(lambda: conv(images).sum().backward()) == 3 * forward
    conv.weight.requires_grad_(False)
    assert counted(lambda: conv(images).sum().backward()) == 2 * forward  # the input's gradient


def test_matrix_products_are_counted_and_the_rest_is_not():
    linear, x = nn.Linear(5, 7), torch.randn(3, 5)
    assert counted(lambda: linear(x)) == 3 * 5 * 7
    with torch.inference_mode():
        assert counted(lambda: linear(x)) == 3 * 5 * 7
    assert counted(lambda: linear(x).sum().backward()) == 2 * 3 * 5 * 7
    assert counted(lambda: F.relu(x) + x * x) == 0


def test_a_forward_pass_costs_what_fvcore_counts_for_the_network():
    space = tiny.supernet()
    net, costs = GraphNet(space, 4), count_space(space, 4, 32)
    images = torch.randn(3, 3, 32, 32)
    assert counted(lambda: net(images)) == 3 * costs.total(net.graph).macs
    graph = net.graph.random_subgraph(np.random.default_rng(0), 0.6)
    assert graph.outputs  # run on the network's own tensors, partly through functional_call
    assert counted(lambda: net(images, graph=graph)) == 3 * costs.total(graph).macs
    net.eval()
    with torch.inference_mode():
        assert counted(lambda: net(images)) == 3 * costs.total(net.graph).macs


def test_each_block_goes_to_the_innermost_meter_as_often_as_all_say():
    linear, x = nn.Linear(1, 1), torch.ones(1, 1)
    with metering() as outer:
        linear(x)  # not in a counting block
        with counting(3):
            linear(x)
            with counting(2):
                linear(x)
            linear(x)
            with metering() as inner, counting(10):
                linear(x)
            with counting(0):
                linear(x)
                with counting():
                    linear(x)
    assert (outer.total, inner.total) == (3 + 6 + 3, 10)
    with counting():
        linear(x)  # without a meter, nothing happens


def test_a_loop_of_equal_steps_is_charged_and_one_of_different_steps_is_counted():
    linear = nn.Linear(1, 1)
    with metering() as meter:
        loop = Loop()
        for images in (4, 4, 4, 1):
            with loop.step(images):
                linear(torch.ones(images, 1))
    assert meter.total == 13
    with metering() as meter:
        loop = Loop()
        for width in (1, 2, 5, 3):
            with loop.step(4):
                nn.Linear(width, 1)(torch.ones(4, width))
    assert meter.total == 4 * 11
    with metering() as meter:  # the first steps happen to be alike
        loop = Loop(None)
        for width in (2, 2, 5, 3):
            with loop.step(4):
                nn.Linear(width, 1)(torch.ones(4, width))
    assert meter.total == 4 * 12


@pytest.mark.parametrize("kind", [ProxSearcher, GateSearcher])
def test_searchers_whose_steps_differ_have_each_of_them_counted(kind, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "Loop", lambda probes=2: seen.append(probes) or Loop(probes))
    net, context = trial(tiny.supernet(), input_size=32)
    kind().search(net, context)
    assert None in seen


def test_the_rows_of_a_training_say_what_it_took_with_hooks_and_validation():
    net, faces = GraphNet(tiny.supernet(), 4), tiny.faces(24)
    macs = count_space(net.space, 4, 32).total(net.graph).macs
    settings = engine.Settings(2, 8, Augmentation())
    batches = engine.training_batches(faces, settings)
    batch = next(batches)
    step = counted(lambda: tiny.step(net, batch)["loss"].backward())
    assert 2 * 8 * macs < step < 3 * 8 * macs  # the images need no gradient

    def hook(epoch: int) -> None:
        net(batch.images_B3HW)

    def validate(net: GraphNet) -> float:
        engine.predict_landmarks(net, faces, batch=10)
        return 0.5

    phases = [
        Phase("factors", (net.alpha,), Optimizer(), tiny.step, share=0.4, begin=hook),
        Phase("weights", tuple(net.parameters()), Optimizer(), tiny.step),
    ]
    with metering() as meter:
        rows = engine.fit(net, phases, faces, settings, validate=validate)
    assert meter.total == 0  # what is in the rows is nowhere else
    assert [row["macs"] for row in rows[1::2]] == [3 * step + 24 * macs] * 2
    for row in rows[::2]:
        assert row["macs"] > 8 * macs + 8 * macs  # the hook, and one step forwards
        assert row["macs"] < 8 * macs + step  # no gradient of the weights
    assert isinstance(rows[0]["macs"], int)


def test_steps_that_draw_sub_networks_are_counted_one_by_one():
    net, faces = GraphNet(tiny.supernet(), 4), tiny.faces(40)
    costs = count_space(net.space, 4, 32)
    random = np.random.default_rng(1)
    drawn: list[int] = []

    def step(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        graph = net.graph.random_subgraph(random, 0.5)
        drawn.append(costs.total(graph).macs)
        with torch.no_grad():
            model(batch.images_B3HW, graph=graph)
        return {"loss": (net.alpha**2).sum()}

    phase = Phase("draws", (net.alpha,), Optimizer(), step)
    (row,) = engine.fit(net, [phase], faces, engine.Settings(1, 8, Augmentation()))
    assert len(set(drawn[:2])) == 2
    assert row["macs"] == 8 * sum(drawn)


def twice_the_backward_pass(grad_out, x, weight, *others, out_shape, **_) -> int:
    """torch's own formula counts the weight gradients of a grouped convolution too often."""
    return 2 * math.prod(grad_out) * math.prod(weight[1:]) * sum(others[7][:2])


@pytest.mark.slow
def test_a_run_says_what_a_fully_counted_run_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    everything = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: twice_the_backward_pass}
    )
    final = 0

    def evaluated(*args: Any) -> Any:
        nonlocal final
        before = int(everything.get_total_flops())
        found = evaluate_net(*args)
        final += int(everything.get_total_flops()) - before
        return found

    monkeypatch.setattr("nasface.stages.search.run.evaluate_net", evaluated)
    smaller = ("data.options.train=32", "data.options.test=8", "space.options.stages=3", "space.options.resolutions=2")
    chosen = recipe("criterion.name=leave_one_out", "search.options.alpha_share=0.4", "search.epochs=1", *smaller)
    net_costs(build_net(chosen, 68, torch.device("cpu")), chosen)  # what counts the space is not counted itself
    with everything:
        metrics = search(chosen, RunDir(tmp_path / "run"), MACHINE)
    spent = metrics["compute"]
    assert spent == rundir.read_json(RunDir(tmp_path / "run").metrics, "metrics")["compute"]
    assert 0 < final < 0.1 * int(everything.get_total_flops())
    assert sum(spent.values()) == pytest.approx((int(everything.get_total_flops()) - final) / 2, rel=1e-3)
    assert min(spent.values()) > 0
