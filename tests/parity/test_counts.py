"""Counts of the published networks, to the last multiply-add (3 x 256 x 256, alphas not counted)."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from tiny import fixed_net, supernet
from torch.utils.flop_counter import FlopCounterMode

from nasface.arch import edge_list
from nasface.cost import Cost, Costs, count_space
from nasface.graph import Graph
from nasface.net import GraphNet
from nasface.space import SearchSpace
from searchspaces.hrnet import hrnet
from searchspaces.hrsupernet import hrsupernet

pytestmark = pytest.mark.slow

COFW = Path(__file__).parents[1] / "data" / "cofw_edges.json"
BUILDERS = {"hrsupernet": hrsupernet, "hrnet": hrnet}
DEFAULTS = {
    "supernet mbconv": ("hrsupernet", {}),
    "supernet residual": ("hrsupernet", {"encoder": "residual"}),
    "hrnet": ("hrnet", {}),
    "hrnet mbconv": ("hrnet", {"encoder": "mbconv"}),
    "hrnet mbconv, stage 1 mbconv": ("hrnet", {"encoder": "mbconv", "stage1": "mbconv"}),
}
PUBLISHED = {
    "supernet mbconv": ((3_403_430, 1_307_140_096), (3_311_292, 933_339_136)),
    "supernet residual": ((18_583_654, 5_286_518_784), (18_491_516, 4_912_717_824)),
    "hrnet": ((9_654_398, 4_660_472_832), (9_562_260, 4_286_671_872)),
    "hrnet mbconv": ((2_124_638, 2_351_643_648), (2_032_500, 1_977_842_688)),
    "hrnet mbconv, stage 1 mbconv": ((1_764_830, 1_079_458_816), (1_672_692, 705_657_856)),
}


@cache
def costs_of(name: str, num_landmarks: int = 68) -> Costs:
    space, options = DEFAULTS[name]
    return count_space(BUILDERS[space](**options), num_landmarks, 256)


def by_torch(space: SearchSpace, num_landmarks: int, size: int, graph: Graph | None = None) -> int:
    """Multiply-adds by torch's own counter, which counts two for each; on tensors without data."""
    with torch.device("meta"), torch.no_grad():
        net = GraphNet(space, num_landmarks, graph).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, size, size))
    total: int = counter.get_total_flops()
    assert total % 2 == 0
    return total // 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name):
    costs = costs_of(name)
    whole, bare = PUBLISHED[name]
    assert costs.total(costs.space.graph) == Cost(*whole)
    assert costs.without_head(costs.space.graph) == Cost(*bare)
    assert by_torch(costs.space, 68, 256) == whole[1]


def test_the_published_architecture_for_cofw():
    content: dict[str, Any] = json.loads(COFW.read_text())
    space = hrsupernet()
    edges = edge_list(COFW.read_text(), str(COFW))
    kept = space.graph.keep(edges)
    assert set(kept.edges) == set(edges)  # no dead ends
    assert len(kept.edges) == content["num_edges"] == 42
    assert len(kept.blocks) == content["num_encoder_blocks"] == 24
    assert kept.outputs == ("10.0", "10.1", "10.2")
    costs = count_space(space, content["num_landmarks"], 256)
    assert costs.total(kept) == Cost(1_074_637, 684_304_384)
    assert costs.without_head(kept) == Cost(1_054_700, 604_309_504)
    assert by_torch(space, 29, 256, kept) == 684_304_384


def test_fvcore_total_of_the_supernet():
    """With BN and upsampling, in eval mode: what the authors' script prints."""
    net = GraphNet(hrsupernet(), 68).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(net, torch.zeros(1, 3, 256, 256)).unsupported_ops_warnings(False)
        assert analysis.total() == 1_351_667_712


def test_what_the_paper_quotes():
    costs = costs_of("supernet mbconv")
    graph = costs.space.graph
    assert (costs.without_head(graph) - costs.stem).params == 3_272_444  # its 3.27 M
    assert round(costs_of("supernet mbconv", 17).total(graph).macs / 1e9, 4) == 1.2507  # its 1.25 G
    hrnet_costs = costs_of("hrnet")
    bare = hrnet_costs.without_head(hrnet_costs.space.graph)
    assert bare.macs / 1e9 == pytest.approx(4.3, abs=0.05)


def test_sizes_of_the_hrsupernet():
    graph = hrsupernet().graph
    assert len(graph.nodes) == 37
    assert len(graph.edges) == len(graph.prunable) == 132
    assert graph.fixed == frozenset()
    assert len(graph.blocks) == 32
    assert [graph.node[name].channels for name in graph.outputs] == [18, 36, 72, 144]
    assert [graph.node[name].stride for name in graph.outputs] == [4, 8, 16, 32]
    assert [n.id for n in graph.nodes if not n.block] == list(graph.outputs)


def test_sizes_of_hrnet():
    graph = hrnet().graph
    assert len(graph.nodes) == 36
    assert len(graph.edges) == 97
    assert len(graph.prunable) == 88
    assert len(graph.fixed) == 9
    assert len(graph.blocks) == 26
    assert sum(not n.block for n in graph.nodes) == 9
    same = [e for e in graph.prunable if graph.node[e[0]].stride == graph.node[e[1]].stride]
    assert len(same) == 26
    costs = costs_of("hrnet")
    assert {costs.edges[edge] for edge in same} == {Cost()}
    # alpha on the edges across resolutions alone could save 4.3 % at the most
    across = sum(costs.edges[edge].macs for edge in graph.prunable)
    assert round(across / costs.total(graph).macs, 3) == 0.043


def test_costs_of_the_edges():
    costs = costs_of("supernet mbconv")
    graph = costs.space.graph
    millions = {edge: cost.macs / 1e6 for edge, cost in costs.edges.items()}
    assert [round(millions["1.0", f"2.{r}"], 1) for r in range(4)] == [42.5, 21.2, 48.4, 52.5]
    later = [edge for edge in graph.edges if edge[0] != "1.0"]
    stride = {node.id: node.stride for node in graph.nodes}
    down = [millions[e] for e in later if stride[e[0]] < stride[e[1]]]
    up = [millions[e] for e in later if stride[e[0]] > stride[e[1]]]
    level = [millions[e] for e in later if stride[e[0]] == stride[e[1]]]
    assert (len(down), len(up), len(level)) == (48, 48, 32)
    assert (round(min(down), 1), round(max(down), 1)) == (5.2, 6.0)
    assert (round(min(up), 2), round(max(up), 2)) == (0.17, 0.66)
    assert set(level) == {0}


def test_what_is_never_pruned():
    costs = costs_of("supernet mbconv")
    graph = costs.space.graph
    assert costs.fixed(graph).macs / costs.total(graph).macs == pytest.approx(0.48, abs=0.005)


@pytest.mark.parametrize("name", ["supernet mbconv", "hrnet"])
def test_torch_counts_random_slim_networks_alike(name):
    costs = costs_of(name)
    random = np.random.default_rng(3)
    kept = costs.space.graph.random_subgraph(random, 0.4)
    assert by_torch(costs.space, 68, 256, kept) == costs.total(kept).macs


@pytest.mark.parametrize("encoder", ["mbconv", "residual"])
@pytest.mark.parametrize("build", [supernet, fixed_net])
def test_torch_counts_small_slim_networks_alike(build, encoder):
    space = build(encoder=encoder)
    costs = count_space(space, 7, 64)
    random = np.random.default_rng(4)
    for share in (0.25, 0.5, 0.75):
        kept = space.graph.random_subgraph(random, share)
        assert by_torch(space, 7, 64, kept) == costs.total(kept).macs
