"""The networks of a search that trains several: each in a folder of its own, and one table of all, as in a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nasface import rundir
from nasface.arch import Factors
from nasface.cost import Costs
from nasface.model.files import save_net
from nasface.net import GraphNet
from nasface.pareto import with_front
from nasface.scores import SUPERNET, Stage, SweepRow, table_of
from nasface.stages.faces import Faces
from nasface.stages.measure import Evaluation, evaluate_net, scores_at, sweep_row
from nasface.stages.prune import write_arch
from nasface.stages.train import finish
from nasface.stages.workspace import Work


def write_family(
    work: Work, family: Mapping[str, GraphNet], supernet: Evaluation, factors: Factors, faces: Faces, costs: Costs
) -> Evaluation:
    """Evaluate the networks of a family, and write their folders and the table of all into the run's `family`.

    Args:
        work: the search.
        family: trained networks by name.
        supernet: what the supernet has reached.
        factors: of the search.
        faces: the faces.
        costs: costs of the space.

    Returns:
        What the last network has reached.
    """
    recipe, folder = work.recipe, work.run.family()
    rows = [replace(sweep_row(SUPERNET, supernet, costs), nme=scores_at(supernet, Stage.INHERITED), seed=recipe.seed)]
    for name, net in family.items():
        run = folder.network(name)
        rundir.write_text(run.recipe, recipe.to_yaml())
        write_arch(run, net.graph, factors, recipe, work.run.supernet, recipe.search)
        save_net(run.slim, net, recipe)
        found = evaluate_net("slim", net, recipe, faces, costs)
        finish(replace(work, run=run), [found])  # with the epochs and the compute of the whole search
        rows.append(_row(name, found, costs, work))
    rundir.write_rows(folder.pareto, table_of(with_front(rows)))
    return found


def _row(name: str, found: Evaluation, costs: Costs, work: Work) -> SweepRow:
    return replace(
        sweep_row(name, found, costs),
        nme=scores_at(found, Stage.FINETUNED),
        asked=f"{name} MACs",
        pruner=work.recipe.search.name,
        seed=work.recipe.seed,
        arch=f"networks/{name}/arch.json",
    )
