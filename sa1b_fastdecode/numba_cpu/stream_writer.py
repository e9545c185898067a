"""Strings as kernels of the algebra write them, in Numba.

What a kernel writes goes straight into the block of the result: it runs twice, the first time with
no room for characters, which only counts them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads

_MAX_THREADS = 64

# What is known of the string that is being written: the toggle that waits since another may follow
# at its place, the last boundary, the last two counts, and how many characters there are.
_WAITING, _LAST, _OLDER, _NEWER, _FIRST, _LENGTH = range(6)
STATE_SIZE = 6


@jit
def begin_string(state):
    state[:] = 0
    state[_WAITING] = -1
    state[_FIRST] = 1


@jit
def _put_boundary(chars, state, position):
    """Write the count that ends at ``position``, or only count its characters."""
    count = position - state[_LAST]
    value = count - state[_OLDER]
    out = state[_LENGTH]
    more = True
    while more:
        low = value & 0x1F
        value >>= 5
        more = value != (-1 if low & 0x10 else 0)
        if out < len(chars):
            chars[out] = 48 + low + (0x20 if more else 0)
        out += 1
    state[_LENGTH] = out
    state[_LAST] = position
    state[_OLDER] = state[_NEWER]
    state[_NEWER] = 0 if state[_FIRST] else count
    state[_FIRST] = 0


@jit
def toggle(chars, state, position):
    if state[_WAITING] == position:
        state[_WAITING] = -1
        return
    if state[_WAITING] >= 0:
        _put_boundary(chars, state, state[_WAITING])
    state[_WAITING] = position


@jit
def put_run(chars, state, start, stop):
    toggle(chars, state, start)
    toggle(chars, state, stop)


@jit
def finish_string(chars, state, pixels):
    if state[_WAITING] >= 0 and state[_WAITING] < pixels:
        _put_boundary(chars, state, state[_WAITING])
    _put_boundary(chars, state, pixels)
    return state[_LENGTH]


def make_block(
    sizes: Array,
    images: Array,
    num_threads: int,
    num_bytes: int,
    write: Callable[[int, int, Array, Array, Array], None],
) -> Array:
    """Make a block of masks (N,2) with images (B,3) from a kernel that writes some of them.

    ``write(begin, stop, chars, offsets, lengths)`` writes string i to ``chars[offsets[i]:]``, up to
    ``offsets[i + 1]``, and how long it is.
    """
    num_masks = len(sizes)
    threads = useful_threads(min(num_threads, _MAX_THREADS), num_masks, 64 * num_bytes)
    lengths = np.zeros(num_masks, np.int64)

    def write_all(chars: Array, offsets: Array) -> None:
        def work(thread: int) -> None:
            begin = num_masks * thread // threads
            write(begin, num_masks * (thread + 1) // threads, chars, offsets, lengths)

        in_threads(threads, work)

    write_all(np.empty(0, np.uint8), np.zeros(num_masks + 1, np.int64))
    words = 3 * num_masks + 1
    head = 8 * (words + images.size)
    block = np.empty(head + int(lengths.sum()), np.uint8)
    header = block[:head].view(np.int64)
    header[: 2 * num_masks] = sizes.reshape(-1)
    offsets = header[2 * num_masks : words]
    offsets[0] = head
    np.cumsum(lengths, out=offsets[1:])
    offsets[1:] += head
    header[words:] = images
    write_all(block, offsets)
    return block
