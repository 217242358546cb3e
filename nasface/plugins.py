"""Plug-ins, found by the name of an entry point or as 'module:attr', and the check of their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from nasface.data.base import Dataset
from nasface.errors import NasfaceError, RecipeError, described, did_you_mean
from nasface.formats import Format
from nasface.importing import NotImportableError, import_attr

if TYPE_CHECKING:  # these import torch, which exported networks run without
    from nasface.criteria import Criterion
    from nasface.prune import Pruner
    from nasface.search import Searcher
    from nasface.space import SearchSpace

GROUPS = {
    "searchspaces": "search space",
    "datasets": "dataset",
    "searchers": "searcher",
    "criteria": "criterion",
    "pruners": "pruner",
    "teachers": "teacher",
    "formats": "export format",
}
SUPPLIED = {
    "pruners": 3,
    "criteria": 2,
    "datasets": 1,
    "teachers": 1,
}  # number of leading arguments that nasface passes itself


@cache  # searching the metadata of all installed packages takes about 50 ms
def names(group: str) -> dict[str, EntryPoint]:
    """Return the installed plug-ins of a group (a key of `GROUPS`) by name."""
    return {point.name: point for point in sorted(entry_points(group=f"nasface.{group}"), key=lambda p: p.name)}


def load(group: str, name: str) -> Callable[..., Any]:
    """Return the plug-in's callable.

    Args:
        group: a key of `GROUPS`.
        name: name of an entry point, or 'module:attr'.

    Raises:
        RecipeError: if there is no such plug-in, or if it cannot be imported.
    """
    kind, known = GROUPS[group], names(group)
    if name not in known and ":" not in name:
        raise RecipeError(
            f"there is no {kind} '{name}'; {did_you_mean(name, known)} "
            "(`nasface plugins` lists those installed; give your own as 'module:attr', or install it as an entry point)"
        )
    try:
        found = known[name].load() if name in known else import_attr(name)
    except (Exception, SystemExit) as err:  # a plug-in's module may raise anything
        why = str(err) if isinstance(err, NotImportableError) else described(err)
        raise RecipeError(
            f"the {kind} '{name}' cannot be imported ({why}); install its package, or correct the name or the module"
        ) from err
    if not callable(found):
        raise RecipeError(f"the {kind} '{name}' is a {type(found).__name__}; expected a function or a class")
    return cast(Callable[..., Any], found)


def check_options(group: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a plug-in, checked against its signature and with defaults filled in.

    Raises:
        RecipeError: if an option is unknown or missing, or if a value has the wrong type or is out of range.
    """
    factory = load(group, name)
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError) as err:
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' does not say which options it takes ({described(err)}); "
            "use a Python function or class with keyword arguments"
        ) from err
    hints = _hints(factory)
    fields: dict[str, Any] = {}
    for parameter in parameters[SUPPLIED.get(group, 0) :]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return dict(options)  # with **kwargs, the plug-in checks its options itself
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
    except Exception as err:  # for annotations it does not know, pydantic raises many types of errors
        raise RecipeError(f"{where} cannot be checked ({described(err)}); correct the plug-in's signature") from err


def takes(group: str, name: str, option: str) -> bool:
    """Return whether a plug-in has an option with this name; RecipeError if there is no such plug-in."""
    return option in inspect.signature(load(group, name)).parameters


def space(name: str, options: Mapping[str, Any] | None = None) -> SearchSpace:
    """Build a search space."""
    from nasface.space import SearchSpace

    return cast(SearchSpace, _build("searchspaces", name, SearchSpace, (), options))


def dataset(name: str, root: Path | None, options: Mapping[str, Any] | None = None) -> Dataset:
    """Build a dataset from the folder `root`, or from None if it needs no folder."""
    return cast(Dataset, _build("datasets", name, Dataset, (root,), options))


def searcher(name: str, options: Mapping[str, Any] | None = None) -> Searcher:
    """Build a searcher."""
    from nasface.search import Searcher

    return cast(Searcher, _build("searchers", name, Searcher, (), options))


def criterion(name: str, options: Mapping[str, Any] | None = None) -> Criterion:
    """Return a criterion whose options are bound."""
    return cast("Criterion", partial(load("criteria", name), **check_options("criteria", name, options or {})))


def pruner(name: str, options: Mapping[str, Any] | None = None) -> Pruner:
    """Return a pruner whose options are bound."""
    return cast("Pruner", partial(load("pruners", name), **check_options("pruners", name, options or {})))


def form(name: str) -> Format:
    """Build an export format."""
    return cast(Format, _build("formats", name, Format, (), {}))


def _build(
    group: str, name: str, protocol: type, supplied: tuple[Any, ...], options: Mapping[str, Any] | None
) -> object:
    """Call a plug-in, and check that the object it returns has all members of the protocol."""
    factory, checked = load(group, name), check_options(group, name, options or {})
    members = [*protocol.__annotations__, *(member for member in vars(protocol) if not member.startswith("_"))]
    try:
        built: object = factory(*supplied, **checked)
        lacking = [member for member in members if not hasattr(built, member)]
    except NasfaceError:
        raise
    except Exception as err:  # a plug-in may raise anything
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' cannot be built ({described(err)}); correct its options, its name or "
            "the plug-in itself"
        ) from err
    if lacking:
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' returns a {type(built).__name__} without {', '.join(lacking)}; "
            f"expected an object with the members of {protocol.__module__}.{protocol.__name__}"
        )
    return built


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the options, or {} if they cannot be resolved, as names that only type checkers import."""
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    except Exception:  # an annotation can be any expression, and raise anything
        return {}


def listing() -> list[dict[str, str]]:
    """Return one row per installed plug-in: its kind, name, package, target and first line of documentation."""
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
    """Return the first problem of a pydantic error as one sentence; `where` names what was checked."""
    first = err.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    got = first.get("input")
    shown = "" if first["type"] == "missing" else f" (got {got!r})"
    return f"{where}: {f'{place}: ' if place else ''}{first['msg'][:1].lower()}{first['msg'][1:]}{shown}"
