"""Find networks on disk: in run folders, in self-describing files of weights, exported, by arch.json, and by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasface import plugins, rundir
from nasface import recipe as recipes
from nasface.arch import MAX_LANDMARKS, Architecture
from nasface.errors import GraphError, RunError, did_you_mean, similar
from nasface.formats import Format
from nasface.model import shipped
from nasface.model.card import Card, View, dataset_of, trained_by, write_net
from nasface.model.exported import Description, describe, format_of, open_exported, suffixes
from nasface.model.network import Model
from nasface.model.runtime import TorchRuntime
from nasface.model.source import read_arch, read_source
from nasface.recipe import Recipe
from nasface.rundir import RunDir

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nasface.net import GraphNet

__all__ = ["Saved", "at", "one", "save_net"]

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Saved:
    """A network on disk that has not been loaded yet.

    Attributes:
        name: its name in its run, such as 'slim' or 'supernet', or the stem of its file.
        weights: its own weights, or those of the supernet from which it inherits (safetensors).
        arch: its architecture; None for the full graph of the recipe's space.
        recipe_file: the recipe by which it was trained, or None if there is none.
        dataset: name of the dataset on which it was trained, if no recipe names it.
        sections: the sections of a recipe that the network itself fixes.
        card: the card in the file of weights, or None if there is none.
        exported: the format and the description of an exported file; None for weights.
    """

    name: str
    weights: Path
    arch: Architecture | None
    recipe_file: str | None = None
    dataset: str | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    card: Card | None = None
    exported: tuple[Format, Description] | None = None

    def recipe(
        self,
        source: str | None = None,
        dataset: str | None = None,
        data_root: Path | None = None,
        overrides: Sequence[str] = (),
        *,
        faces: bool = True,
    ) -> Recipe:
        """Return the recipe by which it was trained, as far as that is known, with the changes asked for.

        Args:
            source: name or path of a recipe to use instead.
            dataset: name of another dataset.
            data_root: folder of the dataset.
            overrides: 'a.b=value', applied last; see `recipe.assemble`.
            faces: whether the faces of the dataset are needed; if not, the dataset need not be installed.

        Raises:
            RunError: when the faces are needed, and the dataset of a lone file is not installed here.
        """
        source, asked = source or self.recipe_file, dataset
        dataset = dataset or self.dataset
        if faces and self.card and dataset is None and not source:
            raise RunError(
                f"{self.weights} was trained on the dataset '{self.card.training.get('dataset', '')}', which is not "
                "installed here; name a dataset with --dataset"
            )
        sections = dict(self.sections)
        if faces and self.card and dataset and not source and asked in (None, self.dataset):
            options = self.card.training.get("dataset_options", {})  # cards of nasface 0.1 have none
            sections["data"] = {**sections.get("data", {}), "options": options}
        # An exported network needs no other plug-in than the dataset, and search spaces import torch.
        checked = ("data",) if self.exported else tuple(recipes.PLUGINS)
        return recipes.assemble(source, None, dataset, data_root, overrides, sections, checked)

    def load(self, recipe: Recipe | None = None, device: str | torch.device = "cpu") -> Model:
        """Load the network.

        Args:
            recipe: how it sees a face, instead of the recipe by which it was trained.
            device: the device of the network, see `nasface.device.pick_device`; exported networks run on the CPU.

        Raises:
            RunError: when the weights do not fit the network, or an exported file cannot be run as asked.
            GraphError: when the architecture or the input size does not fit the search space.
        """
        if self.exported:
            return self._load_exported(recipe, str(device))
        from nasface.device import pick_device  # torch: exported networks run without it
        from nasface.model.build import check_size, read_net

        view, training = self._seen(recipe)
        arch = self.arch
        if arch is None:
            name, options = self._space(recipe)
            space = plugins.space(name, options)
            graph, landmarks = space.graph, num_landmarks(self.weights)
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
        net = read_net(space, landmarks, graph, self.weights, pick_device(str(device))).eval()
        return Model(TorchRuntime(net, view), replace(arch, input_size=view.input_size), view, training, self.name)

    def _load_exported(self, recipe: Recipe | None, device: str) -> Model:
        assert self.exported
        assert self.card
        if device not in ("auto", "cpu"):
            raise RunError(
                f"{self.weights} is an exported network and runs on the CPU, not on '{device}'; use --device cpu"
            )
        view, training = self._seen(recipe)
        threads = recipe.training.threads if recipe else 0
        runtime = open_exported(self.weights, *self.exported, view, threads)
        return Model(runtime, self.card.architecture, view, training, self.name)

    def _seen(self, recipe: Recipe | None) -> tuple[View, Mapping[str, Any]]:
        """Return how the network sees a face, and what is known about its training.

        Both come from the card, or else from the recipe beside the weights; `recipe` changes the former.
        """
        if self.card:
            return self.card.view.by(recipe) if recipe else self.card.view, self.card.training
        own = self.recipe() if self.recipe_file or recipe is None else None
        asked = recipe or own
        assert asked is not None
        dataset = dataset_of(asked)
        view = View.of(asked, dataset)
        if own is None or not self.recipe_file:
            return view, {}
        same = own.data.name == asked.data.name  # elsewhere or with other options, its faces have the same licence
        return view, trained_by(own, dataset if same else dataset_of(own))

    def _space(self, recipe: Recipe | None) -> tuple[str, dict[str, Any]]:
        recipe = recipe or self.recipe()
        return recipe.space.name, recipe.space.options


def save_net(path: Path, net: GraphNet, recipe: Recipe, source: Path | None = None) -> None:
    """Write a network that a recipe has trained as one self-describing safetensors file.

    A file with the same weights stays as it is: sweeps and architectures refer to its digest.

    Args:
        path: the file.
        net: the network.
        recipe: how it was trained.
        source: the weights that it has inherited without training, if so; their card says what they were trained on.
    """
    if path.exists() and _same(rundir.read_tensors(path)[0], net.state_dict()):
        return
    full = net.space.graph
    arch = Architecture(
        recipe.space.name, recipe.space.options, net.num_landmarks, recipe.data.input_size, full.digest, net.graph.edges
    )
    card = _card(source) if source else None
    write_net(path, net, card.pruned(recipe, arch) if card else Card.of(recipe, arch))


def _same(kept: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    import torch

    return kept.keys() == tensors.keys() and all(torch.equal(kept[name], t.cpu()) for name, t in tensors.items())


def one(source: str | Path, network: str | None = None, weights: Path | None = None) -> Saved:
    """Return one network at a place.

    Args:
        source: see `nasface.load`.
        network: its name in a run folder; by default 'slim' if there is one.
        weights: weights for an arch.json, instead of those beside it or those of its supernet.

    Raises:
        RunError: when there is no such network.
    """
    found = {saved.name: saved for saved in at(source, weights)}
    name = network or ("slim" if "slim" in found else next(iter(found)))
    if name not in found:
        raise RunError(f"{source} has no network '{name}'; {did_you_mean(name, found)}")
    return found[name]


def at(source: str | Path, weights: Path | None = None) -> list[Saved]:
    """Return all networks at a place; see `one`. Raises RunError when there is none."""
    ours = shipped.networks()
    path = Path(source)
    try:
        if path.is_dir():
            return _of_run(path)
        if str(source) in ours and not path.exists():
            path = ours[str(source)].weights
        if path.suffix == WEIGHTS and path.exists():
            return [_of_file(path)]
        if path.suffix == ".json" and path.exists():
            return [_of_arch(path, weights)]
        if path.exists() and (form := format_of(path)):
            return [_of_exported(path, form)]
    except (OSError, ValueError) as err:  # a name too long for the system, or with a NUL in it
        raise RunError(f"{str(source)[:80]!r} cannot be read ({err}); give the path of a network") from err
    what = f"'{source}' is not a network" if path.exists() else f"there is no network '{source}'"
    beside = similar(path) if len(path.parts) > 1 else ""  # a lone word is meant as a name
    raise RunError(
        f"{what}; expected a run folder, a file of weights ({WEIGHTS}), an exported network ({', '.join(suffixes())}), "
        "an arch.json, or the name of a network that comes with nasface"
        + (beside or f"; {did_you_mean(str(source), ours)} (see `nasface models`)")
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
        raise RunError(
            f"{folder} holds neither supernet.safetensors nor slim.safetensors; give the folder of a finished run"
            + (", or choose a network of this sweep with `nasface select`" if run.pareto.exists() else "")
        )
    return [saved if beside else _of_file(saved.weights, saved.name) for saved in found]


def _card(path: Path) -> Card | None:
    """Return the card in a file of weights; None where there is none."""
    content = rundir.read_meta(path).get("card")
    return Card.from_dict(content, str(path)) if isinstance(content, dict) else None


def _of_file(path: Path, name: str = "") -> Saved:
    """Return the network of a file that has a card, or that lies in its run folder."""
    if card := _card(path):
        return _of_card(card, path, name or path.stem)
    beside = RunDir(path.parent).recipe
    if beside.exists():
        for saved in _of_run(path.parent):
            if saved.weights.resolve() == path.resolve():
                return saved
    raise RunError(
        f"{path} does not say which network it holds; give the run folder from which it comes, or its arch.json with "
        "--weights"
    )


def _of_card(card: Card, path: Path, name: str) -> Saved:
    arch = card.architecture
    space = {"space": {"name": arch.space, "options": dict(arch.options)}}
    dataset = card.training.get("dataset")  # a dataset that is not installed must be named by the user
    dataset = dataset if dataset in plugins.names("datasets") else None
    return Saved(name, path, arch, None, dataset, space | card.view.sections(), card)


def _of_exported(path: Path, form: Format) -> Saved:
    about = describe(path, form)
    return replace(_of_card(about.card, path, path.stem), exported=(form, about))


def _of_arch(path: Path, weights: Path | None) -> Saved:
    source = read_source(path)
    found = weights or source.start()
    return Saved("slim", found, source.arch, source.recipe, sections=source.sections)


def num_landmarks(weights: Path) -> int:
    """Return how many landmarks the network has, as a file of weights says. Raises RunError where it does not."""
    text = str(rundir.read_meta(weights).get("num_landmarks", ""))
    if not re.fullmatch("[1-9][0-9]{0,4}", text) or int(text) > MAX_LANDMARKS:
        raise RunError(f"{weights} does not say how many landmarks its network has; give weights written by nasface")
    return int(text)
