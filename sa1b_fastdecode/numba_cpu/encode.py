"""Dense masks to strings."""

from __future__ import annotations

import mmap
from collections import deque

import numpy as np

from sa1b_fastdecode.numba_cpu.bits import lowest_bit
from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import SCRATCH_BYTES, Array, array_at
from sa1b_fastdecode.numba_cpu.runs import put_value
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import MAX_CHARS_PER_COUNT, MAX_PIXELS

# What there is to know where encoding stands: the kernel returns when its chunk of characters is
# full and goes on in the next one.
_MASK, _STARTED, _POSITION, _COLUMN, _BAND = range(5)
# Of the string: the last boundary, the counts before the next, whether there are any, and how many
# boundaries are still to be left to those who join strips, with the place of the first.
_LAST, _OLDER, _NEWER, _FIRST, _HEADS_LEFT, _HEADS = range(5, 11)
_STATE_SIZE = _HEADS + 3

_WORD_CHARS = 64 * MAX_CHARS_PER_COUNT
_FIRST_CHUNK, _CHUNK = 16 << 10, 1 << 20
_MAX_ENCODERS = 64
_MIN_STRIP_COLUMNS, _MIN_STRIP_PIXELS = 256, 1 << 18


@jit
def _is_foreground(flat, at, size, value_bits):
    """Whether the element at ``at`` is; one of ``size`` bytes if they do not lie as such."""
    if size == 1:
        return (np.uint64(flat[at]) & value_bits) != 0
    for i in range(size):
        if (np.uint64(flat[at + i]) & (value_bits >> np.uint64(8 * i)) & np.uint64(0xFF)) != 0:
            return True
    return False


@jit
def _foreground(flat, at, step, n, size, value_bits):
    """Return which of ``n`` <= 64 elements are foreground, as bits."""
    bits = np.uint64(0)
    for i in range(n):
        bits |= np.uint64(_is_foreground(flat, at + i * step, size, value_bits)) << np.uint64(i)
    return bits


@jit
def _differ(one, other):
    """Whether two lines of 64 elements differ anywhere."""
    differences = one[0] ^ other[0]
    for i in range(1, 64):
        differences |= one[i] ^ other[i]
    return differences != 0


@jit
def _set_changes(blocks, touched, block, y, changes):
    if touched[block] == 0:
        touched[block] = 1
        blocks[block, :] = 0
    blocks[block, y & 63] = changes


@jit
def _find_changes(
    flat, start, h, begin, end, row_step, column_step, size, value_bits,
    blocks, touched, first, above,
):  # fmt: skip
    """Compare each row of columns [begin, end) with the one above."""
    bands = (h + 63) >> 6
    groups = (end - begin + 63) >> 6
    neighbours = size == 1 and column_step == 1
    for y in range(h):
        row = start + y * row_step + begin * column_step
        for group in range(groups):
            n = min(64, end - begin - 64 * group)
            at = row + 64 * group * column_step
            if y > 0 and neighbours and n == 64:
                up = at - row_step
                if not _differ(flat[at : at + 64], flat[up : up + 64]):
                    continue
            bits = _foreground(flat, at, column_step, n, size, value_bits)
            if y == 0:
                first[group] = bits
            elif bits != above[group]:
                _set_changes(blocks, touched, group * bands + (y >> 6), y, bits ^ above[group])
            above[group] = bits
    left = np.uint64(0)
    if begin > 0:
        at = start + (h - 1) * row_step + (begin - 1) * column_step
        left = np.uint64(_is_foreground(flat, at, size, value_bits))
    for group in range(groups):
        n = min(64, end - begin - 64 * group)
        changes = first[group] ^ (above[group] << np.uint64(1) | left)
        changes &= np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - n)
        left = above[group] >> np.uint64(63)
        if changes != 0:
            _set_changes(blocks, touched, group * bands, 0, changes)


@jit
def _transpose(rows):
    """Transpose 64 x 64 bits."""
    half = 32
    low = np.uint64(0x00000000FFFFFFFF)
    while half > 0:
        for square in range(0, 64, 2 * half):
            for i in range(square, square + half):
                swapped = ((rows[i] >> np.uint64(half)) ^ rows[i + half]) & low
                rows[i] ^= swapped << np.uint64(half)
                rows[i + half] ^= swapped
        half >>= 1
        low ^= low << np.uint64(half)


