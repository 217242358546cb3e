"""What tests need besides nasface itself: packages are looked for and not imported, which would take seconds."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(extra: str, *packages: str) -> pytest.MarkDecorator:
    """Skip a test where one of the packages of an extra is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs the extra '{extra}'")


needs_onnx = needs("onnx", "onnx", "onnxscript", "onnxruntime")
needs_openvino = needs("openvino", "openvino")
