"""An experiment is a recipe with a plan: which runs, sweeps and distillations are done, over which seeds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import Len
from pydantic import Field, ValidationError, model_validator

from nasface import plugins
from nasface import recipe as recipes
from nasface.bounds import MAX_COUNT, Count, Epochs, Seed, Share, Some
from nasface.errors import RecipeError, RunError
from nasface.places import is_own
from nasface.recipe import Recipe
from nasface.sections import Section
from nasface.stages.distill.teacher import teacher_digest
from nasface.stages.experiment.compare.plan import ComparisonPlan, Name, RowPlan, budgeted, takes_budget

log = logging.getLogger(__name__)


class SweepPlan(Section):
    """A sweep of every searched run; see `nasface sweep-thresholds`."""

    shares: Annotated[tuple[Share, ...], Len(0, MAX_COUNT)] = ()
    count: Count = 0
    pruner: str = "threshold"
    options: dict[str, Any] = Field(default_factory=dict)
    draws: Some = 1
    epochs: Epochs = 0


class Plan(Section):
    """What an experiment consists of.

    runs: name -> what it changes in the recipe; each run is searched once per seed.
    sweeps: by name; each is made of every run.
    compare: groups of runs that are set side by side at equal MACs; all together where none is given.
    teacher: a run that is trained once per seed and teaches; without it, the searched supernets teach.
    teachers: name -> what it changes in the recipe; more such runs, which variants name in `teacher_from`.
    distill: name -> what a variant changes in the section `distill`; each is made of every run's slim network.
    comparison: instead of runs, rows that are compared at equal cost and equal compute.
    """

    seeds: Annotated[tuple[Seed, ...], Len(1, 1000)] = (0,)
    runs: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    sweeps: dict[Name, SweepPlan] = Field(default_factory=dict)
    compare: tuple[tuple[str, ...], ...] = ()
    teacher: dict[str, Any] | None = None
    teachers: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    distill: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    comparison: ComparisonPlan | None = None

    @model_validator(mode="after")
    def _runs_or_comparison(self) -> Self:
        if bool(self.runs) == (self.comparison is not None):
            raise ValueError("an experiment has either `runs` or a `comparison`; give one of them")
        return self

    @model_validator(mode="after")
    def _folders_differ(self) -> Self:
        schools = {"teacher", *(f"teacher-{name}" for name in self.teachers)}
        for name in self.runs:
            if name in schools and (self.teacher is not None or self.teachers):
                raise ValueError(f"the run '{name}' would have the folder of a teacher; rename it")
        for title in (*self.sweeps, *self.distill):
            if is_own(title) or (title in self.sweeps and title in self.distill):
                other = "a file or folder of a run" if is_own(title) else "both a sweep and a variant"
                raise ValueError(f"'{title}' is the name of {other}; rename it")
        return self


@dataclass(frozen=True)
class Experiment:
    """A plan over a base recipe.

    Attributes:
        name: of the recipe.
        base: the content of the recipe without the plan.
        overrides: of the form 'a.b=value'; they take precedence over everything else.
    """

    name: str
    plan: Plan
    base: Mapping[str, Any]
    overrides: Sequence[str] = ()

    def recipe(self, changes: Mapping[str, Any], seed: int, distill: Mapping[str, Any] | None = None) -> Recipe:
        """Resolve the recipe of one run, or of a variant of its distillation."""
        return recipes.resolve(self.content(changes, seed, distill), f"experiment '{self.name}'")

    def content(
        self, changes: Mapping[str, Any], seed: int, distill: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the content of that recipe, unchecked."""
        content = recipes.merge(recipes.merge(dict(self.base), {**changes, "seed": seed}), {"distill": distill or {}})
        recipes.override(content, self.overrides)
        return content


def read_experiment(
    name: str, data_root: Path | None, overrides: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Experiment:
    """Read a shipped experiment or a YAML file; a RecipeError when it is not one or something in it is wrong."""
    content = recipes.read(name)
    plan = content.pop("experiment", None)
    if plan is None:
        raise RecipeError(f"recipe '{name}' has no section 'experiment'; run it with `nasface search --recipe {name}`")
    try:
        checked = Plan.model_validate(plan)
    except ValidationError as err:
        raise RecipeError(plugins.explain(err, f"experiment '{name}'")) from err
    if strange := [run for group in checked.compare for run in group if run not in checked.runs]:
        raise RecipeError(f"experiment '{name}' compares '{strange[0]}', which is not one of its runs")
    if data_root is not None:
        content = recipes.merge(content, {"data": {"root": str(data_root.resolve())}})
    if seeds:
        checked = checked.model_copy(update={"seeds": tuple(seeds), "comparison": _at_these_seeds(checked.comparison)})
    experiment = Experiment(name, checked, content, overrides)
    _check(experiment)
    return experiment


def _at_these_seeds(comparison: ComparisonPlan | None) -> ComparisonPlan | None:
    """Return a comparison whose claims ask for no other seeds."""
    if comparison is None:
        return None
    claims = tuple(claim.model_copy(update={"seeds": 0}) for claim in comparison.claims)
    return comparison.model_copy(update={"claims": claims})


def _check(experiment: Experiment) -> None:
    """Resolve every recipe now, so that a mistake in the last run does not show after hours."""
    plan = experiment.plan
    if plan.comparison is not None:
        for name, row in plan.comparison.rows.items():
            _check_row(experiment, name, row, plan.comparison.budgets)
    for changes in plan.runs.values():
        experiment.recipe(changes, 0)
        for title, how in plan.distill.items():
            _check_teacher(experiment, title, experiment.recipe(changes, 0, how))
    for lessons in (plan.teacher or {}, *plan.teachers.values()):
        experiment.recipe(lessons, 0)
    for title, planned in plan.sweeps.items():
        if not planned.shares and not planned.count:
            raise RecipeError(
                f"sweep '{title}' of experiment '{experiment.name}' requests no network; give it `shares` or a `count`"
            )
        if planned.pruner != "threshold":
            plugins.pruner(planned.pruner, {**planned.options, "share": 0.5})


def _check_row(experiment: Experiment, name: str, row: RowPlan, budgets: Sequence[float]) -> None:
    """Raise a RecipeError if a row of a comparison cannot be resolved, or has nothing to give the budget to."""
    where = f"row '{name}' of experiment '{experiment.name}'"
    content = experiment.content(row.changes, 0)
    if row.searches and row.best_of is None:
        if row.serves_all and takes_budget(content):
            raise RecipeError(f"{where}: its searcher is given the budget, so no search serves all; remove serves_all")
        content = budgeted(content, budgets[0], budgets, where)
    recipes.resolve(content, where)


def _check_teacher(experiment: Experiment, title: str, recipe: Recipe) -> None:
    """Raise a RecipeError if a variant names a teacher that the experiment does not train and that does not exist."""
    name = recipe.distill.teacher_from
    if not recipe.distill.teacher or name is None or name in experiment.plan.teachers:
        return
    try:
        teacher_digest(name)
    except RunError as err:
        known = ", ".join(experiment.plan.teachers) or "none"
        raise RecipeError(
            f"variant '{title}' of experiment '{experiment.name}' has the teacher '{name}', which is neither one of "
            f"the experiment's teachers ({known}) nor a run folder, a file of weights or a network as 'module:attr'"
        ) from err