@jit
def _put_boundary(chars, out, state, position):
    count = position - state[_LAST]
    state[_LAST] = position
    if state[_HEADS_LEFT] > 0:
        state[_HEADS + 3 - state[_HEADS_LEFT]] = position
        state[_HEADS_LEFT] -= 1
    else:
        out = put_value(chars, out, count - state[_OLDER])
    state[_OLDER] = state[_NEWER]
    # Of a string's first three counts none is a difference; of a strip's, all that is not a head.
    state[_NEWER] = 0 if state[_FIRST] else count
    state[_FIRST] = 0
    return out


@jit
def _put_boundaries(chars, out, state, position, bits):
    """Write a boundary at ``position`` + i for every set bit i."""
    while bits != 0:
        out = _put_boundary(chars, out, state, position + lowest_bit(bits))
        bits &= bits - np.uint64(1)
    return out


@jit
def _write_changes(h, begin, end, blocks, touched, chars, out, state):
    """Write the changes of columns [begin, end), column by column, and forget them."""
    bands = (h + 63) >> 6
    while state[_COLUMN] < end - begin:
        column = state[_COLUMN]
        blocks_at = (column >> 6) * bands
        if state[_BAND] < 0:  # the first of 64 columns
            any_touched = False
            for band in range(bands):
                if touched[blocks_at + band]:
                    _transpose(blocks[blocks_at + band])
                    any_touched = True
            if not any_touched:
                state[_COLUMN] = min(column + 64, end - begin)
                continue
            state[_BAND] = 0
        position = (begin + column) * h
        for band in range(state[_BAND], bands):
            if touched[blocks_at + band] == 0:
                continue
            bits = blocks[blocks_at + band, column & 63]
            if bits != 0:
                if out + _WORD_CHARS > len(chars):
                    state[_BAND] = band
                    return out
                out = _put_boundaries(chars, out, state, position + 64 * band, bits)
        column += 1
        state[_COLUMN], state[_BAND] = column, 0
        if column & 63 == 0 or column == end - begin:
            state[_BAND] = -1
            touched[blocks_at : blocks_at + bands] = 0
    return out


@jit
def _walk_columns(flat, start, h, end, row_step, column_step, size, value_bits, chars, out, state):
    """Write the boundaries of positions up to ``end``."""
    position = state[_POSITION]
    x, y = position // h, position % h
    before = np.uint64(0)
    if position > 0:
        x1, y1 = (x, y - 1) if y > 0 else (x - 1, h - 1)
        at = start + x1 * column_step + y1 * row_step
        before = np.uint64(_is_foreground(flat, at, size, value_bits))
    neighbours = size == 1 and row_step == 1
    while position < end:
        n = min(64, h - y, end - position)
        at = start + x * column_step + y * row_step
        # 65 elements of the column: all equal to the one before means no boundary.
        equal = n == 64 and neighbours and y > 0
        if not (equal and not _differ(flat[at : at + 64], flat[at - 1 : at + 63])):
            bits = _foreground(flat, at, row_step, n, size, value_bits)
            changes = bits ^ (bits << np.uint64(1) | before)
            changes &= np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - n)
            if changes != 0:
                if out + _WORD_CHARS > len(chars):
                    break
                out = _put_boundaries(chars, out, state, position, changes)
            before = bits >> np.uint64(n - 1) & np.uint64(1)
        position += n
        y += n
        if y == h:
            x, y = x + 1, 0
    state[_POSITION] = position
    return out


