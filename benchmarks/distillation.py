"""Compare the time of a step of triple distillation with that of its three networks alone.

Run `python benchmarks/distillation.py`. Alone, each of the two students runs forward, backward from a given gradient
and its optimizer on the whole batch, and the teacher runs forward without gradients: no masks, no targets, no losses.
The joint step is the one that `nasface distill` takes: masks, targets, the three terms of both losses, backward and
optimizer. All four are timed in turn, round by round; the figure is the median over the rounds of joint / sum of alone.

The networks are those of the recipe 300w-mini: a slim network of half the prunable MACs from random importances, taught
by its supernet. Images, landmarks and weights are random, because the time of a step does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from data_pipeline import interleaved
from rich.console import Console
from rich.table import Table

from nasface import plugins
from nasface import recipe as recipes
from nasface.cost import count_space
from nasface.data.parallel import default_workers
from nasface.device import pick_device
from nasface.distill import Students, distill_step
from nasface.model.build import build_net
from nasface.net import GraphNet, slim_net
from nasface.prune import random as random_pruner
from nasface.recipe import Recipe
from nasface.stages.distill.teacher import Teacher
from nasface.stages.training import task
from nasface.step import Batch

BOUND = 1.3
LANDMARKS = 68


def networks(recipe: Recipe, share: float, device: torch.device) -> tuple[GraphNet, GraphNet]:
    """Return a slim network and the supernet it comes from."""
    space = plugins.space(recipe.space.name, recipe.space.options)
    kept = random_pruner(space.graph, {}, count_space(space, LANDMARKS, recipe.data.input_size), share=share)
    supernet = build_net(recipe, LANDMARKS, device)
    return slim_net(supernet, kept)[0], supernet


def sides(recipe: Recipe, slim: GraphNet, supernet: GraphNet, batch: int) -> dict[str, Callable[[], object]]:
    """Return the four timed sides: each network alone, then the joint step of the same networks on the same batch."""
    device, size, how = slim.alpha.device, recipe.data.input_size, recipe.distill
    # so small a learning rate keeps the weights, so that every round times the same network
    optimizer = replace(how.optimizer, lr=1e-12)
    students = Students(slim, how, recipe.seed).train()
    teacher = Teacher("supernet", supernet.eval().requires_grad_(False), size)
    random = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=random).to(device, memory_format=torch.channels_last)
    points = torch.rand(batch, LANDMARKS, 2, generator=random).to(device) * size
    with torch.no_grad():
        shape = teacher.net(images).shape
    gradient = torch.randn(shape, generator=random).to(device) / shape.numel()
    step = distill_step(how, task(recipe), teacher)
    together = optimizer.build(tuple(students.parameters()))

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    def student(net: GraphNet) -> Callable[[], None]:
        own = optimizer.build(tuple(net.parameters()))

        def alone() -> None:
            own.zero_grad(set_to_none=True)
            torch.autograd.backward(net(images), gradient)
            own.step()
            wait()

        return alone

    def taught() -> None:
        teacher(images, tuple(shape[-2:]))
        wait()

    def joint() -> None:  # as the engine takes it
        losses = step(students, Batch(images, points))
        together.zero_grad(set_to_none=True)
        losses["loss"].backward()
        together.step()
        wait()

    alone = {f"student {i} alone": student(net) for i, net in enumerate(students.peers, start=1)}
    return {**alone, "teacher alone": taught, "joint step": joint}


def summarised(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return median, fastest and slowest round of each side and of the sum of those alone, and the ratio."""
    *alone, joint = seconds
    rounds = list(zip(*(seconds[name] for name in alone), strict=True))
    seconds = {
        **{name: seconds[name] for name in alone},
        "sum of these": [sum(r) for r in rounds],
        joint: seconds[joint],
    }
    rows = [
        {"side": name, "seconds": statistics.median(values), "fastest": min(values), "slowest": max(values)}
        for name, values in seconds.items()
    ]
    # one ratio per round, because other load on the machine affects both sides of a round alike
    ratios = [whole / parts for whole, parts in zip(seconds[joint], seconds["sum of these"], strict=True)]
    return {
        "rows": rows,
        "ratio": statistics.median(ratios),
        "bound": BOUND,
        "within": statistics.median(ratios) <= BOUND,
    }


def benchmark(recipe: Recipe, batch: int, rounds: int, threads: int, device: torch.device) -> dict[str, Any]:
    """Time the four sides, and return the result as plain values for JSON.

    Args:
        recipe: recipe of which the space, the input size and the section `distill` are used.
        batch: number of faces per step.
        rounds: number of interleaved rounds.
        threads: number of CPU threads.
        device: device on which everything runs.
    """
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    slim, supernet = networks(recipe, 0.5, device)
    costs = count_space(supernet.space, LANDMARKS, recipe.data.input_size)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "machine": f"{name}, {default_workers()} cores, load {load:.1f} at start",
        "versions": {"torch": torch.__version__},
        "device": str(device),
        "threads": threads,
        "rounds": rounds,
        "batch": batch,
        "input_size": recipe.data.input_size,
        "macs": {"student": costs.total(slim.graph).macs, "teacher": costs.total(supernet.graph).macs},
        **summarised(interleaved(sides(recipe, slim, supernet, batch), rounds)),
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the table and the notes below it."""
    table = Table(title="a distillation step compared with its networks alone", title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("ms", "fastest - slowest round, ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["rows"]:
        fastest, slowest = 1e3 * row["fastest"], 1e3 * row["slowest"]
        table.add_row(row["side"], f"{1e3 * row['seconds']:.1f}", f"{fastest:.1f} - {slowest:.1f}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    macs = ", ".join(f"{name} {value / 1e6:.0f}M MACs" for name, value in result["macs"].items())
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    for line in (
        f"joint step / sum: {result['ratio']:.3f}, {'within' if result['within'] else 'ABOVE'} the bound of "
        f"{result['bound']}.",
        f"Batch {result['batch']} at {result['input_size']} px, {macs}; median of {result['rounds']} rounds.",
        f"{result['device']}, {result['threads']} threads; {result['machine']}; {versions}.",
    ):
        console.print(line, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=default_workers())
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ... or auto")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args()
    recipe = recipes.load("300w-mini", [f"data.input_size={given.input_size}"])
    result = benchmark(recipe, given.batch, given.rounds, given.threads, pick_device(given.device))
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
