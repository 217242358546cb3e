"""Triple knowledge distillation (section 3.2 of the paper): its loss terms and the joint step of the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasface import joint
from nasface.data.patches import random_mask
from nasface.errors import RecipeError
from nasface.net import GraphNet
from nasface.settings import Distillation as Distillation
from nasface.settings import HeatmapLoss
from nasface.step import Batch, Step
from nasface.task import LOSSES, HeatmapTask, targets

Maps = Mapping[int, Tensor]
"""The output maps (B, C, h, w) of a network by their stride; maps of equal strides are concatenated."""


class Students(nn.Module):
    """One network, or two peers that start from equal weights and are trained together without sharing any.

    Args:
        net: the network; it becomes the first student.
        how: see `Distillation`.
        seed: seed of the second student's noise and of the projections' initial weights.
        teacher: the network whose output maps the students learn; needed if `how.feature_weight` is not 0.

    Attributes:
        projections: for each student, 1x1 convolutions from its output maps to the teacher's, by stride. They are part
            of the checkpoints, but not of the networks. Without a feature term there are none.

    Raises:
        RecipeError: if no output map of the teacher has the stride of one of the student's.
    """

    def __init__(self, net: GraphNet, how: Distillation, seed: int, teacher: GraphNet | None = None) -> None:
        super().__init__()
        self._peers = nn.ModuleList([net])
        if how.peer:
            second = deepcopy(net)
            if not how.masked:
                _perturb(second, how.peer_noise, seed)
            self._peers.append(second)
        self.projections = nn.ModuleList()
        if how.feature_weight and teacher is not None:
            projection = _projection(net, teacher, seed).to(net.alpha.device)
            self.projections.extend(deepcopy(projection) for _ in self._peers)

    @property
    def peers(self) -> tuple[GraphNet, ...]:
        """The one or two networks."""
        return cast(tuple[GraphNet, ...], tuple(self._peers))


@contextmanager
def output_maps(net: GraphNet | None) -> Iterator[Maps]:
    """Yield a mapping that receives the output maps of `net` when it is run within the block; without one, nothing."""
    found: dict[int, Tensor] = {}
    if net is None:
        yield found
        return
    strides = [net.graph.node[name].stride for name in net.graph.outputs]

    def keep(_: nn.Module, inputs: tuple[list[Tensor]]) -> None:
        for stride in sorted(set(strides)):
            found[stride] = torch.cat([m for m, own in zip(inputs[0], strides, strict=True) if own == stride], dim=1)

    handle = net.head.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def resized(maps_BCHW: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return maps or images resized to (h, w) by bilinear interpolation, with antialiasing if they shrink."""
    smaller = size_hw[0] < maps_BCHW.shape[-2]
    return F.interpolate(maps_BCHW, size_hw, mode="bilinear", align_corners=False, antialias=smaller)


def standardised(heatmaps_BLhw: Tensor) -> Tensor:
    """Return heatmaps shifted and scaled so that each has mean 0 and standard deviation 1 over its cells."""
    # The constant keeps the gradient of an entirely flat heatmap finite.
    variance, mean = torch.var_mean(heatmaps_BLhw, dim=(2, 3), correction=0, keepdim=True)
    return (heatmaps_BLhw - mean) * (variance + 1e-12).rsqrt()


def kd_loss(target_BLhw: Tensor, heatmaps_BLhw: Tensor, temperature: float = 1.0, standardise: bool = False) -> Tensor:
    """Return KL(softmax(target) || softmax(heatmaps)), the mean over samples and landmarks (equation 3 of the paper).

    The softmax goes over the cells of a heatmap, which is standardised first if asked. Gradients flow into both
    arguments.
    """
    if standardise:
        target_BLhw, heatmaps_BLhw = standardised(target_BLhw), standardised(heatmaps_BLhw)
    log_p = F.log_softmax(target_BLhw.flatten(2) / temperature, dim=2)
    log_q = F.log_softmax(heatmaps_BLhw.flatten(2) / temperature, dim=2)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(2).mean()


def feature_loss(projections: nn.Module, maps: Maps, taught: Maps) -> Tensor:
    """Return the mean squared error between the teacher's maps and the student's projected ones, averaged over strides.

    Args:
        projections: the 1x1 convolutions of the student, an `nn.ModuleDict` by stride; see `Students`.
        maps: output maps of the student.
        taught: output maps of the teacher, resized where the teacher sees images of another size.
    """
    assert isinstance(projections, nn.ModuleDict)
    errors = []
    for stride, project in projections.items():
        found = project(maps[int(stride)]).float()
        goal = taught[int(stride)].float()
        errors.append(F.mse_loss(found, goal if goal.shape == found.shape else resized(goal, found.shape[-2:])))
    return torch.stack(errors).mean()


def ensemble(heatmaps: Sequence[Tensor], constant: bool = True) -> Tensor:
    """Return P_E, the mean of the students' heatmaps (B, L, h, w); without gradient if it is to be constant."""
    mean = torch.stack(tuple(heatmaps)).mean(0)
    return mean.detach() if constant else mean


def share_weight(term: Tensor, task: Tensor, heatmaps: Tensor, share: float) -> Tensor:
    """Return the weight at which the gradient of `term` has `share` of the norm of that of `task`, as a constant.

    Both gradients are those with respect to the heatmaps. A term without any gradient gets the weight 0.
    """
    norms = [torch.autograd.grad(loss, heatmaps, retain_graph=True)[0].norm() for loss in (term, task)]
    own, whole = joint.whole_norms(torch.stack(norms), len(heatmaps))
    return torch.where(own > 0, share * whole / own, 0.0)


