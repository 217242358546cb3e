"""Files of a run: written whole or not at all, and read back with one sentence that says what is wrong."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

from nasface import durable, rundir
from nasface.errors import RunError
from nasface.rundir import RunDir, atomic
from tests.refusal import names, refused

WRITERS = {
    "text": lambda path: rundir.write_text(path, "new"),
    "json": lambda path: rundir.write_json(path, {"new": 1}),
    "rows": lambda path: rundir.write_rows(path, [{"new": 1}]),
    "tensors": lambda path: rundir.write_tensors(path, {"new": torch.ones(3)}),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_names_are_distinct_and_inside_the_folder():
    run = RunDir(Path("runs/a"))
    properties = [name for name, value in vars(RunDir).items() if isinstance(value, property)]
    paths = [getattr(run, name) for name in properties] + [run.checkpoint("search"), run.checkpoint("finetune")]
    assert len(set(paths)) == len(paths) == len(properties) + 2
    assert all(run.path in path.parents for path in paths)
    assert not run.path.exists()


@every_writer
def test_writing_makes_folders_replaces_files_and_leaves_nothing_else(tmp_path, write):
    path = tmp_path / "a" / "b" / "file"
    for _ in range(2):
        write(path)
        assert b"new" in path.read_bytes()
        assert listing(path.parent) == ["file"]


@every_writer
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path, write, mask, mode):
    before = os.umask(mask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@every_writer
def test_the_old_file_is_replaced_not_overwritten(tmp_path, write):
    """A process that has the old file open keeps reading it."""
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("old")
    link.hardlink_to(path)
    write(path)
    assert link.read_text() == "old"
    assert b"new" in path.read_bytes()


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half a new")
            assert temporary.parent.parent == tmp_path  # the same disk, so that the move is atomic
            assert path.read_text() == "old"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, number):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    real = Path.write_text

    def half(self, text, **options):
        real(self, text[: len(text) // 2], **options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", half)
    for write in (WRITERS["text"], WRITERS["json"]):
        with refused(RunError, "no space left", path, "--out"):
            write(path)
        assert path.read_text() == "old"
        assert listing(tmp_path) == ["metrics.json"]


def test_a_disk_that_fills_up_under_tensors_is_the_same_sentence(tmp_path, monkeypatch):
    """safetensors hides the number of the error in its text."""

    def full(*args, **kwargs):
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with refused(RunError, "no space left", tmp_path / "slim.safetensors", "--out"):
        WRITERS["tensors"](tmp_path / "slim.safetensors")
    assert listing(tmp_path) == []


LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
from nasface import durable, rundir
from nasface.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (
    lambda: rundir.write_tensors(Path(sys.argv[1], "weights"), {"a": torch.zeros(10_000)}),
    lambda: rundir.write_text(Path(sys.argv[1], "text"), 5000 * "x"),
    lambda: rundir.write_rows(Path(sys.argv[1], "rows"), [{"a": i} for i in range(5000)]),
):
    try:
        write()
    except RunError as err:
        print(err)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_write_that_the_system_stops_half_way_leaves_the_old_files(tmp_path):
    for name in ("weights", "text", "rows"):
        (tmp_path / name).write_text("old")
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    for line, name in zip(done.stdout.splitlines(), ("weights", "text", "rows"), strict=True):
        names(line, tmp_path / name, "--out")
    assert listing(tmp_path) == ["rows", "text", "weights"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


@every_writer
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path, write):
    (tmp_path / "file").write_text("")
    with refused(RunError, tmp_path / "file" / "below", "--out"):
        write(tmp_path / "file" / "below")
    (tmp_path / "folder").mkdir()
    with refused(RunError, tmp_path / "folder", "--out"):
        write(tmp_path / "folder")
    assert listing(tmp_path) == ["file", "folder"]


def test_json_round_trip_and_faults(tmp_path):
    path = tmp_path / "a.json"
    rundir.write_json(path, {"nme": 0.1, "none": None, "list": [1, 2]})
    assert rundir.read_json(path, "figures") == {"nme": 0.1, "none": None, "list": [1, 2]}
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        rundir.write_json(path, {"nme": float("nan")})
    assert json.loads(path.read_text())["nme"] == 0.1
    path.write_text('{"nme": ')
    with refused(RunError, path, "figures", "line 1"):
        rundir.read_json(path, "figures")


@pytest.mark.parametrize("read", [rundir.read_json, rundir.read_text])
def test_what_cannot_be_read_says_what_was_expected(tmp_path, read):
    with refused(RunError, tmp_path / "nowhere.json", "the figures"):
        read(tmp_path / "nowhere.json", "the figures")
    with refused(RunError, tmp_path, "the figures"):
        read(tmp_path, "the figures")
    (tmp_path / "latin").write_bytes("Gr\xfc\xdfe".encode("latin-1"))
    with refused(RunError, tmp_path / "latin", "the figures"):
        read(tmp_path / "latin", "the figures")


def test_rows_with_other_columns_share_one_table(tmp_path):
    rundir.write_rows(tmp_path / "m.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "held_out_nme": 0.1}])
    table = pd.read_csv(tmp_path / "m.csv")
    assert list(table.columns) == ["epoch", "loss", "held_out_nme"]
    assert table.loss.tolist() == [0.5, 0.25]
    assert table.held_out_nme.isna().tolist() == [True, False]


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "view": torch.arange(12).view(3, 4).T,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(7),
        "half": torch.randn(3).bfloat16(),
    }
    rundir.write_tensors(path, tensors, {"title": "search"})
    found, meta = rundir.read_tensors(path)
    assert meta == {"title": "search"}
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(found[name], value.detach())
        assert found[name].dtype == value.dtype
    rundir.write_tensors(path, {"a": torch.ones(1)})
    assert rundir.read_tensors(path)[1] == {}


def test_bad_tensor_files_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with refused(RunError, path, "safetensors"):
        rundir.read_tensors(path)
    rundir.write_tensors(path, {"a": torch.ones(100)})
    whole = path.read_bytes()
    for damage in (b"", b"pickle", whole[:-7], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damage)
        with refused(RunError, path, "safetensors"):
            rundir.read_tensors(path)
    with refused(RunError, tmp_path, "safetensors"):
        rundir.read_tensors(tmp_path)


def test_what_killed_writes_have_left_is_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    left = [".slim.safetensors.x3k9_a2b", ".metrics.csv.abcdefgh", ".job.json.q1w2e3r4.partial"]
    left = [tmp_path / name for name in left] + [tmp_path / "checkpoints" / ".search.safetensors.abcd1234.partial"]
    kept = [
        tmp_path / name
        for name in (
            ".lock",
            ".gitignore",
            "slim.safetensors",
            "recipe.yaml",
            "a.partial",
            ".mine.partial",
            ".film.mp4.chromium.partial",
        )
    ]
    for path in (*left, *kept):
        path.write_text("x")
    rundir.remove_partials(tmp_path)
    assert [path for path in (*left, *kept) if path.exists()] == kept


@every_writer
def test_a_write_that_is_going_on_is_told_from_other_files(tmp_path, write, monkeypatch):
    """Another process tidies up while the file is complete but not yet in place."""
    flush = durable.flush

    def tidy(path: Path) -> None:
        rundir.remove_partials(tmp_path)
        flush(path)

    monkeypatch.setattr(durable, "flush", tidy)
    write(tmp_path / "file")
    assert b"new" in (tmp_path / "file").read_bytes()


def test_the_first_write_into_a_folder_removes_what_a_killed_process_has_left(tmp_path: Path):
    (tmp_path / ".slim.safetensors.q1w2e3r4.partial").write_text("half")
    rundir.write_text(tmp_path / "other.json", "{}")
    assert listing(tmp_path) == ["other.json"]
