"""Measure what faces cost in memory and time: crops in the memory-mapped cache, staged, and copied as a whole.

Run `python benchmarks/memory.py`. It makes up its faces, so no dataset is needed. The first part trains on a cache of
100,000 faces whose file is sparse: it takes no space on the disk, but reading it moves as many bytes as real faces. The
peak of the process's resident memory is read from the system (Linux). The second part times epochs on a small set in
interleaved rounds: once copied into a tensor of its own, as all faces were before, once in the memory map, once staged.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasface import recipe as recipes
from nasface.data.augment import Augmentation, DeviceFaces, on_device
from nasface.data.base import Scheme
from nasface.data.crop import PrepareOptions
from nasface.data.prepare import PreparedFaces
from nasface.engine import Settings, fit
from nasface.model.build import build_net
from nasface.step import Optimizer, Phase
from nasface.task import HeatmapTask

LANDMARKS = 68
SMALL = ("space.options.width=8", "space.options.stages=4", "space.options.resolutions=3")
KINDS = ("copied", "mapped", "staged")


def made_up(folder: Path, count: int, input_size: int, sparse: bool) -> PreparedFaces:
    """Return faces whose crops lie in a memory-mapped file: noise, or nothing at all in a sparse file."""
    size = PrepareOptions(input_size).stored_size
    path, shape = folder / f"{count}-images.npy", (count, size, size, 3)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if sparse:
            file.truncate(file.tell() + int(np.prod(shape)))
        else:
            file.write(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8).data)
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    points = np.random.default_rng(1).uniform(0.3 * size, 0.7 * size, (count, LANDMARKS, 2)).astype(np.float32)
    flip = tuple(range(LANDMARKS))
    scheme = Scheme(LANDMARKS, flip, ((36,), (45,)), ((36, 39), (42, 45)))
    return PreparedFaces(
        "train", images, points, tuple(map(str, range(count))), ((),) * count, np.zeros((count, 2, 3)), scheme,
        input_size, {}, (), "made up",
    )  # fmt: skip


def brought(faces: PreparedFaces, kind: str) -> DeviceFaces:
    """Return faces as they are kept now, or copied into a tensor of their own."""
    if kind == "copied":
        images = torch.tensor(np.array(faces.images_NHWC))
        return DeviceFaces(images, torch.tensor(faces.landmarks_NL2), faces.input_size, faces.scheme)
    return on_device(faces, torch.device("cpu"), staged=kind == "staged")


def resident(what: str) -> int:
    """Return a figure of this process's memory in bytes: VmRSS now, VmHWM at its peak, RssAnon without files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:"))


def training(faces: DeviceFaces, steps: int, batch: int) -> Callable[[], object]:
    """Return a training of so many steps of a small network, which is built now."""
    recipe = recipes.load("300w-mini", [*SMALL, f"data.input_size={faces.input_size}"])
    net = build_net(recipe, LANDMARKS, torch.device("cpu"))
    task = HeatmapTask(faces.input_size)
    phase = Phase("weights", tuple(net.parameters()), Optimizer(), task.step, share=steps * batch / len(faces))
    return partial(fit, net, [phase], faces, Settings(1, batch, Augmentation()))


def measured(kind: str, count: int, input_size: int, steps: int, batch: int, read: int) -> dict[str, Any]:
    """Train on many faces, run through some more, and return the memory that this took beyond the network."""
    with tempfile.TemporaryDirectory() as folder:
        training(brought(made_up(Path(folder), 2 * batch, input_size, True), "mapped"), 2, batch)()
        before = resident("VmRSS"), resident("VmHWM")
        start = time.perf_counter()
        many = brought(made_up(Path(folder), count, input_size, True), kind)
        training(many, steps, batch)()
        seconds = time.perf_counter() - start
        for _ in many.plain(batch, range(min(read, count))):
            pass
        used = Path(folder, f"{count}-images.npy").stat()
    return {
        "kind": kind, "faces": count, "input_size": input_size, "steps": steps, "batch": batch,
        "read_gib": min(read, count) / count * used.st_size / 2**30, "file_gib": used.st_size / 2**30,
        "grown_mib": (resident("VmHWM") - before[0]) / 2**20, "peak_mib": resident("VmHWM") / 2**20,
        "peak_before_mib": before[1] / 2**20, "seconds": seconds,
    }  # fmt: skip


def in_a_process_of_its_own(**what: Any) -> dict[str, Any]:
    """Measure in a fresh process, since the peak of a process never falls."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in what.items()]
    out = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(out)
    return result


def timed(count: int, input_size: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Time epochs on a small set in interleaved rounds, by the clock and in CPU time of all threads.

    Ratios are to faces that are copied: the median over the rounds of the ratio within a round.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces = made_up(Path(folder), count, input_size, sparse=False)
        sides: dict[str, Callable[[], object]] = {}
        for kind in KINDS:
            held = brought(faces, kind)
            sides[f"inputs, {kind}"] = partial(_inputs, held, batch)
            sides[f"training, {kind}"] = training(held, count // batch, batch)
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for number in range(rounds + 1):  # the first round warms up
            for name, side in list(sides.items())[:: 1 if number % 2 else -1]:
                start = time.perf_counter(), time.process_time()
                side()
                if number:
                    seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    rows = []
    for name, values in seconds.items():
        first = seconds[f"{name.split(',')[0]}, {KINDS[0]}"]
        row: dict[str, Any] = {"side": name}
        for i, clock in enumerate(("seconds", "cpu_seconds")):
            row[clock] = statistics.median(value[i] for value in values)
            row[f"{clock}_ratio"] = statistics.median(v[i] / other[i] for v, other in zip(values, first, strict=True))
        rows.append(row)
    return rows


def _inputs(faces: DeviceFaces, batch: int) -> None:
    for _ in faces.augmented(batch, Augmentation(), torch.Generator().manual_seed(0)):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--read", type=int, default=5000, help="faces to run through after the training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, help="measure one kind in this process, and print JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.kind:
        print(json.dumps(measured(given.kind, given.faces, given.input_size, given.steps, given.batch, given.read)))
        return
    print(f"torch {torch.__version__}, {given.threads} threads, {platform.processor() or platform.machine()}")
    same = {"input_size": given.input_size, "batch": given.batch, "threads": given.threads, "read": given.read}
    jobs = [("staged", given.faces), ("mapped", given.faces), ("mapped", 1000), ("copied", 1000)]
    for kind, count in jobs:
        found = in_a_process_of_its_own(kind=kind, faces=count, steps=min(given.steps, count // given.batch), **same)
        print(
            f"{kind:7} {count:7,} faces at {given.input_size} px, a file of {found['file_gib']:.1f} GiB: "
            f"{found['steps']} steps in {found['seconds']:.0f} s, then {found['read_gib']:.1f} GiB read; peak "
            f"{found['peak_mib']:,.0f} MiB, {found['grown_mib']:,.0f} MiB above the process with its network"
        )
    for row in timed(512, 64, given.batch, given.rounds):
        print(
            f"{row['side']:18} {row['seconds']:.3f} s an epoch, {row['seconds_ratio']:.3f} times as long as copied; "
            f"{row['cpu_seconds']:.3f} s of CPU time, {row['cpu_seconds_ratio']:.3f} times as long"
        )


if __name__ == "__main__":
    main()
