"""hrnet() with all factors at one is HRNetV2-W18 to the last bit; here is that network, written the usual way.

Its tensors have the names that the authors' checkpoints and timm's have.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasface.net import GraphNet
from searchspaces.hrnet import hrnet


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
    def __init__(self, cin: int, mid: int) -> None:
        super().__init__()
        cout = 4 * mid
        self.conv1, self.bn1 = conv(cin, mid, 1), nn.BatchNorm2d(mid)
        self.conv2, self.bn2 = conv(mid, mid, 3), nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = conv(mid, cout, 1), nn.BatchNorm2d(cout)
        self.downsample = nn.Sequential(conv(cin, cout, 1), nn.BatchNorm2d(cout)) if cin != cout else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Module(nn.Module):
    """Parallel branches, then every branch sums the maps of all."""

    def __init__(self, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(Basic(w) for _ in range(depth))) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.fuse(widths, i, j) for j in range(len(widths))) for i in range(len(widths))
        )

    @staticmethod
    def fuse(widths: Sequence[int], i: int, j: int) -> nn.Module | None:
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
    def __init__(
        self, num_landmarks: int, width: int = 18, modules: Sequence[int] = (1, 4, 3), depth: int = 4, stem: int = 64
    ) -> None:
        super().__init__()
        widths = [width << r for r in range(4)]
        self.conv1, self.bn1 = conv(3, stem, 3, 2), nn.BatchNorm2d(stem)
        self.conv2, self.bn2 = conv(stem, stem, 3, 2), nn.BatchNorm2d(stem)
        self.layer1 = nn.Sequential(Bottle(stem, stem), *(Bottle(4 * stem, stem) for _ in range(depth - 1)))
        self.transition1 = nn.ModuleList(
            (
                nn.Sequential(conv(4 * stem, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU()),
                nn.Sequential(nn.Sequential(conv(4 * stem, widths[1], 3, 2), nn.BatchNorm2d(widths[1]), nn.ReLU())),
            )
        )
        for stage, (before, after) in ((2, widths[1:3]), (3, widths[2:4])):
            new = nn.Sequential(nn.Sequential(conv(before, after, 3, 2), nn.BatchNorm2d(after), nn.ReLU()))
            setattr(self, f"transition{stage}", nn.ModuleList([None] * stage + [new]))
        for stage, count in enumerate(modules, start=2):
            setattr(self, f"stage{stage}", nn.ModuleList(Module(widths[:stage], depth) for _ in range(count)))
        total = sum(widths)
        self.head = nn.Sequential(
            nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(), nn.Conv2d(total, num_landmarks, 1)
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


def heads(name: str) -> str:
    """The name in GraphNet of a tensor of the reference's head, which is no part of a backbone."""
    _, layer, tail = name.split(".")
    return f"head.{['hidden', 'norm', '', 'heatmaps'][int(layer)]}.{tail}"


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(1)
    return scrambled(Reference(68))


def scrambled(net: Reference) -> Reference:
    """In evaluation mode, with BN that does something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def test_equal_to_the_last_bit(reference):
    space = hrnet()
    net = GraphNet(space, 68).eval()
    assert net.alpha.tolist() == [1.0] * 88
    tensors = {space.backbone_name(name) or heads(name): value for name, value in reference.state_dict().items()}
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
