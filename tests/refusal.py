"""Refusals are tested by their class and by the facts that the sentence names, not by its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
from click.testing import CliRunner, Result

from nasface.cli import main


@contextmanager
def refused(error: type[Exception], *facts: object) -> Iterator[None]:
    """The block must raise this error, with one sentence that names all facts: a file, value, limit, option or name."""
    with pytest.raises(error) as caught:
        yield
    names(str(caught.value), *facts)


def names(sentence: str, *facts: object) -> None:
    """The sentence must be one line that names all facts."""
    assert "\n" not in sentence, sentence
    assert not [fact for fact in facts if str(fact) not in sentence], sentence


def command_refuses(*args: object, cli: click.Group = main) -> str:
    """The sentence with which a command line refuses, without any warning before it."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)
    assert sum(line.startswith("nasface: ") for line in result.stderr.splitlines()) <= 1, result.stderr
    return sentence_of(result)


def sentence_of(result: Result) -> str:
    """The one line, the last on standard error, with which a command has refused; its exit code must be 2."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[-1].startswith("Error: " if lines[0].startswith("Usage: ") else "nasface: "), result.stderr
    return lines[-1]
