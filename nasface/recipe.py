"""Recipes: YAML files that describe an experiment completely. Unknown keys are refused."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Interval, Le
from pydantic import BaseModel, ConfigDict, ValidationError

from nasface import plugins
from nasface.data.augment import Augmentation
from nasface.distill import Distillation
from nasface.errors import RecipeError, did_you_mean
from nasface.step import Optimizer
from nasface.task import Decoder

log = logging.getLogger(__name__)

# PyYAML lets through what Python says of a date as 2020-99-99, a number as 0x_, a tag without a value, deep nesting.
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


_L1 = ("l1", "nasface.search.l1:L1Searcher")

Epochs = Annotated[int, Interval(ge=0, le=100_000)]


class Part(BaseModel):
    """A section of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin(Part):
    """A plug-in and its options."""

    name: str
    options: dict[str, Any] = {}


class Data(Plugin):
    """The dataset and how faces are cropped.

    held_out: share of the training faces on which selection is done; they are not trained on.
    """

    name: str = "300w"
    root: Path | None = None
    input_size: Annotated[int, Ge(16), Le(1024)] = 256
    margin: Annotated[float, Interval(ge=1, le=4)] = 1.6
    box: Literal["landmarks", "provided"] = "landmarks"
    box_scale: Annotated[float, Interval(ge=0.1, le=10)] = 1.25
    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.1


class Task(Part):
    """Heatmap targets, loss and decoding. sigma: cells; weight: multiplies the heatmap loss."""

    sigma: Annotated[float, Interval(gt=0, le=1000)] = 1.5
    weight: Annotated[float, Interval(gt=0, le=1e9)] = 1.0
    decoder: Decoder = "quarter"
    flip_test: bool = False


class Training(Part):
    """What search and fine-tuning share. clip: largest norm of the gradient, 0 for none."""

    batch: Annotated[int, Interval(ge=2, le=65536)] = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: Annotated[float, Ge(0)] = 0.0
    threads: Annotated[int, Interval(ge=0, le=1024)] = 0


class Space(Plugin):
    """The search space."""

    name: str = "hrsupernet"


class Prune(Plugin):
    """The pruner."""

    name: str = "share"


class Search(Plugin):
    """The searcher, and the optimizer of the weights."""

    name: str = "l1"
    epochs: Epochs = 60
    optimizer: Optimizer = Optimizer()


class Criterion(Plugin):
    """The criterion that says how much each edge of the searched supernet matters."""

    name: str = "alpha"


class Finetune(Part):
    """Training of one network: the slim one after pruning, or a whole one by `nasface train`."""

    epochs: Epochs = 60
    optimizer: Optimizer = Optimizer()


class Recipe(Part):
    """A complete description of an experiment."""

    description: str = ""
    space: Space = Space()
    data: Data = Data()
    task: Task = Task()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    search: Search = Search()
    criterion: Criterion = Criterion()
    prune: Prune = Prune(options={"share": 0.5})
    finetune: Finetune = Finetune()
    distill: Distillation = Distillation()
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0

    def to_yaml(self) -> str:
        """The resolved recipe, every default written out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text

    @property
    def digest(self) -> str:
        """Identifies by content everything that a search and a training depend on.

        The description and the location of the data do not count, nor does `distill`, which only distillation uses.
        """
        content = self.model_dump(mode="json", exclude={"description": True, "distill": True, "data": {"root"}})
        return hashlib.sha256(yaml.safe_dump(content, sort_keys=False).encode()).hexdigest()[:16]


def folder() -> Path:
    """Return the folder of the shipped recipes: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def shipped() -> dict[str, Path]:
    """Return the recipes that come with nasface, by name."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


def load(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and resolve it.

    Args:
        source: the name of a shipped recipe, or the path of a YAML file.
        overrides: see `override`.

    Raises:
        RecipeError: for an unknown recipe, key, plug-in or a value out of range.
    """
    content = read(source)
    override(content, overrides)
    return resolve(content, f"recipe '{source}'")


