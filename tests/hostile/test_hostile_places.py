"""Pipes, devices, links and odd names in place of files, inside of folders and on command lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from nasface import detect, rundir, videos
from nasface.cli import main
from nasface.data.check import check
from nasface.data.cofw import COFW
from nasface.data.images import decode, file_digest
from nasface.data.prepare import prepare
from nasface.data.w300 import W300, read_pts
from nasface.data.wflw import WFLW
from nasface.model.network import read_image
from nasface.stages.predict.pictures import find_pictures
from tests.hostile.held import Tally
from tests.hostile.test_hostile_numbers import commands


def places(folder: Path) -> dict[str, Path]:
    """What may stand where a file or folder is expected."""
    (folder / "text").write_text("hello\n")
    (folder / "empty").touch()
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    for name, target in (("loop", "loop"), ("zero", "/dev/zero"), ("lost", "nowhere"), ("a", "b"), ("b", "a")):
        (folder / name).symlink_to(target)
    (folder / os.fsdecode(b"x\xff")).write_text("x")
    names = (
        "text",
        "empty",
        "binary",
        "folder",
        "pipe",
        "loop",
        "zero",
        "lost",
        "a",
        os.fsdecode(b"x\xff"),
        "missing",
        "n" * 300,
        "n/" * 300,
        "a\nb",
        "..",
        "~",
        "",
    )
    return {name: folder / name for name in names}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    folder = tmp_path / "odd"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return places(folder)


FILES: dict[str, Callable[[Path], Any]] = {
    "image": decode,
    "photo": read_image,
    "digest": file_digest,
    "hash": rundir.file_digest,
    "points": read_pts,
    "boxes": detect.read_boxes,
    "json": lambda path: rundir.read_json(path, "JSON"),
    "text": lambda path: rundir.read_text(path, "text"),
    "weights": rundir.read_tensors,
    "300w": lambda path: W300(path).index(),
    "wflw": lambda path: WFLW(path).index(),
    "cofw": lambda path: COFW(path).index(),
    "pictures": lambda path: find_pictures([path]),
    "video": videos.probe,
}


@pytest.mark.parametrize("reader", FILES)
def test_places_in_place_of_files(tally: Tally, odd: dict[str, Path], reader: str):
    for name, path in odd.items():
        tally.held(lambda path=path: FILES[reader](path), (reader, name))


SUFFIXES = (".jpg", ".pts", ".csv", ".xml", ".mat", ".safetensors", ".json", ".yaml", ".mp4")


def test_places_inside_of_folders(tally: Tally, tmp_path: Path):
    root = tmp_path / "data"
    for number, suffix in enumerate(SUFFIXES):
        folder = root / "afw"
        folder.mkdir(parents=True, exist_ok=True)
        os.mkfifo(folder / f"pipe{suffix}")
        (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
        (folder / f"zero{suffix}").symlink_to("/dev/zero")
        (folder / f"dir{suffix}").mkdir()
        (folder / os.fsdecode(f"x{number}".encode() + b"\xff" + suffix.encode())).write_text("x")
        os.mkfifo(root / f"train{suffix}")
    (root / "afw" / "again").symlink_to("..")
    for read in (
        lambda: check(W300(root)),
        lambda: prepare(W300(root), cache=tmp_path / "cache"),
        lambda: W300(root, annotations="csv").index(),
    ):
        tally.held(read)
    tally.held(lambda: W300(root, annotations="xml").index())
    tally.held(lambda: find_pictures([root]))


def takes_place(option: click.Parameter) -> bool:
    return isinstance(option.type, click.Path) or (option.type is click.STRING and option.name not in ("title",))


@pytest.mark.parametrize("command", [path for path, _ in commands(main)], ids=" ".join)
def test_places_on_command_lines(tally: Tally, odd: dict[str, Path], command: tuple[str, ...]):
    found = dict(commands(main))[command]
    missing = {"--out": "out", "--criterion": "alpha", "--arch": "nowhere.json", "--study": "nowhere"}
    required = [
        part
        for option in found.params
        if option.required and isinstance(option, click.Option)
        for part in (option.opts[0], missing[option.opts[0]])
    ]
    arguments = [option for option in found.params if isinstance(option, click.Argument)]
    for option in found.params:
        if not takes_place(option):
            continue
        for name, path in odd.items():
            given = str(path) if name else ""
            if isinstance(option, click.Argument):
                code = tally.command(*command, *required, given)
            else:
                code = tally.command(*command, *required, *["nowhere" for _ in arguments], option.opts[0], given)
            assert code == 2 or command == ("plugins",) or name == "folder", (command, option.name, name)
