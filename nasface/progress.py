"""Callbacks through which a front end follows what takes long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nasface.step import Row


@dataclass(frozen=True)
class Progress:
    """Callbacks through which a front end follows a training.

    Attributes:
        begin: called with (title, total steps, steps already done) when a long operation starts.
        advance: called after each step.
        epoch: called after each epoch with all metric rows so far.
    """

    begin: Callable[[str, int, int], None] = lambda title, total, done: None
    advance: Callable[[], None] = lambda: None
    epoch: Callable[[list[Row]], None] = lambda rows: None

    def counter(self, title: str) -> Callable[[int, int], None]:
        """Return a (done, total) callback for work other than training."""
        begun = False

        def report(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                self.begin(title, total, done - 1)
                begun = True
            self.advance()

        return report
