"""The stages of an experiment, each a short composition: they read files of a run folder and write files of it."""

from nasface.stages.candidates import Wanted
from nasface.stages.distilling import distill
from nasface.stages.evaluating import Comparison, Subject, compare, evaluate, judge
from nasface.stages.evaluation import Evaluation, Faces, evaluate_net, load_faces, load_prepared
from nasface.stages.experiments import at_equal_macs, read_experiment, run_experiment, summary
from nasface.stages.jobs import prune, search, train
from nasface.stages.networks import build_net, load_net
from nasface.stages.sources import Networks, Source, cost_report, count, read_source, required, run_networks
from nasface.stages.sweeping import Measure, sweep
from nasface.stages.work import Machine

__all__ = [
    "Comparison",
    "Evaluation",
    "Faces",
    "Machine",
    "Measure",
    "Networks",
    "Source",
    "Subject",
    "Wanted",
    "at_equal_macs",
    "build_net",
    "compare",
    "cost_report",
    "count",
    "distill",
    "evaluate",
    "evaluate_net",
    "judge",
    "load_faces",
    "load_net",
    "load_prepared",
    "prune",
    "read_experiment",
    "read_source",
    "required",
    "run_experiment",
    "run_networks",
    "search",
    "summary",
    "sweep",
    "train",
]
