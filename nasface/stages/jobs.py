"""Search, train and prune."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

import torch

from nasface import engine, plugins, rundir
from nasface.arch import Architecture, Factors, check_digest
from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.net import edge_values, slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.evaluation import Evaluation, evaluate_net, load_faces
from nasface.stages.networks import (
    arch_graph,
    build_net,
    choose,
    load_backbone,
    load_net,
    load_weights,
    net_costs,
    read_factors,
    save_net,
    write_arch,
)
from nasface.stages.training import finetune, finish, fit_net, task_step
from nasface.stages.work import Machine, claim, provenance, working_in
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
        save_net(run.supernet, net)
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
        save_net(run.slim, slim)
        found = [
            evaluate_net("supernet", net, recipe, faces, costs),
            evaluate_net("slim", slim, recipe, faces, costs),
        ]
        finish(work, found)
        return found


def train(
    recipe: Recipe,
    run: RunDir,
    machine: Machine,
    arch: Architecture | None = None,
    weights: Path | None = None,
    backbone: Path | None = None,
) -> list[Evaluation]:
    """Train one network: the recipe's full graph, or the sub-network of `arch`.

    Args:
        recipe: its section `finetune` says how.
        run: where everything goes.
        machine: device and progress.
        arch: of the recipe's space.
        weights: to start from, of the same network or of its supernet; None starts from random ones.
        backbone: instead of both, a public checkpoint for the full graph (see `load_backbone`).
    """
    job = {
        "job": "train",
        "edges": "all" if arch is None else hashlib.sha256(repr(arch.kept).encode()).hexdigest(),
        "weights": "random" if weights is None else rundir.file_digest(weights),
    }
    if backbone is not None:
        load_backbone(build_net(recipe, 1, torch.device("cpu")), backbone)  # one that does not fit costs no time
        job["backbone"] = rundir.file_digest(backbone)
    with working_in(run, recipe, machine, job) as work:
        faces = load_faces(recipe, work.device, machine)
        full = build_net(recipe, faces.train.scheme.num_landmarks, work.device)
        costs = net_costs(full, recipe)
        net = load_net(full, full.graph if arch is None else arch_graph(arch, full), weights)
        if backbone is not None:
            log.info("backbone %s: %s", backbone, load_backbone(net, backbone))
        finetune(net, work, faces)
        save_net(run.supernet if arch is None else run.slim, net)
        if arch is not None:
            rundir.write_text(run.arch, arch.to_json())
        found = [evaluate_net("supernet" if arch is None else "slim", net, recipe, faces, costs)]
        finish(work, found)
        return found


def prune(source: RunDir, recipe: Recipe, out: RunDir) -> tuple[Costs, Graph]:
    """Choose a sub-network of a searched run by the pruner of `recipe`, without training.

    Writes recipe.yaml, arch.json and slim.safetensors, the inherited weights, into `out`.
    """
    factors = read_factors(source.factors)
    net = build_net(recipe, factors.num_landmarks, torch.device("cpu"))
    check_digest(str(source.factors), factors.graph_digest, net.graph)
    load_weights(net, source.supernet)
    costs = net_costs(net, recipe)
    graph = choose(recipe, factors, costs)
    claim(out, recipe, {"job": "prune", "from": str(source.path.resolve())})
    write_arch(out, graph, factors, recipe, source.supernet)
    save_net(out.slim, slim_net(net, graph)[0])
    return costs, graph
