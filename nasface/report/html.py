"""The report of a run: one self-contained HTML page, and its figures as files beside it."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from nasface import __version__, rundir
from nasface.data.augment import on_device
from nasface.device import pick_device
from nasface.errors import DataError, NasfaceError
from nasface.graph import Graph
from nasface.model.files import at
from nasface.places import begins_with, not_ours, refuse_link
from nasface.report import drawing, figures, files_of, is_figure, overview
from nasface.report.content import Content, read
from nasface.report.tradeoff import measured, tradeoff
from nasface.scores import DEFAULT_NORMALISER, Score
from nasface.stages import measure
from nasface.stages.faces import load_prepared
from nasface.stages.workspace import Machine

HERE = Path(__file__).parent
_MARK = "nasface report</title>"  # of a page, in every version
EXAMPLES = 6  # faces of each kind, which make one row of the figure


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        page: the HTML file.
        figures: the files beside it.
        missing: one sentence per part that the page lacks, by the name of the part.
    """

    page: Path
    figures: tuple[Path, ...]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """A figure: its name, its caption, and the function that draws it. A photo goes onto the page as pixels."""

    name: str
    caption: str
    draw: Callable[[], Figure]
    photo: bool = False


def write_report(
    folder: Path,
    out: Path | None = None,
    *,
    machine: Machine | None = None,
    data_root: Path | None = None,
    faces: bool = True,
) -> Report:
    """Write the report of a run or sweep folder: the page, and each figure as SVG and PNG in `figures/` beside it.

    Args:
        folder: filled by search, train, prune, distill, select or sweep-thresholds.
        out: the page; by default report.html in the folder.
        machine: prepares and predicts the example faces.
        data_root: the folder of the dataset, if it is not where the recipe says.
        faces: show example faces. Without them, neither the page nor the figures contain the image of a person, and an
            earlier report's figure of faces is removed.

    Raises:
        RunError: when the folder holds nothing to report on, the page cannot be written, or a file of the user's own
            would be replaced.
    """
    content = read(folder)
    page = out or folder / "report.html"
    beside = page.parent / "figures"
    refuse_link(beside)
    missing = dict(content.missing)
    graph = content.costs.space.graph if content.costs else None
    trade = None if content.sweep is None else tradeoff(content.sweep, graph)
    pictures = list(_pictures(content, trade))
    if not faces:
        missing["faces"] = "left out by --no-faces"
    elif content.errors is not None and content.networks:
        caption = (
            f"Test faces with the lowest, median and highest {DEFAULT_NORMALISER.adjective} NME of the network "
            f"‘{content.subject}’."
        )
        draw = partial(_faces, content, machine or Machine(), data_root)
        pictures.append(Picture("faces", caption, draw, photo=True))
    _refuse_others(page, [path for picture in pictures for path in files_of(beside / picture.name)])
    if not faces:
        for stale in files_of(beside / "faces"):
            if is_figure(stale, unmarked=_beside_a_report(page)):
                stale.unlink()
    shown, files, failed = _drawn(pictures, beside)
    missing |= failed
    try:
        costs = overview.costs(content)
    except NasfaceError as err:
        costs, missing["costs"] = None, str(err)
    rundir.write_text(page, _render(content, trade=trade, pictures=shown, costs=costs, missing=missing))
    return Report(page, tuple(files), missing)


def _drawn(pictures: Sequence[Picture], folder: Path) -> tuple[dict[str, dict[str, Any]], list[Path], dict[str, str]]:
    """Draw pictures into a folder; return them as the page shows them, their files, and why others are missing."""
    shown: dict[str, dict[str, Any]] = {}
    files: list[Path] = []
    missing: dict[str, str] = {}
    for picture in pictures:
        try:
            figure = picture.draw()
        except NasfaceError as err:
            missing[picture.name] = str(err)
            continue
        files += figures.save(figure, folder / picture.name)
        image = _photo(figure, picture.caption) if picture.photo else Markup(figures.svg(figure, f"svg-{picture.name}"))
        shown[picture.name] = {"name": picture.name, "caption": picture.caption, "image": image}
    return shown, files, missing


def _refuse_others(page: Path, files: Sequence[Path]) -> None:
    """Raise a RunError when the page or one of its figures would replace a file of the user's own."""
    unmarked = _beside_a_report(page)
    for file in (page, *files):
        made = begins_with(file, _MARK) if file == page else is_figure(file, unmarked)
        if not made and (file.exists() or file.is_symlink()):
            raise not_ours(file)


def _beside_a_report(page: Path) -> bool:
    """Return whether there is a report in the folder of a page."""
    return any(begins_with(path, _MARK) for path in page.parent.glob("*.html"))


