"""The errors that users see: what is wrong, where, what was expected and how to fix it."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path


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


class NotComparableError(NasfaceError):
    """A network that cannot be compared with others at equal compute."""


class RunBusyError(RunError):
    """A run folder in which another process is working."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or else all known words."""
    words = sorted(known)
    if (close := _closest(name, words)) is not None:
        return f"did you mean '{close}'?"
    return f"known: {', '.join(words)}" if words else "none is known"


def similar(missing: Path) -> str:
    """Return a hint at what lies beside a missing path and has nearly its name; empty if nothing does."""
    try:
        names = [path.name for path in islice(missing.parent.iterdir(), 1000)]
    except (OSError, ValueError):
        return ""
    close = _closest(missing.name, names)
    return "" if close is None else f"; did you mean '{shortened(str(missing.parent / close))}'?"


def _closest(name: str, words: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(name[:100], words, n=1, cutoff=0.6)), None)


def described(err: BaseException) -> str:
    """Return the type and the text of an exception in one line, for use within a sentence."""
    return f"{type(err).__name__}: {shortened(' '.join(str(err).split()), 300)}"


class _Shown(reprlib.Repr):
    """Representations that are cut while they are made, so that aliases and long numbers cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 8, 12, 12
        self.maxstring = self.maxother = 120

    def repr_int(self, value: int, level: int) -> str:
        """Longer integers are named by their length: Python refuses to write those of more than 4300 digits."""
        return repr(value) if abs(value) < 10**30 else f"a number of {int(value.bit_length() * 0.30103) + 1} digits"


_shown = _Shown()


def shown(value: object, most: int = 200) -> str:
    """Return a value as it appears in a message: its representation, cut to about `most` characters."""
    return shortened(_shown.repr(value), most)


def shortened(text: str, most: int = 120) -> str:
    """Return a text in one line, cut to about `most` characters: what a file says may be of any length."""
    line = printable(text[: 4 * most])
    return line if len(text) <= most else f"{line[: 2 * most // 3]}... ({len(text)} characters)"


def printable(text: str) -> str:
    """Return a text with control characters, and bytes of a file name that are not UTF-8, written as escapes."""
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), text)


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def out_of_memory(err: BaseException) -> bool:
    """Return whether an error says that the machine, or its accelerator, has no memory left."""
    exhausted = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    words = ("out of memory", "can't allocate memory")
    return isinstance(err, (MemoryError, exhausted)) or (
        isinstance(err, RuntimeError) and any(said in str(err).lower() for said in words)
    )
