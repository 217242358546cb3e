"""Search a supernet, prune it, fine-tune the slim network and evaluate both."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nasface import engine, plugins, rundir
from nasface.arch import Factors
from nasface.cost import Costs
from nasface.device import pick_device
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.model.build import net_of
from nasface.model.files import save_net
from nasface.model.source import read_factors
from nasface.net import slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.search.base import Found
from nasface.stages.faces import load_faces
from nasface.stages.measure import evaluate_net
from nasface.stages.prune import choose, write_arch
from nasface.stages.score import measure
from nasface.stages.search.family import write_family
from nasface.stages.train import finetune, finish
from nasface.stages.training import search_context, settings, trainer
from nasface.stages.workspace import Machine, reserved, working_in

log = logging.getLogger(__name__)


def search(recipe: Recipe, run: RunDir, machine: Machine, weights: Path | None = None) -> dict[str, Any]:
    """Search a supernet, prune it, fine-tune and evaluate the slim network; everything goes to the run folder.

    Epochs that an interrupted run has finished are taken from its checkpoints.

    Args:
        recipe: all about the experiment.
        run: where everything is written.
        machine: device and progress.
        weights: weights of the supernet to start from; None starts from random ones.

    Returns:
        The content of metrics.json: the figures of both networks, and how they came about.
    """
    job = {"job": "search"} | ({} if weights is None else {"weights": rundir.file_digest(weights)})
    with reserved(run, recipe, job):
        searcher = plugins.searcher(recipe.search.name, recipe.search.options)
        device = pick_device(machine.device)
        faces = load_faces(recipe, device, machine)  # before the folder is claimed
        net, costs = net_of(recipe, faces.train.scheme.num_landmarks, device, None, weights)
        with working_in(run, recipe, machine, job, shared=True) as work:
            fit = trainer(work, net, faces, "search", recipe.search.epochs)
            context = search_context(net, recipe, lambda: faces, fit)

            with work.measuring(), plugins.faults("searchers", recipe.search.name):
                found = Found.of(searcher.search(net, context))
            save_net(run.supernet, net, recipe)

            if rundir.exists(run.factors):  # a resumed run would measure again; on a GPU not to the last bit
                factors = read_factors(run.factors)
            else:
                factors = measure(net, context, recipe, recipe.criterion)
                rundir.write_text(run.factors, factors.to_json())

            work.measured.macs += factors.provenance.get("macs", 0)
            supernet = evaluate_net("supernet", net, recipe, faces, costs)
            if found.slim is not None:
                slim, reached = found.slim, write_family(work, found.networks, supernet, factors, faces, costs)
            else:
                graph = found.graph or _choose(recipe, factors, costs, run)
                slim, inherited = slim_net(net, graph)
                with work.measuring():
                    engine.recalibrate(slim, faces.train, settings(recipe))
                log.info("slim network of %d of %d edges: %s", len(graph.edges), len(net.graph.edges), inherited)
            write_arch(run, slim.graph, factors, recipe, run.supernet, recipe.search if found.graph else None)
            finetune(slim, work, faces)
            save_net(run.slim, slim, recipe)
            if recipe.finetune.epochs or found.slim is None:  # else it is the network of the family as it was evaluated
                reached = evaluate_net("slim", slim, recipe, faces, costs)
            return finish(work, [supernet, reached])


def _choose(recipe: Recipe, factors: Factors, costs: Costs, run: RunDir) -> Graph:
    """Choose the sub-graph, or say how to choose another one of the same search."""
    try:
        return choose(recipe, factors, costs)
    except GraphError as err:
        raise GraphError(f"{err}; the search is saved, choose again with `nasface prune {run.path} --out DIR`") from err
