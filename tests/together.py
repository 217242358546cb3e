"""Trainings in several processes: what each of them does, and how tests start them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nasface import engine, ranks
from nasface.data.augment import Augmentation
from nasface.distill import Distillation, Students, distill_step
from nasface.engine import Settings
from nasface.errors import NasfaceError, RunError
from nasface.model.source import read_arch
from nasface.net import GraphNet, frozen_statistics
from nasface.rundir import RunDir
from nasface.stages.distill.run import distill
from nasface.stages.search.run import search
from nasface.step import Batch, Optimizer, Phase, Row
from nasface.task import HeatmapTask
from nasface.testing import scramble
from tests.searched import MACHINE, recipe
from tests.tiny import faces, step, supernet

ROOT = Path(__file__).parents[1]
HOW = Augmentation(colour=0.2, occlusion=0.5, shift=0.1)
SETTINGS = Settings(epochs=2, batch=6, augmentation=HOW, seed=3, clip=1.0)  # 6 faces are divided unevenly among 4
SGD = Optimizer("sgd", lr=1e-2)


# With Adam, a gradient that is zero but for rounding moves a weight as far as any other. Large steps and the maximum of
# a map that has learnt nothing yet are as sensitive. All would hide whether trainings are the same.
SGD_OF = tuple(f"{section}.optimizer.name=sgd" for section in ("search", "finetune", "distill"))
STEADY = ("task.decoder=soft", "task.weight=1", "distill.epochs=1", *SGD_OF)


def small(seed: int = 0) -> GraphNet:
    torch.manual_seed(seed)
    return GraphNet(supernet(width=2, stages=3, resolutions=2, stem_channels=4), 4)


def in_phases() -> tuple[nn.Module, list[Phase]]:
    """Factors and weights in turn."""
    net = small()
    weights = tuple(p for name, p in net.named_parameters() if name != "alpha")
    return net, [Phase("alpha", (net.alpha,), SGD, step, share=0.6), Phase("weights", weights, SGD, step)]


def in_parts() -> tuple[nn.Module, list[Phase]]:
    """The whole network and, in the same step, a sub-network without some edges, whose parameters get no gradient."""
    net = small()

    def both(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        whole = step(model, batch)["loss"]
        edge = net.graph.prunable[int(np.random.default_rng(batch.seed).integers(len(net.graph.prunable)))]
        graph = net.graph.without(edge)
        assert graph is not None
        with frozen_statistics(net):
            part = step(lambda images: model(images, graph=graph), batch)["loss"]  # type: ignore[arg-type]
        return {"loss": part, "whole": whole}

    return net, [Phase("parts", tuple(net.parameters()), SGD, both)]


def in_peers() -> tuple[nn.Module, list[Phase]]:
    """Two masked students with a teacher, whose weight follows from gradients over the whole batch."""
    how = Distillation(teacher_share=0.5)
    teacher = small(1).eval().requires_grad_(False)
    scramble(teacher)
    students = Students(small(), how, 0)
    taught = distill_step(how, HeatmapTask(32, weight=10.0), lambda images, size: teacher(images))
    return students, [Phase("students", tuple(students.parameters()), SGD, taught)]


TRAININGS: dict[str, Callable[[], tuple[nn.Module, list[Phase]]]] = {
    "phases": in_phases,
    "parts": in_parts,
    "peers": in_peers,
}


def trainings(folder: Path) -> None:
    """Train, recalibrate, measure, and keep what has come out of it."""
    for name, make in TRAININGS.items():
        net, phases = make()
        rows = engine.fit(net, phases, faces(20), SETTINGS)
        one = net.peers[1] if isinstance(net, Students) else net
        engine.recalibrate(one, faces(20), replace(SETTINGS, seed=5))
        found = {f"net.{key}": value.contiguous() for key, value in net.state_dict().items()}
        found["points"] = torch.from_numpy(engine.predict_landmarks(one, faces(3, seed=1), decoder="soft"))
        kinds = ("seconds", "stage", "phase")
        found["rows"] = torch.tensor([[float(v) for k, v in row.items() if k not in kinds] for row in rows])
        if ranks.leads():
            save_file(found, folder / f"{name}.safetensors")


def dying(folder: Path) -> None:
    """Process 1 is killed in the second step."""

    def step_of_death(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if ranks.own().rank == 1 and batch.progress > 0:
            (folder / "died").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return step(model, batch)

    net = small()
    engine.fit(net, [Phase("weights", tuple(net.parameters()), SGD, step_of_death)], faces(20), SETTINGS)


def failing(folder: Path) -> None:
    """Process 1 of a search fails after the first epoch, with a message."""

    def epoch(rows: list[Row]) -> None:
        if ranks.own().rank == 1:
            (folder / "died").write_text(str(time.time()))
            raise RunError("the disk of process 1 is full")

    search(recipe(*STEADY), RunDir(folder / "new"), replace(MACHINE, progress=replace(MACHINE.progress, epoch=epoch)))


def distilling(folder: Path) -> None:
    """Distil the network in a folder, in which the run of its supernet is."""
    run, out = RunDir(folder / "run"), RunDir(folder / f"distilled-by-{ranks.own().count}")
    distill(recipe(*STEADY), out, MACHINE, read_arch(run.arch), run.supernet, None, str(run.path))


WORK = {"trainings": trainings, "dying": dying, "failing": failing, "distilling": distilling}


def start(count: int, work: str, folder: Path) -> list[BaseProcess]:
    """Start processes as torchrun would, but without what it does when one of them dies.

    They are forked by a server that has loaded everything, since that takes longer than the work.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.together"])
    processes = [context.Process(target=_process, args=(rank, count, port, work, folder)) for rank in range(count)]
    for process in processes:
        process.start()
    return list(processes)


def said(folder: Path, rank: int) -> str:
    """What a process of `start` said was wrong; empty when nothing was."""
    file = folder / f"process-{rank}.txt"
    return file.read_text() if file.exists() else ""


def _process(rank: int, count: int, port: int, work: str, folder: Path) -> None:
    torch.set_num_threads(1)
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update({**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "NASFACE_CACHE": str(folder / "cache")})
    try:
        with ranks.joined("cpu"):
            WORK[work](folder)
    except NasfaceError as err:
        (folder / f"process-{rank}.txt").write_text(str(err))
        sys.exit(2)


def torchrun(count: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module under torchrun, on the loopback address: a machine's own name need not lead anywhere."""
    local = ("--standalone", "--local-addr", "127.0.0.1")
    words = ["-m", "torch.distributed.run", *local, "--nproc-per-node", str(count), "-m", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    given = [sys.executable, *words]
    return subprocess.run(given, cwd=ROOT, text=True, capture_output=True, env=environment, timeout=300, check=False)
