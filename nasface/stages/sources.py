"""Where commands find what they work on: run folders, architectures with their weights and recipes, and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasface import plugins, rundir
from nasface.arch import Architecture, edge_list
from nasface.cost import Costs, count_space
from nasface.errors import RunError
from nasface.graph import Graph
from nasface.rundir import RunDir
from nasface.stages.networks import check_size, read_arch

Networks = dict[str, tuple[Architecture | None, Path]]


@dataclass(frozen=True)
class Source:
    """An architecture on disk and what its provenance leads to.

    Attributes:
        path, arch: the file and its content.
    """

    path: Path
    arch: Architecture

    @property
    def recipe(self) -> str | None:
        """Path of the recipe beside the arch.json, or in the run that it was pruned from; None without either."""
        for folder in (self.path.parent, self.run):
            if (found := RunDir(folder).recipe).exists():
                return str(found)
        return None

    @property
    def run(self) -> Path:
        """The folder of the run that it was pruned from, whether that is still there or not."""
        return Path(str(self.arch.provenance.get("run", self.path.parent)))

    @property
    def sections(self) -> dict[str, Any]:
        """What the architecture fixes in a recipe."""
        return {
            "space": {"name": self.arch.space, "options": dict(self.arch.options)},
            "data": {"input_size": self.arch.input_size},
        }

    @property
    def supernet_run(self) -> str | None:
        """The folder of the run that it was pruned from, if its supernet is still there; it teaches by default."""
        return str(self.run) if RunDir(self.run).supernet.exists() else None

    def trained_weights(self) -> Path | None:
        """The network's own weights beside the arch.json, if they are there."""
        path = RunDir(self.path.parent).slim
        return path if path.exists() else None

    def weights(self) -> Path:
        """The supernet's weights from which the network inherits.

        Raises:
            RunError: when the run named by the provenance is gone or its weights have changed.
        """
        name = str(self.arch.provenance.get("weights", "supernet.safetensors"))
        for folder in (self.run, self.path.parent):
            if (path := folder / name).exists():
                break
        else:
            raise RunError(f"{self.path}: the weights {self.run / name} it was pruned from are gone; give --weights")
        digest = self.arch.provenance.get("weights_sha256")
        if digest and rundir.file_digest(path) != digest:
            raise RunError(f"{path} has changed since {self.path} was pruned from it; prune again, or give --weights")
        return path


def read_source(path: Path) -> Source:
    """Read an arch.json and remember where it lies."""
    return Source(path, read_arch(path))


def required(path: Path, what: str) -> Path:
    """`path`, or a RunError when there is no such file."""
    if not path.exists():
        raise RunError(
            f"{path} does not exist; expected {what} made by `nasface search`, `train`, `prune` or another command"
        )
    return path


def run_networks(folder: Path) -> Networks:
    """The networks of a run folder: supernet and slim, as far as they are there."""
    run = RunDir(folder)
    found: Networks = {}
    if run.supernet.exists():
        found["supernet"] = (None, run.supernet)
    if run.slim.exists():
        found["slim"] = (read_arch(run.arch), run.slim)
    if not found:
        raise RunError(f"{folder} holds neither supernet.safetensors nor slim.safetensors; let its search finish first")
    return found


def count(
    space: str | None,
    options: Mapping[str, Any],
    num_landmarks: int,
    input_size: int | None,
    arch_path: Path | None,
    edges_path: Path | None,
) -> dict[str, Any]:
    """What `nasface count` reports of a space, of its sub-network by an edge list, or of an arch.json."""
    if arch_path is not None:
        arch = read_arch(arch_path)
        built = plugins.space(arch.space, arch.options)
        num_landmarks, input_size = arch.num_landmarks, input_size or arch.input_size
        graph = arch.subgraph(built.graph)
    else:
        assert space is not None
        built = plugins.space(space, options)
        graph = built.graph
        if edges_path is not None:
            graph = graph.keep(edge_list(rundir.read_text(edges_path, "a list of edges (JSON)"), str(edges_path)))
    input_size = input_size or 256
    check_size(input_size, built)
    return cost_report(count_space(built, num_landmarks, input_size), graph)


def cost_report(costs: Costs, graph: Graph) -> dict[str, Any]:
    """Plain integers for JSON: totals, the same without head, and by stage."""
    whole, bare = costs.total(graph), costs.without_head(graph)
    full = costs.space.graph
    return {
        "space": costs.space.name,
        "options": dict(costs.space.options),
        "input_size": costs.input_size,
        "num_landmarks": costs.num_landmarks,
        "params": whole.params,
        "macs": whole.macs,
        "params_no_head": bare.params,
        "macs_no_head": bare.macs,
        "edges": len(graph.edges),
        "edges_full": len(full.edges),
        "blocks": len(graph.blocks),
        "blocks_full": len(full.blocks),
        "prunable_share": costs.prunable(graph).macs / max(1, costs.prunable(full).macs),
        "stages": {name: {"params": c.params, "macs": c.macs} for name, c in costs.by_stage(graph).items()},
    }
