"""The section `comparison` of an experiment: budgets, rows and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from annotated_types import Interval, Len
from pydantic import AfterValidator, Field, model_validator

from nasface import plugins
from nasface import recipe as recipes
from nasface.bounds import Some
from nasface.errors import RecipeError, did_you_mean
from nasface.places import name_fault
from nasface.sections import Section

Changes = dict[str, Any]


def _named(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(f"the name {name[:120]!r} {fault}")
    return name


Name = Annotated[str, AfterValidator(_named)]
"""The name of a run, row, sweep, variant or teacher, which becomes part of the name of a folder."""


class RowPlan(Section):
    """A way to a network within a budget: a search, or what could be done instead of one.

    space, augmentation, training, search, criterion, prune, finetune: what the row changes in these sections.
    thin: options of the space, such as [width], that are scaled together until the budget is met; no search.
    graph_of: the row whose graphs are trained from scratch; no search.
    best_of: number of random sub-networks of the searched supernet, of which the best one on held-out faces is trained.
    serves_all: whether one search serves all budgets, so that each network bears only its part of the search.
    """

    space: Changes = Field(default_factory=dict)
    augmentation: Changes = Field(default_factory=dict)
    training: Changes = Field(default_factory=dict)
    search: Changes = Field(default_factory=dict)
    criterion: Changes = Field(default_factory=dict)
    prune: Changes = Field(default_factory=dict)
    finetune: Changes = Field(default_factory=dict)
    thin: Annotated[tuple[str, ...], Len(1)] | None = None
    graph_of: str | None = None
    best_of: Some | None = None
    serves_all: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("thin", "graph_of", "best_of") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a row has either {' or '.join(given)}; leave out one of them")
        if self.serves_all and not self.searches:
            raise ValueError("a row without a search cannot have serves_all; leave it out")
        return self

    @property
    def searches(self) -> bool:
        """Whether the row searches."""
        return self.thin is None and self.graph_of is None

    @property
    def changes(self) -> Changes:
        """What the row changes in the recipe, by section."""
        sections = ("space", "augmentation", "training", "search", "criterion", "prune", "finetune")
        return {name: getattr(self, name) for name in sections if getattr(self, name)}


class Claim(Section):
    """A claim that a row is better than others.

    row: the row.
    against: the rows that it is compared with, besides the best `thin` row.
    seeds: number of seeds, from 0, for these rows; the experiment's own where those are more.
    """

    row: str
    against: tuple[str, ...] = ()
    seeds: Annotated[int, Interval(ge=0, le=1000)] = 0


class ComparisonPlan(Section):
    """Rows that are compared at equal MACs of the whole network and equal compute.

    budgets: multiply-adds of the whole network, which no network may exceed.
    reference: the row whose compute, at the same budget and seed, all other rows get.
    rows: by name.
    claims: the claims.
    """

    budgets: Annotated[tuple[Annotated[float, Interval(gt=0, le=1e15)], ...], Len(1)]
    reference: str
    rows: Annotated[dict[Name, RowPlan], Len(1)]
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Self:
        if twice := [budget for budget in self.budgets if self.budgets.count(budget) > 1]:
            raise ValueError(f"the budget {twice[0]:,.12g} is given twice; leave one of them out")
        named = [self.reference, *(row.graph_of for row in self.rows.values() if row.graph_of is not None)]
        for name in (*named, *(name for claim in self.claims for name in (claim.row, *claim.against))):
            if name not in self.rows:
                raise ValueError(f"there is no row '{name}'; {did_you_mean(name, self.rows)}")
        reference = self.rows[self.reference]
        if not reference.searches or reference.serves_all or reference.best_of:
            raise ValueError(
                f"the reference '{self.reference}' must be a search that is given the budget, without thin, graph_of, "
                "best_of and serves_all"
            )
        for name, row in self.rows.items():
            if row.graph_of is not None and not self.rows[row.graph_of].searches:
                raise ValueError(f"the row '{name}' takes the graphs of '{row.graph_of}', which does not search")
        return self

    def part_of(self, budget: float) -> float:
        """Return the part of a search for all budgets that the network of one of them bears: as its MACs are."""
        return budget / sum(self.budgets)

    def seeds_of(self, name: str, seeds: tuple[int, ...]) -> list[int]:
        """Return the seeds of a row, if those of the experiment are `seeds`: those, and those of its claims."""
        more = [claim.seeds for claim in self.claims if name in (claim.row, *claim.against)]
        return sorted({*seeds, *range(max(more, default=0))})


def takes_budget(content: Mapping[str, Any]) -> bool:
    """Return whether the searcher of a recipe's content is given the budget, so that it searches once per budget."""
    return plugins.takes("searchers", recipes.plugin_section(content, "search")["name"], "macs")


def takes_all(content: Mapping[str, Any]) -> bool:
    """Return whether the searcher of a recipe's content is given all budgets, and returns a network for each."""
    return plugins.takes("searchers", recipes.plugin_section(content, "search")["name"], "budgets")


def budgeted(content: Mapping[str, Any], macs: float, budgets: Sequence[float], where: str) -> dict[str, Any]:
    """Return the content of a recipe whose searcher, or else whose pruner, is given a budget in its option `macs`.

    A searcher with the option `budgets` is given all of them.

    Raises:
        RecipeError: if none of them has such an option, or if one of these sections is no plug-in.
    """
    search, prune = (recipes.plugin_section(content, name) for name in ("search", "prune"))
    if takes_all(content):
        options = {**search["options"], "budgets": list(budgets)}
        return {**content, "search": {**search, "options": options}}
    if takes_budget(content):
        chosen, section = "search", search
    elif plugins.takes("pruners", prune["name"], "macs"):
        chosen, section = "prune", prune
    else:
        raise RecipeError(
            f"{where}: neither the searcher '{search['name']}' nor the pruner '{prune['name']}' has an option `macs` "
            "for the budget; choose another one, such as the pruner 'budget'"
        )
    options = {**section["options"], "macs": round(macs)}
    return {**content, chosen: {**section, "options": options}}
