"""Plug-ins that raise, leave or return nonsense as they are imported and called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasface import detect, importing, plugins
from nasface.data.base import Face, Problem
from nasface.data.check import check
from nasface.data.prepare import prepare
from nasface.data.w300 import W300
from nasface.errors import DataError, NasfaceError, RecipeError
from tests.hostile.held import Tally
from tests.hostile.test_hostile_annotations import landmarks

BEHAVIOURS: dict[str, Callable[[], Any]] = {}


def behaviour(call: Callable[[], Any]) -> Callable[[], Any]:
    BEHAVIOURS[call.__name__] = call
    return call


@behaviour
def leaves() -> Any:
    raise SystemExit(0)


@behaviour
def raises() -> Any:
    raise KeyError("x" * 5000)


@behaviour
def fails_in_two_lines() -> Any:
    raise RuntimeError("one\ntwo\0")


@behaviour
def returns_nothing() -> Any:
    return None


@behaviour
def returns_text() -> Any:
    return "text"


@behaviour
def returns_nan() -> Any:
    return np.full((2, 5), np.nan)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_plugins_that_fail_as_they_are_called(tally: Tally, monkeypatch: pytest.MonkeyPatch, name: str):
    call = BEHAVIOURS[name]
    monkeypatch.setattr(plugins, "load", lambda group, named: lambda *given, **options: call())
    monkeypatch.setattr(plugins, "check_options", lambda group, named, options: {})
    for kind in (plugins.pruner, plugins.criterion):
        assert isinstance(tally.held(lambda kind=kind: kind("x:y")(1, 2, 3), (kind, name)), RecipeError)
    for build in (plugins.space, plugins.searcher):
        assert isinstance(tally.held(lambda build=build: build("x:y"), (build, name)), RecipeError)
    assert isinstance(tally.held(lambda: plugins.dataset("x:y", None), name), RecipeError)
    monkeypatch.setattr(importing, "import_attr", lambda named: lambda image: call())
    assert isinstance(
        tally.held(lambda: detect.find_detector("x:y")(np.zeros((8, 8, 3), np.uint8)), name), NasfaceError
    )


IMPORTED = (
    "raise SystemExit(0)",
    "import sys; sys.exit()",
    "raise KeyboardError",
    "1/0",
    "def f(:",
    "import nowhere",
    "raise MemoryError",
    "x = 1",
)


def test_plugins_that_fail_as_they_are_imported(tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    for number, text in enumerate(IMPORTED):
        (tmp_path / f"hostile{number}.py").write_text(text)
        for group in plugins.GROUPS:
            assert isinstance(
                tally.held(lambda g=group, n=number: plugins.load(g, f"hostile{n}:x"), (group, text)), RecipeError
            )
        assert isinstance(tally.held(lambda n=number: detect.find_detector(f"hostile{n}:x"), text), RecipeError)


class Broken:
    """A dataset whose parts fail one after the other."""

    name = "broken"
    scheme = W300.scheme

    def __init__(self, call: Callable[[], Any], part: str) -> None:
        self.call, self.part = call, part

    def index(self) -> Any:
        from nasface.data.base import Index

        if self.part == "index":
            self.call()
            raise ValueError("no index")
        points = np.array([line.split() for line in landmarks()], float)
        return Index(tuple(Face(f"{i}", "train", (), points + i / 10, str(i)) for i in range(3)), (Problem("a", "b"),))

    def read(self, face: Face) -> Any:
        return self.call() if self.part == "read" else np.zeros((100, 100, 3), np.uint8)

    def fingerprint(self, face: Face) -> bytes:
        return b"x"


@pytest.mark.parametrize("part", ["index", "read"])
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_datasets_that_fail(tally: Tally, tmp_path: Path, name: str, part: str):
    dataset = Broken(BEHAVIOURS[name], part)
    checked = tally.held(lambda: check(dataset, workers=1), (name, part))
    assert isinstance(checked, DataError) if part == "index" else len(checked.problems) == 4
    assert isinstance(tally.held(lambda: prepare(dataset, cache=tmp_path, workers=1), (name, part)), DataError)
