"""Plug-ins by name: entry points, or 'module:attr' for what is not installed. Their options are checked here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from nasface.data.base import Dataset
from nasface.errors import NasfaceError, RecipeError, did_you_mean
from nasface.prune import Pruner
from nasface.search import Searcher
from nasface.space import SearchSpace

GROUPS = {
    "searchspaces": "search space",
    "datasets": "data set",
    "searchers": "searcher",
    "pruners": "pruner",
}
SUPPLIED = {"pruners": 3, "datasets": 1}  # leading arguments that nasface gives, not recipes


def names(group: str) -> dict[str, EntryPoint]:
    """Installed plug-ins of a group ('searchspaces', 'datasets', 'searchers', 'pruners') by name."""
    return {point.name: point for point in sorted(entry_points(group=f"nasface.{group}"), key=lambda p: p.name)}


def load(group: str, name: str) -> Callable[..., Any]:
    """The plug-in's callable.

    Args:
        group: a key of `GROUPS`.
        name: of an entry point, or 'module:attr'.

    Raises:
        RecipeError: when there is no such plug-in or it cannot be imported.
    """
    kind = GROUPS[group]
    known = names(group)
    found: Any = None
    try:
        if name in known:
            found = known[name].load()
        elif ":" in name:
            module, _, attr = name.partition(":")
            found = getattr(importlib.import_module(module), attr)
    except (ImportError, AttributeError, ValueError) as err:
        raise RecipeError(
            f"the {kind} '{name}' cannot be imported ({err}); install its package or mend the name"
        ) from err
    if callable(found):
        return cast(Callable[..., Any], found)
    if found is not None:
        raise RecipeError(f"the {kind} '{name}' is a {type(found).__name__}; expected something that can be called")
    raise RecipeError(
        f"there is no {kind} '{name}'; {did_you_mean(name, known)} "
        "(an own one is named 'module:attr' or installed as an entry point; see `nasface plugins`)"
    )


def check_options(group: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a plug-in, defaults filled in, types checked against its signature.

    Raises:
        RecipeError: for an unknown option or a value of the wrong type or range.
    """
    factory = load(group, name)
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(factory).parameters.values())[SUPPLIED.get(group, 0) :]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return dict(options)  # the plug-in checks its own
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    where = f"options of {GROUPS[group]} '{name}'"
    if unknown := sorted(set(options) - set(fields)):
        raise RecipeError(f"{where}: unknown key '{unknown[0]}'; {did_you_mean(unknown[0], fields)}")
    model = create_model("Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
    try:
        return dict(model(**options))
    except ValidationError as err:
        raise RecipeError(explain(err, where)) from err


def space(name: str, options: Mapping[str, Any] | None = None) -> SearchSpace:
    """Build a search space."""
    return cast(SearchSpace, load("searchspaces", name)(**check_options("searchspaces", name, options or {})))


def dataset(name: str, root: Path | None, options: Mapping[str, Any] | None = None) -> Dataset:
    """Build a data set on the folder `root` (None for a set that needs none)."""
    return cast(Dataset, load("datasets", name)(root, **check_options("datasets", name, options or {})))


def searcher(name: str, options: Mapping[str, Any] | None = None) -> Searcher:
    """Build a searcher."""
    return cast(Searcher, load("searchers", name)(**check_options("searchers", name, options or {})))


def pruner(name: str, options: Mapping[str, Any] | None = None) -> Pruner:
    """A pruner with its options bound."""
    return cast(Pruner, partial(load("pruners", name), **check_options("pruners", name, options or {})))


def listing() -> list[dict[str, str]]:
    """One row for each installed plug-in: kind, name, where it lives, what it says of itself, or its fault."""
    rows = []
    for group, kind in GROUPS.items():
        for name, point in names(group).items():
            try:
                about = (inspect.getdoc(load(group, name)) or "").partition("\n")[0]
            except NasfaceError as err:
                about = str(err)
            package = point.dist.name if point.dist else ""
            rows.append({"kind": kind, "name": name, "package": package, "target": point.value, "about": about})
    return rows


def explain(err: ValidationError, where: str) -> str:
    """The first fault of a pydantic error in one sentence."""
    first = err.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    got = first.get("input")
    shown = "" if first["type"] == "missing" else f" (got {got!r})"
    return f"{where}: {place}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}"
