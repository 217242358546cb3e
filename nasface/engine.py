"""The training loop shared by search, training and distillation, which differ only in the phases they pass to it.

Each epoch runs every phase over the training faces once. A phase names the parameters it may change, their
optimizer and its step. The loop writes a checkpoint after every epoch, so that an interrupted run continues from
there and ends with exactly the weights of an uninterrupted one. No training library is needed besides torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasface import joint, ranks
from nasface.checkpoint import Checkpoint
from nasface.compute import Loop, counting, metering
from nasface.data.augment import Augmentation, DeviceFaces
from nasface.errors import DivergedError, RecipeError
from nasface.graph import Graph
from nasface.net import GraphNet, slim_net
from nasface.progress import Progress as Progress
from nasface.ranks import ALL, Share
from nasface.scores import HELD_OUT
from nasface.step import Batch, Phase, Row
from nasface.task import Decoder, decode

Precision = Literal["fp32", "bf16"]
Validate = Callable[[Any], float]
"""Returns the NME of a network on held-out faces."""
# Reading the loss makes the CPU wait for the device, so it is checked only once in so many steps.
FLUSH = 20
# Takes the place of a phase number in the seed, so that BN recalibration draws batches that no phase draws.
MEASURING = 99


@dataclass(frozen=True)
class Settings:
    """Settings common to all phases of a training.

    Attributes:
        epochs: number of passes over the data; 0 leaves the network unchanged.
        batch: number of faces per step, of all processes together.
        augmentation: augmentation of the training faces.
        seed: seed of shuffling and augmentation.
        precision: 'bf16' runs the network under autocast.
        clip: largest norm of the gradient, or 0 for no clipping.
    """

    epochs: int
    batch: int
    augmentation: Augmentation
    seed: int = 0
    precision: Precision = "fp32"
    clip: float = 0.0


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a network runs at this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def fit(
    net: nn.Module,
    phases: Sequence[Phase],
    faces: DeviceFaces,
    settings: Settings,
    *,
    title: str = "train",
    checkpoint: Path | None = None,
    identity: str = "",
    validate: Validate | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Train `net` in place and return one row of metrics for each phase of each epoch.

    Args:
        net: the network, on the device of `faces`.
        phases: phases, run in this order within every epoch.
        faces: training faces.
        settings: epochs, batch size, augmentation, seed and precision.
        title: name of the training in metric rows and progress bars.
        checkpoint: file that is written after every epoch, and resumed from if it exists.
        identity: identifies the data; a checkpoint made with other data is refused.
        validate: returns the NME on the held-out faces; called once per epoch.
        progress: callbacks of the front end.

    Raises:
        DivergedError: if the loss is no longer finite; the last checkpoint is kept.
        RecipeError: if a phase would never run, or changes parameters that are not part of `net`.
        RunError: if the checkpoint belongs to another training.
    """
    progress = progress or Progress()
    plans = [_Plan.of(i, phase, faces, settings) for i, phase in enumerate(phases)]
    _check_phases(net, phases, settings.epochs, title)
    resume = Checkpoint.of(checkpoint, title, net, identity) if checkpoint is not None else None
    optimizers = [plan.optimizer for plan in plans]
    rows = resume.restore(net, optimizers) if resume is not None else []
    joint.share_state(net)
    done = rows[-1]["epoch"] if rows else 0
    total = [sum(plan.steps for plan in plans if epoch in plan.span) for epoch in range(settings.epochs)]
    progress.begin(title, sum(total), sum(total[:done]))
    for epoch in range(done, settings.epochs):
        running = [plan for plan in plans if epoch in plan.span]
        if not running:
            continue
        rows += [{"stage": title, **_pass(net, plan, epoch, progress)} for plan in running]
        if validate is not None:
            with metering() as meter:
                rows[-1][HELD_OUT.column] = validate(net)
            rows[-1]["macs"] += meter.total
        if resume is not None:
            resume.save(net, optimizers, rows)
        progress.epoch(rows)
    return rows


def _check_phases(net: nn.Module, phases: Sequence[Phase], epochs: int, title: str) -> None:
    """Raise a RecipeError if a phase would never run, or changes parameters that no checkpoint of `net` holds."""
    if epochs and (idle := next((phase for phase in phases if not phase.span(epochs)), None)):
        raise RecipeError(
            f"the {idle.name} phase would run from epoch {idle.start} to {idle.end or 'the end'}, but {title} has only "
            f"{epochs} epochs; set more epochs, or a shorter warm-up in the searcher "
            "(search.options.warmup_epochs of 'l1')"
        )
    own = {id(parameter) for parameter in net.parameters()}
    for phase in phases:
        if any(id(parameter) not in own for parameter in phase.parameters):
            raise RecipeError(
                f"the {phase.name} phase of {title} changes parameters that are not part of the trained network, so no "
                "checkpoint would hold them; make them part of a module and pass that module to fit as net"
            )


