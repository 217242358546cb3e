"""Import by name: 'module:attr', where modules of the working directory are found too.

Files are data. The parsers in `nasface.untrusted` call `note` with the content of every file, and a name that was noted
is imported only if the person has given it too: typed as an option, in a Python program, or with `allow`.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from nasface.errors import RecipeError, described, did_you_mean, shortened

_given: set[str] = set()  # by the person, to this process
_noted: dict[str, str] = {}  # found in files -> the last of these files
_imported: set[str] = set()


class NotImportableError(Exception):
    """An object that cannot be imported; the text says why, in one line."""


class NotAllowedError(RecipeError):
    """A name that only a file gives."""


def allow(*names: str) -> None:
    """Let files name these plug-ins, given as 'module:attr', for as long as this process runs."""
    _given.update(names)


@contextmanager
def allowing(*names: str) -> Iterator[None]:
    """Let files name these plug-ins while the block runs."""
    new = set(names) - _given
    _given.update(new)
    try:
        yield
    finally:
        _given.difference_update(new)


def given() -> list[str]:
    """Return what files may name in this process, to `allow` the same in a process that it starts."""
    return sorted(_given)


def imported() -> list[str]:
    """Return what this process has imported by 'module:attr', for the record; it allows nothing."""
    return sorted(_imported)


def note(content: object, file: object) -> None:
    """Remember every name in the content of a file, so that none of them is imported on the file's word alone.

    Args:
        content: see `names_in`.
        file: where it was read, for messages.
    """
    _noted.update(dict.fromkeys(names_in(content), str(file)))


def names_in(content: object) -> Iterator[str]:
    """Yield every text that could be a 'module:attr', at any depth of what YAML or JSON can hold."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if ":" in value:
                yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:  # YAML aliases share values
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, Mapping) else value


def import_attr(name: str) -> object:
    """Import an object.

    Args:
        name: 'module:attr'. As with `python -m`, the working directory is searched; installed modules take precedence.

    Raises:
        NotAllowedError: a file gives this name, and the person has not.
        NotImportableError: there is no such module or attribute, or the module raises anything as it is imported.
    """
    if name in _noted and name not in _given:
        raise NotAllowedError(
            f"{_noted[name]} names '{name}', which is code and not an installed plug-in; if you trust it, give "
            f"--allow-plugin {name} (in Python: nasface.importing.allow), or install it as an entry point"
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found = pkgutil.resolve_name(name)
    except (Exception, SystemExit) as err:
        raise NotImportableError(described(err)) from err
    _given.add(name)  # no file gave it: files that this process writes and reads again may
    _imported.add(name)
    return found


def resolve(
    kind: str, name: str, own: Callable[[], object] | None, known: Iterable[str], hint: str
) -> Callable[..., Any]:
    """Return the function or class that a name stands for.

    Args:
        kind: what it is, for messages.
        name: the name; 'module:attr' unless `own` is given.
        own: loads what has this name.
        known: the names that there are, for messages.
        hint: what else can be done, for messages.

    Raises:
        RecipeError: if there is nothing of this name, or if it cannot be imported or called.
        NotAllowedError: see `import_attr`.
    """
    said = shortened(name)
    if own is None and ":" not in name:
        raise RecipeError(f"there is no {kind} '{said}'; {did_you_mean(name, known)} ({hint})")
    try:
        found = own() if own else import_attr(name)
    except NotAllowedError:
        raise
    except (Exception, SystemExit) as err:  # a plug-in's module may raise anything
        why = str(err) if isinstance(err, NotImportableError) else described(err)
        raise RecipeError(
            f"the {kind} '{said}' cannot be imported ({why}); install its package, or correct the name or the module"
        ) from err
    if not callable(found):
        raise RecipeError(f"the {kind} '{said}' is a {type(found).__name__}; expected a function or a class")
    return cast(Callable[..., Any], found)
