"""Settings of recipes that code further down reads too. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from nasface.bounds import Epochs, Portion, Share, Weight
from nasface.errors import RecipeError
from nasface.step import STRICT, Optimizer

Decoder = Literal["quarter", "dark", "soft", "centroid"]
"""How heatmaps become landmarks, see `nasface.task.decode`."""
HeatmapLoss = Literal["mse", "adaptive_wing"]
"""How heatmaps are compared with their targets, see `nasface.task.LOSSES`."""

# settings of what only a teacher or a peer can teach
_NEEDS = {"ensemble_share": "peer", "teacher_share": "teacher", "target_mix": "teacher", "feature_weight": "teacher"}


@dataclass(frozen=True)
class Augmentation:
    """How much training faces are changed; everything is drawn for each face.

    Attributes:
        scale: the zoom is drawn from 1 - scale to 1 + scale.
        rotation: in degrees, drawn from -rotation to +rotation.
        flip: probability of a horizontal flip.
        shift: as a share of the input size, drawn from -shift to +shift for x and y.
        colour: brightness and contrast factors are drawn from 1 - colour to 1 + colour.
        occlusion: probability of a rectangle of coloured noise. Its area is that of a square with 10 to 50 % of the
            input's side, and one side is at most 1.5 times the other (`nasface.data.patches.random_mask`).
        warp: how far parts of the face move against one another, as a share of the input size: the standard deviation
            of a smooth field of displacements, drawn from 0 to warp for each face. More than 0.03 would fold it.
        shading: light and shadow in broad patches: the standard deviation of the logarithm of a smooth field of light,
            drawn from 0 to shading for each face.
        gamma: the exponent of the brightness is drawn from 1 / (1 + gamma) to 1 + gamma, evenly in its logarithm.
        tint: a factor for each of red, green and blue is drawn from 1 - tint to 1 + tint.
        grey: probability that an image loses its colours.
        blur: largest standard deviation of a Gaussian blur, as a share of the input size; most faces get much less.
        noise: largest standard deviation of grainy noise, as a share of full brightness; most faces get much less.
    """

    scale: Annotated[float, Interval(ge=0, lt=1)] = 0.25
    rotation: Annotated[float, Interval(ge=0, le=180)] = 30.0
    flip: Portion = 0.5
    shift: Portion = 0.0
    colour: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    occlusion: Portion = 0.0
    warp: Annotated[float, Interval(ge=0, le=0.03)] = 0.0
    shading: Annotated[float, Interval(ge=0, le=3)] = 0.0
    gamma: Annotated[float, Interval(ge=0, le=3)] = 0.0
    tint: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    grey: Portion = 0.0
    blur: Annotated[float, Interval(ge=0, le=0.2)] = 0.0
    noise: Portion = 0.0

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT


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
        ensemble_weight, teacher_weight: lambda 1 and lambda 2 of equation 4, relative to the heatmap loss. They are
            meant for `task.loss: mse`; with 'adaptive_wing', use the shares below, or some 200 times these weights.
        temperature: temperature of the softmax over the cells of a heatmap; losses are not rescaled by its square.
        constant_ensemble: whether the peers' ensemble is constant in its loss term, so that each student moves towards
            the ensemble but the ensemble does not move towards the students (the paper leaves this open).
        mask_probability: probability that a face is covered.
        mask_size: lowest and highest share of the image's side that a mask covers.
        peer_noise: standard deviation of the noise added to the second student's initial weights, relative to that of
            each tensor. It is used only without masks: equal students that see equal images would stay equal.
        standardise: whether each heatmap is shifted and scaled to mean 0 and standard deviation 1 before the softmax
            (Sun et al. 2024), so that the shape of the teacher's heatmaps counts but not their height.
        decay: whether everything learnt from teacher and peer loses weight linearly over the training, down to 0.
        ensemble_share, teacher_share: replace `ensemble_weight` and `teacher_weight`. In every step, the term gets the
            weight at which its gradient with respect to the student's heatmaps has this share of the norm of the
            heatmap loss's. None keeps the fixed weight.
        target_mix: share of the Gaussian targets that is replaced by the teacher's heatmaps.
        feature_weight: weight of the feature term relative to the heatmap loss: the mean squared error between the
            teacher's output maps and the student's after a 1x1 convolution, which is trained with the student and then
            dropped. The teacher must be a nasface network.
    """

    epochs: Epochs = 60
    optimizer: Optimizer = field(default_factory=Optimizer)
    teacher: bool = True
    peer: bool = True
    masked: bool = True
    teacher_from: str | None = None
    ensemble_weight: Weight = 4.0
    teacher_weight: Weight = 1.0
    temperature: Annotated[float, Interval(gt=0, le=1e6)] = 1.0
    constant_ensemble: bool = True
    mask_probability: Portion = 0.5
    mask_size: tuple[Share, Share] = (0.1, 0.5)
    peer_noise: Annotated[float, Interval(ge=0, le=1000)] = 0.02
    standardise: bool = False
    decay: bool = False
    ensemble_share: Weight | None = None
    teacher_share: Weight | None = None
    target_mix: Portion = 0.0
    feature_weight: Weight = 0.0

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        for option, source in _NEEDS.items():
            if getattr(self, option) and not getattr(self, source):
                raise RecipeError(
                    f"distill.{option} is {getattr(self, option):g}, but distill.{source} is false; set "
                    f"distill.{source} to true, or leave out distill.{option}"
                )
        if self.mask_size[0] > self.mask_size[1]:
            raise RecipeError(
                f"distill.mask_size is [{self.mask_size[0]:g}, {self.mask_size[1]:g}]; expected the smaller share first"
            )
        for term, weight in (("ensemble", 4.0), ("teacher", 1.0)):
            share, fixed = getattr(self, f"{term}_share"), getattr(self, f"{term}_weight")
            if share is not None and fixed != weight:
                raise RecipeError(
                    f"distill.{term}_share ({share:g}) takes the place of distill.{term}_weight ({fixed:g}); give only "
                    "one of the two"
                )

    def without(self, *sources: str) -> Distillation:
        """Return these settings without 'teacher', 'peer' or 'masked', and without what only they can teach."""
        initial = {one.name: one.default for one in fields(self)}
        changes: dict[str, Any] = {option: initial[option] for option, needed in _NEEDS.items() if needed in sources}
        return replace(self, **changes | dict.fromkeys(sources, False))
