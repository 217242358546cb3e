"""The training loop: schedules, phases, resuming to the last bit, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import changed, faces, state, step, supernet
from torch import nn

from nasface import rundir
from nasface.data.augment import Augmentation
from nasface.engine import Progress, Settings, fit, predict_landmarks
from nasface.errors import DivergedError, RecipeError, RunError
from nasface.net import GraphNet
from nasface.step import Optimizer, Phase, Row
from tests.refusal import refused

pytestmark = pytest.mark.slow

SETTINGS = Settings(epochs=4, batch=4, augmentation=Augmentation(), seed=3)
FACES = faces(8)


def new_net() -> GraphNet:
    torch.manual_seed(0)
    return GraphNet(supernet(width=2, stages=3, resolutions=2, stem_channels=4), 4)


def phases_of(net: GraphNet, name: str = "adam") -> list[Phase]:
    """Two phases as a search has them; the first starts late and sees half of the faces."""
    weights = tuple(p for n, p in net.named_parameters() if n != "alpha")
    late = Optimizer(name, lr=1e-2)
    cycle = Optimizer(name, lr=1e-3, weight_decay=1e-4, schedule="one_cycle")
    return [Phase("alpha", (net.alpha,), late, step, share=0.5, start=1), Phase("weights", weights, cycle, step)]


def timeless(rows: Sequence[Row]) -> list[Row]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_schedules():
    assert {Optimizer(lr=0.5).lr_at(e, 10) for e in (0, 3.3, 10)} == {0.5}
    stairs = Optimizer(lr=1.0, schedule="steps", milestones=(4, 6), drop=0.1)
    assert [stairs.lr_at(e, 10) for e in (0, 3.99, 4, 5.9, 6, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cycle = Optimizer(lr=2.0, schedule="one_cycle", warmup=0.25)
    assert cycle.lr_at(0, 8) == pytest.approx(0.08)
    assert cycle.lr_at(1, 8) == pytest.approx((0.08 + 2) / 2)  # linear half-way up
    assert cycle.lr_at(2, 8) == 2
    assert cycle.lr_at(5, 8) == pytest.approx(1)  # half-way down the cosine
    assert cycle.lr_at(8, 8) == pytest.approx(0)
    curve = [cycle.lr_at(e / 10, 8) for e in range(81)]
    assert curve == sorted(curve[:21]) + sorted(curve[21:], reverse=True)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimizers(name, kind):
    built = Optimizer(name, lr=0.3, weight_decay=0.2).build([nn.Parameter(torch.ones(2))])
    assert type(built).__base__ is kind
    (group,) = built.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert group.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    assert group.get("momentum", 0.9) == 0.9


def test_a_phase_changes_its_own_parameters_only():
    net = new_net()
    alpha, weights = (replace(phase, start=0) for phase in phases_of(net))
    parameters = dict(net.named_parameters())
    parameters["stem.0.weight"].requires_grad_(False)
    for phase, own in ((alpha, {"alpha"}), (weights, set(parameters) - {"alpha"})):
        before = state(net)
        fit(net, [phase], FACES, replace(SETTINGS, epochs=1))
        assert changed(before, net) & set(parameters) == own
        assert any("running_mean" in name for name in changed(before, net))  # BN follows the batches in any phase
        assert [n for n, p in parameters.items() if not p.requires_grad] == ["stem.0.weight"]  # as it was before


def test_rows_phases_and_progress():
    net = new_net()
    begun, steps, seen = [], [], []
    progress = Progress(lambda *args: begun.append(args), lambda: steps.append(1), lambda rows: seen.append(len(rows)))
    rows = fit(net, phases_of(net), FACES, SETTINGS, title="search", validate=lambda n: 0.25, progress=progress)
    plan = [(1, "weights"), *((e, phase) for e in (2, 3, 4) for phase in ("alpha", "weights"))]
    assert [(row["epoch"], row["phase"]) for row in rows] == plan
    assert {row["stage"] for row in rows} == {"search"}
    assert [row["epoch"] for row in rows if "held_out_nme" in row] == [1, 2, 3, 4]
    assert all(row["phase"] == "weights" for row in rows if "held_out_nme" in row)
    assert begun == [("search", len(steps), 0)]
    assert len(steps) == 4 * 2 + 3 * 1  # 8 faces in batches of 4, half of them for alpha
    assert seen == [1, 3, 5, 7]
    last = phases_of(net)[1].optimizer.lr_at(3.5, 4)
    assert rows[-1]["lr"] == pytest.approx(last)


def test_training_lowers_the_loss_and_the_logged_loss_is_the_mean():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(4))
    losses = []

    def logged(model, batch):
        found = step(model, batch)
        losses.append(found["loss"].item())
        return {**found, "double": 2 * found["loss"]}

    phase = Phase("weights", tuple(net.parameters()), Optimizer(lr=0.02), logged)
    rows = fit(net, [phase], FACES, replace(SETTINGS, epochs=8))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[2]["loss"] == pytest.approx(np.mean(losses[4:6]), rel=1e-5)
    assert rows[2]["double"] == pytest.approx(2 * rows[2]["loss"], rel=1e-5)


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_training_ends_as_if_never_interrupted(tmp_path, name, after):
    straight = new_net()
    rows = fit(straight, phases_of(straight, name), FACES, SETTINGS)
    checkpoint = tmp_path / "sub" / "search.safetensors"
    broken = new_net()
    epochs, steps = [], []

    def count_epoch(rows):
        epochs.append(1)

    def die_in_the_next_epoch():
        steps.append(1)
        if len(epochs) == after:
            raise KilledError

    with pytest.raises(KilledError):
        fit(broken, phases_of(broken, name), FACES, SETTINGS, checkpoint=checkpoint,
            progress=Progress(advance=die_in_the_next_epoch, epoch=count_epoch))  # fmt: skip
    resumed = new_net()
    begun = []
    again = fit(resumed, phases_of(resumed, name), FACES, SETTINGS, checkpoint=checkpoint,
                progress=Progress(begin=lambda *args: begun.append(args)))  # fmt: skip
    assert timeless(again) == timeless(rows)
    assert not changed(state(straight), resumed)
    assert begun == [("train", 11, len(steps) - 1)]  # the step that died is done again


class Fading(torch.optim.Optimizer):
    """Counts its steps as plain numbers, in the groups and in the state."""

    def __init__(self, parameters, bad: object = None):
        super().__init__(parameters, {"lr": 0.0, "k": 0})
        self.bad = bad

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for one in group["params"]:
                if one.grad is not None:
                    self.state[one]["seen"] = self.state[one].get("seen", 0) + 1
                    one -= group["lr"] / (group["k"] * self.state[one]["seen"]) * one.grad.sign()
            if self.bad is not None:
                group["bad"] = self.bad


class Rate:
    def __init__(self, bad: object = None):
        self.bad = bad

    def build(self, parameters):
        return Fading(parameters, self.bad)

    def lr_at(self, epoch: float, epochs: int) -> float:
        return 1e-2


def test_counters_of_an_optimizer_of_ones_own_are_kept_and_what_cannot_be_is_refused(tmp_path):
    def training(net: GraphNet, epochs: int, bad: object = None) -> None:
        phase = Phase("weights", tuple(net.parameters()), Rate(bad), step)
        fit(net, [phase], FACES, replace(SETTINGS, epochs=epochs), checkpoint=tmp_path / "train.safetensors")

    whole, first, second = new_net(), new_net(), new_net()
    fit(whole, [Phase("weights", tuple(whole.parameters()), Rate(), step)], FACES, SETTINGS)
    training(first, 2)
    training(second, 4)
    assert not changed(state(whole), second)
    (tmp_path / "train.safetensors").unlink()
    with refused(RunError, "Fading", "object"):
        training(new_net(), 1, bad=object())


def test_a_finished_training_is_not_done_again(tmp_path):
    checkpoint = tmp_path / "train.safetensors"
    first, second = new_net(), new_net()
    rows = fit(first, phases_of(first), FACES, SETTINGS, checkpoint=checkpoint)
    progress = Progress(advance=lambda: pytest.fail("a step"))
    assert fit(second, phases_of(second), FACES, SETTINGS, checkpoint=checkpoint, progress=progress) == rows
    assert not changed(state(first), second)


def test_no_epochs_leave_the_network_as_it_is():
    net = new_net()
    before = state(net)
    assert fit(net, phases_of(net), FACES, replace(SETTINGS, epochs=0)) == []
    assert not changed(before, net)


def test_another_seed_gives_another_training():
    nets = [new_net() for _ in range(3)]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        fit(net, phases_of(net), FACES, replace(SETTINGS, epochs=2, seed=seed))
    assert not changed(state(nets[0]), nets[1])
    assert changed(state(nets[0]), nets[2])


def test_every_epoch_draws_other_views_in_another_order():
    seen = []

    def noting(model, batch):
        seen.append(batch.landmarks_BL2.clone())
        return step(model, batch)

    net = new_net()
    phase = Phase("weights", tuple(net.parameters()), Optimizer(), noting)
    fit(net, [phase, replace(phase, name="again")], FACES, replace(SETTINGS, epochs=2, batch=8))
    assert len(seen) == 4  # two phases in each of two epochs
    assert not any(torch.equal(a, b) for a, b in combinations(seen, 2))


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_checkpoint(tmp_path):
    net, calls = new_net(), []
    checkpoint = tmp_path / "train.safetensors"

    def explode(model, batch):
        calls.append(1)
        return {"loss": step(model, batch)["loss"] * (math.inf if len(calls) == 5 else 1)}

    phase = Phase("weights", tuple(net.parameters()), Optimizer(lr=2e-3), explode)
    with refused(DivergedError, "weights phase", "epoch 3", "0.002"):
        fit(net, [phase], FACES, SETTINGS, checkpoint=checkpoint)
    resumed = new_net()
    rows = fit(resumed, [replace(phase, parameters=tuple(resumed.parameters()), step=step)], FACES, SETTINGS,
               checkpoint=checkpoint)  # fmt: skip
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    checkpoint = tmp_path / "train.safetensors"
    once = replace(SETTINGS, epochs=2)

    def go_on(net: GraphNet, title: str = "search") -> list[Row]:
        return fit(net, phases_of(net), FACES, once, title=title, checkpoint=checkpoint)

    rows = go_on(new_net())
    assert go_on(new_net()) == rows  # its own
    wider = GraphNet(supernet(width=3, stages=3, resolutions=2, stem_channels=4), 4)
    other = new_net()
    with torch.no_grad():
        other.alpha[0] += 1e-6  # from other weights
    for net, title in ((new_net(), "finetune"), (wider, "search"), (other, "search")):
        before = state(net)
        with refused(RunError, checkpoint):
            go_on(net, title)
        assert not changed(before, net)
    rundir.write_tensors(checkpoint, new_net().state_dict(), {"space": "hrsupernet"})
    with refused(RunError, checkpoint):
        go_on(new_net())
    checkpoint.write_bytes(b"cut short")
    with refused(RunError, checkpoint):
        go_on(new_net())


@pytest.mark.parametrize("part", ["tensors", "rows"])
def test_a_checkpoint_that_has_changed_is_refused_and_an_old_one_resumes(tmp_path, part):
    checkpoint = tmp_path / "train.safetensors"
    begun, longer = new_net(), replace(SETTINGS, epochs=3)
    rows = fit(begun, phases_of(begun), FACES, replace(SETTINGS, epochs=2), checkpoint=checkpoint)
    tensors, meta = rundir.read_tensors(checkpoint)
    changed_tensors, changed_meta = dict(tensors), dict(meta)
    if part == "tensors":
        changed_tensors["net.alpha"] = tensors["net.alpha"] + 1e-7
    else:
        changed_meta["rows"] = meta["rows"].replace('"epoch": 1', '"epoch": 7')
    rundir.write_tensors(checkpoint, changed_tensors, changed_meta)
    net = new_net()
    before = state(net)
    with refused(RunError, checkpoint, "has changed", "remove it"):
        fit(net, phases_of(net), FACES, longer, checkpoint=checkpoint)
    assert not changed(before, net)
    del meta["checksum"]  # as nasface 0.1.0 wrote it
    rundir.write_tensors(checkpoint, tensors, meta)
    assert fit(net, phases_of(net), FACES, longer, checkpoint=checkpoint)[: len(rows)] == rows


def test_a_checkpoint_holds_no_pickle(tmp_path):
    checkpoint = tmp_path / "train.safetensors"
    net = new_net()
    fit(net, phases_of(net), FACES, replace(SETTINGS, epochs=2), checkpoint=checkpoint)
    with safe_open(checkpoint, "pt") as file:
        names = set(file.keys())
    assert {f"net.{name}" for name in net.state_dict()} < names
    assert {"optimizer.0.0.exp_avg", "optimizer.0.0.exp_avg_sq", "optimizer.0.0.step"} < names


def test_clipping_bounds_the_step():
    for clip, bound in ((0.0, math.inf), (1e-3, 1.01e-3)):
        net = new_net()
        before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
        phase = Phase("weights", tuple(net.parameters()), Optimizer("sgd", lr=1.0), step)
        fit(net, [phase], FACES, replace(SETTINGS, epochs=1, batch=8, clip=clip))
        moved = torch.linalg.vector_norm(torch.cat([p.detach().flatten() for p in net.parameters()]) - before)
        assert 0 < moved < bound
        assert clip or moved > 1e-2


def test_bf16_runs_the_network_under_autocast():
    net, kinds = new_net(), []
    net.head.register_forward_hook(lambda module, args, out: kinds.append(out.dtype))
    rows = fit(net, phases_of(net), FACES, replace(SETTINGS, epochs=2, precision="bf16"))
    assert set(kinds) == {torch.bfloat16}
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    found = predict_landmarks(net, FACES, precision="bf16")
    assert found.dtype == np.float64
    assert np.isfinite(found).all()


def test_a_counter_begins_once():
    begun, advanced = [], []
    report = Progress(lambda *args: begun.append(args), lambda: advanced.append(1)).counter("prepare")
    for done in (1, 2, 3):
        report(done, 3)
    assert begun == [("prepare", 3, 0)]
    assert len(advanced) == 3


def test_phases_that_have_not_started_are_no_fault(tmp_path: Path):
    net = new_net()
    late = replace(phases_of(net)[0], start=3)
    rows = fit(net, [late], FACES, SETTINGS, checkpoint=tmp_path / "c.safetensors")
    assert [(row["epoch"], row["phase"]) for row in rows] == [(4, "alpha")]


def test_an_epoch_without_a_phase_can_be_validated():
    net = new_net()
    fit(net, [replace(phases_of(net)[0], start=3)], FACES, SETTINGS, validate=lambda n: 0.25)


def test_a_phase_that_would_never_start_is_refused():
    net = new_net()
    with refused(RecipeError, "alpha phase", "search", "4 epochs"):
        fit(net, [replace(phases_of(net)[0], start=4)], FACES, replace(SETTINGS, epochs=4), title="search")


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    checkpoint = tmp_path / "train.safetensors"
    first, second = new_net(), new_net()
    fit(first, phases_of(first), FACES, SETTINGS, checkpoint=checkpoint, identity="one")
    with refused(RunError, checkpoint, "other data"):
        fit(second, phases_of(second), FACES, SETTINGS, checkpoint=checkpoint, identity="two")


def test_landmarks_are_decoded_in_full_precision_under_autocast():
    """bf16 has 8 bits: places up to 32 would come back in steps of an eighth."""
    net = new_net()
    single = predict_landmarks(net, FACES, decoder="dark")
    half = predict_landmarks(net, FACES, decoder="dark", precision="bf16")
    assert half.dtype == single.dtype
    assert (half * 8 % 1 != 0).any()


def test_a_phase_can_end_before_the_training_does():
    net = new_net()
    alpha, weights = phases_of(net)
    seen: list[tuple[float, int]] = []

    class Noted:
        """An optimizer of one's own."""

        def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.Adagrad(parameters)

        def lr_at(self, epoch: float, epochs: int) -> float:
            seen.append((epoch, epochs))
            return 0.01

    middle = replace(weights, name="middle", optimizer=Noted(), start=1, end=3)
    rows = fit(net, [replace(alpha, start=2), middle], FACES, SETTINGS)
    assert [(row["epoch"], row["phase"]) for row in rows] == [
        (2, "middle"), (3, "alpha"), (3, "middle"), (4, "alpha"),
    ]  # fmt: skip
    assert seen == [(0, 2), (0.5, 2), (1, 2), (1.5, 2)]  # epochs of the phase, not of the training
    with refused(RecipeError, "middle phase"):
        fit(net, [replace(middle, end=1)], FACES, SETTINGS)


