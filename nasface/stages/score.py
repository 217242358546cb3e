"""Factors by criterion: how much each edge of a searched supernet matters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from nasface import plugins, rundir
from nasface import recipe as recipes
from nasface.arch import Factors
from nasface.compute import counting, metering
from nasface.context import Context
from nasface.device import pick_device
from nasface.errors import RunError
from nasface.model.build import searched_net
from nasface.model.source import read_factors
from nasface.net import GraphNet, edge_values
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.sections import Plugin
from nasface.stages.faces import Faces, load_faces
from nasface.stages.machine import use_threads
from nasface.stages.training import rated, search_context
from nasface.stages.workspace import Machine, provenance
from nasface.step import Row


def score(
    recipe: Recipe, run: RunDir, criterion: Plugin, machine: Machine, again: bool = False
) -> tuple[Factors, Path]:
    """Return the factors of a searched run by a criterion, and their file.

    Those of another criterion than the run's own are kept beside the run's own.

    Args:
        recipe: of the run: its space, data, task and training.
        run: the searched run.
        criterion: its name and options.
        machine: device and progress.
        again: compute them even when the run has them already for these options and weights.
    """
    own = read_factors(run.factors)
    options = plugins.check_options("criteria", criterion.name, criterion.options)
    by_own = recipes.load(str(run.recipe)).criterion
    if (criterion.name, options) == (by_own.name, by_own.options):
        return own, run.factors
    path = run.factors_by(criterion.name)
    made_by = {
        "criterion": criterion.name,
        "criterion_options": options,
        "weights_sha256": rundir.file_digest(run.supernet),
    }
    if not again and path.exists():
        kept = read_factors(path)
        if made_by.items() <= kept.provenance.items() and kept.graph_digest == own.graph_digest:
            return kept, path
    use_threads(recipe)
    device = pick_device(machine.device)
    net, _ = searched_net(recipe, run, own, device)

    @cache
    def faces() -> Faces:
        return load_faces(recipe, device, machine)

    found = measure(net, search_context(net, recipe, faces, _no_fit), recipe, criterion, made_by)
    rundir.write_text(path, found.to_json())
    return found, path


def measure(
    net: GraphNet, context: Context, recipe: Recipe, criterion: Plugin, made_by: dict[str, Any] | None = None
) -> Factors:
    """Return the factors of a supernet.

    Args:
        net: the searched supernet.
        context: to measure in.
        recipe: of the run.
        criterion: its name and options.
        made_by: goes into the provenance.

    Raises:
        GraphError: see `rated`.
    """
    with metering() as meter, counting():
        importance = rated(criterion, net, context)
    return Factors(
        space=recipe.space.name,
        options=recipe.space.options,
        num_landmarks=net.num_landmarks,
        graph_digest=net.graph.digest,
        importance={edge: importance[edge] for edge in net.graph.prunable},
        alpha=edge_values(net),
        provenance={
            "searcher": recipe.search.name,
            "options": recipe.search.options,
            "criterion": criterion.name,
            "criterion_options": criterion.options,
            "macs": meter.total,  # multiply-adds that the measurement took
            **provenance(recipe),
            **(made_by or {}),
        },
    )


def _no_fit(*phases: Any, **others: Any) -> list[Row]:
    raise RunError(
        "this criterion trains the network, so it works only during a search: set criterion.name in the recipe"
    )
