"""The parts of both spaces against the published description, written with plain functions."""

from __future__ import annotations

import pytest
import torch
from tiny import supernet
from torch import Tensor, nn
from torch.nn import functional as F

from nasface.graph import Node
from nasface.net import GraphNet, key
from nasface.testing import scramble
from searchspaces.hrnet import hrnet
from searchspaces.hrsupernet import hrsupernet


def scrambled(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module.eval()


class Read:
    """Applies the convolutions and BNs of a module in the order of its state dict."""

    def __init__(self, module: nn.Module) -> None:
        self.parts = iter([m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)])

    def conv(self, x: Tensor, stride: int = 1, groups: int = 1, kernel: int = 3, bias: bool = False) -> Tensor:
        part = next(self.parts)
        assert part.weight.shape[2:] == (kernel, kernel)
        assert (part.bias is not None) is bias
        return F.conv2d(x, part.weight, part.bias, stride, kernel // 2, groups=groups)

    def bn(self, x: Tensor, momentum: float = 0.1) -> Tensor:
        part = next(self.parts)
        assert part.momentum == momentum
        scale = part.weight / (part.running_var + part.eps).sqrt()
        return (x - part.running_mean[:, None, None]) * scale[:, None, None] + part.bias[:, None, None]

    def done(self) -> bool:
        return next(self.parts, None) is None


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_stem():
    stem = scrambled(hrsupernet().stem())
    images, read = torch.randn(1, 3, 16, 16), Read(stem)
    x = F.relu(read.bn(read.conv(images, stride=2)))
    assert x.shape == (1, 64, 8, 8)
    close(stem(images), F.relu(read.bn(read.conv(x, stride=2))))
    assert read.done()


@torch.no_grad()
def test_the_encoders():
    node, parent = Node("2.0", 18, 4), Node("1.0", 64, 4)
    for encoder in ("mbconv", "residual"):
        space = hrsupernet(encoder=encoder)
        module = scrambled(space.node(node, [parent]))
        x = 10 * torch.randn(1, 18, 8, 8)
        read, y = Read(module), F.relu(x)
        for _ in range(4):
            if encoder == "mbconv":
                hidden = read.bn(read.conv(y, groups=18)).clamp(0, 6)
                y = y + read.bn(read.conv(hidden, kernel=1))
            else:
                y = F.relu(y + read.bn(read.conv(F.relu(read.bn(read.conv(y))))))
        assert read.done()
        close(module(x), y)
        assert (F.relu(x) > 6).any()


@torch.no_grad()
def test_stage_1_follows_the_relu_of_the_stem():
    for stage1, channels in (("mbconv", 64), ("residual", 64), ("bottleneck", 256)):
        space = hrnet(stage1=stage1)
        first = space.graph.nodes[0]
        assert first.channels == channels
        module = scrambled(space.node(first, []))
        x = torch.randn(1, 64, 8, 8)  # signed: a ReLU of its own would show
        read, y = Read(module), x
        for i in range(4):
            if stage1 == "mbconv":
                y = y + read.bn(read.conv(read.bn(read.conv(y, groups=64)).clamp(0, 6), kernel=1))
            elif stage1 == "residual":
                y = F.relu(y + read.bn(read.conv(F.relu(read.bn(read.conv(y))))))
            else:
                hidden = F.relu(read.bn(read.conv(y, kernel=1)))
                hidden = F.relu(read.bn(read.conv(hidden)))
                hidden = read.bn(read.conv(hidden, kernel=1))
                y = F.relu(hidden + (y if i else read.bn(read.conv(y, kernel=1))))
        assert read.done()
        close(module(x), y)


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ("1.0", "2.0"),
        ("1.0", "2.3"),
        ("2.0", "3.0"),
        ("2.0", "3.1"),
        ("2.1", "3.3"),
        ("2.0", "3.3"),
        ("2.1", "3.0"),
        ("2.3", "3.0"),
    ],
)
@torch.no_grad()
def test_the_edges(src, dst):
    space = hrsupernet()
    a, b = space.graph.node[src], space.graph.node[dst]
    module = scrambled(space.edge(a, b))
    x = torch.randn(1, a.channels, 64 // a.stride, 64 // a.stride)
    read, y = Read(module), x
    if a.stride > b.stride:
        y = read.bn(read.conv(x, kernel=1), momentum=0.01)
        y = F.interpolate(y, scale_factor=a.stride // b.stride, mode="bilinear", align_corners=False)
    elif a.stride == b.stride and a.channels != b.channels:
        y = read.bn(read.conv(x), momentum=0.01)
    else:
        stride = a.stride
        while stride < b.stride:
            y = read.bn(read.conv(y, stride=2), momentum=0.01)
            stride *= 2
            if stride < b.stride:
                assert y.shape[1] == a.channels
                y = F.relu(y)
    assert read.done()
    assert y.shape == (1, b.channels, 64 // b.stride, 64 // b.stride)
    close(module(x), y)


@torch.no_grad()
def test_the_head():
    space = hrsupernet()
    outputs = [space.graph.node[name] for name in space.graph.outputs]
    head = scrambled(space.head(outputs, 29))
    nn.init.normal_(head.heatmaps.weight)
    maps = [torch.randn(1, n.channels, 64 // n.stride, 64 // n.stride) for n in outputs]
    sized = [F.interpolate(m, size=(16, 16), mode="bilinear", align_corners=False) for m in maps]
    read = Read(head)
    hidden = F.relu(read.bn(read.conv(torch.cat(sized, 1), kernel=1, bias=True)))
    assert hidden.shape[1] == 270
    expected = read.conv(hidden, kernel=1, bias=True)
    assert expected.shape == (1, 29, 16, 16)
    close(head(maps), expected)


@torch.no_grad()
def test_the_last_stage_only_fuses():
    net = GraphNet(supernet(stages=2, resolutions=1), 5).eval()
    scramble(net)
    fused = []
    net.nodes[key("2.0")].register_forward_hook(lambda module, args, out: fused.append((args[0], out)))
    net(torch.randn(1, 3, 16, 16))
    ((before, after),) = fused
    assert (before < 0).any()
    assert torch.equal(after, F.relu(before))
