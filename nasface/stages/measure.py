"""Measure what a network costs and how well its landmarks fit the faces."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasface import metrics
from nasface.data.base import Scheme
from nasface.data.prepare import PreparedFaces
from nasface.graph import Graph
from nasface.metrics import Summary
from nasface.recipe import Recipe
from nasface.scores import DEFAULT_NORMALISER, HELD_OUT, NetworkCost, Normaliser, Score, Stage, SweepRow
from nasface.stages.faces import Faces

if TYPE_CHECKING:
    from nasface.cost import Costs
    from nasface.data.augment import DeviceFaces
    from nasface.net import GraphNet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accuracy:
    """How well the landmarks of a network, or of any other program, fit the test faces.

    Attributes:
        network: its name, such as 'supernet' or 'slim'.
        subsets: figures by normaliser and test subset.
        faces: one row per test face: its name, its subsets and its NME by normaliser.
        predicted_NL2: the landmarks in pixels of the network's input, NaN for a face without landmarks; None if there
            is no test face.
    """

    network: str
    subsets: Mapping[Normaliser, Mapping[str, Summary]]
    faces: Sequence[Mapping[str, Any]] = field(repr=False)
    predicted_NL2: NDArray[np.float64] | None = field(default=None, repr=False, compare=False, kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without faces and landmarks. NaN becomes None."""
        subsets = {n: {s: r.as_dict() for s, r in table.items()} for n, table in self.subsets.items()}
        return {"network": self.network, **self._others(), "subsets": subsets}

    def _others(self) -> dict[str, Any]:
        """Return the plain values that are not the figures of subsets."""
        return {}


@dataclass(frozen=True)
class Evaluation(Accuracy):
    """What a network costs and how well it does.

    Attributes:
        cost: what it costs.
        held_out_error: inter-ocular NME on the held-out training faces, as a share.
    """

    cost: NetworkCost
    held_out_error: float

    @classmethod
    def of(cls, found: Accuracy, cost: NetworkCost, held_out_error: float) -> Evaluation:
        """Add the cost and the held-out error to the figures of a network."""
        return cls(found.network, found.subsets, found.faces, cost, held_out_error, predicted_NL2=found.predicted_NL2)

    def _others(self) -> dict[str, Any]:
        held_out = None if np.isnan(self.held_out_error) else self.held_out_error
        return {**vars(self.cost), HELD_OUT.column: held_out}


def recipe_landmarks(net: GraphNet, recipe: Recipe, faces: DeviceFaces) -> NDArray[np.float64]:
    """Return the landmarks (N, L, 2) of each face in pixels of the network's input, decoded as the recipe says."""
    from nasface import engine  # torch: what exported networks predict is measured without it

    task = recipe.task
    return engine.predict_landmarks(
        net,
        faces,
        decoder=task.decoder,
        sigma=task.sigma,
        flip_test=task.flip_test,
        precision=recipe.training.precision,
    )


def errors(predicted_NL2: NDArray[Any], true_NL2: NDArray[Any], scheme: Scheme) -> dict[Normaliser, NDArray[Any]]:
    """Return the NME (N,) of each face by normaliser; NaN for a face without landmarks."""
    groups = {Normaliser.INTER_OCULAR: scheme.inter_ocular, Normaliser.INTER_PUPIL: scheme.inter_pupil}
    return {n: metrics.nme(predicted_NL2, true_NL2, metrics.distances(true_NL2, n, groups)) for n in Normaliser}


def face_errors(net: GraphNet, recipe: Recipe, faces: DeviceFaces) -> dict[Normaliser, NDArray[np.float64]]:
    """Return the NME (N,) of each face by normaliser, with landmarks decoded as the recipe says."""
    true = faces.input_landmarks().cpu().double().numpy()
    return errors(recipe_landmarks(net, recipe, faces), true, faces.scheme)