@jit
def _encode_masks(
    flat, base, mask_step, stop, h, w, row_step, column_step, by_rows, size, value_bits,
    begin, end, strip, blocks, touched, first, above, lengths, chars, out, state,
):  # fmt: skip
    """Encode masks up to ``stop``, or one strip of one, until all is done or ``chars`` is full."""
    while state[_MASK] < stop:
        mask = state[_MASK]
        start = base + mask * mask_step
        slot = mask if strip < 0 else strip
        entered = out
        if state[_STARTED] == 0:
            state[_STARTED] = 1
            state[_POSITION], state[_COLUMN], state[_BAND] = begin, 0, -1
            state[_LAST], state[_OLDER], state[_NEWER] = 0, 0, 0
            state[_FIRST], state[_HEADS_LEFT] = (1, 0) if strip < 0 else (0, 3)
            if by_rows:
                _find_changes(
                    flat, start, h, begin, end, row_step, column_step, size, value_bits,
                    blocks, touched, first, above,
                )  # fmt: skip
        if by_rows:
            out = _write_changes(h, begin, end, blocks, touched, chars, out, state)
            done = state[_COLUMN] == end - begin
        else:
            out = _walk_columns(
                flat, start, h, end, row_step, column_step, size, value_bits, chars, out, state
            )
            done = state[_POSITION] == end
        if done and strip < 0:
            done = out + MAX_CHARS_PER_COUNT <= len(chars)
            if done:
                out = _put_boundary(chars, out, state, h * w)
        lengths[slot] += out - entered
        if not done:
            break
        state[_STARTED] = 0
        state[_MASK] = mask + 1
    return out


class _CharStream:
    """Characters that one thread writes in order, in chunks that go away as they are read."""

    def __init__(self) -> None:
        self.chunks: deque[Array] = deque([np.empty(_FIRST_CHUNK, np.uint8)])
        self.used = [0]
        self._read = 0

    def add_chunk(self) -> None:
        # Mapped, because what malloc gets back it may keep.
        self.chunks.append(np.frombuffer(mmap.mmap(-1, _CHUNK), np.uint8))
        self.used.append(0)

    def read(self, to: Array) -> None:
        """Take out as many characters as there is room for."""
        at = 0
        while at < len(to):
            n = min(len(to) - at, self.used[0] - self._read)
            to[at : at + n] = self.chunks[0][self._read : self._read + n]
            at += n
            self._read += n
            if self._read == self.used[0]:
                self.chunks.popleft()
                self.used.pop(0)
                self._read = 0


