"""The faces of an experiment: prepared, split into training and held-out faces, and brought to the device."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nasface import plugins, ranks
from nasface.data.base import Index, Split
from nasface.data.prepare import PreparedFaces, PrepareOptions, prepare
from nasface.errors import DataError
from nasface.recipe import Recipe
from nasface.stages.machine import Machine

if TYPE_CHECKING:
    import torch

    from nasface.data.augment import DeviceFaces

log = logging.getLogger(__name__)

ROOM = 0.5  # of the device's free memory for crops, so that the rest is left for networks
SPLIT_SEED = 20230130  # fixed, so that the held-out faces of a dataset are the same in all runs


@dataclass(frozen=True)
class Faces:
    """The faces of an experiment on the device.

    Attributes:
        train, held_out: disjoint parts of the training split; networks are selected on `held_out` only.
        test: the test split, or None if it is not on disk.
        prepared: the prepared splits, with subsets and counts.
    """

    train: DeviceFaces
    held_out: DeviceFaces
    test: DeviceFaces | None
    prepared: Mapping[Split, PreparedFaces]


def load_prepared(
    recipe: Recipe, machine: Machine, some: Callable[[Index], Index] = lambda index: index
) -> Mapping[Split, PreparedFaces]:
    """Decode and crop the faces of the recipe's dataset, or those that `some` chooses, or read them from the cache."""
    data = recipe.data
    options = PrepareOptions(data.input_size, data.margin, data.box, data.box_scale)
    dataset = plugins.dataset(data.name, data.root, data.options)
    counter = machine.progress.counter("prepare")
    return ranks.first_here(lambda: prepare(dataset, options, None, machine.workers, counter, some))


def is_held_out(name: str, share: float) -> bool:
    """Return whether a training face is held out.

    This depends on its name alone: other faces and seeds change nothing, and a larger share only adds faces.
    """
    digest = hashlib.blake2b(f"{SPLIT_SEED}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def divided(names: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Divide training faces, given by their names, into those to train on and those held out; return their places."""
    parts: tuple[list[int], list[int]] = [], []
    for place, name in enumerate(names):
        parts[is_held_out(name, share)].append(place)
    return parts


def check_held_out(recipe: Recipe, train: PreparedFaces, chosen: str) -> None:
    """Raise a DataError if no training face is held out, by which something is to be chosen.

    Args:
        recipe: names the dataset and the share of held-out faces.
        train: the prepared training split.
        chosen: what is to be chosen, for the message.
    """
    if not divided(train.names, recipe.data.held_out)[1]:
        raise DataError(
            f"{chosen} is chosen by held-out faces, but none of the {len(train)} training faces of dataset "
            f"'{recipe.data.name}' is held out; add training faces, or set data.held_out above "
            f"{recipe.data.held_out:g}"
        )


def input_crops(images_NHWC: NDArray[np.uint8], input_size: int) -> NDArray[np.uint8]:
    """Return the network's input, uint8 (N, S, S, 3): the centre of each stored crop."""
    pad = (images_NHWC.shape[1] - input_size) // 2
    window = slice(pad, pad + input_size)
    return np.ascontiguousarray(images_NHWC[:, window, window])


def load_faces(recipe: Recipe, device: torch.device, machine: Machine, training: bool = True) -> Faces:
    """Prepare the recipe's dataset, hold out part of its training faces, and bring all faces to the device.

    Args:
        recipe: names the dataset, the crop and the share of held-out faces.
        device: the device of the faces.
        machine: progress and workers.
        training: False leaves `train` empty.

    Raises:
        DataError: when there are fewer faces to train on than a batch holds.
    """
    from nasface.data.augment import on_device  # torch: exported networks need the prepared faces only

    prepared = load_prepared(recipe, machine)
    train, held_out = divided(prepared["train"].names, recipe.data.held_out)
    train = train if training else []
    if training and len(train) < recipe.training.batch:
        raise DataError(
            f"dataset '{recipe.data.name}' has {len(train)} faces to train on after holding out {len(held_out)}, "
            f"fewer than a batch of {recipe.training.batch}; add training faces or set a smaller training.batch"
        )
    test = prepared["test"]
    wanted = len(train) + len(held_out) + len(test)
    staged = _is_staged(recipe, device, wanted * math.prod(test.images_NHWC.shape[1:]))
    log.info(
        "%s: %d training faces, %d held-out faces, %d test faces",
        recipe.data.name,
        len(train),
        len(held_out),
        len(test),
    )
    return Faces(
        on_device(prepared["train"], device, train, staged),
        on_device(prepared["train"], device, held_out, staged),
        on_device(test, device, staged=staged) if len(test) else None,
        prepared,
    )


def _is_staged(recipe: Recipe, device: torch.device, needed: int) -> bool:
    """Return whether so many bytes of crops are brought to the device batch by batch."""
    from nasface.device import free_bytes

    wish, free = recipe.data.on_device, free_bytes(device)
    staged = needed > ROOM * free if wish == "auto" else not wish
    log.info(
        "crops of %.2f GiB %s; %.1f GiB of %s are free",
        needed / 2**30, "are staged batch by batch" if staged else "lie on the device", free / 2**30, device,
    )  # fmt: skip
    return staged
