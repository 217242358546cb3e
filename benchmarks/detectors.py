"""Face detectors side by side: recall and false faces, on photographs and on scenes of synthetic faces.

A face is found if a box has an IoU of at least 0.5 with the box of its landmarks. A box is false if it lies on no face,
that is, if it shares at most half of the smaller box with each of them. On photographs of 300W, boxes on people without
annotations are neither: `other_people.csv` names those that were recognised by eye among the boxes that the
detectors returned. The detectors run in turn on each picture, so that their times compare on a busy machine. `predict`
is what `nasface predict` does: the network that comes with nasface looks into the boxes of the best detector, and only
faces that it is sure enough of are left.

    python benchmarks/detectors.py --photographs DIR [--scenes 200] [--every 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scenes import scenes

import nasface
from nasface import detect, terminal
from nasface.data.w300 import W300
from nasface.model import Model
from nasface.model.shipped import DEFAULT

IOU = 0.5
OTHERS = Path(__file__).with_name("other_people.csv")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with known faces.

    Attributes:
        image_HW3: RGB pixels.
        boxes_K4: boxes of the landmarks of the faces to find.
        others_M4: boxes of other faces, which may be found.
        kinds_K: the group of each face, for the table.
        name: for the list of false boxes.
    """

    image_HW3: detect.Pixels = field(repr=False)
    boxes_K4: detect.Boxes
    others_M4: detect.Boxes
    kinds_K: Sequence[str]
    name: str


@dataclass
class Tally:
    """What a detector did on some pictures.

    Attributes:
        pictures: how many it has seen.
        seconds: how long it took for all of them.
        found: for each kind of face, whether each one was found.
        false: name of the picture and box of each false face.
    """

    pictures: int = 0
    seconds: float = 0.0
    found: dict[str, list[bool]] = field(default_factory=dict)
    false: list[tuple[str, list[float]]] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """Share of the faces that were found."""
        return float(np.mean([found for of_kind in self.found.values() for found in of_kind]))

    def add(self, picture: Picture, boxes_N4: detect.Boxes, seconds: float) -> None:
        """Judge the boxes of one picture."""
        self.pictures += 1
        self.seconds += seconds
        found_K = (iou(boxes_N4, picture.boxes_K4) >= IOU).any(axis=0)
        for kind, found in zip(picture.kinds_K, found_K.tolist(), strict=True):
            self.found.setdefault(kind, []).append(found)
        faces = np.concatenate([picture.boxes_K4, picture.others_M4])
        on_none = ~(detect.overlap(boxes_N4, faces) > detect.SAME_FACE).any(axis=1)
        self.false += [(picture.name, box) for box in boxes_N4[on_none].round().tolist()]


def iou(a_N4: detect.Boxes, b_K4: detect.Boxes) -> NDArray[np.float64]:
    """Return the area that two boxes share over the area that they cover together, (N, K)."""
    low = np.maximum(a_N4[:, None, :2], b_K4[None, :, :2])
    high = np.minimum(a_N4[:, None, 2:], b_K4[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    area_N, area_K = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a_N4, b_K4))
    shared: NDArray[np.float64] = common / (area_N[:, None] + area_K - common)
    return shared


def photographs(root: Path, every: int) -> Iterator[Picture]:
    """Yield every so many-th test photograph of 300W."""
    dataset, others = W300(root), detect.read_boxes(OTHERS)
    for face in [face for face in dataset.index().faces if face.split == "test"][::every]:
        box = detect.landmark_boxes(face.landmarks_L2[None])
        yield Picture(dataset.read(face), box, others.get(face.name, np.empty((0, 4))), ["all"], face.name)


def synthetic(number: int, seed: int) -> Iterator[Picture]:
    """Yield scenes of synthetic faces."""
    for i, scene in enumerate(scenes(number, seed)):
        kinds = [
            f"height {'<' if height < 0.1 else '>='} 0.1, turned {'<=' if abs(angle) <= 20 else '>'} 20 degrees"
            for height, angle in zip(scene.heights_K.tolist(), scene.angles_K.tolist(), strict=True)
        ]
        yield Picture(scene.image_HW3, scene.boxes_K4, np.empty((0, 4)), kinds, f"scene {i}")


@lru_cache
def network() -> Model:
    """The network that comes with nasface."""
    return nasface.load(DEFAULT)


def predict(image_HW3: detect.Pixels) -> detect.Boxes:
    """Return the boxes of the landmarks that `nasface predict` finds."""
    found = [face.landmarks for face in network().predict(image_HW3)]
    return detect.landmark_boxes(np.array(found)) if found else np.empty((0, 4))


def judge(detectors: Sequence[str], pictures: Iterable[Picture]) -> dict[str, Tally]:
    """Run the detectors in turn on each picture."""
    tallies = {name: Tally() for name in detectors}
    finders = {name: predict if name == "predict" else detect.find_detector(name) for name in detectors}
    for picture in pictures:
        for name, find in finders.items():
            started = time.perf_counter()
            boxes_N4 = find(picture.image_HW3)
            tallies[name].add(picture, boxes_N4, time.perf_counter() - started)
    return tallies


def show(title: str, tallies: dict[str, Tally]) -> None:
    """Print a table of one kind of pictures."""
    rows = [
        [
            name,
            f"{100 * tally.recall:.1f} %",
            f"{100 * len(tally.false) / tally.pictures:.1f}",
            f"{1000 * tally.seconds / tally.pictures:.0f}",
            *(f"{100 * np.mean(found):.1f} % of {len(found)}" for found in _kinds(tally)),
        ]
        for name, tally in tallies.items()
    ]
    first = next(iter(tallies.values()))
    kinds = sorted(first.found) if len(first.found) > 1 else []
    columns = ["detector", "recall", "false faces per 100 pictures", "ms per picture", *kinds]
    terminal.show(terminal.table(f"{title}: {first.pictures} pictures", columns, rows, ""))


def _kinds(tally: Tally) -> list[list[bool]]:
    return [tally.found[kind] for kind in sorted(tally.found)] if len(tally.found) > 1 else []


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="folder of 300W; left out without it")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photograph")
    parser.add_argument("--scenes", type=int, default=200, help="number of synthetic scenes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    parser.add_argument("--detectors", default="haar,yunet-fast,yunet,predict", help="names, as for --detector")
    parser.add_argument("--list-false", action="store_true", help="print the false boxes, to look at them")
    given = parser.parse_args()
    sources = {"synthetic scenes": synthetic(given.scenes, given.seed)}
    if given.photographs:
        sources = {"test photographs of 300W": photographs(given.photographs, given.every), **sources}
    for title, pictures in sources.items():
        tallies = judge(given.detectors.split(","), pictures)
        show(title, tallies)
        for name, tally in tallies.items() if given.list_false else ():
            for picture, box in tally.false:
                print(name, picture, *box)


if __name__ == "__main__":
    main()
