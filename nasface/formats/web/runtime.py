"""ONNX Runtime Web in the one version that the page runs: where it is, and the hashes of its files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from nasface import untrusted
from nasface.errors import RunError

VERSION = "1.30.0"
SITE = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# `openssl dgst -sha384 -binary FILE | base64` of the files in the npm package
INTEGRITY = {
    SCRIPT: "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    WASM: "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
_LARGEST = 64 << 20  # bytes


def local_files(package: Path) -> dict[str, bytes]:
    """Read the runtime from a folder of the npm package onnxruntime-web, by name.

    Raises:
        RunError: when a file is missing, or is not the one of this version.
    """
    return {name: _read(package, name) for name in INTEGRITY}


def _read(package: Path, name: str) -> bytes:
    path = package / "dist" / name
    try:
        untrusted.check_file(path, _LARGEST)
        content = path.read_bytes()
    except OSError as err:
        raise RunError(f"{path} cannot be read ({err.strerror or err}); {_HELP}") from err
    if integrity(content) != INTEGRITY[name]:
        raise RunError(f"{path} is not the file of onnxruntime-web {VERSION}, since its hash differs; {_HELP}")
    return content


def integrity(content: bytes) -> str:
    """Return the hash of a file in the form that browsers check."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


_HELP = (
    f"give the unpacked npm package as --local-runtime: run npm pack onnxruntime-web@{VERSION}, then "
    f"tar -xf onnxruntime-web-{VERSION}.tgz, and give the folder package"
)
