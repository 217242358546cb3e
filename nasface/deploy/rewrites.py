"""Rewrites of a plain network that change nothing it computes, applied one after the other before export.

A rewrite is a function from a traced module to nothing: it changes the module in place. Add yours to `REWRITES`.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

log = logging.getLogger(__name__)

Rewrite = Callable[[fx.GraphModule], None]


def rewritten(module: nn.Module, rewrites: Sequence[Rewrite] | None = None) -> nn.Module:
    """Return the module after the rewrites, `REWRITES` unless others are given.

    A module that torch.fx cannot trace, because a search space's part branches on values, stays as it is.
    """
    try:
        traced = fx.GraphModule(module, _Tracer().trace(module))
    except Exception as err:  # a part may do anything as it is traced
        log.warning("the network is exported without rewrites: torch.fx cannot trace it (%s)", err)
        return module
    for rewrite in REWRITES if rewrites is None else rewrites:
        rewrite(traced)
        traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):
    """Keeps layers in one piece, as rewrites want them, if their class only inherits what torch's computes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or any(
            isinstance(m, layer) and all(getattr(type(m), name) is getattr(layer, name) for name in methods)
            for layer, methods in _LAYERS.items()
        )


# layers that rewrites look for, and the methods that say what they compute
_LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("__call__", "forward", "_conv_forward"),
    nn.BatchNorm2d: ("__call__", "forward"),
}


def fold_norms(traced: fx.GraphModule) -> None:
    """Fold each BN into the convolution before it, where nothing else reads the convolution."""
    for node in list(traced.graph.nodes):
        norm, before = _called(traced, node), _only_input(node)
        if not isinstance(norm, nn.BatchNorm2d) or before is None or len(before.users) > 1:
            continue
        conv = _called(traced, before)
        if isinstance(conv, nn.Conv2d) and norm.track_running_stats:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)


def fold_factors(traced: fx.GraphModule) -> None:
    """Fold each multiplication by a number into the convolution before it, past what is linear."""
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.target is not operator.mul or not isinstance(node.args[1], float):
            continue
        before: Any = node.args[0]
        while _is_linear(traced, before) and len(before.users) == 1:
            before = _only_input(before)
        conv = _called(traced, before)
        if node.args[1] != 1.0:
            if not isinstance(conv, nn.Conv2d) or len(before.users) > 1:
                continue
            with torch.no_grad():
                for tensor in conv.parameters():
                    tensor.mul_(node.args[1])
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)


def project_early(traced: fx.GraphModule) -> None:
    """Let a 1x1 convolution read each of the maps that it was given concatenated, before these are upsampled.

    The convolution of a concatenation is the sum of one convolution per map, and neither order matters where every
    pixel is treated alike: it needs only a quarter of the work on a map that is upsampled by 2 afterwards.
    """
    for node in list(traced.graph.nodes):
        conv, joined = _called(traced, node), _only_input(node)
        if not isinstance(conv, nn.Conv2d) or not _is_projection(conv) or joined is None or not _is_join(joined):
            continue
        parts: list[Any] = list(joined.args[0])  # type: ignore[arg-type]
        widths = [width for part in parts if (width := _channels(traced, part)) is not None]
        scaled = [_is_linear(traced, part) and len(part.users) == len(part.all_input_nodes) == 1 for part in parts]
        if len(widths) < len(parts) or len(set(parts)) < len(parts) or not any(scaled):
            continue
        weights = torch.split(conv.weight, widths, dim=1)
        convs = [_projection(weight, None if i else conv.bias) for i, weight in enumerate(weights)]
        traced.set_submodule(str(node.target), nn.ModuleList(convs))
        total: fx.Node | None = None
        for i, part in enumerate(parts):
            before = _only_input(part) if scaled[i] else part
            with traced.graph.inserting_before(node):
                term = traced.graph.call_module(f"{node.target}.{i}", (before,))
                if scaled[i]:
                    projected = term
                    term = traced.graph.node_copy(part, lambda arg, new=projected: new)  # type: ignore[misc]
                total = term if total is None else traced.graph.call_function(operator.add, (total, term))
        node.replace_all_uses_with(total)
        traced.graph.erase_node(node)


def factors_to_convolutions(traced: fx.GraphModule) -> None:
    """Turn each multiplication by a number into a depthwise 1x1 convolution.

    ONNX Runtime adds what follows to a convolution in the same pass, and keeps its map in the layout of convolutions.
    """
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.target is not operator.mul or not isinstance(node.args[1], float):
            continue
        width = _channels(traced, node.args[0])
        if width is None:
            continue
        conv = nn.Conv2d(width, width, 1, groups=width, bias=False, dtype=torch.float64).requires_grad_(False)
        name = f"factors.{node.name}"
        conv.weight.fill_(node.args[1])
        traced.add_submodule(name, conv)
        with traced.graph.inserting_before(node):
            scaled = traced.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(scaled)
        traced.graph.erase_node(node)


