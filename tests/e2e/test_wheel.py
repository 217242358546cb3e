"""A wheel works outside the checkout: spaces, recipes, help, and the networks that come with it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from nasface import plugins

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True
    )
    (wheel,) = folder.glob("nasface-*.whl")
    ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


# Prints where the packages are and what commands print; one process does all of this, as its start takes longest.
PROGRAM = """
import json, sys
import nasface, searchspaces
from click.testing import CliRunner
from nasface.cli import main
said = [CliRunner().invoke(main, words, catch_exceptions=False).stdout for words in json.loads(sys.argv[1])]
print(json.dumps([nasface.__file__, searchspaces.__file__, *said]))
"""


def run(installed: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_has_spaces_recipes_help_and_a_network(installed: Path):
    faces = plugins.dataset("synthetic", None, {"train": 0, "test": 1, "size": 256})
    Image.fromarray(faces.read(faces.index().faces[0])).save(installed.parent / "photo.png")
    commands = [
        ["plugins", "--json"],
        ["count", "--space", "hrsupernet", "--json"],
        ["predict", "photo.png", "--json"],
        ["models"],
    ]
    *places, listed, counted, predicted, models = json.loads(run(installed, "-c", PROGRAM, json.dumps(commands)))
    assert all(path.startswith(str(installed)) for path in places)
    rows = json.loads(listed)
    assert {row["name"] for row in rows if row["kind"] in ("recipe", "experiment")} == {
        p.stem for p in (ROOT / "experiments").glob("*.yaml")
    }
    assert json.loads(counted)["params"] == 3_403_430
    assert [len(face["landmarks"]) for face in json.loads(predicted)["images"][0]["faces"]] == [68]
    assert "face68" in models


def test_a_wheel_has_the_program(installed: Path):
    assert "Example" in run(installed, "-m", "nasface", "search", "--help")
