"""Which parts of a network suffer most when they compute in 8 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def by_sensitivity(net: nn.Module, images_B3HW: Tensor) -> list[str]:
    """Return the parts of a network, such as 'stem' or 'nodes.4_1', by how much they change the heatmaps in 8 bits.

    Each part alone computes with activations rounded to 256 levels and weights to 255 levels per channel, as in an
    exported int8 network. The last convolution is left out, since it stays in float.

    Args:
        net: from normalised images to heatmaps, in eval mode; its convolutions are put back as they were.
        images_B3HW: normalised images, by which ranges are measured too.
    """
    convs = {name: part for name, part in net.named_modules() if isinstance(part, nn.Conv2d)}
    called: list[str] = []
    hooks = [conv.register_forward_hook(lambda *_, own=name: called.append(own)) for name, conv in convs.items()]
    with torch.no_grad():
        exact = net(images_B3HW)
        for hook in hooks:
            hook.remove()
        parts: dict[str, list[nn.Conv2d]] = {}
        for name in dict.fromkeys(called[:-1]):
            parts.setdefault(_part(name), []).append(convs[name])
        change = {}
        for part, own in parts.items():
            with _in_8_bits(own):
                change[part] = float((net(images_B3HW) - exact).square().mean())
    return sorted(change, key=lambda part: change[part], reverse=True)


def _part(name: str) -> str:
    """Return the part that a convolution belongs to: an edge, a node, or what stands at the top."""
    top, *below = name.split(".")
    return f"{top}.{below[0]}" if top in ("edges", "nodes") else top


@contextlib.contextmanager
def _in_8_bits(convs: Sequence[nn.Conv2d]) -> Iterator[None]:
    exact = [conv.weight.data for conv in convs]
    hooks = [conv.register_forward_pre_hook(lambda _, given: (_rounded_map(given[0]),)) for conv in convs]
    try:
        for conv in convs:
            conv.weight.data = _rounded_weights(conv.weight.data)
        yield
    finally:
        for conv, hook, weight in zip(convs, hooks, exact, strict=True):
            hook.remove()
            conv.weight.data = weight


def _rounded_map(values: Tensor) -> Tensor:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = max((high - low) / 255, 1e-12)
    return torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 255)


def _rounded_weights(weights: Tensor) -> Tensor:
    scale = (weights.abs().amax(dim=(1, 2, 3)) / 127).clamp_min(1e-12)
    return torch.fake_quantize_per_channel_affine(
        weights, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -127, 127
    )
