"""Reading recipes: YAML files that describe an experiment completely, with `extends` and `--set a.b=value`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ValidationError

from nasface import plugins, untrusted
from nasface.errors import RecipeError, did_you_mean, shortened, shown
from nasface.importing import allow, names_in
from nasface.sections import Plugin, Recipe

__all__ = [
    "Recipe", "assemble", "choose_pruner", "folder", "listing", "load", "merge", "override", "plugin_section", "read",
    "resolve", "shipped",
]  # fmt: skip

log = logging.getLogger(__name__)

PLUGINS = {
    "space": "searchspaces",
    "data": "datasets",
    "search": "searchers",
    "criterion": "criteria",
    "prune": "pruners",
}
"""The group of the plug-in that each of these sections of a recipe names."""

_BUDGETS = ("share", "macs", "params", "latency_ms")  # options of pruners that exclude one another
_PRUNER_OF = {"threshold": "threshold", "share": "share", "edges": "top"} | dict.fromkeys(_BUDGETS[1:], "budget")
"""The pruner that is meant by an option where none is named."""
_MOVED = {f"nasface.stages.experiment.compare.{name.rpartition('.')[2]}": name for name in plugins.CHOOSERS}
"""The searchers of comparisons, by the names that older run folders give them."""
_L1 = ("l1", "nasface.search.l1:L1Searcher")


def folder() -> Path:
    """Return the folder of the shipped recipes: inside the package of a wheel, or next to the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def shipped() -> dict[str, Path]:
    """Return the paths of the recipes that come with nasface, by name."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


def load(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and resolve it.

    Args:
        source: name of a shipped recipe, or path of a YAML file.
        overrides: see `override`.

    Raises:
        RecipeError: if the recipe, one of its keys or a plug-in is unknown, or if a value is not valid.
    """
    content = read(source)
    override(content, overrides)
    return resolve(content, f"recipe '{source}'")


def resolve(content: Mapping[str, Any], where: str, checked: Iterable[str] = tuple(PLUGINS)) -> Recipe:
    """Check the content of a recipe, including the options of its plug-ins, and fill in every default.

    Args:
        content: content of the recipe.
        where: name of the recipe, for error messages.
        checked: the plug-ins that are looked up, by their keys in `PLUGINS`; the options of others stay as they are.

    Raises:
        RecipeError: if a key or plug-in is unknown, or if a value is not valid.
    """
    if "experiment" in content:
        raise RecipeError(
            f"{where} describes several runs, which the key 'experiment' lists; start them with `nasface experiment`"
        )
    content = _migrated(content)
    _check_keys(content, where)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as err:
        raise RecipeError(plugins.explain(err, where)) from err
    update = {}
    for field in checked:
        part: Plugin = getattr(recipe, field)
        options = plugins.check_options(PLUGINS[field], part.name, part.options)
        update[field] = part.model_copy(update={"options": options})
    return recipe.model_copy(update=update)


