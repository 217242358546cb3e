"""The group of all commands. Errors that a user can fix become one sentence and exit code 2."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from nasface import __version__, interrupt
from nasface.errors import NasfaceError, out_of_memory, printable, shortened
from nasface.importing import allowing

_TYPED = ("space", "dataset", "searcher", "criterion", "pruner", "teacher", "form")
"""The options by which a person names a plug-in; what they give may be named in files too."""


class Command(click.Command):
    """A command with the option --allow-plugin, which says what files may name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--allow-plugin", "allowed"],
                multiple=True,
                metavar="MODULE:ATTR",
                envvar="NASFACE_PLUGINS",
                show_envvar=True,
                help="Allow recipes and run folders to name this plug-in, which is not installed. Its code will be "
                "run.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with the plug-ins allowed that were typed."""
        allowed = ctx.params.pop("allowed")
        if strange := [name for name in allowed if ":" not in name]:
            raise click.UsageError(
                f"--allow-plugin takes 'module:attr', not '{shortened(strange[0])}'; installed plug-ins do not need it",
                ctx,
            )
        typed = (ctx.params.get(option) for option in _TYPED)  # a teacher may also be a file or folder
        with allowing(*allowed, *(name for name in typed if name and ":" in name and not Path(name).exists())):
            return super().invoke(ctx)


class Commands(click.Group):
    """A group that turns a NasfaceError of any command into one sentence and exit code 2."""

    command_class = Command
    group_class = type

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            with interrupt.raising():
                return super().invoke(ctx)
        except NasfaceError as err:
            click.secho(f"nasface: {printable(str(err))}", fg="red", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as err:
            interrupt.leave(err)
        except (OSError, MemoryError, RuntimeError) as err:
            sentence = self._sentence(err)
            if sentence is None:
                raise
            click.secho(f"nasface: {sentence}", fg="red", err=True)
            ctx.exit(2)

    @staticmethod
    def _sentence(err: Exception) -> str | None:
        """Describe a failure of the machine in one sentence.

        Returns:
            None for a fault of the program, and for what click handles itself.
        """
        if isinstance(err, BrokenPipeError):
            return None  # click exits quietly when the reader of a pipe has gone
        if isinstance(err, OSError):
            reason = err.strerror or " ".join(str(err).split()) or type(err).__name__
            place = "a file" if err.filename is None else shortened(str(err.filename))
            return f"cannot read or write {place} ({reason}); check the path, its permissions and the free disk space"
        if isinstance(err, RecursionError):
            return "the input is nested too deeply to be read; reduce the nesting of the recipe, file or option"
        if isinstance(err, RuntimeError) and "Symlink loop" in str(err):  # from Path.resolve
            return f"{shortened(str(err))}: these links form a circle; give a path without them"
        text = " ".join(str(err).split())
        if out_of_memory(err):
            said = f" ({text[:200]})" if text else ""
            return f"out of memory{said}; set a smaller training.batch or input size, or choose another --device"
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Search, prune, distil and evaluate efficient facial-landmark networks.

    \b
    Try it without any data:
      nasface search --recipe demo --out runs/demo
    """
    logger = logging.getLogger("nasface")
    if not any(isinstance(handler, _WarningsToTerminal) for handler in logger.handlers):
        logger.addHandler(_WarningsToTerminal())
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # nasface has a limit of its own


class _WarningsToTerminal(logging.Handler):
    """Prints each warning as one line on standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:  # errors are also raised, and printed then
            click.secho(f"nasface: {printable(record.getMessage())}", fg="yellow", err=True)
