"""Losses of heatmaps with their gradients: the Adaptive Wing loss, the same written with autograd, and the MSE.

python benchmarks/losses.py [--batch 32] [--cells 32] [--threads 1]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from nasface.task import adaptive_wing, targets
from nasface.timing import in_turn

LANDMARKS, SIGMA = 68, 1.5
Loss = Callable[[Tensor, Tensor], Tensor]


def by_autograd(heatmaps: Tensor, goal: Tensor) -> Tensor:
    """The Adaptive Wing loss as its formula reads (Wang et al. 2019, equations 3 and 5)."""
    error, power = (heatmaps - goal).abs(), 2.1 - goal
    at_theta = 0.5**power
    slope = 14 * power * at_theta / 0.5 / (1 + at_theta)
    beyond = slope * (error - 0.5) + 14 * torch.log1p(at_theta)
    loss = torch.where(error < 0.5, 14 * torch.log1p(error**power), beyond)
    return (loss * torch.where(goal >= 0.2, 11.0, 1.0)).mean()


def gradient(loss: Loss, heatmaps: Tensor, goal: Tensor) -> Tensor:
    """Compute a loss and return its gradient with respect to the heatmaps."""
    return torch.autograd.grad(loss(heatmaps, goal), heatmaps)[0]


@click.command()
@click.option("--batch", default=32, show_default=True, help="Faces in a batch.")
@click.option("--cells", default=32, show_default=True, help="Side of a heatmap.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch.")
@click.option("--rounds", default=20, show_default=True, help="Rounds; every loss has its turn in each.")
def main(batch: int, cells: int, threads: int, rounds: int) -> None:
    """Check that both forms of the loss have the same gradient, and time them in turn."""
    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(0)
    goal = targets(cells * torch.rand(batch, LANDMARKS, 2, generator=random), (cells, cells), 1.0, SIGMA)
    heatmaps = (goal + 0.1 * torch.randn(goal.shape, generator=random)).requires_grad_()
    torch.testing.assert_close(gradient(adaptive_wing, heatmaps, goal), gradient(by_autograd, heatmaps, goal))
    losses: dict[str, Loss] = {"adaptive_wing": adaptive_wing, "by autograd": by_autograd, "mse": F.mse_loss}
    seconds = in_turn([partial(gradient, loss, heatmaps, goal) for loss in losses.values()], rounds)
    middle = [median(times) for times in seconds]
    table = Table(title=f"{batch} x {LANDMARKS} heatmaps of {cells} x {cells} cells, {threads} thread(s)")
    for column in ("loss and gradient", "ms", "time / adaptive_wing's"):
        table.add_column(column)
    for name, time in zip(losses, middle, strict=True):
        table.add_row(name, f"{1e3 * time:.1f}", f"{time / middle[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
