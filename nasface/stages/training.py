"""What every training of a network shares: the step of the task, fitting in a run folder, and the final figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from nasface import rundir
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.stages.evaluation import Evaluation, Faces, held_out_nme
from nasface.stages.work import Work
from nasface.step import Batch, Phase, Step
from nasface.task import heatmap_loss


def task_step(recipe: Recipe) -> Step:
    """Mean squared error of the heatmaps, times the recipe's weight."""
    task, size = recipe.task, recipe.data.input_size

    def step(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        loss = heatmap_loss(net(batch.images_B3HW), batch.landmarks_BL2, size, task.sigma)
        return {"loss": task.weight * loss, "mse": loss}

    return step


def finetune(net: GraphNet, work: Work, faces: Faces) -> None:
    """Train factors and weights of one network together, as the recipe's section `finetune` says."""
    plan = work.recipe.finetune
    phase = Phase("weights", tuple(net.parameters()), plan.optimizer, task_step(work.recipe))
    fit_net(net, [phase], "finetune", plan.epochs, work, faces)


def finish(work: Work, found: Sequence[Evaluation]) -> None:
    """Write the final figures and the error of every test face."""
    rows = [{"network": e.network, **row} for e in found for row in e.faces]
    if rows:
        rundir.write_rows(work.run.errors, rows)
    work.finish({e.network: e.as_dict() for e in found})


def fit_net(net: GraphNet, phases: Sequence[Phase], title: str, epochs: int, work: Work, faces: Faces) -> None:
    """`Work.fit` on the faces of an experiment, with the held-out NME after each epoch."""
    validate = partial(held_out_nme, recipe=work.recipe, faces=faces)
    work.fit(net, phases, title, epochs, faces.train, faces.prepared["train"].key, validate)
