"""Drawings of graphs: every node and edge has its place and look, for any graph; and the command that draws."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from tiny import diamond, fixed_net, importance, supernet

from nasface import plugins, rundir
from nasface.arch import Architecture, Factors
from nasface.cli import main
from nasface.errors import GraphError, RunError
from nasface.graph import Edge, Graph, Node
from nasface.model.source import read_source
from nasface.report.drawing import alpha_heatmap, architecture, layout, read_alphas
from nasface.rundir import RunDir
from tests.refusal import refused

pytestmark = pytest.mark.slow


@cache
def graph_of(name: str) -> Graph:
    """The published sizes, a small graph, and one without stages."""
    if name == "diamond":
        return diamond()
    if name == "one stage":
        strides = (4, 8, 4, 16, 4, 8, 4, 4, 8)
        nodes = tuple(Node(f"n{i}", 8, stride) for i, stride in enumerate(strides))
        edges = tuple((f"n{i}", f"n{j}") for i in range(9) for j in range(i + 1, 9) if (i + j) % 3 or j == i + 1)
        return Graph(nodes, edges, ("n0", "n1"), ("n7", "n8"))
    return plugins.space(name, {}).graph


every_graph = pytest.mark.parametrize("name", ["hrsupernet", "hrnet", "diamond", "one stage"])


def half(graph: Graph) -> Graph:
    return graph.random_subgraph(np.random.default_rng(1), 0.6)


def curves(figure: Figure) -> dict[str, dict[Edge, PathPatch]]:
    """The drawn edges by state."""
    found: dict[str, dict[Edge, PathPatch]] = {"kept": {}, "pruned": {}, "fixed": {}}
    for patch in figure.axes[0].patches:
        state, _, ends = (patch.get_gid() or "").partition(":")
        if state in found:
            src, dst = ends.split("->")
            found[state][src, dst] = patch
    return found


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- layout


@every_graph
def test_no_two_nodes_share_a_place(name):
    graph = graph_of(name)
    grid = layout(graph)
    assert len(set(grid.place.values())) == len(graph.nodes) == len(grid.place)
    for node in graph.nodes:
        column, row = grid.place[node.id]
        assert grid.strides[row] == node.stride
        assert grid.name(column).startswith(str(node.stage))
    assert list(grid.strides) == sorted(grid.strides)  # the finest on top


@every_graph
def test_edges_run_from_left_to_right(name):
    graph = graph_of(name)
    grid = layout(graph)
    assert all(grid.place[src][0] < grid.place[dst][0] for src, dst in graph.edges)


def test_a_stage_is_a_column_and_is_split_only_where_it_must():
    assert layout(graph_of("hrsupernet")).columns == 10
    assert layout(graph_of("hrnet")).columns == 12
    grid = layout(
        Graph((Node("a", 1, 4, 3), Node("b", 1, 4, 3), Node("c", 1, 8, 5)), (("a", "c"),), ("a", "b"), ("c",))
    )
    assert grid.place == {"a": (0, 0), "b": (1, 0), "c": (2, 1)}
    assert [grid.name(column) for column in range(3)] == ["3a", "3b", "5"]
    chain = [Node(f"n{i}", 1, 4) for i in range(60)]
    grid = layout(Graph(tuple(chain), tuple((a.id, b.id) for a, b in pairwise(chain)), ("n0",), ("n59",)))
    assert len({grid.name(column) for column in range(60)}) == 60


# ---- the network


@every_graph
def test_every_edge_is_drawn_once_between_its_boxes_as_what_it_is(name):
    full = graph_of(name)
    kept = half(full)
    drawn = curves(architecture(full, kept, importance(full)))
    assert set(drawn["kept"]) == set(kept.edges) - full.fixed
    assert set(drawn["fixed"]) == set(kept.edges) & full.fixed
    assert set(drawn["pruned"]) == set(full.edges) - set(kept.edges)
    grid = layout(full)
    for (src, dst), curve in (item for state in drawn.values() for item in state.items()):
        (x0, y0), *_, (x1, y1) = curve.get_path().vertices
        assert (x0, y0) == pytest.approx(grid.place[src], abs=0.27)
        assert (x1, y1) == pytest.approx(grid.place[dst], abs=0.27)


def test_strong_edges_are_wide_and_opaque_and_lie_on_top():
    full = graph_of("hrsupernet")
    kept = half(full)
    values = {edge: value * (-1) ** i for i, (edge, value) in enumerate(importance(full).items())}
    drawn = curves(architecture(full, kept, values))
    order = sorted(kept.edges, key=lambda edge: abs(values[edge]))
    widths = [drawn["kept"][edge].get_linewidth() for edge in order]
    assert widths == sorted(widths)
    assert len(set(widths)) == len(widths) > 40
    opacity = [drawn["kept"][edge].get_alpha() for edge in order]
    assert opacity == sorted(opacity)
    assert list(drawn["kept"]) == order  # drawn in this order
    gone = list(drawn["pruned"].values())
    assert {patch.get_linestyle() for patch in gone}.isdisjoint({"solid", "-"})
    assert max(patch.zorder for patch in gone) < min(patch.zorder for patch in drawn["kept"].values())
    assert max(patch.get_linewidth() for patch in gone) < 0.5


def test_without_values_all_edges_are_alike():
    full = graph_of("hrsupernet")
    drawn = curves(architecture(full, full))
    assert len(drawn["kept"]) == 132
    assert len({patch.get_linewidth() for patch in drawn["kept"].values()}) == 1


def test_nodes_say_channels_and_whether_they_hold_a_block():
    full = graph_of("hrnet")
    kept = half(full)
    axes = architecture(full, kept, title="HRNet").axes[0]
    boxes = {patch.get_gid(): patch for patch in axes.patches if "node:" in (patch.get_gid() or "")}
    assert set(boxes) == {f"{'node' if n.id in kept.node else 'pruned-node'}:{n.id}" for n in full.nodes}
    fills = {
        (node.id in kept.node, node.block): boxes[f"{'node' if node.id in kept.node else 'pruned-node'}:{node.id}"]
        for node in full.nodes
    }
    assert fills[True, True].get_facecolor() != fills[True, False].get_facecolor()
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("144") == 4
    assert {"stem", "head", "1/4", "1/32", "12"} <= set(texts)
    assert axes.get_title(loc="left") == "HRNet"
    assert axes.get_title(loc="right") == (
        f"{len(kept.edges)} of 97 edges, {len(kept.blocks)} of {len(full.blocks)} prunable blocks"
    )


def test_stem_and_head_are_joined_with_inputs_and_outputs():
    full = graph_of("hrsupernet")
    kept = full.keep(e for e in full.edges if e[1] != "10.3")
    lines = {part.get_gid(): part for part in architecture(full, kept).axes[0].lines}
    assert set(lines) == {"stem:1.0", "head:10.0", "head:10.1", "head:10.2", "head:10.3"}
    assert lines["head:10.2"].get_linestyle() == "-"
    assert lines["head:10.3"].get_linestyle() != "-"


def test_the_legend_has_what_the_drawing_has():
    full = graph_of("hrnet")
    values = {edge: 0.25 + i / 100 for i, edge in enumerate(full.prunable)}
    always = ["encoder block (channels)", "fuses only"]
    assert legend(architecture(full, full, values)) == [*always, "fixed edge", "edge, |α| = 1.1", "edge, |α| = 0.25"]
    full = graph_of("hrsupernet")
    assert legend(architecture(full, half(full))) == [*always, "pruned", "edge"]


def test_a_network_of_another_space_is_refused():
    with refused(GraphError, " -> "):
        architecture(diamond(), graph_of("hrnet"))
    with refused(GraphError, " -> "):
        alpha_heatmap(diamond(), graph_of("hrnet"), {("a", "b"): 1.0})


# ---- heat map


@pytest.mark.parametrize("name", ["hrsupernet", "hrnet", "one stage"])
def test_heat_map_has_a_cell_for_every_factor_and_crosses_what_is_pruned(name):
    full = graph_of(name)
    kept = half(full)
    values = {edge: -value for edge, value in importance(full).items()}
    figure = alpha_heatmap(full, kept, values, "factors")
    meshes = [mesh for axes in figure.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)]
    panels = [mesh for mesh in meshes if mesh.axes.get_title()]
    cells = np.concatenate([np.ma.compressed(np.ma.masked_invalid(mesh.get_array())) for mesh in panels])
    assert sorted(cells) == pytest.approx(sorted(abs(v) for v in values.values()))
    crosses = [part for axes in figure.axes for part in axes.lines if part.get_gid() == "pruned"]
    assert sum(len(part.get_xdata()) for part in crosses) == len(full.edges) - len(kept.edges)
    assert {(mesh.norm.vmin, mesh.norm.vmax) for mesh in panels} == {(0, max(cells))}  # one scale for all
    grey = sum(len(mesh.axes.patches) for mesh in panels)
    assert grey == len(full.fixed)


def test_a_cell_stands_in_the_row_of_its_source_and_the_column_of_its_target():
    full = graph_of("hrsupernet")
    figure = alpha_heatmap(full, full, {edge: float(edge == ("4.3", "5.1")) for edge in full.edges})
    (axes,) = [axes for axes in figure.axes if axes.get_title() == "4 → 5"]
    assert np.argwhere(axes.collections[0].get_array() == 1).tolist() == [[3, 1]]
    assert axes.yaxis_inverted()
    assert len([axes for axes in figure.axes if "→" in axes.get_title()]) == 9


def test_a_heat_map_without_factors_is_refused():
    with refused(GraphError, "factor"):
        alpha_heatmap(diamond(), diamond(), {("b", "e2"): 1.0})


# ---- from files


def write_network(folder: Path, run: Path | None = None) -> tuple[Path, Graph, Graph]:
    """An arch.json of half a small HRNet."""
    full = fixed_net().graph
    kept = half(full)
    options = fixed_net().options
    arch = Architecture("hrnet", options, 5, 32, full.digest, kept.edges, {"run": str(run)} if run else {})
    rundir.write_text(folder / "arch.json", arch.to_json())
    return folder / "arch.json", full, kept


def test_factors_come_from_the_search_then_from_weights(tmp_path):
    path, full, kept = write_network(tmp_path / "slim", tmp_path / "run")
    source = read_source(path)
    assert read_alphas(source, full, kept) == (None, "")

    weights = torch.arange(len(full.prunable)) / 4
    rundir.write_tensors(RunDir(tmp_path / "run").supernet, {"alpha": weights})
    values, whence = read_alphas(source, full, kept)
    assert values == dict(zip(full.prunable, weights.tolist(), strict=True))
    assert whence == str(tmp_path / "run" / "supernet.safetensors")

    rundir.write_tensors(RunDir(path.parent).slim, {"alpha": torch.ones(len(kept.prunable))})
    assert read_alphas(source, full, kept) == (dict.fromkeys(kept.prunable, 1.0), str(RunDir(path.parent).slim))

    alpha = importance(full)
    factors = Factors("hrnet", {}, 5, full.digest, importance(full, seed=1), alpha)
    rundir.write_text(RunDir(tmp_path / "run").factors, factors.to_json())
    assert read_alphas(source, full, kept) == (alpha, str(RunDir(tmp_path / "run").factors))


def test_factors_of_another_graph_and_weights_that_do_not_fit_are_refused(tmp_path):
    path, full, kept = write_network(tmp_path)
    rundir.write_tensors(RunDir(tmp_path).slim, {"alpha": torch.ones(len(kept.prunable) + 1)})
    with refused(RunError, RunDir(tmp_path).slim, len(kept.prunable)):
        read_alphas(read_source(path), full, kept)
    other = supernet().graph
    text = Factors("hrsupernet", {}, 5, other.digest, importance(other), importance(other)).to_json()
    rundir.write_text(RunDir(tmp_path).factors, text)
    with refused(GraphError, RunDir(tmp_path).factors, other.digest, full.digest):
        read_alphas(read_source(path), full, kept)


def draw(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["draw", *map(str, args)])
    return result.exit_code, result.output


def test_draw_writes_the_network_beside_its_file_or_where_it_is_told(tmp_path):
    path, full, kept = write_network(tmp_path)
    code, said = draw(path, "--title", "half a net")
    assert code == 0
    assert "same width" in said
    root = ElementTree.parse(tmp_path / "arch.svg").getroot()
    assert {"half a net", "stem", "head"} <= {text.strip() for text in root.itertext()}
    drawn = [e.get("id") for e in root.iter() if (e.get("id") or "").startswith(("kept:", "fixed:", "pruned:"))]
    assert len(drawn) == len(full.edges)
    assert sum(not name.startswith("pruned") for name in drawn) == len(kept.edges)
    assert draw(path, "--out", tmp_path / "net.png")[0] == 0
    assert (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")


def test_draw_shows_factors_as_heat_maps_and_says_what_is_wrong(tmp_path):
    path, _, kept = write_network(tmp_path)
    code, said = draw(path, "--heatmap")
    assert (code, "no edge of the graph has a factor" in said) == (2, True)
    rundir.write_tensors(RunDir(tmp_path).slim, {"alpha": torch.ones(len(kept.prunable))})
    code, said = draw(path, "--heatmap", "--out", tmp_path / "map.svg")
    assert code == 0
    assert "slim.safetensors" in said
    assert "target resolution" in (tmp_path / "map.svg").read_text()
    code, said = draw(path, "--out", tmp_path / "map.jpg")
    assert code == 2
    assert "map.jpg" in said
    assert draw(tmp_path / "nothing.json")[0] == 2
