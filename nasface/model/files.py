"""Where networks lie on disk: run folders, self-describing files of weights, arch.json, and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nasface import plugins, rundir
from nasface import recipe as recipes
from nasface.arch import Architecture
from nasface.engine import pick_device
from nasface.errors import GraphError, RunError, did_you_mean
from nasface.model.build import check_size, read_net
from nasface.model.card import Card, View, write_net
from nasface.model.network import Model
from nasface.model.source import read_arch, read_source
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.rundir import RunDir

__all__ = ["Saved", "at", "one", "pick_device", "save_net"]

WEIGHTS = ".safetensors"
SHIPPED = Path(__file__).parents[1] / "networks"  # networks that come with nasface, one file for each name


@dataclass(frozen=True)
class Saved:
    """A network on disk that is not loaded yet.

    Attributes:
        name: what its run calls it, such as 'slim' or 'supernet', or the stem of its file.
        weights: safetensors of its own, or of the supernet from which it inherits.
        arch: its architecture; None for the full graph of the recipe's space.
        recipe_file: the recipe that it was trained by, or None where there is none.
        dataset: the name of the dataset that it was trained on, where no recipe says so.
        sections: what the network itself fixes in a recipe.
        card: what the file of weights says about itself, or None where it says nothing.
    """

    name: str
    weights: Path
    arch: Architecture | None
    recipe_file: str | None = None
    dataset: str | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    card: Card | None = None

    def recipe(
        self,
        source: str | None = None,
        dataset: str | None = None,
        data_root: Path | None = None,
        overrides: Sequence[str] = (),
    ) -> Recipe:
        """The recipe that it was trained by as far as it is known, or another one; see `recipes.assemble`."""
        source, dataset = source or self.recipe_file, dataset or self.dataset
        return recipes.assemble(source, None, dataset, data_root, overrides, self.sections)

    def load(self, recipe: Recipe | None = None, device: torch.device | None = None) -> Model:
        """Load the network.

        Args:
            recipe: says how it sees, instead of the one that it was trained by.
            device: where it goes; the CPU by default.

        Raises:
            RunError: when the weights do not fit.
            GraphError: when the architecture or the input size does not fit the search space.
        """
        view = self.card.view if self.card else View.of(recipe or self.recipe())
        view = view.by(recipe) if recipe else view
        arch = self.arch
        if arch is None:
            name, options = self._space(recipe)
            space = plugins.space(name, options)
            graph, landmarks = space.graph, _num_landmarks(self.weights)
            arch = Architecture(name, options, landmarks, view.input_size, graph.digest, graph.edges)
        else:
            space = plugins.space(arch.space, arch.options)
            graph, landmarks = arch.subgraph(space.graph), arch.num_landmarks
        check_size(view.input_size, space)
        if landmarks != view.scheme.num_landmarks:
            raise GraphError(
                f"the network in {self.weights} has {landmarks} landmarks, but the dataset has "
                f"{view.scheme.num_landmarks}; choose a dataset with the same landmark scheme"
            )
        net = read_net(space, landmarks, graph, self.weights, device or torch.device("cpu"))
        training = self.card.training if self.card else {}
        return Model(net.eval(), replace(arch, input_size=view.input_size), view, training, self.name)

    def _space(self, recipe: Recipe | None) -> tuple[str, dict[str, Any]]:
        recipe = recipe or self.recipe()
        return recipe.space.name, recipe.space.options


def save_net(path: Path, net: GraphNet, recipe: Recipe) -> None:
    """Write a network that a recipe has trained as one self-describing file of weights (safetensors)."""
    full = net.space.graph
    arch = Architecture(
        recipe.space.name, recipe.space.options, net.num_landmarks, recipe.data.input_size, full.digest, net.graph.edges
    )
    write_net(path, net, Card.of(recipe, arch))


def one(source: str | Path, network: str | None = None, weights: Path | None = None) -> Saved:
    """The network at a place, see `nasface.load`; of a run folder the one named, or 'slim' where there is one.

    Args:
        source: see `nasface.load`.
        network: its name in a run folder.
        weights: of an arch.json, instead of those beside it or of its supernet.

    Raises:
        RunError: when there is none.
    """
    found = {saved.name: saved for saved in at(source, weights)}
    name = network or ("slim" if "slim" in found else next(iter(found)))
    if name not in found:
        raise RunError(f"{source} has no network '{name}'; {did_you_mean(name, found)}")
    return found[name]


def at(source: str | Path, weights: Path | None = None) -> list[Saved]:
    """All networks at a place, see `one`. Raises RunError when there is none."""
    path = Path(source)
    if path.is_dir():
        return _of_run(path)
    if not path.exists() and (SHIPPED / f"{source}{WEIGHTS}").exists():
        path = SHIPPED / f"{source}{WEIGHTS}"
    if path.suffix == WEIGHTS and path.exists():
        return [_of_file(path)]
    if path.suffix == ".json" and path.exists():
        return [_of_arch(path, weights)]
    names = [file.stem for file in SHIPPED.glob(f"*{WEIGHTS}")]
    hint = f"; {did_you_mean(str(source), names)}" if names else ""
    raise RunError(
        f"there is no network {source}{hint}; expected a run folder, a file of weights ({WEIGHTS}) or an arch.json"
    )


def _of_run(folder: Path) -> list[Saved]:
    run = RunDir(folder)
    beside = str(run.recipe) if run.recipe.exists() else None
    found = []
    if run.supernet.exists():
        found.append(Saved("supernet", run.supernet, None, beside))
    if run.slim.exists():
        found.append(Saved("slim", run.slim, read_arch(run.arch), beside))
    if not found:
        raise RunError(f"{folder} holds neither supernet.safetensors nor slim.safetensors; let its search finish first")
    return [saved if beside else _of_file(saved.weights, saved.name) for saved in found]


def _of_file(path: Path, name: str = "") -> Saved:
    """A file that says what it is, or one of a run folder."""
    content = rundir.read_tensors(path)[1].get("card")
    if isinstance(content, dict):
        card = Card.from_dict(content, str(path))
        arch = card.architecture
        space = {"space": {"name": arch.space, "options": dict(arch.options)}}
        dataset = card.training.get("dataset")  # one that is not installed here has to be named by the user
        dataset = dataset if dataset in plugins.names("datasets") else None
        return Saved(name or path.stem, path, arch, None, dataset, space | card.view.sections(), card)
    beside = RunDir(path.parent).recipe
    if beside.exists():
        for saved in _of_run(path.parent):
            if saved.weights.resolve() == path.resolve():
                return saved
    raise RunError(
        f"{path} does not say what network it holds; give the run folder that it comes from, or its arch.json with "
        "--weights"
    )


def _of_arch(path: Path, weights: Path | None) -> Saved:
    source = read_source(path)
    found = weights or source.trained_weights() or source.weights()
    return Saved("slim", found, source.arch, source.recipe, sections=source.sections)


def _num_landmarks(weights: Path) -> int:
    text = str(rundir.read_tensors(weights)[1].get("num_landmarks", ""))
    if not text.isdecimal() or int(text) < 1:
        raise RunError(f"{weights} does not say how many landmarks its network has; give weights that nasface wrote")
    return int(text)
