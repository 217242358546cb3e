"""Some kills of the campaign of `tests.faults`; `make test-faults` is the long one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="torn files are found in /proc"),
]


def test_killed_commands_end_with_the_bits_of_undisturbed_ones():
    command = [sys.executable, "-m", "tests.faults", "--kills", "6"]
    command += ["--only", "search", "sweep-thresholds", "data prepare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    ((epoch, write, elsewhere, total),) = re.findall(r"^all +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.M)
    assert int(total) == int(epoch) + int(write) + int(elsewhere) == 6
    assert int(epoch) + int(write) >= 3
