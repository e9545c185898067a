"""Words of 64 bits."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit

# Multiplied by this, each power of two has other 6 highest bits, which tell it apart.
_DE_BRUIJN = 0x03F79D71B4CB0A89
_BIT_INDEX = np.zeros(64, np.uint8)
for _bit in range(64):
    _BIT_INDEX[(_DE_BRUIJN << _bit & 0xFFFFFFFFFFFFFFFF) >> 58] = _bit


@jit
def lowest_bit(bits):
    """Return the index of the lowest set bit; there must be one."""
    lowest = bits & (~bits + np.uint64(1))
    return np.int64(_BIT_INDEX[(lowest * np.uint64(_DE_BRUIJN)) >> np.uint64(58)])
