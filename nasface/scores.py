"""The names that figures go by: normalisers, metrics, levels of masks, training stages, columns, and a row of a sweep.

Everything that writes, reads or shows a score takes its name from here, and so do the forms in which it is shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

from nasface.errors import RunError

SUPERNET = "supernet"
"""What tables call the network that a search trained, in which nothing has been pruned."""
DASH = "–"
"""What tables show where there is no figure."""


class Normaliser(StrEnum):
    """What point errors are divided by to give an NME."""

    INTER_OCULAR = "inter_ocular"
    INTER_PUPIL = "inter_pupil"
    BOX = "box"

    @property
    def label(self) -> str:
        """In words, for example 'inter-ocular distance'."""
        return "box size" if self is Normaliser.BOX else f"{self.adjective} distance"

    @property
    def adjective(self) -> str:
        """In front of 'NME', for example 'inter-ocular'."""
        return self.value.replace("_", "-")

    @property
    def column(self) -> str:
        """The column of errors.csv with the NME of each face."""
        return f"nme_{self.value}"


DEFAULT_NORMALISER = Normaliser.INTER_OCULAR
"""The normaliser of every score that does not name one: of held-out NMEs, sweeps and experiments."""
METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nme": ("NME", ("nme",)),
    "fr8": ("FR@8", ("failure_rate", "0.08")),
    "fr10": ("FR@10", ("failure_rate", "0.1")),
    "auc8": ("AUC@8", ("auc", "0.08")),
    "auc10": ("AUC@10", ("auc", "0.1")),
    "p50": ("P50", ("percentiles", "50")),
    "p90": ("P90", ("percentiles", "90")),
    "p95": ("P95", ("percentiles", "95")),
}
"""What a column of a table can show: its heading, and where it stands in `metrics.Summary.as_dict()`."""
MaskLevel = Literal["light", "half", "hard"]
"""How much of each face synthetic masks hide, see `nasface.data.masks.cover`."""


class Stage(StrEnum):
    """The states of a pruned network's weights in which it is evaluated, in this order."""

    INHERITED = "inherited"
    RECALIBRATED = "recalibrated"
    FINETUNED = "finetuned"

    @property
    def words(self) -> str:
        """The stage in words, for labels."""
        return {"inherited": "as pruned", "recalibrated": "BN recalibrated", "finetuned": "fine-tuned"}[self.value]


class State(StrEnum):
    """What became of a network that a sweep was asked for."""

    DONE = "done"
    DISCONNECTED = "disconnected"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Score:
    """An inter-ocular NME as a share: of which faces, and of which weights.

    Attributes:
        subset: a test subset, or None for the held-out training faces.
        stage: of the weights; None in tables that have one stage only.
        masked: the level of the masks that cover the faces; empty without masks.
    """

    subset: str | None = None
    stage: Stage | None = None
    masked: str = ""

    @property
    def column(self) -> str:
        """Its name in tables, for example 'held_out_nme' or 'nme_full_finetuned'."""
        faces = "held_out_nme" if self.subset is None else f"nme_{self.subset}"
        return faces + (f"_masked_{self.masked}" if self.masked else "") + (f"_{self.stage}" if self.stage else "")

    @property
    def images_column(self) -> str:
        """The column with the number of images behind the score."""
        return f"{_IMAGES}{'held_out' if self.subset is None else self.subset}"

    @property
    def faces(self) -> str:
        """The faces in words: 'held-out', or the subset and its masks."""
        return ("held-out" if self.subset is None else self.subset) + (
            f", masked: {self.masked}" if self.masked else ""
        )

    def at(self, stage: Stage | None) -> Score:
        """The same faces with the weights of another stage, or with none named."""
        return replace(self, stage=stage)

    @classmethod
    def parse(cls, column: str) -> Score | None:
        """The score of a column; None for a column that holds something else."""
        found = _SCORE.fullmatch(column)
        if found is None:
            return None
        return cls(found["subset"], Stage(found["stage"]) if found["stage"] else None, found["masked"] or "")


_SCORE = re.compile(
    rf"(?:held_out_nme|nme_(?P<subset>.+?))(?:_masked_(?P<masked>[a-z]+))?(?:_(?P<stage>{'|'.join(Stage)}))?"
)
_IMAGES = "images_"
HELD_OUT = Score()
"""What choices go by; `HELD_OUT.at(stage)` is the same in a table with several stages."""


