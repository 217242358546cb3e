"""The worst that a received file could do, each by name, from the command line and from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import nasface
from nasface import rundir
from nasface.errors import RunError
from nasface.rundir import RunDir
from tests.refusal import command_refuses, names, refused

pytestmark = pytest.mark.slow


def test_an_arch_json_with_os_system_runs_nothing(tmp_path: Path):
    trace = tmp_path / "trace"
    content = {"schema_version": 1, "space": "os:system", "options": {"command": f"touch {trace}"}}
    content |= {"num_landmarks": 68, "input_size": 64, "graph_digest": "x", "edges": [["a", "b"]], "provenance": {}}
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(content))
    for words in (("count", "--arch", path), ("draw", path)):
        names(command_refuses(*words), path, "os:system", "--allow-plugin")
    assert not trace.exists()


def test_a_run_called_dot_dot_slash_is_refused(tmp_path: Path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "experiment": {"runs": {"../../escaped": {}}}}))
    names(command_refuses("experiment", path, "--out", tmp_path / "a" / "b"), path, "../../escaped")
    assert [file.name for file in tmp_path.iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize("name", ["recipe.yaml", "errors.csv"])
def test_out_dot_among_ones_own_files_replaces_none(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("extends: demo\n")
    words = ("search", "--recipe", "demo", "--out", ".")
    names(command_refuses(*words), name, "--out")
    assert (tmp_path / name).read_text() == "extends: demo\n"


@pytest.mark.usefixtures("cached")
def test_weights_that_are_not_numbers_are_not_evaluated(run: RunDir, tmp_path: Path):
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    tensors, meta = rundir.read_tensors(copy.slim)
    name = next(name for name in tensors if name.endswith("running_mean"))
    tensors[name][0] = float("nan")
    rundir.write_tensors(copy.slim, tensors, meta)
    names(command_refuses("evaluate", copy.path), copy.slim, name, "not finite")


@pytest.mark.parametrize(
    ("kind", "change", "fact"),
    [
        ("weight", lambda value: value * float("nan"), "not finite"),
        ("weight", lambda value: value + float("inf"), "not finite"),
        ("weight", lambda value: value.double() + 1e300, "not finite"),  # as float32
        ("alpha", lambda value: value - float("inf"), "not finite"),
        ("running_var", lambda value: value * 0 - 1e-3, "negative variance"),
        ("weight", lambda value: value.int(), "torch.int32"),
        ("weight", lambda value: value.bool(), "torch.bool"),
        ("bias", lambda value: value.to(torch.complex64), "torch.complex64"),
        ("weight", lambda value: value.to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        ("num_batches_tracked", lambda value: value.float(), "torch.float32"),
        ("num_batches_tracked", lambda value: value.bool(), "torch.bool"),
    ],
)
@pytest.mark.parametrize("network", ["slim", "supernet"])
def test_weights_that_no_network_can_have_are_refused(run: RunDir, tmp_path: Path, network, kind, change, fact):
    tensors, meta = rundir.read_tensors(run.path / f"{network}.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith(kind))
    path = tmp_path / "received.safetensors"
    rundir.write_tensors(path, {**tensors, name: change(tensors[name])}, meta)
    with refused(RunError, path, name, fact):
        nasface.load(path)


def test_weights_in_other_floating_point_types_are_loaded(run: RunDir, tmp_path: Path):
    tensors, meta = rundir.read_tensors(run.slim)
    path = tmp_path / "half.safetensors"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        other = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        rundir.write_tensors(path, other, meta)
        assert nasface.load(path).module.alpha.dtype == torch.float32


def test_weights_inherited_from_a_damaged_supernet_are_refused(run: RunDir, tmp_path: Path):
    tensors, meta = rundir.read_tensors(run.supernet)
    tensors["alpha"][0] = float("nan")
    path = tmp_path / "supernet.safetensors"
    rundir.write_tensors(path, tensors, meta)
    names(command_refuses("evaluate", "--arch", run.arch, "--weights", path), path, "alpha", "not finite")
