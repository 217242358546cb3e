"""HRFlex: what can be pruned in it, what that saves, and how it is drawn."""

from __future__ import annotations

import pytest
import torch

from nasface.cost import count_space
from nasface.errors import GraphError
from nasface.net import GraphNet, edge_values, slim_net
from nasface.report.drawing import architecture
from nasface.report.heatmap import alpha_heatmap
from searchspaces.hrflex import hrflex
from tests.refusal import refused

SMALL = {"width": 4, "stages": 3, "resolutions": 3, "stage1_channels": 8, "stage1_groups": 2, "head_channels": 8,
         "head_groups": 2}  # fmt: skip


def without(graph, *edges):
    return graph.keep_prunable(edge for edge in graph.prunable if edge not in edges)


@pytest.mark.slow
def test_most_of_the_multiply_adds_can_be_pruned():
    for size in (64, 256):
        costs = count_space(hrflex(), 68, size)
        graph = costs.space.graph
        assert costs.prunable(graph).macs / costs.total(graph).macs > 0.85


def test_the_edges_and_what_they_cost():
    space = hrflex(**SMALL, depth=2, stage1_depth=1, stem_channels=6)
    graph = space.graph
    stem, fuse, blocks, head = 2, 2 * 3 + 3 * 3, 2 * 1 + 2 * 3 * 2, 3 * 2
    assert len(graph.prunable) == stem + fuse + blocks + head
    costs = count_space(space, 5, 32)
    whole = costs.total(graph).macs
    assert costs.stem.macs == 3 * 6 * 9 * 16 * 16
    # a group of stage 1 with its block and the four edges to stage 2, whose maps have 4, 8 and 16 channels
    block = (4 * 9 + 4 * 4) * 8 * 8
    group = 6 * 4 * 9 * 8 * 8 + block
    fused = 4 * 8 * 9 * 4 * 4 + 4 * 4 * 9 * 4 * 4 + 4 * 16 * 9 * 2 * 2  # stride 4 -> 4 is an identity
    assert whole - costs.total(without(graph, ("stem", "1.0.1"))).macs == group + fused
    assert whole - costs.total(without(graph, ("2.1*2", "2.1+2"))).macs == (8 * 9 + 8 * 8) * 4 * 4
    # a group of the head with its projections, and its part of the last convolution
    into = [(src, "head.0") for src in graph.parents["head.0"]]
    projections = (4 * 4 * 8 * 8) + (8 * 4 * 4 * 4) + (16 * 4 * 2 * 2)
    assert whole - costs.total(without(graph, *into)).macs == projections + 4 * 5 * 8 * 8


@pytest.mark.slow
def test_a_pruned_block_leaves_its_input():
    net = GraphNet(hrflex(**SMALL, depth=1), 5).eval()
    values = edge_values(net)
    assert values["2.0*1", "2.0+1"] == 1
    assert values["1.0.0+1", "2.0"] == 0.5
    slim, _ = slim_net(net, without(net.graph, ("2.0*1", "2.0+1")))
    assert "2.0*1" not in slim.graph.node
    assert slim.graph.parents["2.0+1"] == ("2.0",)
    with torch.no_grad():
        images = torch.randn(1, 3, 32, 32)
        before = slim(images)
        net.alpha[net.graph.prunable.index(("2.0*1", "2.0+1"))] = 0
        torch.testing.assert_close(net(images), before)


def test_a_space_without_blocks_has_none():
    assert hrflex(**SMALL, depth=0, stage1_depth=0).graph.blocks == ()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"head_channels": 50, "head_groups": 3}, ["head_channels", "50", "3"]),
        ({"stage1_groups": 5}, ["stage1_channels", "32", "5"]),
        ({"stages": 1}, ["stages", "1", "2"]),
        ({"depth": -1}, ["depth"]),
        ({"head_groups": 0}, ["head_groups", "0"]),
        ({"encoder": "transformer"}, ["transformer", "mbconv"]),
    ],
)
def test_options_that_make_no_network(options, named):
    with refused(GraphError, *named):
        hrflex(**options)


@pytest.mark.slow
def test_it_can_be_drawn():
    net = GraphNet(hrflex(**SMALL, depth=1), 5)
    kept = without(net.graph, ("2.0*1", "2.0+1"), ("stem", "1.0.1"))
    for figure in (architecture(net.graph, kept, edge_values(net)), alpha_heatmap(net.graph, kept, edge_values(net))):
        assert figure.axes
