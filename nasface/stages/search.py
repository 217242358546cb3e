"""Search a supernet, prune it, fine-tune the slim network and evaluate both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import count

from nasface import engine, plugins, rundir
from nasface.arch import Factors
from nasface.errors import GraphError
from nasface.net import edge_values, slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.faces import load_faces
from nasface.stages.measure import Evaluation, evaluate_net
from nasface.stages.networks import build_net, choose, net_costs, read_factors, save_net, write_arch
from nasface.stages.train import finetune, finish, fit_net, task_step
from nasface.stages.workspace import Machine, provenance, working_in
from nasface.step import Phase

log = logging.getLogger(__name__)


def search(recipe: Recipe, run: RunDir, machine: Machine) -> list[Evaluation]:
    """Search a supernet, prune it, fine-tune and evaluate the slim network; everything goes to the run folder.

    Done epochs of an interrupted run are taken from its checkpoints.
    """
    with working_in(run, recipe, machine, {"job": "search"}) as work:
        searcher = plugins.searcher(recipe.search.name, recipe.search.options)
        faces = load_faces(recipe, work.device, machine)
        net = build_net(recipe, faces.train.scheme.num_landmarks, work.device)
        costs = net_costs(net, recipe)

        fits = count(1)

        def fit(phases: Sequence[Phase]) -> None:
            number = next(fits)
            title = "search" if number == 1 else f"search-{number}"
            fit_net(net, phases, title, recipe.search.epochs, work, faces)

        importance = searcher.search(
            net,
            task_step(recipe),
            recipe.search.optimizer,
            fit,
            partial(engine.training_batches, faces.train, work.settings()),
        )
        factors = Factors(
            space=recipe.space.name,
            options=recipe.space.options,
            num_landmarks=net.num_landmarks,
            graph_digest=net.graph.digest,
            importance=dict(importance),
            alpha=edge_values(net),
            provenance={
                "searcher": recipe.search.name,
                "options": recipe.search.options,
                **provenance(recipe),
            },
        )
        if run.factors.exists():  # a resumed run measures again; on a GPU not to the last bit
            factors = read_factors(run.factors)
        save_net(run.supernet, net, recipe)
        rundir.write_text(run.factors, factors.to_json())
        try:
            graph = choose(recipe, factors, costs)
        except GraphError as err:
            raise GraphError(
                f"{err}; the search is saved, choose again with `nasface prune {run.path} --out DIR`"
            ) from err
        write_arch(run, graph, factors, recipe, run.supernet)
        slim, inherited = slim_net(net, graph)
        engine.recalibrate(slim, faces.train, work.settings())
        log.info("slim network of %d of %d edges: %s", len(graph.edges), len(net.graph.edges), inherited)
        finetune(slim, work, faces)
        save_net(run.slim, slim, recipe)
        found = [
            evaluate_net("supernet", net, recipe, faces, costs),
            evaluate_net("slim", slim, recipe, faces, costs),
        ]
        finish(work, found)
        return found
