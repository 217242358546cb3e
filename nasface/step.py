"""What a training consists of: batches, steps, optimizers and phases. The loop itself is in `nasface.engine`.

Recipes are read without torch, so that it is imported only where an optimizer is built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

from annotated_types import Interval, Len

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

from nasface.bounds import Epochs, Rate, Weight

STRICT: dict[str, Any] = {"extra": "forbid"}  # pydantic: recipes with keys that the dataclass does not have are refused


@dataclass(frozen=True)
class Batch:
    """The faces of one step.

    Attributes:
        images_B3HW: normalised float images.
        landmarks_BL2: x and y in input pixels, 0-based, with integers at pixel centres.
        seed: seed for random numbers that the step itself draws; every step of a training has a different one.
        progress: fraction of the phase's steps that were done before this one, from 0 to below 1.
        first, whole: where several processes train together, these faces are number `first` and the following ones of a
            batch of `whole` faces. The seed is that of the whole batch: what a step draws for each face, it draws for
            the whole batch, and takes the part of its faces.
    """

    images_B3HW: Tensor
    landmarks_BL2: Tensor
    seed: int = 0
    progress: float = 0.0
    first: int = 0
    whole: int | None = None

    @property
    def weight(self) -> float:
        """The share of the whole batch that these faces are."""
        return 1.0 if self.whole is None else len(self.images_B3HW) / self.whole


Step: TypeAlias = "Callable[[nn.Module, Batch], dict[str, Tensor]]"
"""Returns scalar tensors by name. 'loss' is minimised, and the mean of each over the epoch is logged."""

Loss: TypeAlias = "Callable[[Tensor, Batch], Tensor]"
"""Returns the scalar loss of the heatmaps (B, L, h, w) of a batch."""

Batches = Callable[[], Iterator[Batch]]
"""Returns one pass over some faces, the same at every call."""

Row = dict[str, Any]
"""A row of metrics.csv, which describes one phase in one epoch."""


class OptimizerLike(Protocol):
    """The way in which a phase updates its parameters: the built-in `Optimizer` or your own class."""

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over these parameters."""
        ...

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the learning rate at a fractional epoch, counted from the start of a phase of `epochs` epochs."""
        ...


@dataclass(frozen=True)
class Optimizer:
    """The built-in optimizers and schedules, as recipes name them.

    Attributes:
        name: 'adam' or 'adamw' (betas 0.9 and 0.999), or 'sgd' (momentum 0.9).
        lr: highest learning rate.
        weight_decay: weight decay of the optimizer.
        schedule: 'constant'; 'steps', which multiplies the learning rate by `drop` at each of the `milestones` (epochs
            since the phase began); or 'one_cycle', a linear warm-up over the fraction `warmup` of the steps followed by
            a cosine decay to zero.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Rate = 1e-4
    weight_decay: Weight = 0.0
    schedule: Literal["constant", "steps", "one_cycle"] = "constant"
    milestones: Annotated[tuple[Epochs, ...], Len(0, 1000)] = ()
    drop: Rate = 0.1
    warmup: Annotated[float, Interval(gt=0, lt=1)] = 0.2

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over these parameters."""
        import torch

        from nasface.eager import without_compiler

        how: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.name == "sgd":
            return without_compiler(torch.optim.SGD)(parameters, momentum=0.9, **how)
        return without_compiler(torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam)(parameters, **how)

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the learning rate at a fractional epoch, counted from the start of a phase of `epochs` epochs."""
        if self.schedule == "steps":
            return self.lr * self.drop ** sum(epoch >= milestone for milestone in self.milestones)
        if self.schedule == "one_cycle":
            done = epoch / epochs
            if done < self.warmup:
                # starts at lr / 25, the default of torch's OneCycleLR
                return self.lr * (0.04 + 0.96 * done / self.warmup)
            return self.lr * 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))
        return self.lr


@dataclass(frozen=True)
class Phase:
    """One pass over the training faces, as a part of every epoch.

    Attributes:
        name: name of the phase in the metrics.
        parameters: the parameters that the phase may change. All others are frozen while it runs, but the BN statistics
            of the whole network still follow the batches.
        optimizer: optimizer of these parameters; its state and schedule last from `start` to `end`.
        step: returns the loss to minimise.
        share: fraction of the training faces seen in one pass.
        start: first epoch in which the phase runs, counted from 0.
        end: first epoch in which it no longer runs, or None to run until the training ends.
        begin: called with the number of the epoch, counted from 0, before its first batch. What it changes must be a
            part of the trained module's state, and depend on nothing else: a resumed training calls it again for the
            epoch in which it was interrupted, with the state at the end of the epoch before.
        varies: whether the steps of an epoch differ in their cost, as where sub-networks are drawn. The multiply-adds
            of every step are then counted, which takes time; otherwise those of the first steps stand for all.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    optimizer: OptimizerLike
    step: Step
    share: float = 1.0
    start: int = 0
    end: int | None = None
    begin: Callable[[int], None] = lambda epoch: None
    varies: bool = False

    def span(self, epochs: int) -> range:
        """Return the epochs in which the phase runs, in a training of `epochs` epochs."""
        return range(self.start, epochs if self.end is None else min(self.end, epochs))


class Fit(Protocol):
    """Trains a network in phases, with the data, checkpoints, metrics and progress bars of the run."""

    def __call__(
        self,
        phases: Sequence[Phase],
        epochs: int | None = None,
        title: str | None = None,
        net: nn.Module | None = None,
    ) -> list[Row]:
        """Run the phases in this order within every epoch and return one row of metrics per phase and epoch.

        After an interruption, the same calls in the same order continue where the run stopped.

        Args:
            phases: one or more phases.
            epochs: number of epochs; by default the recipe's.
            title: name of this training in metrics and checkpoints, unique within the run; by default a number.
            net: the network to train; by default the one being searched.
        """
        ...
