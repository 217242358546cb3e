"""What is collected of an experiment: some of its folders are damaged, or have names with letters of patterns."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.experiment.compare.entries import Comparison
from nasface.stages.experiment.plan import Experiment, read_experiment
from nasface.stages.experiment.results import COSTS
from nasface.stages.experiment.run import collect, outline
from tests.refusal import names

FIGURES = {**dict.fromkeys(COSTS, 1), "held_out_nme": 0.1, "subsets": {}}
FINISHED = json.dumps({"networks": {"slim": FIGURES}, "compute": {"training": 100}})
TRUNCATED = FINISHED[:30]


def experiment(folder: Path, **plan: object) -> Experiment:
    path = folder / "plan.yaml"
    content = {"extends": "demo", "description": "a test", "experiment": {"seeds": [0, 1], **plan}}
    path.write_text(yaml.safe_dump(content))
    return read_experiment(str(path), None)


def compared(folder: Path, name: str = "whole") -> Experiment:
    row = {"prune": {"name": "budget"}}
    return experiment(folder, comparison={"budgets": [1e6], "reference": name, "rows": {name: row, "other": row}})


def finished(run: RunDir, recipe: Recipe, metrics: str = FINISHED) -> RunDir:
    """A run folder with such a metrics.json."""
    run.path.mkdir(parents=True)
    run.recipe.write_text(recipe.to_yaml())
    run.metrics.write_text(metrics)
    return run


def searched(plan: Experiment, out: Path, name: str, seed: int, metrics: str = FINISHED) -> RunDir:
    return finished(RunDir(out / f"{name}-{seed}"), plan.recipe({}, seed), metrics)


def row(plan: Experiment, out: Path, name: str, seed: int, metrics: str = FINISHED) -> RunDir:
    """The network of a row that is searched for its budget."""
    comparison = Comparison(plan, out)
    return finished(comparison.folder(name, 1e6, seed), comparison._recipe(name, 1e6, seed), metrics)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(("damaged", "left"), [("metrics", [0]), ("recipe", [0]), ("pareto", [0, 1])])
def test_a_damaged_folder_is_left_out_with_a_warning(
    tmp_path: Path, damaged: str, left: list[int], caplog: pytest.LogCaptureFixture
):
    plan, out = experiment(tmp_path, runs={"plain": {}}, sweeps={"sizes": {"count": 2}}), tmp_path / "out"
    runs = [searched(plan, out, "plain", seed) for seed in (0, 1)]
    path = getattr(RunDir(runs[1].path / "sizes") if damaged == "pareto" else runs[1], damaged)
    path.parent.mkdir(exist_ok=True)
    path.write_text(TRUNCATED)
    assert collect(plan, out).seed.tolist() == left
    assert pd.read_csv(out / "results.csv").seed.tolist() == left
    (said,) = warnings(caplog)
    names(said.splitlines()[0], path)


def test_a_damaged_folder_of_a_comparison_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    plan, out = compared(tmp_path), tmp_path / "out"
    row(plan, out, "whole", 0)
    damaged = row(plan, out, "whole", 1, TRUNCATED)
    for seed in (0, 1):
        row(plan, out, "other", seed)
    assert collect(plan, out).seed.tolist() == [0]
    (said,) = warnings(caplog)
    names(said, damaged.metrics)


@pytest.mark.parametrize("kind", ["search", "comparison"])
def test_truncated_figures_are_damage_and_not_the_end_of_a_run(tmp_path: Path, kind: str):
    out = tmp_path / "out"
    if kind == "search":
        plan = experiment(tmp_path, runs={"plain": {}})
        searched(plan, out, "plain", 0)
        run = searched(plan, out, "plain", 1, TRUNCATED)
    else:
        plan = compared(tmp_path)
        row(plan, out, "whole", 0)
        run = row(plan, out, "whole", 1, TRUNCATED)
    status = outline(plan, out).set_index("folder").status
    assert status[str(run.path)].startswith("damaged")
    names(status[str(run.path)], run.metrics)
    assert status[str(run.path).removesuffix("1") + "0"] == "finished"


@pytest.mark.parametrize("name", ["half[12]", "all*", "why?", "[!a]"])
def test_names_with_the_letters_of_patterns_are_names(tmp_path: Path, name: str):
    plan, out = experiment(tmp_path, runs={name: {}}), tmp_path / "runs"
    searched(plan, out, name, 0)
    assert collect(plan, out)[["run", "seed"]].to_numpy().tolist() == [[name, 0]]
    plan, out = compared(tmp_path, name), tmp_path / "rows"
    row(plan, out, name, 0)
    assert collect(plan, out)[["row", "seed"]].to_numpy().tolist() == [[name, 0]]