def student_loss(
    heatmaps_BLhw: Tensor,
    goal_BLhw: Tensor,
    ensemble_BLhw: Tensor | None,
    taught_BLhw: Tensor | None,
    how: Distillation,
    feature: Tensor | None = None,
    fade: float = 1.0,
    kind: HeatmapLoss = "mse",
) -> dict[str, Tensor]:
    """Return the loss terms of one student by name, and their weighted sum as 'loss' (equation 4).

    A weight that follows from a share of the gradient is returned too, as 'ensemble_weight' or 'teacher_weight'.

    Args:
        heatmaps_BLhw: heatmaps of the student.
        goal_BLhw: Gaussian targets.
        ensemble_BLhw: mean heatmaps of the peers, or None.
        taught_BLhw: heatmaps of the teacher, or None.
        how: weights of the terms, and temperature.
        feature: `feature_loss` of the student, or None.
        fade: factor of everything that is not learnt from the landmarks.
        kind: the loss to the targets, see `nasface.task.LOSSES`.
    """
    if taught_BLhw is not None and how.target_mix:
        goal_BLhw = torch.lerp(goal_BLhw, taught_BLhw, fade * how.target_mix)
    task = LOSSES[kind](heatmaps_BLhw, goal_BLhw)
    terms = {"loss": task, kind: task}
    for name, target, fixed, share in (
        ("ensemble", ensemble_BLhw, how.ensemble_weight, how.ensemble_share),
        ("teacher", taught_BLhw, how.teacher_weight, how.teacher_share),
    ):
        if target is None:
            continue
        terms[name] = kd_loss(target, heatmaps_BLhw, how.temperature, how.standardise)
        weight: float | Tensor = fade * fixed
        if share is not None:
            weight = terms[f"{name}_weight"] = share_weight(terms[name], task, heatmaps_BLhw, fade * share)
        terms["loss"] = terms["loss"] + weight * terms[name]
    if feature is not None:
        terms["feature"] = feature
        terms["loss"] = terms["loss"] + fade * how.feature_weight * feature
    return terms


def distill_step(
    how: Distillation,
    task: HeatmapTask,
    teacher: Callable[[Tensor, tuple[int, int]], Tensor] | None,
    school: GraphNet | None = None,
) -> Step:
    """Return the joint training step of `Students`: the sum of their losses, times the weight of the task.

    The step logs the mean of each term over the students.

    Args:
        how: see `Distillation`.
        task: targets, loss and weight.
        teacher: a function from images (B, 3, H, W) and the size (h, w) of the students' heatmaps to heatmaps
            (B, L, h, w) without gradient. It is given the images of the students before these are masked.
        school: the network that `teacher` runs, whose output maps the students learn if they have projections.
    """

    def step(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(net, Students)
        images = batch.images_B3HW
        random = torch.Generator().manual_seed(batch.seed)
        found: list[Tensor] = []
        maps: list[Maps] = []
        for peer in net.peers:
            view = images
            if how.masked:
                place = batch.first, batch.whole
                view = random_mask(images, how.mask_probability, how.mask_size, random, place=place)
            with output_maps(peer if net.projections else None) as own:
                found.append(peer(view).float().contiguous())  # contiguous, as the losses read cell after cell
            maps.append(own)
        h, w = found[0].shape[-2:]
        goal = targets(batch.landmarks_BL2, (h, w), task.input_size / w, task.sigma)
        together = ensemble(found, how.constant_ensemble) if how.peer else None
        with output_maps(school if net.projections else None) as lesson:
            taught = teacher(images, (h, w)).float().contiguous() if teacher is not None else None
        fade = 1 - batch.progress if how.decay else 1.0
        terms = []
        for i, heatmaps in enumerate(found):
            feature = feature_loss(net.projections[i], maps[i], lesson) if net.projections else None
            terms.append(student_loss(heatmaps, goal, together, taught, how, feature, fade, task.kind))
        means = {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}
        return {**means, "loss": task.weight * len(terms) * means["loss"]}

    return step


def _projection(net: GraphNet, teacher: GraphNet, seed: int) -> nn.ModuleDict:
    """Build 1x1 convolutions from the output maps of `net` to those of `teacher`, one for each stride of both."""
    mine, theirs = _output_channels(net), _output_channels(teacher)
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        raise RecipeError(
            f"distill.feature_weight needs output maps of equal strides, but the students have strides "
            f"{_listed(mine)} and the teacher {_listed(theirs)}; choose another teacher, or set it to 0"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleDict({str(stride): nn.Conv2d(mine[stride], theirs[stride], 1) for stride in shared})


def _output_channels(net: GraphNet) -> dict[int, int]:
    """Return how many channels the output nodes of each stride have together."""
    found: dict[int, int] = {}
    for node in (net.graph.node[name] for name in net.graph.outputs):
        found[node.stride] = found.get(node.stride, 0) + node.channels
    return found


def _listed(strides: Mapping[int, int]) -> str:
    return ", ".join(map(str, sorted(strides)))


def _perturb(net: nn.Module, noise: float, seed: int) -> None:
    """Add Gaussian noise to every weight, relative to the standard deviation of its tensor."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1:
                drawn = torch.randn(parameter.shape, generator=random).to(parameter.device)
                parameter.add_(drawn * parameter.std() * noise)
