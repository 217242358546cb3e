"""The processes that train together, one per device: torchrun starts them, and here is all that they exchange.

Without torchrun there is one process, and everything here leaves its arguments as they are. With it, every process
holds the same network and runs the same code. What goes over the faces is done in shares and summed, and the process of
rank 0, the leader, writes all files. torch is imported only where several processes have joined.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from nasface.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, distributed

T = TypeVar("T")

# How long the others wait for what only one process does, such as cropping the faces. A process that dies is noticed
# long before, because the system closes its connections.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Share:
    """The share of one process in whatever is divided among all of them.

    Attributes:
        rank: its number, from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    def of(self, total: int) -> slice:
        """Return the places of its share among `total` things: together, all processes have each of them once."""
        first, end = (-(-rank * total // self.count) for rank in (self.rank, self.rank + 1))
        return slice(first, end)


ALL = Share()
_own = ALL
_devices: distributed.ProcessGroup | None = None  # for tensors on devices; those on the CPU go over the default group
_patient: distributed.ProcessGroup | None = None  # for waiting


def own() -> Share:
    """Return the share of this process."""
    return _own


def leads() -> bool:
    """Return whether this process is the one that writes files and speaks to the user."""
    return _own.rank == 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that torchrun has started while the block runs; if it has started none, do nothing.

    Args:
        device: as the user gave it, the same for all processes.

    Yields:
        The device of this process: with 'auto' or 'cuda', each process of a machine has a GPU of its own.

    Raises:
        RunError: if the processes cannot share this device, or do not find each other.
    """
    global _own, _devices, _patient
    count = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if count == 1:
        yield device
        return
    import torch
    from torch import distributed

    place = _device_of_rank(device)
    _meeting(lambda: distributed.init_process_group("gloo"))
    _own = Share(distributed.get_rank(), count)
    if not leads():
        logging.getLogger("nasface").setLevel(logging.ERROR)  # the leader says it
    try:
        _patient = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        if place.type != "cpu":
            torch.get_device_module(place).set_device(place)
            _devices = distributed.new_group(backend=distributed.get_default_backend_for_device(place))
        yield str(place)
        wait()  # for the leader's last file
    finally:
        # Closes the connections, by which the others learn of a failure here.
        _own, _devices, _patient = ALL, None, None
        distributed.destroy_process_group()


def wait() -> None:
    """Wait until all processes are here."""
    if _own.count > 1:
        from torch import distributed

        _meeting(lambda: distributed.barrier(group=_patient))


def summed(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes, in place, and return it."""
    if _own.count > 1:
        from torch import distributed

        _meeting(lambda: distributed.all_reduce(tensor, group=_group(tensor)))
    return tensor


def led(tensor: Tensor) -> Tensor:
    """Replace a tensor by that of the leader, in place, and return it."""
    if _own.count > 1:
        from torch import distributed

        _meeting(lambda: distributed.broadcast(tensor, 0, group=_group(tensor)))
    return tensor


def gathered(tensor: Tensor) -> list[Tensor]:
    """Return the tensors of all processes, in the order of their ranks; all have the same shape."""
    if _own.count == 1:
        return [tensor]
    import torch
    from torch import distributed

    found = [torch.empty_like(tensor) for _ in range(_own.count)]
    _meeting(lambda: distributed.all_gather(found, tensor, group=_group(tensor)))
    return found


def agreed(values: Sequence[float]) -> list[float]:
    """Return the leader's values: what decides how to go on must not differ in the last bit."""
    if _own.count == 1:
        return list(values)
    import torch

    found: list[float] = led(torch.tensor(values, dtype=torch.float64)).tolist()
    return found


def first_here(work: Callable[[], T]) -> T:
    """Do some work in one process of each machine first, and then in the others, which find it done."""
    first = os.environ.get("LOCAL_RANK", str(_own.rank)) == "0" or _own.count == 1
    found = work() if first else None
    wait()
    return work() if found is None else found


def _device_of_rank(name: str) -> torch.device:
    """Return the device of this process among those of the kind that is asked for."""
    import torch

    number = int(os.environ.get("LOCAL_RANK", "0"))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        kind = "cpu" if accelerator is None else accelerator.type
    else:
        kind = name
    if kind == "cpu":
        return torch.device(kind)
    if kind not in ("cuda", "xpu"):
        raise RunError(f"several processes cannot share --device {kind}; give cpu, or cuda or xpu without a number")
    devices = torch.get_device_module(kind).device_count()
    if processes > devices:
        raise RunError(
            f"torchrun has started {processes} processes on a machine with {devices} devices '{kind}'; start one for "
            f"each device with --nproc-per-node, or give --device cpu"
        )
    return torch.device(kind, number)


def _group(tensor: Tensor) -> distributed.ProcessGroup | None:
    return None if tensor.device.type == "cpu" else _devices


def _meeting(call: Callable[[], Any]) -> None:
    """Run something in which all processes take part; a RunError says that one of them is gone."""
    try:
        call()
    except RuntimeError as err:
        said = " ".join(str(err).split())[:200]
        raise RunError(
            f"the connection to another process of this run is lost ({said}); what that process printed says why, and "
            "the same command continues from the last epoch"
        ) from err
