"""Chromium for the tests of pages; without it, they are skipped and say why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def watched(browser: Any, width: int, touch: bool, patience: int) -> Iterator[tuple[Any, list[str]]]:
    """Yield an empty page and the list of addresses that it will ask for; nothing may appear on its console.

    Args:
        browser: see `launched`.
        width: of the window, in CSS pixels.
        touch: whether its screen can be touched.
        patience: milliseconds after which what is waited for is taken not to come.
    """
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=touch)
    page = context.new_page()
    page.set_default_timeout(patience)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page, asked
    assert said == []
    context.close()
