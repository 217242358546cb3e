"""Results survive a power failure: the order of flushing and moving; and temporary files: who may remove them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasface import durable, rundir
from nasface.errors import RunError
from tests.refusal import refused

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks and flushed folders are those of POSIX")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object, int]]:
    """What reaches the disk, in order: ('flush' or 'move', number of the file, its size)."""
    seen: list[tuple[str, object, int]] = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        stat = os.fstat(handle)
        seen.append(("flush", stat.st_ino, stat.st_size))
        fsync(handle)

    def move(source: Path, target: Path) -> None:
        stat = Path(source).stat()
        seen.append(("move", stat.st_ino, stat.st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    return seen


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_file_is_flushed_whole_before_it_is_moved_and_its_folder_after(tmp_path, events):
    path = tmp_path / "arch.json"
    rundir.write_text(path, 1000 * "x")
    kinds = [(kind, number) for kind, number, _ in events]
    assert kinds == [("flush", inode(path)), ("move", inode(path)), ("flush", inode(tmp_path))]
    assert [size for _, number, size in events if number == inode(path)] == [1000, 1000]


def test_new_folders_are_entries_that_survive_too(tmp_path, events):
    assert durable.make_folder(tmp_path / "a" / "b")
    assert {number for _, number, _ in events} == {inode(tmp_path), inode(tmp_path / "a")}
    assert not durable.make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        durable.make_folder(tmp_path / "file")


def test_all_files_of_a_folder_are_flushed_before_it_is_moved(tmp_path, events):
    part, target = tmp_path / ".part-1", tmp_path / "whole"
    part.mkdir()
    for name in ("images.npy", "meta.json"):
        (part / name).write_text(name)
    durable.put(part, target)
    order = [number for _, number, _ in events]
    assert set(order[:2]) == {inode(target / "images.npy"), inode(target / "meta.json")}
    assert order[2:] == [inode(target), inode(target), inode(tmp_path)]
    assert [kind for kind, *_ in events] == ["flush", "flush", "flush", "move", "flush"]


def test_what_is_written_again_soon_is_not_waited_for(tmp_path, events):
    rundir.write_rows(tmp_path / "metrics.csv", [{"epoch": 1}], kept=False)
    assert [kind for kind, *_ in events] == ["move"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_while_flushing_leaves_the_old_file(tmp_path, monkeypatch, number):
    """A full disk may show only then."""
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with refused(RunError, path):
        rundir.write_json(path, {})
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_file_system_that_cannot_flush_folders_is_written_to_all_the_same(tmp_path, monkeypatch):
    def fail(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    rundir.write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


HOLDS = """
import sys
from pathlib import Path
from nasface import durable
with durable.temporary_folder(Path(sys.argv[1]), ".part-") as folder:
    (folder / "images.npy").write_text("half")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_temporary_folder_lives_as_long_as_its_process(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        durable.remove_abandoned(tmp_path.iterdir())
        assert len(list(tmp_path.glob(".part-*/images.npy"))) == 1
        process.send_signal(signal.SIGKILL)
    durable.remove_abandoned(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_is_gone_after_the_block_also_when_it_fails(tmp_path):
    def fail() -> None:
        with durable.temporary_folder(tmp_path, ".a.", ".partial") as folder:
            (folder / "file").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_took_for_abandoned_is_made_again(tmp_path, monkeypatch):
    made = []
    mkdir = Path.mkdir

    def swept_once(path: Path) -> None:
        mkdir(path)
        if not made:
            durable.remove_abandoned([path])  # before it is locked
        made.append(path)

    monkeypatch.setattr(Path, "mkdir", swept_once)
    with durable.temporary_folder(tmp_path, ".a.") as folder:
        assert [folder] == made[1:]
        assert folder.exists()


def test_without_locks_only_what_is_old_is_removed(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    young, old, folder = tmp_path / "young", tmp_path / "old", tmp_path / "folder"
    young.touch()
    old.touch()
    folder.mkdir()
    (folder / "images.npy").touch()
    past = time.time() - durable.STALE_S - 1
    os.utime(old, (past, past))
    os.utime(folder, (past, past))  # but not what is in it
    durable.remove_abandoned(tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"young", "folder"}
    os.utime(folder / "images.npy", (past, past))
    durable.remove_abandoned(tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"young"}
    rundir.write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_link_with_the_name_of_a_temporary_file_leads_to_nothing_being_removed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    folder.mkdir()
    (outside / "mine").touch()
    (folder / ".a.partial").symlink_to(outside / "mine")
    (folder / ".b.partial").symlink_to(outside)
    rundir.remove_partials(folder)
    assert [path.name for path in outside.iterdir()] == ["mine"]
