"""The notebooks of analysis/, executed as notebooks on small runs: they end, print and draw."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from nasface.model.source import read_source
from nasface.rundir import RunDir
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure, sweep
from tests.searched import MACHINE, caching_in, recipe

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[2] / "analysis"
NAMES = ("factors.py", "pareto.py", "run.py", "figure6.py")
TOPOLOGIES = ("hrnet-residual", "hrsupernet-residual", "hrnet-mbconv", "hrsupernet-mbconv")


@pytest.fixture(scope="module")
def swept(run: RunDir, folder: Path) -> RunDir:
    """A searched run and a sweep below it."""
    with caching_in(folder):
        wanted, measure = SweepRequest(count=4), Measure(latency_repeats=1)
        sweep(recipe(), run, RunDir(run.path / "sweep"), wanted, measure, MACHINE)
    return run


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables that an experiment leaves, two seeds; the HRSuperNet is one point better."""
    folder, rows = tmp_path_factory.mktemp("experiment"), []
    for name in TOPOLOGIES:
        for seed in (0, 1):
            swept = pd.DataFrame(
                {
                    "network": ["a", "b", "c"], "state": "done", "arch": "arch.json", "macs": [3e7, 2e7, 1e7],
                    "params": [3e5, 2e5, 1e5], "on_front": True, "pruner": "threshold", "seed": seed,
                    "held_out_nme_finetuned": [0.04 - 0.01 * name.startswith("hrsuper") + 0.01 * i for i in range(3)],
                    "images_common": 554,
                }
            )  # fmt: skip
            swept["nme_common_finetuned"] = swept["held_out_nme_finetuned"]
            place = folder / f"{name}-{seed}" / "threshold"
            place.mkdir(parents=True)
            swept.to_csv(place / "pareto.csv", index=False)
            nme = swept["held_out_nme_finetuned"]
            rows.append(swept.assign(run=name, part="threshold", held_out_nme=nme, nme_common=nme))
            rows.append(
                swept.head(1).assign(run=name, part="search", network="supernet", held_out_nme=nme, nme_common=nme)
            )
    pd.concat(rows).drop(columns=["nme_common_finetuned", "held_out_nme_finetuned"]).to_csv(
        folder / "results.csv", index=False
    )
    return folder


@pytest.fixture(scope="module")
def shown(swept: RunDir, experiment: Path, folder: Path) -> dict[str, tuple[str, int]]:
    """What each notebook prints, and how many figures it shows.

    One kernel executes them all, since it takes longer to start than they do, and forgets all names between them.
    """
    read = {name: jupytext.read(NOTEBOOKS / name) for name in NAMES}
    whole = jupytext.read(NOTEBOOKS / NAMES[0])
    whole.cells = [
        cell for notebook in read.values() for cell in (nbformat.v4.new_code_cell("%reset -f"), *notebook.cells)
    ]
    with caching_in(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASFACE_RUN", str(swept.path))
        patch.setenv("NASFACE_EXPERIMENT", str(experiment))
        NotebookClient(whole, timeout=300, kernel_name="python3").execute()
    return {name: _shown(notebook) for name, notebook in read.items()}


def _shown(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    figures = sum("image/svg+xml" in output.get("data", {}) for output in outputs)
    return text, figures


def test_factors(swept, shown):
    text, figures = shown["factors.py"]
    kept = len(read_source(swept.arch).arch.kept)
    assert f"hrflex: {kept} of " in text
    assert figures == 2


def test_pareto(shown):
    text, figures = shown["pareto.py"]
    assert "4 networks, evaluated BN recalibrated" in text
    assert "knee: e0" in text
    assert figures == 2


def test_a_run_of_ones_own(shown):
    text, figures = shown["run.py"]
    assert "full (16 of 16)" in text
    assert figures == 2


def test_figure_6(shown):
    text, figures = shown["figure6.py"]
    assert text.count("difference") == 2
    assert "-1.0" in text
    assert figures == 2


def test_every_notebook_is_tested_here():
    assert {path.name for path in NOTEBOOKS.glob("*.py")} == {*NAMES}
