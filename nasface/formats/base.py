"""What every export format provides, and how a missing library is reported."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from nasface.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor, nn

Precision = Literal["fp32", "fp16", "int8"]
"""'fp32'; 'fp16', whose weights are stored in 16 bits, while the runtime computes as it sees fit; 'int8', whose
convolutions compute in 8 bits."""

Inputs = Literal["uint8", "normalised"]
Outputs = Literal["landmarks", "heatmaps"]
"""What an exported graph takes and returns, see `nasface.deploy.plain.Ends`."""

Run = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]
"""An opened model as a function: a batch of inputs to all outputs, in the order of the file."""

# what runtimes say about their own code: a status, and the place and signature of a function in C++
_PLACES = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |\S+:\d+:? .*?\) (?=[A-Z])|Exception from \S+:\d+: ")

KEY = "nasface"  # under which the metadata of a file hold the network's description


@dataclass(frozen=True)
class Quantisation:
    """How to turn convolutions into 8 bits. Their ranges are fixed, measured on the calibration inputs.

    Attributes:
        inputs: a batch of inputs of the exported module.
        keep: patterns such as 'head.*' of the parts that stay in float, by their names in the network's state dict.
    """

    inputs: NDArray[Any]
    keep: tuple[str, ...] = ()


class Format(Protocol):
    """An export format plug-in: an object built without arguments.

    An entry point in the group `nasface.formats` names a callable that returns an object with these members.

    Attributes:
        suffix: the extension of its files, by which they are recognised.
        runtime: the name of what runs them, such as 'onnxruntime'.
        channels: the number of channels that the runtime handles at once on common CPUs, to a multiple of which maps
            are padded; 1 where that does not help.
    """

    suffix: str
    runtime: str
    channels: int

    def require(self, precision: Precision) -> None:
        """Import what `write` needs. Raises RunError that names the extra to install."""
        ...

    def write(
        self, module: nn.Module, example: Tensor, path: Path, about: str, quantisation: Quantisation | Precision
    ) -> Sequence[Path]:
        """Write a module whose first dimension, the batch, may have any length.

        Args:
            module: in eval mode; a module named `net` in it is the network, which may be quantised, and what runs
                before and after it stays in float.
            example: a batch of two inputs.
            path: the file to write, in a folder of its own.
            about: a description for the file's metadata, which `describe` returns.
            quantisation: how to compute in int8, or else 'fp32' or 'fp16'.

        Returns:
            The files that were written, `path` last.
        """
        ...

    def describe(self, path: Path) -> str | None:
        """Return the description in a file's metadata; None if there is none.

        Raises:
            RunError: when the library is missing or the file cannot be read.
        """
        ...

    def open(self, path: Path, threads: int = 0) -> Run:
        """Open a file to run it on the CPU, without torch.

        Args:
            path: the file.
            threads: CPU threads; 0 leaves the choice to the runtime.

        Raises:
            RunError: when the library is missing or the file cannot be run.
        """
        ...


@runtime_checkable
class OwnRuntime(Protocol):
    """A format that can bring along what runs its files."""

    def with_runtime(self, package: Path) -> Format:
        """Return this format, which then writes a copy of the runtime beside its files.

        Args:
            package: the folder of the runtime's package.

        Raises:
            RunError: when it is not the package that the format needs.
        """
        ...


def library(name: str, extra: str, purpose: str) -> Any:
    """Import a library. Raises RunError that names the extra to install.

    Args:
        name: the module.
        extra: the extra of nasface that brings it.
        purpose: what it is needed for, as the start of a sentence.
    """
    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise RunError(
            f"{purpose} needs the package {name.partition('.')[0]}, which cannot be imported ({err}); run pip install "
            f"'nasface[{extra}]'"
        ) from err


def unreadable(path: Path, kind: str, err: Exception) -> RunError:
    """Return the error for a file that a runtime refuses."""
    text = _PLACES.sub("", " ".join(str(err).split())) or type(err).__name__
    reason = shorten(text, 240, placeholder=" ...")
    return RunError(
        f"{path} cannot be opened as {kind} ({reason}); it is damaged, not complete, of another kind or too new "
        "for the installed runtime: export the network again, or update the runtime"
    )
