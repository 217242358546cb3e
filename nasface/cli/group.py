"""The group of all commands: one sentence and exit code 2 for what a user can mend."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from nasface import __version__
from nasface.cli import interrupt
from nasface.errors import NasfaceError


class Commands(click.Group):
    """Turns a NasfaceError into one sentence and exit code 2, wherever it comes from."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except NasfaceError as err:
            click.secho(f"nasface: {err}", fg="red", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            interrupt.leave()
        except (OSError, MemoryError, RuntimeError) as err:
            sentence = self._sentence(err)
            if sentence is None:
                raise
            click.secho(f"nasface: {sentence}", fg="red", err=True)
            ctx.exit(2)

    @staticmethod
    def _sentence(err: Exception) -> str | None:
        """What the machine refused, in one sentence; None for what is a fault of the program, or click's own."""
        if isinstance(err, BrokenPipeError):
            return None  # click ends quietly when the reader of a pipe has gone
        if isinstance(err, OSError):
            reason = err.strerror or " ".join(str(err).split()) or type(err).__name__
            place = "a file" if err.filename is None else f"{err.filename}"
            return f"cannot read or write {place} ({reason}); check that it is there, its permissions and the disk"
        if isinstance(err, RecursionError):
            return "the input is nested too deeply to be read; make the recipe, file or option flatter"
        text = " ".join(str(err).split())
        exhausted = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
        if isinstance(err, (MemoryError, exhausted)) or any(
            words in text.lower() for words in ("out of memory", "can't allocate memory")
        ):
            said = f" ({text[:200]})" if text else ""
            return f"the memory does not suffice{said}; set a smaller training.batch or input size, or another --device"
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Find, slim, distil and ship efficient landmark networks.

    \b
    Try it without any data:
      nasface search --recipe demo --out runs/demo
    """
    logging.getLogger("nasface").addHandler(_WarningsToTerminal())


class _WarningsToTerminal(logging.Handler):
    """Shows warnings as one line each on standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:  # errors are raised as well
            click.secho(f"nasface: {record.getMessage()}", fg="yellow", err=True)
