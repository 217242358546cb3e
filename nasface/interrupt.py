"""What Ctrl-C and SIGTERM lead to: one line and exit code 130 or 143, while the program loads, works and ends."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = {signal.SIGINT: "\nnasface: interrupted", signal.SIGTERM: "nasface: terminated"}  # a terminal has shown ^C
_ADVICE = "; run the same command again: long ones continue from what is finished, or from the last epoch"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM while a command works.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)


def guard() -> None:
    """Let signals end this program at once, with one line, apart from the blocks of `raising`.

    As long as nothing has begun there is nothing to clean up, and an exception can end in a traceback: of a module that
    is being loaded, of a library that turns it into another one, or of Python itself as it ends. A signal that the
    parent process has chosen to ignore, as a shell does for its background jobs, stays ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave_now)
    sys.unraisablehook = _raised_where_nobody_catches


@contextmanager
def raising() -> Iterator[None]:
    """Let the signals of a guarded program raise `Interrupted` while the block runs, so that all is left in order.

    Where a library calls Python from C, it may turn that into an exception of its own: the block still ends with
    `Interrupted`.
    """
    guarded = [number for number in SIGNALS if signal.getsignal(number) is _leave_now]
    arrived: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        arrived.append(number)
        raise Interrupted(number)

    try:
        for number in guarded:
            signal.signal(number, interrupt)
        yield
    except Exception as err:
        if arrived:
            raise Interrupted(arrived[0]) from err
        raise
    finally:
        for number in guarded:
            signal.signal(number, _leave_now)


def leave(cause: KeyboardInterrupt) -> NoReturn:
    """Say that the command was interrupted, and exit."""
    number = cause.number if isinstance(cause, Interrupted) else signal.SIGINT
    print(_SAID[number] + _ADVICE, file=sys.stderr)
    sys.exit(_code(number))


def _code(number: int) -> int:
    return 128 + number  # as shells count


def _leave_now(number: int, _: Any) -> None:
    os.write(2, f"{_SAID[signal.Signals(number)]}{_ADVICE}\n".encode())
    os._exit(_code(number))


def _raised_where_nobody_catches(unraisable: Any) -> None:
    """Send a signal again that has hit a finalizer, where Python drops exceptions and prints their traceback.

    It is sent a moment later, as this function is called in the finalizer's place.
    """
    if isinstance(unraisable.exc_value, Interrupted):
        again = threading.Timer(0.05, _thread.interrupt_main, (unraisable.exc_value.number,))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
