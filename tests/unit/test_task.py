"""Targets, loss and decoders: exactness, borders, and each decoder against a loop over points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasface import recipe as recipes
from nasface.errors import RecipeError
from nasface.stages import training
from nasface.step import Batch
from nasface.task import (
    TEMPERATURE,
    HeatmapTask,
    adaptive_wing,
    decode,
    heatmap_loss,
    targets,
    to_cells,
    to_pixels,
)
from tests.refusal import refused

DECODERS = ("quarter", "dark", "soft", "centroid")
SIGMA = 1.5


def places(count: int, low: float, high: float, seed: int = 0) -> Tensor:
    """(1, count, 2) random cells, sub-cell."""
    random = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(1, count, 2, generator=random)


def bells(cells_BL2: Tensor, size_hw: tuple[int, int] = (32, 32), sigma: float = SIGMA) -> Tensor:
    return targets(cells_BL2, size_hw, 1.0, sigma)


def test_cells_and_pixels():
    """Cell i of stride s lies at (i + 0.5) s - 0.5."""
    pixels = torch.tensor([[[1.5, 5.5], [-0.5, 254.0]]])
    assert to_cells(pixels, 4).tolist() == [[[0.0, 1.0], [-0.5, 63.125]]]
    assert torch.allclose(to_pixels(to_cells(pixels, 4), 4), pixels)
    assert torch.equal(to_cells(pixels, 1), pixels)


def test_targets_by_hand():
    landmarks = torch.tensor([[[9.5, 21.5], [14.3, 6.1]], [[-6.0, 40.0], [0.0, 0.0]]])
    maps = targets(landmarks, (8, 12), 4.0, 1.2)
    assert maps.shape == (2, 2, 8, 12)
    for b, m in np.ndindex(2, 2):
        cx, cy = ((v + 0.5) / 4 - 0.5 for v in landmarks[b, m].tolist())
        for i, j in np.ndindex(8, 12):
            expected = math.exp(-((j - cx) ** 2 + (i - cy) ** 2) / (2 * 1.2**2))
            assert maps[b, m, i, j] == pytest.approx(expected, abs=1e-6)
    assert maps[0, 0].argmax() == 5 * 12 + 2
    assert maps[0, 0].max() == 1  # at the centre of a cell; elsewhere the peak lies between cells
    assert 0.8 < maps[0, 1].max() < 1


def test_the_centre_of_mass_is_sub_cell():
    cells = places(50, 10, 20)
    maps = bells(cells)
    mass = maps.sum(dim=(2, 3))
    axis = torch.arange(32.0)
    x = (maps.sum(dim=2) * axis).sum(dim=2) / mass
    y = (maps.sum(dim=3) * axis).sum(dim=2) / mass
    assert torch.allclose(torch.stack((x, y), dim=2), cells, atol=1e-3)


def test_the_loss_is_the_mean_squared_error():
    torch.manual_seed(0)
    heatmaps, landmarks = torch.randn(2, 3, 8, 8, requires_grad=True), 32 * torch.rand(2, 3, 2)
    goal = targets(landmarks, (8, 8), 4.0, SIGMA).numpy()
    loss = heatmap_loss(heatmaps, landmarks, 32, SIGMA)
    assert loss.item() == pytest.approx(np.square(heatmaps.detach().numpy() - goal).mean(), rel=1e-5)
    loss.backward()
    assert torch.allclose(heatmaps.grad, 2 * (heatmaps.detach() - torch.from_numpy(goal)) / goal.size)
    assert heatmap_loss(torch.from_numpy(goal), landmarks, 32, SIGMA) == 0
    half = heatmap_loss(heatmaps.bfloat16(), landmarks, 32, SIGMA)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss.item(), rel=0.01)


def wing_loop(found: float, goal: float) -> float:
    """The Adaptive Wing loss of one cell, as the paper has it (Wang et al. 2019, equation 3)."""
    omega, theta, epsilon, alpha = 14, 0.5, 1, 2.1
    error, power = abs(goal - found), alpha - goal
    if error < theta:
        return omega * math.log(1 + (error / epsilon) ** power)
    slope = omega / (1 + (theta / epsilon) ** power) * power * (theta / epsilon) ** (power - 1) / epsilon
    return slope * error - (theta * slope - omega * math.log(1 + (theta / epsilon) ** power))


def test_the_adaptive_wing_loss_by_hand():
    goal = bells(torch.tensor([[[4.3, 5.8], [0.0, 3.0]]]).repeat(3, 1, 1), (9, 12))
    found = goal + torch.randn(goal.shape, generator=torch.Generator().manual_seed(0)).clamp(-0.9, 0.9)
    total = 0.0
    for cell in np.ndindex(3, 2, 9, 12):
        total += (11 if goal[cell] >= 0.2 else 1) * wing_loop(found[cell].item(), goal[cell].item())
    assert adaptive_wing(found, goal).item() == pytest.approx(total / goal.numel(), rel=1e-5)


def test_the_gradient_of_the_adaptive_wing_loss():
    """It is zero where heatmaps are right, bounded for targets beyond 0 and 1, and what finite differences give."""
    right = torch.linspace(-0.5, 3, 64).view(1, 1, 8, 8).requires_grad_()
    loss = adaptive_wing(right, right.detach())
    loss.backward()
    assert loss.item() < 1e-6
    assert right.grad.abs().max() == 0
    near = (right.detach() + 1e-4).requires_grad_()
    adaptive_wing(near, right.detach()).backward()
    assert near.grad.abs().max() < 100 / near.numel()
    goal = bells(torch.tensor([[[3.2, 2.9]]]), (6, 6)).double()
    found = (torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double() * 1.6 - 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: adaptive_wing(maps, goal), (found,))


def test_the_loss_is_that_of_the_recipe():
    recipe = recipes.load("demo", ["task.loss=adaptive_wing", "task.sigma=1.2", "task.weight=3"])
    assert training.task(recipe) == HeatmapTask(recipe.data.input_size, 1.2, 3.0, "adaptive_wing")


def test_a_task_logs_its_loss_by_name():
    maps, landmarks = torch.rand(2, 3, 8, 8), 32 * torch.rand(2, 3, 2)
    batch = Batch(maps, landmarks)
    wing = HeatmapTask(32, weight=7.0, kind="adaptive_wing")
    found = wing.step(nn.Identity(), batch)
    assert found["adaptive_wing"] == heatmap_loss(maps, landmarks, 32, SIGMA, "adaptive_wing")
    assert found["loss"] == wing.loss(maps, batch) == 7 * found["adaptive_wing"]
    assert HeatmapTask(32).step(nn.Identity(), batch).keys() == {"loss", "mse"}


@pytest.mark.parametrize(
    ("decoder", "bound"),
    [("dark", 0.05), ("quarter", 0.3), ("soft", 0.2), ("centroid", 0.05)],
)
@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_error_on_clean_bells(decoder, bound, sigma):
    cells = places(400, 8, 24)
    found = to_cells(decode(bells(cells, sigma=sigma), 32, decoder, sigma), 1)
    error = (found - cells).abs().max()
    assert error < bound
    peaks = cells.round()
    assert error < (peaks - cells).abs().max()  # better than the bare maximum


@pytest.mark.parametrize("decoder", DECODERS)
def test_landmarks_come_back_in_input_pixels(decoder):
    landmarks = 40 + 40 * torch.rand(3, 6, 2)
    for size, cells in ((128, (32, 32)), (128, (64, 64)), (128, (24, 32))):
        stride = size / cells[1]
        error = decode(targets(landmarks, cells, stride, SIGMA), size, decoder, SIGMA) - landmarks
        assert error.abs().max() < 0.3 * stride


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_scale_of_a_heatmap_matters_little(decoder):
    maps = bells(places(50, 8, 24))
    for scale in (0.7, 1.3):
        moved = decode(scale * maps, 32, decoder, SIGMA) - decode(maps, 32, decoder, SIGMA)
        assert moved.abs().max() < 0.1


@pytest.mark.parametrize("decoder", DECODERS)
def test_bf16_heatmaps_are_decoded_in_full_precision(decoder):
    maps = bells(places(50, 8, 24)).bfloat16()
    found = decode(maps, 32, decoder, SIGMA)
    assert found.dtype == torch.float32
    assert torch.equal(found, decode(maps.float(), 32, decoder, SIGMA))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size_hw", [(16, 16), (12, 20)])
def test_peaks_at_borders_and_corners(decoder, size_hw):
    h, w = size_hw
    cells = torch.tensor([[x, y] for x in (0, 1, 7, w - 2, w - 1) for y in (0, 1, 6, h - 2, h - 1)]).float()[None]
    found = to_cells(decode(bells(cells, size_hw), w, decoder, SIGMA), 1)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= torch.tensor([w - 1.0, h - 1.0])).all()
    limit = 1.0 if decoder in ("soft", "centroid") else 0.26  # a mean is drawn inwards where half the bell is cut off
    assert (found - cells).abs().max() < limit


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_flat_heatmaps_give_a_place_inside(decoder, value):
    found = to_cells(decode(torch.full((2, 3, 8, 12), value), 12, decoder, SIGMA), 1)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= torch.tensor([11.0, 7.0])).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_peak_below_zero_is_found(decoder):
    cells = places(20, 8, 24)
    assert (to_cells(decode(bells(cells) - 2, 32, decoder, SIGMA), 1) - cells).abs().max() < 2


def test_the_window_of_a_wide_bell_ends_with_the_map():
    cells = torch.tensor([[[5.0, 3.0]]])
    maps = bells(cells, (8, 12), sigma=1.0)
    found = to_cells(decode(maps, 12, "centroid", sigma=1e9), 1)  # a window of that size would take exabytes
    torch.testing.assert_close(found, cells, atol=0.01, rtol=0)


def test_an_unknown_decoder_is_refused():
    with refused(RecipeError, "decoder", "'darc'", "'dark'"):
        decode(torch.zeros(1, 1, 8, 8), 8, "darc")


def quarter_loop(heatmap: np.ndarray) -> tuple[float, float]:
    h, w = heatmap.shape
    y, x = divmod(int(heatmap.argmax()), w)
    dx = 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) if 0 < x < w - 1 else 0
    dy = 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) if 0 < y < h - 1 else 0
    return x + dx, y + dy


def dark_loop(heatmap: np.ndarray) -> tuple[float, float]:
    """Smooth the whole map, then a Newton step in its logarithm, with derivatives over steps of one cell."""
    h, w = heatmap.shape
    y, x = divmod(int(heatmap.argmax()), w)
    if not (1 < x < w - 2 and 1 < y < h - 2):
        return x, y
    reach = round(1.5 * SIGMA)
    offset = np.arange(-reach, reach + 1)
    bell = np.exp(-(offset**2) / (2 * SIGMA**2))
    bell /= bell.sum()
    padded = np.pad(heatmap, reach, mode="edge")

    def log(dx: int, dy: int) -> float:
        part = padded[y + dy : y + dy + 2 * reach + 1, x + dx : x + dx + 2 * reach + 1]
        return math.log(max(float(bell @ part @ bell), 1e-10))

    gradient = np.array([log(1, 0) - log(-1, 0), log(0, 1) - log(0, -1)]) / 2
    dxx = (log(2, 0) - 2 * log(0, 0) + log(-2, 0)) / 4
    dyy = (log(0, 2) - 2 * log(0, 0) + log(0, -2)) / 4
    dxy = (log(1, 1) - log(-1, 1) - log(1, -1) + log(-1, -1)) / 4
    hessian = np.array([[dxx, dxy], [dxy, dyy]])
    if not (np.linalg.eigvalsh(hessian) < 0).all():  # no maximum there
        return x, y
    step = np.clip(-np.linalg.solve(hessian, gradient), -1, 1)
    return x + step[0], y + step[1]


def soft_loop(heatmap: np.ndarray) -> tuple[float, float]:
    weight = np.where(heatmap > 0.1 * heatmap.max(), np.exp(TEMPERATURE * heatmap), 0)
    ys, xs = np.mgrid[: heatmap.shape[0], : heatmap.shape[1]]
    return (weight * xs).sum() / weight.sum(), (weight * ys).sum() / weight.sum()


def centroid_loop(heatmap: np.ndarray) -> tuple[float, float]:
    ys, xs = np.mgrid[: heatmap.shape[0], : heatmap.shape[1]]
    y, x = divmod(int(heatmap.argmax()), heatmap.shape[1])
    near = (abs(xs - x) <= 3) & (abs(ys - y) <= 3)
    mass = np.where(near & (heatmap > 0), heatmap, 0) ** 3
    return (mass * xs).sum() / mass.sum(), (mass * ys).sum() / mass.sum()


LOOPS = {"quarter": quarter_loop, "dark": dark_loop, "soft": soft_loop, "centroid": centroid_loop}


@pytest.mark.parametrize(("decoder", "loop"), LOOPS.items())
@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_against_a_loop_over_points(decoder, loop, noise):
    h, w = 20, 28
    random = torch.Generator().manual_seed(1)
    cells = torch.rand(4, 30, 2, generator=random) * torch.tensor([w - 1.0, h - 1.0])
    maps = bells(cells, (h, w)) + noise * torch.randn(4, 30, h, w, generator=random)
    found = to_cells(decode(maps, w, decoder, SIGMA), 1)
    for b, m in np.ndindex(4, 30):
        expected = loop(maps[b, m].double().numpy())
        assert found[b, m].tolist() == pytest.approx(expected, abs=2e-3)
