"""Evaluate networks on test faces: in PyTorch, or without it where they were exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nasface.data.base import Split
from nasface.data.prepare import PreparedFaces
from nasface.errors import GraphError
from nasface.model import Model
from nasface.model.files import Saved
from nasface.recipe import Recipe
from nasface.scores import DEFAULT_NORMALISER, MaskLevel, NetworkCost
from nasface.stages.faces import Faces, divided, input_crops, load_prepared
from nasface.stages.machine import Machine, load
from nasface.stages.measure import Evaluation, errors, measure, true_landmarks

if TYPE_CHECKING:
    from nasface.data.augment import DeviceFaces

_BATCH = 64


@dataclass(frozen=True)
class Tested:
    """The faces of an evaluation.

    Attributes:
        prepared: both splits.
        on_device: the same for networks in PyTorch, with masks if there are any; None where nothing needs PyTorch.
    """

    prepared: Mapping[Split, PreparedFaces]
    on_device: Faces | None

    @property
    def shown(self) -> DeviceFaces | None:
        """The test faces as networks in PyTorch see them, if there are any."""
        return None if self.on_device is None else self.on_device.test


def load_tested(recipe: Recipe, machine: Machine, networks: Sequence[Saved], masked: MaskLevel | None) -> Tested:
    """Load the faces that a recipe names; masks, which are painted by PyTorch, cover the test faces."""
    if masked is None and all(saved.exported for saved in networks):
        return Tested(load_prepared(recipe, machine), None)
    from nasface.device import pick_device
    from nasface.stages.faces import load_faces

    faces = load_faces(recipe, pick_device(machine.device), machine, training=False)
    if masked is not None and faces.test is not None:
        from nasface.data.masks import cover

        faces = replace(faces, test=cover(faces.test, masked))
    return Tested(faces.prepared, faces)


def evaluate_all(recipe: Recipe, machine: Machine, networks: Sequence[Saved], faces: Tested) -> list[Evaluation]:
    """Evaluate networks, seen as the recipe says. Raises GraphError when one has other landmarks than the faces."""
    wanted = faces.prepared["test"].scheme.num_landmarks
    found = []
    for saved in networks:
        model = load(saved, recipe, machine)
        if model.view.scheme.num_landmarks != wanted:
            raise GraphError(
                f"the network in {saved.weights} has {model.view.scheme.num_landmarks} landmarks, but the dataset "
                f"{recipe.data.name} has {wanted}; choose a dataset with the same landmark scheme"
            )
        found.append(_exported(saved, model, recipe, faces) if saved.exported else _own(saved, model, recipe, faces))
    return found


def _own(saved: Saved, model: Model, recipe: Recipe, faces: Tested) -> Evaluation:
    from nasface.model.build import net_costs
    from nasface.stages.measure import evaluate_net

    assert faces.on_device is not None
    return evaluate_net(saved.name, model.module, recipe, faces.on_device, net_costs(model.module, recipe))


def _exported(saved: Saved, model: Model, recipe: Recipe, faces: Tested) -> Evaluation:
    """Evaluate an exported network, whose file says what the network costs."""
    assert saved.exported is not None
    test, train = faces.prepared["test"], faces.prepared["train"]
    shown: NDArray[np.uint8] = test.images_NHWC
    if faces.shown is not None:
        shown = faces.shown.images_NHWC.cpu().numpy()
    predicted = _landmarks(model, input_crops(shown, test.input_size)) if len(test) else None
    _, held_out = divided(train.names, recipe.data.held_out)
    nme = float("nan")
    if held_out:
        found = _landmarks(model, input_crops(train.images_NHWC[held_out], train.input_size))
        nme = float(errors(found, true_landmarks(train)[held_out], train.scheme)[DEFAULT_NORMALISER].mean())
    return Evaluation.of(measure(saved.name, predicted, test), NetworkCost(**saved.exported[1].costs), nme)


def _landmarks(model: Model, crops_NHW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    parts = [crops_NHW3[start : start + _BATCH] for start in range(0, len(crops_NHW3), _BATCH)]
    return np.concatenate([model.runtime.run(part)[0] for part in parts])
