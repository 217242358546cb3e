"""What Ctrl-C leads to, while the program loads and while it works: one line and exit code 130."""

from __future__ import annotations

import sys
from typing import NoReturn

EXIT_CODE = 130  # 128 + SIGINT, as shells count


def leave() -> NoReturn:
    """Say that the command was interrupted, and exit."""
    print(
        "\nnasface: interrupted; run the same command again to continue from what is finished, or from the last epoch",
        file=sys.stderr,
    )
    # CPython ends a process by SIGINT, whatever its exit code, once an interrupt has passed through code that was
    # compiled from a string (dataclasses do that as modules load). Running another such piece clears the mark.
    exec("")
    sys.exit(EXIT_CODE)