def _view_elements(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...], item_size: int
) -> tuple[Array, int, list[int], int]:
    """Return memory as a flat array, the place of element (0, 0, 0), steps, items an element."""
    spans = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    low = sum(span for span in spans if span < 0)
    high = sum(span for span in spans if span > 0) + item_size
    steps = [stride if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)]
    aligned = address % item_size == 0 and all(step % item_size == 0 for step in steps)
    unit = item_size if aligned else 1
    dtype = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[unit]
    flat = array_at(address + low, (high - low) // unit, dtype)
    return flat, -low // unit, [step // unit for step in steps], item_size // unit


def encode(
    data: int,
    num_masks: int,
    h: int,
    w: int,
    mask_stride: int,
    row_stride: int,
    column_stride: int,
    item_size: int,
    value_bits: int,
    num_threads: int,
) -> Array | None:
    if min(num_masks, h, w) < 0 or max(h, w, h * w) > MAX_PIXELS:
        return None
    sides = h, w
    pixels = h * w
    if h == 1:
        row_stride = column_stride
    if h == 1 or w == 1 or column_stride == h * row_stride:
        h, w = pixels, 1  # no gaps between columns: one long column
    threads = min(num_threads, _MAX_ENCODERS)
    threads = useful_threads(threads, _MAX_ENCODERS, num_masks * pixels * item_size)
    bands = (h + 63) // 64
    group_bytes = bands * 513
    by_rows = pixels > 0 and w > 1 and abs(column_stride) < abs(row_stride)
    by_rows = by_rows and group_bytes <= SCRATCH_BYTES
    if by_rows:
        threads = min(threads, SCRATCH_BYTES // group_bytes)
    wanted = 1 if threads == 1 else -(-2 * threads // num_masks)
    size = w if by_rows else pixels
    if by_rows:
        groups = -(-w // 64)
        shared = max(-(-groups // wanted), _MIN_STRIP_COLUMNS // 64)
        strip_size = 64 * min(SCRATCH_BYTES // threads // group_bytes, shared, groups)
    else:
        strip_size = max(-(-pixels // wanted), _MIN_STRIP_PIXELS)
    strips = max(1, -(-size // strip_size))
    if strips > 1:
        items, masks_per_item = num_masks * strips, 1
    else:
        masks_per_item = max(1, num_masks // (16 * threads))
        items = -(-num_masks // masks_per_item)

    # Without pixels nothing is read, and each string is that of one count, 0.
    shape = (num_masks, h, w) if num_masks and pixels else (0, 0, 0)
    flat, base, steps, item_units = np.empty(0, np.uint8), 0, [0, 0, 0], 1
    if all(shape):
        strides = (mask_stride, row_stride, column_stride)
        flat, base, steps, item_units = _view_elements(data, shape, strides, item_size)
    mask_step, row_step, column_step = steps
    small = num_masks * strips * (MAX_CHARS_PER_COUNT * (pixels + 1)) < 2**32
    lengths = np.zeros(num_masks if strips == 1 else items, np.uint32 if small else np.int64)
    strip_states = np.zeros((items if strips > 1 else 0, _STATE_SIZE), np.int64)
    streams = [_CharStream() for _ in range(threads)]

    def work(thread: int) -> None:
        groups = strip_size // 64 if by_rows else 0
        blocks = np.empty((groups * bands, 64), np.uint64)
        touched = np.zeros(groups * bands, np.uint8)
        first, above = np.empty(groups, np.uint64), np.empty(groups, np.uint64)
        state = np.zeros(_STATE_SIZE, np.int64)
        stream = streams[thread]
        for item in range(thread, items, threads):
            if strips > 1:
                mask, strip = divmod(item, strips)
                stop, begin = mask + 1, strip * strip_size
            else:
                mask, begin = item * masks_per_item, 0
                stop = min(mask + masks_per_item, num_masks)
            state[:] = 0
            state[_MASK] = mask
            while True:
                stream.used[-1] = _encode_masks(
                    flat, base, mask_step, stop, h, w, row_step, column_step, by_rows, item_units,
                    np.uint64(value_bits), begin, min(begin + strip_size, size),
                    item if strips > 1 else -1, blocks, touched, first, above, lengths,
                    stream.chunks[-1], stream.used[-1], state,
                )  # fmt: skip
                if state[_MASK] == stop:
                    break
                stream.add_chunk()
            if strips > 1:
                strip_states[item] = state

    in_threads(threads, work)
    heads, tails = _join_strips(strip_states, strips, pixels)
    num_chars = int(lengths.sum(dtype=np.int64)) + sum(map(len, heads)) + sum(map(len, tails))
    num_words = 3 * num_masks + 1
    block = np.empty(8 * num_words + num_chars, np.uint8)
    words = block[: 8 * num_words].view(np.int64)
    words[: 2 * num_masks].reshape(-1, 2)[:] = sides
    offsets = words[2 * num_masks :]
    offsets[0] = at = 8 * num_words
    if strips == 1:
        np.cumsum(lengths, out=offsets[1:], dtype=np.int64)
        offsets[1:] += at
    for item in range(items):
        stream = streams[item % threads]
        if strips == 1:
            first_mask = item * masks_per_item
            stop_mask = min(first_mask + masks_per_item, num_masks)
            stream.read(block[offsets[first_mask] : offsets[stop_mask]])
            continue
        at = _place(block, at, heads[item])
        end = at + int(lengths[item])
        stream.read(block[at:end])
        at = end
        if (item + 1) % strips == 0:
            at = _place(block, at, tails[item // strips])
            offsets[item // strips + 1] = at
    return block


def _place(block: Array, at: int, chars: bytes) -> int:
    block[at : at + len(chars)] = np.frombuffer(chars, np.uint8)
    return at + len(chars)


def _join_strips(states: Array, strips: int, pixels: int) -> tuple[list[bytes], list[bytes]]:
    """Return what must come before the characters of each strip, and after those of each mask."""
    heads, tails = [], []
    chars = np.empty(3 * MAX_CHARS_PER_COUNT, np.uint8)
    for item in range(len(states)):
        if item % strips == 0:
            joined = np.zeros(_STATE_SIZE, np.int64)
            joined[_FIRST] = 1
        state, out = states[item], 0
        num_heads = 3 - int(state[_HEADS_LEFT])
        for position in state[_HEADS : _HEADS + num_heads]:
            out = _put_boundary(chars, out, joined, position)
        heads.append(chars[:out].tobytes())
        if num_heads == 3:
            joined[:] = state
            joined[_HEADS_LEFT] = 0
        if (item + 1) % strips == 0:
            out = _put_boundary(chars, 0, joined, pixels)
            tails.append(chars[:out].tobytes())
    return heads, tails
