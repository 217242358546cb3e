"""The content of a run folder, as far as it is there; for each missing part, why, and the command that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from nasface import plugins, rundir, untrusted
from nasface import recipe as recipes
from nasface.arch import Architecture, Factors
from nasface.cost import Costs, count_space
from nasface.errors import NasfaceError, RunError, shortened, similar
from nasface.model.build import check_size
from nasface.model.files import num_landmarks
from nasface.model.source import Source, read_arch, read_factors
from nasface.places import below
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.scores import DEFAULT_NORMALISER, HELD_OUT
from nasface.stages.select import read_table, sweep_folder

T = TypeVar("T")
_WORDS = ("network", "face", "subsets", "stage", "phase")
Networks = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Sweep:
    """A sweep: its table as `select.read_table` returns it, and the architectures of its networks by name."""

    table: pd.DataFrame
    archs: Mapping[str, Architecture]


@dataclass(frozen=True)
class Content:
    """What was read from a run folder. A missing part is None or empty.

    Attributes:
        run: the folder.
        job: the command that made it, such as 'search'; empty where it does not say.
        recipe, recipe_text: the recipe resolved, and as it stands in the file.
        metrics: metrics.json.
        epochs: metrics.csv.
        errors: errors.csv, with one row per network and test face and NMEs as shares.
        arch: the chosen network.
        factors: of the run, or of the run that its networks were pruned from.
        sweep: in the folder itself, or below it.
        costs: of all parts of the search space.
        missing: one sentence per missing part, by the name of the part.
    """

    run: RunDir
    job: str
    recipe: Recipe | None
    recipe_text: str
    metrics: Mapping[str, Any]
    epochs: pd.DataFrame | None
    errors: pd.DataFrame | None
    arch: Architecture | None
    factors: Factors | None
    sweep: Sweep | None
    costs: Costs | None
    missing: Mapping[str, str]

    @property
    def title(self) -> str:
        """The folder's name; for a sweep below its run, both names."""
        path = self.run.path.resolve()
        return f"{path.parent.name}/{path.name}" if self.run.pareto.is_file() else path.name

    @property
    def networks(self) -> Networks:
        """The figures in metrics.json by network."""
        found: Networks = self.metrics.get("networks", {})
        return found

    @property
    def subject(self) -> str:
        """The network that the report is about: the slim one, or else the last; empty where none was evaluated."""
        names = ["", *self.networks]
        return "slim" if "slim" in names else names[-1]


