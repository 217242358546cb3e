"""The stages of an experiment, each a short composition: they read files of a run folder and write files of it."""

from nasface.stages.evaluation import Evaluation, Faces, evaluate_net, load_faces, load_prepared
from nasface.stages.jobs import evaluate, prune, search, train
from nasface.stages.networks import build_net, load_net
from nasface.stages.sources import Networks, Source, cost_report, count, read_source, required, run_networks
from nasface.stages.work import Machine

__all__ = [
    "Evaluation",
    "Faces",
    "Machine",
    "Networks",
    "Source",
    "build_net",
    "cost_report",
    "count",
    "evaluate",
    "evaluate_net",
    "load_faces",
    "load_net",
    "load_prepared",
    "prune",
    "read_source",
    "required",
    "run_networks",
    "search",
    "train",
]
