"""Where a stage works. No torch: exported networks run without it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nasface.model import Model
from nasface.model.files import Saved
from nasface.progress import Progress
from nasface.recipe import Recipe


@dataclass(frozen=True)
class Machine:
    """Where and how loudly a stage works.

    Attributes:
        device: name of the device, see `nasface.device.pick_device`.
        progress: receives a report of every step and epoch.
        tensorboard: whether to write TensorBoard event files too.
        workers: number of workers that prepare data; None takes the number of cores.
    """

    device: str = "auto"
    progress: Progress = field(default_factory=Progress)
    tensorboard: bool = False
    workers: int | None = None


def load(saved: Saved, recipe: Recipe, machine: Machine) -> Model:
    """Load a network on the machine's device, with as many CPU threads as the recipe asks for."""
    if not saved.exported:  # these set their own threads
        use_threads(recipe)
    return saved.load(recipe, machine.device)


def use_threads(recipe: Recipe) -> None:
    """Set the number of CPU threads of torch if the recipe asks for one."""
    if recipe.training.threads:
        import torch

        torch.set_num_threads(recipe.training.threads)
