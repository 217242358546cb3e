"""The terms of the distillation against hand-computed values, and its step."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nasface.distill import Distillation, Students, distill_step, ensemble, kd_loss, student_loss
from nasface.step import Batch
from nasface.task import HeatmapLoss, HeatmapTask, heatmap_loss
from tests.tiny import scrambled, supernet

SIZE = 32


def maps(seed: int, batch: int = 2, landmarks: int = 3, side: int = 4) -> torch.Tensor:
    return torch.randn(batch, landmarks, side, side, generator=torch.Generator().manual_seed(seed))


def batch(seed: int = 0, landmarks: int = 5) -> Batch:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, SIZE, SIZE, generator=random)
    return Batch(images, SIZE * torch.rand(2, landmarks, 2, generator=random), seed=7)


def by_hand(target: np.ndarray, found: np.ndarray, temperature: float) -> float:
    """Equation 3, heatmap by heatmap."""
    divergences = []
    for p_map, q_map in zip(target.reshape(-1, 16), found.reshape(-1, 16), strict=True):
        p, q = np.exp(p_map / temperature), np.exp(q_map / temperature)
        p, q = p / p.sum(), q / q.sum()
        divergences.append(float((p * np.log(p / q)).sum()))
    return float(np.mean(divergences))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_kd_loss_is_the_mean_divergence_of_heatmaps(temperature):
    target, found = maps(0), maps(1)
    mine = kd_loss(target, found, temperature)
    assert mine.item() == pytest.approx(by_hand(target.numpy(), found.numpy(), temperature), rel=1e-5)
    one_by_one = [
        F.kl_div(F.log_softmax(q.flatten() / temperature, 0), F.softmax(p.flatten() / temperature, 0), reduction="sum")
        for p, q in zip(target.flatten(0, 1), found.flatten(0, 1), strict=True)
    ]
    assert mine.item() == pytest.approx(torch.stack(one_by_one).mean().item(), rel=1e-5)


def test_kd_loss_of_two_cells_by_hand():
    target, found = torch.tensor([[[[0.0, np.log(3.0)]]]]), torch.zeros(1, 1, 1, 2)
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert kd_loss(target, found).item() == pytest.approx(expected, rel=1e-6)


def test_kd_loss_is_not_symmetric_and_zero_for_equals():
    assert kd_loss(maps(0), maps(0)).item() == pytest.approx(0, abs=1e-6)
    assert kd_loss(maps(0), maps(1)).item() != pytest.approx(kd_loss(maps(1), maps(0)).item(), rel=1e-3)


def test_the_ensemble_is_a_mean_and_a_constant_unless_asked():
    one, two = maps(0).requires_grad_(), maps(1).requires_grad_()
    assert torch.equal(ensemble((one, two)), ((one + two) / 2).detach())
    assert not ensemble((one, two)).requires_grad
    assert ensemble((one, two), constant=False).requires_grad


def test_the_loss_of_a_student_is_equation_4():
    how = Distillation(ensemble_weight=4, teacher_weight=0.5, temperature=2)
    mine, goal, together, taught = (maps(seed) for seed in range(4))
    terms = student_loss(mine, goal, together, taught, how)
    expected = F.mse_loss(mine, goal) + 4 * kd_loss(together, mine, 2) + 0.5 * kd_loss(taught, mine, 2)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    alone = student_loss(mine, goal, None, None, how)
    assert alone.keys() == {"loss", "mse"}
    assert alone["loss"].item() == pytest.approx(F.mse_loss(mine, goal).item())


@pytest.mark.parametrize("kind", get_args(HeatmapLoss))
def test_with_everything_off_the_step_is_plain_fine_tuning(kind):
    how = Distillation(teacher=False, peer=False, masked=False)
    net = scrambled(supernet())
    students = Students(net, how, seed=0)
    assert len(students.peers) == 1
    given = batch()
    mine = distill_step(how, HeatmapTask(SIZE, weight=1000.0, kind=kind), None)(students, given)
    plain = 1000 * heatmap_loss(net(given.images_B3HW), given.landmarks_BL2, SIZE, 1.5, kind)
    assert mine.keys() == {"loss", kind}
    assert mine["loss"].item() == pytest.approx(plain.item(), rel=1e-6)


def test_peers_start_alike_where_masks_tell_them_apart():
    students = Students(scrambled(supernet()), Distillation(), seed=0)
    one, two = (net.state_dict() for net in students.peers)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {p.data_ptr() for p in students.peers[0].parameters()}.isdisjoint(
        p.data_ptr() for p in students.peers[1].parameters()
    )


def test_without_masks_peers_that_start_alike_would_stay_alike():
    how = Distillation(masked=False, teacher=False)
    given = batch()
    step = distill_step(how, HeatmapTask(SIZE, weight=1.0), None)
    for noise, alike in ((0.0, True), (how.peer_noise, False)):
        students = Students(scrambled(supernet()).train(), replace(how, peer_noise=noise), seed=0)
        step(students, given)["loss"].backward()
        one, two = ([p.grad for p in net.parameters()] for net in students.peers)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) == alike


def test_each_student_sees_its_own_masks_and_the_teacher_none():
    seen: dict[str, torch.Tensor] = {}
    how = Distillation(mask_probability=1.0)
    students = Students(scrambled(supernet()), how, seed=0)
    for name, net in zip(("one", "two"), students.peers, strict=True):
        net.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].clone()}))

    def teacher(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        seen["teacher"] = images.clone()
        return torch.zeros(len(images), 5, *size)

    given = batch()
    step = distill_step(how, HeatmapTask(SIZE, weight=1.0), teacher)
    step(students, given)
    assert torch.equal(seen["teacher"], given.images_B3HW)
    covered = {name: (seen[name] != given.images_B3HW).any(1) for name in ("one", "two")}
    assert all(mask.flatten(1).any(1).all() for mask in covered.values())
    assert not torch.equal(covered["one"], covered["two"])
    first = seen["one"]
    step(students, given)
    assert torch.equal(seen["one"], first)  # by the batch's seed alone, so that a resumed run repeats it
    step(students, replace(given, seed=8))
    assert not torch.equal(seen["one"], first)


def test_students_learn_from_teacher_and_peer_but_the_teacher_from_nobody():
    how = Distillation(masked=False, teacher_weight=3.0)
    students = Students(scrambled(supernet()).train(), how, seed=0)
    wise = scrambled(supernet(), seed=1).requires_grad_(False)
    before = deepcopy(wise.state_dict())
    terms = distill_step(how, HeatmapTask(SIZE, weight=1.0), lambda images, size: wise(images))(students, batch())
    assert terms.keys() == {"loss", "mse", "ensemble", "teacher"}
    total = 2 * (terms["mse"] + 4 * terms["ensemble"] + 3 * terms["teacher"])
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)
    terms["loss"].backward()
    assert all(p.grad is not None for net in students.peers for p in net.head.parameters())
    assert all(torch.equal(before[name], value) for name, value in wise.state_dict().items())


def test_a_constant_ensemble_gives_a_student_no_gradient_of_the_others_loss():
    given = batch()
    grads = {}
    for constant in (True, False):
        how = Distillation(masked=False, teacher=False, constant_ensemble=constant, peer_noise=1.0, ensemble_weight=1e4)
        students = Students(scrambled(supernet()), how, seed=0)
        distill_step(how, HeatmapTask(SIZE, weight=1.0), None)(students, given)["loss"].backward()
        grads[constant] = students.peers[0].head.heatmaps.weight.grad
    assert not torch.allclose(grads[True], grads[False])
