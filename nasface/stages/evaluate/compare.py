"""What networks, or any other program, achieve on a test set: runs side by side, their mean and spread over seeds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasface import engine, metrics, rundir
from nasface.data.augment import DeviceFaces
from nasface.data.prepare import PreparedFaces
from nasface.errors import DataError, RunError
from nasface.recipe import Recipe
from nasface.scores import DEFAULT_NORMALISER

if TYPE_CHECKING:
    from nasface.data.masks import Level
from nasface.stages.evaluate.landmarks_csv import Missing, read_predictions, write_predictions
from nasface.stages.faces import Faces, load_faces, load_prepared
from nasface.stages.measure import Accuracy, Evaluation, evaluate_net, measure, true_landmarks
from nasface.stages.networks import arch_graph, build_net, load_net, net_costs
from nasface.stages.sources import Networks
from nasface.stages.workspace import Machine, use_threads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What to evaluate: a name (the run folder as given), the recipe, and networks of its space."""

    name: str
    recipe: Recipe
    networks: Networks


@dataclass(frozen=True)
class Case:
    """What was found of a subject.

    Attributes:
        name, recipe: of the subject; the name of a file of predictions is its path.
        found: one for each network.
        test: the test faces.
        shown: the same as the networks saw them, masks and all; None for a file of predictions or without test face.
    """

    name: str
    recipe: Recipe
    found: Sequence[Accuracy]
    test: PreparedFaces = field(repr=False)
    shown: DeviceFaces | None = field(default=None, repr=False)

    @property
    def seed(self) -> int | None:
        """Of the recipe; None for a file of predictions, which any program may have made."""
        return self.recipe.seed if any(isinstance(found, Evaluation) for found in self.found) else None


@dataclass(frozen=True)
class Worst:
    """The faces with the greatest errors of a network: crops, points in their pixels, inter-ocular NMEs."""

    network: str
    images_NHWC: NDArray[np.uint8]
    predicted_NL2: NDArray[np.float64]
    true_NL2: NDArray[np.float64]
    nmes_N: NDArray[np.float64]
    names: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Cases evaluated on the same test faces.

    Attributes:
        cases: one or more.
        masked: how the test faces were covered, if they were.
    """

    cases: Sequence[Case]
    masked: Level | None = None

    @property
    def title(self) -> str:
        """What was evaluated on which faces, in a line."""
        of = self.cases[0].name if len(self.cases) == 1 else f"{len(self.cases)} runs"
        return f"{of} on {self.cases[0].recipe.data.name}" + (f", masked: {self.masked}" if self.masked else "")

    def networks(self) -> Iterator[tuple[str, Accuracy, Case]]:
        """Every network under a name of its own: that of its case and its own, where there are several cases."""
        for label, case in zip(_labels(self.cases), self.cases, strict=True):
            for found in case.found:
                yield f"{label} {found.network}".strip(), found, case

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        `runs` has every case with its networks (`Evaluation.as_dict()`), and `means` those of several seeds of one
        recipe: each figure of a network as {mean, std}, with ddof 1.
        """
        labels = _labels(self.cases)
        runs: list[dict[str, Any]] = [
            {
                "run": case.name,
                "label": label,
                "seed": case.seed,
                "networks": {found.network: found.as_dict() for found in case.found},
            }
            for label, case in zip(labels, self.cases, strict=True)
        ]
        means = [
            {
                "runs": [labels[i] for i in group],
                "seeds": [self.cases[i].seed for i in group],
                "networks": _spread([runs[i]["networks"] for i in group]),
            }
            for group in _seeds_of_one_recipe(self.cases)
        ]
        return {"data": self.cases[0].recipe.data.name, "masked": self.masked, "runs": runs, "means": means}

    def write_errors(self, path: Path) -> None:
        """Write a csv of one row for each network and test face: its subsets and its NME by normaliser.

        Raises:
            DataError: when there is no test face; so do the methods below.
        """
        _require_test_faces(self.cases)
        rows = [
            {"run": case.name, "network": found.network} | dict(row)
            for case in self.cases
            for found in case.found
            for row in found.faces
        ]
        rundir.write_rows(path, rows)

    def save_predictions(self, path: Path) -> None:
        """Write the landmarks of every network in pixels of the original images; see `write_predictions`."""
        _require_test_faces(self.cases)
        found = ((name, found.predicted_NL2, case.test) for name, found, case in self.networks())
        write_predictions(path, ((name, points, test) for name, points, test in found if points is not None))

    def worst(self, count: int) -> Worst:
        """The faces on which the last network does worst, those without landmarks left out."""
        _require_test_faces(self.cases)
        *_, (name, found, case) = self.networks()
        assert found.predicted_NL2 is not None
        nme_N = np.array([row[DEFAULT_NORMALISER.column] for row in found.faces])
        chosen = np.argsort(-nme_N, kind="stable")[: min(count, int(np.isfinite(nme_N).sum()))]
        images = case.test.images_NHWC[chosen]
        if case.shown is not None:
            images = case.shown.images_NHWC[chosen.tolist()].cpu().numpy()
        window = slice(case.test.pad, case.test.pad + case.test.input_size)
        return Worst(
            name,
            images[:, window, window],
            found.predicted_NL2[chosen],
            true_landmarks(case.test)[chosen],
            nme_N[chosen],
            [case.test.names[i] for i in chosen],
        )


