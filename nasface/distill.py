"""Triple knowledge distillation (section 3.2 of the paper): its loss terms and the joint step of the peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from nasface.data.patches import random_mask
from nasface.net import GraphNet
from nasface.step import STRICT, Batch, Optimizer, Step
from nasface.task import targets


@dataclass(frozen=True)
class Distillation:
    """How to refine a slim network. Without teacher, peer and masks it is plain fine-tuning (row 1 of Table 6).

    Attributes:
        epochs, optimizer: training of the students.
        teacher: whether the students learn from a teacher.
        peer: whether there are two students, which also learn from each other.
        masked: whether each student sees its own randomly masked copy of the batch.
        teacher_from: a run folder, a file of weights, or a network by plug-in name or 'module:attr'; None takes the
            searched supernet.
        ensemble_weight, teacher_weight: lambda 1 and lambda 2 of equation 4, relative to the heatmap loss.
        temperature: temperature of the softmax over the cells of a heatmap; losses are not rescaled by its square.
        constant_ensemble: whether the peers' ensemble is constant in its loss term, so that each student moves towards
            the ensemble but the ensemble does not move towards the students (the paper leaves this open).
        mask_probability: probability that a face is covered.
        mask_size: lowest and highest share of the image's side that a mask covers.
        peer_noise: standard deviation of the noise added to the second student's initial weights, relative to that of
            each tensor. It is used only without masks: equal students that see equal images would stay equal.
    """

    epochs: Annotated[int, Interval(ge=0, le=100_000)] = 60
    optimizer: Optimizer = field(default_factory=Optimizer)
    teacher: bool = True
    peer: bool = True
    masked: bool = True
    teacher_from: str | None = None
    ensemble_weight: Annotated[float, Ge(0)] = 4.0
    teacher_weight: Annotated[float, Ge(0)] = 1.0
    temperature: Annotated[float, Gt(0)] = 1.0
    constant_ensemble: bool = True
    mask_probability: Annotated[float, Interval(ge=0, le=1)] = 0.5
    mask_size: tuple[Annotated[float, Interval(gt=0, le=1)], Annotated[float, Interval(gt=0, le=1)]] = (0.1, 0.5)
    peer_noise: Annotated[float, Ge(0)] = 0.02

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT


class Students(nn.Module):
    """One network, or two peers that start from equal weights and are trained together without sharing any."""

    def __init__(self, net: GraphNet, how: Distillation, seed: int) -> None:
        super().__init__()
        self._peers = nn.ModuleList([net])
        if how.peer:
            second = deepcopy(net)
            if not how.masked:
                _perturb(second, how.peer_noise, seed)
            self._peers.append(second)

    @property
    def peers(self) -> tuple[GraphNet, ...]:
        """The one or two networks."""
        return cast(tuple[GraphNet, ...], tuple(self._peers))


def kd_loss(target_BLhw: Tensor, heatmaps_BLhw: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(softmax(target) || softmax(heatmaps)), the mean over samples and landmarks (equation 3 of the paper).

    The softmax goes over the cells of a heatmap. Gradients flow into both arguments.
    """
    log_p = F.log_softmax(target_BLhw.flatten(2) / temperature, dim=2)
    log_q = F.log_softmax(heatmaps_BLhw.flatten(2) / temperature, dim=2)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(2).mean()


def ensemble(heatmaps: Sequence[Tensor], constant: bool = True) -> Tensor:
    """Return P_E, the mean of the students' heatmaps (B, L, h, w); without gradient if it is to be constant."""
    mean = torch.stack(tuple(heatmaps)).mean(0)
    return mean.detach() if constant else mean


def student_loss(
    heatmaps_BLhw: Tensor,
    goal_BLhw: Tensor,
    ensemble_BLhw: Tensor | None,
    taught_BLhw: Tensor | None,
    how: Distillation,
) -> dict[str, Tensor]:
    """Return the loss terms of one student by name, and their weighted sum as 'loss' (equation 4).

    Args:
        heatmaps_BLhw: heatmaps of the student.
        goal_BLhw: Gaussian targets.
        ensemble_BLhw: mean heatmaps of the peers, or None.
        taught_BLhw: heatmaps of the teacher, or None.
        how: weights of the terms, and temperature.
    """
    mse = F.mse_loss(heatmaps_BLhw, goal_BLhw)
    terms = {"loss": mse, "mse": mse}
    for name, target, weight in (
        ("ensemble", ensemble_BLhw, how.ensemble_weight),
        ("teacher", taught_BLhw, how.teacher_weight),
    ):
        if target is not None:
            terms[name] = kd_loss(target, heatmaps_BLhw, how.temperature)
            terms["loss"] = terms["loss"] + weight * terms[name]
    return terms


def distill_step(
    how: Distillation, sigma: float, weight: float, teacher: Callable[[Tensor, tuple[int, int]], Tensor] | None
) -> Step:
    """Return the joint training step of `Students`: `weight` times the sum of their losses.

    The step logs the mean of each term over the students.

    Args:
        how: see `Distillation`.
        sigma: standard deviation of the Gaussian targets, in heatmap cells.
        weight: factor of the loss; the task's weight, which multiplies the heatmap loss in other trainings too.
        teacher: a function from images (B, 3, H, W) and the size (h, w) of the students' heatmaps to heatmaps
            (B, L, h, w) without gradient. It is given the images of the students before these are masked.
    """

    def step(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(net, Students)
        images = batch.images_B3HW
        random = torch.Generator().manual_seed(batch.seed)
        found = []
        for peer in net.peers:
            view = random_mask(images, how.mask_probability, how.mask_size, random) if how.masked else images
            found.append(peer(view).float().contiguous())  # contiguous, as the losses read cell after cell
        h, w = found[0].shape[-2:]
        goal = targets(batch.landmarks_BL2, (h, w), images.shape[-1] / w, sigma)
        together = ensemble(found, how.constant_ensemble) if how.peer else None
        taught = teacher(images, (h, w)).float().contiguous() if teacher is not None else None
        terms = [student_loss(heatmaps, goal, together, taught, how) for heatmaps in found]
        means = {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}
        return {**means, "loss": weight * len(terms) * means["loss"]}

    return step


def _perturb(net: nn.Module, noise: float, seed: int) -> None:
    """Add Gaussian noise to every weight, relative to the standard deviation of its tensor."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1:
                drawn = torch.randn(parameter.shape, generator=random).to(parameter.device)
                parameter.add_(drawn * parameter.std() * noise)
