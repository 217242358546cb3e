"""The networks that come with nasface: files of weights, each with a file of what was measured beside it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nasface import rundir, untrusted
from nasface.errors import RunError, did_you_mean, shortened
from nasface.model.card import Card

DEFAULT = "face68"
"""The network that `nasface predict` uses unless another one is named."""

FOLDER = Path(__file__).parents[1] / "networks"


@dataclass(frozen=True)
class Shipped:
    """A network that comes with nasface.

    Attributes:
        name: what `nasface.load` and `--model` call it.
        weights: its file of weights, which holds its card.
    """

    name: str
    weights: Path

    @cached_property
    def card(self) -> Card:
        """Its search space, its edges, how it sees a face, and what it was trained on."""
        return Card.from_dict(rundir.read_meta(self.weights)["card"], str(self.weights))

    @cached_property
    def measured(self) -> Mapping[str, Any]:
        """What `benchmarks/shipped.py` has measured: cost, errors, latency and confidence."""
        path = self.weights.with_suffix(".json")
        content: dict[str, Any] = untrusted.parse_json(path.read_text(), path)
        return content

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        view = self.card.view
        seen = {"landmarks": view.scheme.num_landmarks, "input_size": view.input_size}
        return {"name": self.name, "bytes": self.weights.stat().st_size, **seen, **self.measured, **self.card.as_dict()}


def networks() -> dict[str, Shipped]:
    """Return the networks that come with nasface, by name."""
    files = sorted(FOLDER.glob("*.safetensors"))
    return {file.stem: Shipped(file.stem, file) for file in files}


def network(name: str) -> Shipped:
    """Return one of them. Raises RunError when there is none of this name."""
    found = networks()
    if name not in found:
        raise RunError(f"no network '{shortened(name)}' comes with nasface; {did_you_mean(name, found)}")
    return found[name]
