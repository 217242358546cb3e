"""The teacher of a distillation: the network of a run, a file of weights, or any network given by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nasface import plugins, rundir
from nasface.distill import resized
from nasface.errors import GraphError, NasfaceError, RunError, described
from nasface.model import View
from nasface.model.files import Saved, at
from nasface.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A frozen network that predicts heatmaps.

    Attributes:
        name: its name or path as the user gave it.
        net: the network, in evaluation mode and without gradients.
        input_size: the input size in pixels at which it was trained; None accepts any size.
    """

    name: str
    net: nn.Module
    input_size: int | None

    def __call__(self, images_B3HW: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Return heatmaps (B, L, h, w) of the images, resized to (h, w)."""
        with torch.no_grad():
            if self.input_size is not None and images_B3HW.shape[-1] != self.input_size:
                images_B3HW = resized(images_B3HW, (self.input_size, self.input_size))
            heatmaps: Tensor = self.net(images_B3HW)
            return heatmaps if heatmaps.shape[-2:] == size_hw else resized(heatmaps, size_hw)


def teacher_digest(name: str) -> str:
    """Identify a teacher: one on disk by the digest of its weights, any other by its name.

    Raises:
        RunError: when there is no such teacher.
    """
    if _is_saved(name):
        return rundir.file_digest(_saved(name).weights)
    if ":" in name or name in plugins.names("teachers"):
        return name
    raise RunError(
        f"there is no teacher '{name}'; give a run folder, a file of weights or a network as 'module:attr' with "
        "--teacher"
    )


def load_teacher(name: str, num_landmarks: int, recipe: Recipe, device: torch.device) -> Teacher:
    """Load the teacher for the students of a recipe.

    Args:
        name: a run folder (its supernet, else its slim network), a file of weights, or a plug-in by its name or as
            'module:attr': a callable that takes the number of landmarks and returns a module from normalised images
            (B, 3, H, W) to heatmaps (B, L, h, w), with an attribute `input_size` if it needs a certain size.
        num_landmarks: number of landmarks of the students.
        recipe: the recipe of the students.
        device: the device of the teacher.

    Raises:
        RunError: when there is no such run or network, or the network cannot be built or run.
        GraphError: when it has another number of landmarks than the students.
    """
    teacher_digest(name)
    input_size: int | None
    if _is_saved(name):
        net, view = _loaded(name, device)
        input_size = view.input_size
        _warn_of_other_crops(name, view, recipe)
    else:
        net, input_size = _named(name, num_landmarks, recipe.seed)
    net.to(device).eval().requires_grad_(False)
    size = recipe.data.input_size
    if input_size is not None and input_size != size:
        log.warning(
            "the teacher %s was trained at %d pixels, but the students at %d; its images and heatmaps are resized",
            name, input_size, size,
        )  # fmt: skip
    teacher = Teacher(name, net, input_size)
    _check(teacher, num_landmarks, size, device)
    return teacher


def _is_saved(name: str) -> bool:
    """Whether a teacher is a place on disk; installed plug-ins come first."""
    return name not in plugins.names("teachers") and Path(name).exists()


def _saved(place: str) -> Saved:
    """Find the network that teaches: the supernet of a run, else its slim network."""
    found = {saved.name: saved for saved in at(place)}
    return found.get("supernet") or next(iter(found.values()))


def _loaded(place: str, device: torch.device) -> tuple[nn.Module, View]:
    model = _saved(place).load(device=device)
    return model.module, model.view


def _warn_of_other_crops(name: str, view: View, recipe: Recipe) -> None:
    data = recipe.data
    if (view.box, view.box_scale) != (data.box, data.box_scale):
        log.warning(
            "the teacher %s was trained on crops of %g times the box '%s', but the students see %g times '%s'; set "
            "data.box and data.box_scale to the teacher's, or choose another teacher",
            name, view.box_scale, view.box, data.box_scale, data.box,
        )  # fmt: skip


def _named(name: str, num_landmarks: int, seed: int) -> tuple[nn.Module, int | None]:
    build = plugins.load("teachers", name)
    torch.manual_seed(seed)  # a network that loads no weights is then the same every time
    try:
        net = build(num_landmarks)
    except NasfaceError:
        raise
    except (Exception, SystemExit) as err:  # a plug-in may raise anything
        raise RunError(
            f"the teacher '{name}' cannot be built ({described(err)}); it must accept the number of "
            "landmarks as its one argument"
        ) from err
    if not isinstance(net, nn.Module):
        raise RunError(
            f"the teacher '{name}' returned a {type(net).__name__}; expected a torch module that predicts heatmaps"
        )
    size = getattr(net, "input_size", None)
    return net, size if isinstance(size, int) else None


def _check(teacher: Teacher, num_landmarks: int, size: int, device: torch.device) -> None:
    """Run the teacher on one image, since its output says more than its declaration."""
    try:
        found = teacher(torch.zeros(1, 3, size, size, device=device), (size // 4, size // 4))
    except GraphError:
        raise
    except (Exception, SystemExit) as err:  # the user's own network may raise anything
        raise RunError(
            f"the teacher {teacher.name} fails on an image of {size} x {size} pixels "
            f"({described(err)}); give another one with --teacher"
        ) from err
    if found.ndim != 4 or found.shape[1] != num_landmarks:
        raise GraphError(
            f"the teacher {teacher.name} predicts {found.shape[1] if found.ndim == 4 else 'no'} landmarks, but the "
            f"students have {num_landmarks}; give a teacher with the same landmark scheme with --teacher"
        )
