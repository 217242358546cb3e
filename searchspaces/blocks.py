"""Convolution blocks of the high-resolution spaces."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def conv_bn(cin: int, cout: int, kernel: int = 3, stride: int = 1, momentum: float = 0.1) -> list[nn.Module]:
    """Return a convolution without bias, padded so that stride 1 keeps the resolution, and its BN."""
    conv = nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(cout, momentum=momentum)]


class MBConv(nn.Module):
    """Inverted residual block with expansion factor 1: depthwise 3x3 + BN + ReLU6, pointwise 1x1 + BN, residual add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
            *conv_bn(channels, channels, kernel=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = x + self.body(x)
        return out


class BasicBlock(nn.Module):
    """Residual unit of two 3x3 convolutions, as in the branches of HRNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(channels, channels), nn.ReLU(inplace=True), *conv_bn(channels, channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class Bottleneck(nn.Module):
    """Residual unit of 1x1, 3x3 and 1x1 convolutions that widens to `cout`; a 1x1 shortcut if the width changes."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        mid = cout // 4  # expansion 4, as in ResNet and stage 1 of HRNet
        self.body = nn.Sequential(
            *conv_bn(cin, mid, kernel=1),
            nn.ReLU(inplace=True),
            *conv_bn(mid, mid),
            nn.ReLU(inplace=True),
            *conv_bn(mid, cout, kernel=1),
        )
        self.shortcut = nn.Identity() if cin == cout else nn.Sequential(*conv_bn(cin, cout, kernel=1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, cin, H, W) to (B, cout, H, W)."""
        out: Tensor = self.relu(self.shortcut(x) + self.body(x))
        return out


def stack(block: Callable[[int], nn.Module], channels: int, depth: int) -> nn.Sequential:
    """Return a sequence of `depth` blocks of equal width."""
    return nn.Sequential(*(block(channels) for _ in range(depth)))
