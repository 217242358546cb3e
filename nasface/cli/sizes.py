"""Sizes on the command line: 0.6G, 80M, 350k, 123456."""

from __future__ import annotations

import re
from decimal import Decimal

import click
from click.types import FuncParamType

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_FORM = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})([kmg]?)", re.ASCII | re.IGNORECASE)


def size(text: str) -> int:
    """A count of MACs or parameters: a number with k, M or G (powers of 1000) after it, or without.

    A fraction of one is dropped: as an upper limit it says the same.

    Raises:
        click.BadParameter: for any other text, and for what is below 1.
    """
    form = _FORM.fullmatch(text.strip())
    count = int(Decimal(form[1]) * _UNITS[form[2].lower()]) if form else 0
    if count < 1:
        raise click.BadParameter(f"{text!r} is no size; give a number above 0 such as 0.6G, 80M, 350k or 123456")
    return count


SIZE = FuncParamType(size)  # the type of an option; it is named after the function in a help text
