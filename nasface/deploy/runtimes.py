"""The runtimes in which networks run: PyTorch, and one for each export format that is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nasface import plugins
from nasface.errors import RunError, did_you_mean
from nasface.formats import Format, OwnRuntime, Run

if TYPE_CHECKING:
    from nasface.net import GraphNet

TORCH = "torch"
"""The runtime of networks that have not been exported."""


def runtimes(names: Sequence[str] = ()) -> dict[str, Format | None]:
    """Return runtimes with the formats that they run, None for torch; without names, all whose packages are installed.

    Raises:
        RunError: for a name that nobody knows, and for a runtime whose packages are missing.
    """
    forms = [plugins.form(name) for name in plugins.names("formats")]
    here = [form for form in forms if not isinstance(form, OwnRuntime)]  # the others are for where their own runtime is
    known: dict[str, Format | None] = {TORCH: None, **{form.runtime: form for form in here}}
    for name in names:
        if name not in known:
            raise RunError(f"there is no runtime '{name}'; {did_you_mean(name, known)}")
    found: dict[str, Format | None] = {}
    for name in names or known:
        try:
            if form := known[name]:
                form.require("fp32")
        except RunError:
            if names:
                raise
            continue
        found[name] = known[name]
    return found


def open_net(net: GraphNet, form: Format, size: int, threads: int) -> Run:
    """Export a network in fp32, and open it in the format's runtime.

    Args:
        net: the network.
        form: the format.
        size: side of the square input in pixels.
        threads: CPU threads.

    Returns:
        A function from normalised images (N, 3, size, size), float32, to heatmaps.
    """
    from nasface.deploy.plain import Deployed, Ends, Plain
    from nasface.deploy.rewrites import rewrites_for, rewritten

    plain = rewritten(Plain(net), rewrites_for(form.channels)).float()
    whole = Deployed(plain, size, "quarter", 1.0, None, Ends("normalised", "heatmaps")).eval()
    with tempfile.TemporaryDirectory(prefix="nasface-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, f"network{form.suffix}")
        return form.open(form.write(whole, whole.example(), path, "{}", "fp32")[-1], threads)
