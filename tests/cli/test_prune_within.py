"""`nasface prune` with budgets for the whole network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nasface.cli import main
from nasface.model.source import read_arch
from nasface.rundir import RunDir
from tests.refusal import command_refuses, names

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]


def prune(run: RunDir, out: Path, *args: object) -> dict[str, int]:
    command = ["prune", str(run.path), "--out", str(out), "--json", *map(str, args)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_budget_of_the_whole_network_is_met(run, tmp_path, kind):
    full = prune(run, tmp_path / "whole", "--threshold", 0)[kind]
    limit = round(0.8 * full)
    found = prune(run, tmp_path / "out", f"--{kind}", limit, "--set", "prune.options.tolerance=0.1")
    assert 0.9 * limit <= found[kind] <= limit
    assert read_arch(tmp_path / "out" / "arch.json").provenance["pruner"] == "budget"
    exact = prune(run, tmp_path / "exact", f"--{kind}", limit, "--pruner", "exact")
    assert exact[kind] <= limit


def test_a_budget_that_is_too_small_is_refused_in_one_sentence(run, tmp_path):
    said = command_refuses("prune", run.path, "--macs", "10k", "--out", tmp_path / "out")
    names(said, "10,000", "MACs", "tolerance")
    said = command_refuses("prune", run.path, "--macs", "10k", "--share", 0.5, "--out", tmp_path / "out")
    names(said, "--macs", "--share")


def test_a_network_is_chosen_by_its_latency(run, tmp_path):
    whole = prune(run, tmp_path / "whole", "--latency", 60_000)
    assert whole["edges"] == whole["edges_full"]
    assert 0 < whole["latency_ms"] <= 60_000
    assert whole["latency_runtime"] == "torch"
    found = read_arch(tmp_path / "whole" / "arch.json").provenance
    assert found["pruner"] == "budget"
    assert found["pruner_options"]["latency_ms"] == 60_000


def test_a_latency_that_cannot_be_met_is_refused_in_one_sentence(run, tmp_path):
    out = ("--out", tmp_path / "out")
    names(command_refuses("prune", run.path, "--latency", 1e-6, *out), "1e-06 ms", "torch")
    names(command_refuses("prune", run.path, "--latency", 5, "--macs", "1M", *out), "--latency", "--macs")
    names(command_refuses("prune", run.path, "--latency-runtime", "torch", *out), "--latency")
    names(command_refuses("prune", run.path, "--latency", 5, "--latency-runtime", "tarch", *out), "tarch", "torch")
    names(command_refuses("prune", run.path, "--latency", 5, "--pruner", "greedy", *out), "greedy", "latency_ms")
    assert not (tmp_path / "out").exists()