def assemble(
    source: str | None,
    space: str | None,
    dataset: str | None,
    data_root: Path | None,
    overrides: Sequence[str] = (),
    sections: Mapping[str, Any] | None = None,
    checked: Iterable[str] = tuple(PLUGINS),
) -> Recipe:
    """Return the recipe that a command line describes.

    Args:
        source: see `load`; by default the shipped recipe with the name of the dataset, or else '300w'.
        space: another search space; options of the recipe that this space does not have are dropped with a warning.
        dataset: another dataset; options that the recipe gives to its own dataset are dropped.
        data_root: folder of the dataset.
        overrides: see `override`.
        sections: content that takes precedence over the recipe; overrides take precedence over it.
        checked: see `resolve`.

    Raises:
        RecipeError: as for `load`.
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
        if other:  # the folder of the recipe's own dataset
            content["data"].pop("root", None)
    if data_root is not None:
        content = merge(content, {"data": {"root": str(data_root.resolve())}})
    content = merge(content, sections or {})
    override(content, overrides)
    return resolve(content, f"recipe '{source}'", checked)


def choose_pruner(content: dict[str, Any], name: str | None, given: tuple[str, Any] | None = None) -> None:
    """Change the pruner of a recipe in place.

    Args:
        content: content of the recipe.
        name: name of the pruner; None leaves the choice to the recipe and to `given`.
        given: an option of the pruner, one of `_PRUNER_OF`, and its value. If no pruner is named and the recipe's own
            does not accept the option, one that does takes its place.

    Raises:
        RecipeError: if there is no such pruner, or if the recipe's own section cannot be one.
    """
    old = plugin_section(content, "prune")
    if given and name is None and not plugins.takes("pruners", old["name"], given[0]):
        name = _PRUNER_OF[given[0]]
    name = name or old["name"]
    options = old["options"] if name == old["name"] else {}
    if given and given[0] in _BUDGETS:  # a budget takes the place of the recipe's
        options = {option: value for option, value in options.items() if option not in _BUDGETS}
    content["prune"] = {"name": name, "options": {**options, **dict([given] if given else [])}}


def plugin_section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section that names a plug-in, with its defaults, from the content of a recipe that is not checked yet.

    Raises:
        RecipeError: if it is not a mapping with a name and options.
    """
    default: dict[str, Any] = getattr(Recipe(), name).model_dump(mode="json")
    found: dict[str, Any] = merge({name: default}, {name: _section(content, name)})[name]
    if not isinstance(found["name"], str):
        raise RecipeError(
            f"the recipe sets {name}.name to {shown(found['name'])}; expected a name from `nasface plugins`, such as "
            f"{default['name']}"
        )
    return {**found, "options": dict(_section(found, "options", f"{name}.options"))}


def _change_space(content: dict[str, Any], name: str) -> None:
    space = content["space"] = _section(content, "space")
    if space.get("name", _default_name("space")) != name:
        known = plugins.check_options("searchspaces", name, {})
        options = _section(space, "options", "space.options")
        if strange := [option for option in options if option not in known]:
            log.warning(
                "search space '%s' does not have the option %s of the recipe, which is ignored",
                name,
                ", ".join(strange),
            )
        space["options"] = {option: value for option, value in options.items() if option in known}
    space["name"] = name


def _section(content: Mapping[str, Any], name: str, place: str = "") -> dict[str, Any]:
    """Return a section of a recipe, or {} if it is missing or empty; RecipeError if it is not a mapping."""
    section = content.get(name)
    if section is not None and not isinstance(section, dict):
        raise RecipeError(
            f"the recipe sets {place or name} to {shown(section)}; expected a mapping, such as {name}: {{key: value}}"
        )
    return section or {}


def read(source: str) -> dict[str, Any]:
    """Return the content of a recipe with `extends` applied, but without overrides and defaults."""
    return _read(source, ())


def listing() -> list[dict[str, str]]:
    """Return one row per shipped recipe, in the form of `plugins.listing`."""
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
    """Return the content of a recipe, merged into that of the recipe it extends; `seen` are the files that led here."""
    known = shipped()
    path = known.get(source, Path(source))
    if source not in known and path.suffix not in (".yaml", ".yml"):
        raise RecipeError(
            f"there is no recipe '{shortened(source)}'; {did_you_mean(source, known)} (or give the path of a .yaml "
            "file)"
        )
    place = os.path.realpath(path)  # Path.resolve fails on links that lead in a circle
    if place in seen:
        raise RecipeError(
            f"recipes extend one another in a circle: {' -> '.join((*seen, place))}; remove one 'extends'"
        )
    try:
        untrusted.check_file(path, untrusted.MAX_RECIPE)
        content = untrusted.parse_yaml(path.read_text(encoding="utf-8"), path) or {}
    except untrusted.NotReadableError as err:
        raise RecipeError(f"recipe {path} is not valid YAML: {err}") from err
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or err
        raise RecipeError(
            f"cannot read the recipe {shortened(str(path), 400)} ({reason}); give the path of a YAML file or the name "
            "of a shipped recipe"
        ) from err
    if not isinstance(content, dict):
        raise RecipeError(
            f"recipe {path} holds a {type(content).__name__}; expected a mapping of sections such as 'space' and 'data'"
        )
    base = content.pop("extends", None)
    if base is None:
        return _migrated(content)
    base = str(base)
    if base not in known and Path(base).suffix:  # a path is relative to the file that names it
        base = str(path.parent / base)
    return _migrated(merge(_read(base, (*seen, place)), content))


