"""The tutorial runs as it is printed: its files are written, its programs and commands started, on a small scale."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import supernet

from nasface import recipe as recipes
from nasface.testing import check_criterion
from tests.searched import SETTINGS

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "your-searcher.md"
SMALL = [pair for pair in SETTINGS if not pair.startswith(("search.options", "prune"))]


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(\w+)\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)


@pytest.fixture
def folder(blocks, tmp_path, monkeypatch):
    """The files of the tutorial in the working directory, the recipe with few faces and a small space."""
    for _, text in blocks:
        if named := re.match(r"# (\w+\.(py|yaml))\n", text):
            (tmp_path / named[1]).write_text(text)
    small = yaml.safe_load((tmp_path / "prox.yaml").read_text())
    recipes.override(small, SMALL)
    (tmp_path / "prox.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*args: str) -> str:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_check_passes_and_factors_become_zero(folder):
    zero, count = re.search(r"(\d+) of (\d+) factors are zero", start("check.py")).groups()
    assert 0 < int(zero) < int(count)


def test_the_commands_run_in_order(folder, blocks):
    for kind, text in blocks:
        for line in text.splitlines() if kind == "sh" else ():
            program, *args = shlex.split(line)
            start("-m", program, *args)
    assert {"factors.json", "factors-by_cost-per_mac.json"} <= {p.name for p in (folder / "runs" / "prox").iterdir()}
    arch = json.loads((folder / "runs" / "per-mac" / "arch.json").read_text())
    assert arch["edges"]
    assert recipes.load("per_mac.yaml").criterion.options == {"power": 0.25}


def test_the_criterion_conforms(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    from by_cost import per_mac

    check_criterion(per_mac, supernet(), input_size=32)