def evaluate(recipe: Recipe, machine: Machine, networks: Networks, masked: Level | None = None) -> list[Evaluation]:
    """Evaluate networks, given by name as (architecture, or None for the full graph; weights)."""
    return _evaluate(recipe, machine, networks, _load(recipe, machine, masked))


def compare(subjects: Sequence[Subject], machine: Machine, masked: Level | None = None) -> Comparison:
    """Evaluate the networks of several subjects on the same test faces.

    Args:
        subjects: one or more, their names different.
        machine: device and progress.
        masked: cover the test faces with synthetic masks of this level.

    Raises:
        RunError: when they are not evaluated on the same faces.
    """
    cases: list[Case] = []
    faces: Faces | None = None
    for i, subject in enumerate(subjects):
        if faces is None or subject.recipe.data != subjects[i - 1].recipe.data:
            faces = _load(subject.recipe, machine, masked)
        found = _evaluate(subject.recipe, machine, subject.networks, faces)
        cases.append(Case(subject.name, subject.recipe, found, faces.prepared["test"], faces.test))
        _refuse_other_faces(cases[0], cases[-1])
    return Comparison(cases, masked)


def judge(
    recipe: Recipe, machine: Machine, paths: Sequence[Path], *, one_based: bool = False, missing: Missing = "error"
) -> Comparison:
    """Evaluate landmarks that any program has written as csv; see `read_predictions`."""
    test = load_prepared(recipe, machine)["test"]
    cases = []
    for path in paths:
        predictions = read_predictions(path, test, one_based=one_based, missing=missing)
        found = [measure(name, points_NL2, test) for name, points_NL2 in predictions.items()]
        cases.append(Case(str(path), recipe, found, test))
    return Comparison(cases)


def _load(recipe: Recipe, machine: Machine, masked: Level | None) -> Faces:
    faces = load_faces(recipe, engine.pick_device(machine.device), machine, training=False)
    if masked is None or faces.test is None:
        return faces
    from nasface.data.masks import cover

    return replace(faces, test=cover(faces.test, masked))


def _evaluate(recipe: Recipe, machine: Machine, networks: Networks, faces: Faces) -> list[Evaluation]:
    device = engine.pick_device(machine.device)
    use_threads(recipe)
    num_landmarks = faces.train.scheme.num_landmarks
    costs = net_costs(build_net(recipe, num_landmarks, device), recipe)
    found = []
    for name, (arch, weights) in networks.items():
        full = build_net(recipe, num_landmarks, device)  # afresh: inheriting changes the parent's weights
        graph = full.graph if arch is None else arch_graph(arch, full)
        found.append(evaluate_net(name, load_net(full, graph, weights), recipe, faces, costs))
    return found


def _labels(cases: Sequence[Case]) -> list[str]:
    """What to call each case: nothing where it is alone, its last folder, or its whole name where folders repeat."""
    if len(cases) == 1:
        return [""]
    short = [Path(case.name).resolve().name for case in cases]
    return short if len(set(short)) == len(short) else [case.name for case in cases]


def _require_test_faces(cases: Sequence[Case]) -> None:
    for case in cases:
        if not len(case.test):
            raise DataError(f"{case.recipe.data.name}: no test face on disk to measure; give the data with --data-root")


def _refuse_other_faces(first: Case, other: Case) -> None:
    if (first.recipe.data.name, first.test.names) != (other.recipe.data.name, other.test.names):
        raise RunError(
            f"{first.name} is evaluated on {len(first.test)} faces of {first.recipe.data.name} and {other.name} on "
            f"{len(other.test)} of {other.recipe.data.name}, not all the same; give both one --dataset and "
            "--data-root, or evaluate them one by one"
        )


def _seeds_of_one_recipe(cases: Sequence[Case]) -> list[list[int]]:
    """Numbers of the cases that differ in their seed alone, two or more together."""
    groups: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        if case.seed is not None:
            rest = case.recipe.model_dump_json(exclude={"seed": True, "description": True, "data": {"root"}})
            groups.setdefault(rest, []).append(i)
    several = [group for group in groups.values() if len(group) > 1]
    for group in list(several):
        seed, times = Counter(cases[i].seed for i in group).most_common(1)[0]
        if times > 1:
            several.remove(group)
            names = " and ".join(cases[i].name for i in group if cases[i].seed == seed)
            log.warning("no mean over seeds: %s have the same recipe and seed", names)
    return several


def _spread(networks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of every figure of the networks that all have, in the form of theirs."""
    common = [name for name in networks[0] if all(name in other for other in networks)]
    return {name: metrics.mean_std([other[name] for other in networks]) for name in common}
