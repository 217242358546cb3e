"""The folder of --format web: its files, what the page is allowed to do, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import nasface
from nasface import detect
from nasface.cli import main
from nasface.errors import RunError
from nasface.formats.web import page, runtime
from nasface.stages.export.run import ExportOptions
from tests.extras import needs_onnx
from tests.refusal import command_refuses, names, refused
from tests.searched import caching_in, once

pytestmark = [pytest.mark.usefixtures("graphs_once"), needs_onnx]

VIEW = {"input_size": 64, "box_scale": 1.25, "scheme": {"num_landmarks": 2, "contours": [[0, 1]]}}
ABOUT: dict[str, Any] = {
    "card": {
        "view": VIEW,
        "architecture": {"space": "a<b"},
        "training": {"dataset": "</script><b>", "licence": "CC & co"},
    },
    "precision": "int8",
    "inputs": "uint8",
    "outputs": "landmarks",
    "costs": {"params": 1234, "macs": 56789, "edges": 7},
}


def files(local: bool = False) -> dict[str, bytes]:
    return page.files("net-int8.onnx", json.dumps(ABOUT), local)


def settings(index: bytes) -> dict[str, Any]:
    found = re.search(rb'<script type="application/json" id="settings">(.*?)</script>', index, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def policy(index: bytes) -> dict[str, list[str]]:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', index.decode().replace("&#39;", "'"))
    assert found
    parts = (part.split() for part in found[1].split(";"))
    return {name: sources for name, *sources in parts}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose files have the hashes that are expected."""
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    for name in runtime.INTEGRITY:
        (dist / name).write_text(f"this is {name}")
        monkeypatch.setitem(runtime.INTEGRITY, name, runtime.integrity(f"this is {name}".encode()))
    return dist.parent


@pytest.mark.parametrize("local", [False, True])
def test_a_page_may_load_itself_and_the_pinned_runtime_only(local: bool):
    index = files(local)[page.INDEX]
    allowed = policy(index)
    assert allowed["default-src"] == ["'none'"]
    assert allowed["script-src"] == ["'self'", "blob:", "'wasm-unsafe-eval'"]
    assert allowed["connect-src"] == ["'self'"] + ([] if local else [runtime.SITE])
    assert runtime.VERSION in runtime.SITE
    for part, name in (("script", runtime.SCRIPT), ("wasm", runtime.WASM)):
        assert settings(index)["runtime"][part] == {
            "url": name if local else runtime.SITE + name,
            "integrity": runtime.INTEGRITY[name],
        }
    assert (b"cdn.jsdelivr.net" in index) is not local
    outside = set(re.findall(rb"https?://[^\s\"'<]+", index)) - {runtime.SITE.encode(), runtime.SITE.encode() + b";"}
    assert not {url for url in outside if not url.startswith(runtime.SITE.encode())}


def test_texts_of_the_card_cannot_become_markup():
    index = files()[page.INDEX].decode()
    assert "<b>" not in index
    assert "&lt;/script&gt;&lt;b&gt;" in index
    assert "CC &amp; co" in index


def test_the_page_names_what_lies_beside_it():
    found = files()
    own = {*found, "net-int8.onnx"}
    texts = {name: content.decode() for name, content in found.items() if name.endswith((".html", ".js"))}
    linked = {
        name
        for text in texts.values()
        for name in re.findall(r'(?:href|src)="([^":]+)"|from "\./([^"]+)"', text)
        for name in name
        if name
    }
    assert linked <= own
    assert {*page.SCRIPTS, "style.css", "licences.txt", "card.json"} <= own
    assert json.loads(found["card.json"]) == ABOUT
    assert list(found)[-1] == page.INDEX
    assert settings(found[page.INDEX])["view"] == {"inputSize": 64, "boxScale": 1.25}


def test_yunet_takes_pictures_of_any_size_and_comes_with_its_licence():
    if detect.yunet_weights() is None:
        pytest.skip("needs the extra 'predict'")
    import numpy as np
    import onnxruntime

    found = files()
    session = onnxruntime.InferenceSession(found["yunet.onnx"])
    outputs = session.run(["cls_8", "bbox_32"], {"input": np.zeros((1, 3, 96, 160), np.float32)})
    assert [output.shape for output in outputs] == [(1, 12 * 20, 1), (1, 3 * 5, 4)]
    licences = found["licences.txt"].decode()
    assert "Shenzhen Institute" in licences
    assert "Permission is hereby granted" in licences
    assert settings(found[page.INDEX])["detector"]["turns"] == list(detect.YUNET_LOOK.turns)