def resolve(content: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe's content, the options of its plug-ins included, and fill in every default.

    Raises:
        RecipeError: for an unknown key, plug-in or a value out of range.
    """
    if "experiment" in content:
        raise RecipeError(f"{where} describes several runs; start them with `nasface experiment`")
    content = _migrated(content)
    _check_keys(content, where)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as err:
        raise RecipeError(plugins.explain(err, where)) from err
    update = {}
    for field, group in (
        ("space", "searchspaces"),
        ("data", "datasets"),
        ("search", "searchers"),
        ("criterion", "criteria"),
        ("prune", "pruners"),
    ):
        part: Plugin = getattr(recipe, field)
        options = plugins.check_options(group, part.name, part.options)
        update[field] = part.model_copy(update={"options": options})
    return recipe.model_copy(update=update)


def assemble(
    source: str | None,
    space: str | None,
    dataset: str | None,
    data_root: Path | None,
    overrides: Sequence[str] = (),
    sections: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe that a command line asks for.

    Args:
        source: see `load`; by default the shipped recipe of the dataset's name (or '300w').
        space: another search space; options of the recipe that it does not have are dropped with a warning.
        dataset: another dataset; the recipe's options for the old one are dropped.
        data_root: folder of the dataset.
        overrides: see `override`.
        sections: content that replaces the recipe's, and is replaced by the overrides.

    Raises:
        RecipeError: as `load` does.
    """
    source = source or (dataset if dataset in shipped() else "300w")
    content = read(source)
    for section in ("space", "data"):
        _section(content, section)
    if space is not None:
        _change_space(content, space)
    if dataset is not None:
        other = dataset != _section(content, "data").get("name", _default_name("data"))
        content = merge(content, {"data": {"name": dataset}})
        if other:
            content["data"].pop("root", None)
    if data_root is not None:
        content = merge(content, {"data": {"root": str(data_root.resolve())}})
    content = merge(content, sections or {})
    override(content, overrides)
    return resolve(content, f"recipe '{source}'")


def choose_pruner(content: dict[str, Any], name: str | None, *given: tuple[str, Any, str]) -> None:
    """Change the pruner of a recipe in place.

    Args:
        content: of the recipe.
        name: of the pruner, or None.
        given: at most one (option, value, pruner to use where the recipe's does not take the option).

    Raises:
        RecipeError: when there is no such pruner.
    """
    old = {**Recipe().prune.model_dump(), **(content.get("prune") or {})}
    for _, _, default in given:
        name = name or (old["name"] if plugins.takes("pruners", old["name"], given[0][0]) else default)
    name = name or old["name"]
    options = dict(old.get("options") or {}) if name == old["name"] else {}
    content["prune"] = {"name": name, "options": {**options, **{option: value for option, value, _ in given}}}


def _change_space(content: dict[str, Any], name: str) -> None:
    space = content["space"] = _section(content, "space")
    if space.get("name", _default_name("space")) != name:
        known = plugins.check_options("searchspaces", name, {})
        options = _section(space, "options", "space.options")
        if strange := [option for option in options if option not in known]:
            log.warning("search space '%s' has no option %s; the recipe's is not used", name, ", ".join(strange))
        space["options"] = {option: value for option, value in options.items() if option in known}
    space["name"] = name


def _section(content: Mapping[str, Any], name: str, place: str = "") -> dict[str, Any]:
    """A section of a recipe; empty where there is none or nothing in it. RecipeError for a mere value."""
    section = content.get(name)
    if section is not None and not isinstance(section, dict):
        raise RecipeError(
            f"the recipe says {place or name}: {section!r}; expected a mapping, such as {name}: {{key: value}}"
        )
    return section or {}


def read(source: str) -> dict[str, Any]:
    """A recipe's content with `extends` applied, before overrides and defaults."""
    return _read(source, ())


def listing() -> list[dict[str, str]]:
    """One row for each shipped recipe, in the form of `plugins.listing`."""
    return [
        {
            "kind": "experiment" if "experiment" in content else "recipe",
            "name": name,
            "package": "nasface",
            "target": path.name,
            "about": str(content.get("description", "")),
        }
        for name, path in shipped().items()
        for content in (read(name),)
    ]


def _read(source: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Content of a recipe over that of the one it extends."""
    known = shipped()
    path = known.get(source, Path(source))
    if source not in known and path.suffix not in (".yaml", ".yml"):
        raise RecipeError(
            f"there is no recipe '{source}'; {did_you_mean(source, known)} (or give the path of a .yaml file)"
        )
    place = str(path.resolve())
    if place in seen:
        raise RecipeError(f"recipes extend one another in a circle: {' -> '.join((*seen, place))}; break it")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as err:
        raise RecipeError(
            f"cannot read the recipe {path} ({err}); give the path of a YAML file or a shipped name"
        ) from err
    except _YAML_FAULTS as err:
        raise RecipeError(f"recipe {path} is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {path} must be a mapping of sections such as 'space' and 'data'")
    base = content.pop("extends", None)
    if base is None:
        return _migrated(content)
    base = str(base)
    if base not in known and Path(base).suffix:  # a path, relative to the file that names it
        base = str(path.parent / base)
    return _migrated(merge(_read(base, (*seen, place)), content))


def _migrated(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with keys of older recipes in their place of today.

    Until version 0.1, the searcher 'l1' had an option `importance`, which named one of the criteria of today. Where
    both are given the option wins: what a recipe is based on has been migrated already, so the option came later.
    """
    migrated = dict(content)
    search = migrated.get("search")
    options = search.get("options") if isinstance(search, dict) else None
    if not (isinstance(search, dict) and isinstance(options, dict) and "importance" in options):
        return migrated
    if search.get("name", _default_name("search")) in _L1:
        rest = {name: value for name, value in options.items() if name != "importance"}
        migrated["search"] = {**search, "options": rest}
        migrated["criterion"] = {"name": options["importance"], "options": {}}
    return migrated


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section; a plug-in of another name starts from its own defaults."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if not (isinstance(old, dict) and isinstance(value, dict)):
            merged[name] = value
        elif "name" in value and value["name"] != old.get("name", _default_name(name)):
            merged[name] = merge({k: v for k, v in old.items() if k != "options"}, value)
        else:
            merged[name] = merge(old, value)
    return merged


def _default_name(section: str) -> str | None:
    part = getattr(Recipe(), section, None)
    return part.name if isinstance(part, Plugin) else None


def override(content: dict[str, Any], texts: Sequence[str]) -> None:
    """Apply 'a.b=value' settings in place, the values in YAML. RecipeError for what has another form."""
    for text in texts:
        _override(content, text)


def _override(content: dict[str, Any], text: str) -> None:
    path, sign, value = text.partition("=")
    if not sign or not path.strip():
        raise RecipeError(f"--set {text!r} is not of the form a.b=value, for example --set search.epochs=10")
    *sections, last = path.strip().split(".")
    inner = content
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {text!r}: '{section}' is a value, not a section")
    try:
        inner[last] = yaml.safe_load(value)
    except _YAML_FAULTS as err:
        raise RecipeError(
            f"--set {text!r}: the value is not valid YAML; give a number, a word or a list, in quotes where it is text"
        ) from err


def _check_keys(content: Mapping[str, Any], where: str) -> None:
    """Refuse a misspelt key with its likely meaning; pydantic's message has no such hint."""
    for path, key, known in _unknown(content, Recipe):
        place = ".".join((*path, key))
        raise RecipeError(f"{where}: unknown key '{place}'; {did_you_mean(key, known)}")


def _unknown(content: Any, model: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", None)
    if fields is None or not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if key not in fields:
            yield path, str(key), list(fields)
            continue
        default = getattr(fields[key], "default", None)
        yield from _unknown(value, type(default), (*path, str(key)))
