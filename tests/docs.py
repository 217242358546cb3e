"""The fenced snippets of README and docs, and how each kind is checked."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PAGES = tuple(
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if "notebooks" not in path.parts  # rendered from analysis/, which tests/e2e/test_notebooks.py executes
)
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}|:{3,})(?P<info>.*?)$")


@dataclass(frozen=True)
class Snippet:
    """A fenced block.

    Attributes:
        language: the first word behind the fence, '' where there is none; '{...}' for a directive of the docs site.
        line: of the fence, from 1.
    """

    language: str
    text: str
    line: int


def snippets(text: str) -> list[Snippet]:
    """All fenced blocks of a Markdown page, indented ones included. ValueError for a fence that is left open."""
    found: list[Snippet] = []
    opened: tuple[str, str, str, int] | None = None
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if opened is None:
            if match:
                language = (match["info"].split() or [""])[0]
                opened, body = (match["indent"], match["fence"], language, number), []
        elif match and match["fence"].startswith(opened[1]) and not match["info"].strip():
            found.append(Snippet(opened[2], "\n".join(body), opened[3]))
            opened = None
        else:
            body.append(line.removeprefix(opened[0]))
    if opened is not None:
        raise ValueError(f"the fence in line {opened[3]} is left open")
    return found


def commands(text: str) -> list[list[str]]:
    """The words of every command of a shell snippet: prompts, comments, continuations and '&' are taken off."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):  # a console: what has no prompt is output
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    found: list[list[str]] = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while "&&" in words:
            found.append(words[: words.index("&&")])
            words = words[words.index("&&") + 1 :]
        if words[-1:] == ["&"]:
            words.pop()
        if words:
            found.append(words)
    return found


def parse(group: click.Group, words: list[str]) -> None:
    """Parse a command line, without running it. click.UsageError when a command, option or type is wrong."""
    with click.Context(group, info_name="nasface") as context:
        command: click.Command = group
        parent = context
        while isinstance(command, click.Group):
            name, inner, words = command.resolve_command(parent, words)
            assert inner is not None
            if isinstance(inner, click.Group):
                parent = click.Context(inner, parent=parent, info_name=name)
            command = inner
        command.make_context(command.name, words, parent=parent)
