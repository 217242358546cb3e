"""The numbers that recipes and options hold, as types with a range: wide enough for any real use, and finite.

Memory and time stay sane within them; the reference of recipe keys and options shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Interval

MAX_EPOCHS = 100_000
MAX_COUNT = 10_000  # networks, draws or trials that one command is asked for
MAX_SIZE = 10**15  # multiply-adds or parameters of a network

Epochs = Annotated[int, Interval(ge=0, le=MAX_EPOCHS)]
Count = Annotated[int, Interval(ge=0, le=MAX_COUNT)]
Some = Annotated[int, Interval(ge=1, le=MAX_COUNT)]  # a count of at least one
Size = Annotated[int, Interval(ge=1, le=MAX_SIZE)]  # multiply-adds or parameters
Macs = Annotated[float, Interval(ge=1, le=1e15)]  # the same, as recipes may write it: 40.0e+6
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
Rate = Annotated[float, Interval(gt=0, le=1000)]  # a learning rate, or the factor of one
Milliseconds = Annotated[float, Interval(gt=0, le=1e9)]
Weight = Annotated[float, Interval(ge=0, le=1e9)]  # of a term of a loss, or a threshold
Portion = Annotated[float, Interval(ge=0, le=1)]
Share = Annotated[float, Interval(gt=0, le=1)]  # a portion that is not nothing


def switched(values: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
    """Return the name of a number that is given as true or false, which pydantic would take for 1 or 0; or None."""
    return next((name for name, value in values.items() if isinstance(value, bool) and _number(hints.get(name))), None)


def outside(value: float, hint: Any) -> str | None:
    """Return the range that a type allows in words, if a value is not within it; None if it is."""
    if get_origin(hint) in (Union, UnionType):
        return next((range_ for part in get_args(hint) if (range_ := outside(value, part))), None)
    ranges: list[Any] = [limit for limit in get_args(hint)[1:] if isinstance(limit, Interval)]
    for limit in ranges:
        low, high = limit.gt if limit.ge is None else limit.ge, limit.lt if limit.le is None else limit.le
        if not (
            (limit.ge is None or value >= limit.ge)
            and (limit.gt is None or value > limit.gt)
            and (limit.le is None or value <= limit.le)
            and (limit.lt is None or value < limit.lt)
        ):
            return f"from {low} to {high}"
    return None


def _number(hint: Any) -> bool:
    """Whether a type stands for numbers alone."""
    if get_origin(hint) is Annotated:
        return _number(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return any(map(_number, get_args(hint))) and bool not in get_args(hint)
    return hint in (int, float)
