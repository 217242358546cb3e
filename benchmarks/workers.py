"""Measure how many parts of an experiment one `nasface worker` finishes in a minute, and how many several do together.

Run `python benchmarks/workers.py`. The parts are short searches on synthetic faces, so no dataset is needed. Every
worker is a process with one thread, and all of them take parts from one study in a journal. The numbers of workers take
turns, with an experiment of its own each time. The time is that from the begin of the first part to the end of the
last one, by the study: it leaves out how long Python and torch take to start, but not what the workers wait for.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import optuna
import torch
import yaml

from nasface import recipe as recipes
from nasface.cli import main as nasface
from nasface.rundir import RunDir
from nasface.stages.experiment import shared  # noqa: F401 (what is imported here, the processes need not load)
from nasface.stages.studies.storage import opened

SMALL = (
    "training.batch=16", "training.threads=1", "search.options.warmup_epochs=0", "finetune.epochs=0",
    "data.options.train=96", "data.options.test=8", "data.options.size=96", "data.input_size=64",
    "space.options.width=8", "space.options.stages=4", "space.options.resolutions=3", "space.options.stem_channels=16",
)  # fmt: skip
WORKERS = (1, 2)


def work(words: Sequence[str], cache: str) -> None:
    """Be a command of nasface with one thread."""
    os.environ["NASFACE_CACHE"] = cache
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        nasface(words)


def planned(folder: Path, parts: int, epochs: int) -> list[str]:
    """Write an experiment whose parts are searches with seeds of their own, and return its words for the command."""
    content: dict[str, object] = {"extends": "demo", "description": "the throughput of workers"}
    recipes.override(content, (*SMALL, f"search.epochs={epochs}"))
    path = folder / f"{parts}-parts.yaml"
    path.write_text(yaml.safe_dump({**content, "experiment": {"runs": {"small": {}}, "seeds": list(range(parts))}}))
    return ["experiment", str(path), "--quiet"]


def rate(folder: Path, count: int, parts: int, epochs: int) -> float:
    """Return the parts per minute that so many workers finish of a new experiment; the faces are kept beside it."""
    folder.mkdir()
    nasface([*planned(folder, parts, epochs), "--out", str(folder / "out"), "--enqueue-only"], standalone_mode=False)
    journal = str(RunDir(folder / "out").study)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers"])
    words = ["worker", "--study", journal, "--device", "cpu", "--workers", "1", "--quiet"]
    team = [context.Process(target=work, args=(words, str(folder.parent / "cache"))) for _ in range(count)]
    for worker in team:
        worker.start()
    for worker in team:
        worker.join()
    with opened(journal) as storage:
        trials = optuna.load_study(study_name="out", storage=storage).get_trials(
            states=[optuna.trial.TrialState.COMPLETE]
        )
    if len(trials) != parts:
        raise SystemExit(f"the workers have finished {len(trials)} of {parts} parts; see {folder / 'out'}")
    begun, ended = [t.datetime_start for t in trials], [t.datetime_complete for t in trials]
    return 60 * parts / (max(filter(None, ended)) - min(filter(None, begun))).total_seconds()


def measured(counts: Sequence[int], parts: int, epochs: int, rounds: int) -> dict[int, list[float]]:
    """Return the parts per minute of each number of workers in each round."""
    rates: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        rate(Path(folder, "first"), 1, 1, 0)  # prepares the faces
        for number in range(rounds):
            for count in counts:
                rates[count].append(rate(Path(folder, f"{number}-{count}"), count, parts, epochs))
    return rates


def show(rates: dict[int, list[float]]) -> None:
    first = next(iter(rates))
    for count, found in rates.items():
        ratio = statistics.median(many / one for many, one in zip(found, rates[first], strict=True))
        print(
            f"{count} worker(s): {statistics.median(found):.2f} parts a minute ({min(found):.2f} to {max(found):.2f}), "
            f"{ratio:.2f} times those of {first}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--parts", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    show(measured(given.workers, given.parts, given.epochs, given.rounds))


if __name__ == "__main__":
    main()
