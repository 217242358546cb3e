"""Experiments of several runs over seeds: a recipe with a section `experiment`, from searches to one table.

Every part is a run of its own in the experiment's folder, so that an interrupted experiment goes on, parts that are
finished are not done again, and several processes may share the work: what one is at, the others leave alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from annotated_types import Ge, Interval, Len
from pydantic import Field, ValidationError

from nasface import pareto, plugins, rundir
from nasface import recipe as recipes
from nasface.data import masks
from nasface.errors import DivergedError, RecipeError, RunBusyError
from nasface.recipe import Part, Recipe
from nasface.rundir import RunDir
from nasface.stages.candidates import Wanted
from nasface.stages.distilling import distill
from nasface.stages.evaluating import evaluate
from nasface.stages.jobs import search, train
from nasface.stages.networks import read_arch
from nasface.stages.selection import read_table
from nasface.stages.sources import Networks
from nasface.stages.sweeping import Measure, sweep
from nasface.stages.work import Machine

log = logging.getLogger(__name__)

Row = dict[str, Any]
Share = Annotated[float, Interval(gt=0, le=1)]
COSTS = ("params", "macs", "params_no_head", "macs_no_head", "macs_prunable", "edges")
MASKS: tuple[masks.Level, ...] = ("half", "hard")


class SweepPlan(Part):
    """A sweep of every searched run, see `nasface sweep-thresholds`."""

    shares: tuple[Share, ...] = ()
    count: Annotated[int, Ge(0)] = 0
    pruner: str = "threshold"
    options: dict[str, Any] = Field(default_factory=dict)
    draws: Annotated[int, Ge(1)] = 1
    epochs: Annotated[int, Ge(0)] = 0


class Plan(Part):
    """What an experiment consists of.

    runs: name -> what its recipe changes; each is searched once a seed.
    sweeps: of every run, by name.
    compare: groups of runs that are set side by side at equal MACs; all together where none is given.
    teacher: a run trained once a seed, which teaches; without it the searched supernets do.
    distill: name -> what a variant changes in the section `distill`; each is made of every run's slim network.
    """

    seeds: tuple[Annotated[int, Ge(0)], ...] = (0,)
    runs: Annotated[dict[str, dict[str, Any]], Len(1)]
    sweeps: dict[str, SweepPlan] = Field(default_factory=dict)
    compare: tuple[tuple[str, ...], ...] = ()
    teacher: dict[str, Any] | None = None
    distill: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A plan over a base recipe.

    Attributes:
        name: of the recipe.
        base: its content without the plan.
        overrides: 'a.b=value', over everything.
    """

    name: str
    plan: Plan
    base: Mapping[str, Any]
    overrides: Sequence[str] = ()

    def recipe(self, changes: Mapping[str, Any], seed: int, distill: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe of one run, or of a variant of its distillation."""
        content = recipes.merge(recipes.merge(dict(self.base), {**changes, "seed": seed}), {"distill": distill or {}})
        recipes.override(content, self.overrides)
        return recipes.resolve(content, f"experiment '{self.name}'")


def read_experiment(
    name: str, data_root: Path | None, overrides: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Experiment:
    """Read a shipped experiment or a YAML file; RecipeError when it is none or something in it is wrong."""
    content = recipes.read(name)
    plan = content.pop("experiment", None)
    if plan is None:
        raise RecipeError(f"recipe '{name}' has no section 'experiment'; run it with `nasface search --recipe {name}`")
    try:
        checked = Plan.model_validate(plan)
    except ValidationError as err:
        raise RecipeError(plugins.explain(err, f"experiment '{name}'")) from err
    if strange := [run for group in checked.compare for run in group if run not in checked.runs]:
        raise RecipeError(f"experiment '{name}' compares '{strange[0]}', which is none of its runs")
    if data_root is not None:
        content = recipes.merge(content, {"data": {"root": str(data_root.resolve())}})
    if seeds:
        checked = checked.model_copy(update={"seeds": tuple(seeds)})
    experiment = Experiment(name, checked, content, overrides)
    _check(experiment)
    return experiment


def _check(experiment: Experiment) -> None:
    """A mistake in the last run should not show after hours."""
    plan = experiment.plan
    for changes in plan.runs.values():
        for how in (None, *plan.distill.values()):
            experiment.recipe(changes, 0, how)
    if plan.teacher is not None:
        experiment.recipe(plan.teacher, 0)
    for title, planned in plan.sweeps.items():
        if not planned.shares and not planned.count:
            raise RecipeError(
                f"sweep '{title}' of experiment '{experiment.name}' asks for no network; give shares or count"
            )
        if planned.pruner != "threshold":
            plugins.pruner(planned.pruner, {**planned.options, "share": 0.5})


def run_experiment(experiment: Experiment, out: Path, machine: Machine, only: Sequence[str] = ()) -> pd.DataFrame:
    """Do what is not done yet, and write results.csv: one row for each network.

    Args:
        experiment: see `read_experiment`.
        out: its folder; every part is a run folder in it.
        machine: device and progress.
        only: names of runs; the others wait.

    Raises:
        RecipeError: when a name in `only` is not a run's.
    """
    plan = experiment.plan
    if strange := sorted(set(only) - set(plan.runs)):
        raise RecipeError(f"the experiment has no run '{strange[0]}'; it has {', '.join(plan.runs)}")
    for seed in plan.seeds:
        for name, changes in plan.runs.items():
            if not only or name in only:
                named = _named(machine, f"{name}-{seed}")
                for part in _parts(experiment, name, experiment.recipe(changes, seed), out, named):
                    log.info("%s, seed %d: %s", name, seed, part)
                    results(experiment, out)
    return results(experiment, out)


def _named(machine: Machine, name: str) -> Machine:
    """The machine, saying for which run whatever begins is done."""
    begin = machine.progress.begin
    progress = replace(machine.progress, begin=lambda title, total, done: begin(f"{name} {title}", total, done))
    return replace(machine, progress=progress)


def _parts(experiment: Experiment, name: str, recipe: Recipe, out: Path, machine: Machine) -> Iterator[str]:
    """The parts of one run and seed, in order."""
    plan, home = experiment.plan, RunDir(out / f"{name}-{recipe.seed}")
    try:
        if not _finished(home, recipe):
            search(recipe, home, machine)
        yield "searched"
        for title, planned in plan.sweeps.items():
            wanted = Wanted(
                count=planned.count, shares=planned.shares, pruner=planned.pruner,
                options=planned.options, draws=planned.draws,
            )  # fmt: skip
            sweep(recipe, home, RunDir(home.path / title), wanted, Measure(epochs=planned.epochs), machine)
            yield title
        teacher: str | None = None
        if plan.teacher is not None and plan.distill:
            schooled = RunDir(out / f"teacher-{recipe.seed}")
            lessons = experiment.recipe(plan.teacher, recipe.seed)
            if not _finished(schooled, lessons):
                train(lessons, schooled, machine)
            teacher = str(schooled.path)
            yield "teacher"
        arch = read_arch(home.arch) if plan.distill else None
        for title, how in plan.distill.items():
            assert arch is not None
            changed = experiment.recipe(plan.runs[name], recipe.seed, how)
            variant = RunDir(home.path / title)
            if not (_finished(variant, changed) and recipes.load(str(variant.recipe)).distill == changed.distill):
                distill(changed, variant, machine, arch, home.supernet, teacher, str(home.path))
            _face_masks(variant, changed, machine)
            yield title
    except RunBusyError as err:
        log.warning("%s; its results come when it is finished", err)
    except DivergedError as err:
        log.warning("%s, seed %d stops here: %s", name, recipe.seed, err)


def _finished(run: RunDir, recipe: Recipe) -> bool:
    """Whether a run of this very recipe has come to its end."""
    return run.metrics.exists() and recipes.load(str(run.recipe)).digest == recipe.digest


def _face_masks(run: RunDir, recipe: Recipe, machine: Machine) -> None:
    """Evaluate the slim network of a run on covered test faces too, into masked.json."""
    path = run.path / "masked.json"
    if path.exists():
        return
    networks: Networks = {"slim": (read_arch(run.arch), run.slim)}
    found = {level: evaluate(recipe, machine, networks, level)[0].as_dict()["subsets"] for level in MASKS}
    rundir.write_json(path, found)


def results(experiment: Experiment, out: Path) -> pd.DataFrame:
    """One row for each network of the parts that are finished, written to results.csv.

    Columns: run, seed, part ('search', a sweep's or a variant's name), network, its costs and its inter-ocular NMEs
    as shares: held_out_nme, nme_SUBSET, and nme_SUBSET_masked_LEVEL for variants of a distillation. Subsets that are
    not complete on disk are left out where another one is.
    """
    rows: list[Row] = []
    for name in experiment.plan.runs:
        for seed in _seeds(experiment, out, name):
            home = RunDir(out / f"{name}-{seed}")
            about = {"run": name, "seed": seed}
            rows += [{**about, "part": "search", **row} for row in _networks(home)]
            for title in experiment.plan.sweeps:
                if RunDir(home.path / title).pareto.exists():
                    rows += [{**about, "part": title, **row} for row in _swept(home.path / title)]
            for title in experiment.plan.distill:
                rows += [{**about, "part": title, **row} for row in _networks(RunDir(home.path / title))]
    scored = {column for row in rows if row["part"] == "search" for column in row}
    for row in rows:  # a sweep's table does not say how many faces a subset should have
        for column in [c for c in row if c.startswith("nme_") and "_masked_" not in c and c not in scored]:
            del row[column]
    if rows:
        rundir.write_rows(out / "results.csv", rows)
    return pd.DataFrame(rows)


def _seeds(experiment: Experiment, out: Path, name: str) -> list[int]:
    """The seeds of a run that are there, whichever process has worked on them; a run of another recipe is none."""
    ends = (path.name.removeprefix(f"{name}-") for path in out.glob(f"{name}-*"))
    found = []
    for seed in sorted(int(end) for end in ends if end.isdecimal()):
        kept = RunDir(out / f"{name}-{seed}").recipe
        if (
            kept.exists()
            and recipes.load(str(kept)).digest == experiment.recipe(experiment.plan.runs[name], seed).digest
        ):
            found.append(seed)
    return found


def _networks(run: RunDir) -> list[Row]:
    """The networks of metrics.json, and masked.json where it is there."""
    if not run.metrics.exists():
        return []
    found = rundir.read_json(run.metrics, "the figures of a finished run")["networks"]
    covered = run.path / "masked.json"
    masked = rundir.read_json(covered, "the figures on covered faces") if covered.exists() else {}
    rows = []
    for name, figures in found.items():
        row = {k: figures[k] for k in COSTS}
        row |= {"network": name, "held_out_nme": figures["held_out_nme"]}
        row |= {f"nme_{s}": nme for s, nme in _subsets(figures["subsets"]).items()}
        if name == "slim":
            for level, subsets in masked.items():
                row |= {f"nme_{s}_masked_{level}": nme for s, nme in _subsets(subsets).items()}
        rows.append({k: v for k, v in row.items() if v is not None})
    return rows


def _subsets(found: Mapping[str, Any]) -> dict[str, float]:
    """Inter-ocular NME by test subset: of those that are complete on disk, or of all where none is."""
    subsets = {name: row for name, row in found.get("inter_ocular", {}).items() if row["images"]}
    complete = {name: row["nme"] for name, row in subsets.items() if row["images"] == row["expected"]}
    return complete or {name: row["nme"] for name, row in subsets.items()}


def _swept(folder: Path) -> list[Row]:
    """The networks of a sweep, at the last stage of training that there is."""
    table = read_table(folder)
    stage = pareto.best_stage(table)
    done = table[(table["state"] == "done") & (table["network"] != "supernet")]
    rows = []
    for row in done.to_dict("records"):
        kept = {k: row[k] for k in ("network", "asked", "pruner", *COSTS)}
        kept |= {"held_out_nme": row[f"held_out_nme_{stage}"], "stage": stage, "on_front": row["on_front"]}
        ends = f"_{stage}"
        rows.append(
            kept | {k.removesuffix(ends): v for k, v in row.items() if k.startswith("nme_") and k.endswith(ends)}
        )
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over seeds of every NME, by run, part and network; sweeps are left to `at_equal_macs`."""
    scores = [column for column in table if "nme" in column]
    rows = []
    fixed = table[table["asked"].isna()] if "asked" in table else table
    for keys, group in fixed.groupby(["run", "part", "network"], sort=False):
        row: Row = dict(zip(("run", "part", "network"), keys, strict=True)) | {"seeds": len(group)}
        row |= {cost: group[cost].mean() for cost in ("params", "macs")}
        for score in scores:
            row |= {f"{score}_mean": group[score].mean(), f"{score}_std": group[score].std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


def at_equal_macs(
    table: pd.DataFrame, part: str, runs: Sequence[str] = (), points: int = 8, score: str = "held_out_nme"
) -> pd.DataFrame:
    """The NME of several runs within a budget of MACs: mean and deviation over seeds, on a grid that all reach.

    Args:
        table: of `run_experiment`.
        part: the sweep's name.
        runs: those compared; all by default.
        points: of the grid, from the cheapest network that all runs and seeds reach to the least of their dearest.
        score: the column compared. The network within each budget is the one with the lowest held-out NME.

    Returns:
        `macs`, and for each run `nme RUN_mean` and `nme RUN_std`.
    """
    swept = table[(table["part"] == part) & (table["run"].isin(runs) if runs else True)]
    by_run = {name: [rows for _, rows in group.groupby("seed")] for name, group in swept.groupby("run", sort=False)}
    every = [rows["macs"] for tables in by_run.values() for rows in tables]
    columns: Row = {"macs": np.linspace(max(macs.min() for macs in every), min(macs.max() for macs in every), points)}
    for name, tables in by_run.items():
        spread = pareto.spread(tables, "macs", score, columns["macs"], by="held_out_nme")
        columns |= {f"nme {name}_mean": spread.mean_G, f"nme {name}_std": spread.std_G}
    return pd.DataFrame(columns)
