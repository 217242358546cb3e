"""Crops on their way to the device: copied once as a whole, or batch by batch while the device is at work."""

from __future__ import annotations

import mmap
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasface.errors import DataError

AHEAD = 2  # batches that are read while the device works on another one
_AT_ONCE = 64 << 20  # bytes that are copied to the device at once


def in_place(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """Return images as a tensor that shares their memory, which may be a read-only memory map. Never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images_NHWC)


def copied(images_NHWC: NDArray[np.uint8], rows: Sequence[int], device: torch.device) -> Tensor:
    """Copy some images to a device, piece by piece, so that there is never a second copy of all of them.

    Raises:
        DataError: if the device has too little memory.
    """
    shape = (len(rows), *images_NHWC.shape[1:])
    try:
        found = torch.empty(shape, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as err:
        raise DataError(
            f"the {len(rows):,} faces need {np.prod(shape) / 2**30:.1f} GiB, more memory than {device} has free; set "
            "data.on_device to auto or to no, so that they are brought there batch by batch"
        ) from err
    few = max(1, _AT_ONCE // max(1, images_NHWC[:1].nbytes))
    for start in range(0, len(rows), few):
        found[start : start + few] = torch.from_numpy(images_NHWC[np.asarray(rows[start : start + few])])
    return found


def staged(
    images_NHWC: Tensor, batches: Iterable[Tensor], device: torch.device, mapping: mmap.mmap | None = None
) -> Iterator[Tensor]:
    """Yield the images of each batch on the device, while a thread reads those of the next ones.

    Args:
        images_NHWC: images in host memory, or in a memory-mapped file.
        batches: the rows (B,) of each batch.
        device: where the images are wanted.
        mapping: the memory map of the file. What was read of it is given back to the system, which may keep it as long
            as nobody else needs the memory.
    """
    pinned = device.type == "cuda"  # the copy then runs while the CPU goes on

    def read(rows_B: Tensor) -> Tensor:
        found = torch.empty((len(rows_B), *images_NHWC.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(images_NHWC, 0, rows_B, out=found)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
        return found

    def sent(read_B: Future[Tensor]) -> Tensor:
        return read_B.result().to(device, non_blocking=pinned)

    waiting: deque[Future[Tensor]] = deque()
    reader = ThreadPoolExecutor(1, "nasface-staging")
    try:
        for rows_B in batches:
            waiting.append(reader.submit(read, rows_B))
            if len(waiting) > AHEAD:
                yield sent(waiting.popleft())
        while waiting:
            yield sent(waiting.popleft())
    finally:  # also when the caller wants no more batches
        reader.shutdown(cancel_futures=True)
