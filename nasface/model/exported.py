"""Exported networks: the description in their metadata, and how they become a `Model`. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from nasface import plugins, untrusted
from nasface.errors import RunError
from nasface.formats import Format, Inputs, Outputs, Precision
from nasface.model.card import Card, View
from nasface.model.runtime import ExportedRuntime
from nasface.scores import NetworkCost

INPUTS, OUTPUTS = get_args(Inputs), get_args(Outputs)
COSTS = tuple(part.name for part in fields(NetworkCost))
_BAKED = ("input_size", "decoder", "sigma", "flip_test", "precision")  # of a view, what an exported graph contains


@dataclass(frozen=True)
class Description:
    """What an exported file says about itself.

    Attributes:
        card: the network's card; its view is what the file computes.
        precision: of the weights, see `nasface.formats.Precision`.
        inputs, outputs: what goes in and comes out, see `nasface.deploy.plain.Ends`.
        costs: the cost of the network by the names of `NetworkCost`.
    """

    card: Card
    precision: Precision
    inputs: Inputs = "uint8"
    outputs: Outputs = "landmarks"
    costs: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text for the metadata of a file."""
        return json.dumps({**vars(self), "card": self.card.as_dict(), "costs": dict(self.costs)})


def format_of(path: Path) -> Format | None:
    """Return the installed format whose files have this extension; None if there is none."""
    forms = (plugins.form(name) for name in plugins.names("formats"))
    return next((form for form in forms if form.suffix == path.suffix.lower()), None)


def suffixes() -> list[str]:
    """Return the extensions of all installed formats."""
    return list(dict.fromkeys(plugins.form(name).suffix for name in plugins.names("formats")))


def describe(path: Path, form: Format) -> Description:
    """Read the description of an exported file.

    Raises:
        RunError: when the file cannot be read, or nasface has not written it.
    """
    text = form.describe(path)
    if text is None:
        raise RunError(
            f"{path} has no nasface card, so it was not written by nasface and nothing says how it sees a face; export "
            "the network with `nasface export`"
        )
    try:
        content = untrusted.parse_json(text, path)
        card, precision, costs = content["card"], content["precision"], content["costs"]
        inputs, outputs = content["inputs"], content["outputs"]
        sound = all(isinstance(part, dict) for part in (card, costs)) and inputs in INPUTS and outputs in OUTPUTS
        sound = sound and set(costs) == set(COSTS) and all(isinstance(value, int) for value in costs.values())
        sound = sound and precision in get_args(Precision)
    except (ValueError, TypeError, KeyError) as err:
        raise RunError(f"the nasface card of {path} is damaged ({err}); export the network again") from err
    if not sound:
        raise RunError(f"the nasface card of {path} is damaged; export the network again")
    return Description(Card.from_dict(card, str(path)), precision, inputs, outputs, costs)


def open_exported(path: Path, form: Format, about: Description, view: View, threads: int) -> ExportedRuntime:
    """Open an exported file.

    Args:
        path: the file.
        form: its format.
        about: its description.
        view: how the user wants it to see a face; it must agree with what the file computes.
        threads: CPU threads; 0 leaves the choice to the runtime.

    Raises:
        RunError: when the file cannot be opened, was exported for other programs, or does not compute what `view` says.
    """
    if (about.inputs, about.outputs) != (INPUTS[0], OUTPUTS[0]):
        raise RunError(
            f"{path} takes {about.inputs} inputs and returns {about.outputs}, for use in other programs; nasface runs "
            f"files that take {INPUTS[0]} crops and return {OUTPUTS[0]}: export it again without --inputs and --outputs"
        )
    own = about.card.view
    for name in _BAKED:
        if getattr(view, name) != getattr(own, name):
            raise RunError(
                f"{path} was exported with {name} {getattr(own, name)} and cannot run with {getattr(view, name)}; "
                "export the network again with this setting"
            )
    return ExportedRuntime(form.open(path, threads), str(path), own.scheme.num_landmarks)
