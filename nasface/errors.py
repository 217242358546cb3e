"""The one error a user sees: what is wrong, where, what was expected and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NasfaceError(Exception):
    """Bad input or a state the user can mend. The CLI prints it as one sentence and exits with code 2."""


class DataError(NasfaceError):
    """A data set is missing, damaged or does not fit what was asked."""


class GraphError(NasfaceError):
    """A graph or sub-graph that is malformed, disconnected or of another search space."""


class RecipeError(NasfaceError):
    """A recipe with an unknown key or a value out of range."""


class RunError(NasfaceError):
    """A run folder that lacks what a command needs, or cannot be written."""


class DivergedError(NasfaceError):
    """A training whose loss is no longer finite."""


class RunBusyError(RunError):
    """A run folder in which another process works."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or else all of them."""
    words = sorted(known)
    close = get_close_matches(name, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(words)}" if words else "none is known"
