"""A hostile input is held where it gives a sentence, or an answer that is true; each is counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st

from nasface.cli import main
from nasface.errors import NasfaceError

LONGEST = 1200  # characters of a sentence: it may name a path or two
SLOWEST = 10.0  # seconds of this process's own time
EXAMPLES = 40  # of each strategy
some = settings(max_examples=EXAMPLES)

NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 3, 2**31, 2**63 - 1, 2**63, -(2**63), 10**18, 10**400, -(10**400), 1 << 40_000, 0.5, -0.5, 1e308, -1e308,
    float("inf"), float("-inf"), float("nan"), True, False, None, "", "7", "1_0", "nan", "9" * 400,
    "9" * 5000, "x" * 5000, "\udcff", [], [1], {}, {"a": 1}, [[[[1]]]],
)  # fmt: skip


class Tally:
    """Counts the inputs that a test has tried."""

    def __init__(self) -> None:
        self.tried = 0

    def held(self, call: Callable[[], Any], what: object = "") -> Any:
        """Return what the call returns, or the NasfaceError with which it refuses; anything else fails the test."""
        self.tried += 1
        started = time.process_time()
        try:
            found = call()
        except NasfaceError as err:
            found = err
            sentence = str(err)
            assert sentence.strip(), what
            assert len(sentence) < LONGEST, (what, sentence[:2000])
        except BaseException as err:
            if isinstance(err, KeyboardInterrupt):
                raise
            pytest.fail(f"{what!r:.300} ends in {type(err).__name__}: {err!s:.300}")
        assert time.process_time() - started < SLOWEST, what
        return found

    def command(self, *args: object) -> int:
        """Give a command line; it ends with 0, 1 or 2, in one sentence where it refuses. Return the exit code."""
        self.tried += 1
        started = time.process_time()
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        said = f"{[str(arg)[:60] for arg in args]}: {result.output[-800:]!r}"
        assert result.exception is None or isinstance(result.exception, SystemExit), (said, result.exception)
        assert "Traceback" not in result.output, said
        assert result.exit_code in (0, 2), said
        if result.exit_code == 2:
            lines = [line for line in result.stderr.splitlines() if line.strip()] or ["nasface: " + result.stdout]
            last = lines[-1]  # `data check` prints what it has found on standard output
            assert last.startswith(("nasface: ", "Error: ")), said
            assert len(last) < 6 * LONGEST, said  # click repeats what it was given
        assert time.process_time() - started < SLOWEST, said
        return result.exit_code


def damaged(text: str) -> st.SearchStrategy[str]:
    """A text with a piece cut out, doubled or replaced."""

    @st.composite
    def cut(draw: st.DrawFn) -> str:
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        put = draw(
            st.sampled_from(["", text[start:end] * 2, "\0", "[", "}", ":", "9" * 400, "-1", "null", "\ufffd", "é"])
        )
        return text[:start] + put + text[end:]

    return cut()
