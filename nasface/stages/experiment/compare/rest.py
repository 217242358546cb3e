"""Training a network for the compute that is left of the reference's."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasface import engine, plugins
from nasface import recipe as recipes
from nasface.compute import counting, metering
from nasface.device import pick_device
from nasface.errors import NotComparableError, RunError
from nasface.model.build import net_of
from nasface.model.source import read_arch
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.experiment.compare.thin import thin_options
from nasface.stages.experiment.part import Status, figures_of, has_figures, status
from nasface.stages.faces import load_faces
from nasface.stages.measure import held_out_error
from nasface.stages.train import train
from nasface.stages.training import settings, task
from nasface.stages.workspace import Machine

log = logging.getLogger(__name__)

TOLERANCE = 0.02
"""The part by which the compute of a network may differ from that of the reference, and its MACs exceed the budget."""
Bill = tuple[tuple[RunDir, float], ...]
"""Run folders, each with the share of its compute that a network bears."""


def total(bill: Bill) -> float:
    """Return the multiply-adds of trainings and measurements that a network bears.

    Raises:
        RunError: when a run has not finished, or was done before its compute was counted.
    """
    spent = 0.0
    for run, share in bill:
        compute = figures_of(run).get("compute")
        if compute is None:
            raise RunError(f"{run.path} does not say what it cost, as older versions counted nothing; remove it")
        spent += share * sum(compute.values())
    return spent


def check_compute(name: str, compute: float, limit: float) -> None:
    """Raise a NotComparableError if a network's compute is not that of the reference."""
    if abs(compute / limit - 1) > TOLERANCE:
        raise NotComparableError(
            f"{name} takes {compute / limit:.3f} times the compute of the reference, and more than {TOLERANCE:.0%} off "
            "is not comparable; change the epochs of its search or of the reference"
        )


@dataclass(frozen=True)
class Rest:
    """A network that is trained until the compute of the reference is used up.

    Attributes:
        recipe: its section `finetune` says how, apart from the number of epochs.
        folder: where it is trained.
        reference: the compute of the reference.
        spent: what has been spent on the network already.
        arch: the arch.json of the network; None for the full graph of the space.
        weights: those it starts from; None for random ones.
        thin: options of the space that are scaled until the network meets the budget.
        budget: multiply-adds of the network.
    """

    recipe: Recipe
    folder: RunDir
    reference: Bill
    spent: Bill = ()
    arch: Path | None = None
    weights: Path | None = None
    thin: Sequence[str] = ()
    budget: float = 0.0

    def status(self) -> Status:
        """Return how far the training has come."""
        return status(self.folder, has_figures(self.folder) and self.is_own())

    def is_own(self) -> bool:
        """Return whether the folder holds this training: epochs and scaled options are found out when it begins."""
        kept = recipes.load(str(self.folder.recipe))
        scaled = {name: kept.space.options.get(name) for name in self.thin}
        length = {"epochs": kept.finetune.epochs, "share": kept.finetune.share}
        own = changed(self.recipe, finetune=length, space=_with_options(self.recipe, scaled))
        return own.digest == kept.digest

    def work(self, machine: Machine) -> None:
        """Train the network for as many steps as come closest to the compute of the reference.

        Raises:
            NotComparableError: if the search has used up the compute, or no number of steps comes close enough.
            GraphError: if no scaled options meet the budget.
        """
        recipe = self.recipe
        if self.thin:
            landmarks = plugins.dataset(recipe.data.name, recipe.data.root, recipe.data.options).scheme.num_landmarks
            scaled = thin_options(recipe, self.thin, self.budget, landmarks)
            recipe = changed(recipe, space=_with_options(recipe, scaled))
        limit, spent = total(self.reference), total(self.spent)
        epoch = epoch_of(recipe, self.arch, machine)
        epochs, share = epoch.repeated(limit - spent)
        check_compute(f"the network in {self.folder.path}", spent + epochs * epoch.macs(share), limit)
        recipe = changed(recipe, finetune={"epochs": epochs, "share": share})
        log.info("%s: %d epochs of %.3g of the faces", self.folder.path.name, epochs, share)
        arch = None if self.arch is None else read_arch(self.arch)
        train(recipe, self.folder, machine, arch, self.weights)


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training a network takes, in multiply-adds.

    Attributes:
        step: of a training step.
        validation: of measuring the network at the end.
        steps: number of steps on all faces.
    """

    step: int
    validation: int
    steps: int

    def macs(self, share: float = 1.0) -> int:
        """Return the multiply-adds of an epoch on a share of the faces."""
        return round(share * self.steps) * self.step + self.validation

    def repeated(self, limit: float) -> tuple[int, float]:
        """Return the number of epochs and the share of the faces in each that come closest to so many MACs."""
        fewest = max(0, math.floor(limit / self.macs()))  # whole epochs; one more fits if each draws fewer faces
        return min(
            ((epochs, self._share(limit, epochs)) for epochs in (fewest, fewest + 1)),
            key=lambda found: abs(found[0] * self.macs(found[1]) - limit),
        )

    def _share(self, limit: float, epochs: int) -> float:
        """Return the share of the faces with which so many epochs come closest to so many multiply-adds."""
        if not epochs:
            return 1.0
        steps = round((limit / epochs - self.validation) / self.step)
        return min(max(steps, 1), self.steps) / self.steps


def epoch_of(recipe: Recipe, arch: Path | None, machine: Machine) -> Epoch:
    """Count what an epoch of training a network takes, from one step."""
    device = pick_device(machine.device)
    faces = load_faces(recipe, device, machine)
    chosen = None if arch is None else read_arch(arch)
    net, _ = net_of(recipe, faces.train.scheme.num_landmarks, device, chosen, None)
    batch = next(engine.training_batches(faces.train, settings(recipe)))
    with metering() as step, counting():
        task(recipe).step(net, batch)["loss"].backward()  # type: ignore[no-untyped-call]
    with metering() as validation:
        held_out_error(net, recipe, faces)
    return Epoch(step.total, validation.total, faces.train.steps(recipe.training.batch))


def changed(recipe: Recipe, **sections: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some keys of some sections replaced."""
    content = recipe.model_dump(mode="json")
    return recipes.resolve({**content, **{name: {**content[name], **new} for name, new in sections.items()}}, "a row")


def _with_options(recipe: Recipe, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"options": {**recipe.space.options, **options}}
