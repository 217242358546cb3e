"""Evaluate networks, or landmarks that any program has written, on the same test faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from nasface.errors import RunError
from nasface.model.files import Saved
from nasface.recipe import Recipe
from nasface.scores import MaskLevel
from nasface.stages.evaluate.landmarks_csv import Missing, read_predictions
from nasface.stages.evaluate.networks import evaluate_all, load_tested
from nasface.stages.evaluate.results import Case, Comparison, kind_of
from nasface.stages.faces import load_prepared
from nasface.stages.machine import Machine
from nasface.stages.measure import Evaluation, measure


@dataclass(frozen=True)
class Subject:
    """Networks to evaluate.

    Attributes:
        name: their place as the user gave it.
        recipe: the test faces, and how the networks see them.
        networks: the networks at that place.
    """

    name: str
    recipe: Recipe
    networks: Sequence[Saved]


@dataclass(frozen=True)
class Predictions:
    """A CSV file of landmarks to evaluate, written by any program.

    Attributes:
        path: the file.
        recipe: the test faces.
        one_based, missing: how to read the file, see `read_predictions`.
    """

    path: Path
    recipe: Recipe
    one_based: bool = False
    missing: Missing = "error"


def evaluate(
    recipe: Recipe, machine: Machine, networks: Sequence[Saved], masked: MaskLevel | None = None
) -> list[Evaluation]:
    """Evaluate networks on the test faces that a recipe names, seen as the recipe says."""
    return evaluate_all(recipe, machine, networks, load_tested(recipe, machine, networks, masked))


def compare(subjects: Sequence[Subject | Predictions], machine: Machine, masked: MaskLevel | None = None) -> Comparison:
    """Evaluate several subjects on the same test faces.

    Args:
        subjects: one or more, with different names.
        machine: device and progress.
        masked: the level of synthetic masks with which to cover the faces that networks see.

    Raises:
        RunError: when the subjects do not have the same test faces.
    """
    cases: list[Case] = []
    for _, group in groupby(subjects, key=lambda subject: (type(subject), subject.recipe.data)):
        part = list(group)
        cases += _run([subject for subject in part if isinstance(subject, Subject)], machine, masked)
        cases += _judge([subject for subject in part if isinstance(subject, Predictions)], machine)
        _refuse_other_faces(cases[0], cases[-1])
    return Comparison(cases, masked)


def _run(subjects: Sequence[Subject], machine: Machine, masked: MaskLevel | None) -> list[Case]:
    """Evaluate networks that share one dataset."""
    if not subjects:
        return []
    networks = [saved for subject in subjects for saved in subject.networks]
    faces = load_tested(subjects[0].recipe, machine, networks, masked)
    return [
        Case(
            subject.name,
            subject.recipe,
            evaluate_all(subject.recipe, machine, subject.networks, faces),
            faces.prepared["test"],
            kind_of(Path(subject.name)),
            faces.shown,
        )
        for subject in subjects
    ]


def _judge(subjects: Sequence[Predictions], machine: Machine) -> list[Case]:
    """Evaluate files of landmarks for one dataset."""
    if not subjects:
        return []
    prepared = load_prepared(subjects[0].recipe, machine)
    test, others = prepared["test"], prepared["train"].names
    cases = []
    for subject in subjects:
        predictions = read_predictions(
            subject.path, test, others=others, one_based=subject.one_based, missing=subject.missing
        )
        found = [measure(name, points_NL2, test) for name, points_NL2 in predictions.items()]
        cases.append(Case(str(subject.path), subject.recipe, found, test))
    return cases


def _refuse_other_faces(first: Case, other: Case) -> None:
    if (first.recipe.data.name, first.test.names) != (other.recipe.data.name, other.test.names):
        raise RunError(
            f"{first.name} would be evaluated on {len(first.test)} faces of {first.recipe.data.name}, but {other.name} "
            f"on {len(other.test)} faces of {other.recipe.data.name}, and these are not the same faces; give --dataset "
            "and --data-root for all of them, or evaluate them one by one"
        )
