"""Tables as papers print them, with one row per method and one column per subset: as Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nasface.errors import DataError
from nasface.scores import DASH, DEFAULT_NORMALISER, METRICS, Normaliser, of_expected, percent

if TYPE_CHECKING:
    from pandas import DataFrame

_ABOUT = {
    "FR": "FR@x: share of faces with an NME above x %, in %",
    "AUC": "AUC@x: area under the cumulative error curve up to x %, over x %",
    "P": "Px: x-th percentile of the NME of a face, in %",
}
_TABLES = {"300w": "300w", "masked300w": "masked-300w", "cofw": "cofw", "wflw": "wflw"}
_WHOLE_TEST_SET = {"wflw": "test", "cofw": "test"}  # what the field calls the subset 'full' there

Figure = tuple[float | None, float | None]  # mean, and standard deviation where there are several


@dataclass(frozen=True)
class Column:
    """A figure of a subset, of which `images` of the `expected` faces were there."""

    metric: str
    subset: str
    heading: str
    images: int
    expected: int


@dataclass(frozen=True)
class Line:
    """A method and its figures, NMEs and failure rates as shares."""

    method: str
    figures: tuple[Figure, ...]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """Methods by subset.

    Attributes:
        title: what was measured.
        columns: one per metric and subset.
        lines: one per method, published ones first.
        note: units, and what a reader must know to compare.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    note: str

    def header(self) -> list[str]:
        """The headings, starting with that of the methods."""
        return ["method", *(column.heading for column in self.columns)]

    def cells(self) -> list[list[str]]:
        """The text of each line, with NMEs and failure rates in percent."""
        return [
            [line.method, *(_text(f, c.metric) for f, c in zip(line.figures, self.columns, strict=True))]
            for line in self.lines
        ]


def require_default(normaliser: Normaliser) -> None:
    """Raise a DataError if figures with this normaliser cannot stand beside published ones."""
    if normaliser != DEFAULT_NORMALISER:
        raise DataError(f"published figures are normalised by the {DEFAULT_NORMALISER.label}; leave --normaliser out")


def layout(
    comparison: Mapping[str, Any],
    *,
    title: str,
    normaliser: Normaliser = DEFAULT_NORMALISER,
    metrics: Sequence[str] = (),
    published: Mapping[str, Any] | None = None,
) -> Table:
    """Lay out an evaluation like Tables 2 to 5 of the paper.

    Args:
        comparison: `stages.Comparison.as_dict()`.
        title: of the table.
        normaliser: of the NMEs.
        metrics: keys of `METRICS`, each with one column per subset; by default the NME, and on COFW also FR@10.
        published: `report.published.published()`, whose rows are then put above.

    Raises:
        DataError: when there are no test faces, or the published figures cannot be compared with these.
    """
    data, runs = comparison["data"], comparison["runs"]
    metrics = list(dict.fromkeys(metrics)) or (["nme", "fr10"] if data == "cofw" else ["nme"])
    subsets = next((n["subsets"][normaliser] for run in runs for n in run["networks"].values() if n["subsets"]), None)
    if not subsets:
        raise DataError(f"there is nothing to lay out, since no test faces of '{data}' are on disk; give --data-root")
    columns = tuple(
        Column(metric, subset, _heading(data, metric, metrics, subset, subsets), figures["images"], figures["expected"])
        for metric in metrics
        for subset, figures in subsets.items()
    )
    above: list[Line] = []
    if published is not None:
        require_default(normaliser)
        above = _published(published, data, comparison["masked"], columns)
    lines = [
        Line(name, tuple(_figure(figures[normaliser].get(c.subset, {}), c.metric) for c in columns))
        for name, figures in _methods(comparison)
    ]
    notes = [f"NME in %, normalised by {normaliser.label}"]
    notes += [about for key, about in _ABOUT.items() if any(metric.startswith(key.lower()) for metric in metrics)]
    if any(std is not None for line in (*above, *lines) for _, std in line.figures):
        notes.append("± standard deviation over seeds (ddof 1)")
    if published is not None:
        doi = published["source"]["doi"]
        notes.append(f"the first {len(above)} rows are published figures of the whole test set (doi {doi})")
        if comparison["masked"]:
            notes.append(
                "those used the images of Masked 300W, these synthetic masks, so they are not directly comparable"
            )
    return Table(title, columns, (*above, *lines), "; ".join(notes))


