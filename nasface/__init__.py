"""nasface finds, slims, distils and ships efficient landmark networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nasface.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(source: str | Path, *, network: str | None = None, device: str = "cpu", plugins: Sequence[str] = ()) -> Model:
    """Load a network with everything that it takes to use it.

    Args:
        source: a run folder, a file of weights written by nasface (safetensors), an exported network, an arch.json, or
            the name of a network that comes with nasface.
        network: which one of a run folder; by default 'slim' where there is one.
        device: for example 'cpu' or 'cuda'; 'auto' takes an accelerator where there is one. Exported networks run on
            the CPU, without torch.
        plugins: what the files may name as 'module:attr', which is imported and so runs its code; by default they can
            only name plug-ins that are installed.

    Raises:
        RunError: when there is no such network, or its files are damaged or do not fit one another.
        GraphError: when its search space has changed since.
        RecipeError: when a file names a plug-in that is neither installed nor in `plugins`.
    """
    from nasface.importing import allowing
    from nasface.model.files import one  # importing it takes a moment: only who loads a network waits for it

    with allowing(*plugins):
        return one(source, network).load(device=device)
