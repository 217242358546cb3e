"""The page of an exported network in a real browser: it finds what PyTorch finds, and asks nobody but itself."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import nasface
from nasface import plugins
from nasface.data.base import Face
from nasface.data.crop import PrepareOptions, crop_face
from nasface.formats.web import page as page_files
from nasface.formats.web import runtime
from nasface.model.files import one
from nasface.stages.export.compare import Original
from nasface.stages.export.run import ExportOptions, NetworkAndFaces, export
from tests.chromium import launched, needs_chromium, playwright, watched
from tests.extras import needs_onnx
from tests.graphs import sharing_graphs
from tests.searched import MACHINE, caching_in, once

PACKAGE = Path(__file__).parents[2] / "build" / "onnxruntime-web" / "package"
pytestmark = [
    pytest.mark.slow,
    needs_chromium,
    needs_onnx,
    pytest.mark.skipif(not PACKAGE.is_dir(), reason=f"no {PACKAGE}; make web-runtime fetches it"),
]
SIZE = 360  # pixels of the pictures
NEAR = 0.5  # pixels


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def faces(count: int) -> list[np.ndarray]:
    dataset = plugins.dataset("synthetic", None, {"train": 0, "test": count, "size": SIZE})
    return [dataset.read(face) for face in dataset.index().faces]


@pytest.fixture(scope="module")
def folder(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported page, with its own copy of the runtime."""

    def make(folder: Path) -> None:
        with caching_in(searched), sharing_graphs(tmp_path_factory):
            export(NetworkAndFaces(one(searched / "run")), ExportOptions("web", local_runtime=PACKAGE), folder, MACHINE)

    return once(tmp_path_factory, "web-page", make)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """The address at which the page is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium whose camera shows a synthetic face that moves sideways."""
    video = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    still = Image.fromarray(faces(1)[0])
    with video.open("wb") as file:
        for frame in range(20):
            moved = Image.new("RGB", (480, SIZE))
            moved.paste(still, (6 * min(frame, 20 - frame), 0))
            moved.save(file, "jpeg", quality=95)
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with playwright.sync_playwright() as driver:
        browser = launched(driver, *camera, f"--use-file-for-fake-video-capture={video}")
        yield browser
        browser.close()


@pytest.fixture(scope="module", params={"desktop": 1280, "phone": 360}.items(), ids=lambda param: param[0])
def page(request: pytest.FixtureRequest, browser: Any, site: str) -> Iterator[Any]:
    """The page at each width, loaded; nothing may appear on the console, and nobody else may be asked."""
    name, width = request.param
    with watched(browser, width, name == "phone", 30_000) as (page, asked):
        page.goto(site)
        page.locator("body.ready").wait_for()
        yield page
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert [url for url in asked if not url.startswith((site, "data:", f"blob:{site}"))] == []


def status(page: Any, text: str) -> None:
    page.locator("#status", has_text=text).wait_for()


