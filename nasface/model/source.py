"""Read arch.json and factors.json, and follow the provenance of an architecture to its recipe and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasface import recipe as recipes
from nasface import rundir
from nasface.arch import Architecture, Factors
from nasface.errors import GraphError, RunError, similar
from nasface.graph import Graph
from nasface.places import checked_name
from nasface.recipe import Recipe
from nasface.rundir import RunDir

if TYPE_CHECKING:
    from nasface.net import GraphNet


EPOCHS = "finetune_epochs"
"""The key in the provenance of a swept network for the epochs of a training that is not the sweep's own."""


def read_arch(path: Path) -> Architecture:
    """Read an arch.json. Raises RunError or GraphError when it cannot be used."""
    return Architecture.from_json(rundir.read_text(path, "an architecture (arch.json)"), str(path))


def read_factors(path: Path) -> Factors:
    """Read a factors.json. Raises RunError or GraphError when it cannot be used."""
    return Factors.from_json(
        rundir.read_text(path, "the importance factors of a searched run (factors.json)"), str(path)
    )


def arch_graph(arch: Architecture, net: GraphNet) -> Graph:
    """Return the sub-graph that an architecture keeps of a supernet.

    Raises:
        GraphError: when the architecture does not fit the search space or the landmarks of the supernet.
    """
    if arch.num_landmarks != net.num_landmarks:
        raise GraphError(
            f"the architecture has {arch.num_landmarks} landmarks, but the dataset has {net.num_landmarks}; choose a "
            "dataset with the same landmark scheme"
        )
    return arch.subgraph(net.graph)


def required(path: Path, what: str) -> Path:
    """Return `path`. Raises RunError when there is no such file."""
    if not path.exists():
        if not path.parent.is_dir():
            raise RunError(
                f"there is no run folder '{path.parent}'; give one that `nasface search`, `train`, `prune` or another "
                f"command has written{similar(path.parent)}"
            )
        raise RunError(
            f"{path} does not exist; expected {what} written by `nasface search`, `train`, `prune` or another command"
        )
    return path


def run_recipe(
    run: RunDir,
    *,
    criterion: str | None = None,
    pruner: str | None = None,
    budget: tuple[str, Any] | None = None,
    data_root: Path | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Return the recipe of a run with the changes asked for.

    Args:
        run: the run folder.
        criterion: name of another criterion.
        pruner: name of another pruner.
        budget: an option of the pruner and its value, see `recipe.choose_pruner`.
        data_root: folder of the dataset, if it is not where the run found it.
        overrides: 'a.b=value', applied last.

    Raises:
        RunError: when the folder holds no recipe.
        RecipeError: when the recipe or a change is not valid.
    """
    content = recipes.read(str(required(run.recipe, "a run folder")))
    if pruner is not None or budget is not None:
        recipes.choose_pruner(content, pruner, budget)
    if criterion is not None:
        content = recipes.merge(content, {"criterion": {"name": criterion}})
    if data_root is not None:
        content = recipes.merge(content, {"data": {"root": str(data_root.resolve())}})
    recipes.override(content, overrides)
    return recipes.resolve(content, f"the recipe of {run.path}")


@dataclass(frozen=True)
class Source:
    """An architecture on disk, with the recipe and the weights to which its provenance leads.

    Attributes:
        path: the arch.json.
        arch: its content.
    """

    path: Path
    arch: Architecture

    @property
    def recipe(self) -> str | None:
        """Path of the recipe beside the arch.json or in the run from which it was pruned; None if neither exists."""
        for folder in (self.path.parent, self.run):
            if (found := RunDir(folder).recipe).exists():
                return str(found)
        return None

    @property
    def run(self) -> Path:
        """The folder of the run from which it was pruned, whether or not that still exists."""
        return Path(str(self.arch.provenance.get("run", self.path.parent)))

    @property
    def sections(self) -> dict[str, Any]:
        """The sections of a recipe that the architecture fixes."""
        return {
            "space": {"name": self.arch.space, "options": dict(self.arch.options)},
            "data": {"input_size": self.arch.input_size},
        }

    @property
    def to_train(self) -> dict[str, Any]:
        """The sections for a training that begins here, where the recipe beside the arch.json is not meant for it.

        A sweep may fine-tune its networks briefly, and its recipe says so. Further trainings are as long as the run's.
        """
        job = RunDir(self.path.parent).job
        epochs = self.arch.provenance.get(EPOCHS)
        if epochs is None or (job.exists() and not _is_selected(job)):
            return {}
        return {"finetune": {"epochs": epochs}}

    @property
    def supernet_run(self) -> str | None:
        """The folder of the run from which it was pruned, if its supernet still exists; it is the default teacher."""
        return str(self.run) if RunDir(self.run).supernet.exists() else None

    def trained_weights(self) -> Path | None:
        """Return the path of the network's own weights beside the arch.json, if they exist."""
        path = RunDir(self.path.parent).slim
        return path if path.exists() else None

    def start(self) -> Path:
        """Return the path of the network's own weights, or else of those that it inherits, see `weights`."""
        return self.trained_weights() or self.weights()

    def weights(self) -> Path:
        """Return the path of the supernet's weights from which the network inherits.

        Raises:
            RunError: when the run named by the provenance is gone or its weights have changed.
        """
        name = checked_name(self.arch.provenance.get("weights", "supernet.safetensors"), self.path)
        for folder in (self.run, self.path.parent):  # the run may have been moved, together with its arch.json
            if (path := folder / name).exists():
                break
        else:
            raise RunError(
                f"{self.path} was pruned from the weights {self.run / name}, which no longer exist; give --weights"
            )
        digest = self.arch.provenance.get("weights_sha256")
        if digest and rundir.file_digest(path) != digest:
            raise RunError(f"{path} has changed since {self.path} was pruned from it; prune again, or give --weights")
        return path


def _is_selected(path: Path) -> bool:
    """Return whether a job.json is that of a network that was copied from a sweep."""
    job = rundir.read_json(path, "the job of a run folder")
    return isinstance(job, dict) and job.get("job") == "select"


def read_source(path: Path) -> Source:
    """Read an arch.json and remember its path. Raises RunError or GraphError when it cannot be used."""
    return Source(path, read_arch(path))
