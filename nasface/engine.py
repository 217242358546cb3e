"""One training loop for search, training and distillation: they differ in the phases they pass.

Each epoch runs every phase over the training faces once; a phase names the parameters it may change, their
optimizer and its step. After each epoch the loop writes a checkpoint, so that a run goes on where it stopped
and ends as if it had never been interrupted. torch itself is enough here: no training library is imported.
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

from nasface.checkpoint import Checkpoint
from nasface.data.augment import Augmentation, DeviceFaces
from nasface.errors import DivergedError, RecipeError, RunError
from nasface.graph import Graph
from nasface.net import GraphNet, slim_net
from nasface.step import Batch, Phase, Row
from nasface.task import Decoder, decode

Precision = Literal["fp32", "bf16"]
Validate = Callable[[Any], float]
"""Returns the NME of a network on held-out faces."""
FLUSH = 20  # steps between reads of the loss from the device
MEASURING = 99  # stands where the number of a phase does, so that measuring draws batches of its own


@dataclass(frozen=True)
class Settings:
    """What every training shares.

    Attributes:
        epochs: passes over the data; 0 leaves the network as it is.
        batch: faces in a step.
        augmentation: of the training faces.
        seed: of shuffling and augmentation.
        precision: 'bf16' runs the network under autocast.
        clip: the largest norm of the gradient, 0 for none.
    """

    epochs: int
    batch: int
    augmentation: Augmentation
    seed: int = 0
    precision: Precision = "fp32"
    clip: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Calls a front end may want.

    Attributes:
        begin: (title, total steps, steps already done) when something long starts.
        advance: after each step.
        epoch: all rows so far, after each epoch.
    """

    begin: Callable[[str, int, int], None] = lambda title, total, done: None
    advance: Callable[[], None] = lambda: None
    epoch: Callable[[list[Row]], None] = lambda rows: None

    def counter(self, title: str) -> Callable[[int, int], None]:
        """A (done, total) callback, for work that is counted rather than trained."""
        begun = False

        def report(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                self.begin(title, total, done - 1)
                begun = True
            self.advance()

        return report


def pick_device(name: str = "auto") -> torch.device:
    """The accelerator that torch finds (CUDA, MPS, ...), else the CPU; or the one named.

    Raises:
        RunError: when the named device is not there.
    """
    if name == "auto":
        return (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or torch.device(
            "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        raise RunError(
            f"device '{name}' is not available here ({str(err).splitlines()[0]}); use --device auto or cpu"
        ) from err
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a network of this precision runs."""
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
        net: on the device of `faces`.
        phases: run in this order within every epoch.
        faces: training faces.
        settings: epochs, batch, augmentation, seed, precision.
        title: names the training in rows and progress.
        checkpoint: a file to resume from when it exists, and to write after every epoch.
        identity: names the data; a checkpoint of other data is not resumed.
        validate: returns the NME on held-out faces; called once per epoch.
        progress: where to report to.

    Raises:
        DivergedError: when the loss is no longer finite; the last checkpoint stays.
        RecipeError: when a phase would never run.
        RunError: when the checkpoint belongs to another training.
    """
    progress = progress or Progress()
    plans = [_Plan.of(i, phase, faces, settings) for i, phase in enumerate(phases)]
    if settings.epochs and (idle := next((plan.phase for plan in plans if not plan.span), None)):
        raise RecipeError(
            f"the {idle.name} phase would run from epoch {idle.start} to {idle.end or 'the end'}, but {title} has "
            f"{settings.epochs} epochs; give it more epochs, or the searcher a shorter warm-up "
            "(search.options.warmup_epochs of 'l1')"
        )
    own = {id(parameter) for parameter in net.parameters()}
    for phase in phases:
        if any(id(parameter) not in own for parameter in phase.parameters):
            raise RecipeError(
                f"the {phase.name} phase of {title} changes parameters that the trained network does not have, so that "
                "no checkpoint would hold them; make them part of a module and pass that to fit as net"
            )
    resume = Checkpoint.of(checkpoint, title, net, identity) if checkpoint is not None else None
    optimizers = [plan.optimizer for plan in plans]
    rows = resume.restore(net, optimizers) if resume is not None else []
    done = rows[-1]["epoch"] if rows else 0
    total = [sum(plan.steps for plan in plans if epoch in plan.span) for epoch in range(settings.epochs)]
    progress.begin(title, sum(total), sum(total[:done]))
    for epoch in range(done, settings.epochs):
        running = [plan for plan in plans if epoch in plan.span]
        for plan in running:
            started = time.perf_counter()
            with _trainable(net, plan.phase.parameters), _seeded(plan.seed(epoch), faces.device):
                means = _epoch(net, plan, epoch, progress)
            seconds = round(time.perf_counter() - started, 2)
            rows.append({"stage": title, "epoch": epoch + 1, "phase": plan.phase.name, **means, "seconds": seconds})
        if not running:
            continue
        if validate is not None:
            rows[-1]["held_out_nme"] = validate(net)
        if resume is not None:
            resume.save(net, optimizers, rows)
        progress.epoch(rows)
    return rows


@dataclass(frozen=True)
class _Plan:
    """A phase within a training: its number and epochs, its torch optimizer, and the steps of an epoch."""

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
        return self.faces.steps(self.settings.batch, self.phase.share)

    def seed(self, epoch: int, *step: int) -> int:
        return _mix(self.settings.seed, epoch, self.number, *step)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, each with a seed of its own."""
        random = torch.Generator().manual_seed(self.seed(epoch))
        batches = self.faces.augmented(self.settings.batch, self.settings.augmentation, random, self.phase.share)
        return (replace(batch, seed=self.seed(epoch, step)) for step, batch in enumerate(batches))


def _epoch(net: nn.Module, plan: _Plan, epoch: int, progress: Progress) -> dict[str, float]:
    """Run one phase over the faces; return the mean of each logged value and the last learning rate."""
    phase, optimizer, settings = plan.phase, plan.optimizer, plan.settings
    net.train()
    sums: dict[str, Tensor] = {}
    count = 0
    for count, batch in enumerate(plan.batches(epoch), start=1):
        at = epoch - plan.span.start + (count - 1) / plan.steps
        for group in optimizer.param_groups:
            group["lr"] = phase.optimizer.lr_at(at, len(plan.span))
        with autocast(batch.images_B3HW.device, settings.precision):
            losses = phase.step(net, batch)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(phase.parameters, settings.clip)
        optimizer.step()
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach()
        if count % FLUSH == 0:
            _check_finite(sums["loss"], plan, epoch)
        progress.advance()
    _check_finite(sums["loss"], plan, epoch)
    return {
        **{name: float(value) / count for name, value in sums.items()},
        "lr": optimizer.param_groups[0]["lr"],
    }


@contextmanager
def _trainable(net: nn.Module, chosen: Sequence[nn.Parameter]) -> Iterator[None]:
    """Freeze all parameters but the chosen ones while the block runs."""
    before = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    own = {id(parameter) for parameter in chosen}
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in own)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, from which layers such as dropout draw, and restore them afterwards."""
    # torch cannot save the generator of Apple's MPS by device; there it stays seeded
    forked = [device] if device.type not in ("cpu", "mps") else []
    with torch.random.fork_rng(forked, device_type=device.type if forked else None):
        torch.manual_seed(seed)
        yield


def _check_finite(loss: Tensor, plan: _Plan, epoch: int) -> None:
    if not torch.isfinite(loss):
        raise DivergedError(
            f"the loss of the {plan.phase.name} phase is not finite in epoch {epoch + 1}; check its learning rate (now "
            f"{plan.optimizer.param_groups[0]['lr']:g}) and start again with another --out"
        )


def predict(
    net: nn.Module,
    faces: DeviceFaces,
    *,
    batch: int = 64,
    decoder: Decoder = "quarter",
    sigma: float = 1.5,
    flip_test: bool = False,
    precision: Precision = "fp32",
) -> NDArray[np.float64]:
    """Landmarks (N, L, 2) of every face in input pixels.

    Args:
        net: on the device of `faces`; left in the mode it came in.
        faces: evaluated without augmentation.
        batch: faces in a forward pass.
        decoder: see `nasface.task.decode`.
        sigma: of the training targets, in cells.
        flip_test: average the heatmaps with those of the mirrored image.
        precision: see `Settings`.
    """
    training = net.training
    net.eval()
    flip = torch.tensor(faces.scheme.flip, device=faces.images_NHWC.device)
    found = []
    with torch.inference_mode(), autocast(faces.images_NHWC.device, precision):
        for part in faces.plain(batch):
            heatmaps = heatmaps_of(net, part.images_B3HW, flip if flip_test else None)
            # autocast would decode in bf16 as well, which is too coarse for places
            with torch.autocast(heatmaps.device.type, enabled=False):
                found.append(decode(heatmaps, faces.input_size, decoder, sigma))
    net.train(training)
    result: NDArray[np.float64] = torch.cat(found).cpu().double().numpy()  # MPS has no float64
    return result


def heatmaps_of(net: nn.Module, images_B3HW: Tensor, flip_L: Tensor | None = None) -> Tensor:
    """Heatmaps (B, L, h, w), averaged with those of the mirrored images where the landmarks' mirror order is given."""
    heatmaps: Tensor = net(images_B3HW)
    return heatmaps if flip_L is None else 0.5 * (heatmaps + net(images_B3HW.flip(3)).flip(3)[:, flip_L])


def training_batches(faces: DeviceFaces, settings: Settings) -> Iterator[Batch]:
    """Return one pass of augmented batches that no epoch draws, the same at every call."""
    random = torch.Generator().manual_seed(_mix(settings.seed, 0, MEASURING))
    return faces.augmented(settings.batch, settings.augmentation, random)


def measuring_batches(faces: DeviceFaces, settings: Settings, batches: int = 32) -> list[Batch]:
    """Return the batches of `recalibrate`, to be kept for many networks: 200 MB for 1024 faces at 128 px."""
    return list(islice(training_batches(faces, settings), batches))


def recalibrate(
    net: nn.Module, faces: DeviceFaces, settings: Settings, batches: int = 32, ready: Sequence[Batch] = ()
) -> None:
    """Recalibrate BN statistics on augmented training batches; inherited ones are those of the supernet.

    Args:
        net: changed in place.
        faces: the training faces.
        settings: of batches and augmentation.
        batches: how many.
        ready: `measuring_batches` of the same faces, so that they need not be augmented again.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a plain mean over the batches
    training = net.training
    net.train()
    with torch.no_grad():
        for batch in ready or islice(training_batches(faces, settings), batches):
            with autocast(faces.images_NHWC.device, settings.precision):
                net(batch.images_B3HW)
    net.train(training)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value


def evaluator(
    net: GraphNet, faces: DeviceFaces, settings: Settings, error: Callable[[GraphNet], float]
) -> Callable[[Graph], float]:
    """Return a function that measures sub-networks as they are inherited from `net` at the time of the call.

    Args:
        net: the parent, which does not change.
        faces: the training faces, on which BN statistics are recalibrated.
        settings: of batches and augmentation.
        error: measures a network.
    """
    ready = cache(lambda: measuring_batches(faces, settings))

    def evaluate(graph: Graph) -> float:
        slim, _ = slim_net(net, graph)
        recalibrate(slim, faces, settings, ready=ready())
        return error(slim)

    return evaluate


def _mix(*numbers: int) -> int:
    """One seed from several, without the collisions of a sum."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