def give(page: Any, pixels: np.ndarray, name: str = "face.png") -> None:
    """Choose a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": file.getvalue()})


def saved(page: Any) -> pd.DataFrame:
    """The table of landmarks that the page offers."""
    with page.expect_download() as download:
        page.click("#save")
    return pd.read_csv(download.value.path())


def box_of(table: pd.DataFrame) -> np.ndarray:
    return table[["x0", "y0", "x1", "y1"]].to_numpy()


def check(searched: Path, pixels: np.ndarray, table: pd.DataFrame) -> None:
    """Compare the landmarks with those that PyTorch finds in the same boxes."""
    model = nasface.load(searched / "run")
    count = model.view.scheme.num_landmarks
    ours = model.find([pixels], [box_of(table)])[0]
    theirs = table[[f"lm{i}_{axis}" for i in range(count) for axis in "xy"]].to_numpy().reshape(-1, count, 2)
    far = np.linalg.norm(theirs - ours.landmarks_KL2, axis=2)
    decided = ~undecided(model, pixels, box_of(table))
    assert decided.mean() > 0.9
    assert far[decided].max() <= NEAR
    np.testing.assert_allclose(table["score"], ours.scores_K, atol=2e-3)


def undecided(model: nasface.Model, pixels: np.ndarray, boxes_K4: np.ndarray) -> np.ndarray:
    """The landmarks (K, L) that rounding decides, so that PyTorch itself would move them."""
    original = Original(model.module, model.view)
    crops = [cropped(pixels, box, model.view.crop).image for box in boxes_K4]
    return original.undecided(original.heatmaps(np.stack(crops)))


def cropped(pixels: np.ndarray, box: np.ndarray, options: PrepareOptions) -> Any:
    x0, y0, x1, y1 = box.tolist()
    return crop_face(pixels, Face("face", "test", (), box.reshape(2, 2), None, (x0, y0, x1 - x0, y1 - y0)), 2, options)


# --- a picture


def test_a_picture_gets_the_landmarks_of_pytorch(page: Any, searched: Path):
    pixels = faces(1)[0]
    give(page, pixels)
    status(page, "Found one face")
    table = saved(page)
    assert list(table["image"]) == ["face.png"]
    check(searched, pixels, table)
    box = page.locator(".box").bounding_box()
    view = page.locator("#view").bounding_box()
    x0, y0, x1, _ = box_of(table)[0] + 0.5
    scale = view["width"] / SIZE
    assert box["x"] == pytest.approx(view["x"] + scale * x0, abs=1)
    assert box["y"] == pytest.approx(view["y"] + scale * y0, abs=1)
    assert box["width"] == pytest.approx(scale * (x1 - x0), abs=1)


def test_a_box_can_be_dragged_resized_and_removed(page: Any, searched: Path):
    pixels = faces(1)[0]
    give(page, pixels)
    status(page, "Found one face")
    page.locator(".box").focus()
    page.keyboard.press("Delete")  # a network that is barely trained can shrink what was found to a line
    page.click("#add")
    status(page, "Put the box around a face")
    before = box_of(saved(page))[0]
    box = page.locator(".box")
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] * 0.8)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] / 2 + 12, place["y"] + place["height"] * 0.8 + 6, steps=4)
    page.mouse.up()
    scale = SIZE / page.locator("#view").bounding_box()["width"]
    page.wait_for_timeout(500)  # the network follows
    moved = saved(page)
    np.testing.assert_allclose(box_of(moved)[0] - before, scale * np.array([12, 6, 12, 6]), atol=0.01)
    check(searched, pixels, moved)
    box.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    page.wait_for_timeout(500)
    resized = saved(page)
    assert np.ptp(box_of(resized)[0][::2]) == pytest.approx(1.05 * np.ptp(box_of(moved)[0][::2]), abs=0.01)
    check(searched, pixels, resized)
    box.focus()
    page.keyboard.press("Delete")
    assert page.locator(".box").count() == 0
    assert page.locator("#save").is_disabled()
    page.click("#add")
    status(page, "Put the box around a face")
    check(searched, pixels, saved(page))


def test_two_faces_are_both_found(page: Any, searched: Path):
    both = np.concatenate(faces(2), axis=1)
    give(page, both)
    status(page, "Found 2 faces")
    check(searched, both, saved(page))


def test_what_is_no_picture_is_refused_and_a_picture_without_a_face_gets_a_box(page: Any):
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    status(page, "notes.txt cannot be read as a picture")
    give(page, np.full((80, 120, 3), 200, np.uint8))
    status(page, "No face was found")
    page.click("#add")
    page.locator(".box").wait_for()


@pytest.mark.parametrize("page", [("desktop", 1280)], indirect=True, ids=["desktop"])
def test_crops_are_those_of_nasface_bit_for_bit(page: Any):
    random = np.random.default_rng(0)
    for height, width in ((240, 320), (1300, 900), (60, 90)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        sides = random.uniform(5, 1.5 * max(height, width), (8, 2))
        middles = random.uniform(0, 1, (8, 2)) * (width, height)
        boxes = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
        found = page.evaluate(_CROPS, [base64.b64encode(file.getvalue()).decode(), boxes.tolist()])
        for box, (values, point) in zip(boxes, found, strict=True):
            crop = cropped(pixels, box, PrepareOptions(64, margin=1, box="provided", box_scale=1.25))
            theirs = np.frombuffer(base64.b64decode(values), np.uint8).reshape(64, 64, 3)
            np.testing.assert_array_equal(theirs, crop.image)
            np.testing.assert_allclose(point, crop.to_original_23 @ (3, 5, 1), atol=1e-9)


# as text, since lists of millions of numbers take the browser's driver half a minute
_CROPS = """async ([file, boxes]) => {
  const { crop } = await import("./crop.js");
  const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return boxes.map((box) => {
    const { pixels, toPicture } = crop(context, box, { inputSize: 64, boxScale: 1.25 });
    return [btoa(String.fromCharCode(...new Uint8Array(pixels.buffer))), toPicture([3, 5])];
  });
}"""


# --- the camera


def test_the_camera_says_frames_a_second(page: Any):
    page.click("#camera")
    # a network that is hardly trained loses the face now and then, and the detector finds it again
    page.locator("#rate", has_text=re.compile("[1-9]")).wait_for()
    page.locator(".box").first.wait_for()
    assert page.locator("#stage").get_attribute("class") == "mirrored"
    page.click("#camera")
    status(page, "The camera is off")
    assert page.locator("#camera").inner_text() == "Use the camera"
    assert page.locator(".box").count() == int(page.locator("#faces").inner_text())


# --- other pages


@pytest.fixture
def other(browser: Any) -> Iterator[Any]:
    """A page that is not loaded yet."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


