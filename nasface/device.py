"""The device on which networks run."""

from __future__ import annotations

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
