"""What runs a network: crops in, landmarks and confidences out. PyTorch is one runtime, exported files bring others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nasface.errors import RunError, described
from nasface.formats import Run

if TYPE_CHECKING:
    from nasface.model.card import View
    from nasface.net import GraphNet


class Runtime(Protocol):
    """Runs a network.

    Attributes:
        place: where it runs, for example 'cpu' or 'cuda:0'.
    """

    @property
    def place(self) -> str:
        """Where it runs."""
        ...

    def run(self, crops_NHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return landmarks (N, L, 2) in pixels of the crops, and confidences (N, L), the peaks of the heatmaps.

        Args:
            crops_NHW3: RGB crops at the network's input size, uint8; N is at least 1.
        """
        ...


@dataclass(frozen=True, eq=False)
class TorchRuntime:
    """PyTorch.

    Attributes:
        module: the network, on its device.
        view: how its heatmaps become landmarks.
    """

    module: GraphNet
    view: View

    @property
    def place(self) -> str:
        """The device of the network."""
        return str(self.module.alpha.device)

    def run(self, crops_NHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return landmarks and confidences; see `Runtime`."""
        import torch

        from nasface import engine
        from nasface.data.augment import normalise
        from nasface.task import decode

        view, net, device = self.view, self.module, self.module.alpha.device
        flip = torch.tensor(view.scheme.flip, device=device) if view.flip_test else None
        net.eval()
        with torch.inference_mode():
            images_B3HW = normalise(torch.from_numpy(crops_NHW3).to(device).permute(0, 3, 1, 2))
            with engine.autocast(device, view.precision):
                heatmaps = engine.heatmaps_of(net, images_B3HW, flip)
            points_BL2 = decode(heatmaps, view.input_size, view.decoder, view.sigma)
            peaks_BL = heatmaps.float().amax(dim=(2, 3))
        return points_BL2.cpu().double().numpy(), peaks_BL.cpu().double().numpy()  # MPS has no float64


@dataclass(frozen=True, eq=False)
class ExportedRuntime:
    """An exported file in its own runtime, without torch.

    Attributes:
        call: the opened file.
        name: the file, for messages.
        num_landmarks: number L of landmarks that its card names.
        place: where it runs.
    """

    call: Run
    name: str
    num_landmarks: int
    place: str = "cpu"

    def run(self, crops_NHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return landmarks and confidences; see `Runtime`.

        Raises:
            RunError: when the file computes something else than its card says.
        """
        try:
            outputs: Any = self.call(np.ascontiguousarray(crops_NHW3))
        except Exception as err:  # each runtime has errors of its own
            raise RunError(
                f"{self.name} does not run on crops of {crops_NHW3.shape[1]} pixels, the input size in its card "
                f"({described(err)[:300]}); export the network again"
            ) from err
        count, wanted = len(crops_NHW3), self.num_landmarks
        if [output.shape for output in outputs] != [(count, wanted, 2), (count, wanted)]:
            shapes = ", ".join(str(output.shape) for output in outputs)
            raise RunError(
                f"{self.name} returns arrays of shape {shapes}, but its card names {wanted} landmarks; export the "
                "network again"
            )
        landmarks, confidences = outputs
        return landmarks.astype(np.float64), confidences.astype(np.float64)