def serve_instead(page: Any, name: str, body: str | bytes, kind: str) -> None:
    page.route(f"**/{name}", lambda route: route.fulfill(body=body, content_type=kind))


def test_a_page_without_a_detector_gives_a_box(other: Any, site: str, folder: Path, searched: Path):
    index = (folder / "index.html").read_text()
    settings = re.search(r'id="settings">(.*?)</script>', index)
    assert settings
    bare = json.dumps({**json.loads(settings[1]), "detector": None})
    serve_instead(other, "index.html", index.replace(settings[1], bare), "text/html")
    other.goto(f"{site}index.html")
    pixels = faces(1)[0]
    give(other, pixels)
    status(other, "Put the box around a face")
    check(searched, pixels, saved(other))
    other.click("#camera")
    status(other, "Following one face")
    other.locator("#rate", has_text=re.compile("[1-9]")).wait_for()


def test_the_runtime_of_the_file_host_is_run(other: Any, site: str, folder: Path):
    about = (folder / "card.json").read_text()
    index = page_files.files("slim-fp32.onnx", about, local=False)[page_files.INDEX]
    serve_instead(other, "index.html", index, "text/html")
    asked = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        headers = {"access-control-allow-origin": "*"}
        route.fulfill(path=folder / route.request.url.rpartition("/")[2], headers=headers)

    other.route(f"{runtime.SITE}*", answer)
    other.goto(f"{site}index.html")
    other.locator("body.ready").wait_for()
    assert sorted(asked) == sorted(runtime.SITE + name for name in runtime.INTEGRITY)


@pytest.mark.parametrize("name", [runtime.SCRIPT, runtime.WASM])
def test_a_runtime_that_has_been_changed_is_not_run(name: str, other: Any, site: str, folder: Path):
    serve_instead(other, name, (folder / name).read_bytes() + b"\n", "text/plain")
    other.goto(site)
    other.locator("#status.bad", has_text="could not be loaded").wait_for()


def test_nothing_can_be_sent_elsewhere(other: Any, site: str):
    other.goto(site)
    tried = other.evaluate(
        "fetch('https://example.org/', { method: 'POST', body: 'face' }).then(() => 'sent', () => 'refused')"
    )
    assert tried == "refused"
