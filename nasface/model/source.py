"""arch.json and factors.json on disk, and what the provenance of an architecture leads to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasface import rundir
from nasface.arch import Architecture, Factors
from nasface.errors import GraphError, RunError
from nasface.graph import Graph
from nasface.net import GraphNet
from nasface.rundir import RunDir


def read_arch(path: Path) -> Architecture:
    """Read an arch.json. Raises RunError or GraphError when it cannot be used."""
    return Architecture.from_json(rundir.read_text(path, "an architecture (arch.json)"), str(path))


def read_factors(path: Path) -> Factors:
    """Read a factors.json. Raises RunError or GraphError when it cannot be used."""
    return Factors.from_json(rundir.read_text(path, "the factors of a searched run"), str(path))


def arch_graph(arch: Architecture, net: GraphNet) -> Graph:
    """The kept sub-graph, after checking that the architecture fits the space and the landmarks of the supernet.

    Raises:
        GraphError: when it does not.
    """
    if arch.num_landmarks != net.num_landmarks:
        raise GraphError(
            f"the architecture has {arch.num_landmarks} landmarks, but the dataset has {net.num_landmarks}; choose a "
            "dataset with the same landmark scheme"
        )
    return arch.subgraph(net.graph)


def required(path: Path, what: str) -> Path:
    """`path`, or a RunError when there is no such file."""
    if not path.exists():
        raise RunError(
            f"{path} does not exist; expected {what} made by `nasface search`, `train`, `prune` or another command"
        )
    return path


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
        """The folder of the run that it was pruned from, whether or not that still exists."""
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
        """The network's own weights beside the arch.json, if they exist."""
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
