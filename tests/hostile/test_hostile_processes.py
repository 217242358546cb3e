"""The worst inputs, given to real processes with a limit on memory and time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.held import Tally
from tests.hostile.test_hostile_annotations import landmarks
from tests.hostile.test_hostile_images import BIG, IMAGES
from tests.hostile.test_hostile_recipes import aliases

pytestmark = pytest.mark.slow

MEMORY = 1 << 30  # bytes that a process may use
ADDRESSES = 6 << 30  # of address space: torch alone maps more than it uses
SECONDS = 10  # of processor time, the loading of libraries included
WALL = 240  # of time on the clock, on a busy machine


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CPU, (3 * SECONDS, 3 * SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# A process counts the memory of the one that it was forked from as its own, so a small one stands between.
WATCH = """
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *sys.argv[2:]])
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    print(os.waitstatus_to_exitcode(status), 1024 * used.ru_maxrss, used.ru_utime + used.ru_stime, file=file)
"""


def run(*args: object) -> tuple[int, str, int, float]:
    """Exit code, output, largest memory in bytes and processor seconds of a command."""
    with tempfile.NamedTemporaryFile("r") as figures:
        done = subprocess.run(
            [sys.executable, "-c", WATCH, figures.name, "-m", "nasface", *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="backslashreplace", preexec_fn=limited,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        code, memory, seconds = figures.read().split()
    return int(code), done.stdout, int(memory), float(seconds)


def hostile_300w(root: Path) -> Path:
    folder = root / "afw"
    folder.mkdir(parents=True)
    for name in ("bits", "pipe", "zero", "loop"):
        (folder / f"{name}.pts").write_text("\n".join(landmarks()))
    (folder / "bits.png").write_bytes(IMAGES["bits.png"])
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    return root


CASES = ("aliases", "stages", "images", "prepare", "pipe", "faces")


@pytest.mark.parametrize("case", CASES)
def test_within_a_gigabyte_and_ten_seconds(tally: Tally, tmp_path: Path, case: str):
    recipe = tmp_path / "a.yaml"
    recipe.write_text(aliases(9))
    os.mkfifo(tmp_path / "arch.json")
    data = hostile_300w(tmp_path / "data")
    args, fact = {
        "aliases": (["search", "--recipe", recipe], "aliases"),
        "stages": (["count", "--space", "hrsupernet", "--set", f"stages={10**9}"], "stages"),
        "images": (["data", "check", "--data-root", data], f"{BIG} x {BIG}"),
        "prepare": (["data", "prepare", "--recipe", "300w-mini", "--data-root", data], "4 faces are damaged"),
        "pipe": (["count", "--arch", tmp_path / "arch.json"], "named pipe"),
        "faces": (["data", "prepare", "--recipe", "demo", "--set", f"data.options.train={10**12}"], "train"),
    }[case]
    code, output, memory, seconds = run(*args)
    tally.tried += 1
    assert code == 2, output[-2000:]
    assert fact in output
    assert "Traceback" not in output
    assert memory < MEMORY, f"{memory >> 20} MiB"
    assert seconds < SECONDS, f"{seconds:.1f} s"


LARGEST = {
    "all": ("hrsupernet", "--input-size=4096", "--landmarks=10000", "stem_channels=1024", "width=64"),
    "wide": ("hrsupernet", "encoder=residual", "width=250", "resolutions=4", "stages=3", "depth=1"),
    "parts": ("hrsupernet", "stages=64", "resolutions=5", "depth=1", "width=4"),
}


@pytest.mark.parametrize("case", LARGEST)
def test_the_largest_networks_are_counted_within_a_gigabyte(tally: Tally, case: str):
    space, *options = LARGEST[case]
    words = [part for option in options for part in ([option] if option.startswith("-") else ["--set", option])]
    code, output, memory, seconds = run("count", "--space", space, *words)
    tally.tried += 1
    assert code == 0, output[-2000:]
    assert memory < MEMORY, f"{memory >> 20} MiB"
    assert seconds < 3 * SECONDS, f"{seconds:.1f} s"  # 1,555 edges are traced; a busy machine takes more than its time


def test_the_largest_image_that_is_read_takes_less_than_a_gigabyte(tally: Tally, tmp_path: Path):
    size, path = 8000, tmp_path / "a.png"
    Image.new("RGB", (size, size)).save(path, compress_level=1)
    code = (
        "import sys; from pathlib import Path; from nasface.data.images import decode; "
        "print(decode(Path(sys.argv[1])).shape, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=WALL, check=True
    )
    tally.tried += 1
    assert str(size) in found.stdout
    assert 1024 * int(found.stdout.split()[-1]) < MEMORY
