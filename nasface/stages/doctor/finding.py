"""What an examination finds: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nasface.errors import NasfaceError, described
from nasface.model import files

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: what it is part of, such as 'machine'.
        what: its name.
        state: 'wrong' if something must be repaired, 'note' if it is worth knowing, and otherwise 'ok'.
        detail: what was found, or one sentence that says what is wrong and how to repair it.
    """

    section: str
    what: str
    state: State
    detail: str


def examined(section: str, what: str, look: Callable[[], str]) -> Finding:
    """Return what a look has found: its words, or the sentence of the error that it raises."""
    try:
        return Finding(section, what, "ok", look())
    except NasfaceError as err:
        return Finding(section, what, "wrong", str(err))
    except (Exception, SystemExit) as err:  # an examination must not end at what it finds
        return Finding(section, what, "wrong", described(err))


def network(source: Path) -> str:
    """Load a network, and say what it is; an error says what is wrong with it."""
    model = files.one(source).load()
    arch = model.architecture
    return f"{len(arch.kept)} edges of {arch.space}, {arch.num_landmarks} landmarks, {arch.input_size} px"
