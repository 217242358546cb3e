"""The command `nasface`: it parses, calls one stage and prints; it decides nothing."""

from nasface.cli import (
    data,
    distil,
    draw,
    evaluation,
    experiment,
    jobs,
    predict,
    report,
    select,
    sweep,
)  # each adds its commands to the group
from nasface.cli.group import main

__all__ = ["data", "distil", "draw", "evaluation", "experiment", "jobs", "main", "predict", "report", "select", "sweep"]
