"""What the engine does with a network besides training it: predictions, BN statistics, devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import changed, faces, scheme, state, supernet
from torch import nn

from nasface.data.augment import Augmentation, DeviceFaces
from nasface.device import pick_device
from nasface.engine import Settings, predict_landmarks, recalibrate, training_batches
from nasface.errors import RunError
from nasface.net import GraphNet
from nasface.task import targets
from tests.refusal import refused

SETTINGS = Settings(epochs=4, batch=4, augmentation=Augmentation(), seed=3)
FACES = faces(8)


def new_net() -> GraphNet:
    return GraphNet(supernet(width=2, stages=3, resolutions=2, stem_channels=4), 4)


def test_the_batches_to_measure_on_are_the_same_at_every_call():
    first, second = (list(training_batches(FACES, SETTINGS)) for _ in range(2))
    assert len(first) == 2
    assert all(torch.equal(a.images_B3HW, b.images_B3HW) for a, b in zip(first, second, strict=True))
    other = next(training_batches(FACES, replace(SETTINGS, seed=4)))
    assert not torch.equal(other.images_B3HW, first[0].images_B3HW)


@pytest.mark.parametrize("training", [True, False])
def test_recalibrate_changes_statistics_only(training):
    net = new_net().train(training)
    before = state(net)
    recalibrate(net, FACES, SETTINGS)
    statistics = {n for n in before if n.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed(before, net) == statistics
    assert net.training is training
    assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1, 0.01}


def test_recalibrate_takes_the_plain_mean_over_the_batches():
    net = nn.Sequential(nn.BatchNorm2d(3))
    net[0].running_mean.fill_(7)
    net[0].num_batches_tracked.fill_(50)
    means, variances = [], []

    def note(module, args):
        means.append(args[0].mean(dim=(0, 2, 3)))
        variances.append(args[0].var(dim=(0, 2, 3)))

    net[0].register_forward_pre_hook(note)
    recalibrate(net, faces(12), replace(SETTINGS, batch=2), batches=4)
    assert len(means) == 4
    assert torch.allclose(net[0].running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert torch.allclose(net[0].running_var, torch.stack(variances).mean(0), atol=1e-4)


class Oracle(nn.Module):
    """Reads the landmarks off the image: two bright dots, number 0 in the left half and number 1 in the right."""

    def forward(self, images):
        grey = images.mean(1) - images.mean(1).amin()
        half = images.shape[-1] // 2
        left, right = grey.clone(), grey.clone()
        left[..., half:] = 0
        right[..., :half] = 0
        return torch.stack((left, right), dim=1) / grey.amax()


def dots() -> DeviceFaces:
    landmarks = torch.tensor([[[8.0 + i, 9.0], [24.0, 20.0 - i]] for i in range(5)])
    images = (200 * targets(landmarks, (32, 32), 1.0, 1.5).sum(1)).clamp(0, 255)
    return DeviceFaces(images.byte()[..., None].repeat(1, 1, 1, 3), landmarks, 32, scheme(2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("flip_test", [True, False])
def test_predict_finds_every_face_in_order_and_leaves_the_mode(training, flip_test):
    net, source = Oracle().train(training), dots()
    modes = []
    net.register_forward_hook(
        lambda module, args, out: modes.append((module.training, torch.is_inference_mode_enabled()))
    )
    for batch in (2, 5, 64):
        found = predict_landmarks(net, source, batch=batch, decoder="dark", flip_test=flip_test)
        assert found.shape == (5, 2, 2)
        assert np.abs(found - source.landmarks_NL2.numpy()).max() < 0.05
    assert set(modes) == {(False, True)}
    assert net.training is training


def test_the_flip_test_averages_with_the_mirrored_image():
    """A net that looks one pixel too far to the right is put right by its mirror image."""

    class Biased(Oracle):
        def forward(self, images):
            return super().forward(images).roll(1, dims=3)

    source = dots()
    true = source.landmarks_NL2.numpy()
    bias = predict_landmarks(Biased(), source, decoder="dark")[..., 0] - true[..., 0]
    assert bias == pytest.approx(1, abs=0.05)
    assert predict_landmarks(Biased(), source, decoder="soft", flip_test=True)[..., 0] == pytest.approx(
        true[..., 0], abs=0.1
    )


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert isinstance(pick_device(), torch.device)
    names = ["nonsense", "cuda:97"] + ([] if torch.cuda.is_available() else ["cuda"])
    for name in names:
        with refused(RunError, name, "--device"):
            pick_device(name)