@dataclass(frozen=True)
class _Plan:
    """A phase as it runs within a training.

    Attributes:
        number: index of the phase, which is part of its seeds.
        phase, faces, settings: see `fit`.
        span: epochs in which it runs.
        optimizer: its torch optimizer, which lives as long as the training.
    """

    number: int
    phase: Phase
    span: range
    optimizer: torch.optim.Optimizer
    faces: DeviceFaces
    settings: Settings

    @classmethod
    def of(cls, number: int, phase: Phase, faces: DeviceFaces, settings: Settings) -> _Plan:
        optimizer = phase.optimizer.build(phase.parameters)
        return cls(number, phase, phase.span(settings.epochs), optimizer, faces, settings)

    @property
    def steps(self) -> int:
        """The number of steps per epoch."""
        return self.faces.steps(self.settings.batch, self.phase.share)

    def seed(self, epoch: int, *step: int) -> int:
        """Return the seed of an epoch, or of a step in it. It depends on nothing that a resumed run would not know."""
        return joint.mix(self.settings.seed, epoch, self.number, *step)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Return this process's share of the batches of an epoch, each with its own seed."""
        random, how = torch.Generator().manual_seed(self.seed(epoch)), self.settings.augmentation
        batches = self.faces.augmented(self.settings.batch, how, random, self.phase.share, ranks.own())
        return (replace(batch, seed=self.seed(epoch, step)) for step, batch in enumerate(batches))


def _pass(net: nn.Module, plan: _Plan, epoch: int, progress: Progress) -> Row:
    """Run one phase for one epoch; return its metrics, and the multiply-adds and seconds that it took."""
    started = time.perf_counter()
    with (
        metering() as meter,
        _trainable(net, plan.phase.parameters),
        joint.seeded(plan.seed(epoch), plan.faces.device) as part,
    ):
        with counting():
            plan.phase.begin(epoch)
        part()
        means = _steps(net, plan, epoch, progress)
    seconds = round(time.perf_counter() - started, 2)
    return {"epoch": epoch + 1, "phase": plan.phase.name, **means, "macs": meter.total, "seconds": seconds}


def _steps(net: nn.Module, plan: _Plan, epoch: int, progress: Progress) -> dict[str, float]:
    """Run the steps of one epoch and return the mean of each logged value and the last learning rate."""
    phase, optimizer, settings = plan.phase, plan.optimizer, plan.settings
    net.train()
    sums: dict[str, Tensor] = {}
    count, loop = 0, Loop(None if phase.varies else 2)
    for count, batch in enumerate(plan.batches(epoch), start=1):
        at = epoch - plan.span.start + (count - 1) / plan.steps  # fractional epochs since the phase began
        for group in optimizer.param_groups:
            group["lr"] = phase.optimizer.lr_at(at, len(plan.span))
        with loop.step(len(batch.images_B3HW), 1 / batch.weight):
            with autocast(batch.images_B3HW.device, settings.precision), joint.statistics():
                losses = phase.step(net, replace(batch, progress=at / len(plan.span)))
            optimizer.zero_grad(set_to_none=True)
            (batch.weight * losses["loss"]).backward()  # type: ignore[no-untyped-call]
        joint.sum_gradients(phase.parameters)
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(phase.parameters, settings.clip)
        optimizer.step()
        for name, value in losses.items():  # summed on the device, so that logging does not make the CPU wait
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + batch.weight * value.detach()
        if count % FLUSH == 0:
            _check_finite(sums["loss"], plan, epoch)
        progress.advance()
    _check_finite(sums["loss"], plan, epoch)
    return {
        **{name: value / count for name, value in joint.sum_values(sums).items()},
        "lr": optimizer.param_groups[0]["lr"],
    }


@contextmanager
def _trainable(net: nn.Module, chosen: Sequence[nn.Parameter]) -> Iterator[None]:
    """Freeze all parameters except the chosen ones while the block runs."""
    before = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    own = {id(parameter) for parameter in chosen}
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in own)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


def _check_finite(loss: Tensor, plan: _Plan, epoch: int) -> None:
    if not torch.isfinite(ranks.summed(loss.clone())):
        raise DivergedError(
            f"the loss of the {plan.phase.name} phase is not finite in epoch {epoch + 1}; lower its learning rate (now "
            f"{plan.optimizer.param_groups[0]['lr']:g}) and start again with another --out"
        )


