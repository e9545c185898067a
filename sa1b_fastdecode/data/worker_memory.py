"""Memory that the main process and its workers share.

A batch of images takes megabytes, and making as much shared memory anew for each costs as much as
decoding the JPEGs: every page is cleared, and faults when it is first written. So a worker keeps
its memory (a slab) and uses it again when the main process has let go of the batch. The first byte
of a slab says so: the worker sets it, and the main process clears it when nothing refers to the
batch's storage any more.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

_HEAD = 4096  # bytes before the data, so that it begins on a page
_LEAST = 1 << 18  # bytes; what is smaller is sent as torch does


def shared_integers(*values: int) -> Tensor:
    """Return int64 ``(len(values),)`` that workers which are running see changes of."""
    integers = torch.tensor(values, dtype=torch.int64)
    integers.share_memory_()  # type: ignore[no-untyped-call]
    return integers


class Slab:
    """Memory that a worker fills and the main process reads."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._file = os.memfd_create("sa1b_fastdecode", os.MFD_CLOEXEC)
        os.ftruncate(self._file, _HEAD + num_bytes)
        self._memory = mmap.mmap(self._file, _HEAD + num_bytes)

    def __del__(self) -> None:
        os.close(self._file)

    @property
    def in_use(self) -> bool:
        """Whether the main process has what is in it, or will get it."""
        return self._memory[0] != 0

    def send(self) -> None:
        """Leave it to the main process."""
        self._memory[0] = 1

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor in it, which holds anything at first."""
        return _tensor_in(np.frombuffer(self._memory, np.uint8), shape, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (DupFd(self._file), _HEAD + self.num_bytes)


def _receive(file: Any, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the memory of a worker's slab; when nothing refers to it, the worker may have it."""
    descriptor = file.detach()
    try:
        memory = mmap.mmap(descriptor, length)
    finally:
        os.close(descriptor)
    array = np.frombuffer(memory, np.uint8)
    release = weakref.finalize(array, _release, memory, os.getpid())
    release.atexit = False
    return array


def _release(memory: mmap.mmap, process: int) -> None:
    if os.getpid() == process:  # and not a process that was forked from it
        memory[0] = 0


def _tensor_in(array: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    num_bytes = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(array)[_HEAD : _HEAD + num_bytes].view(dtype).view(shape)


class Parcel:
    """A tensor in a slab on its way to the main process, where it arrives as a tensor."""

    def __init__(self, tensor: Tensor, slab: Slab) -> None:
        slab.send()
        self._slab = slab
        self._layout = tuple(tensor.shape), tensor.stride(), tensor.dtype

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self._slab, *self._layout)


def _unpack(
    array: Any, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    return _tensor_in(array, (math.prod(shape),), dtype).as_strided(shape, stride)


class Letter:
    """A small tensor on its way: its bytes. Torch would make a file and send its descriptor."""

    def __init__(self, tensor: Tensor) -> None:
        self._array = tensor.numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.from_numpy, (self._array,)


# The slabs of this worker: as many as there are batches on their way or in use.
_slabs: list[Slab] = []


class Packing:
    """Makes the large tensors of one batch, in slabs where the batch will be sent from a worker."""

    def __init__(self, sends: bool) -> None:
        in_worker = get_worker_info() is not None
        self._sends = sends and in_worker and hasattr(os, "memfd_create")
        self._taken: dict[int, Slab] = {}  # by address

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor that is to be filled."""
        num_bytes = math.prod(shape) * dtype.itemsize
        if not self._sends or num_bytes < _LEAST:
            return torch.empty(shape, dtype=dtype)
        slab = self._take(num_bytes)
        tensor = slab.tensor(shape, dtype)
        self._taken[tensor.data_ptr()] = slab
        return tensor

    def _take(self, num_bytes: int) -> Slab:
        taken = list(self._taken.values())
        free = [slab for slab in _slabs if not slab.in_use and slab not in taken]
        large = [slab for slab in free if slab.num_bytes >= num_bytes]
        if large:
            return min(large, key=lambda slab: slab.num_bytes)
        # In place of those that turned out too small.
        slab = Slab(num_bytes)
        _slabs[:] = [*(slab for slab in _slabs if slab not in free), slab]
        return slab

    def seal(self, value: Any) -> Any:
        """Return what stands for a value while it is sent: for tensors, also in dicts and lists."""
        if not self._sends:
            return value
        if isinstance(value, dict):
            return type(value)((key, self.seal(item)) for key, item in value.items())
        if isinstance(value, list):
            return [self.seal(item) for item in value]
        if not isinstance(value, Tensor):
            return value
        slab = self._taken.get(value.data_ptr())
        if slab is not None:
            return Parcel(value, slab)
        is_small = value.nbytes < _LEAST and value.is_contiguous()
        return Letter(value) if is_small and value.dtype != torch.bfloat16 else value
