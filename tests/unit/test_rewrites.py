"""What is exported computes what the network computes, with its factors and BN layers folded away."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from torch import fx, nn

from nasface.deploy.plain import Deployed, Ends, Plain
from nasface.deploy.rewrites import (
    REWRITES,
    factors_to_convolutions,
    fold_factors,
    fold_norms,
    pad_channels,
    project_early,
    rewrites_for,
    rewritten,
)
from nasface.net import GraphNet, slim_net
from nasface.prune import top
from nasface.space import SearchSpace
from nasface.task import Decoder, decode
from searchspaces.hrflex import hrflex
from tests.tiny import fixed_net, importance, scrambled, supernet

pytestmark = pytest.mark.slow

SPACES = {
    "mbconv": supernet(),
    "residual": supernet(encoder="residual", stage1="bottleneck"),
    "without the ReLU": supernet(relu_after_identity=False),
    "fixed edges": fixed_net(),
    "flexible parts": hrflex(width=4, depth=1, stages=3, resolutions=3, stem_channels=8),
}


def pruned(space: SearchSpace, seed: int = 0) -> GraphNet:
    """A slim network whose factors have both signs."""
    net = scrambled(space, seed=seed)
    with torch.no_grad():
        net.alpha.uniform_(-1, 1)
    wanted = max(1, 2 * len(space.graph.prunable) // 3)
    kept = top(space.graph, importance(space.graph, seed), None, edges=wanted)
    return slim_net(net, kept)[0].eval()


def images(size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def multiplications(module: nn.Module) -> list[fx.Node]:
    assert isinstance(module, fx.GraphModule)
    return [node for node in module.graph.nodes if node.target is operator.mul]


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_exported_network_equals_the_network(space: SearchSpace, channels: int):
    net = pruned(space)
    done = rewritten(Plain(net), rewrites_for(channels)).float()
    with torch.no_grad():
        wanted = net(images())
        torch.testing.assert_close(done(images()), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert not [module for module in done.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("rewrite", rewrites_for(8))
def test_each_rewrite_alone_changes_nothing(rewrite):
    net = pruned(SPACES["mbconv"])
    plain = Plain(net)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(plain, [rewrite])(images().double()), plain(images().double()))


def test_factors_vanish_into_convolutions():
    """Only those of identity edges remain: what they scale is read by other parts too."""
    net = pruned(SPACES["mbconv"])
    identity = [e for e in net.graph.edges if isinstance(net.edges["->".join(e).replace(".", "_")], nn.Identity)]
    plain = Plain(net)
    assert len(multiplications(rewritten(plain, [fold_norms]))) == len(net.graph.edges)
    assert 0 < len(multiplications(rewritten(plain, [fold_norms, fold_factors]))) <= len(identity)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def test_channels_become_a_multiple_of_what_the_runtime_handles_at_once():
    """Only the image and the heatmaps keep theirs."""
    done = rewritten(Plain(pruned(SPACES["mbconv"])), rewrites_for(8))
    inputs = {conv.in_channels for conv in convolutions(done)}
    outputs = {conv.out_channels for conv in convolutions(done)}
    assert {width for width in inputs if width % 8} == {3}
    assert {width for width in outputs if width % 8} == {5}
    assert not multiplications(done)


class Odd(nn.Module):
    """Maps of 6 channels, some of which are read by what is neither a convolution nor pixelwise."""

    def __init__(self, reader: Callable[[torch.Tensor], torch.Tensor] | None = None, groups: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=groups)
        self.depthwise, self.last = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.Conv2d(6, 5, 1)
        self.reader = reader

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y = y + self.depthwise(self.b(y.relu() if self.reader is None else self.reader(y)))
        return self.last(nn.functional.relu(y) * 0.5)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({"reader": nn.functional.relu}, [8, 8, 8, 5]),
        ({"reader": lambda y: y.flip(1)}, [6, 6, 6, 5]),
        ({"reader": lambda y: torch.cat([y[:, :3], y[:, 3:]], dim=1)}, [6, 6, 6, 5]),
        ({"reader": nn.functional.relu, "groups": 2}, [6, 6, 6, 5]),
    ],
)
def test_channels_are_padded_only_where_nothing_changes(options: dict, widths: list[int]):
    module = Odd(**options).double().eval()
    done = rewritten(module, [partial(pad_channels, multiple=8)])
    assert [conv.out_channels for conv in convolutions(done)] == widths
    torch.testing.assert_close(done(images(8).double()), module(images(8).double()), rtol=0, atol=1e-10)


def test_a_convolution_that_is_called_twice_keeps_its_channels():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(self.conv(self.first(x))))

    module = Twice().double().eval()
    done = rewritten(module, rewrites_for(8))
    assert {conv.out_channels for conv in convolutions(done)} == {6}
    torch.testing.assert_close(done(images(8).double()), module(images(8).double()), rtol=0, atol=1e-10)


def test_a_factor_on_a_map_of_unknown_width_stays():
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.5

    done = rewritten(Scaled(), [factors_to_convolutions])
    assert len(multiplications(done)) == 1


def interpolated_channels(module: nn.Module) -> list[int]:
    """The channels of what functions interpolate, as they run."""
    found: list[int] = []

    class Watching(fx.Interpreter):
        def call_function(self, target, args, kwargs):
            if target is nn.functional.interpolate:
                found.append(args[0].shape[1])
            return super().call_function(target, args, kwargs)

    assert isinstance(module, fx.GraphModule)
    with torch.no_grad():
        Watching(module).run(images().double())
    return found


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_head_projects_before_it_upsamples(space: SearchSpace):
    net = pruned(space)
    plain = Plain(net)
    folded, early = (rewritten(plain, some) for some in ([fold_norms, fold_factors], REWRITES))
    with torch.no_grad():
        wanted = folded(images().double())
        torch.testing.assert_close(early(images().double()), wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))
    before, after = interpolated_channels(folded), interpolated_channels(early)
    if before:
        assert len(after) == len(before)
        assert not [node for node in early.graph.nodes if node.target is torch.cat]  # type: ignore[union-attr]


class Joined(nn.Module):
    """A head on two maps, of which the second is upsampled; `shared` reads the upsampled map twice."""

    def __init__(self, mode: str = "bilinear", kernel: int = 1, shared: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1, stride=2)
        self.joint = nn.Conv2d(10, 5, kernel, padding=kernel // 2)
        self.mode, self.shared = mode, shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = nn.functional.interpolate(self.b(x), scale_factor=2, mode=self.mode)
        found = self.joint(torch.cat([self.a(x).relu(), up] if self.shared else [self.a(x), up], dim=1))
        return found + up.sum() if self.shared else found


@pytest.mark.parametrize(
    ("options", "moved"),
    [({}, True), ({"mode": "nearest"}, True), ({"kernel": 3}, False), ({"shared": True}, False)],
)
def test_a_projection_moves_only_where_nothing_changes(options: dict, moved: bool):
    module = Joined(**options).double().eval()
    done = rewritten(module, [project_early])
    torch.testing.assert_close(done(images(8).double()), module(images(8).double()), rtol=0, atol=1e-10)
    assert isinstance(done.get_submodule("joint"), nn.ModuleList) == moved


def test_a_factor_is_not_folded_into_what_others_read():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) * 0.5 + y * 3.0

    module = Shared().eval()
    module.norm.running_mean.uniform_(1, 2)
    done = rewritten(module)
    torch.testing.assert_close(done(images(8)), module(images(8)))
    assert [m for m in done.modules() if isinstance(m, nn.BatchNorm2d)]


class Initialised(nn.Conv2d):
    """A convolution that only starts from other weights."""

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.weight)


class Doubled(nn.Conv2d):
    """A convolution that computes something else than torch's."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(maps)


