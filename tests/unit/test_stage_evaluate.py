"""Several runs side by side: which are averaged, what they are called, and what is refused."""

from __future__ import annotations

import json
import logging
import statistics
from pathlib import Path

import numpy as np
import pytest
from data_files import toy

from nasface.data.crop import PrepareOptions
from nasface.data.prepare import PreparedFaces, prepare
from nasface.errors import DataError
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import NetworkCost
from nasface.sections import Data
from nasface.stages.evaluate.results import Case, Comparison, kind_of
from nasface.stages.measure import Evaluation, measure, true_landmarks
from tests.refusal import names, refused

pytestmark = pytest.mark.slow


def faces(count: int = 5) -> PreparedFaces:
    return prepare(toy(test=count), PrepareOptions(input_size=32), workers=1)["test"]


def evaluation(test: PreparedFaces, seed: int, name: str = "slim") -> Evaluation:
    """A network whose landmarks are some pixels off and whose cost depends on the seed."""
    points = true_landmarks(test) + np.random.default_rng(seed).normal(0, 2, (len(test), 3, 2))
    cost = NetworkCost(params=100 + seed, macs=10, params_no_head=9, macs_no_head=8, macs_prunable=7, edges=6, blocks=5)
    return Evaluation.of(measure(name, points if len(test) else None, test), cost, float("nan"))


def case(name: str, seed: int, test: PreparedFaces, **change: object) -> Case:
    recipe = Recipe(seed=seed).model_copy(update=change)
    return Case(name, recipe, [evaluation(test, seed, "supernet"), evaluation(test, 10 + seed)], test)


def test_seeds_of_one_recipe_are_averaged():
    test = faces()
    plain = Comparison([case(f"runs/{i}", i, test) for i in range(3)]).as_dict()
    assert [(run["run"], run["label"], run["seed"]) for run in plain["runs"]] == [
        (f"runs/{i}", f"{i}", i) for i in range(3)
    ]
    (mean,) = plain["means"]
    assert (mean["runs"], mean["seeds"]) == (["0", "1", "2"], [0, 1, 2])
    for network in ("supernet", "slim"):
        figures = [run["networks"][network] for run in plain["runs"]]
        found = mean["networks"][network]
        assert found["params"] == {"mean": statistics.mean(f["params"] for f in figures), "std": 1.0}
        assert found["held_out_nme"] == {"mean": None, "std": None}
        for subset in ("full", "hard"):
            ours, theirs = found["subsets"]["box"][subset], [f["subsets"]["box"][subset] for f in figures]
            assert (ours["images"], ours["expected"]) == (theirs[0]["images"], theirs[0]["expected"])
            assert ours["nme"]["mean"] == pytest.approx(statistics.mean(s["nme"] for s in theirs))
            assert ours["nme"]["std"] == pytest.approx(statistics.stdev(s["nme"] for s in theirs))
            assert ours["auc"]["0.08"]["std"] == pytest.approx(statistics.stdev(s["auc"]["0.08"] for s in theirs))
            assert "ced" not in ours


def test_other_recipes_and_repeated_seeds_are_not(caplog: pytest.LogCaptureFixture):
    test = faces()
    others = [case("a", 0, test), case("b", 1, test, data=Data(margin=2))]
    assert Comparison(others).as_dict()["means"] == []
    mixed = Comparison([*others, case("c", 2, test, data=Data(margin=2))]).as_dict()
    assert [mean["runs"] for mean in mixed["means"]] == [["b", "c"]]
    with caplog.at_level(logging.WARNING, "nasface"):
        assert Comparison([case("a", 0, test), case("b", 0, test)]).as_dict()["means"] == []
    (warning,) = [record.getMessage() for record in caplog.records]
    names(warning, "a and b", "seed 0")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"job": "search"}, {"job": "search"}, True),
        ({"job": "search"}, {"job": "search", "weights": "ab"}, False),
        ({"job": "train", "edges": "ab", "weights": "cd"}, {"job": "train", "edges": "12", "weights": "34"}, True),
        ({"job": "train", "edges": "ab", "weights": "cd"}, {"job": "train", "edges": "ab", "weights": "random"}, False),
        ({"job": "train", "edges": "all", "weights": "ab"}, {"job": "train", "edges": "ab", "weights": "ab"}, False),
        ({"job": "distill", "teacher": "a" * 64}, {"job": "distill", "teacher": "b" * 64}, True),
        ({"job": "distill", "teacher": "a" * 64}, {"job": "distill", "teacher": "none"}, False),
        ({"job": "prune", "from": "/a"}, {"job": "prune", "from": "/b"}, True),
        (["search"], {"job": "search"}, False),
    ],
)
def test_seeds_are_of_one_kind_of_job(tmp_path: Path, one: object, other: object, alike: bool):
    runs = [RunDir(tmp_path / name) for name in ("one", "other")]
    assert kind_of(runs[0].path) == ()
    for run, job in zip(runs, (one, other), strict=True):
        run.path.mkdir()
        run.job.write_text(json.dumps(job))
    kinds = [kind_of(run.path) for run in runs]
    assert (kinds[0] == kinds[1]) is alike
    assert kind_of(runs[0].slim) == kinds[0]


def test_names_are_as_short_as_they_can_be():
    test = faces()

    def shown(*cases: str) -> list[str]:
        return [name for name, _, _ in Comparison([case(c, i, test) for i, c in enumerate(cases)]).networks()]

    assert shown("runs/a") == ["supernet", "slim"]
    assert shown("runs/a", "runs/b") == ["a supernet", "a slim", "b supernet", "b slim"]
    assert shown("x/a", "y/a") == ["x/a supernet", "x/a slim", "y/a supernet", "y/a slim"]


def test_the_worst_faces_are_those_with_the_greatest_errors():
    test = faces(6)
    points = true_landmarks(test)
    points[[1, 3, 4]] += np.array([[[8.0]], [[2.0]], [[np.nan]]])
    comparison = Comparison([Case("x.csv", Recipe(), [measure("x", points, test)], test)])
    worst = comparison.worst(2)
    assert list(worst.names) == ["test/1", "test/3"]
    assert worst.images_NHWC.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(
        worst.images_NHWC[0], test.images_NHWC[1, test.pad : test.pad + 32, test.pad : test.pad + 32]
    )
    np.testing.assert_allclose(worst.predicted_NL2 - worst.true_NL2, [[[8.0] * 2] * 3, [[2.0] * 2] * 3])
    assert worst.nmes_N[0] == max(
        r["nme_inter_ocular"] for r in comparison.cases[0].found[0].faces if r["face"][-1] != "4"
    )
    assert len(comparison.worst(12).names) == 5  # the face without landmarks is not drawn


def test_without_test_faces_nothing_is_written(tmp_path: Path):
    comparison = Comparison([case("a", 0, faces(0))])
    assert comparison.as_dict()["runs"][0]["networks"]["slim"]["subsets"] == {}
    for write in (comparison.write_errors, comparison.save_predictions, lambda _: comparison.worst(1)):
        with refused(DataError, "'300w'", "--data-root"):
            write(tmp_path / "x.csv")
    assert not list(tmp_path.glob("x*"))
