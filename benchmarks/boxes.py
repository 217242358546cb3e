"""The error of a network in boxes from several sources, each refined 0, 1 and 2 times.

The NME is inter-ocular, in percent, over test photographs of 300W. Of the boxes in a picture, the one that shares most
with the box of the annotated landmarks is taken; a face that shares no area with any box is missed, and left out.

    python benchmarks/boxes.py --photographs DIR [--every 2] [--network face68]
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from detectors import iou

import nasface
from nasface import detect, terminal
from nasface.data.w300 import W300
from nasface.scores import DEFAULT_NORMALISER
from nasface.stages.measure import errors as errors_of

REFINE = (0, 1, 2)
TRUE = "of the true landmarks"


@click.command()
@click.option("--photographs", type=click.Path(path_type=Path, exists=True), required=True, help="Folders of 300W.")
@click.option("--every", default=1, show_default=True, help="Take every N-th photograph.")
@click.option("--network", default="face68", show_default=True, help="A name, a run folder or a file.")
@click.option("--detectors", default="yunet,haar,whole", show_default=True, help="Names, separated by commas.")
def main(photographs: Path, every: int, network: str, detectors: str) -> None:
    """Measure a network in the boxes of detectors."""
    torch.set_num_threads(1)
    model, dataset = nasface.load(network), W300(photographs)
    finders = {name: detect.find_detector(name) for name in detectors.split(",")}
    errors: dict[str, list[list[float]]] = {TRUE: [], **{name: [] for name in finders}}
    faces = [face for face in dataset.index().faces if face.split == "test"][::every]
    for face in faces:
        image, true_L2 = dataset.read(face), face.landmarks_L2
        box_14 = detect.landmark_boxes(true_L2[None])
        for name, boxes_K4 in [(TRUE, box_14), *((name, find(image)) for name, find in finders.items())]:
            shared_K = iou(boxes_K4, box_14)[:, 0]
            if shared_K.any():
                best_14 = boxes_K4[[shared_K.argmax()]]
                found = [model.find([image], [best_14], refine=n)[0].landmarks_KL2[0] for n in REFINE]
                nme = errors_of(np.array(found), np.array([true_L2] * len(REFINE)), dataset.scheme)
                errors[name].append(nme[DEFAULT_NORMALISER].tolist())
    rows = [
        [name, f"{len(of_faces)} of {len(faces)}", *(f"{100 * nme:.2f}" for nme in np.mean(of_faces, axis=0))]
        for name, of_faces in errors.items()
    ]
    title = f"NME of {network} (%) by boxes and number of refinements"
    terminal.show(terminal.table(title, ["boxes", "faces found", *map(str, REFINE)], rows, ""))


if __name__ == "__main__":
    main()
