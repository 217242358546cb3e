"""How stages train and measure: what a searcher gets, and the one way from a stage to the engine's loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from torch import nn

from nasface import engine, joint, plugins, ranks
from nasface.context import Context
from nasface.engine import Settings
from nasface.errors import GraphError, RunError
from nasface.graph import Edge, Graph
from nasface.model.build import net_costs
from nasface.net import GraphNet, slim_net
from nasface.recipe import Recipe
from nasface.sections import Plugin
from nasface.stages.faces import Faces, check_held_out
from nasface.stages.measure import held_out_error
from nasface.stages.workspace import Work
from nasface.step import Fit, Phase, Row
from nasface.task import HeatmapTask


def settings(recipe: Recipe, epochs: int = 1) -> Settings:
    """Return the recipe's settings for a training of so many epochs."""
    training = recipe.training
    return Settings(epochs, training.batch, recipe.augmentation, recipe.seed, training.precision, training.clip)


def task(recipe: Recipe) -> HeatmapTask:
    """Return the recipe's task: its loss of heatmaps, times the recipe's weight."""
    how = recipe.task
    return HeatmapTask(recipe.data.input_size, how.sigma, how.weight, how.loss)


def rated(criterion: Plugin, net: GraphNet, context: Context) -> dict[Edge, float]:
    """Return the importance of every prunable edge of a network by a criterion.

    Where several processes train together, each of them measures, and all go on with the leader's figures: a difference
    in the last bit could give them different networks.

    Raises:
        GraphError: when the criterion's importance is not of exactly the prunable edges, negative or not finite.
    """
    found = plugins.criterion(criterion.name, criterion.options)(net, context)
    if strange := found.keys() ^ set(net.graph.prunable):
        raise GraphError(
            f"the criterion '{criterion.name}' must return the importance of exactly the prunable edges, but "
            f"{len(strange)} are missing or too many, for example {min(strange, key=str)}"
        )
    importance = dict(zip(found, ranks.agreed(list(found.values())), strict=True))
    for edge, value in importance.items():
        if not 0 <= value < math.inf:
            raise GraphError(
                f"the criterion '{criterion.name}' gives the edge {edge[0]} -> {edge[1]} the importance {value}; "
                "expected a finite number that is not negative"
            )
    return importance


def search_context(net: GraphNet, recipe: Recipe, faces: Callable[[], Faces], fit: Fit) -> Context:
    """Return what the recipe's searcher and criterion get besides `net`.

    Args:
        net: the searched network.
        recipe: its task, data and training.
        faces: returns the faces; called when they are first needed, since some criteria need none.
        fit: see `trainer`.
    """
    how, goal = settings(recipe), task(recipe)

    def evaluator(parent: GraphNet) -> Callable[[Graph], float]:
        @cache
        def made() -> Callable[[Graph], float]:  # when it is first needed, since some criteria need no held-out faces
            check_held_out(recipe, faces().prepared["train"], "the best of several sub-networks")
            return engine.evaluator(parent, faces().train, how, partial(held_out_error, recipe=recipe, faces=faces()))

        return lambda graph: made()(graph)

    def rate(graph: Graph) -> Mapping[Edge, float]:
        slim, _ = slim_net(net, graph)
        return rated(recipe.criterion, slim, replace(context, evaluate=evaluator(slim)))

    context = Context(
        costs=net_costs(net, recipe),
        loss=goal.loss,
        step=goal.step,
        optimizer=recipe.search.optimizer,
        epochs=recipe.search.epochs,
        batches=lambda: engine.training_batches(faces().train, how),
        held_out=lambda: faces().held_out.plain(how.batch),
        evaluate=evaluator(net),
        rate=rate,
        fit=fit,
    )
    return context


_STAGES = ("search", "finetune", "distill")  # in the order in which one continues from another, with other batches


def trainer(
    work: Work,
    trained: nn.Module,
    faces: Faces,
    stage: str,
    planned: int,
    validate: Callable[[Any], float] | None = None,
) -> Fit:
    """Return the way to train networks in a run folder, with checkpoints, metrics and progress.

    Args:
        work: the stage at work.
        trained: the network that is trained where a call names no other.
        faces: the faces to train on.
        stage: 'search', 'finetune' or 'distill': prefix of all titles, and the whole title of the first training if it
            has none of its own.
        planned: epochs, where a call does not say how many.
        validate: measures a network after each epoch; by default its NME on held-out faces.
    """
    titles: list[str] = []
    later = _STAGES.index(stage)
    validate = validate or partial(held_out_error, recipe=work.recipe, faces=faces)

    def fit(
        phases: Sequence[Phase], epochs: int | None = None, title: str | None = None, net: nn.Module | None = None
    ) -> list[Row]:
        full = f"{stage}-{title or len(titles) + 1}" if title or titles else stage
        if full in titles:
            raise RunError(f"two trainings of a run are called '{full}'; give each a title of its own, or none")
        how = settings(work.recipe, planned if epochs is None else epochs)
        if titles or later:  # its epochs count from 0 once more, and must not draw the batches of the training before
            how = replace(how, seed=joint.mix(how.seed, len(titles), later))
        titles.append(full)
        rows = engine.fit(
            trained if net is None else net,
            phases,
            faces.train,
            how,
            title=full,
            checkpoint=work.run.checkpoint(full),
            identity=faces.prepared["train"].key,
            validate=validate,
            progress=replace(work.machine.progress, epoch=work.recorder(full)),
        )
        work.rows.extend(rows)
        return rows

    return fit