def _render(content: Content, **parts: Any) -> str:
    """Render the page. All text is escaped, and the browser is told to run the one script and to load nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        content=content,
        tiles=overview.tiles(content),
        facts=overview.facts(content),
        accuracy=overview.accuracy(content),
        provenance=overview.provenance(content),
        version=__version__,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **parts,
    )


def _code(text: str) -> Markup:
    """Escape a text and set its `commands` as code."""
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def _pictures(content: Content, trade: Mapping[str, Any] | None) -> Iterator[Picture]:
    """Yield what there is to draw, except for the faces."""
    if content.sweep is not None and trade and trade["axes"]["y"]:
        yield from _paretos(content, trade["axes"]["y"])
    if content.costs is not None and (content.arch is not None or content.factors is not None):
        full = content.costs.space.graph
        values = content.factors.alpha if content.factors else None
        kept = partial(_kept, content)
        if content.arch is not None:
            caption = f"The {len(content.arch.kept)} of {len(full.edges)} edges that were kept."
            yield Picture("architecture", caption, lambda: drawing.architecture(full, kept(), values, ""))
        if values:
            crossed = "; what was not kept is crossed out" if content.arch else ""
            caption = f"The factor alpha of every edge after the search{crossed}."
            yield Picture("alpha", caption, lambda: drawing.alpha_heatmap(full, kept(), values))
    if content.errors is not None:
        caption = (
            f"Share of test images at or below each {DEFAULT_NORMALISER.adjective} NME; AUC and failure rate (FR) "
        )
        caption += "are in the legend."
        yield Picture("ced", caption, partial(_ced, content.errors))
    if content.epochs is not None:
        caption = "Training loss and held-out NME by epoch, over all stages of the run."
        yield Picture("training", caption, partial(figures.training, content.epochs))


def _kept(content: Content) -> Graph:
    """Return the graph of the chosen network, or the full one where none was chosen."""
    assert content.costs is not None
    full = content.costs.space.graph
    return full if content.arch is None else content.arch.subgraph(full)


def _paretos(content: Content, scores: list[dict[str, Any]]) -> Iterator[Picture]:
    """Draw NME against MACs by the deciding score, and beside published figures where a test subset is complete."""
    assert content.sweep is not None
    size = content.costs.input_size if content.costs else 0
    draw = partial(figures.pareto, measured(content.sweep.table), cost="macs", input_size=size)
    caption = f"{scores[0]['label']} (%), against the MACs of the networks of the sweep."
    yield Picture("pareto", caption, partial(draw, score=scores[0]["key"], published=False))
    if content.recipe is not None and content.recipe.data.name == "300w":
        whole = overview.whole_subsets(content)
        if fitting := [axis for axis in scores if (score := Score.parse(axis["key"])) and score.subset in whole]:
            caption = (
                "The sweep beside published methods (hollow circles), which had other input sizes, training data and "
                "recipes."
            )
            yield Picture("pareto-published", caption, partial(draw, score=fitting[0]["key"], published=True))


def _ced(errors: pd.DataFrame) -> Figure:
    """Draw one curve per network."""
    groups = errors.groupby("network", sort=False)[DEFAULT_NORMALISER.column]
    return figures.ced({str(name): nme_N.to_numpy(float) for name, nme_N in groups})


def _faces(content: Content, machine: Machine, data_root: Path | None) -> Figure:
    """Draw the test faces with the lowest, median and highest errors of the report's network."""
    recipe, errors, name = content.recipe, content.errors, content.subject
    assert errors is not None
    if recipe is None:
        raise DataError("there is no readable recipe to say which dataset the faces are from")
    network = next((saved for saved in at(content.run.path) if saved.name == name), None)
    if network is None:
        raise DataError(f"the weights of '{name}' are not here")
    if data_root is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": data_root})})
    test = load_prepared(recipe, machine)["test"]
    own = errors[(errors["network"] == name) & errors["face"].isin(test.names)]
    own = own.dropna(subset=DEFAULT_NORMALISER.column).sort_values(DEFAULT_NORMALISER.column, kind="stable")
    if own.empty:
        raise DataError(f"none of the test faces in {content.run.errors} is in the dataset on disk; give --data-root")
    words = examples(len(own))
    own = own.iloc[list(words)]
    index = [test.names.index(face) for face in own["face"]]
    device = pick_device(machine.device)
    chosen = on_device(test, device, index)
    net = network.load(recipe, device).module
    window = slice(test.pad, test.pad + test.input_size)
    return figures.faces(
        test.images_NHWC[index][:, window, window],
        measure.recipe_landmarks(net, recipe, chosen),
        chosen.input_landmarks().cpu().numpy(),
        own[DEFAULT_NORMALISER.column].to_numpy(),
        list(words.values()),
    )


def examples(count: int) -> dict[int, str]:
    """Choose which of `count` faces, in order of error, to show and as what: at most EXAMPLES of each kind."""
    each = max(1, min(EXAMPLES, count // 3))
    chosen: dict[int, str] = {}
    for word, start in (("best", 0), ("median", (count - each) // 2), ("worst", count - each)):
        for place in range(start, start + each):
            chosen.setdefault(place, word)
    return chosen


def _photo(figure: Figure, words: str) -> Markup:
    """Embed a figure as a JPEG, which is small whatever the size of the images in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=180, pil_kwargs={"quality": 85, "optimize": True})
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img src="data:image/jpeg;base64,{}" alt="{}">').format(data, words)
