"""Rewrites of a plain network that change nothing it computes, applied one after the other before export.

A rewrite is a function from a traced module to nothing: it changes the module in place. Add yours to `REWRITES`.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

log = logging.getLogger(__name__)

Rewrite = Callable[[fx.GraphModule], None]


def rewritten(module: nn.Module, rewrites: Sequence[Rewrite] | None = None) -> nn.Module:
    """Return the module after the rewrites, `REWRITES` unless others are given.

    A module that torch.fx cannot trace, because a search space's part branches on values, stays as it is.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception as err:  # a part may do anything as it is traced
        log.warning("the network is exported without rewrites: torch.fx cannot trace it (%s)", err)
        return module
    for rewrite in REWRITES if rewrites is None else rewrites:
        rewrite(traced)
        traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


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


REWRITES: tuple[Rewrite, ...] = (fold_norms, fold_factors)


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
