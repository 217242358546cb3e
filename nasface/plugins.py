"""Plug-ins, found by the name of an entry point or as 'module:attr', and the check of their options.

A file can only name plug-ins that are installed; see `nasface.importing`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from nasface.bounds import switched
from nasface.data.base import Dataset
from nasface.errors import NasfaceError, RecipeError, described, did_you_mean, out_of_memory, shortened, shown
from nasface.formats import Format
from nasface.graph import Graph
from nasface.importing import resolve

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
OWN = ("nasface.", "searchspaces.")
RESULTS: dict[str, type] = {"criteria": Mapping, "pruners": Graph}

log = logging.getLogger(__name__)

CHOOSERS = tuple(f"nasface.search.choosers:{name}" for name in ("AsSearched", "BestOfRandom"))
"""Searchers that `nasface experiment` writes into recipes. Nobody chooses them, so they are no entry points."""


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
    known = _installed(group)
    point = known.get(name)
    hint = "`nasface plugins` lists those installed; give your own as 'module:attr', or install it as an entry point"
    return resolve(GROUPS[group], name, point.load if point else None, (own for own in known if ":" not in own), hint)


def _installed(group: str) -> dict[str, EntryPoint]:
    """Return the plug-ins that a file may name: by the names of their entry points, and by 'module:attr' as well."""
    own = [EntryPoint(name, name, group) for name in CHOOSERS] if group == "searchers" else []
    ours = names(group)
    return {point.value: point for point in (*ours.values(), *own)} | ours


def check_options(group: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a plug-in, checked against its signature and with defaults filled in.

    Raises:
        RecipeError: if an option is unknown or missing, or if a value has the wrong type or is out of range.
    """
    factory, supplied = load(group, name), SUPPLIED.get(group, 0)
    kept = inspect.isfunction(factory) or type(factory) is type  # others may have an odd hash
    try:
        fields = (_fields if kept else _fields.__wrapped__)(factory, supplied)
    except (TypeError, ValueError) as err:
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' does not say which options it takes ({described(err)}); "
            "use a Python function or class with keyword arguments"
        ) from err
    if fields is None:
        return dict(options)  # with **kwargs, the plug-in checks its options itself
    where = f"options of {GROUPS[group]} '{name}'"
    if unknown := sorted(map(str, options.keys() - fields)):
        raise RecipeError(f"{where}: unknown key '{shortened(unknown[0])}'; {did_you_mean(unknown[0], fields)}")
    refuse_switches(options, {name: hint for name, (hint, _) in fields.items()}, where)
    try:
        model = (_model if kept else _model.__wrapped__)(factory, supplied)
        return dict(model(**options))
    except ValidationError as err:
        raise RecipeError(explain(err, where)) from err
    except Exception as err:  # for annotations it does not know, pydantic raises many types of errors
        raise RecipeError(f"{where} cannot be checked ({described(err)}); correct the plug-in's signature") from err


def refuse_switches(values: Mapping[str, Any], hints: Mapping[str, Any], where: str) -> None:
    """Raise a RecipeError where a number is given as true or false; YAML takes also yes, no, on and off for these."""
    if name := switched(values, hints):
        raise RecipeError(f"{where}: {name}: expected a number, not {str(values[name]).lower()}")


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
    """Return a criterion whose options are bound, and whose faults are RecipeErrors that name it."""
    return cast("Criterion", _bound("criteria", name, options or {}))


def pruner(name: str, options: Mapping[str, Any] | None = None) -> Pruner:
    """Return a pruner whose options are bound, and whose faults are RecipeErrors that name it."""
    return cast("Pruner", _bound("pruners", name, options or {}))


def form(name: str) -> Format:
    """Build an export format."""
    return cast(Format, _build("formats", name, Format, (), {}))


def _bound(group: str, name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    call, result = partial(load(group, name), **check_options(group, name, options)), RESULTS[group]

    def checked(*supplied: Any) -> Any:
        with faults(group, name):
            found = call(*supplied)
            if not isinstance(found, result):
                raise TypeError(f"it returned a {type(found).__name__}, expected a {result.__name__}")
        return found

    return checked


@contextmanager
def faults(group: str, name: str) -> Iterator[None]:
    """Turn whatever a plug-in raises as it works into a RecipeError that names it; the log has the traceback.

    A NasfaceError, what the machine refuses, and faults of nasface's own plug-ins pass as they are.
    """
    try:
        yield
    except (NasfaceError, OSError):
        raise
    except (Exception, SystemExit) as err:
        if out_of_memory(err) or str(getattr(load(group, name), "__module__", "")).startswith(OWN):
            raise
        log.info("the %s '%s' failed", GROUPS[group], name, exc_info=True)
        raise RecipeError(
            f"the {GROUPS[group]} '{name}' failed ({described(err)}); correct its options or the plug-in itself"
        ) from err


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
    except (Exception, SystemExit) as err:  # a plug-in may raise anything
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


@cache  # an experiment asks for the same few plug-ins hundreds of times
def _fields(factory: Callable[..., Any], supplied: int) -> dict[str, Any] | None:
    """Return type and default of each option of a plug-in, or None if it takes any."""
    hints = _hints(factory)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(factory).parameters.values())[supplied:]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return None
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return fields


@cache
def _model(factory: Callable[..., Any], supplied: int) -> type[BaseModel]:
    """Return the pydantic model of the options of a plug-in."""
    fields = _fields.__wrapped__(factory, supplied) or {}
    return create_model("Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)


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
    place = shortened(".".join(str(part) for part in first["loc"]))
    got = first.get("input")
    value = "" if first["type"] == "missing" else f" (got {shown(got)})"
    return f"{where}: {f'{place}: ' if place else ''}{first['msg'][:1].lower()}{first['msg'][1:]}{value}"
