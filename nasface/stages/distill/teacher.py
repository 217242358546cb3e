"""Who teaches: a trained run, the searched supernet, or any network given by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasface import plugins, rundir
from nasface import recipe as recipes
from nasface.arch import Architecture
from nasface.errors import GraphError, NasfaceError, RunError
from nasface.net import GraphNet, place
from nasface.recipe import Recipe
from nasface.stages.networks import load_net
from nasface.stages.sources import required, run_networks

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
    folder = Path(name)
    if folder.is_dir():
        return rundir.file_digest(_network_of(folder)[1])
    if ":" in name or name in plugins.names("teachers"):
        return name
    raise RunError(
        f"there is no teacher '{name}'; give the folder of a trained run or a network as 'module:attr' with --teacher"
    )


def load_teacher(name: str, num_landmarks: int, recipe: Recipe, device: torch.device) -> Teacher:
    """A teacher for students of this recipe.

    Args:
        name: a run folder (its supernet, else its slim network), or a network by plug-in name or 'module:attr': a
            callable that takes the number of landmarks and gives a module from normalised images (B, 3, H, W) to
            heatmaps (B, L, h, w), with an attribute `input_size` where it wants one.
        num_landmarks: of the students.
        recipe: of the students.
        device: where it runs.

    Raises:
        RunError: when there is no such run or network.
        GraphError: when its landmarks are not the students'.
    """
    teacher_digest(name)
    net, input_size = _from_run(Path(name), device) if Path(name).is_dir() else _named(name, num_landmarks, recipe.seed)
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


def _network_of(folder: Path) -> tuple[Architecture | None, Path]:
    """The network of a run that teaches."""
    networks = run_networks(folder)
    return networks.get("supernet") or networks["slim"]


def _from_run(folder: Path, device: torch.device) -> tuple[nn.Module, int | None]:
    arch, weights = _network_of(folder)
    recipe = recipes.load(str(required(folder / "recipe.yaml", "a trained run")))
    meta = rundir.read_tensors(weights)[1]
    try:
        landmarks = arch.num_landmarks if arch is not None else int(meta["num_landmarks"])
    except (KeyError, ValueError) as err:
        raise RunError(f"{weights} does not say how many landmarks it has; give weights written by nasface") from err
    space = plugins.space(recipe.space.name, recipe.space.options)
    supernet = place(GraphNet(space, landmarks), device)
    graph = supernet.graph if arch is None else arch.subgraph(supernet.graph)
    return load_net(supernet, graph, weights), recipe.data.input_size


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