def predict_landmarks(
    net: nn.Module,
    faces: DeviceFaces,
    *,
    batch: int = 64,
    decoder: Decoder = "quarter",
    sigma: float = 1.5,
    flip_test: bool = False,
    precision: Precision = "fp32",
) -> NDArray[np.float64]:
    """Return the landmarks (N, L, 2) of every face in input pixels.

    Args:
        net: the network, on the device of `faces`; its training or eval mode is restored afterwards.
        faces: the faces, used without augmentation.
        batch: number of faces per forward pass.
        decoder: see `nasface.task.decode`.
        sigma: sigma of the training targets, in cells.
        flip_test: whether to average the heatmaps with those of the mirrored image.
        precision: see `Settings`.
    """
    training = net.training
    net.eval()
    flip = torch.tensor(faces.scheme.flip, device=faces.device)
    mine, found, loop = range(len(faces))[ranks.own().of(len(faces))], [], Loop(probes=1)
    with torch.inference_mode(), autocast(faces.device, precision):
        for part in faces.plain(batch, mine):
            with loop.step(len(part.images_B3HW), len(faces) / len(mine)):
                heatmaps = heatmaps_of(net, part.images_B3HW, flip if flip_test else None)
            # Autocast would also decode in bf16, whose 8 bits of precision are too coarse for coordinates.
            with torch.autocast(heatmaps.device.type, enabled=False):
                found.append(decode(heatmaps, faces.input_size, decoder, sigma))
    net.train(training)
    points = torch.cat(found).cpu().double() if found else torch.zeros(0, *faces.landmarks_NL2.shape[1:]).double()
    result: NDArray[np.float64] = joint.all_rows(points, len(faces)).numpy()  # MPS has no float64
    return result


def heatmaps_of(net: nn.Module, images_B3HW: Tensor, flip_L: Tensor | None = None) -> Tensor:
    """Return heatmaps (B, L, h, w), averaged with those of the mirrored images if their order `flip_L` is given."""
    heatmaps: Tensor = net(images_B3HW)
    return heatmaps if flip_L is None else 0.5 * (heatmaps + net(images_B3HW.flip(3)).flip(3)[:, flip_L])


def training_batches(faces: DeviceFaces, settings: Settings, share: Share = ALL) -> Iterator[Batch]:
    """Return one pass of augmented batches, the same at every call, which no epoch of the training draws."""
    random = torch.Generator().manual_seed(joint.mix(settings.seed, 0, MEASURING))
    return faces.augmented(settings.batch, settings.augmentation, random, own=share)


def measuring_batches(faces: DeviceFaces, settings: Settings, batches: int = 32) -> list[Batch]:
    """Return the batches that `recalibrate` uses, for use with many networks: 200 MB for 1024 faces at 128 px."""
    return list(islice(training_batches(faces, settings, ranks.own()), batches))


def recalibrate(
    net: nn.Module, faces: DeviceFaces, settings: Settings, batches: int = 32, ready: Sequence[Batch] = ()
) -> None:
    """Recalibrate the BN statistics on augmented training batches: inherited ones are those of the supernet.

    Args:
        net: the network, changed in place.
        faces: training faces.
        settings: batch size, augmentation, seed and precision.
        batches: number of batches.
        ready: `measuring_batches` of the same faces, which saves augmenting them again.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then keeps the plain mean over all batches
    training = net.training
    net.train()
    loop = Loop(probes=1)
    with torch.no_grad(), joint.statistics():
        for batch in ready or islice(training_batches(faces, settings, ranks.own()), batches):
            with loop.step(len(batch.images_B3HW), 1 / batch.weight), autocast(faces.device, settings.precision):
                net(batch.images_B3HW)
    net.train(training)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value


def evaluator(
    net: GraphNet, faces: DeviceFaces, settings: Settings, error: Callable[[GraphNet], float]
) -> Callable[[Graph], float]:
    """Return a function that measures sub-networks with the weights `net` has at the time of the call.

    Args:
        net: the parent network, which is not changed.
        faces: training faces, on which BN statistics are recalibrated.
        settings: batch size, augmentation, seed and precision.
        error: function that measures a network.
    """
    ready = cache(lambda: measuring_batches(faces, settings))

    def evaluate(graph: Graph) -> float:
        slim, _ = slim_net(net, graph)
        recalibrate(slim, faces, settings, ready=ready())
        return error(slim)

    return evaluate
