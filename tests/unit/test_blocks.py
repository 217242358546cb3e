"""Blocks of the search spaces."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from searchspaces.blocks import Depthwise


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2), (2, 3), (5, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_a_depthwise_convolution_and_its_gradients_are_torchs_at_any_size(size: tuple[int, int], training: bool):
    torch.manual_seed(0)
    block = Depthwise(6).train(training)
    x = torch.randn(3, 6, *size, requires_grad=True)
    out = block(x)
    weight = block.weight.detach().clone().requires_grad_()
    expected = F.conv2d(x, weight, padding=1, groups=6)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, (x, weight), upstream)
    for found, theirs in zip(torch.autograd.grad(out, (x, block.weight), upstream), wanted, strict=True):
        torch.testing.assert_close(found, theirs)
