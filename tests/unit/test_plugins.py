"""Plug-ins of others: what their modules and signatures may do, and what is said when it goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny import supernet

from nasface import plugins
from nasface.errors import GraphError, RecipeError
from nasface.testing import trial
from tests.refusal import refused

TYPED = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Width

class Searcher:
    def __init__(self, *, width: Width = 3):
        self.width = width

    def search(self, net, context):
        pass
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder as the working directory, and sys.path as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return tmp_path


def test_types_for_type_checkers_only_leave_the_names_to_be_checked(here: Path) -> None:
    (here / "typed_plugin.py").write_text(TYPED)
    name = "typed_plugin:Searcher"
    assert plugins.check_options("searchers", name, {"width": "wide"}) == {"width": "wide"}
    assert plugins.searcher(name)
    with refused(RecipeError, "widht", "width"):
        plugins.check_options("searchers", name, {"widht": 3})


def test_modules_of_the_working_directory_are_found_once(here: Path) -> None:
    (here / "own_plugin.py").write_text(TYPED)
    for _ in range(2):
        plugins.load("searchers", "own_plugin:Searcher")
    assert sys.path.count(str(here)) == 1


def test_the_working_directory_stays_out_of_the_way_of_installed_plugins(here: Path) -> None:
    plugins.load("searchers", "l1")
    assert str(here) not in sys.path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (", "SyntaxError"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_module_that_fails_is_named(here: Path, text: str, said: str) -> None:
    module = f"broken_{said[:6].lower()}"
    (here / f"{module}.py").write_text(text)
    with refused(RecipeError, f"{module}:x", said):
        plugins.check_options("searchspaces", f"{module}:x", {})


@pytest.mark.parametrize("name", ["..x:y", ":x", "json:", "json:none"])
def test_names_that_are_none(name: str) -> None:
    with refused(RecipeError, "search space", name):
        plugins.check_options("searchspaces", name, {})


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("json:loads", ["TypeError"]),
        ("os:getcwd", ["str", "graph", "SearchSpace"]),
        ("builtins:dict", []),
        ("nasface.search.l1:L1Searcher", ["L1Searcher", "stem"]),
    ],
)
def test_what_is_not_a_search_space(name: str, facts: list[str]) -> None:
    with refused(RecipeError, name, *facts):
        plugins.space(name)


def test_what_is_not_a_dataset_or_a_searcher(tmp_path: Path) -> None:
    with refused(RecipeError, "os:getcwd", "TypeError"):
        plugins.dataset("os:getcwd", tmp_path)
    with refused(RecipeError, "pathlib:Path", "scheme, index, read"):
        plugins.dataset("pathlib:Path", tmp_path)
    with refused(RecipeError, "os:getcwd", "str", "search"):
        plugins.searcher("os:getcwd")


def test_a_criterion_is_a_function_with_options(here: Path) -> None:
    text = "def even(net, context, *, value: float = 1.0):\n    return dict.fromkeys(net.graph.prunable, value)\n"
    (here / "criterion_plugin.py").write_text(text)
    assert plugins.check_options("criteria", "criterion_plugin:even", {}) == {"value": 1.0}
    net, context = trial(supernet(), input_size=32)
    found = plugins.criterion("criterion_plugin:even", {"value": 2})(net, context)
    assert set(found.values()) == {2.0}
    with refused(RecipeError, "valeu", "value"):
        plugins.criterion("criterion_plugin:even", {"valeu": 2})
    with refused(RecipeError, "criterion", "alhpa", "alpha"):
        plugins.criterion("alhpa")


def test_every_kind_is_listed() -> None:
    kinds = {(row["kind"], row["name"]) for row in plugins.listing()}
    assert {("searcher", "l1"), ("criterion", "alpha"), ("criterion", "leave_one_out"), ("pruner", "share")} <= kinds


def test_the_errors_of_plugins_themselves_stay_as_they_are(here: Path) -> None:
    (here / "strict_plugin.py").write_text(
        "from nasface.errors import GraphError\ndef space(width: int = 0):\n    raise GraphError('width is 0')\n"
    )
    with pytest.raises(GraphError) as caught:
        plugins.space("strict_plugin:space")
    assert str(caught.value) == "width is 0"


@pytest.mark.parametrize("option", ["model_dump: int = 0", "width: Annotated[dict, Ge(1)] = 0"])
def test_a_signature_that_cannot_be_checked_is_told(here: Path, option: str) -> None:
    module = f"odd_{option.partition(':')[0]}"
    imports = "from typing import Annotated\nfrom annotated_types import Ge\n"
    (here / f"{module}.py").write_text(f"{imports}def space({option}):\n    return None\n")
    with refused(RecipeError, f"{module}:space"):
        plugins.check_options("searchspaces", f"{module}:space", {option.partition(":")[0]: {}})