@pytest.mark.parametrize(("kind", "norms"), [(Initialised, 0), (Doubled, 1)])
def test_a_derived_convolution_is_folded_only_if_it_computes_what_a_convolution_does(kind: type, norms: int):
    torch.manual_seed(0)
    module = nn.Sequential(kind(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    nn.init.uniform_(module[1].running_mean)
    maps = torch.randn(2, 3, 8, 8)
    found = rewritten(module)
    assert torch.allclose(found(maps), module(maps), atol=1e-6)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in found.modules()) == norms


def test_the_network_itself_is_not_changed():
    net = pruned(SPACES["mbconv"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rewritten(Plain(net))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert next(net.parameters()).requires_grad


def test_what_cannot_be_traced_is_left_as_it_is(caplog: pytest.LogCaptureFixture):
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    module = Branching()
    with caplog.at_level(logging.WARNING):
        assert rewritten(module) is module
    assert "without rewrites" in caplog.text


@pytest.mark.parametrize("decoder", get_args(Decoder))
@pytest.mark.parametrize("flip", [None, (1, 0, 2, 4, 3)])
def test_the_ends_are_those_of_prediction(decoder, flip):
    net = pruned(SPACES["mbconv"])
    whole = Deployed(rewritten(Plain(net)).float(), 64, decoder, 1.5, flip).eval()
    crops = whole.example()
    assert (crops.dtype, crops.shape) == (torch.uint8, (2, 64, 64, 3))
    outer = Deployed(whole.net, 64, decoder, 1.5, flip, Ends("normalised", "heatmaps"))
    with torch.no_grad():
        landmarks, confidences = whole(crops)
        heatmaps = outer(torch.from_numpy(outer.ends.prepare(crops.numpy())))
    torch.testing.assert_close(landmarks, decode(heatmaps, 64, decoder, 1.5))
    torch.testing.assert_close(confidences, heatmaps.amax(dim=(2, 3)))
    assert outer.example().shape == (2, 3, 64, 64)
