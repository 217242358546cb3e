"""HRNet as a search space: the edges that fuse within a module have factors, the transitions between stages are fixed.

Each stage is a column of entry nodes, followed by one densely connected column per module. The last of these columns
only fuses, because transitions read maps that are fused but not yet encoded (HRNetV2, Wang et al. 2020).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len

from nasface.errors import GraphError, shown
from nasface.graph import Edge, Graph, Node
from searchspaces.highres import (
    Alpha,
    Channels,
    Depth,
    HighResolutionSpace,
    Width,
    branch,
    build,
    check_options,
    stage1_channels,
)

MAX_STAGES, MAX_MODULES = 5, 32
Modules = Annotated[Sequence[Annotated[int, Interval(ge=1, le=MAX_MODULES)]], Len(1, MAX_STAGES)]

_PUBLIC = re.compile(r"((conv|bn)[12]|layer1|(transition|stage)\d+)\..+")
_BODY = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}  # indices 2 and 5 are ReLUs


@dataclass(frozen=True)
class HRNetSpace(HighResolutionSpace):
    """The space of HRNet, which can start from the published networks (see `nasface.space.TakesBackbone`)."""

    def backbone_name(self, name: str) -> str | None:
        """Return the name in GraphNet of a tensor of the authors' HRNetV2; timm and others use the same names.

        Return None for tensors of classifiers and other heads. Tensors that only a larger backbone has keep their name.
        """
        if not _PUBLIC.fullmatch(name):
            return None
        module, _, tensor = name.rpartition(".")
        return f"{self._places.get(module, module)}.{tensor}"

    def backbone_options(self, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, Any]:
        """Return the options of the HRNet whose tensors have these names and shapes, as far as these show."""

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
        """The modules of GraphNet by their public names."""
        found = {"conv1": "stem.0", "bn1": "stem.1", "conv2": "stem.3", "bn2": "stem.4"}
        found |= self._blocks("layer1", "nodes.1_0")
        column = 1
        for stage, modules in enumerate(self.options["modules"], start=2):
            for r in range(stage):
                edge = f"edges.{column}_{min(r, stage - 2)}->{column + 1}_{r}"
                # the public names of the path to a new resolution have one level more, as if it had several steps
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
                    # Publicly, a chain is nested as (step, layer); here it is flat, with three layers per step.
                    found |= {f"{public}.{k}.{i}": f"{edge}.{3 * k + i}" for k in range(dst - src) for i in (0, 1)}
            column += 1
        return found

    def _blocks(self, public: str, ours: str) -> dict[str, str]:
        """Return the modules of an encoder by their public names."""
        found: dict[str, str] = {}
        for block in range(self.depth):
            found |= {f"{public}.{block}.{part}": f"{ours}.{block}.body.{i}" for part, i in _BODY.items()}
            found |= {f"{public}.{block}.downsample.{i}": f"{ours}.{block}.shortcut.{i}" for i in (0, 1)}
        return found


def hrnet(
    *,
    encoder: Literal["mbconv", "residual"] = "residual",
    stage1: Literal["mbconv", "residual", "bottleneck"] = "bottleneck",
    width: Width = 18,
    depth: Depth = 4,
    modules: Modules = (1, 4, 3),
    stem_channels: Channels = 64,
    alpha: Alpha | None = 1.0,
    relu_after_identity: bool = True,
) -> HRNetSpace:
    """HRNet, by default HRNetV2-W18 with 36 nodes, 88 edges with a factor and 9 fixed edges.

    Args:
        encoder: block of the encoders after stage 1.
        stage1: block of stage 1.
        width: channels at stride 4, doubled with each resolution.
        depth: number of blocks in an encoder.
        modules: number of modules in each stage after the first; stage s has s branches.
        stem_channels: width of the stem.
        alpha: initial factor of every edge; 1 is the network as published, None stands for 1 / number of inputs.
        relu_after_identity: see `HighResolutionSpace`.
    """
    check_options(hrnet, locals())
    if not 0 < len(modules) <= MAX_STAGES or not all(1 <= number <= MAX_MODULES for number in modules):
        raise GraphError(
            f"the space option modules is {shown(list(modules))}; expected 1 to {MAX_STAGES} numbers, one per stage, "
            f"each from 1 to {MAX_MODULES}"
        )
    first = Node("1.0", stage1_channels(stage1, stem_channels), 4, stage=1)
    nodes, edges, fixed = [first], list[Edge](), set[Edge]()
    last, column = [first], 1
    for branches, count in enumerate(modules, start=2):
        column += 1
        row = [branch(column, r, width) for r in range(branches)]
        # a new branch starts from the coarsest map of the stage before
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
