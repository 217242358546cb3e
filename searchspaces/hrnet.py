"""HRNet as a search space: its module fuses carry factors, its stage entries are fixed.

Column by column, a stage is an entry row, then one dense fuse a module. The row after the last module only
fuses, because transitions read the fused but not yet encoded maps (Wang et al. 2020, HRNetV2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nasface.errors import GraphError
from nasface.graph import Edge, Graph, Node
from searchspaces.highres import HighResolutionSpace, branch, build, check_options, stage1_channels


def hrnet(
    *,
    encoder: Literal["mbconv", "residual"] = "residual",
    stage1: Literal["mbconv", "residual", "bottleneck"] = "bottleneck",
    width: int = 18,
    depth: int = 4,
    modules: Sequence[int] = (1, 4, 3),
    stem_channels: int = 64,
    alpha: float | None = 1.0,
    relu_after_identity: bool = True,
) -> HighResolutionSpace:
    """HRNetV2-W18 by default: 36 nodes, 88 edges with a factor and 9 fixed ones.

    Args:
        encoder: block of the encoders after stage 1.
        stage1: block of stage 1.
        width: channels at stride 4, doubled with each resolution.
        depth: blocks in an encoder.
        modules: modules in each stage after the first; stage s has s branches.
        stem_channels: width of the stem.
        alpha: initial factor; 1 is the network as published, None stands for 1 / number of inputs.
        relu_after_identity: see `HighResolutionSpace`.
    """
    check_options(encoder, stage1, width=width, depth=depth, stem_channels=stem_channels)
    if not modules or min(modules) < 1:
        raise GraphError(f"space option modules is {list(modules)}; expected one number of at least 1 for each stage")
    first = Node("1.0", stage1_channels(stage1, stem_channels), 4, stage=1)
    nodes, edges, fixed = [first], list[Edge](), set[Edge]()
    last, column = [first], 1
    for branches, count in enumerate(modules, start=2):
        column += 1
        row = [branch(column, r, width) for r in range(branches)]
        entry = [(last[min(r, len(last) - 1)].id, node.id) for r, node in enumerate(row)]
        nodes += row
        edges += entry
        fixed |= set(entry)
        for module in range(count):
            column += 1
            last, row = row, [branch(column, r, width, block=module < count - 1) for r in range(branches)]
            nodes += row
            edges += [(src.id, dst.id) for dst in row for src in last]
        last = row
    graph = Graph(tuple(nodes), tuple(edges), (first.id,), tuple(n.id for n in last), frozenset(fixed))
    return build(
        "hrnet",
        graph,
        encoder=encoder,
        stage1=stage1,
        width=width,
        depth=depth,
        modules=list(modules),
        stem_channels=stem_channels,
        alpha=alpha,
        relu_after_identity=relu_after_identity,
    )
