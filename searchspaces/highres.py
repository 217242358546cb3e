"""The parts that HRNet and the HRSuperNet share: stem, fusion edges T, encoders E and head.

The two topologies differ only in their graphs (Lin et al. 2023, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from nasface.bounds import outside
from nasface.errors import GraphError, shown
from nasface.graph import Graph, Node
from nasface.space import Head
from searchspaces.blocks import BasicBlock, Bottleneck, MBConv, conv_bn, stack

FUSE_MOMENTUM = 0.01  # momentum of the BN layers of fusion edges in the networks that the authors released
ENCODERS = {"mbconv": MBConv, "residual": BasicBlock}
STAGE1 = ("mbconv", "residual", "bottleneck")
MAX_WEIGHTS = 200_000_000  # of a space: 0.8 GB, and three times as much again in training
MAX_PARTS = 2_000  # edges and blocks of a space, each of which is built, counted and drawn

Width = Annotated[int, Interval(ge=1, le=256)]
Depth = Annotated[int, Interval(ge=1, le=32)]
Stages = Annotated[int, Interval(ge=2, le=64)]
Resolutions = Annotated[int, Interval(ge=1, le=6)]
Channels = Annotated[int, Interval(ge=1, le=1024)]
Groups = Annotated[int, Interval(ge=1, le=64)]
Alpha = Annotated[float, Interval(ge=-100, le=100)]


@dataclass(frozen=True)
class HighResolutionSpace:
    """A SearchSpace of feature maps at several resolutions.

    Attributes:
        name, options, graph: see `nasface.space.SearchSpace`.
        encoder: 'mbconv' or 'residual', the block of all encoders E except those of stage 1.
        stage1: 'mbconv', 'residual' or 'bottleneck' (which widens by 4), the block of stage 1.
        depth: number of blocks in an encoder (4 in the paper).
        stem_channels: width of the two stem convolutions (64 in the paper).
        alpha: initial factor of every edge; None stands for 1 / number of inputs of the target node.
        relu_after_identity: False removes the ReLU of nodes whose only remaining input is an identity edge, as in the
            slim networks that the authors released; a slim network then differs from the masked supernet.
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

    def __post_init__(self) -> None:
        parts = len(self.graph.edges) + self.blocks * sum(node.block for node in self.graph.nodes)
        for number, most, what in ((parts, MAX_PARTS, "edges and blocks"), (_weights(self), MAX_WEIGHTS, "weights")):
            if number > most:
                raise GraphError(
                    f"the search space {self.name} has about {number:,} {what}; expected at most {most:,}: choose a "
                    "smaller width or depth, or fewer stages or resolutions"
                )

    @property
    def blocks(self) -> int:
        """Number of blocks of a node that has an encoder."""
        return self.depth

    def initial_alpha(self, src: Node, dst: Node) -> float:
        """Return the option `alpha`, or 1 / number of inputs of `dst`."""
        return self.alpha if self.alpha is not None else 1.0 / len(self.graph.parents[dst.id])

    def stem(self) -> nn.Module:
        """Build two 3x3 convolutions with stride 2, from (B, 3, H, W) to (B, C, H/4, W/4)."""
        width = self.stem_channels
        layers = (conv_bn(3, width, stride=2), conv_bn(width, width, stride=2))
        return nn.Sequential(*(part for layer in layers for part in (*layer, nn.ReLU(inplace=True))))

    def edge(self, src: Node, dst: Node) -> nn.Module:
        """Build T between two maps: identity, 3x3 conv, chain of stride-2 convs, or 1x1 conv and upsampling."""
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
        # One convolution per halving, as in HRNet's fuse layers: all but the last keep the channels of the source.
        layers: list[nn.Module] = []
        for _ in range((dst.stride // src.stride).bit_length() - 2):
            layers += conv_bn(src.channels, src.channels, stride=2, momentum=FUSE_MOMENTUM)
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers, *conv_bn(src.channels, dst.channels, stride=2, momentum=FUSE_MOMENTUM))

    def node(self, node: Node, parents: Sequence[Node]) -> nn.Module:
        """Build E(ReLU(.)); for an input node, stage 1, which follows the ReLU of the stem."""
        if node.id in self.graph.inputs:
            return self._stage1(node.channels)
        encoder = stack(ENCODERS[self.encoder], node.channels, self.depth) if node.block else nn.Identity()
        only_identity = len(parents) == 1 and (parents[0].stride, parents[0].channels) == (
            node.stride,
            node.channels,
        )
        if only_identity and not self.relu_after_identity:
            return nn.Sequential(nn.Identity(), encoder)  # the Identity keeps the names of the encoder's weights
        return nn.Sequential(nn.ReLU(), encoder)

    def head(self, outputs: Sequence[Node], num_landmarks: int) -> Head:
        """Build the head; its stride is the finest of the full graph's outputs, whichever outputs survive."""
        finest = min(self.graph.node[name].stride for name in self.graph.outputs)
        return ConcatHead(outputs, num_landmarks, finest)

    def _stage1(self, channels: int) -> nn.Module:
        if self.stage1 != "bottleneck":
            return stack(ENCODERS[self.stage1], channels, self.depth)
        first = Bottleneck(self.stem_channels, channels)
        return nn.Sequential(first, *(Bottleneck(channels, channels) for _ in range(self.depth - 1)))


class ConcatHead(Head):
    """Upsample to stride `finest`, concatenate, 1x1 conv + BN + ReLU of the same width, then 1x1 conv to heatmaps.

    Hidden channel i belongs to the same output node as input channel i. When an output node is pruned, the hidden
    convolution therefore loses rows as well as columns.
    """

    def __init__(self, outputs: Sequence[Node], num_landmarks: int, finest: int) -> None:
        super().__init__()
        width = sum(node.channels for node in outputs)
        self.factors = [node.stride // finest for node in outputs]
        self.hidden = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.heatmaps = nn.Conv2d(width, num_landmarks, 1)
        # With small weights, heatmaps start near zero, the target of almost all of their cells (as in the HRNet code).
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
        """Compute heatmaps (B, L, H/finest, W/finest) from the maps of the output nodes in graph order."""
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
    """Build the space of a topology, and record every option it was built from."""
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
    """Return the width of the stage-1 map, which bottlenecks widen by 4."""
    return 4 * stem_channels if stage1 == "bottleneck" else stem_channels


def branch(stage: int, resolution: int, width: int, block: bool = True) -> Node:
    """Build the node of a stage and resolution; each resolution doubles the channels and halves the side of the map."""
    return Node(f"{stage}.{resolution}", width << resolution, 4 << resolution, stage, block)  # the stem has stride 4


def check_options(factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise a GraphError for a name that no block has, and for a number outside the range in the factory's signature.

    Recipes are checked by the same signature before; this is for callers in Python.
    """
    for option, known in (("encoder", tuple(ENCODERS)), ("stage1", STAGE1)):
        value = options.get(option)
        if value is not None and value not in known:
            raise GraphError(f"the space option {option} is '{value}'; expected one of {', '.join(known)}")
    hints = get_type_hints(factory, include_extras=True)
    for option, value in options.items():
        if isinstance(value, int | float) and (limits := outside(value, hints[option])):
            raise GraphError(f"the space option {option} is {shown(value)}; expected a number {limits}")


def _weights(space: HighResolutionSpace) -> int:
    """Return about how many weights the parts of a space have; it builds none."""
    graph, per_block = space.graph, 18 if space.encoder == "residual" else 1
    count = 0
    for node in graph.nodes:
        count += node.block * space.blocks * per_block * node.channels**2
    for src, dst in ((graph.node[src], graph.node[dst]) for src, dst in graph.edges):
        if (src.stride, src.channels) != (dst.stride, dst.channels):
            halvings = max(1, (dst.stride // src.stride).bit_length() - 1)
            count += 9 * src.channels * (dst.channels + (halvings - 1) * src.channels)
    return count + sum(graph.node[name].channels for name in graph.outputs) ** 2
