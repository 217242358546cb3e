"""Landmarks in images and videos: the network on given boxes, and the files that the command reads and writes."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from nasface import detect, metrics, videos
from nasface import recipe as recipes
from nasface.arch import Architecture
from nasface.data.synthetic import Synthetic
from nasface.detect import FoundFaces
from nasface.errors import DataError
from nasface.model import Model, View
from nasface.model.runtime import TorchRuntime
from nasface.net import GraphNet
from nasface.recipe import Recipe
from nasface.stages import faces as loading
from nasface.stages import measure as measuring
from nasface.stages.predict import pictures as sources
from nasface.stages.predict.pictures import Picture
from nasface.stages.predict.run import FaceSearch, Seen, Viewer, predict_files
from nasface.stages.workspace import Machine
from tests.refusal import names, refused
from tests.tiny import scrambled, supernet

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
NET = scrambled(supernet(), 68)


def recipe(input_size: int = 32, faces: int = 4, size: int = 96, **task: Any) -> Recipe:
    options = {"width": 4, "depth": 1, "stages": 4, "resolutions": 3, "stem_channels": 8}
    data = {"name": "synthetic", "input_size": input_size, "options": {"train": 1, "test": faces, "size": size}}
    content = {"space": {"name": "hrsupernet", "options": options}, "data": data, "task": {"decoder": "dark", **task}}
    return recipes.resolve(content, "a test's recipe")


def model(how: Recipe | None = None, net: GraphNet = NET) -> Model:
    how = how or recipe()
    full = net.space.graph
    arch = Architecture(how.space.name, how.space.options, 68, how.data.input_size, full.digest, full.edges)
    return Model(TorchRuntime(net, View.of(how)), arch, View.of(how))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(one: FoundFaces, other: FoundFaces) -> None:
    for name, values in vars(one).items():
        np.testing.assert_allclose(values, vars(other)[name], atol=2e-3, err_msg=name)


# --- faces


@pytest.mark.parametrize(
    ("input_size", "size", "task"),
    [(32, 96, {}), (32, 96, {"flip_test": True}), (16, 192, {"decoder": "soft"})],  # the last one shrinks by 2 first
)
def test_landmark_boxes_give_the_landmarks_and_the_nme_of_evaluate(input_size: int, size: int, task: dict[str, Any]):
    how = recipe(input_size, size=size, **task)
    faces = loading.load_faces(how, CPU, Machine(workers=1), training=False)
    prepared = faces.prepared["test"]
    in_input_NL2 = measuring.recipe_landmarks(NET, how, faces.test)
    way_N23 = prepared.to_original_N23
    wanted_NL2 = (in_input_NL2 + prepared.pad) @ way_N23[:, :, :2].transpose(0, 2, 1) + way_N23[:, None, :, 2]

    dataset = Synthetic(None, **how.data.options)
    test = [face for face in dataset.index().faces if face.split == "test"]
    true_NL2 = np.stack([face.landmarks_L2 for face in test])
    boxes_N4 = detect.landmark_boxes(true_NL2)
    found = model(how).find([dataset.read(face) for face in test], list(boxes_N4[:, None]))
    found_NL2 = np.concatenate([faces.landmarks_KL2 for faces in found])
    np.testing.assert_allclose(found_NL2, wanted_NL2, atol=1e-3)
    groups = {"inter_ocular": dataset.scheme.inter_ocular}
    nme_N = metrics.nme(found_NL2, true_NL2, metrics.distances(true_NL2, "inter_ocular", groups))
    wanted_N = [row["nme_inter_ocular"] for row in measuring.measure("net", in_input_NL2, prepared).faces]
    np.testing.assert_allclose(nme_N, wanted_N, rtol=1e-4)


def test_faces_of_many_images_are_batched_and_come_back_in_order():
    images = [noise(60, 80), noise(90, 70, 1), noise(50, 50, 2)]
    boxes = [np.array([[10, 10, 40, 45], [30, 5, 70, 50]]), np.empty((0, 4)), np.array([[-5, 3, 30, 40]])]
    together = model().find(images, boxes, batch=2)
    assert [len(faces) for faces in together] == [2, 0, 1]
    assert [faces.numbers_K.tolist() for faces in together] == [[0, 1], [], [0]]
    for image, of_image, faces in zip(images, boxes, together, strict=True):
        alone = [model().find([image], [box[None]])[0] for box in of_image]
        for i, one in enumerate(alone):
            same(faces.take(np.array([i])), FoundFaces(*list(vars(one).values())[:3], np.array([i])))
    assert model().find([], []) == []


def test_landmarks_move_with_the_face():
    picture = noise(50, 60)
    moved = np.zeros((90, 100, 3), np.uint8)
    moved[20:70, 30:90] = picture
    box, way = np.array([[10.0, 10, 40, 38]]), np.array([30.0, 20])
    here, there = model().find([picture, moved], [box, box + np.tile(way, 2)])
    np.testing.assert_allclose(there.landmarks_KL2, here.landmarks_KL2 + way, atol=2e-3)
    np.testing.assert_allclose(there.scores_K, here.scores_K, atol=1e-4)


def test_the_score_is_the_mean_peak_of_the_heatmaps():
    picture, how = noise(32, 32), recipe()
    net = scrambled(supernet(), 68, seed=3)
    with torch.no_grad():
        net.head.heatmaps.weight.zero_()
        net.head.heatmaps.bias.copy_(torch.linspace(0, 1, 68))
    (faces,) = model(how, net).find([picture], [np.array([[2, 2, 29, 29]])])
    assert faces.scores_K == pytest.approx([0.5])
    np.testing.assert_allclose(faces.confidences_KL, np.linspace(0, 1, 68)[None], atol=1e-6)


def test_refinement_looks_again_in_the_box_of_the_own_landmarks():
    picture, box = noise(70, 70), np.array([[15.0, 15, 50, 50]])
    (first,) = model().find([picture], [box])
    own = detect.landmark_boxes(first.landmarks_KL2)
    (second,) = model().find([picture], [own])
    (refined,) = model().find([picture], [box], refine=1)
    assert not np.allclose(first.landmarks_KL2, second.landmarks_KL2)
    same(refined, second)
    assert first.boxes_K4.tolist() == box.tolist()


def test_a_box_outside_its_image_is_refused():
    with refused(DataError, "[50.0, 0.0, 60.0, 10.0]", "image 1", "40 x 30"):
        model().find([noise(99, 99), noise(30, 40)], [np.empty((0, 4)), np.array([[50, 0, 60, 10]])])


def test_a_box_at_the_edge_of_an_image_is_looked_at_wherever_its_square_lies():
    boxes = np.array([[-60, 55, 40, 155], [95, 95, 180, 180], [10, 10, 60, 60]])
    (found,) = model().find([noise(100, 100)], [boxes])
    assert np.isfinite(found.landmarks_KL2).all()
    (alone,) = model().find([noise(100, 100)], [boxes[2:]])
    np.testing.assert_allclose(found.landmarks_KL2[2], alone.landmarks_KL2[0], atol=1e-3)


def test_a_detector_of_ones_own_is_checked():
    scored = np.array([[10, 10, 60, 60, 0.9], [70, 10, 90, 60, 0.9], [10, 70, 60, 90, 0.9], [70, 70, 90, 90, 0.9]])
    for wrong, fact in ((scored, "(4, 5)"), (None, "()")):
        with refused(DataError, "the detector failed", fact, "(K, 4)"):
            model().predict(noise(100, 100), detector=lambda _, wrong=wrong: wrong)


# --- files


def write(path: Path, image: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **how)
    return path


def viewer(find: sources.Find, **settings: Any) -> Viewer:
    return Viewer(model(), find, FaceSearch(**{"min_score": None, "refine": 0} | settings), Machine(workers=1))


def middle(picture: Picture, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array([[width * 0.2, height * 0.2, width * 0.8, height * 0.8]])


def test_pictures_are_found_in_folders_once_and_in_order(tmp_path: Path, caplog):
    for name in ("b.jpg", "a/z.PNG", "a/c.webp", "a/c.bmp", ".hidden.png", "a/.cache/x.png", "out/overlays/b.jpg"):
        write(tmp_path / name, noise(8, 8))
    for name in ("notes.txt", "film.MP4"):
        (tmp_path / name).write_text("")
    (tmp_path / "empty").mkdir()
    found = sources.find_pictures(
        [tmp_path / "b.jpg", tmp_path, tmp_path / "notes.txt", tmp_path / "empty"], tmp_path / "out" / "overlays"
    )
    paths = [picture.path.relative_to(tmp_path).as_posix() for picture in found]
    assert paths == ["b.jpg", "a/c.bmp", "a/c.webp", "a/z.PNG", "film.MP4", "notes.txt"]
    assert [picture.name for picture in found] == ["b", "a/c", "a/c-2", "a/z", "film", "notes"]
    assert [picture.is_video for picture in found] == [False] * 4 + [True, False]
    assert [tmp_path / "empty"] == [record.args[0] for record in caplog.records]
    with refused(DataError, tmp_path / "absent"):
        sources.find_pictures([tmp_path / "absent"])


def test_images_are_turned_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right to show it
    lying = np.zeros((20, 30, 3), np.uint8)
    lying[:, :10] = 255  # the left is up
    path = write(tmp_path / "a.png", lying, exif=exif)
    (seen,) = viewer(middle).images([Picture(path, "a")])
    assert seen.image_HW3.shape == (30, 20, 3)
    assert seen.image_HW3[:10].min() == 255
    assert seen.image_HW3[10:].max() == 0


def test_grey_and_transparent_images_are_rgb(tmp_path: Path):
    Image.new("LA", (20, 20), (77, 0)).save(tmp_path / "a.png")
    (seen,) = viewer(middle).images([Picture(tmp_path / "a.png", "a")])
    assert (seen.image_HW3.shape, seen.image_HW3.max()) == ((20, 20, 3), 77)


def test_deep_images_keep_their_upper_bits(tmp_path: Path, caplog):
    grey = noise(20, 20)[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.pgm")
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tiff")
    pictures = [Picture(tmp_path / name, name) for name in ("deep.png", "deep.pgm", "float.tiff")]
    for seen in viewer(middle).images(pictures):
        np.testing.assert_array_equal(seen.image_HW3, np.repeat(grey[..., None], 3, axis=2))
    names(caplog.messages[-1], "float.tiff", "32 bits")


def test_files_and_summary_say_what_was_found(tmp_path: Path, caplog):
    paths = [write(tmp_path / f"{i}.png", noise(40 + i, 50, i)) for i in range(5)]
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    pictures = sources.find_pictures([*paths, tmp_path / "torn.jpg"])
    shown: list[Seen] = []

    def two_but_in_3(picture: Picture, image: np.ndarray) -> np.ndarray:
        outside = [[500.0, 0, 600, 100]] if picture.name == "0" else []
        return np.array([*([] if picture.name == "3" else [[5.0, 5, 30, 30], [20, 10, 45, 35]]), *outside]).reshape(
            -1, 4
        )

    report = predict_files(viewer(two_but_in_3, batch=3), pictures, tmp_path / "out", shown.append)
    counts = {"images": 5, "frames": 0, "unreadable": 1, "without_face": 1, "faces": 8}
    assert {key: report["summary"][key] for key in counts} == counts
    assert report == json.loads((tmp_path / "out" / "landmarks.json").read_text())
    assert [entry["image"] for entry in report["images"]] == [path.as_posix() for path in paths]
    assert [(entry["width"], entry["height"]) for entry in report["images"]] == [(50, 40 + i) for i in range(5)]
    assert [len(seen.faces) for seen in shown] == [2, 2, 2, 0, 2]
    warnings = [record.getMessage() for record in caplog.records]
    for facts in ([tmp_path / "torn.jpg"], [paths[0], "1 face boxes"], ["1 of 5", paths[3].as_posix()]):
        (warning,) = [text for text in warnings if str(facts[-1]) in text]
        names(warning, *facts)

    table = pd.read_csv(tmp_path / "out" / "landmarks.csv")
    points = [f"lm{i}_{axis}" for i in range(68) for axis in "xy"]
    sure = [f"lm{i}_confidence" for i in range(68)]
    assert list(table) == ["image", "frame", "face", "x0", "y0", "x1", "y1", "score", *points, *sure]
    assert table["face"].tolist() == [0, 1] * 4
    for i, (index, k) in enumerate((index, k) for index in (0, 1, 2, 4) for k in range(2)):
        face = report["images"][index]["faces"][k]
        np.testing.assert_allclose(table.loc[i, points].to_numpy(float).reshape(68, 2), face["landmarks"])
        assert table.loc[i, ["x0", "y0", "x1", "y1"]].tolist() == face["box"]
        np.testing.assert_allclose(face["landmarks"], shown[index].faces.landmarks_KL2[k], atol=5.01e-4)


def test_the_csv_serves_as_boxes_again(tmp_path: Path):
    path = write(tmp_path / "a.png", noise(50, 50))
    first = predict_files(viewer(middle, refine=2), sources.find_pictures([path]), tmp_path / "one")
    pictures, find = sources.by_file(tmp_path / "one" / "landmarks.csv", [], [])
    again = predict_files(viewer(find), pictures, tmp_path / "two")
    np.testing.assert_allclose(
        again["images"][0]["faces"][0]["landmarks"], first["images"][0]["faces"][0]["landmarks"], atol=2e-3
    )


def test_doubles_and_low_scores_are_dropped_for_detectors_only(tmp_path: Path):
    pictures = sources.find_pictures([write(tmp_path / "a.png", noise(50, 50))])

    def twice(picture: Picture, image: np.ndarray) -> np.ndarray:
        return np.repeat(middle(picture, image), 2, axis=0)

    assert len(next(viewer(twice).images(pictures)).faces) == 2
    assert len(next(viewer(twice, min_score=-1e9).images(pictures)).faces) == 1
    with refused(DataError, "1 images", "--min-score", "--detector", "--boxes"):
        predict_files(viewer(twice, min_score=1e9), pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_look_at_is_refused(tmp_path: Path, caplog):
    with refused(DataError, "no image or video"):
        predict_files(viewer(middle), [], tmp_path / "out")
    (tmp_path / "a.jpg").write_text("x")
    with refused(DataError, tmp_path / "a.jpg"):
        predict_files(viewer(middle), sources.find_pictures([tmp_path / "a.jpg"]), tmp_path / "out")
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def boxes_file(path: Path, *names: str) -> Path:
    path.write_text("image,x0,y0,x1,y1\n" + "".join(f"{name},{i},1,20,20\n" for i, name in enumerate(names)))
    return path


def test_boxes_are_matched_by_path_by_the_file_and_by_the_folders_given(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for name in ("in/deep/a.png", "in/b.png", "lists/c.png", "d.png"):
        write(tmp_path / name, noise(30, 30))
    file = boxes_file(Path("lists/boxes.csv"), "deep/a.png", "b.png", "c.png", "d.png", "in/b.png", "gone.png")
    inputs = [Path("in"), Path("lists/c.png"), Path("d.png")]
    pictures, find = sources.by_file(file, inputs, sources.find_pictures(inputs))
    firsts = {p.path.as_posix(): find(p, noise(30, 30))[:, 0].tolist() for p in pictures}
    assert firsts == {"in/b.png": [1, 4], "in/deep/a.png": [0], "lists/c.png": [2], "d.png": [3]}
    assert [(file, "gone.png")] == [record.args for record in caplog.records]
    alone, _ = sources.by_file(file, [], [])
    assert [p.path.as_posix() for p in alone] == ["lists/c.png", "d.png", "in/b.png"]
    with refused(DataError, tmp_path / "other.csv"):
        sources.by_file(boxes_file(tmp_path / "other.csv", "d.png"), inputs[:1], sources.find_pictures(inputs[:1]))
    with refused(DataError, "film.mp4", "--boxes"):
        sources.by_file(file, inputs, [Picture(Path("film.mp4"), "film")])
    Path("film.mp4").touch()
    with refused(DataError, "film.mp4", "--boxes"):
        sources.by_file(boxes_file(Path("film.csv"), "film.mp4"), [], [])
    write(tmp_path / "b.png", noise(30, 30))  # in/b.png is what was asked for
    pictures, find = sources.by_file(file, [Path("in/b.png")], sources.find_pictures([Path("in/b.png")]))
    assert [find(picture, noise(30, 30))[:, 0].tolist() for picture in pictures] == [[1, 4]]


def test_videos_are_tracked_drawn_and_numbered(tmp_path: Path):
    cv2 = pytest.importorskip("cv2")
    from nasface.report.overlay import overlays

    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    for _ in range(4):
        writer.write(np.full((48, 64, 3), 120, np.uint8))
    writer.release()
    write(tmp_path / "a.png", noise(40, 40))
    (tmp_path / "torn.mp4").write_text("x")
    looks = []

    def find(picture: Picture, image: np.ndarray) -> np.ndarray:
        looks.append(picture.name)
        return middle(picture, image)

    pictures = sources.find_pictures([tmp_path])
    with overlays(tmp_path / "drawn") as show:
        report = predict_files(viewer(find), pictures, tmp_path / "out", show)
    assert looks[:2] == ["a", "film"]
    counts = {"images": 1, "frames": 4, "unreadable": 1}
    assert {key: report["summary"][key] for key in counts} == counts
    assert report["summary"]["frames_per_second"] >= 4 / (report["summary"]["seconds"] + 1e-3)
    assert [entry.get("frame") for entry in report["images"]] == [None, 0, 1, 2, 3]
    assert pd.read_csv(tmp_path / "out" / "landmarks.csv", dtype=str)["frame"].fillna("").tolist()[:2] == ["", "0"]
    assert videos.probe(tmp_path / "drawn" / "film.mp4") == (4, 12)
    with Image.open(tmp_path / "drawn" / "a.png") as drawn:
        assert drawn.size == (40, 40)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "film.mp4"]


def test_a_video_that_ends_too_soon_is_told(tmp_path: Path, caplog):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    for i in range(40):
        writer.write(noise(48, 64, i))
    writer.release()
    whole = predict_files(viewer(middle), [Picture(path, "film")], tmp_path / "whole")
    assert (whole["summary"]["frames"], whole["summary"]["cut_short"]) == (40, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = predict_files(viewer(middle), [Picture(path, "film")], tmp_path / "cut")
    assert 0 < cut["summary"]["frames"] < 30
    assert cut["summary"]["cut_short"] == 1
    names(caplog.messages[-1], "film.avi ends after", "of its 40 frames")


def test_a_failed_video_leaves_no_file(tmp_path: Path):
    pytest.importorskip("cv2")
    from nasface.report.overlay import overlays
    from tests.unit.test_detect import write_video

    film = Picture(write_video(tmp_path / "film.avi", [0, 1]), "film")
    none = FoundFaces(np.empty((0, 4)), np.empty((0, 68, 2)), np.empty((0, 68)), np.empty(0, np.int64))
    with pytest.raises(KeyError), overlays(tmp_path / "drawn") as show:  # noqa: PT012
        show(Seen(film, 0, noise(16, 32), none))
        raise KeyError
    assert list((tmp_path / "drawn").iterdir()) == []


def test_points_and_box_are_drawn_where_they_are():
    from nasface.report.overlay import BOX, POINT, draw

    image = np.zeros((60, 60, 3), np.uint8)
    faces = FoundFaces(np.array([[10.0, 20, 50, 55]]), np.array([[[30.0, 40]]]), np.ones((1, 1)), np.zeros(1, np.int64))
    drawn = draw(image, faces)
    assert tuple(drawn[40, 30]) == POINT
    assert {tuple(drawn[y, x]) for y, x in ((20, 30), (55, 30), (37, 10), (37, 50))} == {BOX}
    assert drawn[25, 15].max() == 0
    assert image.max() == 0
