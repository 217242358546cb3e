"""Files as a stranger may have made them: a module that leaves a trace when it runs, and files that name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

_numbers = count()


@dataclass(frozen=True)
class Payload:
    """Code outside of installed packages.

    Attributes:
        name: as a file names it.
        trace: the file that exists once the code has run.
    """

    name: str
    trace: Path

    @property
    def ran(self) -> bool:
        """Whether the code has run."""
        return self.trace.exists()


def payload(folder: Path) -> Payload:
    """Write a module that nobody has named yet into the working directory `folder`."""
    module, trace = f"stranger{next(_numbers)}", folder / "trace"
    lines = ("from pathlib import Path", f"Path({str(trace)!r}).touch()", "def run(*args, **kwargs): pass")
    (folder / f"{module}.py").write_text("\n".join(lines))
    return Payload(f"{module}:run", trace)


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each text is in the content of a file, as keys and positions; edges are left out."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        if isinstance(value, str):
            yield (*path, key)
        elif key not in ("edges", "networks"):
            yield from leaves(value, (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: object) -> Any:
    """Return content with one value replaced."""
    key, *rest = path
    new = replaced(content[key], tuple(rest), value) if rest else value
    if isinstance(content, dict):
        return {**content, key: new}
    return [*content[:key], new, *content[key + 1 :]]
