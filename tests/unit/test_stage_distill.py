"""Distillation as a job: who teaches, what is saved, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nasface
from nasface.distill import Distillation
from nasface.errors import GraphError, NasfaceError, RecipeError, RunError
from nasface.model.files import at
from nasface.model.source import read_arch
from nasface.rundir import RunDir
from nasface.stages.distill import run as distilling
from nasface.stages.distill.teacher import load_teacher
from nasface.stages.evaluate.compare import evaluate
from nasface.stages.train import train
from tests.refusal import names, refused
from tests.searched import MACHINE, caching_in, recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]

SHORT = ("distill.epochs=2", "distill.optimizer.lr=1e-3")


class Wise(nn.Module):
    """A teacher from elsewhere, with another stride."""

    def __init__(self, num_landmarks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_landmarks, 3, stride=2, padding=1)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        heatmaps: Tensor = self.conv(images_B3HW)
        return heatmaps


class Choosy(Wise):
    """One that wants larger images."""

    input_size = 64

    def forward(self, images_B3HW: Tensor) -> Tensor:
        assert images_B3HW.shape[-1] == 64
        return super().forward(images_B3HW)


def five(num_landmarks: int) -> nn.Module:
    return Wise(5)


def failing() -> nn.Module:
    return Wise(68)


def broken(num_landmarks: int) -> nn.Module:
    return nn.Linear(3, num_landmarks)


def no_module(num_landmarks: int) -> str:
    return "wise"


def distill(run: RunDir, out: Path, *overrides: str, teacher: str | None = None) -> RunDir:
    arch = read_arch(run.arch)
    distilling.distill(recipe(*SHORT, *overrides), RunDir(out), MACHINE, arch, run.supernet, teacher, str(run.path))
    return RunDir(out)


@pytest.fixture(scope="module")
def distilled(run: RunDir, folder: Path) -> RunDir:
    with caching_in(folder):
        return distill(run, folder / "full")


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return all(torch.equal(a[name], b[name]) for name in a)


def test_both_students_are_saved_and_the_better_is_the_network(distilled):
    networks = json.loads(distilled.metrics.read_text())["networks"]
    assert list(networks) == ["teacher", "student 1", "student 2", "slim"]
    scores = [networks[f"student {i}"]["held_out_nme"] for i in (1, 2)]
    assert networks["slim"]["held_out_nme"] == min(scores)
    best = scores.index(min(scores)) + 1
    assert same(distilled.slim, distilled.student(best))
    assert not same(distilled.slim, distilled.student(3 - best))


def test_the_supernet_teaches_where_none_is_named(run, distilled):
    supernet = json.loads(run.metrics.read_text())["networks"]["supernet"]
    teacher = json.loads(distilled.metrics.read_text())["networks"]["teacher"]
    assert teacher["held_out_nme"] == pytest.approx(supernet["held_out_nme"], rel=1e-6)
    assert f"teacher: {run.path}" in distilled.log.read_text()


def test_the_result_is_a_run_that_evaluate_reads(distilled):
    (found,) = evaluate(recipe(), MACHINE, at(distilled.path))
    before = json.loads(distilled.metrics.read_text())["networks"]["slim"]
    assert found.held_out_error == pytest.approx(before["held_out_nme"], rel=1e-6)


def test_every_part_can_be_switched_off(run, tmp_path):
    alone = distill(run, tmp_path / "a", "distill.teacher=false", "distill.peer=false", "distill.masked=false")
    networks = json.loads(alone.metrics.read_text())["networks"]
    assert list(networks) == ["student 1", "slim"]
    assert not alone.student(2).exists()
    header = alone.metrics_csv.read_text().splitlines()[0]
    assert "ensemble" not in header
    assert "teacher" not in header


def test_a_teacher_of_other_crops_is_told(run, caplog):
    load_teacher(str(run.path), 68, recipe(), torch.device("cpu"))
    assert not caplog.records
    load_teacher(str(run.path), 68, recipe("data.box_scale=3"), torch.device("cpu"))
    assert "crops of 1.25 times the box 'landmarks', but the students see 3 times" in caplog.text


def test_a_distillation_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    from nasface import engine

    real, epochs = engine._pass, []

    def stop_after_one(*args):
        if epochs:
            raise KeyboardInterrupt
        epochs.append(1)
        return real(*args)

    monkeypatch.setattr(engine, "_pass", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        distill(run, out)
    monkeypatch.undo()
    distill(run, out)
    assert "resumed after epoch 1" in RunDir(out).log.read_text()
    # made in the same process, right after it: where its tensors lie in memory can decide the last bits of noise
    straight = distill(run, tmp_path / "straight")
    assert same(RunDir(out).student(1), straight.student(1))
    assert same(RunDir(out).student(2), straight.student(2))


def test_a_feature_term_resumes_bit_for_bit_and_leaves_no_trace_in_the_network(run, distilled, tmp_path, monkeypatch):
    options = ("distill.feature_weight=0.01", "distill.decay=true", "distill.teacher_share=0.5", "distill.peer=false")
    from nasface import engine

    whole, out = distill(run, tmp_path / "whole", *options), tmp_path / "killed"
    real, epochs = engine._pass, []

    def stop_after_one(*args):
        if epochs:
            raise KeyboardInterrupt
        epochs.append(1)
        return real(*args)

    monkeypatch.setattr(engine, "_pass", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        distill(run, out, *options)
    monkeypatch.undo()
    distill(run, out, *options)
    assert "resumed after epoch 1" in RunDir(out).log.read_text()
    assert same(RunDir(out).slim, whole.slim)
    assert load_file(whole.slim).keys() == load_file(distilled.slim).keys()
    assert {"feature", "teacher_weight"} < set(whole.metrics_csv.read_text().splitlines()[0].split(","))


def test_only_a_network_of_nasface_has_maps_to_offer(run, tmp_path):
    with refused(RecipeError, "distill.feature_weight", "0.5", "tests.unit.test_stage_distill:Wise"):
        distill(run, tmp_path / "out", "distill.feature_weight=0.5", teacher="tests.unit.test_stage_distill:Wise")


def test_unused_options_leave_the_identity_of_a_distillation_as_it_was_in_version_0_1():
    """Otherwise a distillation that was begun with it could not be resumed."""
    old = "8d5df13ffba6ef58976e6d7681e4b333568d2faf0b69b9c5bd9961f0285a5c7c"
    assert distilling._digest(Distillation()) == old
    assert distilling._digest(Distillation(decay=True)) != old
    assert distilling._digest(Distillation(epochs=3)) != old


def test_other_settings_do_not_go_into_the_same_folder(run, distilled):
    with refused(RunError, distilled.path, "--out"):
        distill(run, distilled.path, "distill.teacher_weight=2")


def test_a_network_by_name_can_teach(run, tmp_path):
    out = distill(run, tmp_path / "out", teacher="tests.unit.test_stage_distill:Wise")
    assert "teacher" in out.metrics_csv.read_text()
    assert "teacher" not in json.loads(out.metrics.read_text())["networks"]  # it is no network of ours to count


def test_a_teacher_of_another_size_is_resized_with_a_warning(run, caplog):
    teacher = load_teacher("tests.unit.test_stage_distill:Choosy", 68, recipe(), torch.device("cpu"))
    (warning,) = [record.getMessage() for record in caplog.records]
    names(warning, "tests.unit.test_stage_distill:Choosy", 64, 32)
    images = torch.randn(2, 3, 32, 32)
    assert teacher(images, (8, 8)).shape == (2, 68, 8, 8)
    assert not teacher(images, (8, 8)).requires_grad


def test_a_trained_run_of_another_space_can_teach(run, folder, tmp_path):
    hrnet = (
        "space.name=hrnet", "space.options={width: 4, depth: 1, modules: [1, 1, 1], stem_channels: 4}",
    )  # fmt: skip
    school = RunDir(tmp_path / "hrnet")
    train(recipe(*hrnet), school, MACHINE)
    out = distill(run, tmp_path / "out", teacher=str(school.path))
    trained = json.loads(school.metrics.read_text())["networks"]["supernet"]
    teacher = json.loads(out.metrics.read_text())["networks"]["teacher"]
    assert (teacher["params"], teacher["macs"]) == (trained["params"], trained["macs"])
    assert teacher["held_out_nme"] == pytest.approx(trained["held_out_nme"], rel=1e-6)


@pytest.mark.parametrize(
    ("teacher", "error", "facts"),
    [
        ("nowhere", RunError, ["--teacher"]),
        ("tests.unit.test_stage_distill:five", GraphError, ["5 landmarks", "68", "--teacher"]),
        ("tests.unit.test_stage_distill:broken", RunError, ["32"]),
        ("tests.unit.test_stage_distill:failing", RunError, ["takes 0 positional arguments"]),
        ("tests.unit.test_stage_distill:no_module", RunError, ["str", "torch module"]),
        ("tests.unit.test_stage_distill:missing", NasfaceError, ["missing"]),
        (str(Path(__file__).parent), RunError, ["supernet.safetensors", "slim.safetensors"]),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_in_a_sentence(teacher, error, facts):
    with refused(error, teacher, *facts):
        load_teacher(teacher, 68, recipe(), torch.device("cpu"))


def test_without_any_teacher_the_option_is_named(run, tmp_path):
    with refused(RunError, "--teacher", "--no-teacher"):
        distilling.distill(recipe(*SHORT), RunDir(tmp_path / "out"), MACHINE, read_arch(run.arch), run.supernet)


def test_a_supernet_that_its_searcher_has_pruned_is_no_default_teacher(run, tmp_path):
    pruned = RunDir(tmp_path / "pruned")
    shutil.copytree(run.path, pruned.path)
    net, kept = nasface.load(run.supernet).module, read_arch(run.arch).kept
    tensors = load_file(run.supernet)
    tensors["alpha"] *= torch.tensor([float(edge in kept) for edge in net.graph.prunable])
    with safe_open(run.supernet, "pt") as opened:
        save_file(tensors, pruned.supernet, opened.metadata())
    with refused(RunError, pruned.path, "--teacher", "--no-teacher"):
        distill(pruned, tmp_path / "out")
    distill(pruned, tmp_path / "asked", teacher=str(pruned.path))  # whoever asks for it gets it


def test_the_warning_of_a_resized_teacher_is_in_the_log_of_the_run(run, tmp_path):
    out = distill(run, tmp_path / "out", teacher="tests.unit.test_stage_distill:Choosy")
    (warning,) = [line for line in out.log.read_text().splitlines() if "WARNING" in line and ".teacher:" in line]
    names(warning, "tests.unit.test_stage_distill:Choosy", 64, 32)


def test_an_arch_of_another_space_is_refused(run, tmp_path):
    other = recipe(*SHORT, "space.options.width=6")
    with refused(GraphError, read_arch(run.arch).graph_digest):
        distilling.distill(other, RunDir(tmp_path / "out"), MACHINE, read_arch(run.arch), run.supernet, str(run.path))


def test_weights_that_do_not_fit_are_refused(run, tmp_path):
    residual = recipe(*SHORT, "space.options.encoder=residual")
    with refused(RunError, run.supernet, "tensors"):
        distilling.distill(
            residual, RunDir(tmp_path / "out"), MACHINE, read_arch(run.arch), run.supernet, str(run.path)
        )
