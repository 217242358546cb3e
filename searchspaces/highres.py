"""The parts that HRNet and HRSuperNet share: stem, fusion edges T, encoders E and head.

Both topologies use these parts; they differ in the graph only (Lin et al. 2023, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasface.errors import GraphError
from nasface.graph import Graph, Node
from nasface.space import Head
from searchspaces.blocks import BasicBlock, Bottleneck, MBConv, conv_bn, stack

FUSE_MOMENTUM = 0.01  # BN momentum of the fusion convolutions in the released networks
ENCODERS = {"mbconv": MBConv, "residual": BasicBlock}
STAGE1 = ("mbconv", "residual", "bottleneck")


@dataclass(frozen=True)
class HighResolutionSpace:
    """A SearchSpace over maps of several resolutions.

    Attributes:
        name, options, graph: see `nasface.space.SearchSpace`.
        encoder: 'mbconv' or 'residual', the block of every encoder E but stage 1's.
        stage1: 'mbconv', 'residual' or 'bottleneck' (which widens by 4).
        depth: blocks in an encoder (4 in the paper).
        stem_channels: width of the two stem convolutions (64 in the paper).
        alpha: initial factor; None stands for 1 / number of inputs of the target node.
        relu_after_identity: False drops the ReLU where the only input left is an identity edge, as in the
            released slim networks; slim network and masked supernet then differ.
    """

    name: str
    options: Mapping[str, Any]
    graph: Graph
    encoder: str
    stage1: str
    depth: int
    stem_channels: int
    alpha: float | None
    relu_after_identity: bool

    def initial_alpha(self, src: Node, dst: Node) -> float:
        """The option `alpha`, or 1 / number of inputs of `dst`."""
        return self.alpha if self.alpha is not None else 1.0 / len(self.graph.parents[dst.id])

    def stem(self) -> nn.Module:
        """Two 3x3 convolutions of stride 2: (B, 3, H, W) to (B, C, H/4, W/4)."""
        width = self.stem_channels
        layers = (conv_bn(3, width, stride=2), conv_bn(width, width, stride=2))
        return nn.Sequential(*(part for layer in layers for part in (*layer, nn.ReLU(inplace=True))))

    def edge(self, src: Node, dst: Node) -> nn.Module:
        """T between two maps: identity, 3x3 conv, a chain of stride-2 convs, or 1x1 conv and upsampling."""
        if src.stride == dst.stride:
            if src.channels == dst.channels:
                return nn.Identity()
            return nn.Sequential(*conv_bn(src.channels, dst.channels, momentum=FUSE_MOMENTUM))
        if src.stride > dst.stride:
            factor = src.stride // dst.stride
            return nn.Sequential(
                *conv_bn(src.channels, dst.channels, kernel=1, momentum=FUSE_MOMENTUM),
                nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False),
            )
        layers: list[nn.Module] = []
        for _ in range((dst.stride // src.stride).bit_length() - 2):
            layers += conv_bn(src.channels, src.channels, stride=2, momentum=FUSE_MOMENTUM)
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers, *conv_bn(src.channels, dst.channels, stride=2, momentum=FUSE_MOMENTUM))

    def node(self, node: Node, parents: Sequence[Node]) -> nn.Module:
        """E(ReLU(.)); an input node's encoder is stage 1 and follows the stem's own ReLU."""
        if node.id in self.graph.inputs:
            return self._stage1(node.channels)
        encoder = stack(ENCODERS[self.encoder], node.channels, self.depth) if node.block else nn.Identity()
        only_identity = len(parents) == 1 and (parents[0].stride, parents[0].channels) == (
            node.stride,
            node.channels,
        )
        if only_identity and not self.relu_after_identity:
            return nn.Sequential(nn.Identity(), encoder)  # the encoder's weights keep their names
        return nn.Sequential(nn.ReLU(), encoder)

    def head(self, outputs: Sequence[Node], num_landmarks: int) -> Head:
        """All output maps at the full graph's finest output stride, concatenated, two 1x1 convolutions."""
        finest = min(self.graph.node[name].stride for name in self.graph.outputs)
        return ConcatHead(outputs, num_landmarks, finest)

    def _stage1(self, channels: int) -> nn.Module:
        if self.stage1 != "bottleneck":
            return stack(ENCODERS[self.stage1], channels, self.depth)
        first = Bottleneck(self.stem_channels, channels)
        return nn.Sequential(first, *(Bottleneck(channels, channels) for _ in range(self.depth - 1)))


class ConcatHead(Head):
    """Upsample to stride `finest`, concatenate, 1x1 conv + BN + ReLU of the same width, 1x1 conv to heatmaps.

    Hidden channel i belongs to the output node that input channel i came from, so the head narrows by rows
    and by columns when an output node is pruned.
    """

    def __init__(self, outputs: Sequence[Node], num_landmarks: int, finest: int) -> None:
        super().__init__()
        width = sum(node.channels for node in outputs)
        self.factors = [node.stride // finest for node in outputs]
        self.hidden = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.heatmaps = nn.Conv2d(width, num_landmarks, 1)
        # small weights: heatmaps start near zero, which is what almost all of their pixels should be
        nn.init.normal_(self.heatmaps.weight, std=0.001)
        nn.init.zeros_(self.heatmaps.bias)  # type: ignore[arg-type]
        owner = [node.id for node in outputs for _ in range(node.channels)]
        self.owners = {
            "hidden.weight": (owner, owner, None, None),
            "hidden.bias": (owner,),
            **{f"norm.{name}": (owner,) for name in ("weight", "bias", "running_mean", "running_var")},
            "heatmaps.weight": (None, owner, None, None),
        }

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps in graph order to heatmaps (B, L, H/finest, W/finest)."""
        scaled = [
            m if f == 1 else F.interpolate(m, scale_factor=f, mode="bilinear", align_corners=False)
            for m, f in zip(maps, self.factors, strict=True)
        ]
        out: Tensor = self.heatmaps(F.relu(self.norm(self.hidden(torch.cat(scaled, dim=1)))))
        return out


def build(
    name: str,
    graph: Graph,
    *,
    encoder: str,
    stage1: str,
    depth: int,
    stem_channels: int,
    alpha: float | None,
    relu_after_identity: bool,
    **topology: Any,
) -> HighResolutionSpace:
    """The space of a topology, with every option it was built from on record."""
    options: dict[str, Any] = {
        "encoder": encoder,
        "stage1": stage1,
        "depth": depth,
        "stem_channels": stem_channels,
        "alpha": alpha,
        "relu_after_identity": relu_after_identity,
    }
    return HighResolutionSpace(name=name, graph=graph, options={**options, **topology}, **options)


def stage1_channels(stage1: str, stem_channels: int) -> int:
    """Width of the stage-1 map: a bottleneck widens by 4."""
    return 4 * stem_channels if stage1 == "bottleneck" else stem_channels


def branch(stage: int, resolution: int, width: int, block: bool = True) -> Node:
    """The node of one stage and resolution: channels double and the map halves with each resolution."""
    return Node(f"{stage}.{resolution}", width << resolution, 4 << resolution, stage, block)


def check_options(encoder: str, stage1: str, **at_least_one: int) -> None:
    """Refuse unknown block names and sizes below one with a GraphError."""
    for option, value, known in (("encoder", encoder, tuple(ENCODERS)), ("stage1", stage1, STAGE1)):
        if value not in known:
            raise GraphError(f"space option {option} is '{value}'; expected one of {', '.join(known)}")
    for option, number in at_least_one.items():
        if number < 1:
            raise GraphError(f"space option {option} is {number}; expected at least 1")
