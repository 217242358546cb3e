"""A wheel works outside the checkout: spaces, recipes, help, and the networks that come with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

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
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def run(installed: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nasface", *args],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_package_is_the_wheel(installed: Path):
    done = subprocess.run(
        [sys.executable, "-c", "import nasface, searchspaces; print(nasface.__file__, searchspaces.__file__)"],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(installed)) for path in done.stdout.split())


def test_spaces_recipes_and_help(installed: Path):
    rows = json.loads(run(installed, "plugins", "--json"))
    assert {row["name"] for row in rows if row["kind"] in ("recipe", "experiment")} == {
        p.stem for p in (ROOT / "experiments").glob("*.yaml")
    }
    assert json.loads(run(installed, "count", "--space", "hrsupernet", "--json"))["params"] == 3_403_430
    assert "Example" in run(installed, "search", "--help")


def test_a_network_is_in_the_box(installed: Path):
    faces = plugins.dataset("synthetic", None, {"train": 0, "test": 1, "size": 256})
    Image.fromarray(faces.read(faces.index().faces[0])).save(installed.parent / "photo.png")
    found = json.loads(run(installed, "predict", "photo.png", "--json"))
    assert [len(face["landmarks"]) for face in found["images"][0]["faces"]] == [68]
    assert "face68" in run(installed, "models")
