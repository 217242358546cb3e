"""Refusals are tested by their class and by the facts that the sentence names, not by its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(error: type[Exception], *facts: object) -> Iterator[None]:
    """The block must raise this error, with one sentence that names all facts: a file, value, limit, option or name."""
    with pytest.raises(error) as caught:
        yield
    names(str(caught.value), *facts)


def names(sentence: str, *facts: object) -> None:
    """The sentence must be one line that names all facts."""
    assert "\n" not in sentence, sentence
    assert not [fact for fact in facts if str(fact) not in sentence], sentence
