"""Several processes train as one: the same weights, factors and figures, whoever dies and however many there are."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from nasface import joint, ranks
from nasface.arch import Factors
from nasface.errors import RecipeError, RunError
from nasface.model.source import read_arch
from nasface.ranks import Share
from nasface.rundir import RunDir
from nasface.stages.search.run import search
from tests import together
from tests.refusal import refused
from tests.searched import MACHINE, SETTINGS, caching_in, recipe, stopping_after
from tests.tiny import faces

ONE_MINUTE = 60


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 6, 20])
def test_shares_are_disjoint_and_complete(count, total):
    shares = [Share(rank, count).of(total) for rank in range(count)]
    assert [i for share in shares for i in range(total)[share]] == list(range(total))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == max(sizes)  # the leader always has some


def test_the_shares_of_a_batch_are_the_batch_of_one_process():
    how = together.HOW
    wholes = list(faces(10).augmented(5, how, torch.Generator().manual_seed(1)))
    shares = [list(faces(10).augmented(5, how, torch.Generator().manual_seed(1), own=Share(i, 3))) for i in range(3)]
    for whole, *parts in zip(wholes, *shares, strict=True):
        assert torch.equal(torch.cat([part.images_B3HW for part in parts]), whole.images_B3HW)
        assert torch.equal(torch.cat([part.landmarks_BL2 for part in parts]), whole.landmarks_BL2)
        assert [(part.first, part.whole) for part in parts] == [(0, 5), (2, 5), (4, 5)]
        assert [part.weight for part in parts] == [0.4, 0.4, 0.2]
        assert whole.weight == 1
    with refused(RecipeError, "2 faces", "3 processes", "training.batch"):
        next(faces(10).augmented(2, how, torch.Generator(), own=Share(0, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joint_batch_norm_of_one_process_is_that_of_torch(dtype):
    """With its gradients and running statistics; `test_several_train_as_one` has more processes."""
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(4, 5, 6, 6)).to(dtype)
    goal = torch.randn(4, 5, 6, 6)
    results = []
    for norm in (joint._batch_norm, F.batch_norm):
        inputs = x.clone().requires_grad_()
        weight, bias = (torch.linspace(0.5, 1.5, 5).requires_grad_() for _ in range(2))
        mean, var = torch.zeros(5), torch.ones(5)
        out = norm(inputs, mean, var, weight, bias, True, 0.3, 1e-5)
        assert out.dtype == dtype
        (out.float() * goal).sum().backward()
        results.append([out, inputs.grad, weight.grad, bias.grad, mean, var])
    tolerance = 1e-4 if dtype is torch.float32 else 3e-2
    for mine, torchs in zip(*results, strict=True):
        assert torch.allclose(mine.float(), torchs.float(), rtol=tolerance, atol=tolerance)


def test_every_batch_norm_within_the_block_is_a_joint_one(monkeypatch):
    calls = []
    real = joint._batch_norm
    monkeypatch.setattr(joint, "_batch_norm", lambda **given: calls.append(1) or real(**given))
    x, norm = torch.randn(2, 3, 4, 4), torch.nn.BatchNorm2d(3)
    with joint._JointStatistics():
        norm(x)
        norm.eval()(x)  # uses the running statistics
    norm.train()(x)
    assert len(calls) == 1


def test_without_torchrun_nothing_is_joined(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # of some other program
    monkeypatch.delenv("RANK", raising=False)
    with ranks.joined("auto") as device:
        assert device == "auto"
        assert ranks.own() == ranks.ALL
        assert ranks.leads()
    value = torch.ones(2)
    assert ranks.summed(value) is value
    assert ranks.gathered(value) == [value]
    assert ranks.agreed([0.1]) == [0.1]


def test_a_device_that_cannot_be_shared_is_refused(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for device in ("cuda:1", "mps"):
        with refused(RunError, device), ranks.joined(device):
            pass
    with refused(RunError, "2 processes", "devices", "--nproc-per-node"), ranks.joined("cuda"):
        pass
    assert ranks.own() == ranks.ALL


def ended(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Wait for processes and return their exit codes; those that do not end in time are killed."""
    deadline = time.time() + 300
    for process in processes:
        process.join(timeout=max(deadline - time.time(), 0))
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.slow
def test_several_train_as_one(tmp_path: Path):
    """Weights, statistics, logged values and predictions are those of one process with the whole batch."""
    running = together.start(4, "trainings", tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    together.trainings(alone)
    assert ended(running) == [0] * 4, together.said(tmp_path, 0)
    for name in together.TRAININGS:
        mine, one = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, alone))
        assert mine.keys() == one.keys()
        for key, value in one.items():
            assert torch.allclose(mine[key].double(), value.double(), rtol=1e-4, atol=1e-5), (name, key)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(tmp_path: Path):
    assert ended(together.start(2, "dying", tmp_path)) == [2, -signal.SIGKILL]
    assert "connection to another process of this run is lost" in together.said(tmp_path, 0)
    assert time.time() - float((tmp_path / "died").read_text()) < ONE_MINUTE


