"""A check of refusals by their class and the facts that their sentence names, whatever its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception], *facts: object) -> Iterator[None]:
    """The block raises `kind` with one line that contains every fact."""
    with pytest.raises(kind) as err:
        yield
    said = str(err.value)
    assert [fact for fact in facts if str(fact) not in said] == [], said
    assert "\n" not in said
