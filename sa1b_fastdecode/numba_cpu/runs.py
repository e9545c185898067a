"""Reading and writing the counts of one mask, one at a time."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array


@jit
def next_count(data, at, end, older, newer, first):
    """Read one count: (at, count, older, newer); at = -1 at the end of the string."""
    if at == end:
        return np.int64(-1), np.int64(0), older, newer
    bits = (np.int64(data[at]) - 48) & 0xFFFFFFFF
    at += 1
    if bits < 0x20:
        value = (bits ^ 0x10) - 0x10
    else:
        value = bits & 0x1F
        shift = 5
        while bits & 0x20:
            if at == end:
                return np.int64(-1), np.int64(0), older, newer
            bits = (np.int64(data[at]) - 48) & 0xFFFFFFFF
            at += 1
            if shift < 32:
                value |= (bits & 0x1F) << shift
            shift += 5
        if bits & 0x10 and shift < 32:
            value -= np.int64(1) << shift
    count = (value + older) & 0xFFFFFFFF
    return at, count, newer, np.int64(0) if first else count


@jit
def put_value(chars, out, value):
    """Write one value from ``out`` on; return where the next one goes."""
    more = True
    while more:
        low = value & 0x1F
        value >>= 5
        more = value != (-1 if low & 0x10 else 0)
        chars[out] = 48 + low + (0x20 if more else 0)
        out += 1
    return out


@jit
def next_run(data, at, end, older, newer, first, position, pixels):
    """Read one foreground run: (at, older, newer, start, stop); at = -1 after the last."""
    while True:
        at, background, older, newer = next_count(data, at, end, older, newer, first)
        if at < 0 or position + background >= pixels:
            return np.int64(-1), older, newer, pixels, pixels
        start = position + background
        at, foreground, older, newer = next_count(data, at, end, older, newer, False)
        if at < 0:
            return np.int64(-1), older, newer, pixels, pixels
        position = min(start + foreground, pixels)
        first = False
        if foreground > 0:
            return at, older, newer, start, position


@jit
def move(x, y, step, h):
    """Return column and row ``step`` positions further; divides only for a long step."""
    y += step
    if y >= h:
        if step < h:
            x += 1
            y -= h
        else:
            x += y // h
            y %= h
    return x, y


def most_runs_of_column(header: Array, num_masks: int) -> int:
    """Return how many runs one column of any mask can have, whatever its string is."""
    heights = header[: 2 * num_masks : 2]
    runs = np.diff(header[2 * num_masks :]) // 2
    return int(np.minimum(heights, runs).max(initial=0)) + 1
