"""How a network sees a face, and what its file says about it: the card in the metadata of the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Interval, Le
from pydantic import TypeAdapter, ValidationError

from nasface import __version__, plugins, rundir
from nasface.arch import Architecture
from nasface.data.augment import MEAN, STD
from nasface.data.base import Scheme
from nasface.data.crop import PrepareOptions
from nasface.errors import RunError
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.task import Decoder

CARD_VERSION = 1


@dataclass(frozen=True)
class View:
    """How a network sees a face, and how its heatmaps are read.

    Attributes:
        scheme: its landmarks.
        input_size: pixels, square.
        box: what the crop is made from: the box of the landmarks, or one that the dataset provides.
        box_scale: side of the input over the longer side of that box.
        margin: stored pixels around the input while training, see `PrepareOptions`.
        decoder, sigma, flip_test: how heatmaps become landmarks, see `nasface.task.decode`; sigma in heatmap cells.
        precision: 'bf16' runs the network under autocast.
        mean, std: of the RGB channels, in units of 255, by which images are normalised.
    """

    scheme: Scheme
    input_size: Annotated[int, Ge(16), Le(1024)]
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
    def of(cls, recipe: Recipe) -> View:
        """The view of networks that are trained by a recipe."""
        return cls(_dataset(recipe).scheme, recipe.data.input_size).by(recipe)

    def by(self, recipe: Recipe) -> View:
        """The same landmarks, seen as a recipe says."""
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
        """The view as sections of a recipe, the inverse of `by`."""
        return {
            "data": {k: getattr(self, k) for k in ("input_size", "box", "box_scale", "margin")},
            "task": {k: getattr(self, k) for k in ("decoder", "sigma", "flip_test")},
            "training": {"precision": self.precision},
        }

    @property
    def crop(self) -> PrepareOptions:
        """How a face of a known box is cut out: to the pixel as in evaluation, without a margin."""
        return PrepareOptions(self.input_size, margin=1, box="provided", box_scale=self.box_scale)


@dataclass(frozen=True)
class Card:
    """What a file of weights says about itself.

    Attributes:
        architecture: its kept edges and its search space.
        view: how it sees.
        training: what it was trained on: dataset, licence of the faces, seed, digest of the recipe. Plain JSON values.
    """

    architecture: Architecture
    view: View
    training: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, architecture: Architecture) -> Card:
        """The card of a network that a recipe has trained."""
        training = {
            "dataset": recipe.data.name,
            "licence": str(getattr(_dataset(recipe), "licence", "")),
            "seed": recipe.seed,
            "recipe_digest": recipe.digest,
            "nasface": __version__,
        }
        return cls(architecture, View.of(recipe), training)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "card_version": CARD_VERSION,
            "architecture": json.loads(replace(self.architecture, provenance={}).to_json()),
            "view": asdict(self.view),
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> Card:
        """Undo `as_dict`.

        Args:
            content: of a file's metadata.
            where: the file, for messages.

        Raises:
            RunError: when the card is damaged, or one that this version cannot read.
            GraphError: when its architecture is.
        """
        version = content.get("card_version")
        if version != CARD_VERSION:
            raise RunError(
                f"{where}: its card has version {version!r}, and this nasface reads version {CARD_VERSION}; use the "
                "version of nasface that wrote it"
            )
        try:
            view = _VIEW.validate_python(content.get("view"))
        except ValidationError as err:
            raise RunError(plugins.explain(err, f"the card of {where}")) from err
        if (view.mean, view.std) != (MEAN, STD):
            raise RunError(
                f"{where}: its images are normalised by {view.mean} and {view.std}; expected {MEAN} and {STD}"
            )
        training = content.get("training")
        if not isinstance(training, dict):
            raise RunError(f"{where}: its card does not say what the network was trained on; expected an object")
        architecture = Architecture.from_json(json.dumps(content.get("architecture")), where)
        if architecture.num_landmarks != view.scheme.num_landmarks:
            raise RunError(
                f"{where}: its card names {view.scheme.num_landmarks} landmarks, but its network has "
                f"{architecture.num_landmarks}"
            )
        return cls(architecture, view, training)


def write_net(path: Path, net: GraphNet, card: Card) -> None:
    """Write weights and card as one file (safetensors), atomically."""
    # the first three stand there for versions of nasface that know no card
    meta = {"space": card.architecture.space, "graph_digest": net.graph.digest, "num_landmarks": str(net.num_landmarks)}
    rundir.write_tensors(path, net.state_dict(), {**meta, "card": card.as_dict()})


_VIEW = TypeAdapter(View)


def _dataset(recipe: Recipe) -> Any:
    return plugins.dataset(recipe.data.name, recipe.data.root, recipe.data.options)
