"""The faces of an experiment: prepared, held out by name, and on the device."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nasface import plugins
from nasface.data.augment import DeviceFaces, on_device
from nasface.data.base import Split
from nasface.data.prepare import PreparedFaces, PrepareOptions, prepare
from nasface.errors import DataError
from nasface.recipe import Recipe
from nasface.stages.workspace import Machine

log = logging.getLogger(__name__)


SPLIT_SEED = 20230130


@dataclass(frozen=True)
class Faces:
    """The faces of an experiment on the device.

    Attributes:
        train, held_out: disjoint parts of the training split; selection looks at `held_out` only.
        test: the test split, or None where there is none on disk.
        prepared: the splits as prepared, for subsets and counts.
    """

    train: DeviceFaces
    held_out: DeviceFaces
    test: DeviceFaces | None
    prepared: Mapping[Split, PreparedFaces]


def load_prepared(recipe: Recipe, machine: Machine) -> Mapping[Split, PreparedFaces]:
    """Decode and crop the recipe's data set, or find it in the cache."""
    data = recipe.data
    options = PrepareOptions(data.input_size, data.margin, data.box, data.box_scale)
    dataset = plugins.dataset(data.name, data.root, data.options)
    return prepare(dataset, options, workers=machine.workers, progress=machine.progress.counter("prepare"))


def is_held_out(name: str, share: float) -> bool:
    """Whether a training face is held out: by its name alone, so that other faces, seeds and shares change nothing."""
    digest = hashlib.blake2b(f"{SPLIT_SEED}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def load_faces(recipe: Recipe, device: torch.device, machine: Machine, training: bool = True) -> Faces:
    """Prepare the recipe's data set, hold out part of its training faces and copy all to the device.

    Args:
        recipe: its section `data`.
        device: where the faces go.
        machine: for progress and workers.
        training: False leaves the faces to train on where they are.

    Raises:
        DataError: when there are fewer faces to train on than a batch.
    """
    prepared = load_prepared(recipe, machine)
    names = prepared["train"].names
    held_out = [i for i, name in enumerate(names) if is_held_out(name, recipe.data.held_out)]
    train = sorted(set(range(len(names))) - set(held_out)) if training else []
    if training and len(train) < recipe.training.batch:
        raise DataError(
            f"data set '{recipe.data.name}' has {len(train)} faces to train on after holding out {len(held_out)}, "
            f"fewer than a batch of {recipe.training.batch}; add training faces or set a smaller training.batch"
        )
    test = prepared["test"]
    log.info(
        "%s: %d faces to train on, %d held out, %d to test",
        recipe.data.name,
        len(train),
        len(held_out),
        len(test),
    )
    return Faces(
        on_device(prepared["train"], device, train),
        on_device(prepared["train"], device, held_out),
        on_device(test, device) if len(test) else None,
        prepared,
    )
