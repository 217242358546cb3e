"""Networks that tests export: each file is made once in a test session."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasface import plugins
from nasface.model.files import one
from nasface.stages.export.run import Exported, ExportOptions, NetworkAndFaces, export
from tests.extras import needs_openvino
from tests.searched import MACHINE, caching_in, once

FORMATS = [pytest.param("onnx"), pytest.param("openvino", marks=needs_openvino)]
# A network that was trained for two epochs is at the mercy of rounding, so int8 may lose what it likes here.
ANY_LOSS = 1000.0

Export = Callable[..., Exported]


@pytest.fixture
def export_once(searched: Path, tmp_path_factory: pytest.TempPathFactory, graphs_once: None) -> Export:
    """Export the searched run; each file is made once in a test session."""

    def make(form: str = "onnx", precision: Any = "fp32", **changes: Any) -> Exported:
        found: list[Exported] = []

        def write(folder: Path) -> None:
            with caching_in(searched):
                wish = ExportOptions(form, precision, max_loss=ANY_LOSS, calibrate=16, **changes)
                found.append(export(NetworkAndFaces(one(searched / "run")), wish, folder, MACHINE))
            (folder / "found.json").write_text(json.dumps(found[0].as_dict()))

        name = "-".join(["exported", form, precision, *map(str, changes)])
        folder = once(tmp_path_factory, name, write)
        content = json.loads((folder / "found.json").read_text())
        return replace(_exported(content), path=folder / Path(content["path"]).name)

    return make


def _exported(content: dict[str, Any]) -> Exported:
    from nasface.stages.export.compare import Difference

    return Exported(**{**content, "path": Path(content["path"]), "difference": Difference(**content["difference"])})


def faces(count: int = 3) -> list[np.ndarray]:
    """Images of synthetic faces."""
    dataset = plugins.dataset("synthetic", None, {"train": 0, "test": count, "size": 96})
    return [dataset.read(face) for face in dataset.index().faces]


BOX = np.array([[20.0, 25.0, 75.0, 80.0]])
