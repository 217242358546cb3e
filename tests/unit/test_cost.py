"""Counting: hand-made sums, parts that add up, and timing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from tiny import diamond, fixed_net, scrambled, space_of, supernet
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nasface.cost import Cost, count_module, count_space, latencies_ms
from nasface.errors import GraphError
from nasface.net import GraphNet, slim_net
from searchspaces.highres import HighResolutionSpace
from searchspaces.hrflex import hrflex
from tests.refusal import refused


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


SPACES = {
    "hrsupernet": supernet(),
    "bottleneck": supernet(stage1="bottleneck", encoder="residual", depth=2, resolutions=2),
    "hrnet": fixed_net(),
    "hrflex": hrflex(width=4, stages=3, resolutions=3, stem_channels=4, stage1_channels=8, head_channels=12),
    "own": space_of(diamond()),
}


def by_fvcore(module, *inputs):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's tracer
        analysis = FlopCountAnalysis(module.eval(), inputs).unsupported_ops_warnings(False)
        counted = analysis.uncalled_modules_warnings(False).by_operator()
    return sum(
        count for name, count in counted.items() if name in {"conv", "linear", "matmul", "addmm", "bmm", "einsum"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_counted_as_its_networks_are_on_real_images(name, size):
    space = SPACES[name]
    costs = count_space(space, 3, size)
    for graph in (space.graph, space.graph.random_subgraph(np.random.default_rng(2), 0.5)):
        net, images = GraphNet(space, 3, graph), torch.rand(1, 3, size, size)
        assert costs.total(graph) == count_module(net, images)
        assert costs.total(graph).macs == by_fvcore(net, images)


def test_a_space_is_counted_without_weights_and_without_maps():
    """An input of 4096 pixels or 200 million weights would else take seconds and gigabytes."""
    cells = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            cells.extend(
                part.numel()
                for part in (out if isinstance(out, tuple | list) else [out])
                if getattr(part, "ndim", 0) == 4
            )
            return out

    before = torch.get_rng_state()
    with Watch():
        count_space(space_of(diamond()), 5, 512).head(("d",))
    assert 0 in cells
    assert max(cells) < 4096  # weights; the smallest map would have more
    assert torch.equal(torch.get_rng_state(), before)


class Looks(nn.Module):
    """A part that looks at its values, so that it cannot do without any."""

    def forward(self, given):
        return given if float(given.mean()) > -1e9 else given @ given


class Mixes(nn.Module):
    """A part with matrix products over the cells of a map."""

    def forward(self, given):
        cells = given.flatten(2)
        return given + cells.bmm(cells.transpose(1, 2)).bmm(cells).reshape(given.shape)


@dataclass(frozen=True)
class Special(HighResolutionSpace):
    part: type[nn.Module] = Looks

    def node(self, node, parents):
        return nn.Sequential(self.part(), super().node(node, parents))


@pytest.mark.parametrize("part", [Looks, Mixes])
def test_parts_that_need_an_image_are_counted_with_one_and_draw_no_random_numbers(part):
    plain = supernet()
    space = Special(**{part.name: getattr(plain, part.name) for part in fields(plain)}, part=part)
    before = torch.get_rng_state()
    total = count_space(space, 5, 32).total(plain.graph)
    more = sum(2 * n.channels**2 * (32 // n.stride) ** 2 for n in plain.graph.nodes) if part is Mixes else 0
    assert total == count_space(plain, 5, 32).total(plain.graph) + Cost(0, more)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_size_that_does_not_fit_is_refused_as_ever():
    with refused(GraphError, "40 x 40", "16"):
        count_space(supernet(), 5, 40)


def test_latency_is_of_the_eval_mode_and_follows_the_work():
    modes = []

    class Probe(nn.Module):
        def forward(self, images):
            modes.append(self.training)
            return torch.randn(1500, 1500) @ torch.randn(1500, 1500) if len(images) > 1 else images

    probe = Probe()
    (fast,) = latencies_ms((probe,), torch.zeros(1, 3, 8, 8), repeats=3, warmup=2)
    (slow,) = latencies_ms((probe,), torch.zeros(2, 3, 8, 8), repeats=3, warmup=0)
    assert 0 < fast < slow
    assert len(modes) >= 8
    assert not any(modes)
    assert probe.training
