"""What takes part in a benchmark: a network and the runtime that runs it. No torch, unless that is the runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasface.formats import Precision
from nasface.model.exported import open_exported
from nasface.model.files import one
from nasface.model.runtime import TorchRuntime

Run = Callable[[NDArray[np.uint8]], Any]
"""Crops (N, H, W, 3) to landmarks and confidences, see `nasface.model.runtime.Runtime`."""


@dataclass(frozen=True)
class Contender:
    """A network in a runtime.

    Attributes:
        model: the network, as the user named it.
        runtime: 'torch', or the runtime of an export format.
        place: what is opened: the network itself, or the file to which it was exported.
        precision: see `nasface.formats.Precision`.
        params, macs: of the whole network; MACs are multiply-adds of one image.
        input_size: side of the square input in pixels.
    """

    model: str
    runtime: str
    place: str
    precision: Precision
    params: int
    macs: int
    input_size: int

    def open(self, threads: int) -> Run:
        """Open the network for so many CPU threads.

        Raises:
            RunError: when it cannot be opened.
        """
        saved = one(self.place)
        if saved.exported:
            form, about = saved.exported
            return open_exported(saved.weights, form, about, about.card.view, threads).run
        model = saved.load()
        return _in_torch(TorchRuntime(model.module, replace(model.view, precision="fp32")), threads)

    def crops(self, batch: int) -> NDArray[np.uint8]:
        """Return a batch of noise, (batch, H, W, 3)."""
        shape = (batch, self.input_size, self.input_size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _in_torch(runtime: TorchRuntime, threads: int) -> Run:
    import torch

    def run(crops_NHW3: NDArray[np.uint8]) -> Any:
        if torch.get_num_threads() != threads:  # it belongs to the process, and others take their turns in between
            torch.set_num_threads(threads)
        return runtime.run(crops_NHW3)

    return run
