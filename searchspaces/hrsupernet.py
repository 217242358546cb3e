"""The HRSuperNet, in which every node reads all maps of the previous stage (Lin et al. 2023, section 3.1, Figure 2)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from nasface.graph import Graph, Node
from searchspaces.highres import (
    Alpha,
    Channels,
    Depth,
    HighResolutionSpace,
    Resolutions,
    Stages,
    Width,
    branch,
    build,
    check_options,
    stage1_channels,
)


def hrsupernet(
    *,
    encoder: Literal["mbconv", "residual"] = "mbconv",
    stage1: Literal["mbconv", "residual", "bottleneck"] | None = None,
    width: Width = 18,
    depth: Depth = 4,
    stages: Stages = 10,
    resolutions: Resolutions = 4,
    stem_channels: Channels = 64,
    alpha: Alpha | None = None,
    relu_after_identity: bool = True,
) -> HighResolutionSpace:
    """The HRSuperNet: stage 1 at stride 4, then stages of `resolutions` maps, each densely connected to the one before.

    The last stage only fuses. With the defaults, the space has the paper's 132 edges and 32 prunable encoder blocks.

    Args:
        encoder: block of the encoders of all stages after the first.
        stage1: block of stage 1; by default that of the encoders.
        width: channels at stride 4, doubled with each resolution.
        depth: number of blocks in an encoder.
        stages: number of stages, including the first and the last, which only fuses; at least 2.
        resolutions: number of maps per stage, at strides 4, 8, 16, ...
        stem_channels: width of the stem, and of stage 1 unless it uses bottlenecks.
        alpha: initial factor of every edge; None stands for 1 / number of inputs.
        relu_after_identity: see `HighResolutionSpace`.
    """
    check_options(hrsupernet, locals())
    stage1 = stage1 or encoder
    first = Node("1.0", stage1_channels(stage1, stem_channels), 4, stage=1)
    columns = [[first]] + [
        [branch(stage, r, width, block=stage < stages) for r in range(resolutions)] for stage in range(2, stages + 1)
    ]
    graph = Graph(
        nodes=tuple(node for column in columns for node in column),
        edges=tuple((src.id, dst.id) for before, after in pairwise(columns) for dst in after for src in before),
        inputs=(first.id,),
        outputs=tuple(node.id for node in columns[-1]),
    )
    return build(
        "hrsupernet",
        graph,
        encoder=encoder,
        stage1=stage1,
        width=width,
        depth=depth,
        stages=stages,
        resolutions=resolutions,
        stem_channels=stem_channels,
        alpha=alpha,
        relu_after_identity=relu_after_identity,
    )
