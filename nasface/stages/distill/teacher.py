"""Who teaches: a trained run, the searched supernet, or any network given by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasface import plugins, rundir
from nasface.errors import GraphError, NasfaceError, RunError
from nasface.model.files import Saved, at
from nasface.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A frozen network that gives heatmaps.

    Attributes:
        name: what it was called by.
        net: in evaluation mode, without gradients.
        input_size: pixels that it was trained at; None takes any.
    """

    name: str
    net: nn.Module
    input_size: int | None

    def __call__(self, images_B3HW: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Heatmaps (B, L, h, w) of the images, at the size asked for."""
        with torch.no_grad():
            if self.input_size is not None and images_B3HW.shape[-1] != self.input_size:
                images_B3HW = _resized(images_B3HW, (self.input_size, self.input_size))
            heatmaps: Tensor = self.net(images_B3HW)
            return heatmaps if heatmaps.shape[-2:] == size_hw else _resized(heatmaps, size_hw)


def teacher_digest(name: str) -> str:
    """Tells one teacher from another: a run by its weights, a network by its name. RunError when there is none."""
    if Path(name).exists():
        return rundir.file_digest(_saved(name).weights)
    if ":" in name or name in plugins.names("teachers"):
        return name
    raise RunError(
        f"there is no teacher '{name}'; give a run folder, a file of weights or a network as 'module:attr' with "
        "--teacher"
    )


def load_teacher(name: str, num_landmarks: int, recipe: Recipe, device: torch.device) -> Teacher:
    """A teacher for students of this recipe.

    Args:
        name: a run folder (its supernet, else its slim network), a file of weights, or a plug-in by its name or as
            'module:attr': a callable that takes the number of landmarks and returns a module from normalised images
            (B, 3, H, W) to heatmaps (B, L, h, w), with an attribute `input_size` where it needs one.
        num_landmarks: of the students.
        recipe: of the students.
        device: where it runs.

    Raises:
        RunError: when there is no such run or network.
        GraphError: when its landmarks are not the students'.
    """
    teacher_digest(name)
    net, input_size = _loaded(name, device) if Path(name).exists() else _named(name, num_landmarks, recipe.seed)
    net.to(device).eval().requires_grad_(False)
    size = recipe.data.input_size
    if input_size is not None and input_size != size:
        log.warning(
            "the teacher %s was trained at %d pixels, the students see %d: images and heatmaps are resized for it",
            name, input_size, size,
        )  # fmt: skip
    teacher = Teacher(name, net, input_size)
    _check(teacher, num_landmarks, size, device)
    return teacher


def _saved(place: str) -> Saved:
    """The network that teaches: of a run its supernet, else its slim network."""
    found = {saved.name: saved for saved in at(place)}
    return found.get("supernet") or next(iter(found.values()))


def _loaded(place: str, device: torch.device) -> tuple[nn.Module, int | None]:
    model = _saved(place).load(device=device)
    return model.module, model.view.input_size


def _named(name: str, num_landmarks: int, seed: int) -> tuple[nn.Module, int | None]:
    build = plugins.load("teachers", name)
    torch.manual_seed(seed)  # one that loads no weights is the same every time
    try:
        net = build(num_landmarks)
    except NasfaceError:
        raise
    except Exception as err:  # a plug-in may raise anything
        raise RunError(
            f"the teacher '{name}' cannot be built ({' '.join(str(err).split())[:200]}); it is called with the number "
            "of landmarks"
        ) from err
    if not isinstance(net, nn.Module):
        raise RunError(f"the teacher '{name}' made a {type(net).__name__}; expected a torch module that gives heatmaps")
    size = getattr(net, "input_size", None)
    return net, size if isinstance(size, int) else None


def _check(teacher: Teacher, num_landmarks: int, size: int, device: torch.device) -> None:
    """Try it on one image: what comes out says more than what is declared."""
    try:
        found = teacher(torch.zeros(1, 3, size, size, device=device), (size // 4, size // 4))
    except GraphError:
        raise
    except Exception as err:  # a network of one's own may raise anything
        raise RunError(
            f"the teacher {teacher.name} fails on an image of {size} pixels ({' '.join(str(err).split())[:200]})"
        ) from err
    if found.ndim != 4 or found.shape[1] != num_landmarks:
        raise GraphError(
            f"the teacher {teacher.name} gives {found.shape[1] if found.ndim == 4 else 'no'} landmarks, the students "
            f"have {num_landmarks}; give a teacher trained on the same mark-up with --teacher"
        )


def _resized(maps_BCHW: Tensor, size_hw: tuple[int, int]) -> Tensor:
    smaller = size_hw[0] < maps_BCHW.shape[-2]
    return F.interpolate(maps_BCHW, size_hw, mode="bilinear", align_corners=False, antialias=smaller)
