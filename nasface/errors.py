"""The errors that users see: what is wrong, where, what was expected and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NasfaceError(Exception):
    """Bad input, or a state that the user can fix. The CLI prints it as one sentence and exits with code 2."""


class DataError(NasfaceError):
    """A dataset that is missing, damaged or does not fit what was asked for."""


class GraphError(NasfaceError):
    """A graph or sub-graph that is malformed, disconnected or from another search space."""


class RecipeError(NasfaceError):
    """A recipe with an unknown key or a value out of range."""


class RunError(NasfaceError):
    """A run folder that cannot be written, or that lacks what a command needs."""


class DivergedError(NasfaceError):
    """Training whose loss is no longer finite."""


class RunBusyError(RunError):
    """A run folder in which another process is working."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or else all known words."""
    words = sorted(known)
    close = get_close_matches(name, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(words)}" if words else "none is known"


def described(err: BaseException) -> str:
    """Return the type and the text of an exception in one line, for use within a sentence."""
    return f"{type(err).__name__}: {' '.join(str(err).split())}"
