"""The sections of a recipe, and the recipe itself, as pydantic models. Unknown keys are an error."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Interval
from pydantic import BaseModel, ConfigDict

from nasface.bounds import Epochs, Seed, Share, Weight
from nasface.settings import Augmentation, Decoder, Distillation, HeatmapLoss
from nasface.step import Optimizer

_LATER: dict[tuple[str, ...], Any] = {
    ("task", "loss"): "mse",
    ("prune", "options", "latency_ms"): None,
    ("prune", "options", "runtime"): "torch",
}
"""Keys and options that older recipes did not have, with their defaults."""


class Section(BaseModel):
    """A section of a recipe: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin(Section):
    """A plug-in and its options."""

    name: str
    options: dict[str, Any] = {}


class Data(Plugin):
    """The dataset, and how its faces are cropped.

    Attributes:
        root: folder of the dataset.
        input_size: side of the network's square input, in pixels.
        margin: side of the stored crop as a multiple of the input, which leaves room for augmentation.
        box: whether the face box is computed from the landmarks or provided by the dataset.
        box_scale: factor by which the face box is enlarged.
        held_out: fraction of the training faces that is held out of training and used to select networks.
        on_device: whether the crops are copied to the device as a whole (yes), or brought there batch by batch, ahead
            of the step (no); auto copies them if they take at most half of its free memory. The results are the same.
    """

    name: str = "300w"
    root: Path | None = None
    input_size: Annotated[int, Interval(ge=16, le=1024)] = 256
    margin: Annotated[float, Interval(ge=1, le=4)] = 1.6
    box: Literal["landmarks", "provided"] = "landmarks"
    box_scale: Annotated[float, Interval(ge=0.1, le=10)] = 1.25
    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    on_device: Literal["auto"] | bool = "auto"


class Task(Section):
    """The heatmap targets, their loss, and decoding.

    Attributes:
        loss: 'mse', the mean squared error, or 'adaptive_wing' (Wang et al. 2019), which cares more about errors that
            are small already. Its values are some 200 times as large, so weights that are relative to this loss, such
            as those of a teacher, have to be larger too.
        sigma: standard deviation of the Gaussian targets, in cells.
        weight: factor of the loss.
        decoder: see `nasface.task.decode`.
        flip_test: whether to average the heatmaps with those of the mirrored image.
    """

    loss: HeatmapLoss = "mse"
    sigma: Annotated[float, Interval(gt=0, le=1000)] = 1.5
    weight: Annotated[float, Interval(gt=0, le=1e9)] = 1.0
    decoder: Decoder = "quarter"
    flip_test: bool = False


class Training(Section):
    """Settings common to search, fine-tuning and distillation.

    Attributes:
        batch: number of faces per step; where several processes train together, of all of them.
        precision: 'bf16' runs the network under autocast.
        clip: largest norm of the gradient, or 0 for no clipping.
        threads: CPU threads of torch; 0 leaves the choice to torch.
    """

    batch: Annotated[int, Interval(ge=2, le=65536)] = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: Weight = 0.0
    threads: Annotated[int, Interval(ge=0, le=1024)] = 0


class Space(Plugin):
    """The search space."""

    name: str = "hrsupernet"


class Prune(Plugin):
    """The pruner."""

    name: str = "share"


class Search(Plugin):
    """The searcher, the number of epochs, and the optimizer of the weights."""

    name: str = "l1"
    epochs: Epochs = 60
    optimizer: Optimizer = Optimizer()


class Criterion(Plugin):
    """The criterion by which the importance of each edge of the searched supernet is computed."""

    name: str = "alpha"


class Finetune(Section):
    """Training of a single network: of the slim one after pruning, or of a full one by `nasface train`.

    Attributes:
        share: fraction of the training faces that each epoch draws.
    """

    epochs: Epochs = 60
    share: Share = 1.0
    optimizer: Optimizer = Optimizer()


class Recipe(Section):
    """A complete description of an experiment."""

    description: str = ""
    space: Space = Space()
    data: Data = Data()
    task: Task = Task()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    search: Search = Search()
    criterion: Criterion = Criterion()
    prune: Prune = Prune(options={"share": 0.5})
    finetune: Finetune = Finetune()
    distill: Distillation = Distillation()
    seed: Seed = 0

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with every default written out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text

    @property
    def digest(self) -> str:
        """A hash of everything in the recipe that a search or a training depends on.

        It leaves out the description, where the data lie, and `distill`, which only distillation uses. Keys of `_LATER`
        are left out while they have their defaults, so that digests of older recipes stay as they are.
        """
        left_out: Any = {"description": True, "distill": True, "data": {"root", "on_device"}}
        content = self.model_dump(mode="json", exclude=left_out)
        for (*sections, key), default in _LATER.items():
            inner = content
            for section in sections:
                inner = inner[section]
            if key in inner and inner[key] == default:
                del inner[key]
        return hashlib.sha256(yaml.safe_dump(content, sort_keys=False).encode()).hexdigest()[:16]
