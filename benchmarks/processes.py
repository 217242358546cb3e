"""Measure the steps of one training in one process and in several, with one thread each, in interleaved rounds.

Run `python benchmarks/processes.py`. It makes up its faces, so no dataset is needed. Beside the time by the clock,
which shows a gain only where each process has a core of its own, it prints the CPU time of all processes together: by
how much that exceeds the CPU time of one process is what the division of the work costs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from memory import LANDMARKS, SMALL, brought, made_up

from nasface import ranks
from nasface import recipe as recipes
from nasface.data.augment import Augmentation
from nasface.engine import Settings, fit
from nasface.model.build import build_net
from nasface.step import Optimizer, Phase
from nasface.task import HeatmapTask


def train(rank: int, count: int, port: int, size: int, batch: int, steps: int, results: Any) -> None:
    """Be one of several processes: report the seconds per step by the clock, and those of CPU time of all processes."""
    torch.set_num_threads(1)
    common = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in common.items()})
    with ranks.joined("cpu"), tempfile.TemporaryDirectory() as folder:
        faces = brought(made_up(Path(folder), steps * batch, size, sparse=False), "mapped")
        net = build_net(recipes.load("300w-mini", [*SMALL, f"data.input_size={size}"]), LANDMARKS, torch.device("cpu"))
        phase = Phase("weights", tuple(net.parameters()), Optimizer(), HeatmapTask(size).step)
        how = Settings(1, batch, Augmentation())
        fit(net, [replace(phase, share=2 / steps)], faces, how)  # warms up
        ranks.wait()
        start = time.perf_counter(), time.process_time()
        fit(net, [phase], faces, how)
        used = torch.tensor(time.process_time() - start[1], dtype=torch.float64)
        found = ((time.perf_counter() - start[0]) / steps, float(ranks.summed(used)) / steps)
        if ranks.leads():
            results.put(found)


def measured(count: int, size: int, batch: int, steps: int) -> tuple[float, float]:
    """Return the seconds per step, by the clock and in CPU time, of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["processes"])
    results = context.Queue()
    given = (port, size, batch, steps, results)
    processes = [context.Process(target=train, args=(rank, count, *given)) for rank in range(count)]
    for process in processes:
        process.start()
    found: tuple[float, float] = results.get(timeout=600)
    for process in processes:
        process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in given.processes}
    for _ in range(given.rounds):
        for count in given.processes:
            found[count].append(measured(count, given.input_size, given.batch, given.steps))
    for count, values in found.items():
        clock, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        rate = given.batch / clock
        print(
            f"{count} process(es): {rate:.1f} faces/s, {clock:.3f} s a step, {cpu:.3f} s of CPU time of all processes"
        )


if __name__ == "__main__":
    main()
