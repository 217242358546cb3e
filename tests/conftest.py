"""What every test gets: one thread, a seed, and a cache folder of its own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from nasface import importing
from tests.exported import export_once  # noqa: F401
from tests.graphs import graphs_once  # noqa: F401 (fixtures of several test files)
from tests.report_run import swept_and_searched  # noqa: F401
from tests.searched import cached, folder, run, searched  # noqa: F401

torch.set_num_threads(1)
settings.register_profile("nasface", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("nasface")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared data of a test never meets that of another, nor the user's."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("NASFACE_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the files of a test name, and what it imports by name, is nothing to the tests after it."""
    for memory in ("_given", "_noted", "_imported"):
        monkeypatch.setattr(importing, memory, getattr(importing, memory).copy())


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that are not UTF-8 in what a test has logged: xdist cannot send them from one process to another."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many hostile inputs were tried; a test that does not hold one fails."""
    ended = [report for report in terminalreporter.stats.get("", []) if report.when == "teardown"]
    tried = sum(value for report in ended for name, value in report.user_properties if name == "hostile")
    if tried:
        terminalreporter.write_line(f"hostile inputs tried: {tried:,}")
