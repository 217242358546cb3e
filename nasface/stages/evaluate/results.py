"""The results of an evaluation: runs side by side, their mean and spread over seeds, and the worst faces."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasface import metrics, rundir
from nasface.data.prepare import PreparedFaces
from nasface.errors import DataError, RunError
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import DEFAULT_NORMALISER, MaskLevel
from nasface.stages.evaluate.landmarks_csv import write_predictions
from nasface.stages.faces import input_crops
from nasface.stages.measure import Accuracy, Evaluation, true_landmarks

if TYPE_CHECKING:
    from nasface.data.augment import DeviceFaces

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One run, or one file of predictions, after its evaluation.

    Attributes:
        name: the place of the networks as the user gave it, or the path of the file of predictions.
        recipe: the recipe that names the test faces.
        found: one result per network.
        test: the test faces.
        kind: see `kind_of`.
        shown: the test faces as the networks saw them, including masks; None for a file of predictions and where
            there is no test face.
    """

    name: str
    recipe: Recipe
    found: Sequence[Accuracy]
    test: PreparedFaces = field(repr=False)
    kind: tuple[str, ...] = ()
    shown: DeviceFaces | None = field(default=None, repr=False)

    @property
    def seed(self) -> int | None:
        """The seed of the recipe; None for a file of predictions, which any program may have written."""
        return self.recipe.seed if any(isinstance(found, Evaluation) for found in self.found) else None


@dataclass(frozen=True)
class Worst:
    """The faces on which a network has its greatest errors, worst first.

    Attributes:
        network: the network's name.
        images_NHWC: crops of the faces as the network saw them, RGB.
        predicted_NL2, true_NL2: landmarks in pixels of the crops.
        nmes_N: inter-ocular NME of each face, as a share.
        names: the names of the faces.
    """

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
        masked: the level of the synthetic masks on the test faces, or None.
    """

    cases: Sequence[Case]
    masked: MaskLevel | None = None

    @property
    def title(self) -> str:
        """One line that says what was evaluated and on which faces."""
        of = self.cases[0].name if len(self.cases) == 1 else f"{len(self.cases)} runs"
        return f"{of} on {self.cases[0].recipe.data.name}" + (f", masked: {self.masked}" if self.masked else "")

    def networks(self) -> Iterator[tuple[str, Accuracy, Case]]:
        """Every network under a unique name, which includes that of its case where there are several cases."""
        for label, case in zip(_labels(self.cases), self.cases, strict=True):
            for found in case.found:
                yield f"{label} {found.network}".strip(), found, case

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        `runs` has every case with its networks (`Evaluation.as_dict()`). `means` has one entry for every recipe that
        was run in the same way with several seeds: each figure of a network becomes {mean, std}, with ddof 1.
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
        """Write a CSV file with one row per network and test face: its subsets and its NME by normaliser.

        Raises:
            DataError: when there is no test face. The methods below raise it too.
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
        """Return up to `count` faces on which the last network does worst; faces without landmarks are left out."""
        _require_test_faces(self.cases)
        *_, (name, found, case) = self.networks()
        assert found.predicted_NL2 is not None
        nme_N = np.array([row[DEFAULT_NORMALISER.column] for row in found.faces])
        chosen = np.argsort(-nme_N, kind="stable")[: min(count, int(np.isfinite(nme_N).sum()))]
        images = case.test.images_NHWC[chosen]
        if case.shown is not None:
            images = case.shown.crops(chosen.tolist()).cpu().numpy()
        return Worst(
            name,
            input_crops(images, case.test.input_size),
            found.predicted_NL2[chosen],
            true_landmarks(case.test)[chosen],
            nme_N[chosen],
            [case.test.names[i] for i in chosen],
        )


def kind_of(place: Path) -> tuple[str, ...]:
    """Return how the networks at a place came about, as far as that is the same for all seeds; () where nobody knows.

    The recipe does not say which command followed it, and on what. job.json does, but names files that differ by seed.
    """
    path = RunDir(place if place.is_dir() else place.parent).job
    try:
        job = rundir.read_json(path, "the job of a run folder")
    except RunError:
        return ()
    if not isinstance(job, dict):
        return ()
    weights, teacher = job.get("weights", "random"), job.get("teacher", "none")
    return (
        str(job.get("job")),
        "random weights" if weights == "random" else "given weights",
        "the full graph" if job.get("edges") == "all" else "a sub-network",
        "a network teaches" if re.fullmatch("[0-9a-f]{64}", str(teacher)) else f"teacher {teacher}",
        f"backbone {job.get('backbone', 'none')}",
    )


def _labels(cases: Sequence[Case]) -> list[str]:
    """A label per case: empty for a single case, else its last folder, or its whole name where folders repeat."""
    if len(cases) == 1:
        return [""]
    short = [Path(case.name).resolve().name for case in cases]
    return short if len(set(short)) == len(short) else [case.name for case in cases]


def _require_test_faces(cases: Sequence[Case]) -> None:
    for case in cases:
        if not len(case.test):
            raise DataError(
                f"dataset '{case.recipe.data.name}' has no test face on disk to measure; give its folder with "
                "--data-root"
            )


def _seeds_of_one_recipe(cases: Sequence[Case]) -> list[list[int]]:
    """Indices of the cases that differ only in their seeds, in groups of two or more."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, case in enumerate(cases):
        if case.seed is not None:
            rest = case.recipe.model_dump_json(exclude={"seed": True, "description": True, "data": {"root"}})
            groups.setdefault((rest, *case.kind), []).append(i)
    several = [group for group in groups.values() if len(group) > 1]
    for group in list(several):
        seed, times = Counter(cases[i].seed for i in group).most_common(1)[0]
        if times > 1:
            several.remove(group)
            names = " and ".join(cases[i].name for i in group if cases[i].seed == seed)
            log.warning("no mean over seeds: %s have the same recipe and the same seed %d", names, seed)
    return several


def _spread(networks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of every figure, for the networks that all runs have."""
    common = [name for name in networks[0] if all(name in other for other in networks)]
    return {name: metrics.mean_std([other[name] for other in networks]) for name in common}