def scores_in(columns: Iterable[object]) -> list[Score]:
    """The scores among the columns of a table, in their order."""
    return [score for column in columns if (score := Score.parse(str(column))) is not None]


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs at the recipe's input size.

    Attributes:
        params, macs: parameters and multiply-adds of the whole network.
        params_no_head, macs_no_head: the same without the head, as the paper counts slim networks.
        macs_prunable: multiply-adds of everything but stem, stage 1 and head.
        edges, blocks: numbers of kept edges and of kept prunable encoder blocks.
    """

    params: int
    macs: int
    params_no_head: int
    macs_no_head: int
    macs_prunable: int
    edges: int
    blocks: int


@dataclass(frozen=True)
class SweepRow:
    """A network of a sweep: what was asked, what it costs, and how well it does. A figure that is not there is None.

    The order of the attributes is that of the columns of pareto.csv. There, every score and every number of images
    has a column of its own.

    Attributes:
        network: its name in the sweep.
        state: what became of it.
        asked: the requests that it answers, in words, separated by '; '.
        pruner: what chose its edges, with the seed of a random choice; several are separated by ', '.
        threshold: the lowest of the thresholds that it answers.
        edges, blocks: kept edges and prunable encoder blocks.
        params, macs: of the whole network; MACs are multiply-adds of one image.
        params_no_head, macs_no_head, macs_prunable: of parts of it, see `NetworkCost`.
        prunable_share: its prunable MACs as a share of the supernet's.
        latency_ms, supernet_latency_ms: time of the fastest of several forward passes; the supernet was timed in turn.
        latency_batch, latency_runtime, threads, device: images in a pass, what ran it ('torch' where none is named),
            CPU threads, and where it ran.
        nme: by score.
        images: number of test faces by subset.
        on_front: whether no other network beats it in MACs and held-out NME; None for the supernet and failures.
        seed: of the sweep.
        arch: its arch.json, relative to the folder of the sweep.
        error: why it is disconnected or diverged.
    """

    network: str
    state: State = State.DONE
    asked: str | None = None
    pruner: str | None = None
    threshold: float | None = None
    edges: int | None = None
    blocks: int | None = None
    params: int | None = None
    macs: int | None = None
    params_no_head: int | None = None
    macs_no_head: int | None = None
    macs_prunable: int | None = None
    prunable_share: float | None = None
    latency_ms: float | None = None
    supernet_latency_ms: float | None = None
    latency_batch: int | None = None
    latency_runtime: str | None = None
    threads: int | None = None
    device: str | None = None
    nme: Mapping[Score, float] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    on_front: bool | None = None
    seed: int | None = None
    arch: str | None = None
    error: str | None = None

    @property
    def is_slim(self) -> bool:
        """Whether it is a pruned network that has been measured."""
        return self.state is State.DONE and self.network != SUPERNET

    @property
    def held_out_error(self) -> float | None:
        """The held-out NME after the last stage that it has reached."""
        return next((self.nme[score] for stage in reversed(Stage) if (score := HELD_OUT.at(stage)) in self.nme), None)

    def as_columns(self) -> dict[str, Any]:
        """Plain values by column of pareto.csv, fit for JSON; None where there is no figure."""
        columns: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name == "nme":
                columns |= {score.column: nme for score, nme in value.items()}
            elif part.name == "images":
                columns |= {f"{_IMAGES}{subset}": count for subset, count in value.items()}
            else:
                columns[part.name] = str(value) if isinstance(value, StrEnum) else value
        return columns

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> SweepRow:
        """The row that `as_columns` gave, from JSON or from a CSV file, whatever columns it lacks.

        Raises:
            RunError: when a column holds a value of the wrong kind.
        """
        known = {name: value for name, value in columns.items() if not _is_absent(value)}
        values: dict[str, Any] = {
            name: _converted(name, known[name], kind) for name, kind in _kinds().items() if name in known
        }
        scores = {score: _converted(score.column, known[score.column], float) for score in scores_in(known)}
        images = {
            name.removeprefix(_IMAGES): _converted(name, value, int)
            for name, value in known.items()
            if name.startswith(_IMAGES)
        }
        return cls(**values, nme=scores, images=images)


@cache
def _kinds() -> dict[str, type[Any]]:
    """The type of each attribute of a `SweepRow` that has one column: `int` for `int | None`."""
    hints = {name: hint for name, hint in get_type_hints(SweepRow).items() if name not in ("nme", "images")}
    return {name: next(iter(get_args(hint)), hint) for name, hint in hints.items()}


def table_of(rows: Iterable[SweepRow]) -> list[dict[str, Any]]:
    """Rows with equal columns, as pareto.csv and JSON hold them: scores between the costs and the rest."""
    plain = [row.as_columns() for row in rows]
    names = [part.name for part in fields(SweepRow)]
    first, last = names[: names.index("nme")], names[names.index("images") + 1 :]
    between = dict.fromkeys(column for row in plain for column in row if column not in names)
    return [{column: row.get(column) for column in (*first, *between, *last)} for row in plain]


def percent(share: float | None, std: float | None = None) -> str:
    """A share in percent, with its standard deviation where there is one; a dash where there is no share."""
    if share is None or math.isnan(share):
        return DASH
    # 0.002 % is not 0.00 %
    text = f"{100 * share:.2f}" if share == 0 or abs(share) >= 5e-5 else f"{100 * share:.1g}"
    return text if std is None or math.isnan(std) else f"{text} ± {100 * std:.2f}"


def of_expected(images: int, expected: int) -> str:
    """How many faces of a subset there were: '554', or '554 of 689' where the official subset has more."""
    return f"{images}" if images == expected else f"{images} of {expected}"


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def _converted(column: str, value: Any, kind: type[Any]) -> Any:
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False}[value.lower()]
        return kind(value)
    except (KeyError, ValueError, TypeError, OverflowError) as err:
        raise RunError(f"the column '{column}' of a sweep holds {value!r}, which is not a valid value there") from err
