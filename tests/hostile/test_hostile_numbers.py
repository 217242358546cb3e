"""Every number of a recipe, of a plug-in's option and of a command line has bounds, and odd values are refused."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click
import pytest
from annotated_types import Interval
from pydantic import BaseModel

from nasface import plugins
from nasface import recipe as recipes
from nasface.bounds import outside
from nasface.cli import main
from nasface.errors import NasfaceError
from nasface.recipe import Recipe
from nasface.stages.experiment.plan import Plan
from tests.hostile.held import NUMBERS, Tally

OURS = ("nasface.", "searchspaces.")
GROUPS = {
    "searchspaces": "space",
    "datasets": "data",
    "searchers": "search",
    "criteria": "criterion",
    "pruners": "prune",
}
NEEDED = {
    "threshold": {"threshold": 0.1},
    "share": {"share": 0.5},
    "top": {"edges": 3},
    "greedy": {"share": 0.5},
    "random": {"share": 0.5},
    "hot": {"macs": 1e6},
    "family": {"budgets": [1e6]},
}


def numbers_in(hint: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[type, tuple[Any, ...]]]:
    """The numbers that a type is made of, each with its ranges."""
    if get_origin(hint) is Annotated:
        yield from numbers_in(get_args(hint)[0], get_args(hint)[1:])
    elif hint in (int, float):
        yield hint, metadata
    elif get_origin(hint) is not None:
        for part in get_args(hint):
            yield from numbers_in(part)


def bounded(ranges: tuple[Any, ...]) -> bool:
    limits = [limit for limit in ranges if isinstance(limit, Interval)]
    return any(
        (limit.ge is not None or limit.gt is not None) and (limit.le is not None or limit.lt is not None)
        for limit in limits
    )


def fields(model: type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of a section and of the sections in it, with its type."""
    for name, hint in get_type_hints(model, include_extras=True).items():
        if name in getattr(model, "model_fields", getattr(model, "__dataclass_fields__", {})):
            yield (*path, name), hint
            for part in (hint, *get_args(hint)):
                if inspect.isclass(part) and (issubclass(part, BaseModel) or dataclasses.is_dataclass(part)):
                    yield from fields(part, (*path, name))


def options() -> Iterator[tuple[str, str, str, Any]]:
    """Every option of every plug-in of nasface's own: group, plug-in, option, type."""
    for group in GROUPS:
        for name, point in plugins.names(group).items():
            if not point.value.startswith(OURS):
                continue
            try:
                factory = plugins.load(group, name)
            except NasfaceError:
                continue  # not in this version
            skipped = plugins.SUPPLIED.get(group, 0)
            hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
            for option in list(inspect.signature(factory).parameters)[skipped:]:
                yield group, name, option, hints.get(option, Any)


def test_every_number_of_recipes_and_plugins_has_a_lowest_and_a_highest_value():
    found = [(path, hint) for model in (Recipe, Plan) for path, hint in fields(model)]
    found += [(option[:3], option[3]) for option in options()]
    unbounded = [path for path, hint in found for _, ranges in numbers_in(hint) if not bounded(ranges)]
    assert not unbounded
    assert sum(1 for _, hint in found for _ in numbers_in(hint)) > 60


def placed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    inner = content
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = value
    return content


def true(given: Any, taken: Any, hint: Any) -> bool:
    """Whether a value that was accepted is the number that was given, and within the range."""
    if not isinstance(taken, int | float) or isinstance(taken, bool):
        return taken is None or isinstance(taken, bool | str | Mapping | list | tuple)
    same = not isinstance(given, bool) and math.isclose(float(given), float(taken), rel_tol=1e-9)
    return same and math.isfinite(taken) and outside(taken, hint) is None


@pytest.mark.parametrize(
    "value", NUMBERS, ids=[f"{value!r:.12}" if i != 11 else "huge" for i, value in enumerate(NUMBERS)]
)
def test_numbers_of_recipes(tally: Tally, value: Any):
    for path, hint in fields(Recipe):
        if not list(numbers_in(hint)):
            continue
        found = tally.held(
            lambda path=path: recipes.resolve(placed(path, copy.deepcopy(value)), "recipe"), (path, value)
        )
        if isinstance(found, Recipe):
            taken: Any = found
            for name in path:
                taken = getattr(taken, name)
            assert true(value, taken, hint), (path, value, taken)
        else:
            assert path[-1] in str(found), (path, value, found)


@pytest.mark.parametrize(
    "value", NUMBERS, ids=[f"{value!r:.12}" if i != 11 else "huge" for i, value in enumerate(NUMBERS)]
)
def test_numbers_of_plugins(tally: Tally, value: Any):
    for group, name, option, hint in options():
        if not list(numbers_in(hint)):
            continue
        given = {**NEEDED.get(name, {}), option: copy.deepcopy(value)}
        found = tally.held(
            lambda g=group, n=name, o=given: plugins.check_options(g, n, o), (group, name, option, value)
        )
        if isinstance(found, dict):
            assert true(value, found[option], hint), (group, name, option, value, found[option])
            if group == "searchspaces":
                tally.held(lambda n=name, o=given: plugins.space(n, o), (name, given))
        else:
            assert option in str(found), (group, name, option, value, found)


@pytest.mark.parametrize(
    "given",
    [
        {"width": 256, "stages": 64, "resolutions": 6},
        {"width": 256, "encoder": "residual", "resolutions": 6, "stages": 2, "depth": 32},
        {"depth": 32, "stages": 64, "width": 1},
    ],
)
def test_numbers_that_are_each_allowed_are_too_many_together(tally: Tally, given: dict[str, Any]):
    found = tally.held(lambda: plugins.space("hrsupernet", given), given)
    assert isinstance(found, NasfaceError)
    assert "at most" in str(found)


def test_wide_networks_and_large_inputs_are_allowed():
    assert plugins.space("hrnet", {"width": 64}).graph
    assert plugins.space("hrsupernet", {"width": 64}).graph
    assert plugins.space("hrsupernet", {"width": 256, "stages": 3, "depth": 2}).graph
    assert recipes.load("demo", ["data.input_size=1024", "training.batch=4096"]).data.input_size == 1024


WORDS = (
    "-1",
    "0x10",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 400,
    "9" * 5000,
    "",
    " ",
    "1,5",
    "١",
    "--",
    "1_0",
    "ten",
    "\x7f",
)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_numbers_of_command_lines(tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for path, command in commands(main):
        for option in command.params:
            kind = option.type
            if not isinstance(option, click.Option) or not (
                isinstance(kind, click.types._NumberRangeBase | click.types.FuncParamType)
                or kind in (click.INT, click.FLOAT)
            ):
                continue
            assert (
                not isinstance(kind, click.types._NumberRangeBase)
                or isinstance(kind, click.FloatRange)
                or (kind.min is not None and kind.max is not None)
            ), (path, option.name)
            for word in WORDS:
                assert tally.command(*path, option.opts[0], word) == 2, (path, option.name, word)