def test_parameters_outside_the_network_are_refused():
    net, stray = new_net(), nn.Parameter(torch.ones(1))
    with refused(RecipeError, "stray phase"):
        fit(net, [Phase("stray", (stray,), Optimizer(), step)], FACES, SETTINGS)


class Random(nn.Module):
    """A network with dropout and a layer that draws on whether to run at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 4, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(images)
        return out * (torch.rand(()) if self.training else 0.5)


def random_net() -> tuple[nn.Module, list[Phase]]:
    torch.manual_seed(0)
    net = Random()
    weights = Phase("weights", tuple(net.parameters()), Optimizer(lr=1e-2), step)
    return net, [weights, replace(weights, name="again")]


def test_layers_that_draw_random_numbers_resume_to_the_last_bit(tmp_path):
    straight, phases = random_net()
    fit(straight, phases, FACES, SETTINGS)
    checkpoint = tmp_path / "train.safetensors"
    broken, phases = random_net()
    steps = []

    def die() -> None:
        steps.append(1)
        if len(steps) == 7:  # in the second epoch of four steps
            raise KilledError

    with pytest.raises(KilledError):
        fit(broken, phases, FACES, SETTINGS, checkpoint=checkpoint, progress=Progress(advance=die))
    resumed, phases = random_net()
    torch.rand(5)  # another process has drawn other numbers by now
    rows = fit(resumed, phases, FACES, SETTINGS, checkpoint=checkpoint)
    assert not changed(state(straight), resumed)
    losses = [row["loss"] for row in rows]
    assert len(set(losses)) == len(losses)


def test_training_leaves_the_global_generators_as_they_were():
    net, phases = random_net()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(net, phases, FACES, replace(SETTINGS, epochs=1))
    assert torch.equal(torch.rand(3), expected)
