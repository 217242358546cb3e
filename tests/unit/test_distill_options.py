"""The options of the distillation that go beyond the paper: their terms by hand, and bit-equal resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasface import engine
from nasface import recipe as recipes
from nasface.data.augment import Augmentation
from nasface.distill import (
    Distillation,
    Students,
    distill_step,
    feature_loss,
    kd_loss,
    output_maps,
    share_weight,
    standardised,
    student_loss,
)
from nasface.engine import Settings
from nasface.errors import RecipeError
from nasface.graph import Graph, Node
from nasface.net import GraphNet
from nasface.step import Batch, Optimizer, Phase
from nasface.task import HeatmapTask, adaptive_wing, targets
from tests.refusal import refused
from tests.tiny import faces, fixed_net, scrambled, space_of, supernet

SIZE = 32
OPTIONS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.1},
    "standardise": {"standardise": True, "temperature": 2.0},
    "decay": {"decay": True},
    "shares": {"teacher_share": 0.5, "ensemble_share": 0.25},
    "mix": {"target_mix": 0.5},
    "feature": {"feature_weight": 1e-2},
    "all": {
        "standardise": True, "decay": True, "teacher_share": 0.5, "ensemble_share": 0.1, "target_mix": 0.3,
        "feature_weight": 1e-2,
    },
}  # fmt: skip


def maps(seed: int, batch: int = 2, landmarks: int = 3, side: int = 4) -> torch.Tensor:
    return torch.randn(batch, landmarks, side, side, generator=torch.Generator().manual_seed(seed))


def batch(landmarks: int = 4, progress: float = 0.0) -> Batch:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, SIZE, SIZE, generator=random)
    return Batch(images, SIZE * torch.rand(2, landmarks, 2, generator=random), seed=7, progress=progress)


def school() -> GraphNet:
    return scrambled(fixed_net(), 4, seed=1).eval().requires_grad_(False)


def taught_by(net: GraphNet, how: Distillation) -> tuple[Students, Any]:
    """Students of the tiny supernet, and their step with `net` as the teacher."""
    students = Students(scrambled(supernet(), 4).train(), how, 3, net)
    return students, distill_step(how, HeatmapTask(SIZE, weight=100.0), lambda images, size: net(images), net)


def mass_near_peak(side: int, temperature: float, standardise: bool = False, sigma: float = 1.5) -> float:
    """The share of the softmax of a Gaussian heatmap that lies within three sigma of its peak."""
    centre = side // 2
    y, x = np.mgrid[:side, :side] - centre
    bell = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    if standardise:
        bell = (bell - bell.mean()) / bell.std()
    weight = np.exp((bell - bell.max()) / temperature)
    return float(weight[x**2 + y**2 <= (3 * sigma) ** 2].sum() / weight.sum())


def test_at_temperature_1_the_softmax_of_a_heatmap_hardly_sees_its_peak():
    """The figures with which docs/explanation/method.md explains why a temperature of 1 does nothing."""
    cells = mass_near_peak(64, 1e9)  # the uniform distribution
    assert (round(cells, 3), round(mass_near_peak(64, 1.0), 3)) == (0.017, 0.021)
    assert round(mass_near_peak(64, 0.1), 2) == 0.90
    assert mass_near_peak(64, 0.05) > 0.999
    assert (round(mass_near_peak(64, 1.0, sigma=1.0), 3), round(mass_near_peak(64, 0.1, sigma=1.0), 2)) == (0.009, 0.85)
    assert (round(mass_near_peak(16, 1.0), 2), round(mass_near_peak(16, 0.1), 2)) == (0.32, 0.99)
    assert mass_near_peak(64, 1.0, standardise=True) > 0.999
    assert round(mass_near_peak(16, 1.0, standardise=True), 2) == 0.90
    drawn = targets(torch.tensor([[[129.5, 129.5]]]), (64, 64), 4, 1.5)  # the centre of cell (32, 32)
    near = drawn.flatten(2).div(0.1).softmax(2)[drawn.flatten(2) >= np.exp(-4.5) - 1e-6].sum()
    assert near.item() == pytest.approx(mass_near_peak(64, 0.1), rel=1e-4)


def test_at_temperature_1_the_divergence_is_one_more_mean_squared_error():
    goal = targets(torch.tensor([[[100.0, 150.0]]]), (64, 64), 4, 1.5)
    found = targets(torch.tensor([[[104.0, 144.0]]]), (64, 64), 4, 1.5)
    mse = F.mse_loss(found, goal).item()
    assert 0.5 * mse < kd_loss(goal, found).item() < mse
    assert kd_loss(goal, found, temperature=0.1).item() > 1000 * mse


def test_standardised_heatmaps_have_mean_0_and_deviation_1():
    found = standardised(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]))
    assert found.flatten().tolist() == pytest.approx([-3 / 5**0.5, -1 / 5**0.5, 1 / 5**0.5, 3 / 5**0.5], rel=1e-6)
    assert torch.allclose(standardised(5 * maps(0) + 2), standardised(maps(0)), atol=1e-5)
    flat = torch.ones(1, 1, 2, 2, requires_grad=True)
    kd_loss(maps(0, 1, 1, 2), flat, standardise=True).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_standardised_divergence_by_hand():
    target, found = torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[[[3.0, 2.0]]]])  # that is -1, 1 and 1, -1
    p = 1 / (1 + np.exp(-1))  # at a temperature of 2, the two differ by 1
    expected = p * np.log(p / (1 - p)) + (1 - p) * np.log((1 - p) / p)
    assert kd_loss(target, found, 2.0, standardise=True).item() == pytest.approx(expected, rel=1e-5)
    assert kd_loss(target, 10 * target - 3, 2.0, standardise=True).item() == pytest.approx(0, abs=1e-6)


def test_a_share_of_the_gradient_by_hand():
    heatmaps = torch.tensor([3.0, 4.0], requires_grad=True)
    task, term = (heatmaps**2).sum(), 2 * heatmaps.sum()  # gradients (6, 8) and (2, 2)
    weight = share_weight(term, task, heatmaps, 0.5)
    assert weight.item() == pytest.approx(0.5 * 10 / 8**0.5, rel=1e-6)
    assert not weight.requires_grad
    assert share_weight(0 * heatmaps.sum(), task, heatmaps, 0.5).item() == 0


@pytest.mark.parametrize("fade", [1.0, 0.25])
def test_with_a_share_the_term_pulls_with_that_share_of_the_tasks_strength(fade):
    how = Distillation(teacher_share=0.5, ensemble_share=0.1, temperature=0.1)
    mine, goal, together, taught = (maps(seed) for seed in range(4))
    mine.requires_grad_()
    terms = student_loss(mine, goal, together, taught, how, fade=fade)
    task = (2 * (mine - goal) / mine.numel()).norm()
    for name, share in (("teacher", 0.5), ("ensemble", 0.1)):
        (pull,) = torch.autograd.grad(terms[f"{name}_weight"] * terms[name], mine, retain_graph=True)
        assert (pull.norm() / task).item() == pytest.approx(fade * share, rel=1e-4)
    total = terms["mse"] + sum(terms[f"{name}_weight"] * terms[name] for name in ("teacher", "ensemble"))
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_the_teachers_heatmaps_are_mixed_into_the_targets():
    mine, goal, taught = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    how = Distillation(target_mix=0.25, teacher_weight=0, peer=False)
    assert student_loss(mine, goal, None, taught, how)["loss"].item() == pytest.approx((0.75**2 + 0.5**2) / 2)
    faded = student_loss(mine, goal, None, taught, how, fade=0.5)["loss"].item()
    assert faded == pytest.approx((0.875**2 + 0.25**2) / 2)


def test_the_landmarks_are_learnt_by_the_loss_of_the_task():
    mine, goal, taught = maps(0).clamp(0, 1), maps(1).clamp(0, 1), maps(2)
    how = Distillation(peer=False, teacher_share=0.5)
    terms = student_loss(mine.requires_grad_(), goal, None, taught, how, kind="adaptive_wing")
    assert terms.keys() == {"loss", "adaptive_wing", "teacher", "teacher_weight"}
    assert terms["adaptive_wing"] == adaptive_wing(mine, goal)
    total = terms["adaptive_wing"] + terms["teacher_weight"] * terms["teacher"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_decay_takes_weight_from_every_term_but_the_landmarks():
    how = Distillation(ensemble_weight=4, teacher_weight=3, feature_weight=2)
    mine, goal, together, taught = (maps(seed) for seed in range(4))
    given = (mine, goal, together, taught, how, torch.tensor(0.7))
    full, half, none = (student_loss(*given, fade=fade) for fade in (1.0, 0.5, 0.0))
    learnt = 4 * full["ensemble"] + 3 * full["teacher"] + 2 * 0.7
    assert full["loss"].item() == pytest.approx((full["mse"] + learnt).item(), rel=1e-6)
    assert half["loss"].item() == pytest.approx((full["mse"] + learnt / 2).item(), rel=1e-6)
    assert none["loss"].item() == full["mse"].item()


def test_the_step_fades_with_the_progress_of_the_training():
    how, net = Distillation(decay=True, peer=False, masked=False), school()
    students, step = taught_by(net, how)
    for progress in (0.0, 0.75):
        terms = step(students, batch(progress=progress))
        total = 100 * (terms["mse"] + (1 - progress) * terms["teacher"])
        assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)
    steady = distill_step(replace(how, decay=False), HeatmapTask(SIZE, weight=100.0), lambda images, size: net(images))
    assert torch.equal(steady(students, batch())["loss"], steady(students, batch(progress=0.75))["loss"])


def test_the_engine_tells_every_step_how_far_its_phase_has_come():
    net, seen = scrambled(supernet(), 4), []

    def step(net: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        seen.append(batch.progress)
        return {"loss": net(batch.images_B3HW).square().mean()}

    phase = Phase("late", tuple(net.parameters()), Optimizer(), step, start=1)
    engine.fit(net, [phase], faces(8), Settings(3, 4, Augmentation()))
    assert seen == [0, 0.25, 0.5, 0.75]  # two epochs of two steps


def test_the_feature_term_by_hand():
    project = nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        project.weight.copy_(torch.tensor([2.0, 1.0]).view(1, 2, 1, 1))
        project.bias.fill_(0.5)
    own = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)  # projected: 5.5 in every cell
    other = torch.tensor([[[[5.5, 4.5], [3.5, 5.5]]]])  # errors 0, 1, 2, 0
    projections = nn.ModuleDict({"4": project, "8": nn.Identity()})
    assert feature_loss(projections, {4: own, 8: own}, {4: other, 8: own + 1}).item() == pytest.approx((5 / 4 + 1) / 2)


def test_a_teacher_of_another_resolution_has_its_maps_resized():
    projections = nn.ModuleDict({"4": nn.Identity()})
    found = feature_loss(projections, {4: torch.zeros(1, 1, 2, 2)}, {4: torch.full((1, 1, 4, 4), 3.0)})
    assert found.item() == pytest.approx(9)


def test_output_maps_are_those_that_the_head_reads_joined_by_stride():
    graph = Graph(
        nodes=(Node("a", 4, 4, 1), Node("b", 8, 4, 2), Node("c", 8, 8, 2)),
        edges=(("a", "b"), ("a", "c")),
        inputs=("a",),
        outputs=("a", "b", "c"),
    )
    net = scrambled(space_of(graph), 4)
    images = batch().images_B3HW
    with output_maps(net) as found:
        heatmaps = net(images)
    assert {stride: tuple(m.shape) for stride, m in found.items()} == {4: (2, 12, 8, 8), 8: (2, 8, 4, 4)}
    assert torch.equal(net.head([found[4][:, :4], found[4][:, 4:], found[8]]), heatmaps)
    before = dict(found)
    net(images + 1)
    assert all(torch.equal(before[stride], found[stride]) for stride in before)  # nothing is watched any more
    with output_maps(None) as found:
        net(images)
    assert not found


def test_students_learn_the_teachers_maps_through_projections_that_are_no_part_of_them():
    net, how = school(), Distillation(feature_weight=2.0, teacher_weight=0.0, ensemble_weight=0.0, mask_probability=0)
    students, step = taught_by(net, how)
    names = {name for name, _ in students.named_parameters() if name.startswith("projections")}
    assert names == {
        f"projections.{i}.{stride}.{kind}" for i in (0, 1) for stride in (4, 8, 16) for kind in ("weight", "bias")
    }
    given = batch()
    terms = step(students, given)
    with output_maps(net) as lesson:
        net(given.images_B3HW)
    errors = []
    for peer, projections in zip(students.peers, students.projections, strict=True):
        with output_maps(peer) as own:
            peer(given.images_B3HW)
        errors += [F.mse_loss(projections[str(s)](own[s]), lesson[s]).item() for s in (4, 8, 16)]
    assert terms["feature"].item() == pytest.approx(np.mean(errors), rel=1e-4)
    assert terms["loss"].item() == pytest.approx(100 * 2 * (terms["mse"] + 2 * terms["feature"]).item(), rel=1e-5)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in students.projections.parameters())
    assert not any(name.startswith("projections") for peer in students.peers for name in peer.state_dict())


def test_without_the_options_students_and_step_are_those_of_the_paper():
    how = Distillation(masked=False)
    students, step = taught_by(school(), how)
    assert all(name.startswith("_peers.") for name in students.state_dict())
    given, net = batch(progress=0.5), school()
    terms = step(students, given)
    one, two = (peer(given.images_B3HW) for peer in students.peers)
    goal, mean = targets(given.landmarks_BL2, (8, 8), 4, 1.5), torch.stack((one, two)).mean(0).detach()
    by_hand = []
    for mine in (one, two):
        loss = F.mse_loss(mine, goal) + 4.0 * kd_loss(mean, mine, 1.0)
        by_hand.append(loss + 1.0 * kd_loss(net(given.images_B3HW).contiguous(), mine, 1.0))
    assert torch.equal(terms["loss"], 100.0 * 2 * torch.stack(by_hand).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_with_an_option_resumes_bit_for_bit(name, tmp_path, monkeypatch):
    how, real, passes = Distillation(**OPTIONS[name]), engine._pass, []

    def stop_after_one(*args):
        if passes:
            raise KeyboardInterrupt
        passes.append(1)
        return real(*args)

    monkeypatch.setattr(engine, "_pass", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        trained(how, tmp_path / "stopped")
    monkeypatch.undo()
    resumed, whole = trained(how, tmp_path / "stopped"), trained(how, tmp_path / "whole")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def trained(how: Distillation, checkpoint: Path) -> dict[str, torch.Tensor]:
    students, step = taught_by(school(), how)
    phase = Phase("students", tuple(students.parameters()), Optimizer(lr=1e-3), step)
    engine.fit(students, [phase], faces(8), Settings(2, 4, Augmentation(), seed=5), checkpoint=checkpoint)
    return students.state_dict()


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (("teacher=false", "teacher_share=0.5"), ("distill.teacher_share", "0.5", "distill.teacher ")),
        (("teacher=false", "target_mix=0.3"), ("distill.target_mix", "0.3", "distill.teacher ")),
        (("teacher=false", "feature_weight=0.2"), ("distill.feature_weight", "0.2", "distill.teacher ")),
        (("peer=false", "ensemble_share=0.5"), ("distill.ensemble_share", "0.5", "distill.peer ")),
        (("teacher_share=0.5", "teacher_weight=2"), ("distill.teacher_share", "distill.teacher_weight", "0.5", "2")),
        (("ensemble_share=0.5", "ensemble_weight=1"), ("distill.ensemble_share", "distill.ensemble_weight")),
        (("target_mix=1.5",), ("distill.target_mix", "1.5")),
        (("teacher_share=-1",), ("distill.teacher_share", "-1")),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings, facts):
    with refused(RecipeError, *facts):
        recipes.load("demo", [f"distill.{setting}" for setting in settings])


def test_a_source_is_switched_off_with_all_that_it_alone_offers():
    how = Distillation(teacher_share=0.5, ensemble_share=0.1, target_mix=0.3, feature_weight=2.0, decay=True)
    assert how.without() == how
    assert how.without("teacher") == Distillation(teacher=False, ensemble_share=0.1, decay=True)
    assert how.without("teacher", "peer", "masked") == Distillation(teacher=False, peer=False, masked=False, decay=True)


def test_maps_without_a_common_stride_cannot_be_compared():
    graph = Graph(nodes=(Node("a", 4, 4, 1), Node("b", 8, 8, 2)), edges=(("a", "b"),), inputs=("a",), outputs=("b",))
    one = scrambled(space_of(graph), 4)
    other = scrambled(space_of(replace(graph, edges=(("a", "b"),), outputs=("a",))), 4)
    with refused(RecipeError, "distill.feature_weight", "8", "4"):
        Students(one, Distillation(feature_weight=1.0), 0, other)