def held_out_error(net: GraphNet, recipe: Recipe, faces: Faces) -> float:
    """Return the inter-ocular NME on the held-out training faces, as a share. Networks are selected by it."""
    if not len(faces.held_out):
        return float("nan")
    return float(face_errors(net, recipe, faces.held_out)[DEFAULT_NORMALISER].mean())


def measure(name: str, predicted_NL2: NDArray[np.float64] | None, test: PreparedFaces) -> Accuracy:
    """Compute the figures of every test subset.

    Args:
        name: name of the network or program that predicted the landmarks.
        predicted_NL2: landmarks of each test face in pixels of the network's input, NaN for a face without landmarks;
            None if there is no test face.
        test: the test faces.
    """
    if predicted_NL2 is None:
        return Accuracy(name, {}, ())
    by_normaliser = errors(predicted_NL2, true_landmarks(test), test.scheme)
    columns: dict[str, Sequence[Any]] = {"face": test.names, "subsets": [";".join(s) for s in test.subsets]}
    columns |= {n.column: nme_N.tolist() for n, nme_N in by_normaliser.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    official = [key.partition("/")[2] for key in test.expected if "/" in key]
    order = dict.fromkeys([*official, *test.subset_names])
    subsets: dict[Normaliser, dict[str, Summary]] = {
        n: {s: metrics.summarise(nme_N[test.membership(s)], test.expected_count(s) or test.count(s)) for s in order}
        or {"full": metrics.summarise(nme_N, test.expected_count() or len(test))}
        for n, nme_N in by_normaliser.items()
    }
    return Accuracy(name, subsets, rows, predicted_NL2=predicted_NL2)


def true_landmarks(faces: PreparedFaces) -> NDArray[np.float64]:
    """Return the true landmarks (N, L, 2) in pixels of the network's input."""
    true: NDArray[np.float64] = faces.landmarks_NL2.astype(np.float64) - faces.pad
    return true


def evaluate_net(name: str, net: GraphNet, recipe: Recipe, faces: Faces, costs: Costs) -> Evaluation:
    """Measure the cost of a network, its held-out NME and the figures of every test subset."""
    predicted = None if faces.test is None else recipe_landmarks(net, recipe, faces.test)
    found = measure(name, predicted, faces.prepared["test"])
    return Evaluation.of(found, cost_of(costs, net.graph), held_out_error(net, recipe, faces))


def sweep_row(network: str, found: Evaluation, costs: Costs) -> SweepRow:
    """Return the row of a network in a sweep with what it costs, and the number of faces behind its scores."""
    return SweepRow(
        network=network,
        edges=found.cost.edges,
        blocks=found.cost.blocks,
        params=found.cost.params,
        macs=found.cost.macs,
        params_no_head=found.cost.params_no_head,
        macs_no_head=found.cost.macs_no_head,
        macs_prunable=found.cost.macs_prunable,
        prunable_share=found.cost.macs_prunable / max(1, costs.prunable(costs.space.graph).macs),
        images={name: summary.images for name, summary in found.subsets.get(DEFAULT_NORMALISER, {}).items()},
    )


def scores_at(found: Evaluation, stage: Stage) -> dict[Score, float]:
    """Return the NMEs of held-out faces and test subsets as shares, without NaN, which JSON does not know."""
    nmes = {HELD_OUT.at(stage): found.held_out_error}
    nmes |= {Score(name, stage): summary.nme for name, summary in found.subsets.get(DEFAULT_NORMALISER, {}).items()}
    return {score: nme for score, nme in nmes.items() if np.isfinite(nme)}


def cost_of(costs: Costs, graph: Graph) -> NetworkCost:
    """Return what a sub-graph costs."""
    whole, bare = costs.total(graph), costs.without_head(graph)
    return NetworkCost(
        params=whole.params,
        macs=whole.macs,
        params_no_head=bare.params,
        macs_no_head=bare.macs,
        macs_prunable=costs.prunable(graph).macs,
        edges=len(graph.edges),
        blocks=len(graph.blocks),
    )
