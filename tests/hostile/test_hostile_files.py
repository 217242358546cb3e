"""Hostile architectures, factors, cards, tables and weights: refused in a sentence, or read for what they say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasface import detect, rundir, untrusted
from nasface.arch import Architecture, Factors, edge_list
from nasface.data.prepare import PreparedFaces
from nasface.errors import NasfaceError
from nasface.model.card import Card
from nasface.report import content as report
from nasface.stages import select
from nasface.stages.doctor import folder as doctor
from nasface.stages.evaluate.landmarks_csv import read_predictions
from searchspaces.hrsupernet import hrsupernet
from tests.hostile.held import EXAMPLES, NUMBERS, Tally, damaged, some
from tests.tiny import scheme

SPACE = hrsupernet(width=4, depth=1, stages=3, resolutions=2, stem_channels=8)
ARCH = json.loads(
    Architecture("hrsupernet", SPACE.options, 5, 32, SPACE.graph.digest, SPACE.graph.edges, {"run": "r"}).to_json()
)
FACTORS = json.loads(
    Factors(
        "hrsupernet",
        SPACE.options,
        5,
        SPACE.graph.digest,
        dict.fromkeys(SPACE.graph.edges, 0.5),
        dict.fromkeys(SPACE.graph.edges, 1.0),
        {"run": "r"},
    ).to_json()
)
VIEW = {
    "scheme": {
        "num_landmarks": 5,
        "flip": [1, 0, 2, 3, 4],
        "inter_ocular": [[0], [1]],
        "inter_pupil": [[0], [1]],
        "contours": [],
    },
    "input_size": 32,
    "box": "landmarks",
    "box_scale": 1.25,
    "margin": 1.6,
    "decoder": "quarter",
    "sigma": 1.5,
    "flip_test": False,
    "precision": "fp32",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
CARD = {"card_version": 1, "view": VIEW, "training": {"dataset": "synthetic"}, "architecture": ARCH}


def paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a tree, but only the first of each list."""
    if path:
        yield path
    inner = (
        content.items() if isinstance(content, dict) else enumerate(content[:1]) if isinstance(content, list) else ()
    )
    for name, value in inner:
        yield from paths(value, (*path, name))


def variants(content: Any) -> Iterator[tuple[Any, str]]:
    """The content with every value replaced by each odd one, and left out, as JSON where that can be written."""
    for path in paths(content):
        for value in (*NUMBERS, copy):
            changed = copy.deepcopy(content)
            inner = changed
            for name in path[:-1]:
                inner = inner[name]
            if value is copy:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
            try:
                yield (path, repr(value)[:60] if not isinstance(value, int) else "int"), json.dumps(changed)
            except ValueError:  # Python refuses to write numbers of more than 4300 digits
                continue


READERS: dict[str, tuple[Any, Callable[[str], Any]]] = {
    "arch": (ARCH, lambda text: Architecture.from_json(text).subgraph(SPACE.graph)),
    "factors": (FACTORS, Factors.from_json),
    "card": (CARD, lambda text: Card.from_dict(untrusted.parse_json(text), "card")),
}


@pytest.mark.parametrize("kind", READERS)
def test_odd_values_in_files_of_nasface(tally: Tally, kind: str):
    content, read = READERS[kind]
    assert not isinstance(tally.held(lambda: read(json.dumps(content))), NasfaceError)
    for what, text in variants(content):
        try:
            tally.held(lambda text=text: read(text), what)
        except untrusted.NotReadableError:  # the reader of the metadata turns it into a sentence
            assert kind == "card"


@pytest.mark.parametrize("kind", ["arch", "factors"])
def test_damaged_files_of_nasface(tally: Tally, kind: str):
    content, read = READERS[kind]

    @some
    @given(damaged(json.dumps(content)))
    def attempt(text: str) -> None:
        tally.held(lambda: read(text), text)

    attempt()


