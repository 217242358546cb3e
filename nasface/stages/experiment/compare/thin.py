"""A thinner network of the same shape: options of the space, scaled together until a budget is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nasface import plugins
from nasface.cost import count_space
from nasface.errors import GraphError, NasfaceError, RecipeError
from nasface.recipe import Recipe
from nasface.search.choosers import CLOSE

_LARGEST = 2.0  # options grow at most by this factor, where others are fixed at small values
_counted: dict[str, int] = {}
_MULTIPLES = (1, 2, 4, 8, 16, 32)  # of which numbers of channels may have to be


def thin_options(recipe: Recipe, names: Sequence[str], macs: float, num_landmarks: int) -> dict[str, Any]:
    """Return the largest values of some options of the recipe's space with which its full network meets a budget.

    All of them are scaled by one factor and rounded, to multiples where the space refuses other numbers. In a list,
    every number is scaled.

    Raises:
        GraphError: if no values give between 94 % and all of the budget, or if the space refuses them.
        RecipeError: if an option is not a number or a list of numbers.
    """
    options = recipe.space.options
    for name in names:
        if not all(type(value) is int for value in _numbers(options.get(name))) or options.get(name) is None:
            raise RecipeError(
                f"the option '{name}' of the search space '{recipe.space.name}' is {options.get(name)!r}, which cannot "
                "be scaled; name options that are whole numbers or lists of them"
            )

    def size(factor: float, multiple: int) -> int:
        changed = {**options, **_scaled(options, names, factor, multiple)}
        return _macs(recipe.space.name, changed, num_landmarks, recipe.data.input_size)

    refusal: NasfaceError | None = None
    for multiple in _MULTIPLES:
        factors = _factors([number for name in names for number in _numbers(options[name])], multiple)
        low, high = 0, len(factors)  # the first factor that exceeds the budget lies in [low, high]
        try:
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if size(factors[middle], multiple) <= macs else (low, middle)
            near = [size(factor, multiple) for factor in factors[max(low - 1, 0) : low + 1]]
        except NasfaceError as err:
            refusal = refusal or err
            continue
        if low and CLOSE * macs <= near[0]:
            return _scaled(options, names, factors[low - 1], multiple)
        raise GraphError(
            f"scaling {', '.join(names)} of the search space '{recipe.space.name}' gives no network with between "
            f"{CLOSE:.0%} and all of {macs:,.0f} MACs; the nearest ones have {' and '.join(f'{n:,}' for n in near)}"
        )
    raise GraphError(f"the search space '{recipe.space.name}' refuses scaled options: {refusal}")


def _macs(space: str, options: Mapping[str, Any], num_landmarks: int, input_size: int) -> int:
    """Return the multiply-adds of the full network of a space; all seeds and budgets of a row ask for the same ones."""
    key = repr((space, options, num_landmarks, input_size))
    if key not in _counted:
        with torch.random.fork_rng(devices=[]):
            costs = count_space(plugins.space(space, options), num_landmarks, input_size)
        _counted[key] = costs.total(costs.space.graph).macs
    return _counted[key]


def _numbers(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _scaled(options: Mapping[str, Any], names: Sequence[str], factor: float, multiple: int) -> dict[str, Any]:
    def one(number: int) -> int:
        return multiple * max(1, int(number * factor / multiple + 0.5))

    return {
        name: [one(number) for number in value] if isinstance(value := options[name], list | tuple) else one(value)
        for name in names
    }


def _factors(numbers: Sequence[int], multiple: int) -> list[float]:
    """Return one factor for each different result of scaling and rounding these numbers, in rising order."""
    steps = {1e-9}
    for number in numbers:
        count = int(_LARGEST * number / multiple)
        steps |= {(step + 0.5) * multiple / number for step in range(count + 1)}
    rising = sorted(step for step in steps if step <= _LARGEST)
    return [step * (1 + 1e-9) for step in rising]  # just above the place where one of them is rounded up
