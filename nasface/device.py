"""The device on which networks run."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from nasface.errors import RunError, shortened


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device; for 'auto', the accelerator that torch finds (CUDA, MPS, ...) or else the CPU.

    Raises:
        RunError: if the named device is not available.
    """
    if name == "auto":
        return (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or torch.device(
            "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as err:  # torch lists all devices that any build of it knows
        raise RunError(
            f"there is no device '{shortened(name)}'; give --device auto, cpu, cuda, cuda:1, mps or xpu"
        ) from err
    try:
        torch.empty(1, device=device)  # a device that only parses, such as cuda:9, fails here
        if device.type == "meta":
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        raise RunError(
            f"device '{shortened(name)}' is not available here ({str(err).splitlines()[0]}); use --device auto or cpu"
        ) from err
    return device


def free_bytes(device: torch.device) -> int:
    """Return how many bytes are free on a device, or could be freed at once; where it does not say, those of the host.

    Memory that several devices or processes share is not divided among them.
    """
    if device.type in ("cuda", "xpu"):
        free: int = torch.get_device_module(device).mem_get_info(device)[0]
        return free
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
