"""Memory at addresses, as arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from sa1b_fastdecode.status import MAX_PIXELS

Array = npt.NDArray[Any]

# What a call may take beside its result, in all threads together.
SCRATCH_BYTES = 8 << 20


def array_at(address: int, count: int, dtype: Any) -> Array:
    """Return the array of ``count`` elements at an address; empty for address 0."""
    if address == 0 or count == 0:
        return np.empty(0, dtype)
    num_bytes = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * num_bytes).from_address(address), dtype)


def read_header(data: Array, num_masks: int) -> Array | None:
    """Return sizes (2N) and offsets (N+1) as int64, None if they do not fit the block."""
    words = 3 * num_masks + 1
    if num_masks < 0 or 8 * words > len(data):
        return None
    header = data[: 8 * words].view(np.int64)
    sizes = header[: 2 * num_masks].reshape(-1, 2)
    offsets = header[2 * num_masks :]
    fits = (sizes >= 0).all() and (sizes <= MAX_PIXELS).all()
    fits = (
        fits
        and offsets[0] >= 0
        and offsets[-1] <= len(data)
        and (offsets[1:] >= offsets[:-1]).all()
    )
    # Two sides below 2**32 multiply without overflow in uint64.
    if not fits or (sizes.astype(np.uint64).prod(axis=1) > np.uint64(MAX_PIXELS)).any():
        return None
    return header


class ZeroPages:
    """Fresh memory that reads as zero; supports the buffer protocol."""

    def __new__(cls, num_bytes: int) -> Any:
        return np.zeros(num_bytes, np.uint8)
