"""The part that suffers most in 8 bits is found, and the network stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasface.deploy.plain import Plain
from nasface.deploy.rewrites import rewrites_for, rewritten
from nasface.deploy.sensitivity import by_sensitivity
from tests.tiny import scrambled, supernet


class Chain(nn.Module):
    """Three parts and a last convolution; a part in `wide` gets one value that makes the rest of its range coarse."""

    def __init__(self, wide: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = wide
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.nodes = nn.ModuleDict({name: nn.Conv2d(4, 4, 1) for name in ("1_0", "2_0")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name, conv in (("stem", self.stem), *((f"nodes.{key}", part) for key, part in self.nodes.items())):
            x = conv(self.spoilt(x) if name == self.wide else x)[..., 1:, 1:]  # later parts do not see the value
        return self.head(x)

    def spoilt(self, x: torch.Tensor) -> torch.Tensor:
        corner = torch.zeros_like(x)
        corner[..., 0, 0] = 1000.0
        return x + corner


@pytest.mark.parametrize("wide", ["stem", "nodes.1_0", "nodes.2_0"])
def test_the_part_with_coarse_levels_comes_first(wide: str):
    found = by_sensitivity(Chain(wide).eval(), torch.randn(2, 3, 8, 8))
    assert found[0] == wide
    assert set(found) == {"stem", "nodes.1_0", "nodes.2_0"}  # the head is the last convolution


@pytest.mark.parametrize("channels", [1, 8])
def test_parts_are_those_of_the_network_which_stays_as_it_was(channels: int):
    net = scrambled(supernet())
    done = rewritten(Plain(net), rewrites_for(channels)).float()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = done(images)
        found = by_sensitivity(done, images)
        torch.testing.assert_close(done(images), before, rtol=0, atol=0)
    names = {name for name, _ in done.named_modules()}
    assert {"stem", "head"} < set(found) <= names
    assert len(set(found)) == len(found)