def test_without_the_weights_of_a_detector_the_page_has_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(detect, "yunet_weights", lambda: None)
    found = files()
    assert "yunet.onnx" not in found
    assert settings(found[page.INDEX])["detector"] is None
    assert "YuNet" not in found["licences.txt"].decode()


# --- what is refused, and the command


def test_a_runtime_that_is_missing_or_another_version_is_refused(package: Path, tmp_path: Path):
    def refuse(folder: Path, *facts: object) -> None:
        with refused(RunError, f"npm pack onnxruntime-web@{runtime.VERSION}", *facts):
            ExportOptions("web", local_runtime=folder).format()

    empty = tmp_path / "empty"
    empty.mkdir()
    refuse(empty, empty / "dist" / runtime.SCRIPT, "No such file")
    refuse(tmp_path / "nowhere", tmp_path / "nowhere" / "dist" / runtime.SCRIPT, "No such file")
    changed = package / "dist" / runtime.WASM
    changed.write_text("another version")
    refuse(package, changed, runtime.VERSION, "hash")


def test_formats_without_a_runtime_of_their_own_refuse_one(package: Path):
    with refused(RunError, "--local-runtime", "onnx", "--format web"):
        ExportOptions("onnx", local_runtime=package).format()


@pytest.mark.slow
def test_the_folder_is_a_page_and_its_network_is_used_like_any_other(
    searched: Path, tmp_path_factory: pytest.TempPathFactory, package: Path
):
    def make(folder: Path) -> None:
        with caching_in(searched):
            options = ["--format", "web", "--local-runtime", package, "--out", folder, "--quiet"]
            done = CliRunner().invoke(main, ["export", str(searched / "run"), *map(str, options)])
        assert done.exit_code == 0, done.output
        assert f"written: {folder / 'index.html'}" in done.output

    folder = once(tmp_path_factory, "web-folder", make)
    wanted = {
        "slim-fp32.onnx",
        *page.SCRIPTS,
        *runtime.INTEGRITY,
        "index.html",
        "style.css",
        "card.json",
        "licences.txt",
    }
    assert wanted <= {path.name for path in folder.iterdir()} <= {*wanted, "yunet.onnx"}
    model = nasface.load(folder / "slim-fp32.onnx")
    assert model.view.scheme.num_landmarks == settings((folder / "index.html").read_bytes())["landmarks"]
    card = json.loads((folder / "card.json").read_text())
    assert card["card"]["view"]["input_size"] == model.view.input_size


@pytest.mark.slow
def test_other_ends_and_a_page_of_the_users_own_are_refused(searched: Path, tmp_path: Path):
    run = shutil.copytree(searched / "run", tmp_path / "run")
    own = tmp_path / "site" / "index.html"
    own.parent.mkdir()
    own.write_text("<h1>My page</h1>")
    with caching_in(searched):
        names(command_refuses("export", run, "--format", "web", "--out", own.parent, "--quiet"), own, "--out")
        assert [path.name for path in own.parent.iterdir()] == ["index.html"]
        assert own.read_text() == "<h1>My page</h1>"
        own.unlink()
        style = own.with_name("style.css")
        style.write_text("body { color: red }")
        names(command_refuses("export", run, "--format", "web", "--out", own.parent, "--quiet"), style, "--out")
        assert style.read_text() == "body { color: red }"
        nowhere = tmp_path / "nowhere"
        names(command_refuses("export", run, "--format", "web", "--local-runtime", nowhere), nowhere, "npm pack")
        other = ("--outputs", "heatmaps", "--out", tmp_path / "out", "--quiet")
        names(command_refuses("export", run, "--format", "web", *other), "--outputs", "landmarks")


def test_the_documentation_names_the_version_that_is_pinned():
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "web-page.md").read_text()
    assert set(re.findall(r"onnxruntime-web[@-](\d[\d.]*\d)", text)) == {runtime.VERSION}
