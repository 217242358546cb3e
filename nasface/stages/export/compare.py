"""Compare an exported network with the PyTorch network from which it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasface import engine
from nasface.data.augment import normalise
from nasface.deploy.plain import Ends
from nasface.formats import Run
from nasface.model import View
from nasface.net import GraphNet
from nasface.task import decode

TOLERANCE = 0.01  # pixels of the input by which a landmark may move in fp32: rounding moves it by a hundredth of that
_BATCH = 32
_ROUNDING = 1e-5  # of the highest peak: ten times what the order of additions changes in a heatmap
_DRAWS = 8

Look = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Crops (N, H, W, 3) to landmarks (N, L, 2) and confidences (N, L)."""


@dataclass(frozen=True)
class Difference:
    """How far the landmarks of two runtimes lie apart, in pixels of the input.

    Attributes:
        worst, mean: of the landmarks that rounding does not decide.
        confidence: largest difference of confidences.
        landmarks: number of landmarks that were compared.
        undecided: number of further landmarks for which rounding decides between two cells of the heatmap, or two
            directions of the quarter shift: in PyTorch itself, a change of the last digits would move them.
    """

    worst: float
    mean: float
    confidence: float
    landmarks: int
    undecided: int


@dataclass(frozen=True)
class Original:
    """A network in PyTorch.

    Attributes:
        net: the network, in eval mode on the CPU.
        view: how its heatmaps become landmarks.
    """

    net: GraphNet
    view: View

    def heatmaps(self, crops_NHW3: NDArray[np.uint8]) -> Tensor:
        """Return heatmaps (N, L, h, w)."""
        flip = torch.tensor(self.view.scheme.flip) if self.view.flip_test else None
        parts = torch.split(torch.from_numpy(crops_NHW3).permute(0, 3, 1, 2), _BATCH)
        with torch.inference_mode():
            return torch.cat([engine.heatmaps_of(self.net, normalise(part), flip) for part in parts])

    def decode(self, heatmaps_NLhw: Tensor) -> NDArray[np.float64]:
        """Return the landmarks (N, L, 2) of heatmaps."""
        view = self.view
        return decode(heatmaps_NLhw, view.input_size, view.decoder, view.sigma).double().numpy()

    def landmarks(self, crops_NHW3: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return landmarks (N, L, 2), with the heatmaps of few faces at a time in memory."""
        parts = [crops_NHW3[start : start + _BATCH] for start in range(0, len(crops_NHW3), _BATCH)]
        return np.concatenate([self.decode(self.heatmaps(part)) for part in parts])

    def undecided(self, heatmaps_NLhw: Tensor) -> NDArray[np.bool_]:
        """Tell which landmarks (N, L) move when the heatmaps change in their last digits."""
        still = self.decode(heatmaps_NLhw)
        size, random = _ROUNDING * heatmaps_NLhw.abs().amax(), torch.Generator().manual_seed(0)
        moves = np.zeros(still.shape[:2], dtype=bool)
        for _ in range(_DRAWS):
            noise = size * (2 * torch.rand(heatmaps_NLhw.shape, generator=random) - 1)
            moves |= np.abs(self.decode(heatmaps_NLhw + noise) - still).max(axis=2) > TOLERANCE / 2
        return moves

    def look(self, run: Run, ends: Ends) -> Look:
        """Return an opened file as a function from crops to landmarks; what its graph leaves out is done here."""

        def look(crops_NHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            found = []
            for start in range(0, len(crops_NHW3), _BATCH):
                outputs = run(ends.prepare(crops_NHW3[start : start + _BATCH]))
                if ends.outputs == "heatmaps":
                    heatmaps = torch.from_numpy(outputs[0])
                    outputs = (self.decode(heatmaps), heatmaps.amax(dim=(2, 3)).numpy())
                found.append(outputs)
            landmarks, confidences = (np.concatenate(part).astype(np.float64) for part in zip(*found, strict=True))
            return landmarks, confidences

        return look


def compare(original: Original, look: Look, crops_NHW3: NDArray[np.uint8]) -> Difference:
    """Compare the landmarks of some faces."""
    heatmaps = original.heatmaps(crops_NHW3)
    landmarks, confidences = look(crops_NHW3)
    distance = np.linalg.norm(landmarks - original.decode(heatmaps), axis=2)
    decided = distance[~original.undecided(heatmaps)]
    return Difference(
        float(decided.max(initial=0.0)),
        float(decided.mean()) if decided.size else 0.0,
        float(np.abs(confidences - heatmaps.amax(dim=(2, 3)).numpy()).max()),
        decided.size,
        distance.size - decided.size,
    )
