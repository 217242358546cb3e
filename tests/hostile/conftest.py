"""The tally of hostile inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.hostile.held import Tally


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """The tally of a test; pytest prints the sum over all tests."""
    count = Tally()
    yield count
    record_property("hostile", count.tried)
