"""Numbers on the command line: sizes such as 0.6G, 80M, 350k and 123456, finite numbers within a range, and lists."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click
from click.types import FuncParamType

from nasface.bounds import MAX_SIZE
from nasface.errors import shown

if TYPE_CHECKING:
    _List = click.ParamType[tuple[Any, ...]]
    _Milliseconds = click.ParamType[tuple[float, bool]]
else:  # before click 8.4, a type of options does not say what its values are
    _List = _Milliseconds = click.ParamType

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_FORM = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})([kmg]?)", re.ASCII | re.IGNORECASE)


def size(text: str) -> int:
    """Parse a number of MACs or parameters, which may end in k, M or G (powers of 1000).

    What remains below one is dropped, which changes nothing for an upper limit.

    Raises:
        click.BadParameter: for any other text, and for a number below 1 or above `MAX_SIZE`.
    """
    form = _FORM.fullmatch(text.strip())
    count = int(Decimal(form[1]) * _UNITS[form[2].lower()]) if form else 0
    if not 1 <= count <= MAX_SIZE:
        raise click.BadParameter(
            f"{shown(text)} is not a valid size; give a number above 0 such as 0.6G, 80M, 350k or 123456, at most "
            f"{MAX_SIZE / 10**9:,.0f}G"
        )
    return count


_FAR = 10**9  # a bound beyond this only keeps out what makes no sense


class Real(click.FloatRange):
    """A finite number in a range; click itself lets nan pass."""

    def _describe_range(self) -> str:
        """Describe the range in help texts, without bounds that are absent or far away."""
        return _described(click.FloatRange(_near(self.min), _near(self.max)))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number; give one, such as 0.5", param, ctx)
        return number


class Share(Real):
    """A share from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it; the message about a percentage names the share that is probably meant."""
        number = Real().convert(value, param, ctx)
        if 1 < number <= 100:
            self.fail(f"{value} is not in the range from 0 to 1; did you mean {number / 100:g}?", param, ctx)
        return super().convert(number, param, ctx)


class Whole(click.IntRange):
    """A whole number in a range."""

    def _describe_range(self) -> str:
        """Describe the range in help texts, without bounds that are absent or far away."""
        return _described(click.IntRange(_near(self.min), _near(self.max)))


def _near(bound: float | None) -> Any:
    return None if bound is None or abs(bound) > _FAR else bound


def _described(kind: Any) -> str:
    return "" if kind.min is None and kind.max is None else str(kind._describe_range())


class Several(_List):
    """Words, or integers within a range, separated by commas."""

    name = "list"

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self.part: click.ParamType[Any] = click.STRING if least is None else click.IntRange(least, most)
        self.example = "torch,onnxruntime" if least is None else "1,8,32"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Parse them."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if "" in parts:
            self.fail(f"{shown(value)} is not a list; give one such as {self.example}", param, ctx)
        return tuple(self.part.convert(part, param, ctx) for part in parts)


class Latency(_Milliseconds):
    """Milliseconds, such as 5, or a multiple of the supernet's latency, such as 0.5x.

    Its value is the number, and whether that is a multiple.
    """

    name = "latency"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, bool]:
        """Parse it."""
        if isinstance(value, tuple):
            return value
        number = str(value).strip()
        try:
            return float(number.removesuffix("x")), number.endswith("x")
        except ValueError:
            self.fail(
                f"{shown(value)} is not a valid latency; give milliseconds, such as 5, or a multiple of the "
                "supernet's, such as 0.5x",
                param,
                ctx,
            )


SIZE = FuncParamType(size)  # the type of an option; help texts show the name of the function
