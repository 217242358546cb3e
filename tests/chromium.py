"""Chromium for the tests of pages; without it, they are skipped and say why."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

playwright: Any = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (pip install -e '.[dev]')"
)
CHROMIUM = os.environ.get("NASFACE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH; install it or set NASFACE_CHROMIUM"
)


def launched(driver: Any, *options: str) -> Any:
    """Start a headless Chromium."""
    return driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *options])
