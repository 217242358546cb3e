"""The networks of a comparison, and the parts of the work by which each of them comes about.

A search that is not given the budget is done once per seed, and all rows with the same search share its supernet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nasface import recipe as recipes
from nasface.errors import RecipeError, did_you_mean
from nasface.plugins import CHOOSERS
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.search.family import in_words
from nasface.stages.experiment.compare.plan import ComparisonPlan, budgeted, takes_all, takes_budget
from nasface.stages.experiment.compare.rest import Bill, Rest, changed
from nasface.stages.experiment.part import Finished, Part, Status, is_finished, run_status
from nasface.stages.experiment.plan import Experiment
from nasface.stages.search.run import search
from nasface.stages.workspace import Machine

AS_SEARCHED, BEST_OF_RANDOM = CHOOSERS
_ALPHA = {"name": "alpha", "options": {}}  # the criterion that costs nothing
_KEEP_ALL = {"name": "top", "options": {"edges": 10**6}}


@dataclass(frozen=True)
class Entry:
    """A network of the comparison.

    Attributes:
        row, budget, seed: which one it is.
        parts: the parts of the work in order.
        bill: what the network has taken when it is finished.
        home: the run folder with the trained network.
        chosen: the run folder with the architecture, if the row searches.
    """

    row: str
    budget: float
    seed: int
    parts: tuple[Part, ...]
    bill: Bill
    home: RunDir
    chosen: RunDir | None = None


@dataclass(frozen=True)
class _Search:
    """A search, or a choice from the supernet of one, in its run folder."""

    recipe: Recipe
    folder: RunDir
    supernet: Path | None = None

    def status(self) -> Status:
        return run_status(self.folder, self.recipe)

    def work(self, machine: Machine) -> None:
        if not is_finished(self.folder, self.recipe):
            search(self.recipe, self.folder, machine, self.supernet)


@dataclass(frozen=True)
class Comparison:
    """The comparison of an experiment.

    Attributes:
        experiment: the experiment.
        out: its folder.
        is_finished: tells whether a part is finished.
    """

    experiment: Experiment
    out: Path
    is_finished: Finished = field(default_factory=Finished, repr=False)
    _entries: dict[tuple[str, float, int], Entry] = field(default_factory=dict, repr=False)
    _supernets: dict[tuple[str, int], Recipe] = field(default_factory=dict, repr=False)

    @property
    def plan(self) -> ComparisonPlan:
        """The section `comparison`."""
        assert self.experiment.plan.comparison is not None
        return self.experiment.plan.comparison

    def folder(self, name: str, budget: float, seed: int | str) -> RunDir:
        """Return the run folder of a row, budget and seed."""
        return RunDir(self.out / f"{name}-{in_words(budget)}-{seed}")

    def entry(self, name: str, budget: float, seed: int) -> Entry:
        """Return a network of the comparison."""
        key = name, budget, seed
        if key not in self._entries:
            self._entries[key] = self._entry(name, budget, seed)
        return self._entries[key]

    def _entry(self, name: str, budget: float, seed: int) -> Entry:
        if self._trains_all(name):
            return self._of_family(name, budget, seed)
        home = self.folder(name, budget, seed)
        if name == self.plan.reference:
            part = _part(name, seed, f"search {in_words(budget)}", _Search(self._recipe(name, budget, seed), home))
            return Entry(name, budget, seed, (part,), ((home, 1.0),), home, home)
        return (self._searched if self.plan.rows[name].searches else self._from_scratch)(name, budget, seed)

    def _of_family(self, name: str, budget: float, seed: int) -> Entry:
        """Return a network of a search that trains a network for every budget."""
        run = RunDir(self.out / f"{name}-family-{seed}")
        recipe = self._recipe(name, budget, seed)
        part = _part(name, seed, "search of all", _Search(changed(recipe, finetune={"epochs": 0}), run))
        home = run.family().network(in_words(budget))
        entry = Entry(name, budget, seed, (part,), ((run, self.plan.part_of(budget)),), home, home)
        if name == self.plan.reference:
            return entry
        return self._trained(entry, recipe, self.folder(name, budget, seed))

    def _from_scratch(self, name: str, budget: float, seed: int) -> Entry:
        """Return a network that is trained from random weights, without a search of its own."""
        row, home = self.plan.rows[name], self.folder(name, budget, seed)
        reference = self.entry(self.plan.reference, budget, seed)
        recipe, needs, arch = self._recipe(name, budget, seed), reference.parts, None
        if "optimizer" not in row.finetune:  # it is trained like a supernet, and not like a network that has weights
            recipe = changed(recipe, finetune={"optimizer": recipe.search.model_dump(mode="json")["optimizer"]})
        if row.graph_of is not None:
            source = self.entry(row.graph_of, budget, seed)
            assert source.chosen is not None
            arch = source.chosen.arch
            needs += tuple(part for part in source.parts if part.folder != source.home or part.folder == source.chosen)
        rest = Rest(recipe, home, reference.bill, arch=arch, thin=row.thin or (), budget=budget)
        part = _part(name, seed, f"training {in_words(budget)}", rest, needs)
        return Entry(name, budget, seed, (part,), ((home, 1.0),), home)

    def _searched(self, name: str, budget: float, seed: int) -> Entry:
        """Return a network that is searched, chosen as inherited, and then trained to the end."""
        row, home = self.plan.rows[name], self.folder(name, budget, seed)
        recipe = self._recipe(name, budget, seed)
        if self._searches_per_budget(name):
            first = _Search(changed(recipe, finetune={"epochs": 0}), home)
            parts: tuple[Part, ...] = (_part(name, seed, f"search {in_words(budget)}", first),)
            spent: Bill = ((home, 1.0),)
        else:
            supernet = self._supernet(name, seed)
            choice = _Search(self._choice(name, recipe, budget, seed), home, supernet.folder.supernet)
            parts = (supernet, _part(name, seed, f"choice {in_words(budget)}", choice, (supernet,)))
            spent = ((supernet.folder, self.plan.part_of(budget) if row.serves_all else 1.0), (home, 1.0))
        entry = Entry(name, budget, seed, parts, spent, home, home)
        return self._trained(entry, recipe, RunDir(home.path / "trained"))

    def _trained(self, entry: Entry, recipe: Recipe, folder: RunDir) -> Entry:
        """Return an entry whose chosen network is trained until the compute of the reference is used up."""
        assert entry.chosen is not None
        reference = self.entry(self.plan.reference, entry.budget, entry.seed)
        rest = Rest(recipe, folder, reference.bill, entry.bill, entry.chosen.arch, entry.chosen.slim)
        needs = (*reference.parts, *entry.parts)
        last = _part(entry.row, entry.seed, f"training {in_words(entry.budget)}", rest, needs)
        return replace(entry, parts=(*entry.parts, last), bill=(*entry.bill, (folder, 1.0)), home=folder)

    def _trains_all(self, name: str) -> bool:
        """Return whether the searcher of a row trains a network for every budget."""
        row = self.plan.rows[name]
        return row.searches and row.best_of is None and takes_all(self.experiment.content(row.changes, 0))

    def _searches_per_budget(self, name: str) -> bool:
        """Return whether the searcher of a row is given the budget."""
        row = self.plan.rows[name]
        return name == self.plan.reference or (
            row.best_of is None and takes_budget(self.experiment.content(row.changes, 0))
        )

    def _supernet(self, name: str, seed: int) -> Part:
        """Return the search of a supernet, which is named after the first row of the plan that has the same one."""
        base = self._supernet_recipe(name, seed)
        sharing = (name for name, row in self.plan.rows.items() if row.searches and not self._searches_per_budget(name))
        owner = next(name for name in sharing if self._supernet_recipe(name, seed).digest == base.digest)
        return _part(owner, seed, "supernet", _Search(base, RunDir(self.out / f"{owner}-supernet-{seed}")))

    def _supernet_recipe(self, name: str, seed: int) -> Recipe:
        """Return the recipe of a search that chooses nothing: what else the row wants makes no difference to it."""
        if (name, seed) not in self._supernets:
            recipe = self._recipe(name, self.plan.budgets[0], seed)
            unused = {"epochs": 0, "optimizer": recipe.search.model_dump(mode="json")["optimizer"]}
            self._supernets[name, seed] = changed(recipe, criterion=_ALPHA, prune=_KEEP_ALL, finetune=unused)
        return self._supernets[name, seed]

    def _choice(self, name: str, recipe: Recipe, budget: float, seed: int) -> Recipe:
        """Return the recipe of a search that trains nothing and chooses from a supernet."""
        count = self.plan.rows[name].best_of
        if count is None:
            how: dict[str, Any] = {"name": AS_SEARCHED, "epochs": 0, "options": {}}
            return changed(recipe, search=how, finetune={"epochs": 0})
        options = {"macs": budget, "count": count, "seed": seed}
        how = {"name": BEST_OF_RANDOM, "epochs": 0, "options": options}
        return changed(recipe, search=how, criterion=_ALPHA, prune=_KEEP_ALL, finetune={"epochs": 0})

    def _recipe(self, name: str, budget: float, seed: int) -> Recipe:
        """Return the recipe of a row, which knows the budget if the row searches for one network."""
        row = self.plan.rows[name]
        where = f"row '{name}' of experiment '{self.experiment.name}'"
        content: Mapping[str, Any] = self.experiment.content(row.changes, seed)
        if row.searches and row.best_of is None:
            content = budgeted(content, budget, self.plan.budgets, where)
        return recipes.resolve(content, where)


def _part(name: str, seed: int, title: str, step: _Search | Rest, needs: tuple[Part, ...] = ()) -> Part:
    return Part(name, seed, title, step.folder, step.status, step.work, needs)


def comparison_parts(comparison: Comparison, only: Sequence[str]) -> list[Part]:
    """Return the parts of all networks, or of some rows with what these need; seed by seed, searches first."""
    plan, seeds = comparison.plan, comparison.experiment.plan.seeds
    if strange := sorted(set(only) - set(plan.rows)):
        raise RecipeError(f"the experiment has no row '{strange[0]}'; {did_you_mean(strange[0], plan.rows)}")
    wanted = {name: plan.seeds_of(name, seeds) for name in plan.rows}
    found: dict[Path, Part] = {}

    def add(part: Part) -> None:
        for need in part.needs:
            add(need)
        found.setdefault(part.folder.path, part)

    for seed in sorted({seed for row in wanted.values() for seed in row}):
        entries = [
            comparison.entry(name, budget, seed)
            for budget in plan.budgets
            for name in plan.rows
            if seed in wanted[name]
        ]
        chosen = [entry for entry in entries if not only or entry.row in only]
        for entry in sorted(chosen, key=lambda entry: entry.row != plan.reference):
            for part in entry.parts:
                add(part)
    return list(found.values())