def pad_channels(traced: fx.GraphModule, multiple: int) -> None:
    """Append channels of zeros until the maps between convolutions have a multiple of so many channels.

    ONNX Runtime handles eight channels at once on AVX2, but a depthwise convolution only where their number is a
    multiple of eight; elsewhere it changes the layout before and after.
    """
    maps, fixed = _alike(traced)
    for node in traced.graph.nodes:
        conv = _called(traced, node)
        if not isinstance(conv, nn.Conv2d):
            continue
        ends = (node.all_input_nodes[0], node)
        widths = (conv.in_channels, conv.out_channels)
        more = [0 if maps[end] in fixed else -width % multiple for end, width in zip(ends, widths, strict=True)]
        if any(more):
            _widen(conv, *more)


REWRITES: tuple[Rewrite, ...] = (fold_norms, fold_factors, project_early)


def rewrites_for(channels: int) -> tuple[Rewrite, ...]:
    """Return the rewrites for a runtime, given the number of channels that it handles at once, or 1."""
    if channels == 1:
        return REWRITES
    return (*REWRITES, factors_to_convolutions, partial(pad_channels, multiple=channels))


def _alike(traced: fx.GraphModule) -> tuple[DisjointSet, set[fx.Node]]:
    """Return the sets of maps that must have the same channels, and the roots of those whose channels must stay."""
    maps, stay = DisjointSet(traced.graph.nodes), []
    for node in traced.graph.nodes:
        called, inputs = _called(traced, node), node.all_input_nodes
        if isinstance(called, nn.Conv2d) and called.groups == 1:
            continue
        depthwise = isinstance(called, nn.Conv2d) and called.groups == called.in_channels == called.out_channels
        if depthwise or isinstance(called, _PIXELWISE) or node.target in _FUNCTIONS:
            for other in inputs:
                maps.merge(node, other)
        else:
            stay += [node, *inputs]
    return maps, {maps[node] for node in stay}


def _widen(conv: nn.Conv2d, inputs: int, outputs: int) -> None:
    """Give a convolution more input and output channels, whose weights are zero."""
    depthwise = conv.groups > 1
    conv.weight = _frozen(F.pad(conv.weight, (0, 0, 0, 0, 0, 0 if depthwise else inputs, 0, outputs)))
    if conv.bias is not None:
        conv.bias = _frozen(F.pad(conv.bias, (0, outputs)))
    conv.in_channels, conv.out_channels = conv.in_channels + inputs, conv.out_channels + outputs
    conv.groups = conv.out_channels if depthwise else 1


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)


def _called(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, if no other node calls it."""
    if node.op != "call_module" or sum(other.target == node.target for other in traced.graph.nodes) > 1:
        return None
    return traced.get_submodule(str(node.target))


def _only_input(node: fx.Node) -> fx.Node | None:
    return node.all_input_nodes[0] if len(node.all_input_nodes) == 1 else None


def _is_linear(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node only interpolates, so that a factor may as well be applied before it."""
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), (nn.Upsample, nn.Identity))
    return node.op == "call_function" and node.target is F.interpolate


def _is_projection(conv: nn.Conv2d) -> bool:
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)


def _projection(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None, dtype=weight.dtype)
    conv.weight = _frozen(weight)
    if bias is not None:
        conv.bias = _frozen(bias)
    return conv


def _is_join(node: fx.Node) -> bool:
    """Whether a node concatenates maps along their channels, for one reader."""
    along = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return bool(node.target is torch.cat and along == 1 and len(node.users) == 1)


def _channels(traced: fx.GraphModule, node: fx.Node) -> int | None:
    """Return how many channels a map has, if a convolution says so and all behind it work pixel by pixel or scale."""
    while True:
        called = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(called, nn.Conv2d):
            return called.out_channels
        if not (isinstance(called, (*_PIXELWISE, nn.BatchNorm2d)) or node.target in _FUNCTIONS):
            return None
        node = node.all_input_nodes[0]


# what keeps the number of channels, and treats each of them alike
_PIXELWISE = (nn.Identity, nn.ReLU, nn.ReLU6, nn.Upsample)
_FUNCTIONS = (operator.add, operator.mul, F.interpolate, F.relu)
