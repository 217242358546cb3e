"""Counting: hand-made sums, parts that add up, and timing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import diamond, fixed_net, scrambled, space_of, supernet
from torch import nn

from nasface.cost import Cost, count_module, count_space, latency_ms
from nasface.net import GraphNet, slim_net


def test_costs_add_and_subtract():
    assert Cost(5, 7) + Cost(1, 2) == Cost(6, 9)
    assert Cost(5, 7) - Cost(1, 2) == Cost(4, 5)
    assert Cost() + Cost(1, 2) == Cost(1, 2)


@pytest.mark.parametrize(
    ("module", "params", "macs"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 3 * 8 * 9 + 8, 8 * 8 * 8 * 27),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False), 6 * 9, 16 * 16 * 6 * 9),
        (nn.BatchNorm2d(3), 6, 0),
        (nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear")), 0, 0),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)), 65, 60),
    ],
)
def test_multiply_adds_by_hand(module, params, macs):
    assert count_module(module, torch.zeros(1, 3, 16, 16)) == Cost(params, macs)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_module_as_it_was(training):
    net = GraphNet(supernet(), 5).train(training)
    before = net.head.norm.running_mean.clone()
    count_module(net, torch.randn(1, 3, 32, 32))
    assert net.training is training
    assert net.stem.training is training
    assert torch.equal(net.head.norm.running_mean, before)


def test_alphas_are_not_parameters():
    net = GraphNet(supernet(), 5)
    everything = sum(p.numel() for p in net.parameters())
    assert count_module(net, torch.zeros(1, 3, 32, 32)).params == everything - len(net.alpha)


@pytest.mark.slow
@pytest.mark.parametrize("space", [supernet(), fixed_net(), space_of(diamond())], ids=["hrsupernet", "hrnet", "own"])
def test_the_parts_add_up_to_the_whole_network(space):
    costs = count_space(space, 5, 32)
    random = np.random.default_rng(1)
    graphs = [space.graph, *(space.graph.random_subgraph(random, 0.6) for _ in range(3))]
    for graph in graphs:
        slim, _ = slim_net(scrambled(space), graph)
        total = costs.total(graph)
        assert total == count_module(slim, torch.zeros(1, 3, 32, 32))
        assert total == costs.prunable(graph) + costs.fixed(graph)
        assert costs.without_head(graph) == total - costs.head(graph.outputs)
        assert costs.head(graph.outputs) == count_head(slim)
        by_stage = costs.by_stage(graph)
        assert sum(by_stage.values(), Cost()) == total
        assert list(by_stage) == ["stem", *(f"stage {s}" for s in sorted({n.stage for n in graph.nodes})), "head"]


def count_head(net: GraphNet) -> Cost:
    """By hand: two 1x1 convolutions with bias and a BN, at stride 4 of 32 pixels."""
    width = sum(net.graph.node[name].channels for name in net.graph.outputs)
    return Cost(width * width + width + 2 * width + 5 * width + 5, 64 * (width * width + 5 * width))


def test_a_part_by_hand():
    costs = count_space(supernet(width=4, stem_channels=8), 5, 32)
    # 3x3 stride-2 convolution, 8 -> 8 channels with ReLU between, then 8 -> 16: stage 1 at stride 4 to stride 16
    assert costs.edges["1.0", "2.2"] == Cost(8 * 8 * 9 + 16 + 8 * 16 * 9 + 32, 16 * 8 * 8 * 9 + 4 * 8 * 16 * 9)
    assert costs.edges["2.0", "3.0"] == Cost(0, 0)
    assert costs.edges["2.2", "3.0"] == Cost(16 * 4 + 8, 4 * 16 * 4)  # 1x1 at stride 16, then upsampled
    # depthwise 3x3, BN, pointwise, BN at 8 channels and stride 8
    assert costs.nodes["2.1"] == Cost(8 * 9 + 16 + 64 + 16, 16 * (8 * 9 + 64))
    assert costs.nodes["4.1"] == Cost(0, 0)  # only fuses
    assert costs.stem == Cost(3 * 8 * 9 + 16 + 8 * 8 * 9 + 16, 256 * 3 * 8 * 9 + 64 * 8 * 8 * 9)


def test_multiply_adds_grow_with_the_area():
    small, large = (count_space(supernet(), 5, size) for size in (32, 64))
    graph = supernet().graph
    assert large.total(graph).macs == 4 * small.total(graph).macs
    assert large.total(graph).params == small.total(graph).params


def test_latency_is_of_the_eval_mode_and_follows_the_work():
    modes = []

    class Probe(nn.Module):
        def forward(self, images):
            modes.append(self.training)
            return torch.randn(1500, 1500) @ torch.randn(1500, 1500) if len(images) > 1 else images

    probe = Probe()
    fast = latency_ms(probe, torch.zeros(1, 3, 8, 8), repeats=3, warmup=2)
    slow = latency_ms(probe, torch.zeros(2, 3, 8, 8), repeats=3, warmup=0)
    assert 0 < fast < slow
    assert modes == [False] * 8
    assert probe.training