EDGES = (
    "",
    "null",
    "[]",
    "{}",
    "1",
    '"a"',
    "[1]",
    "[[1, 2]]",
    '[["a"]]',
    '[["a", "b", "c"]]',
    '[["a", 1]]',
    "[[[1, 2, 3], [1, 2]]]",
    "[[[true, false], [1, 2]]]",
    '{"edges": 1}',
    '{"edges": []}',
    '{"edges": [[[1e400, 1], [1, 1]]]}',
    f"[[[{'9' * 400}, 1], [1, 1]]]",
    f'[["{"x" * 5000}", "b"]]',
    "[" * 500 + "]" * 500,
    '[["a\\u0000", "b"]]',
    '[["\\ud800", "b"]]',
    "NaN",
    "[NaN]",
    "{" * 100_000,
    '[["1.0", "2.0"]' + ', ["1.0", "2.0"]' * 1000 + "]",
)


@pytest.mark.parametrize("number", range(len(EDGES)))
def test_edge_lists(tally: Tally, number: int):
    tally.held(lambda: SPACE.graph.keep(edge_list(EDGES[number], "edges.json")), EDGES[number][:200])


TABLES = (
    b"",
    b"\n",
    b",",
    b"\x00",
    b"\xff\xfe",
    b"image",
    b"image\n",
    b"image,x0,y0\n",
    b"image,x0,y0,x1,y1\na,1,2,3,4,5\n",
    b"image,x0,y0,x1,y1\na,1,2,3\n",
    b"image,x0,y0,x1,y1\na,1,2,3,4\nb,1,2,3,4,5,6\n",
    b'image,x0,y0,x1,y1\n"a,1,2,3,4\n',
    b"image,x0,y0,x1,y1\na,nan,2,3,4\n",
    b"image,x0,y0,x1,y1\na,1e400,2,3,4\n",
    b"image,x0,y0,x1,y1\na," + b"9" * 400 + b",2,3,4\n",
    b"image,x0,y0,x1,y1\na," + b"9" * 5000 + b",2,3,4\n",
    b"image,x0,y0,x1,y1\n" + b"n" * 200_000 + b",1,2,3,4\n",
    b"image,image,x0,y0\na,b,1,2\n",
    b"image;x0;y0\na;1;2\n",
    b"\xef\xbb\xbfimage,x0,y0,x1,y1\na,1,2,3,4\n",
    b"image,x0,y0,x1,y1\r\na,1,2,3,4\r",
    b"image,x0,y0,x1,y1\na\xff,1,2,3,4\n",
    b"image,x0,y0,x1,y1\n,1,2,3,4\n",
    b"image,x0,y0,x1,y1\na,4,3,2,1\n",
    b"image,x0,y0,x1,y1\na,1_0,2,30,40\n",
    b"image,x0,y0,x1,y1\na,0x1,2,3,4\n",
    b"a" * 100_000,
    b"," * 50_000,
    b"\n" * 50_000,
    b"network,image,x0,y0\n,a,1,2\n",
    b"image,x0,y0,x1,y1,x2,y2,x3,y3\ntest/0,1,2,3,4,5,6,7,8,9\n",
    b"image,x0,y0,x1,y1,x2,y2,x3,y3\ntest/0,1,2,3,4,5,6,7,1_0\n",
    b"network,state,params,macs,arch\nx,done,1,2\n",
    b"network,state\nx,done,1,2,3\n",
    b"network,state,params,macs,arch,on_front\nx,done,9e999,1,a,True\n",
)


def prepared() -> PreparedFaces:
    return PreparedFaces(
        "test",
        np.zeros((2, 40, 40, 3), np.uint8),
        np.full((2, 4, 2), 20.0, np.float32),
        ("test/0", "test/1"),
        ((), ()),
        np.tile(np.eye(2, 3), (2, 1, 1)),
        scheme(4),
        32,
        {},
        (),
        "key",
    )


def read_tables(tally: Tally, folder: Path, content: bytes) -> None:
    for name in ("pareto.csv", "metrics.csv", "errors.csv"):
        (folder / name).write_bytes(content)
    path = folder / "pareto.csv"
    boxes = tally.held(lambda: detect.read_boxes(path), content[:200])
    if isinstance(boxes, dict):
        assert all(np.isfinite(found).all() for found in boxes.values())
    tally.held(lambda: read_predictions(path, prepared()), content[:200])
    tally.held(lambda: select.read_table(folder), content[:200])
    tally.held(lambda: report.read(folder), content[:200])


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_tables(tally: Tally, tmp_path: Path, number: int):
    read_tables(tally, tmp_path, TABLES[number])


