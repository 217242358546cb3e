"""The files around the code: they can be read, name each other rightly and agree on the version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import nasface

ROOT = Path(__file__).parents[2]
YAML = sorted(
    {
        *ROOT.glob("*.yaml"), *ROOT.glob(".*.yaml"), *ROOT.glob("*.cff"), *(ROOT / "experiments").glob("*.yaml"),
        *(ROOT / ".github").rglob("*.yml"), *(ROOT / "nasface").rglob("*.yaml"),
    }
)  # fmt: skip


def project() -> dict[str, object]:
    content: dict[str, dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return content["project"]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path):
    assert yaml.safe_load(path.read_text())


def test_the_version_is_said_alike_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert nasface.__version__ == project()["version"] == citation["version"]


def test_the_lock_has_what_is_asked_for_and_hashes_for_all_of_it():
    lock = (ROOT / "requirements-dev.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE))
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    assert extras.pop("nni") == ["nni==3.0"]  # has an environment of its own
    wanted = {
        re.split(r"[<>=\[;]", text.lower())[0].strip()
        for text in [*project()["dependencies"], *(text for extra in extras.values() for text in extra)]  # type: ignore[misc]
    } - {"nasface", "torch"}
    assert wanted <= locked
    assert "nni" not in locked
    assert not [name for name in locked if re.match(r"(nvidia|cuda|triton|torch)", name)], (
        "the torch wheel brings these"
    )
    assert all("--hash=sha256:" in part for part in re.split(r"^(?=[a-z0-9._-]+==)", lock, flags=re.MULTILINE)[1:])


def test_what_ci_and_the_hooks_call_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [(ROOT / ".ci" / "run").read_text(), (ROOT / ".github" / "workflows" / "ci.yml").read_text()]
    called = {goal for text in texts for goal in re.findall(r"^\s*(?:- run: )?make ([a-z-]+)", text, re.MULTILINE)}
    assert {"check", "test", "test-nni", "docs"} <= called <= targets
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {"ruff", "mypy", "layers", "end-of-file", "yaml", "large-files"} <= {hook["id"] for hook in hooks}


def test_issue_forms_have_what_the_host_asks_of_them():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            continue
        assert {"name", "description", "body"} <= form.keys()
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids))
        assert all(field["attributes"].get("label") for field in form["body"])


def test_the_notebooks_of_the_docs_are_those_that_are_executed():
    rendered = {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.md")}
    assert rendered <= {path.stem for path in (ROOT / "analysis").glob("*.py")}
