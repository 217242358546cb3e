"""The command `nasface`: it parses, calls one stage and prints; it decides nothing."""

from nasface.cli import (
    bench,
    count,
    data,
    distill,
    doctor,
    draw,
    evaluate,
    experiment,
    export,
    models,
    plugins,
    predict,
    prune,
    report,
    score,
    search,
    select,
    sweep,
    train,
    worker,
)  # each adds its commands to the group
from nasface.cli.group import main

__all__ = [
    "bench",
    "count",
    "data",
    "distill",
    "doctor",
    "draw",
    "evaluate",
    "experiment",
    "export",
    "main",
    "models",
    "plugins",
    "predict",
    "prune",
    "report",
]
__all__ += ["score", "search", "select", "sweep", "train", "worker"]
