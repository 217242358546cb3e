"""How a network sees a face, and the card in the metadata of a file of weights that describes the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from pydantic import TypeAdapter, ValidationError

from nasface import __version__, plugins, rundir
from nasface.arch import MAX_LANDMARKS, Architecture
from nasface.data.base import Dataset, Scheme
from nasface.data.crop import PrepareOptions
from nasface.data.images import MEAN, STD
from nasface.errors import RunError, shown
from nasface.recipe import Recipe
from nasface.settings import Decoder

if TYPE_CHECKING:
    from nasface.net import GraphNet

CARD_VERSION = 1


@dataclass(frozen=True)
class View:
    """How a network sees a face, and how its heatmaps become landmarks.

    Attributes:
        scheme: the landmark scheme.
        input_size: side of the square input in pixels.
        box: the box from which a face is cropped: that of its landmarks, or one that the dataset provides.
        box_scale: side of the crop over the longer side of that box.
        margin: side of the image stored for training over the side of the crop, see `PrepareOptions`.
        decoder, sigma, flip_test: how heatmaps become landmarks, see `nasface.task.decode`; sigma in heatmap cells.
        precision: 'bf16' runs the network under autocast.
        mean, std: by which the RGB channels are normalised, as shares of 255.
    """

    scheme: Scheme
    input_size: Annotated[int, Interval(ge=16, le=1024)]
    box: Literal["landmarks", "provided"] = "landmarks"
    box_scale: Annotated[float, Interval(ge=0.1, le=10)] = 1.25
    margin: Annotated[float, Interval(ge=1, le=4)] = 1.6
    decoder: Decoder = "quarter"
    sigma: Annotated[float, Interval(gt=0, le=1000)] = 1.5
    flip_test: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset | None = None) -> View:
        """Return the view of the networks that a recipe trains; its dataset is built unless it is given."""
        return cls((dataset or dataset_of(recipe)).scheme, recipe.data.input_size).by(recipe)

    def by(self, recipe: Recipe) -> View:
        """Return this view with everything but the landmark scheme taken from a recipe."""
        data, task = recipe.data, recipe.task
        return replace(
            self,
            input_size=data.input_size,
            box=data.box,
            box_scale=data.box_scale,
            margin=data.margin,
            decoder=task.decoder,
            sigma=task.sigma,
            flip_test=task.flip_test,
            precision=recipe.training.precision,
        )

    def sections(self) -> dict[str, Any]:
        """Return the view as sections of a recipe, the inverse of `by`."""
        return {
            "data": {k: getattr(self, k) for k in ("input_size", "box", "box_scale", "margin")},
            "task": {k: getattr(self, k) for k in ("decoder", "sigma", "flip_test")},
            "training": {"precision": self.precision},
        }

    @property
    def crop(self) -> PrepareOptions:
        """How to crop a face whose box is known: exactly as in evaluation, but without a margin."""
        return PrepareOptions(self.input_size, margin=1, box="provided", box_scale=self.box_scale)


@dataclass(frozen=True)
class Card:
    """What a file of weights says about its network.

    Attributes:
        architecture: its search space and its kept edges.
        view: how it sees a face.
        training: what it was trained on: dataset and its options, licence of the faces, seed and digest of the recipe,
            as plain JSON values.
    """

    architecture: Architecture
    view: View
    training: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, architecture: Architecture) -> Card:
        """Return the card of a network that a recipe has trained."""
        dataset = dataset_of(recipe)
        return cls(architecture, View.of(recipe, dataset), {**trained_by(recipe, dataset), "nasface": __version__})

    def pruned(self, recipe: Recipe, architecture: Architecture) -> Card:
        """Return the card of a sub-network that a recipe has pruned from this network, without building the dataset."""
        training = {"seed": recipe.seed, "recipe_digest": recipe.digest, "nasface": __version__}
        return Card(architecture, self.view.by(recipe), {**self.training, **training})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "card_version": CARD_VERSION,
            "architecture": json.loads(replace(self.architecture, provenance={}).to_json()),
            "view": asdict(self.view),
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> Card:
        """Read a card; the inverse of `as_dict`.

        Args:
            content: the card in a file's metadata.
            where: the file, for messages.

        Raises:
            RunError: when the card is damaged, or of a version that this nasface cannot read.
            GraphError: when its architecture is damaged.
        """
        version = content.get("card_version")
        if version != CARD_VERSION:
            raise RunError(
                f"the card of {where} has version {shown(version)}, but this nasface reads version {CARD_VERSION}; use "
                "the version of nasface that wrote it"
            )
        try:
            view = _VIEW.validate_python(content.get("view"))
        except ValidationError as err:
            raise RunError(plugins.explain(err, f"the card of {where}")) from err
        if (view.mean, view.std) != (MEAN, STD):
            raise RunError(
                f"the network in {where} expects images normalised by mean {view.mean} and std {view.std}, but nasface "
                f"normalises by {MEAN} and {STD}; give another network"
            )
        training = content.get("training")
        if not (
            isinstance(training, dict)
            and isinstance(training.get("dataset", ""), str)
            and isinstance(training.get("dataset_options", {}), dict)
        ):
            raise RunError(
                f"the card of {where} does not say what the network was trained on; its 'training' must be an "
                "object with the name of a dataset, and 'dataset_options' must be an object"
            )
        if fault := _fault(view.scheme):
            raise RunError(f"the landmark scheme in the card of {where} {fault}; write the file again with nasface")
        architecture = Architecture.from_json(json.dumps(content.get("architecture")), where)
        if architecture.num_landmarks != view.scheme.num_landmarks:
            raise RunError(
                f"the card of {where} names {view.scheme.num_landmarks} landmarks, but its network has "
                f"{architecture.num_landmarks}; give another file"
            )
        return cls(architecture, view, training)


def trained_by(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return what a card says about the training: dataset, licence of its faces, seed and digest of the recipe."""
    return {
        "dataset": recipe.data.name,
        "dataset_options": recipe.data.model_dump(mode="json")["options"],
        "licence": str(getattr(dataset, "licence", "")),
        "seed": recipe.seed,
        "recipe_digest": recipe.digest,
    }


def write_net(path: Path, net: GraphNet, card: Card) -> None:
    """Write weights and card as one safetensors file, atomically."""
    # the first three are for versions of nasface that do not know the card
    meta = {"space": card.architecture.space, "graph_digest": net.graph.digest, "num_landmarks": str(net.num_landmarks)}
    rundir.write_tensors(path, net.state_dict(), {**meta, "card": card.as_dict()})


def _fault(scheme: Scheme) -> str:
    """What is wrong with a landmark scheme that came out of a file; empty when nothing is."""
    if not 1 <= scheme.num_landmarks <= MAX_LANDMARKS:
        return f"has {shown(scheme.num_landmarks)} landmarks; expected 1 to {MAX_LANDMARKS}"
    numbers = set(range(scheme.num_landmarks))
    if len(scheme.flip) != scheme.num_landmarks or set(scheme.flip) != numbers:
        return f"has a flip that is not a permutation of {scheme.num_landmarks} landmarks"
    named = {i for group in (*scheme.inter_ocular, *scheme.inter_pupil, *scheme.contours) for i in group}
    if named - numbers:
        return f"names the landmark {min(named - numbers)}, but has {scheme.num_landmarks}"
    return ""


_VIEW = TypeAdapter(View)


def dataset_of(recipe: Recipe) -> Dataset:
    """Build the dataset of a recipe."""
    return plugins.dataset(recipe.data.name, recipe.data.root, recipe.data.options)