def _migrated(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a recipe with the keys of older versions translated.

    Up to version 0.1, the searcher 'l1' had an option `importance`, which named what is now the criterion. If both are
    given the option wins: the recipe that this one extends has already been translated, so the option is the newer one.
    The searchers of comparisons once lay in another module.
    """
    migrated = dict(content)
    search = migrated.get("search")
    if isinstance(search, dict) and isinstance(name := search.get("name"), str) and name in _MOVED:
        migrated["search"] = search = {**search, "name": _MOVED[name]}
    options = search.get("options") if isinstance(search, dict) else None
    if not (isinstance(search, dict) and isinstance(options, dict) and "importance" in options):
        return migrated
    if search.get("name", _default_name("search")) in _L1:
        rest = {name: value for name, value in options.items() if name != "importance"}
        migrated["search"] = {**search, "options": rest}
        migrated["criterion"] = {"name": options["importance"], "options": {}}
    return migrated


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base` section by section; if a plug-in changes, its options start from their defaults."""
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
    """Apply settings 'a.b=value' in place, with values in YAML.

    If a setting names another plug-in, the options of the one before are dropped, as in `merge`; options that are set
    together with the name apply to the new plug-in, whichever comes first.

    Raises:
        RecipeError: if a text does not have this form.
    """
    for i, text in enumerate(texts):
        if _override(content, text):
            section = _keys(text)[0]
            for earlier in texts[:i]:
                if _keys(earlier)[:2] == [section, "options"]:
                    _override(content, earlier)


def _keys(text: str) -> list[str]:
    return text.partition("=")[0].strip().split(".")


def _plugin_named(keys: list[str]) -> str | None:
    """Return the section whose plug-in a setting names, such as 'prune' for 'prune.name=greedy'."""
    return keys[0] if len(keys) == 2 and keys[0] in PLUGINS and keys[1] == "name" else None


def _override(content: dict[str, Any], text: str) -> bool:
    """Apply a setting, and return whether it named another plug-in, whose options then start from their defaults."""
    path, sign, value = text.partition("=")
    if not sign or not path.strip():
        raise RecipeError(
            f"--set {shown(text)} does not have the form a.b=value; expected, for example, --set search.epochs=10"
        )
    *sections, last = keys = _keys(text)
    inner = content
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {shown(text)}: '{section}' is a value, not a section; set it as a whole")
    try:
        new = untrusted.parse_yaml(value)
    except untrusted.NotReadableError as err:
        raise RecipeError(
            f"--set {shown(text)}: the value is not valid YAML ({err}); give a number, a word or a list, with text in "
            "quotes"
        ) from err
    plugin = _plugin_named(keys)
    other = plugin is not None and new != inner.get("name", _default_name(plugin))
    if other:
        inner.pop("options", None)
    inner[last] = new
    allow(*names_in(new))  # typed by the person, whatever files name too
    return other


def _check_keys(content: Mapping[str, Any], where: str) -> None:
    """Raise a RecipeError that suggests the correct spelling of an unknown key, which pydantic would not do."""
    for path, key, known in _unknown(content, Recipe):
        place = ".".join((*path, key))
        raise RecipeError(f"{where}: unknown key '{shortened(place)}'; {did_you_mean(key, known)}")


@cache
def _types(model: Any) -> dict[str, Any]:
    """Return the types of the keys of a section."""
    return get_type_hints(model, include_extras=True)


def _unknown(content: Any, model: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Yield the section, name and valid alternatives of each key that `model` (pydantic or dataclass) lacks."""
    known = [one.name for one in fields(model)] if is_dataclass(model) else list(getattr(model, "model_fields", ()))
    if not known or not isinstance(content, Mapping):
        return
    hints = _types(model)
    plugins.refuse_switches(content, hints, ".".join(("recipe", *path)))
    for key, value in content.items():
        if key not in known:
            yield path, str(key), known
            continue
        yield from _unknown(value, hints[key], (*path, str(key)))