@pytest.fixture(scope="module")
def alone(run: RunDir, folder: Path) -> RunDir:
    """A search by one process."""
    done = RunDir(folder / "alone")
    with caching_in(folder):
        search(recipe(*together.STEADY), done, MACHINE)
    return done


def figures(run: RunDir) -> dict[str, float]:
    """Factors and NMEs of a run by name, without those of the slim network, whose training magnifies rounding."""
    factors = Factors.from_json(run.factors.read_text())
    found = {f"{kind} {edge}": v for kind in ("alpha", "importance") for edge, v in getattr(factors, kind).items()}
    for name, network in json.loads(run.metrics.read_text())["networks"].items():
        if name == "slim":
            continue
        found[f"{name} held out"] = network["held_out_nme"]
        found |= {f"{name} {n} {s}": x["nme"] for n, of in network["subsets"].items() for s, x in of.items()}
    return found


@pytest.mark.slow
def test_a_failure_in_one_process_ends_the_run_and_one_process_goes_on(alone: RunDir, cached: None, folder: Path):
    assert ended(together.start(2, "failing", folder)) == [2, 2]
    assert time.time() - float((folder / "died").read_text()) < ONE_MINUTE
    assert "the disk of process 1 is full" in together.said(folder, 1)
    assert "connection" in together.said(folder, 0)
    out = RunDir(folder / "new")
    search(recipe(*together.STEADY), out, MACHINE)
    assert "resumed after epoch 1" in out.log.read_text()
    assert read_arch(out.arch).kept == read_arch(alone.arch).kept
    assert figures(out) == pytest.approx(figures(alone), rel=1e-3)


@pytest.mark.slow
def test_two_processes_go_on_where_one_has_stopped(alone: RunDir, cached: None, tmp_path: Path):
    out = RunDir(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        search(recipe(*together.STEADY), out, stopping_after(1))
    settings = [word for text in (*SETTINGS, *together.STEADY) for word in ("--set", text)]
    words = ["nasface", "search", "--recipe", "demo", *settings, "--device", "cpu", "--out", str(out.path)]
    done = together.torchrun(2, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seed 0") == 1  # one table
    assert "resumed after epoch 1" in out.log.read_text()
    assert json.loads(out.metrics.read_text())["processes"] == 2
    assert read_arch(out.arch).kept == read_arch(alone.arch).kept
    assert figures(out) == pytest.approx(figures(alone), rel=1e-3)
    rows = [pd.read_csv(folder.metrics_csv).drop(columns="seconds") for folder in (out, alone)]
    pd.testing.assert_frame_equal(*(table[table.stage == "search"] for table in rows), rtol=1e-3)


@pytest.mark.slow
def test_two_processes_distil_as_one(run: RunDir, cached: None, folder: Path):
    running = together.start(2, "distilling", folder)
    together.distilling(folder)
    assert ended(running) == [0] * 2, together.said(folder, 0)
    two, one = (json.loads((folder / f"distilled-by-{n}" / "metrics.json").read_text()) for n in (2, 1))
    for name in ("student 1", "student 2", "teacher"):
        mine, other = two["networks"][name], one["networks"][name]
        assert mine["held_out_nme"] == pytest.approx(other["held_out_nme"], rel=1e-3)
        assert mine["macs"] == other["macs"]
    assert two["compute"] == one["compute"]
