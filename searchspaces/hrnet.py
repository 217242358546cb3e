"""HRNet as a search space: its module fuses carry factors, its stage entries are fixed.

Column by column, a stage is an entry row, then one dense fuse a module. The row after the last module only
fuses, because transitions read the fused but not yet encoded maps (Wang et al. 2020, HRNetV2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

from nasface.errors import GraphError
from nasface.graph import Edge, Graph, Node
from searchspaces.highres import HighResolutionSpace, branch, build, check_options, stage1_channels

_PUBLIC = re.compile(r"((conv|bn)[12]|layer1|(transition|stage)\d+)\..+")
_BODY = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}  # a ReLU stands between


@dataclass(frozen=True)
class HRNetSpace(HighResolutionSpace):
    """HRNet: a space that can start from the published networks (see `nasface.space.TakesBackbone`)."""

    def backbone_name(self, name: str) -> str | None:
        """The name in GraphNet of a tensor of the authors' HRNetV2, which timm and others name alike.

        None for classifiers and other heads. What a larger backbone has more keeps its name.
        """
        if not _PUBLIC.fullmatch(name):
            return None
        module, _, tensor = name.rpartition(".")
        return f"{self._places.get(module, module)}.{tensor}"

    def backbone_options(self, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, Any]:
        """Options of the HRNet whose tensors have these names and shapes, as far as they tell."""

        def count(prefix: str) -> int:
            return len({name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)})

        found: dict[str, Any] = {
            "encoder": "residual",
            "stage1": "bottleneck" if "layer1.0.conv3.weight" in shapes else "residual",
            "depth": count("stage2.0.branches.0."),
            "modules": [count(f"stage{stage}.") for stage in range(2, 2 + count("stage"))],
        }
        for option, name in (("width", "stage2.0.branches.0.0.conv1.weight"), ("stem_channels", "conv1.weight")):
            found[option] = shapes[name][0] if name in shapes else 0
        return {option: value for option, value in found.items() if value}

    @cached_property
    def _places(self) -> Mapping[str, str]:
        """Modules of GraphNet by their public names."""
        found = {"conv1": "stem.0", "bn1": "stem.1", "conv2": "stem.3", "bn2": "stem.4"}
        found |= self._blocks("layer1", "nodes.1_0")
        column = 1
        for stage, modules in enumerate(self.options["modules"], start=2):
            for r in range(stage):
                edge = f"edges.{column}_{min(r, stage - 2)}->{column + 1}_{r}"
                # the path to a new resolution is nested, as if it had several steps
                public = f"transition{stage - 1}.{r}" + (".0" if r == stage - 1 else "")
                found |= {f"{public}.{i}": f"{edge}.{i}" for i in (0, 1)}
            for module in range(modules):
                column += 1
                for r in range(stage):
                    found |= self._blocks(f"stage{stage}.{module}.branches.{r}", f"nodes.{column}_{r}.1")
                for dst, src in product(range(stage), repeat=2):
                    edge = f"edges.{column}_{src}->{column + 1}_{dst}"
                    public = f"stage{stage}.{module}.fuse_layers.{dst}.{src}"
                    if src > dst:
                        found |= {f"{public}.{i}": f"{edge}.{i}" for i in (0, 1)}
                    # a chain is nested there (step, layer) and flat here, three layers a step
                    found |= {f"{public}.{k}.{i}": f"{edge}.{3 * k + i}" for k in range(dst - src) for i in (0, 1)}
            column += 1
        return found

    def _blocks(self, public: str, ours: str) -> dict[str, str]:
        """The modules of an encoder."""
        found: dict[str, str] = {}
        for block in range(self.depth):
            found |= {f"{public}.{block}.{part}": f"{ours}.{block}.body.{i}" for part, i in _BODY.items()}
            found |= {f"{public}.{block}.downsample.{i}": f"{ours}.{block}.shortcut.{i}" for i in (0, 1)}
        return found


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
) -> HRNetSpace:
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
    space = build(
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
    return HRNetSpace(**vars(space))
