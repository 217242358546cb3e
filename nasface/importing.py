"""Import by name: 'module:attr', where modules of the working directory are found too."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from nasface.errors import described


class NotImportableError(Exception):
    """An object that cannot be imported; the text says why, in one line. Callers turn it into an error of their own."""


def import_attr(name: str) -> object:
    """Import an object.

    Args:
        name: 'module:attr'. As with `python -m`, the working directory is searched; installed modules take precedence.

    Raises:
        NotImportableError: there is no such module or attribute, or the module raises anything as it is imported.
    """
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return pkgutil.resolve_name(name)
    except (Exception, SystemExit) as err:
        raise NotImportableError(described(err)) from err
