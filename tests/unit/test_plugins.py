"""Plug-ins of others: what their modules and signatures may do, and what is said when it goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nasface import plugins
from nasface.errors import RecipeError

TYPED = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Width

class Searcher:
    def __init__(self, *, width: Width = 3):
        self.width = width

    def search(self, net, step, optimizer, fit, batches):
        return {}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder as the working directory, and sys.path as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return tmp_path


def refused(message: str, group: str, name: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        plugins.check_options(group, name, {})
    assert "\n" not in str(caught.value)


def test_types_for_type_checkers_only_leave_the_names_to_be_checked(here: Path) -> None:
    (here / "typed_plugin.py").write_text(TYPED)
    name = "typed_plugin:Searcher"
    assert plugins.check_options("searchers", name, {"width": "wide"}) == {"width": "wide"}
    assert plugins.searcher(name)
    with pytest.raises(RecipeError, match="unknown key 'widht'; did you mean 'width'"):
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
    refused(rf"the search space '{module}:x' cannot be imported \({said}.*\); install", "searchspaces", f"{module}:x")


@pytest.mark.parametrize("name", ["..x:y", ":x", "json:", "json:none"])
def test_names_that_are_none(name: str) -> None:
    refused(r"cannot be imported \(.*\); install its package or mend the name", "searchspaces", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json:loads", r"the search space 'json:loads' cannot be built \(TypeError: .*\); mend its options"),
        ("os:getcwd", r"the search space 'os:getcwd' gives a str without .*graph.*; expected an object with"),
        ("builtins:dict", r"the search space 'builtins:dict' does not say which options"),
        ("nasface.search.l1:L1Searcher", r"gives a L1Searcher without .*stem"),
    ],
)
def test_what_is_no_search_space(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plugins.space(name)


def test_what_is_no_data_set_and_no_searcher(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the data set 'os:getcwd' cannot be built \(TypeError"):
        plugins.dataset("os:getcwd", tmp_path)
    with pytest.raises(RecipeError, match=r"the data set 'pathlib:Path' gives a \w+Path without scheme, index, read,"):
        plugins.dataset("pathlib:Path", tmp_path)
    with pytest.raises(RecipeError, match=r"the searcher 'os:getcwd' gives a str without search"):
        plugins.searcher("os:getcwd")


def test_the_errors_of_plugins_themselves_stay_as_they_are(here: Path) -> None:
    (here / "strict_plugin.py").write_text(
        "from nasface.errors import GraphError\ndef space(width: int = 0):\n    raise GraphError('width is 0')\n"
    )
    with pytest.raises(plugins.NasfaceError, match=r"^width is 0$"):
        plugins.space("strict_plugin:space")


@pytest.mark.parametrize("option", ["model_dump: int = 0", "width: Annotated[dict, Ge(1)] = 0"])
def test_a_signature_that_cannot_be_checked_is_told(here: Path, option: str) -> None:
    module = f"odd_{option.partition(':')[0]}"
    imports = "from typing import Annotated\nfrom annotated_types import Ge\n"
    (here / f"{module}.py").write_text(f"{imports}def space({option}):\n    return None\n")
    with pytest.raises(RecipeError, match=rf"options of search space '{module}:space': cannot be checked \(.*; mend"):
        plugins.check_options("searchspaces", f"{module}:space", {option.partition(":")[0]: {}})
