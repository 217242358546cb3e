"""What every test gets: one thread, a seed, and a cache folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("nasface", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("nasface")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared data of a test never meets that of another, nor the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("NASFACE_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
