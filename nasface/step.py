"""What a training consists of, as data: batches, steps, optimizers and phases. The loop itself is in the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

STRICT: dict[str, Any] = {"extra": "forbid"}  # makes recipes refuse keys that the dataclass does not have


@dataclass(frozen=True)
class Batch:
    """The faces that one step sees.

    Attributes:
        images_B3HW: float, normalised.
        landmarks_BL2: x and y in input pixels, 0-based, integers at pixel centres.
        seed: for random numbers that the step draws itself; it differs between all steps of a training.
    """

    images_B3HW: Tensor
    landmarks_BL2: Tensor
    seed: int = 0


Step = Callable[[nn.Module, Batch], dict[str, Tensor]]
"""Returns scalar tensors by name: 'loss' is minimised, and the mean of each is logged."""

Loss = Callable[[Tensor, Batch], Tensor]
"""Returns the scalar loss of heatmaps (B, L, h, w) for a batch."""

Batches = Callable[[], Iterator[Batch]]
"""Returns one pass over some faces, the same one at every call."""

Row = dict[str, Any]
"""A row of metrics.csv: one phase of one epoch."""


class OptimizerLike(Protocol):
    """How the parameters of a phase are updated: the built-in `Optimizer`, or your own."""

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over these parameters."""
        ...

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the learning rate at a fractional epoch, counted from the start of the phase, of `epochs`."""
        ...


@dataclass(frozen=True)
class Optimizer:
    """The built-in optimizers and schedules, as recipes name them.

    Attributes:
        name: 'adam' or 'adamw' (betas 0.9, 0.999) or 'sgd' (momentum 0.9).
        lr: the highest learning rate.
        weight_decay: the optimizer's.
        schedule: 'constant'; 'steps', which multiplies by `drop` at each of `milestones` (epochs since the phase
            began); or 'one_cycle', a linear warm-up over the share `warmup` of the steps and then a cosine to zero.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Annotated[float, Gt(0)] = 1e-4
    weight_decay: Annotated[float, Ge(0)] = 0.0
    schedule: Literal["constant", "steps", "one_cycle"] = "constant"
    milestones: tuple[int, ...] = ()
    drop: Annotated[float, Gt(0)] = 0.1
    warmup: Annotated[float, Interval(gt=0, lt=1)] = 0.2

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer over these parameters."""
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
        kind = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Return the learning rate at a fractional epoch of `epochs`."""
        if self.schedule == "steps":
            return self.lr * self.drop ** sum(epoch >= milestone for milestone in self.milestones)
        if self.schedule == "one_cycle":
            done = epoch / epochs
            if done < self.warmup:
                return self.lr * (0.04 + 0.96 * done / self.warmup)
            return self.lr * 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))
        return self.lr


@dataclass(frozen=True)
class Phase:
    """A pass over the training faces within an epoch.

    Attributes:
        name: appears in the metrics.
        parameters: what the phase may change. All others are frozen meanwhile, but BN statistics follow the batches.
        optimizer: how they are updated; its state and schedule last from `start` to `end`.
        step: what is minimised.
        share: part of the training faces in one pass.
        start: first epoch in which the phase runs, counted from 0.
        end: first epoch in which it no longer runs; None for the end of the training.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    optimizer: OptimizerLike
    step: Step
    share: float = 1.0
    start: int = 0
    end: int | None = None

    def span(self, epochs: int) -> range:
        """Return the epochs in which the phase runs, of a training of so many."""
        return range(self.start, epochs if self.end is None else min(self.end, epochs))


class Fit(Protocol):
    """Trains a network through phases, with the run's data, checkpoints, metrics and progress bars."""

    def __call__(
        self,
        phases: Sequence[Phase],
        epochs: int | None = None,
        title: str | None = None,
        net: nn.Module | None = None,
    ) -> list[Row]:
        """Run the phases in this order within every epoch, and return one row of metrics for each.

        After an interruption, the same calls in the same order continue where the run stopped.

        Args:
            phases: at least one.
            epochs: how many; the recipe's number by default.
            title: names this training in metrics and checkpoints, once in a run; numbered by default.
            net: the network to train; the searched one by default.
        """
        ...
