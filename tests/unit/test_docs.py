"""README, docs and the pages beside them name only what exists: files, extras, criteria, and modules of the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nasface import plugins
from tests.docs import PAGES, ROOT

TEXTS = (*PAGES, ROOT / "SECURITY.md")
FOLDERS = ("nasface", "searchspaces", "experiments", "analysis", "benchmarks", "docs", "tests")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_files_that_a_page_names_exist(page: Path):
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)", page.read_text())
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_extras_that_a_page_installs_exist(page: Path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"(?:nasface|'\.)\[([\w, -]+)\]", page.read_text())
    assert {extra.strip() for names in named for extra in names.split(",")} <= extras.keys()


@pytest.mark.parametrize(
    ("group", "page"),
    [("criteria", "criteria"), ("pruners", "budgets"), ("searchers", "searchers"), ("datasets", "datasets")],
)
def test_the_page_about_a_kind_of_plug_in_has_all_of_them(group: str, page: str):
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    ours = [found for found in plugins.names(group) if not found.startswith("nni-")]
    assert not [found for found in ours if f"`{found}`" not in text]


def test_the_map_of_the_code_has_every_module():
    tree = (ROOT / "docs" / "design.md").read_text().partition("## Tree")[2].partition("## Rules")[0]
    parts = [*(ROOT / "nasface").glob("*.py"), *(ROOT / "nasface" / "stages").iterdir(), *(ROOT / "tests").iterdir()]
    parts += (ROOT / "nasface" / "report").glob("*.py")
    parts = [part for part in parts if part.suffix in ("", ".py") and not part.name.startswith(("_", "."))]
    helpers = {part for part in parts if part.parent.name == "tests" and (part.suffix or part.name == "data")}
    assert not [part.name for part in parts if part not in helpers and not re.search(rf"\b{part.stem}\b", tree)]
