"""The command `nasface`: it parses, calls one stage and prints; it decides nothing."""

from nasface.cli import data, evaluation, jobs  # each adds its commands to the group
from nasface.cli.group import main

__all__ = ["data", "evaluation", "jobs", "main"]
