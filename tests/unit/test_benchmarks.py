"""The benchmark scripts at tiny sizes: both sides compute the same, and every side is timed."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

from nasface import plugins
from nasface import recipe as recipes
from nasface.arch import edge_list
from nasface.data.augment import Augmentation
from nasface.data.prepare import PreparedFaces, PrepareOptions
from nasface.data.w300 import W300
from tests.refusal import refused

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
bench = importlib.import_module("data_pipeline")
memory = importlib.import_module("memory")
distillation = importlib.import_module("distillation")
sweep = importlib.import_module("sweep")
detectors = importlib.import_module("detectors")
deploy = importlib.import_module("deploy")
workers = importlib.import_module("workers")

OPTIONS = PrepareOptions(input_size=32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, PreparedFaces]:
    folder = tmp_path_factory.mktemp("photographs")
    dataset = bench.Some(W300(bench.photographs(folder, 6, size=(160, 120))), 6)
    return dataset, bench.prepare_with_nasface(dataset, OPTIONS, folder / "cache", 1)


def test_both_sides_crop_alike(prepared: tuple, tmp_path: Path) -> None:
    differences = bench.check_preparation(prepared[0], OPTIONS, tmp_path)
    assert differences["crop_points_px"] < 1e-3


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_both_sides_augment_alike_and_draw_the_same_heatmaps(prepared: tuple, flip: float) -> None:
    differences = bench.check_batches(*prepared, Augmentation(flip=flip, shift=0.1))
    assert 0 < differences["heatmaps"] < 0.0112  # three sigma


def test_both_sides_decode_alike() -> None:
    heatmaps = bench.predicted_heatmaps(2, size=16, landmarks=20)
    assert max(bench.check_decoding(heatmaps).values()) < 1e-3


def test_the_checks_notice_a_pixel(prepared: tuple) -> None:
    images = prepared[1].images_NHWC
    assert bench._image_difference(images, images) == 0
    with refused(AssertionError, "pixel"):
        bench._image_difference(images, np.roll(images, 1, axis=2))


def test_samples_have_the_shapes_of_nasfaces_batches(prepared: tuple) -> None:
    dataset, faces = prepared
    samples = bench.PerImage(dataset.faces, 32, faces.scheme, Augmentation())
    images, points, heatmaps = next(iter(bench.loader(samples, 3, 0)))
    (batch, *_) = bench.on_device(faces, torch.device("cpu")).augmented(3, Augmentation(), torch.Generator())
    assert images.shape == batch.images_B3HW.shape
    assert points.shape == batch.landmarks_BL2.shape
    assert heatmaps.shape == bench.targets(points, (8, 8), 4, 1.5).shape
    assert images.dtype == heatmaps.dtype == torch.float32


def test_every_side_is_timed_and_shown(
    prepared: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = bench.loader
    monkeypatch.setattr(bench, "loader", lambda dataset, batch, workers: plain(dataset, batch, 0))  # start no process
    dataset, faces = prepared
    rows = bench.time_preparation(dataset, OPTIONS, tmp_path, 2, 1)
    rows += bench.time_batches(dataset, faces, Augmentation(), 3, 2, 1)
    rows += bench.time_decoding(bench.predicted_heatmaps(1, size=16, landmarks=3), 1)
    sides = {}
    for row in rows:
        sides.setdefault(row.section, []).append(row)
        assert row.seconds > 0
        assert row.spread[0] <= row.seconds <= row.spread[1]
    assert [len(of_section) for of_section in sides.values()] == [3, 5, 2, 2, 2, 2]
    assert all(of_section[0].ratio == 1 for of_section in sides.values())
    assert all("nasface" in of_section[0].side for of_section in sides.values())
    result = {"rows": [vars(row) for row in rows], "differences": {"points": 0.0}, "versions": {}}
    result |= dict.fromkeys(("data", "faces", "input_size", "rounds", "threads", "machine"), 1)
    bench.show(result)
    assert "per image from files" in capsys.readouterr().out


MINI = [f"space.options.{option}" for option in ("width=4", "stages=4", "resolutions=3", "depth=1", "stem_channels=8")]


def test_a_step_of_distillation_is_timed_against_its_networks(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipes.load("300w-mini", ["data.input_size=32", *MINI])
    result = distillation.benchmark(recipe, 2, 3, 1, torch.device("cpu"))
    sides = {row["side"]: row for row in result["rows"]}
    assert list(sides) == ["student 1 alone", "student 2 alone", "teacher alone", "sum of these", "joint step"]
    assert all(0 < row["fastest"] <= row["seconds"] <= row["slowest"] for row in sides.values())
    assert result["ratio"] > 0
    assert 0 < result["macs"]["student"] < result["macs"]["teacher"]
    distillation.show(result)
    assert f"{result['ratio']:.3f}" in capsys.readouterr().out


def test_each_side_of_a_step_does_its_part_and_no_more() -> None:
    recipe = recipes.load("300w-mini", ["data.input_size=32", *MINI])
    slim, supernet = distillation.networks(recipe, 0.5, torch.device("cpu"))
    sides = distillation.sides(recipe, slim, supernet, 2)
    reached = {}
    for name, side in sides.items():
        slim.zero_grad(set_to_none=True)
        side()
        reached[name] = [parameter.grad is not None for parameter in slim.parameters()]
    assert all(reached["student 1 alone"])
    assert not any(reached["student 2 alone"] + reached["teacher alone"])
    assert all(reached["joint step"])
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    seconds = {"a": [1.0, 1.0, 9.0], "b": [2.0, 1.0, 1.0], "c": [1.0, 2.0, 10.0], "joint step": [4.0, 8.0, 25.0]}
    result = distillation.summarised(seconds)
    assert result["ratio"] == 1.25  # of 1, 2 and 1.25
    assert result["within"]
    assert [row["seconds"] for row in result["rows"]] == [1, 1, 2, 4, 8]
    assert not distillation.summarised({**seconds, "joint step": [8.0, 8.0, 25.0]})["within"]


def test_the_share_of_a_sweep_inside_networks_is_measured(tmp_path: Path) -> None:
    small = (
        "data.options.train=48", "data.options.test=16", "data.input_size=32", "training.batch=16",
        "training.threads=1", "space.options.width=4", "space.options.stages=4", "space.options.resolutions=3",
    )  # fmt: skip
    found = sweep.profile(recipes.load("demo", small), 3, sweep.Machine("cpu", workers=1))
    assert found["networks"] == 3
    assert found["slim networks timed"] == 3
    assert 0 < found["seconds in slim networks"] < found["seconds"]
    assert found["share in slim networks"] < found["share in any network"] < 1


def test_scenes_hold_faces_of_every_size_where_they_say() -> None:
    pictures = list(detectors.synthetic(3, seed=1))
    for picture in pictures:
        assert 1 <= len(picture.boxes_K4) == len(picture.kinds_K) <= 5
        assert picture.image_HW3.shape == (480, 640, 3)
        assert detectors.detect.fits(picture.boxes_K4, np.array([640, 480])).all()
    again = next(detectors.synthetic(1, seed=1))
    np.testing.assert_array_equal(again.image_HW3, pictures[0].image_HW3)
    found = detectors.judge(["haar"], pictures)["haar"]
    assert found.recall > 0  # some face can be recognised as one


def test_detectors_are_judged_by_recall_and_false_faces() -> None:
    faces = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    others = np.array([[50.0, 50, 60, 60]])
    picture = detectors.Picture(np.zeros((4, 4, 3), np.uint8), faces, others, ["small", "large"], "a")
    tally = detectors.Tally()
    tally.add(picture, np.array([[1.0, 1, 10, 10], [51, 51, 60, 60], [80, 80, 90, 90]]), 0.5)
    tally.add(picture, np.empty((0, 4)), 0.5)
    assert (tally.pictures, tally.seconds, tally.recall) == (2, 1.0, 0.25)
    assert tally.found == {"small": [True, False], "large": [False, False]}
    assert tally.false == [("a", [80, 80, 90, 90])]
    assert detectors.iou(faces, np.array([[0.0, 0, 10, 5]])).ravel().tolist() == [0.5, 0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say how much memory is used")
def test_memory_and_time_of_faces_are_measured_wherever_they_lie() -> None:
    found = memory.measured("staged", count=20, input_size=32, steps=2, batch=4, read=8)
    assert found["peak_mib"] >= found["grown_mib"]
    assert found["file_gib"] > 0
    rows = memory.timed(count=8, input_size=32, batch=4, rounds=1)
    assert [row["side"] for row in rows] == [f"{what}, {k}" for k in memory.KINDS for what in ("inputs", "training")]
    assert all(row["seconds"] > 0 for row in rows)
    assert all(row["seconds_ratio"] == 1 for row in rows if "copied" in row["side"])


def test_ratios_of_exported_networks_are_between_like_and_like() -> None:
    seconds = {
        "eager, torch, f32": [8.0, 16.0, 9.0], "plain, onnxruntime, f32": [1.3, 2.0, 1.0],
        "ours, onnxruntime, f32": [1.0, 2.0, 1.0], "ours, openvino, f32": [0.5, 1.0, 1.0],
        "int8, openvino, f32": [0.25, 0.5, 0.5],
    }  # fmt: skip
    found = {(row["what"], row["how"]): (row["ratio"], row["met"]) for row in deploy.ratios(seconds)}
    assert found == {
        ("our fp32 export against its own eager speed", "onnxruntime, f32"): (8, True),
        ("our fp32 export against its own eager speed", "openvino, f32"): (16, True),
        ("our fp32 export against a plain export", "onnxruntime, f32"): (1, False),
        ("our int8 export against our fp32 export", "openvino, f32"): (2, True),
    }


def test_what_binds_a_network_is_the_slower_of_arithmetic_and_memory() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU())
    work = deploy.traffic(layers, 8, 2)
    maps = 2 * 8 * 8
    assert work == {"macs": maps * 4 * 3, "bytes": 4 * (maps * 3 + 4 * 3 + maps * 4 + 2 * maps * 4)}
    found = deploy.bound({"macs": 10, "bytes": 40}, {"macs": 100.0, "bytes": 200.0}, 0.4, 1.0)
    assert (found["binds"], found["share"], found["reachable"]) == ("memory", 0.5, 5)
    top = deploy.ceilings(1, 1)
    assert min(top.values()) > 1e6


def test_workers_are_timed_in_turn_and_do_all_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = ("data.options.train=32", "data.options.test=4", "data.options.size=64", "data.input_size=32")
    monkeypatch.setattr(workers, "SMALL", (*workers.SMALL, *faces, *MINI))
    rates = workers.measured((1, 2), parts=2, epochs=1, rounds=1)
    assert list(rates) == [1, 2]
    assert all(len(found) == 1 and found[0] > 0 for found in rates.values())
    workers.show({1: [10.0, 20.0, 30.0], 2: [15.0, 40.0, 45.0]})
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()][-2:] == [
        ["1", "worker(s):", "20.00"], ["2", "worker(s):", "40.00"],
    ]  # fmt: skip


def test_a_worker_that_leaves_parts_undone_is_no_measurement(tmp_path: Path) -> None:
    with refused(SystemExit, "0 of 2 parts"):
        workers.rate(tmp_path / "own", 0, 2, 1)


def test_the_slim_network_of_the_exports_is_the_published_one() -> None:
    published = edge_list(deploy.COFW.read_text(), "COFW")
    net = deploy.slim(width=2, depth=1, stem_channels=4)
    assert net.graph.edges == plugins.space("hrsupernet", {}).graph.keep(published).edges


def test_every_side_of_an_export_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(package, reason="needs the extras 'onnx' and 'openvino'")
    tiny = {"width": 2, "depth": 1, "stem_channels": 4}
    slim = plugins.space("hrsupernet", {**tiny, "stages": 3, "resolutions": 2})
    monkeypatch.setattr(deploy, "slim", partial(deploy.random_net, slim))
    monkeypatch.setattr(deploy, "hrnet", partial(deploy.hrnet, **tiny, modules=(1, 1)))
    found = deploy.measured(32, [1], 1, 1)
    sides = found["batches"][1]["ms"]
    assert [name.partition(", ")[0] for name in sides].count("ours") == 3
    assert len(sides) == 13
    assert {row["how"] for row in found["batches"][1]["ratios"]} == {
        "onnxruntime, f32", "openvino, f32", "openvino, its own",
    }  # fmt: skip
    deploy.show(found)
    shown = capsys.readouterr().out
    assert "GB/s" in shown
    assert "missed" in shown or "met" in shown
