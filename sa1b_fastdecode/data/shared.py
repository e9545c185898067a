"""Memory that the main process and its workers share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def shared_integers(*values: int) -> Tensor:
    """Return int64 ``(len(values),)`` that workers which are running see changes of."""
    integers = torch.tensor(values, dtype=torch.int64)
    integers.share_memory_()  # type: ignore[no-untyped-call]
    return integers


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros; in a worker in shared memory, so that sending them copies nothing."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes == 0 or get_worker_info() is None:
        return torch.zeros(shape, dtype=dtype)
    # What torch's own collate function does. New shared memory is zero.
    storage = torch.UntypedStorage._new_shared(num_bytes)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)
