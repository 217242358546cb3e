"""Annotations that are not what they should be; the check and the preparation agree on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasface.data.check import check
from nasface.data.cofw import COFW
from nasface.data.prepare import prepare
from nasface.data.w300 import W300
from nasface.data.wflw import WFLW
from nasface.errors import DataError, NasfaceError
from tests.hostile.held import Tally
from tests.refusal import names


def landmarks(count: int = 68) -> list[str]:
    return [f"{10 + i} {20 + i % 40}" for i in range(count)]


POINTS = {
    "digits": "\n".join([f"{'9' * 400} 1", *landmarks(67)]),
    "many digits": "\n".join([f"{'9' * 5000} 1", *landmarks(67)]),
    "nan": "\n".join(["nan nan", *landmarks(67)]),
    "underscore": "\n".join(["1_0 1", *landmarks(67)]),
    "far": "\n".join(["1e300 1", *landmarks(67)]),
    "away": "\n".join(f"{x}00000 5" for x in range(1, 69)),
    "one place": "1 1\n" * 68,
    "odd": "\n".join(landmarks())[:-1] + " 1 2 3",
    "words": "version: x\n{\na b\n}",
    "braces": "{{{{",
    "nul": "\0" * 100,
    "empty": "",
    "line": " ".join(landmarks()) + " " + "7 " * 10_000,
    "hex": "\n".join(["0x10 1", *landmarks(67)]),
    "comma": ",".join(landmarks()),
    "negative": "\n".join(f"-{x} -{x + i}" for i, x in enumerate(range(100, 168))),
    "thin": "\n".join(f"{i} 5" for i in range(68)),
    "tiny": "\n".join(f"{5 + i / 100} 5" for i in range(68)),
    "huge face": "\n".join(f"{i * 100} {i * 90}" for i in range(68)),
    "sound": "\n".join(landmarks()),
}


@pytest.mark.parametrize("name", POINTS)
def test_points_are_sound_for_the_check_exactly_if_they_are_for_the_preparation(
    tally: Tally, tmp_path: Path, name: str
):
    folder = tmp_path / "data" / "afw"
    folder.mkdir(parents=True)
    for number in range(120):  # one damaged face of so many is tolerated
        (folder / f"{number:03}.pts").write_text("\n".join(landmarks()))
        (folder / f"{number:03}.png").symlink_to("000.png") if number else Image.new("RGB", (100, 100)).save(
            folder / "000.png"
        )
    (folder / "119.pts").write_text(POINTS[name])
    dataset = W300(tmp_path / "data")
    checked = tally.held(lambda: check(dataset, workers=1), name)
    made = tally.held(lambda: prepare(dataset, cache=tmp_path / "cache", workers=1), name)
    errors = {problem.where for problem in checked.problems if problem.level == "error"}
    assert errors == {problem.where for problem in made["train"].skipped}
    assert bool(errors) == (name != "sound" and name not in ("thin",) + (("comma",) if not errors else ()))
    assert len(made["train"]) == 120 - len(errors)
    assert np.isfinite(made["train"].landmarks_NL2).all()


LISTS = {
    "train.csv": [
        b"",
        b"\0",
        b"\xff" * 50,
        b"a" * 200_000,
        b"image,scale,x,y\n",
        b"x.jpg,1,2\n",
        b'"' + b"x" * 200_000,
        b"x.jpg" + b",9" * 139,
        b"x.jpg" + b",9" * 140,
        b"../../../etc/passwd" + b",9" * 139,
        b"x.jpg," + b"9" * 400 + b",9" * 138,
        b"/dev/zero" + b",9" * 139,
        b"a\0b" + b",9" * 139,
        b"," * 139,
        b"\xff.jpg" + b",9" * 139,
        b"x.jpg,1_0" + b",9" * 138,
    ],
    "labels_train.xml": [
        b"",
        b"<",
        b"<a/>",
        b"<dataset/>",
        b"<image/>",
        b"<a>" * 10_000,
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY a "'
        + b"x" * 9999
        + b'"><!ENTITY b "'
        + b"&a;" * 9999
        + b'"><!ENTITY c "'
        + b"&b;" * 9999
        + b'">]><a>&c;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b'<?xml version="1.0" encoding="utf-99"?><a/>',
        b'<?xml version="1.0" encoding="utf-16"?><a/>',
        b'<image file="a.jpg"><box top="x" left="1" width="1" height="1"><part name="0" x="1" y="1"/></box></image>',
        b'<image file="a.jpg"><box><part/></box></image>',
        b'<image file="a.jpg"><box top="1" left="1" width="1" height="1">'
        + b'<part name="1" x="1" y="1"/>' * 5000
        + b"</box></image>",
        b'<image file="'
        + b"x" * 9999
        + b'"><box top="1" left="1" width="1" height="1"><part name="'
        + b"9" * 5000
        + b'" x="1" y="1"/></box></image>',
    ],
    "list_98pt_rect_attr_train.txt": [
        b"",
        b"\0",
        b"\xff" * 50,
        b"1 " * 206 + b"x.jpg",
        b"1 " * 206,
        b"nan " * 206 + b"x.jpg",
        b"9" * 5000,
        b"1_0 " * 206 + b"x.jpg",
        b"x " * 206 + b"x.jpg",
        b"1 " * 206 + b"/dev/zero",
        b"1 " * 206 + b"a\0b",
    ],
    "COFW_train_color.mat": [
        b"",
        b"MATLAB 5.0 MAT-file",
        b"\x89HDF\r\n\x1a\n",
        b"\x89HDF\r\n\x1a\n" + b"\xff" * 500,
        b"\0" * 1000,
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, texts in LISTS.items() for i in range(len(texts))])
def test_lists(tally: Tally, tmp_path: Path, name: str, number: int):
    (tmp_path / "WFLW_images").mkdir()
    (tmp_path / name).write_bytes(LISTS[name][number])
    kind = {"csv": W300, "xml": W300, "txt": WFLW, "mat": COFW}[name.rpartition(".")[2]]
    found = tally.held(lambda: kind(tmp_path).index(), (name, LISTS[name][number][:100]))
    assert isinstance(found, NasfaceError) or not found.faces
    tally.held(lambda: check(kind(tmp_path), workers=1), name)
    tally.held(lambda: prepare(kind(tmp_path), cache=tmp_path / "cache", workers=1), name)


def test_a_matlab_file_that_names_a_gigantic_image(tally: Tally, tmp_path: Path):
    import h5py

    path = tmp_path / "COFW_train_color.mat"
    with h5py.File(path, "w") as file:
        image = file.create_dataset("image", (3, 60_000, 60_000), "u1", chunks=(1, 1000, 1000))
        file["IsTr"] = np.array([image.ref], dtype=h5py.ref_dtype).reshape(1, 1)
        file["phisTr"] = np.random.default_rng(0).uniform(1, 50, (87, 1))
        file["bboxesTr"] = np.full((4, 1), 10.0)
    report = tally.held(lambda: check(COFW(tmp_path), workers=1))
    assert "pixels" in report.problems[0].what
    with h5py.File(path, "a") as file:
        del file["phisTr"]
        file.create_dataset("phisTr", (87, 10**9), "f8", chunks=(87, 1000))
    assert isinstance(tally.held(lambda: COFW(tmp_path).index()), DataError)


def elsewhere(folder: Path, name: str, how: str) -> None:
    """Let an array of a sound file of COFW, or its image, lead to another file."""
    import h5py

    other, raw = folder / "other.h5", folder / "other.raw"
    with h5py.File(folder / "COFW_train_color.mat", "a") as file, h5py.File(other, "w") as given:
        values = np.asarray(file[name])
        given["image"] = np.asarray(file["image"])
        if name == "IsTr":
            values = np.array([given["image"].ref], dtype=h5py.ref_dtype).reshape(1, 1)
        given["secret"] = values
        raw.write_bytes(values.tobytes())
        file["far"] = h5py.ExternalLink(str(other), "/")
        file.move(name, "own")
        if how == "external link":
            file[name] = h5py.ExternalLink(str(other), "secret")
        elif how == "link through a link":
            file[name] = h5py.SoftLink("/far/secret")
        elif how == "pipe":
            os.mkfifo(folder / "pipe")
            file[name] = h5py.ExternalLink(str(folder / "pipe"), "secret")
        elif how == "text":
            file[name] = np.array([[b"/far/image"]])
        elif how == "virtual":
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(str(other), "secret", values.shape)
            file.create_virtual_dataset(name, layout)
        else:
            file.create_dataset(name, values.shape, values.dtype, external=[(str(raw), 0, values.nbytes)])
        if name == "image":
            file["IsTr"][0, 0] = file[name].ref


LEADING = [
    *((name, how) for name in ("phisTr", "bboxesTr") for how in ("external link", "link through a link", "pipe")),
    *((name, how) for name in ("phisTr", "bboxesTr", "image") for how in ("virtual", "external storage")),
    ("IsTr", "external link"),
    ("IsTr", "text"),
]


@pytest.mark.parametrize(("name", "how"), LEADING, ids=str)
def test_a_matlab_file_that_leads_to_other_files_of_the_machine(tally: Tally, tmp_path: Path, name: str, how: str):
    import h5py

    with h5py.File(tmp_path / "COFW_train_color.mat", "w") as file:
        file["image"] = np.full((3, 100, 100), 77, np.uint8)
        file["IsTr"] = np.array([file["image"].ref], dtype=h5py.ref_dtype).reshape(1, 1)
        file["phisTr"] = np.random.default_rng(0).uniform(1, 50, (87, 1))
        file["bboxesTr"] = np.full((4, 1), 10.0)
    sound = COFW(tmp_path).index()
    assert COFW(tmp_path).read(sound.faces[0]).mean() == 77
    elsewhere(tmp_path, name, how)
    annotation = name != "image" and how != "text"
    found = tally.held(COFW(tmp_path).index if annotation else lambda: COFW(tmp_path).read(sound.faces[0]), how)
    assert isinstance(found, DataError)
    names(str(found), tmp_path / "COFW_train_color.mat", name if annotation else "image 1", "in this file")
    tally.held(lambda: check(COFW(tmp_path), workers=1), how)