def markdown(table: Table) -> str:
    """Format as a Markdown table with its title above and its note below."""
    text = _frame(table).replace(r"\|", r"\\|", regex=True)
    drawn = text.to_markdown(index=False, disable_numparse=True, colalign=("left", *("right" for _ in table.columns)))
    return f"**{table.title}**\n\n{drawn}\n\n{table.note}\n"


def latex(table: Table) -> str:
    """Format as a LaTeX tabular for the package booktabs, with title and note as comments.

    A rule separates the published rows from the others.
    """
    drawn = _frame(table).to_latex(index=False, escape=True, column_format="l" + "r" * len(table.columns))
    rows = drawn.splitlines()
    if published := sum(line.published for line in table.lines):
        rows.insert(rows.index(r"\midrule") + 1 + published, r"\midrule")
    return "\n".join([f"% {table.title}", f"% {table.note}", *rows, ""])


def csv(table: Table) -> str:
    """Format as CSV, with figures as shares in full precision and the number of faces of each subset."""
    import pandas as pd

    spread = any(std is not None for line in table.lines for _, std in line.figures)
    rows = []
    for line in table.lines:
        row: dict[str, Any] = {"method": line.method, "published": line.published}
        for column, (mean, std) in zip(table.columns, line.figures, strict=True):
            row[f"{column.metric}_{column.subset}"] = mean
            if spread:
                row[f"{column.metric}_{column.subset}_std"] = std
        if not line.published:  # as text, since pandas turns a column of integers with gaps into floats
            row |= {f"images_{c.subset}": str(c.images) for c in table.columns}
            row |= {f"expected_{c.subset}": str(c.expected) for c in table.columns}
        rows.append(row)
    text: str = pd.DataFrame(rows).to_csv(index=False)
    return text


def _frame(table: Table) -> DataFrame:
    import pandas as pd

    return pd.DataFrame(table.cells(), columns=table.header())


def _methods(comparison: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of each network: those of its runs, and then their mean."""
    runs, means = comparison["runs"], comparison["means"]
    for network in dict.fromkeys(name for run in runs for name in run["networks"]):
        for run in runs:
            if network in run["networks"]:
                yield f"{run['label']} {network}".strip(), run["networks"][network]["subsets"]
        for mean in means:
            if network in mean["networks"]:
                of = f"{len(runs)} runs" if len(mean["runs"]) == len(runs) else ", ".join(mean["runs"])
                yield f"{network}, mean of {of}", mean["networks"][network]["subsets"]


def require_published(data: str, published: Mapping[str, Any]) -> None:
    """Raise a DataError for a dataset of which the paper has no table."""
    if _TABLES.get(data, data) not in published["errors"]:
        raise DataError(f"the paper has no figures for the dataset '{data}'; leave --published out")


def _published(published: Mapping[str, Any], data: str, masked: str | None, columns: Sequence[Column]) -> list[Line]:
    require_published(data, published)
    key = "masked-300w" if masked and data == "300w" else _TABLES.get(data, data)
    means, stds = published["errors"][key], published["std"][key]
    names = [{"nme": c.subset, "fr10": "failure_rate" if c.subset == "full" else ""}.get(c.metric, "") for c in columns]
    return [
        Line(method, tuple((row.get(name), stds.get(method, {}).get(name)) for name in names), published=True)
        for method, row in means.items()
    ]


def _figure(figures: Mapping[str, Any], metric: str) -> Figure:
    value: Any = figures
    for key in METRICS[metric][1]:
        value = value.get(key, {})
    if isinstance(value, Mapping):
        return value.get("mean"), value.get("std")
    return value, None


def _heading(data: str, metric: str, metrics: Sequence[str], subset: str, subsets: Mapping[str, Any]) -> str:
    """Name the subset with its number of faces, preceded by the metric where there are several."""
    images, expected = subsets[subset]["images"], subsets[subset]["expected"]
    name = _WHOLE_TEST_SET.get(data, subset) if subset == "full" else subset
    metric = f"{METRICS[metric][0]} " if len(metrics) > 1 else ""
    return f"{metric}{name} ({of_expected(images, expected)})"


def _text(figure: Figure, metric: str) -> str:
    mean, std = figure
    if metric.startswith("auc"):
        return DASH if mean is None else f"{mean:.4f}" + ("" if std is None else f" ± {std:.4f}")
    return percent(mean, std)
