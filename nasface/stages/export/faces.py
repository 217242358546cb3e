"""The faces by which an exported network is calibrated, compared with its original and judged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nasface import plugins
from nasface.data.base import SPLITS, Index, Split
from nasface.data.prepare import PreparedFaces, prepare
from nasface.errors import DataError, GraphError
from nasface.model import View
from nasface.recipe import Recipe
from nasface.stages.faces import divided, input_crops, load_prepared
from nasface.stages.machine import Machine
from nasface.stages.measure import true_landmarks

log = logging.getLogger(__name__)

COMPARED, JUDGED = 128, 1000  # at most so many faces to compare landmarks on, and to measure the NME on


@dataclass(frozen=True)
class Sample:
    """Faces as a network sees them.

    Attributes:
        name: where they come from, for people.
        compared_NHW3: RGB crops on which both networks must agree.
        calibration_NHW3: crops of training faces, never of held-out or test faces; may be empty.
        judged_NHW3, judged_NL2: crops of held-out training faces and their true landmarks in pixels of the crops; may
            be empty.
    """

    name: str
    compared_NHW3: NDArray[np.uint8] = field(repr=False)
    calibration_NHW3: NDArray[np.uint8] = field(repr=False)
    judged_NHW3: NDArray[np.uint8] = field(repr=False)
    judged_NL2: NDArray[np.float64] = field(repr=False)


def of_dataset(recipe: Recipe, view: View, machine: Machine, calibrate: int) -> Sample:
    """Take the faces of a recipe's dataset.

    Args:
        recipe: names the dataset and the share of held-out faces.
        view: how the network sees a face.
        machine: progress and workers.
        calibrate: number of calibration faces.

    Raises:
        DataError: when the dataset is not there.
        GraphError: when it has another landmark scheme.
    """
    prepared = load_prepared(recipe, machine, partial(_needed, share=recipe.data.held_out, calibrate=calibrate))
    train, count = prepared["train"], view.scheme.num_landmarks
    if train.scheme.num_landmarks != count:
        raise GraphError(
            f"the network has {count} landmarks, but the dataset {recipe.data.name} has {train.scheme.num_landmarks}; "
            "choose a dataset with the same landmark scheme"
        )
    own, held_out = divided(train.names, recipe.data.held_out)
    own, judged = _spread(own, calibrate), _spread(held_out, JUDGED)
    return Sample(
        recipe.data.name, _any_faces(prepared), _crops(train, own), _crops(train, judged), true_landmarks(train)[judged]
    )


def _needed(index: Index, share: float, calibrate: int) -> Index:
    """Return the faces of an index that `of_dataset` takes: a dataset may have thousands more, or render them."""
    train, test = ([face for face in index.faces if face.split == split] for split in SPLITS)
    own, held_out = divided([face.name for face in train], share)
    chosen = [train[i] for i in (*_spread(own, calibrate), *_spread(held_out, JUDGED))]
    compared = test or train
    chosen += [compared[i] for i in _spread(range(len(compared)), COMPARED)]
    names = {(face.split, face.name) for face in chosen}
    return replace(index, faces=tuple(face for face in index.faces if (face.split, face.name) in names), problems=())


def of_nobody(view: View, machine: Machine) -> Sample:
    """Render synthetic faces, on which networks of any landmark scheme can be compared, but not be judged."""
    dataset = plugins.dataset("synthetic", None, {"train": 0, "test": COMPARED})
    prepared = prepare(dataset, view.crop, workers=machine.workers, progress=machine.progress.counter("prepare"))
    compared = _any_faces(prepared)
    return Sample("synthetic", compared, compared[:0], compared[:0], np.empty((0, view.scheme.num_landmarks, 2)))


def _any_faces(prepared: Mapping[Split, PreparedFaces]) -> NDArray[np.uint8]:
    """Return test faces, or training faces where there is no test face: comparing chooses nothing."""
    faces = prepared["test"] if len(prepared["test"]) else prepared["train"]
    if not len(faces):
        raise DataError("there is no face on disk to compare the exported network on; give --data-root")
    return _crops(faces, _spread(range(len(faces)), COMPARED))


def _crops(faces: PreparedFaces, index: Sequence[int]) -> NDArray[np.uint8]:
    return input_crops(faces.images_NHWC[index], faces.input_size)


def _spread(index: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of these numbers, evenly spread."""
    chosen = np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int)
    return [index[i] for i in chosen.tolist()]