def read(folder: Path) -> Content:
    """Read a folder that was filled by search, train, prune, distill, select or sweep-thresholds.

    Raises:
        RunError: when it holds nothing to report on.
    """
    if not folder.is_dir():
        raise RunError(
            f"the folder {folder} does not exist; give a run folder that a command of nasface has filled"
            f"{similar(folder)}"
        )
    run = RunDir(folder)
    missing: dict[str, str] = {}

    def part(name: str, make: Callable[[], T | None]) -> T | None:
        try:
            return make()
        except NasfaceError as err:
            missing[name] = str(err)
            return None

    job = str((part("job", lambda: _object(run.job)) or {}).get("job", ""))
    recipe_text = part("recipe", lambda: rundir.read_text(run.recipe, "a recipe")) or ""
    recipe = part("recipe", lambda: recipes.load(str(run.recipe)) if recipe_text else None)
    sweep = part("sweep", lambda: _sweep(run))
    arch = part("architecture", lambda: _arch(run, sweep))
    example = arch or next(iter(sweep.archs.values()), None) if sweep else arch
    factors = part("factors", lambda: _factors(run, example))
    metrics = part("figures", lambda: _metrics(run, job, sweep))
    epochs = part("training", lambda: _rows(run.metrics_csv, "epoch"))
    errors = part("errors", lambda: _errors(run))
    if all(found is None for found in (sweep, arch, factors, metrics, epochs, errors)):
        parts = ("factors", "training", "errors", "architecture", "sweep", "figures")
        files = (run.metrics, run.metrics_csv, run.errors, run.factors, run.arch, run.pareto)
        if any(path.is_file() for path in files):
            fault = next(missing[name] for name in parts if name in missing)
            raise RunError(f"{folder} holds nothing that can be read: {fault}")
        raise RunError(
            f"{folder} holds nothing to report on; give a run folder that `nasface search`, `train`, `prune`, "
            "`distill` or `sweep-thresholds` has filled"
        )
    return Content(
        run=run,
        job=job,
        recipe=recipe,
        recipe_text=recipe_text,
        metrics=metrics or {},
        epochs=epochs,
        errors=errors,
        arch=arch,
        factors=factors,
        sweep=sweep,
        costs=part("costs", lambda: _costs(run, recipe, example, factors)),
        missing=missing,
    )


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no file."""
    content = rundir.read_json(path, "a JSON object") if path.is_file() else {}
    if not isinstance(content, dict):
        raise RunError(f"{path} holds a {type(content).__name__}; expected an object as nasface writes it")
    return content


def _rows(path: Path, *columns: str) -> pd.DataFrame | None:
    """Read a CSV file with at least these columns; None where there is no file."""
    if not path.is_file():
        return None
    try:
        untrusted.check_table(path)
        rows = pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str))
    except (OSError, ValueError) as err:  # pandas' parser errors and bytes that are not UTF-8 are ValueErrors
        raise RunError(
            f"cannot read {path} ({shortened(' '.join(str(err).split()))}); let its run write it again"
        ) from err
    if absent := [name for name in columns if name not in rows]:
        raise RunError(f"{path} has no column '{absent[0]}'; let its run write it again")
    if strange := [name for name in columns if name not in _WORDS and not pd.api.types.is_numeric_dtype(rows[name])]:
        raise RunError(
            f"{path}: the column '{strange[0]}' holds something that is not a number; let its run write it again"
        )
    return rows


def _metrics(run: RunDir, job: str, sweep: Sweep | None) -> dict[str, Any] | None:
    metrics = _object(run.metrics)
    if not metrics and sweep is None:
        if run.arch.is_file() and job == "select":
            raise RunError(
                "the sweep from which the network was chosen measured it without training it, and its pareto.csv has "
                f"those figures; `nasface train --arch {run.arch}` fine-tunes and evaluates it"
            )
        if run.arch.is_file() and job not in ("search", "train", "distill"):
            raise RunError(
                f"the network has not been evaluated; `nasface train --arch {run.arch}` fine-tunes and evaluates it"
            )
        raise RunError(f"the run has not finished; to continue it, give its command again with --out {run.path}")
    try:
        fits = all(map(_are_figures, metrics.get("networks", {}).values()))
    except (AttributeError, KeyError, TypeError):
        fits = False
    if not fits:
        raise RunError(f"{run.metrics} does not hold the figures of networks; let its run write it again")
    return metrics or None


def _are_figures(figures: Mapping[str, Any]) -> bool:
    """Whether a network's figures look like those of `Evaluation.as_dict`, as far as the report needs them."""
    summaries = [summary for table in figures["subsets"].values() for summary in table.values()]
    numbers = [figures[name] for name in ("params", "macs", HELD_OUT.column)]
    numbers += [summary[name] for summary in summaries for name in ("images", "expected", "nme")]
    return all(number is None or isinstance(number, int | float) for number in numbers)


def _errors(run: RunDir) -> pd.DataFrame | None:
    errors = _rows(run.errors, "network", "face", DEFAULT_NORMALISER.column)
    if errors is None and run.metrics.is_file():
        raise RunError("no test faces were on disk when the run was evaluated; `nasface data check` says what is there")
    return errors


def _sweep(run: RunDir) -> Sweep | None:
    try:
        folder = sweep_folder(run.path)
    except RunError:
        if run.factors.is_file():
            raise RunError(
                f"no sweep yet; `nasface sweep-thresholds {run.path}` makes many networks of this search"
            ) from None
        return None
    table = read_table(folder)
    table_file = RunDir(folder).pareto
    paths = {
        row.network: below(folder, row.arch, table_file) for row in table.itertuples() if isinstance(row.arch, str)
    }
    return Sweep(table, {name: read_arch(path) for name, path in paths.items() if path.is_file()})


def _arch(run: RunDir, sweep: Sweep | None) -> Architecture | None:
    if run.arch.is_file():
        return read_arch(run.arch)
    if sweep is None and run.factors.is_file():
        raise RunError(f"no network was chosen; `nasface prune {run.path} --share 0.5 --out DIR` chooses one")
    return None


def _factors(run: RunDir, arch: Architecture | None) -> Factors | None:
    origin = RunDir(Source(run.arch, arch).run) if arch else run
    path = next((place.factors for place in (run, origin) if place.factors.is_file()), None)
    return None if path is None else read_factors(path)


def _costs(run: RunDir, recipe: Recipe | None, arch: Architecture | None, factors: Factors | None) -> Costs:
    if known := arch or factors:
        space, landmarks = plugins.space(known.space, known.options), known.num_landmarks
    elif recipe is not None:
        space = plugins.space(recipe.space.name, recipe.space.options)
        landmarks = num_landmarks(run.supernet)
    else:
        raise RunError("no file says which search space this is; `nasface search` and `nasface prune` write one")
    size = arch.input_size if arch else recipe.data.input_size if recipe else 256
    check_size(size, space)
    return count_space(space, landmarks, size)
