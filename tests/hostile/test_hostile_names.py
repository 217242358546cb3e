"""Names of files that no text can hold are escaped wherever they are written, and cost no training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nasface import recipe as recipes
from nasface import rundir
from nasface.cli import main
from nasface.data.base import Face
from nasface.errors import printable
from nasface.rundir import RunDir
from nasface.stages.predict.pictures import Picture
from nasface.stages.predict.run import Seen
from nasface.stages.train import train
from tests.hostile.held import Tally, some
from tests.searched import MACHINE
from tests.unit.data_files import write_300w_face

NAME = os.fsdecode(b"x\xff")
SMALL = (
    "space.name=hrsupernet",
    "space.options={width: 2, stages: 3, resolutions: 2, stem_channels: 4, depth: 1}", "training.batch=4",
    "data.input_size=16", "finetune.epochs=1", "training.threads=1", "data.held_out=0.2",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A 300W with a test image that is called x\\xff.webp."""
    for number in range(16):
        write_300w_face(tmp_path / "300w", f"afw/{number}", seed=number)
    write_300w_face(tmp_path / "300w", f"helen/testset/{NAME}", seed=99, suffix=".webp")
    return tmp_path / "300w"


def test_a_test_image_called_x_ff_webp_does_not_cost_the_training(tally: Tally, root: Path, tmp_path: Path):
    run = RunDir(tmp_path / "run")
    recipe = recipes.assemble("300w-mini", None, "300w", root, SMALL)
    final = tally.held(lambda: train(recipe, run, MACHINE))
    assert json.loads(run.metrics.read_text()) == json.loads(json.dumps(final))
    errors = pd.read_csv(run.errors)
    assert errors["face"].tolist() == [r"helen/testset/x\xff"]
    assert np.isfinite(errors["nme_inter_ocular"]).all()
    assert run.log.read_text(encoding="utf-8")
    assert run.recipe.read_text(encoding="utf-8")


def test_the_check_names_what_cannot_be_named(tally: Tally, root: Path):
    image = root / "helen" / "testset" / f"{NAME}.webp"
    image.write_bytes(b"no image")
    result = CliRunner().invoke(main, ["data", "check", "--data-root", str(root), "--workers", "1"])
    assert result.exit_code == 2, result.exception
    assert r"x\xff" in result.stdout
    assert tally.command("data", "check", "--data-root", root, "--workers", "1", "--json") == 2
    assert tally.command("data", "check", "--data-root", root.parent / NAME) == 2


def test_figures_are_there_before_the_errors_of_faces(monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path):
    """Whatever goes wrong with errors.csv, metrics.json has been written."""
    run, write = RunDir(tmp_path / "run"), rundir.write_rows

    def fail(path: Path, *rows: Any, **how: Any) -> None:
        if path == run.errors:
            raise OSError("no more")
        write(path, *rows, **how)

    monkeypatch.setattr(rundir, "write_rows", fail)
    with pytest.raises(OSError, match="no more"):
        train(recipes.assemble("300w-mini", None, "300w", root, SMALL), run, MACHINE)
    assert "networks" in json.loads(run.metrics.read_text())


def test_names_are_written_as_text(tally: Tally, tmp_path: Path):
    @some
    @given(st.text(st.characters(), min_size=1, max_size=12))
    def attempt(name: str) -> None:
        tally.tried += 1
        face = Face(name, "test", (), np.zeros((1, 2)), None)
        path = tmp_path / "rows.csv"
        rundir.write_rows(path, [{"face": face.name, "raw": f"-{name}"}])
        kept = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")["face"].tolist()
        assert kept == [face.name]
        assert printable(face.name) == face.name
        assert not any(char in face.name for char in "\n\r\0")
        rundir.write_json(path, {"face": face.name, "raw": name})
        assert json.loads(path.read_text(encoding="utf-8"))["face"] == face.name
        rundir.write_text(path, name)

    attempt()


def test_predictions_name_the_image_as_text():
    from nasface.detect import FoundFaces

    none = FoundFaces(np.empty((0, 4)), np.empty((0, 5, 2)), np.empty((0, 5)), np.empty(0, np.int64))
    seen = Seen(Picture(Path(f"{NAME}.jpg"), NAME), None, np.asarray(Image.new("RGB", (8, 8))), none)
    assert seen.as_dict()["image"] == r"x\xff.jpg"