def test_rows_longer_than_the_header_do_not_shift_the_columns(tally: Tally, tmp_path: Path):
    path = tmp_path / "boxes.csv"
    path.write_text("image,x0,y0,x1,y1\na.jpg,1,2,30,40,50\n")
    assert isinstance(tally.held(lambda: detect.read_boxes(path)), NasfaceError)
    path = tmp_path / "pareto.csv"
    path.write_text("network,state,params,macs,arch\nx,done,1,2,a,b\n")
    assert isinstance(tally.held(lambda: select.read_table(tmp_path)), NasfaceError)


def test_any_bytes_in_place_of_a_table(tally: Tally, tmp_path: Path):
    @some
    @given(
        st.binary(max_size=100),
        damaged("image,x0,y0,x1,y1,x2,y2,x3,y3\ntest/0,1,2,3,4,5,6,7,8\ntest/1,8,7,6,5,4,3,2,1\n"),
    )
    def attempt(content: bytes, text: str) -> None:
        read_tables(tally, tmp_path, content)
        read_tables(tally, tmp_path, text.encode())

    attempt()


FIGURES = (
    "",
    "1",
    "[]",
    "{}",
    "null",
    '{"networks": 1}',
    '{"networks": {"slim": 1}}',
    '{"networks": {"slim": {"subsets": {}}}}',
    "NaN",
    "[" * 500,
    '{"networks": {"slim": {"params": 1e999, "macs": 1, "held_out_nme": 1, "subsets": {"box": {"full": {}}}}}}',
)


@pytest.mark.parametrize("number", range(len(FIGURES)))
def test_run_folders(tally: Tally, tmp_path: Path, number: int):
    for name in ("metrics.json", "job.json", "arch.json", "factors.json", "recipe.yaml"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.csv").write_text("epoch\n1\n")
        (folder / name).write_text(FIGURES[number])
        tally.held(lambda folder=folder: report.read(folder), (name, FIGURES[number]))
        tally.held(lambda folder=folder: list(doctor.examine(folder)), (name, FIGURES[number]))


def header(content: Any) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


WEIGHTS = (
    b"",
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff" * 100,
    header(b"{}"),
    header(b"[]"),
    header(b"x"),
    header({"a": 1}),
    header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}),
    header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"\0" * 4,
    header({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4,
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
    header({"__metadata__": {"nasface": "["}}),
    header({"__metadata__": {"nasface": "[]"}}),
    header({"__metadata__": {"nasface": "[" * 5000}}),
    header({"__metadata__": {"nasface": '{"card": 1}'}}),
    header({"__metadata__": {"nasface": '{"card": {}}'}}),
    header({"__metadata__": {"nasface": json.dumps({"num_landmarks": "9" * 400})}}),
    header({"__metadata__": {"nasface": 1}}),
    header({"__metadata__": 1}),
    (10**15).to_bytes(8, "little") + b"{}",
    b"PK\3\4" + b"\0" * 100,
    b"\x80\x02}q\x00.",
)


@pytest.mark.parametrize("number", range(len(WEIGHTS)))
def test_weights(tally: Tally, tmp_path: Path, number: int):
    from nasface.model.files import at

    path = tmp_path / "w.safetensors"
    path.write_bytes(WEIGHTS[number])
    tally.held(lambda: rundir.read_tensors(path), WEIGHTS[number][:200])
    tally.held(lambda: rundir.read_meta(path), WEIGHTS[number][:200])
    tally.held(lambda: at(path), WEIGHTS[number][:200])
    checkpoint = tmp_path / "checkpoints" / "search.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(WEIGHTS[number])
    found = tally.held(lambda: list(doctor.examine(tmp_path)), WEIGHTS[number][:200])
    states = {finding.what: finding.state for finding in found}
    assert states.pop("checkpoints/search.safetensors") == "wrong", found
    assert states in ({"w.safetensors": "wrong"}, {"others": "ok"}), found  # of another program


def test_cut_weights(tally: Tally, tmp_path: Path):
    import torch

    path = tmp_path / "w.safetensors"
    rundir.write_tensors(path, {"a": torch.ones(3)}, {"num_landmarks": "4"})
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // EXAMPLES)):
        path.write_bytes(whole[:length])
        assert isinstance(tally.held(lambda: rundir.read_tensors(path)), NasfaceError)
