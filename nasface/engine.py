"""One training loop for search, training and distillation: they differ in the phases they pass.

Each epoch runs every phase over the training faces once; a phase names the parameters it may change, their
optimizer and its step. After each epoch the loop writes a checkpoint, so that a run goes on where it stopped
and ends as if it had never been interrupted. torch itself is enough here: no training library is imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasface import rundir
from nasface.data.augment import Augmentation, DeviceFaces
from nasface.errors import DivergedError, RecipeError, RunError
from nasface.step import Batch, Phase
from nasface.task import Decoder, decode

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
Row = dict[str, Any]
Validate = Callable[[Any], float]
"""Gives the NME of a network on held-out faces."""
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
    """Train `net` in place and give one metrics row for each phase of each epoch.

    Args:
        net: on the device of `faces`.
        phases: run in this order within every epoch.
        faces: training faces.
        settings: epochs, batch, augmentation, seed, precision.
        title: names the stage in rows and progress.
        checkpoint: a file to resume from when it is there, and to write after every epoch.
        identity: names the data; a checkpoint of other data is not resumed.
        validate: gives the NME on held-out faces, once an epoch.
        progress: where to report to.

    Raises:
        DivergedError: when the loss is no longer finite; the last checkpoint stays.
        RunError: when the checkpoint is of another training.
    """
    progress = progress or Progress()
    optimizers = [phase.optimizer.build(phase.parameters) for phase in phases]
    for phase in phases:
        if 0 < settings.epochs <= phase.start:
            raise RecipeError(
                f"the {phase.name} phase would start after epoch {phase.start}, but {title} has {settings.epochs} "
                "epochs; give it more epochs, or the searcher a shorter warm-up (search.options.warmup_epochs of 'l1')"
            )
    resume = _Checkpoint.of(checkpoint, title, net, identity) if checkpoint is not None else None
    rows = resume.restore(net, optimizers) if resume is not None else []
    done = rows[-1]["epoch"] if rows else 0
    steps = {phase.name: faces.steps(settings.batch, phase.share) for phase in phases}
    total = [sum(steps[p.name] for p in phases if epoch >= p.start) for epoch in range(settings.epochs)]
    progress.begin(title, sum(total), sum(total[:done]))
    trainable = {id(p): p.requires_grad for p in net.parameters()}
    try:
        for epoch in range(done, settings.epochs):
            for number, (phase, optimizer) in enumerate(zip(phases, optimizers, strict=True)):
                if epoch < phase.start:
                    continue
                started = time.perf_counter()
                chosen = {id(p) for p in phase.parameters}
                for parameter in net.parameters():
                    parameter.requires_grad_(id(parameter) in chosen)
                random = torch.Generator().manual_seed(_mix(settings.seed, epoch, number))
                batches = faces.augmented(settings.batch, settings.augmentation, random, phase.share)
                seeded = (
                    replace(batch, seed=_mix(settings.seed, epoch, number, step)) for step, batch in enumerate(batches)
                )
                means = _epoch(net, phase, optimizer, seeded, epoch, settings, steps[phase.name], progress)
                seconds = time.perf_counter() - started
                rows.append(
                    {
                        "stage": title,
                        "epoch": epoch + 1,
                        "phase": phase.name,
                        **means,
                        "seconds": round(seconds, 2),
                    }
                )
            if not rows or rows[-1]["epoch"] != epoch + 1:
                continue  # no phase has started yet
            if validate is not None:
                rows[-1]["held_out_nme"] = validate(net)
            if resume is not None:
                resume.save(net, optimizers, rows)
            progress.epoch(rows)
    finally:
        for parameter in net.parameters():
            parameter.requires_grad_(trainable[id(parameter)])
    return rows


def _epoch(
    net: nn.Module,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    epoch: int,
    settings: Settings,
    steps: int,
    progress: Progress,
) -> dict[str, float]:
    """One phase over the faces: the mean of each logged value and the last learning rate."""
    net.train()
    sums: dict[str, Tensor] = {}
    count = 0
    for count, batch in enumerate(batches, start=1):
        at = epoch - phase.start + (count - 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = phase.optimizer.lr_at(at, settings.epochs - phase.start)
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
            _check_finite(sums["loss"], phase, epoch)
        progress.advance()
    _check_finite(sums["loss"], phase, epoch)
    return {
        **{name: float(value) / count for name, value in sums.items()},
        "lr": optimizer.param_groups[0]["lr"],
    }


def _check_finite(loss: Tensor, phase: Phase, epoch: int) -> None:
    if not torch.isfinite(loss):
        raise DivergedError(
            f"the loss of the {phase.name} phase is not finite in epoch {epoch + 1}; check its learning rate (now "
            f"{phase.optimizer.lr:g}) and start again with another --out"
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
    """One pass of augmented batches that no epoch draws, the same at every call."""
    random = torch.Generator().manual_seed(_mix(settings.seed, 0, MEASURING))
    return faces.augmented(settings.batch, settings.augmentation, random)


def measuring_batches(faces: DeviceFaces, settings: Settings, batches: int = 32) -> list[Batch]:
    """The batches of `recalibrate`, for who measures many networks: 200 MB for 1024 faces of 128 px."""
    return list(islice(training_batches(faces, settings), batches))


def recalibrate(
    net: nn.Module, faces: DeviceFaces, settings: Settings, batches: int = 32, ready: Sequence[Batch] = ()
) -> None:
    """Measure BN statistics afresh on augmented training batches; inherited ones fit the supernet.

    Args:
        net: changed in place.
        faces: to train on.
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


def _mix(*numbers: int) -> int:
    """One seed from several, without the collisions of a sum."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@dataclass(frozen=True)
class _Checkpoint:
    """Where a training resumes from; `start` names data and first weights, so that it resumes no other one."""

    path: Path
    title: str
    start: str

    @classmethod
    def of(cls, path: Path, title: str, net: nn.Module, identity: str) -> _Checkpoint:
        digest = hashlib.blake2b(identity.encode(), digest_size=16)
        for name, value in net.named_parameters():  # BN statistics may have been measured on another number of threads
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return cls(path, title, digest.hexdigest())

    def save(self, net: nn.Module, optimizers: Sequence[torch.optim.Optimizer], rows: list[Row]) -> None:
        """Weights, optimizer state and rows in one safetensors file, written atomically."""
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        for i, optimizer in enumerate(optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        meta = {"title": self.title, "start": self.start, "rows": json.dumps(rows)}
        rundir.write_tensors(self.path, tensors, meta)

    def restore(self, net: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> list[Row]:
        """Undo `save`; gives the rows so far, none where there is no checkpoint."""
        if not self.path.exists():
            return []
        tensors, meta = rundir.read_tensors(self.path)
        if (meta.get("title"), meta.get("start")) != (self.title, self.start):
            raise RunError(
                f"{self.path} is a checkpoint of another training (other data or first weights); remove it, or choose "
                "another --out"
            )
        net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        for i, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                match name.split("."):
                    case ["optimizer", which, parameter, kind] if which == str(i):
                        state.setdefault(int(parameter), {})[kind] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        rows: list[Row] = json.loads(meta["rows"])
        log.info("%s: resumed after epoch %d from %s", self.title, rows[-1]["epoch"] if rows else 0, self.path)
        return rows
