"""Checksums of what is kept on disk: they find accidental changes, and do not protect against forgery."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCK = 1 << 20


def checksum(parts: Iterable[bytes | memoryview]) -> str:
    """Return the CRC-32 of bytes in eight hexadecimal digits."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return f"{value:08x}"


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
