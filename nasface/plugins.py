"""Plug-ins by name: entry points, or 'module:attr' for what is not installed. Their options are checked here."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
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
    "teachers": "teacher",
}
SUPPLIED = {"pruners": 3, "datasets": 1, "teachers": 1}  # leading arguments that nasface gives, not recipes


@cache  # looking through all that is installed takes 50 ms
def names(group: str) -> dict[str, EntryPoint]:
    """Installed plug-ins of a group ('searchspaces', 'datasets', 'searchers', 'pruners', 'teachers') by name."""
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
            _search_here()
            found = getattr(importlib.import_module(module), attr)
    except (Exception, SystemExit) as err:  # a plug-in's module may raise anything
        raise RecipeError(
            f"the {kind} '{name}' cannot be imported ({_said(err)}); install its package or mend the name or module"
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
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError) as err:
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' does not say which options it takes ({_said(err)}); "
            "name a Python function or class with keyword arguments"
        ) from err
    hints = _hints(factory)
    fields: dict[str, Any] = {}
    for parameter in parameters[SUPPLIED.get(group, 0) :]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return dict(options)  # the plug-in checks its own
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    where = f"options of {GROUPS[group]} '{name}'"
    if unknown := sorted(set(options) - set(fields)):
        raise RecipeError(f"{where}: unknown key '{unknown[0]}'; {did_you_mean(unknown[0], fields)}")
    try:
        model = create_model("Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
        return dict(model(**options))
    except ValidationError as err:
        raise RecipeError(explain(err, where)) from err
    except Exception as err:  # pydantic raises a dozen types on annotations that it does not know
        raise RecipeError(f"{where}: cannot be checked ({_said(err)}); mend the plug-in's signature") from err


def takes(group: str, name: str, option: str) -> bool:
    """Whether a plug-in has an option of this name. RecipeError when there is no such plug-in."""
    return option in inspect.signature(load(group, name)).parameters


def space(name: str, options: Mapping[str, Any] | None = None) -> SearchSpace:
    """Build a search space."""
    return cast(SearchSpace, _build("searchspaces", name, SearchSpace, (), options))


def dataset(name: str, root: Path | None, options: Mapping[str, Any] | None = None) -> Dataset:
    """Build a data set on the folder `root` (None for a set that needs none)."""
    return cast(Dataset, _build("datasets", name, Dataset, (root,), options))


def searcher(name: str, options: Mapping[str, Any] | None = None) -> Searcher:
    """Build a searcher."""
    return cast(Searcher, _build("searchers", name, Searcher, (), options))


def pruner(name: str, options: Mapping[str, Any] | None = None) -> Pruner:
    """A pruner with its options bound."""
    return cast(Pruner, partial(load("pruners", name), **check_options("pruners", name, options or {})))


def _build(
    group: str, name: str, protocol: type, supplied: tuple[Any, ...], options: Mapping[str, Any] | None
) -> object:
    """Call a plug-in and look whether it gave an object with the members of the protocol."""
    factory, checked = load(group, name), check_options(group, name, options or {})
    members = [*protocol.__annotations__, *(member for member in vars(protocol) if not member.startswith("_"))]
    try:
        built: object = factory(*supplied, **checked)
        lacking = [member for member in members if not hasattr(built, member)]
    except NasfaceError:
        raise
    except Exception as err:  # a plug-in may raise anything
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' cannot be built ({_said(err)}); mend its options, its name or the plug-in"
        ) from err
    if lacking:
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' gives a {type(built).__name__} without {', '.join(lacking)}; "
            f"expected an object with the members of {protocol.__module__}.{protocol.__name__}"
        )
    return built


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Types of the options; none where they cannot be resolved, as names imported for type checkers only."""
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    except Exception:  # an annotation is any expression
        return {}


def _search_here() -> None:
    """Let modules of the working directory be imported, as `python -m` does; installed ones of the name win."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _said(err: BaseException) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"


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
