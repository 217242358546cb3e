"""Hostile recipes and experiments: each is refused in a sentence, or read for what it says."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasface import recipe as recipes
from nasface import untrusted
from nasface.errors import NasfaceError
from nasface.stages.experiment.plan import read_experiment
from tests.hostile.held import Tally, damaged, some


def aliases(levels: int, width: int = 9) -> str:
    """A few hundred bytes that stand for width^levels values."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


RECIPES = [
    aliases(9),
    aliases(9).replace("a8:", "description:"),
    "space: {options: {width: [1]}}",
    "a: &a [*a]",
    "a: &a {b: *a}",
    "seed: &s 1\ndescription: *s",
    "<<: &x {seed: 1}\nspace: {<<: *x}",
    "[" * 200 + "]" * 200,
    "{" * 60 + "}" * 60,
    "a: " + "[" * 41 + "]" * 41,
    "seed: 1\nseed: 2",
    "search: {epochs: 1, epochs: 60}",
    "seed: 0x" + "f" * 9000,
    "seed: " + "9" * 400,
    "seed: " + "9" * 5000,
    "seed: " + "1:" * 3000 + "1",
    "seed: 1_000_000_000_000_000_000_000_000",
    "seed: !!python/object/apply:os.system ['true']",
    "seed: !!python/name:os.system",
    "seed: !!binary aGVsbG8=",
    "seed: !!binary z",
    "seed: !!set {a, b}",
    "seed: !!timestamp 2020-01-01",
    "seed: 2020-01-01",
    "seed: 2020-13-45",
    "seed: !!int ''",
    "seed: !unknown 1",
    "? [1, 2]\n: 3",
    "1: 2",
    "null: 1",
    "true: 1",
    "~",
    "",
    "---\n---\n",
    "a: 1\n---\nb: 2",
    "- 1",
    "text",
    "42",
    "\t",
    "a: b: c",
    'seed: "\\0"',
    'data: {root: "a\\0b"}',
    'data: {root: "\\ud800"}',
    'extends: "a\\0b.yaml"',
    "extends: self.yaml",
    "extends: [1]",
    "extends: {a: 1}",
    "extends: " + "x" * 5000 + ".yaml",
    "extends: /dev/zero",
    "extends: /dev/zero.yaml",
    "extends: ..",
    "extends: .yaml",
    'space: {name: "' + "n" * 5000 + '"}',
    "space: {name: [1]}",
    'space: {options: {"' + "k" * 5000 + '": 1}}',
    "space: {options: {1: 2}}",
    "space: {options: [1]}",
    "data: {options: {landmarks: 1e400}}",
    "data: {options: {train: yes}}",
    "search: {epochs: no}",
    "search: {epochs: on}",
    "training: {batch: true}",
    "finetune: {optimizer: {milestones: [1, -1]}}",
    "finetune: {optimizer: {milestones: [" + "1," * 2000 + "]}}",
    "finetune: {optimizer: {lr: .inf}}",
    "finetune: {optimizer: {lr: -.inf}}",
    "task: {sigma: .nan}",
    "distill: {mask_size: [0.5]}",
    "distill: {mask_size: [0.1, 0.2, 0.3]}",
    'distill: {teacher_from: "\\0"}',
    "\ufeffseed: 1",
    "\x01",
    "seed: \x7f",
    "\u2028",
    "seed: '\n\n\n",
    "%YAML 9.9\n---\nseed: 1",
    "%TAG ! tag:x,2000:\n---\nseed: !y 1",
    "&a &b 1",
    "*a",
    "a: *b",
    "seed: |\n  x",
    "description: " + "d" * 100_000,
    "a: [" + "1," * 10_000 + "]",
    "x" * 200_000,
]


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_recipes(tally: Tally, tmp_path: Path, number: int):
    path = tmp_path / "self.yaml"
    path.write_text(RECIPES[number], encoding="utf-8")
    tally.held(lambda: recipes.load(str(path)), RECIPES[number][:200])
    tally.held(lambda: read_experiment(str(path), None), RECIPES[number][:200])
    tally.held(lambda: recipes.load("demo", [f"description={RECIPES[number]}"]), RECIPES[number][:200])


def test_aliases_that_grow_to_gigabytes_are_refused(tally: Tally, tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text(aliases(9))
    assert path.stat().st_size < 600
    found = tally.held(lambda: recipes.load(str(path)))
    assert isinstance(found, NasfaceError)
    assert "aliases" in str(found)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=8), st.dates()
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
)
sections = st.sampled_from(
    [*recipes.Recipe.model_fields, "experiment", "extends", "name", "options", "epochs", "seed", "x"]
)


def test_any_tree_in_place_of_a_recipe(tally: Tally):
    @some
    @given(st.dictionaries(sections, trees | st.dictionaries(sections, trees, max_size=3), max_size=4))
    def attempt(content: dict[str, Any]) -> None:
        tally.held(lambda: recipes.resolve(content, "recipe"), content)

    attempt()


DEMO = (recipes.folder() / "demo.yaml").read_text(encoding="utf-8")
FIGURE6 = (recipes.folder() / "figure6-mini.yaml").read_text(encoding="utf-8")


def test_damaged_recipes(tally: Tally, tmp_path: Path):
    path = tmp_path / "self.yaml"

    @some
    @given(damaged(DEMO), damaged(FIGURE6))
    def attempt(demo: str, figure: str) -> None:
        path.write_text(demo, encoding="utf-8")
        tally.held(lambda: recipes.load(str(path)), demo)
        path.write_text(figure, encoding="utf-8")
        tally.held(lambda: read_experiment(str(path), None), figure)

    attempt()


def test_any_text_in_place_of_yaml_and_json(tally: Tally):
    @some
    @given(st.text(max_size=200))
    def attempt(text: str) -> None:
        for parse in (untrusted.parse_yaml, untrusted.parse_json):
            tally.tried += 1
            with suppress(untrusted.NotReadableError):
                parse(text)

    attempt()
