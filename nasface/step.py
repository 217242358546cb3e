"""What a training consists of, as data: batches, steps, optimizers and phases. The loop itself is the engine's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

STRICT: dict[str, Any] = {"extra": "forbid"}  # recipes refuse keys that these do not have


@dataclass(frozen=True)
class Batch:
    """What a step sees.

    Attributes:
        images_B3HW: float, normalised.
        landmarks_BL2: x and y in input pixels, 0-based, integers at pixel centres.
        seed: of what a step draws itself; another one for every step of a training.
    """

    images_B3HW: Tensor
    landmarks_BL2: Tensor
    seed: int = 0


Step = Callable[[nn.Module, Batch], dict[str, Tensor]]
"""Gives scalar tensors, of which 'loss' is minimised and all are logged."""


@dataclass(frozen=True)
class Optimizer:
    """An optimizer and its schedule.

    Attributes:
        name: 'adam' or 'adamw' (betas 0.9, 0.999) or 'sgd' (momentum 0.9).
        lr: the highest learning rate.
        weight_decay: of the optimizer.
        schedule: 'constant'; 'steps': times `drop` at each of `milestones` (epochs since the phase began);
            'one_cycle': linear warm-up over the share `warmup` of the steps, then a cosine down to zero.
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
        """The torch optimizer over these parameters."""
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
        kind = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def lr_at(self, epoch: float, epochs: int) -> float:
        """Learning rate at a fractional epoch of `epochs`."""
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
        name: stands in the metrics.
        parameters: what it may change; all else is frozen meanwhile, but BN statistics follow the batches.
        optimizer: how.
        step: what is minimised.
        share: part of the training faces in one pass.
        start: first epoch in which it runs.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    optimizer: Optimizer
    step: Step
    share: float = 1.0
    start: int = 0


Batches = Callable[[], Iterator[Batch]]
"""One pass of augmented training batches, the same at every call."""

Fit = Callable[[Sequence[Phase]], None]
"""Trains the searched network through these phases, with the run's data, epochs, checkpoints and progress."""
