"""The checks for plug-in authors: the built-ins pass, and every kind of broken plug-in is caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tiny import diamond, fixed_net, space_of, supernet
from torch import nn

from nasface.errors import RecipeError
from nasface.graph import Node
from nasface.testing import check_installed, check_space
from searchspaces.highres import ConcatHead, HighResolutionSpace
from searchspaces.hrflex import hrflex
from tests.refusal import refused

MISMATCH = ["slim network", "masked supernet", "differ"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "build",
    [
        supernet,
        fixed_net,
        partial(supernet, encoder="residual"),
        partial(space_of, diamond()),
        partial(hrflex, width=4, stages=3, resolutions=3, depth=1),
        partial(hrflex, width=4, stages=3, resolutions=2, stage1_depth=0, encoder="residual"),
    ],
    ids=["hrsupernet", "hrnet", "residual", "own graph", "hrflex", "residual hrflex"],
)
def test_good_spaces_pass(build):
    check_space(build, draws=3, input_size=32)


@pytest.mark.parametrize("name", ["hrsupernet", "hrnet", "hrflex"])
def test_installed_spaces_are_found(name):
    check_installed("searchspaces", name)


@pytest.mark.parametrize(
    ("group", "name"),
    [("searchers", name) for name in ("l1", "prox", "gates", "shared")]
    + [("datasets", "300w"), ("datasets", "wflw"), ("datasets", "cofw"), ("datasets", "synthetic")],
)
def test_installed_plugins_are_found(group, name):
    check_installed(group, name)


def test_a_plugin_without_defaults_or_installation_fails():
    with refused(RecipeError, "pruner 'share'", "share: field required"):
        check_installed("pruners", "share")
    with refused(RecipeError, "search space", "'hrsuprnet'", "'hrsupernet'"):
        check_installed("searchspaces", "hrsuprnet")


class Wide(HighResolutionSpace):
    """A head that is not sliced: its rows do not say whom they belong to."""

    def head(self, outputs: Any, num_landmarks: int) -> ConcatHead:
        head = super().head(outputs, num_landmarks)
        head.owners = {}
        return head


class Shuffled(HighResolutionSpace):
    """A head whose rows belong to another output than they say."""

    def head(self, outputs: Any, num_landmarks: int) -> ConcatHead:
        head = super().head(outputs, num_landmarks)
        nn.init.normal_(head.heatmaps.weight)
        owners = [name for n in reversed(outputs) for name in [n.id] * n.channels]
        head.owners = head.owners | {"norm.weight": (owners,), "norm.bias": (owners,)}
        return head


class Biased(HighResolutionSpace):
    """Nodes that add a constant for every parent they have, so that losing one shows."""

    def node(self, node: Node, parents: Any) -> nn.Module:
        part = super().node(node, parents)
        bias = nn.Conv2d(node.channels, node.channels, 1)
        nn.init.constant_(bias.weight, 0.1)
        nn.init.constant_(bias.bias, float(len(parents)))
        bias.requires_grad_(False)
        for name, value in list(bias.named_parameters()):
            delattr(bias, name)
            bias.register_buffer(name, value.data, persistent=False)
        return nn.Sequential(part, bias)


class Coarse(HighResolutionSpace):
    """A head at the finest stride of the outputs left, not of the graph."""

    def head(self, outputs: Any, num_landmarks: int) -> ConcatHead:
        return ConcatHead(outputs, num_landmarks, min(node.stride for node in outputs))


class Uncounted(HighResolutionSpace):
    """Nodes that grow with the number of parents: the costs of the parts do not add up."""

    def node(self, node: Node, parents: Any) -> nn.Module:
        convs = [nn.Conv2d(node.channels, node.channels, 1, bias=False) for _ in parents]
        for conv in convs:
            nn.init.zeros_(conv.weight)
        return nn.Sequential(super().node(node, parents), *(Residual(conv) for conv in convs))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class Slightly(HighResolutionSpace):
    """Nodes that scale by half a thousandth for every parent: far from float precision, yet small."""

    def node(self, node: Node, parents: Any) -> nn.Module:
        scale = nn.Conv2d(node.channels, node.channels, 1, groups=node.channels, bias=False)
        nn.init.constant_(scale.weight, 1 + 5e-4 * len(parents))
        scale.register_buffer("weight", scale._parameters.pop("weight").data, persistent=False)
        return nn.Sequential(super().node(node, parents), scale)


def remade(kind: type[HighResolutionSpace], **options: Any) -> HighResolutionSpace:
    return kind(**vars(supernet(**options)))


def unstable() -> HighResolutionSpace:
    unstable.calls += 1
    return supernet(width=3 + unstable.calls)


unstable.calls = 0


def with_dead_end() -> HighResolutionSpace:
    graph = supernet().graph
    nodes = (*graph.nodes, Node("9.9", 4, 4))
    return space_of(replace(graph, nodes=nodes, edges=(*graph.edges, ("3.0", "9.9"))))


def unserialisable() -> HighResolutionSpace:
    return replace(supernet(), options={"width": object()})


@pytest.mark.parametrize(
    ("build", "facts"),
    [
        (unstable, ["twice", "graphs"]),
        (with_dead_end, ["path", "input", "output"]),
        (partial(supernet, relu_after_identity=False), MISMATCH),
        (partial(remade, Wide), ["slim network", "head."]),
        (partial(remade, Biased), MISMATCH),
        (partial(remade, Shuffled), MISMATCH),
        (partial(remade, Uncounted), ["parts", "Cost(params="]),
    ],
    ids=["unstable", "dead end", "no relu", "wide", "biased", "shuffled", "uncounted"],
)
def test_broken_spaces_fail(build, facts):
    with refused(AssertionError, *facts):
        check_space(build, input_size=32, draws=12)


def test_a_space_without_a_part_fails():
    class Partial:
        def __init__(self) -> None:
            self.name, self.options, self.graph = "partial", {}, supernet().graph

    with refused(AssertionError, "nasface.space.SearchSpace"):
        check_space(Partial)


def test_options_that_are_no_json_fail():
    with pytest.raises(TypeError):
        check_space(unserialisable)


def test_a_head_at_another_resolution_fails():
    with pytest.raises((AssertionError, RuntimeError)):
        check_space(partial(remade, Coarse), input_size=32, draws=40)


def test_a_space_that_is_slightly_off_fails():
    with refused(AssertionError, *MISMATCH):
        check_space(partial(remade, Slightly), input_size=32, draws=12)
