"""Sizes on the command line: 0.6G, 80M, 350k, 123456."""

from __future__ import annotations

import re
from decimal import Decimal

import click
from click.types import FuncParamType

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_FORM = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})([kmg]?)", re.ASCII | re.IGNORECASE)


def size(text: str) -> int:
    """Parse a number of MACs or parameters, which may end in k, M or G (powers of 1000).

    What remains below one is dropped, which changes nothing for an upper limit.

    Raises:
        click.BadParameter: for any other text, and for a number below 1.
    """
    form = _FORM.fullmatch(text.strip())
    count = int(Decimal(form[1]) * _UNITS[form[2].lower()]) if form else 0
    if count < 1:
        raise click.BadParameter(
            f"{text!r} is not a valid size; give a number above 0 such as 0.6G, 80M, 350k or 123456"
        )
    return count


SIZE = FuncParamType(size)  # the type of an option; help texts show the name of the function
