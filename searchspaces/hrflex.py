"""HRFlex: a high-resolution space in which stem, stage 1, depth and head are edges too, so that a search can save them.

In the paper's space, stem, stage 1 and head take about half of the MACs, and no edge stands for any part of them. Here,
only the first convolution and the last one are fixed:

* the second convolution of the stem and stage 1 are groups of channels, each a node with an edge of its own;
* every block of an encoder is a node whose output reaches the residual sum through a prunable edge;
* the hidden channels of the head are groups, each fed by one prunable 1x1 projection per map of the last stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from nasface.errors import GraphError
from nasface.graph import Edge, Graph, Node
from nasface.space import Head
from searchspaces.blocks import conv_bn
from searchspaces.highres import (
    ENCODERS,
    FUSE_MOMENTUM,
    Alpha,
    Channels,
    Groups,
    HighResolutionSpace,
    Resolutions,
    Stages,
    Width,
    branch,
    check_options,
)

STEM = "stem"
Layers = Annotated[int, Interval(ge=0, le=32)]


@dataclass(frozen=True)
class HRFlexSpace(HighResolutionSpace):
    """The space that `hrflex` builds; the edges between its stages are those of the paper's space."""

    @property
    def blocks(self) -> int:
        """One: every block of an encoder is a node."""
        return 1

    def initial_alpha(self, src: Node, dst: Node) -> float:
        """Return 1 for the output of a block; otherwise the option `alpha`, or 1 / number of inputs of `dst`."""
        return 1.0 if src.block else super().initial_alpha(src, dst)

    def stem(self) -> nn.Module:
        """Build one 3x3 convolution with stride 2, from (B, 3, H, W) to (B, C, H/2, W/2)."""
        return nn.Sequential(*conv_bn(3, self.stem_channels, stride=2), nn.ReLU(inplace=True))

    def edge(self, src: Node, dst: Node) -> nn.Module:
        """Build a 1x1 projection with upsampling to a group of the head; other edges are those of the paper's space."""
        if dst.id not in self.graph.outputs:
            return super().edge(src, dst)
        layers = conv_bn(src.channels, dst.channels, kernel=1, momentum=FUSE_MOMENTUM)
        if src.stride > dst.stride:
            layers.append(nn.Upsample(scale_factor=src.stride // dst.stride, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    def node(self, node: Node, parents: Sequence[Node]) -> nn.Module:
        """Build the residual branch of a block, or what follows a sum: ReLU, or nothing after a block without one."""
        if node.block:
            body: nn.Module = ENCODERS[self.encoder](node.channels).get_submodule("body")
            return body
        if node.id == STEM or (self.encoder == "mbconv" and "+" in node.id):  # an inverted residual block ends linearly
            return nn.Identity()
        return nn.ReLU()

    def head(self, outputs: Sequence[Node], num_landmarks: int) -> Head:
        """Build the last 1x1 convolution, which reads the groups that are left."""
        return GroupHead(outputs, num_landmarks)


class GroupHead(Head):
    """A 1x1 convolution from the channels of all groups to heatmaps."""

    def __init__(self, outputs: Sequence[Node], num_landmarks: int) -> None:
        super().__init__()
        owner = [node.id for node in outputs for _ in range(node.channels)]
        self.heatmaps = nn.Conv2d(len(owner), num_landmarks, 1)
        # With small weights, heatmaps start near zero, the target of almost all of their cells (as in the HRNet code).
        nn.init.normal_(self.heatmaps.weight, std=0.001)
        nn.init.zeros_(self.heatmaps.bias)  # type: ignore[arg-type]
        self.owners = {"heatmaps.weight": (None, owner, None, None)}

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute heatmaps (B, L, h, w) from the maps of the groups in graph order."""
        out: Tensor = self.heatmaps(torch.cat(maps, dim=1))
        return out


def hrflex(
    *,
    encoder: Literal["mbconv", "residual"] = "mbconv",
    width: Width = 18,
    depth: Layers = 2,
    stages: Stages = 5,
    resolutions: Resolutions = 4,
    stem_channels: Channels = 16,
    stage1_channels: Channels = 32,
    stage1_groups: Groups = 4,
    stage1_depth: Layers = 1,
    head_channels: Channels = 48,
    head_groups: Groups = 3,
    alpha: Alpha | None = None,
) -> HRFlexSpace:
    """HRFlex: the stages of the HRSuperNet, with stem, stage 1, depth and head as prunable edges too.

    With the defaults, 90 % of the MACs can be pruned.

    Args:
        encoder: block of all encoders.
        width: channels at stride 4 from stage 2 on, doubled with each resolution.
        depth: number of blocks in an encoder from stage 2 on; each can be pruned.
        stages: number of stages, all with encoders; at least 2.
        resolutions: number of maps per stage, at strides 4, 8, 16, ...
        stem_channels: width of the first convolution, at stride 2.
        stage1_channels: width of stage 1, at stride 4, over all of its groups.
        stage1_groups: number of groups into which stage 1 is divided.
        stage1_depth: number of blocks in stage 1.
        head_channels: hidden width of the head over all of its groups.
        head_groups: number of groups into which the head is divided.
        alpha: initial factor of the edges that fuse; None stands for 1 / number of inputs. Those of blocks start at 1.
    """
    options: dict[str, Any] = dict(locals())
    check_options(hrflex, options)
    build = _Builder(Node(STEM, stem_channels, 2, stage=0, block=False))
    groups = (
        Node(f"1.0.{group}", size, 4, stage=1, block=False)
        for group, size in enumerate(_sizes("stage1", stage1_channels, stage1_groups))
    )
    last = [build.encoder(build.fuse(node, build.nodes[:1]), stage1_depth) for node in groups]
    for stage in range(2, stages + 1):
        fused = [build.fuse(branch(stage, r, width, block=False), last) for r in range(resolutions)]
        last = [build.encoder(node, depth) for node in fused]
    outputs = [
        build.fuse(Node(f"head.{group}", size, 4, stages + 1, block=False), last)
        for group, size in enumerate(_sizes("head", head_channels, head_groups))
    ]
    return HRFlexSpace(
        name="hrflex",
        options=options,
        graph=build.graph(outputs),
        encoder=encoder,
        stage1=encoder,
        depth=depth,
        stem_channels=stem_channels,
        alpha=alpha,
        relu_after_identity=True,
    )


class _Builder:
    """The nodes and edges of a graph in the making; nodes are added in topological order."""

    def __init__(self, start: Node) -> None:
        self.nodes = [start]
        self.edges: list[Edge] = []
        self.fixed: list[Edge] = []

    def fuse(self, node: Node, sources: Sequence[Node]) -> Node:
        """Add a node with a prunable edge from each source."""
        self.nodes.append(node)
        self.edges += [(src.id, node.id) for src in sources]
        return node

    def encoder(self, node: Node, depth: int) -> Node:
        """Add residual blocks after a node and return the node that ends them.

        Block k of node n is the node n*k, and n+k is the sum of its output and its input. The factor is on the edge
        from block to sum: before the block, its first BN would undo it.
        """
        source = node
        for number in range(1, depth + 1):
            body = Node(f"{node.id}*{number}", node.channels, node.stride, node.stage)
            end = Node(f"{node.id}+{number}", node.channels, node.stride, node.stage, block=False)
            self.nodes += (body, end)
            enter, skip = (source.id, body.id), (source.id, end.id)
            self.edges += (enter, skip, (body.id, end.id))
            self.fixed += (enter, skip)
            source = end
        return source

    def graph(self, outputs: Sequence[Node]) -> Graph:
        """Return the graph from the first node to these."""
        return Graph(
            nodes=tuple(self.nodes),
            edges=tuple(self.edges),
            inputs=(self.nodes[0].id,),
            outputs=tuple(node.id for node in outputs),
            fixed=frozenset(self.fixed),
        )


def _sizes(part: str, channels: int, groups: int) -> list[int]:
    """Divide channels into groups of equal size."""
    if channels % groups:
        raise GraphError(
            f"the space option {part}_channels is {channels}, which {part}_groups ({groups}) does not divide; "
            "choose a multiple"
        )
    return [channels // groups] * groups
