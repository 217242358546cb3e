"""The output of `nasface evaluate`: which form an evaluation takes, and a figure of the worst faces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nasface.report import figures, tables, write
from nasface.report.published import published as published_figures
from nasface.report.tables import Table, require_default, require_published
from nasface.scores import DEFAULT_NORMALISER, Normaliser
from nasface.stages.evaluate.results import Comparison, Worst

Form = Literal["text", "markdown", "latex", "csv", "json"]

_NAME_WIDTH = 10  # characters that fit above a face at the size at which `figures.faces` draws it


@dataclass(frozen=True)
class Detail:
    """One run in detail.

    Attributes:
        networks: `Accuracy.as_dict()` by name.
        title, normaliser: the title of the table, and whose NME it shows.
    """

    networks: Mapping[str, Mapping[str, Any]]
    title: str
    normaliser: Normaliser


def check_published(datasets: Iterable[str], form: Form | None, normaliser: Normaliser = DEFAULT_NORMALISER) -> None:
    """Raise a DataError when the paper has no table for one of these datasets, or none with this normaliser.

    Call it before the evaluation, which may take long. JSON lists all published figures, so it needs no table.
    """
    if form != "json":
        require_default(normaliser)
        known = published_figures()
        for name in datasets:
            require_published(name, known)


def present(
    found: Comparison,
    *,
    form: Form | None = None,
    normaliser: Normaliser = DEFAULT_NORMALISER,
    metrics: Sequence[str] = (),
    published: bool = False,
) -> str | Table | Detail:
    """Lay out an evaluation.

    Args:
        found: the evaluation.
        form: None shows a single run in detail and several runs as a table, 'text' always gives a table.
        normaliser: which NME to show.
        metrics: columns of the table, see `tables.layout`.
        published: whether to include the figures of the paper.

    Returns:
        Text that ends with a newline, or a table or a single run to be drawn on the terminal.
    """
    plain = found.as_dict()
    above = published_figures() if published else None
    if form == "json":
        return json.dumps(plain | ({"published": above} if published else {}), indent=1) + "\n"
    if form is None and len(plain["runs"]) == 1 and not (metrics or published):
        return Detail(plain["runs"][0]["networks"], found.title, normaliser)
    table = tables.layout(plain, title=found.title, normaliser=normaliser, metrics=metrics, published=above)
    if form in (None, "text"):
        return table
    return {"markdown": tables.markdown, "latex": tables.latex, "csv": tables.csv}[form](table)


def draw_worst(worst: Worst, path: Path) -> Path:
    """Draw the worst faces of a network into a .png, .svg or .pdf file, each under the end of its name."""
    stems = [name.rpartition("/")[2] for name in worst.names]
    titles = [stem if len(stem) <= _NAME_WIDTH else f"…{stem[1 - _NAME_WIDTH :]}" for stem in stems]
    return write(figures.faces(worst.images_NHWC, worst.predicted_NL2, worst.true_NL2, worst.nmes_N, titles), path)
