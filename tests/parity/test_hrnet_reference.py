"""hrnet() with all factors at one is HRNetV2-W18 to the last bit; here is that network, written the usual way."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasface.net import GraphNet
from searchspaces.hrnet import hrnet

WIDTHS = (18, 36, 72, 144)
MODULES = (1, 4, 3)


def conv(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)


class Basic(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + x)


class Bottle(nn.Module):
    def __init__(self, cin: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(cin, 64, 1), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = conv(64, 256, 1), nn.BatchNorm2d(256)
        self.downsample = nn.Sequential(conv(cin, 256, 1), nn.BatchNorm2d(256)) if cin != 256 else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Module(nn.Module):
    """Parallel branches, then every branch sums the maps of all."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        widths = WIDTHS[:branches]
        self.branches = nn.ModuleList(nn.Sequential(*(Basic(w) for _ in range(4))) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.fuse(widths, i, j) for j in range(branches)) for i in range(branches)
        )

    @staticmethod
    def fuse(widths: tuple[int, ...], i: int, j: int) -> nn.Module | None:
        if i == j:
            return None
        if j > i:
            return nn.Sequential(conv(widths[j], widths[i], 1), nn.BatchNorm2d(widths[i]))
        steps = []
        for k in range(i - j):
            last = k == i - j - 1
            cout = widths[i] if last else widths[j]
            layers = [conv(widths[j], cout, 3, 2), nn.BatchNorm2d(cout)]
            steps.append(nn.Sequential(*layers) if last else nn.Sequential(*layers, nn.ReLU()))
        return nn.Sequential(*steps)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            total = None
            for j, layer in enumerate(layers):
                y = maps[j] if i == j else layer(maps[j])
                if j > i:
                    y = F.interpolate(y, size=maps[i].shape[2:], mode="bilinear", align_corners=False)
                total = y if total is None else total + y
            fused.append(F.relu(total))
        return fused


class Reference(nn.Module):
    def __init__(self, num_landmarks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 3, 2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3, 2), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottle(64), *(Bottle(256) for _ in range(3)))
        self.transition1 = nn.ModuleList(
            (
                nn.Sequential(conv(256, 18, 3), nn.BatchNorm2d(18), nn.ReLU()),
                nn.Sequential(nn.Sequential(conv(256, 36, 3, 2), nn.BatchNorm2d(36), nn.ReLU())),
            )
        )
        for stage, (before, after) in ((2, WIDTHS[1:3]), (3, WIDTHS[2:4])):
            new = nn.Sequential(nn.Sequential(conv(before, after, 3, 2), nn.BatchNorm2d(after), nn.ReLU()))
            setattr(self, f"transition{stage}", nn.ModuleList([None] * stage + [new]))
        for stage, count in enumerate(MODULES, start=2):
            setattr(self, f"stage{stage}", nn.ModuleList(Module(stage) for _ in range(count)))
        self.head = nn.Sequential(
            nn.Conv2d(270, 270, 1), nn.BatchNorm2d(270), nn.ReLU(), nn.Conv2d(270, num_landmarks, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        maps = [transition(x) for transition in self.transition1]
        for module in self.stage2:
            maps = module(maps)
        for stage in (3, 4):
            # a new branch is made from the coarsest map, the others go on as they are
            maps = [*maps, getattr(self, f"transition{stage - 1}")[-1](maps[-1])]
            for module in getattr(self, f"stage{stage}"):
                maps = module(maps)
        size = maps[0].shape[2:]
        scaled = [maps[0], *(F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps[1:])]
        return self.head(torch.cat(scaled, dim=1))


def renamed(name: str) -> str:
    """The name in GraphNet of a tensor of the reference."""
    columns = {(2, 0): 2, **{(3, m): 4 + m for m in range(4)}, **{(4, m): 9 + m for m in range(3)}}
    places = {
        "conv1": "body.0",
        "bn1": "body.1",
        "conv2": "body.3",
        "bn2": "body.4",
        "conv3": "body.6",
        "bn3": "body.7",
    }
    head, _, tail = name.rpartition(".")
    match re.split(r"\.", head):
        case ["conv1" | "bn1" | "conv2" | "bn2" as part]:
            path = f"stem.{['conv1', 'bn1', '', 'conv2', 'bn2'].index(part)}"
        case ["layer1", block, "downsample", i]:
            path = f"nodes.1_0.{block}.shortcut.{i}"
        case ["layer1", block, part]:
            path = f"nodes.1_0.{block}.{places[part]}"
        case ["transition1", branch, *_, i]:
            path = f"edges.1_0->2_{branch}.{i}"
        case ["transition2" | "transition3" as part, branch, "0", i]:
            column = {"transition2": 3, "transition3": 8}[part]
            path = f"edges.{column}_{int(branch) - 1}->{column + 1}_{branch}.{i}"
        case [stage, module, "branches", branch, block, part]:
            path = f"nodes.{columns[int(stage[-1]), int(module)]}_{branch}.1.{block}.{places[part]}"
        case [stage, module, "fuse_layers", dst, src, *index]:
            column = columns[int(stage[-1]), int(module)]
            # a chain is nested here (step, layer) and flat there, three layers a step
            layer = int(index[-1]) + (3 * int(index[0]) if len(index) == 2 else 0)
            path = f"edges.{column}_{src}->{column + 1}_{dst}.{layer}"
        case ["head", i]:
            path = f"head.{['hidden', 'norm', '', 'heatmaps'][int(i)]}"
        case _:
            raise AssertionError(f"no place for {name}")
    return f"{path}.{tail}"


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(1)
    net = Reference(68).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


def test_equal_to_the_last_bit(reference):
    net = GraphNet(hrnet(), 68).eval()
    assert net.alpha.tolist() == [1.0] * 88
    tensors = {renamed(name): value for name, value in reference.state_dict().items()}
    assert len(tensors) == len(reference.state_dict())
    assert set(tensors) | {"alpha"} == set(net.state_dict())
    net.load_state_dict({**tensors, "alpha": net.alpha})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = reference(images), net(images)
    assert expected.shape == (1, 68, 16, 16)
    assert expected.std() > 0.1
    assert torch.equal(got, expected)
    with torch.no_grad():
        net.alpha[17] = 1.01  # every factor is in the sum
        assert not torch.equal(net(images), expected)


def test_the_reference_has_the_published_size(reference):
    assert sum(p.numel() for p in reference.parameters()) == 9_654_398
