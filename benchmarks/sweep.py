"""Measure which share of the time of a sweep is spent in forward passes of the slim networks.

Run `python benchmarks/sweep.py`. It sweeps 20 thresholds of a supernet with random factors on synthetic faces, and
evaluates every network as inherited and after BN recalibration. The preparation of the faces, which is done once for
all commands, is not included. Loading, counting, building, inheriting, augmenting, decoding, timing and writing are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nasface import recipe as recipes
from nasface import rundir
from nasface.arch import Factors
from nasface.model.build import build_net
from nasface.model.files import save_net
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.faces import load_prepared
from nasface.stages.sweep.candidates import SweepRequest
from nasface.stages.sweep.run import Measure, sweep
from nasface.stages.workspace import Machine


@dataclass
class Clock:
    """Seconds in forward passes of slim networks and of the supernet, and the number of passes of slim networks."""

    slim: float = 0.0
    supernet: float = 0.0
    passes: int = 0
    networks: set[str] = field(default_factory=set)


@contextmanager
def timed_passes() -> Iterator[Clock]:
    """Time every forward pass of a GraphNet while the block runs."""
    clock, forward = Clock(), GraphNet.forward

    def timed(self: GraphNet, images_B3HW: Tensor) -> Tensor:
        start = time.perf_counter()
        found = forward(self, images_B3HW)
        if images_B3HW.device.type != "cpu":
            torch.accelerator.synchronize(images_B3HW.device)
        seconds = time.perf_counter() - start
        if self.graph == self.space.graph:
            clock.supernet += seconds
        else:
            clock.slim += seconds
            clock.passes += 1
            clock.networks.add(self.graph.digest)
        return found

    GraphNet.forward = timed  # type: ignore[method-assign]
    try:
        yield clock
    finally:
        GraphNet.forward = forward  # type: ignore[method-assign]


def untrained_run(folder: Path, recipe: Recipe, num_landmarks: int) -> RunDir:
    """Write the files of a search, with random factors."""
    run = RunDir(folder / "run")
    net = build_net(recipe, num_landmarks, torch.device("cpu"))
    random = np.random.default_rng(0).random(len(net.graph.prunable)).tolist()
    values = dict(zip(net.graph.prunable, random, strict=True))
    options = recipe.space.options
    factors = Factors(recipe.space.name, options, num_landmarks, net.graph.digest, values, values, {})
    save_net(run.supernet, net, recipe)
    rundir.write_text(run.factors, factors.to_json())
    rundir.write_text(run.recipe, recipe.to_yaml())
    return run


def profile(recipe: Recipe, count: int, machine: Machine) -> dict[str, float]:
    """Sweep `count` thresholds, and return the seconds spent on each part."""
    prepared = load_prepared(recipe, machine)
    with tempfile.TemporaryDirectory() as folder:
        run = untrained_run(Path(folder), recipe, prepared["train"].scheme.num_landmarks)
        with timed_passes() as clock:
            start = time.perf_counter()
            found = sweep(recipe, run, RunDir(run.path / "sweep"), SweepRequest(count=count), Measure(), machine)
            total = time.perf_counter() - start
    return {
        "networks": sum(row.is_slim for row in found),
        "slim networks timed": len(clock.networks),
        "seconds": round(total, 2),
        "seconds in slim networks": round(clock.slim, 2),
        "seconds in the supernet": round(clock.supernet, 2),
        "share in slim networks": round(clock.slim / total, 3),
        "share in any network": round((clock.slim + clock.supernet) / total, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", default="300w-mini", help="recipe of which the space, the sizes and the batch are used"
    )
    parser.add_argument("--count", type=int, default=20, help="number of thresholds")
    parser.add_argument("--train", type=int, default=1600, help="number of synthetic training faces")
    parser.add_argument("--test", type=int, default=400, help="number of synthetic test faces")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the choice to torch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    options = f"data.options={{train: {given.train}, test: {given.test}}}"
    settings = ("data.name=synthetic", options, f"training.threads={given.threads}", *given.overrides)
    found = profile(recipes.load(given.recipe, settings), given.count, Machine(given.device))
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
