"""The page on which a network can be tried: its text, its settings and the face detector beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from nasface import detect
from nasface.errors import RunError
from nasface.formats.web import runtime

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "boxes.js", "camera.js", "crop.js", "detector.js", "faces.js", "runtime.js")
DETECTOR, CARD, INDEX = "yunet.onnx", "card.json", "index.html"


def files(network: str, about: str, local: bool) -> dict[str, bytes]:
    """Return the files of the page by name, those of the network and of a local runtime excepted; index.html is last.

    Args:
        network: the name of the ONNX file beside the page.
        about: its description, see `nasface.model.exported.Description`.
        local: whether the runtime lies beside the page, too.
    """
    description = json.loads(about)
    found = {name: (HERE / name).read_bytes() for name in (*SCRIPTS, "style.css")}
    found[CARD] = json.dumps(description, indent=1).encode()
    weights = detect.yunet_weights()
    if weights is not None:
        found[DETECTOR] = _any_size(weights)
    found["licences.txt"] = _render("licences.txt.j2", detector=weights is not None).encode()
    found[INDEX] = _index(network, description, weights is not None, local).encode()
    return found


def _index(network: str, description: Mapping[str, Any], detector: bool, local: bool) -> str:
    view = description["card"]["view"]
    count = view["scheme"]["num_landmarks"]
    place = "" if local else runtime.SITE
    settings = {
        "network": network,
        "landmarks": count,
        "contours": view["scheme"]["contours"],
        "view": {"inputSize": view["input_size"], "boxScale": view["box_scale"]},
        "sameFace": detect.SAME_FACE,
        "detector": _detector() if detector else None,
        "runtime": {
            "script": {"url": place + runtime.SCRIPT, "integrity": runtime.INTEGRITY[runtime.SCRIPT]},
            "wasm": {"url": place + runtime.WASM, "integrity": runtime.INTEGRITY[runtime.WASM]},
        },
    }
    return _render(
        "index.html.j2",
        title=f"{Path(network).stem}: {count} facial landmarks",
        settings=settings,
        facts=list(_facts(description)),
        how=_how(local),
        policy=_policy(local),
    )


def _detector() -> dict[str, Any]:
    return {
        "file": DETECTOR,
        "pixels": detect.YUNET_LOOK.pixels,
        "score": detect.YUNET_LOOK.score,
        "iou": detect.YUNET_IOU,
        "turns": detect.YUNET_LOOK.turns,
        "down": detect.YUNET_DOWN,
        "width": detect.YUNET_WIDTH,
        "height": detect.YUNET_HEIGHT,
    }


def _policy(local: bool) -> str:
    """Return the Content-Security-Policy: files from beside the page, and the runtime, which is checked before it runs.

    The script of the runtime is fetched, checked and run as a blob; no script is loaded from elsewhere.
    """
    connect = "'self'" if local else f"'self' {runtime.SITE}"
    return (
        f"default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; "
        f"media-src 'self' blob:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _how(local: bool) -> str:
    runs = f"ONNX Runtime Web {runtime.VERSION} runs the network as WebAssembly."
    if local:
        return f"{runs} All files come from the place of this page."
    return (
        f"{runs} The browser loads it from the public file host cdn.jsdelivr.net, and runs it only if its hash is the "
        "one in this page; everything else comes from the place of this page."
    )


def _facts(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Describe the network, as (label, text)."""
    card, costs = description["card"], description["costs"]
    view, training = card["view"], card["training"]
    yield "Input", f"{view['input_size']} × {view['input_size']} pixels, RGB"
    yield "Size", f"{costs['params']:,} parameters, {costs['macs']:,} multiply-adds for one face"
    yield "Precision", description["precision"]
    yield "Search space", f"{card['architecture']['space']}, {costs['edges']} edges"
    if training.get("dataset"):
        yield "Trained on", str(training["dataset"])
    if training.get("licence"):
        yield "Licence of the faces", str(training["licence"])


def _any_size(weights: Path) -> bytes:
    """Return YuNet for pictures of any size. The file names one size, but nothing in its graph depends on it."""
    import onnx

    proto = onnx.load(str(weights))
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_value > 10:  # neither the batch, nor the channels, nor the coordinates of a box
                dimension.dim_param = f"{value.name}_{axis}"
    del proto.graph.value_info[:]
    content: bytes = proto.SerializeToString()
    return content


def _render(template: str, **parts: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**parts)


def check_ends(about: str) -> None:
    """Raise a RunError when the network was asked to take or return what the page does not."""
    description = json.loads(about)
    if (description["inputs"], description["outputs"]) != ("uint8", "landmarks"):
        raise RunError(
            "the page gives the network uint8 crops and takes landmarks from it; leave out --inputs and --outputs"
        )
