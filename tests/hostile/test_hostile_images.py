"""Images that are damaged, or that would fill the memory: they are refused by their headers."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nasface.data.images import MAX_PIXELS, decode, file_digest
from nasface.errors import DataError, NasfaceError
from nasface.model.network import read_image
from tests.hostile.held import Tally, some


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 1, colour: int = 0, rows: bytes = b"") -> bytes:
    """A PNG of this size, in which zeros take next to no room."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
    )


BIG = 13_000
IMAGES = {
    "bits.png": png(BIG, BIG, rows=bytes((BIG // 8 + 1) * 100)),
    "wide.png": png(2**31 - 1, 1),
    "tall.png": png(1, 2**31 - 1),
    "huge.png": png(2**31 - 1, 2**31 - 1),
    "none.png": png(0, 0),
    "short.png": png(100, 100),
    "deep.png": png(50_000, 50_000, 16, 6),
    "twice.png": png(8, 8, rows=bytes(16)) * 2,
    "big.bmp": bmp(100_000, 100_000),
    "negative.bmp": bmp(100, -100),
    "minus.bmp": bmp(-100, 100),
    "big.ppm": b"P6 100000 100000 255\n",
    "big.pgm": b"P5 99999 99999 255\n",
    "digits.ppm": b"P6 " + b"9" * 400 + b" 1 255\n",
    "letters.ppm": b"P6 x y z\n",
    "big.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0",
    "empty.jpg": b"",
    "zero.jpg": b"\0" * 1000,
    "soi.jpg": b"\xff\xd8\xff\xe0",
    "text.jpg": b"no image",
    "zip.jpg": b"PK\3\4" + b"\0" * 60,
    "ps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n",
    "html.png": b"<html>",
    "riff.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "tiff.tif": b"II*\0\xff\xff\xff\xff",
    "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "jp2.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 50,
    "size.jpg": b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01\xff\xd9",
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(tally: Tally, tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(IMAGES[name])
    found = [tally.held(lambda read=read: read(path), name) for read in (decode, read_image)]
    assert isinstance(found[0], NasfaceError) == isinstance(found[1], NasfaceError)
    tally.held(lambda: file_digest(path), name)
    if isinstance(found[0], np.ndarray):
        assert found[0].size <= 3 * MAX_PIXELS


def test_an_image_that_grows_to_gigabytes_is_refused_by_its_header(tally: Tally, tmp_path: Path):
    path = tmp_path / "bits.png"
    path.write_bytes(IMAGES["bits.png"])
    found = tally.held(lambda: decode(path))
    assert isinstance(found, DataError)
    assert f"{BIG} x {BIG}" in str(found)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_cut_images(tally: Tally, tmp_path: Path, kind: str):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path, kind)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 20)):
        path.write_bytes(whole[:length])
        tally.held(lambda: decode(path), (kind, length))
        tally.held(lambda: read_image(path), (kind, length))


def test_changed_images(tally: Tally, tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    whole = path.read_bytes()

    @some
    @given(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=8))
    def attempt(start: int, put: bytes) -> None:
        path.write_bytes(whole[:start] + put + whole[start + len(put) :])
        tally.held(lambda: decode(path), (start, put))
        tally.held(lambda: read_image(path), (start, put))

    attempt()
