"""Masks made of masks, in Numba; the algorithms are those of ``csrc/cpu/algebra_*.cpp``.

What a kernel writes goes straight into the block of the result: it runs twice, the first time with
no room for characters, which only counts them. Groups of two masks are drawn like larger ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sa1b_fastdecode.numba_cpu.bits import lowest_bit
from sa1b_fastdecode.numba_cpu.decode import to_output
from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array, array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import move, next_run
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import (
    BAD_HEADER,
    BAD_PLANE,
    BAD_SHAPE,
    BAD_WINDOW,
    MAX_PIXELS,
    MIXED_SIZES,
)

_MAX_THREADS = 64
_FAR = 1 << 33

# What is known of the string that is being written: the toggle that waits since another may follow
# at its place, the last boundary, the last two counts, and how many characters there are.
_WAITING, _LAST, _OLDER, _NEWER, _FIRST, _LENGTH = range(6)
_STATE_SIZE = 6


@jit
def _begin(state):
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
def _toggle(chars, state, position):
    if state[_WAITING] == position:
        state[_WAITING] = -1
        return
    if state[_WAITING] >= 0:
        _put_boundary(chars, state, state[_WAITING])
    state[_WAITING] = position


@jit
def _put_run(chars, state, start, stop):
    _toggle(chars, state, start)
    _toggle(chars, state, stop)


@jit
def _finish(chars, state, pixels):
    if state[_WAITING] >= 0 and state[_WAITING] < pixels:
        _put_boundary(chars, state, state[_WAITING])
    _put_boundary(chars, state, pixels)
    return state[_LENGTH]


def _make(
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


# --- Set operations

# Kinds of `Combine` in csrc/algebra.h.
UNION, INTERSECTION, XOR, DIFFERENCE, COMPLEMENT = range(5)
_SET, _CLEAR, _FLIP = range(3)
_WINDOW_WORDS = 2048
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)

# Columns of what is known of a mask while the window moves on: where its string goes on and ends,
# its last two counts, whether none was read, the run that comes next, and which batch it is of.
_AT, _END, _OLD, _NEW, _NONE_READ, _START, _STOP, _OF_OTHER = range(8)
_READER_SIZE = 8


@jit
def _next_of(data, reader, pixels):
    at, older, newer, start, stop = next_run(
        data, reader[_AT], reader[_END], reader[_OLD], reader[_NEW], reader[_NONE_READ] != 0,
        reader[_STOP], pixels,
    )  # fmt: skip
    reader[_AT] = at if at >= 0 else reader[_END]
    reader[_OLD], reader[_NEW], reader[_NONE_READ] = older, newer, 0
    reader[_START], reader[_STOP] = start, stop


@jit
def _draw_word(words, word, bits, how):
    if how == _SET:
        words[word] |= bits
    elif how == _CLEAR:
        words[word] &= ~bits
    else:
        words[word] ^= bits


@jit
def _draw(words, drawn, start, stop, how):
    """Draw bits [start, stop); ``drawn`` holds the first and the end of the words set so far."""
    first, last = start >> 6, (stop - 1) >> 6
    if how != _CLEAR:
        drawn[0] = min(drawn[0], first)
        drawn[1] = max(drawn[1], last + 1)
    head = _ALL_BITS << np.uint64(start & 63)
    tail = _ALL_BITS >> np.uint64(63 - ((stop - 1) & 63))
    if first == last:
        _draw_word(words, first, head & tail, how)
        return
    _draw_word(words, first, head, how)
    for word in range(first + 1, last):
        _draw_word(words, word, _ALL_BITS, how)
    _draw_word(words, last, tail, how)


@jit
def _draw_runs(data, reader, pixels, base, window_end, words, drawn, how):
    while reader[_START] < window_end:
        if reader[_STOP] > base:
            start, stop = max(reader[_START], base), min(reader[_STOP], window_end)
            _draw(words, drawn, start - base, stop - base, how)
        if reader[_STOP] > window_end:
            return
        _next_of(data, reader, pixels)


@jit
def _clear_gaps(data, reader, pixels, base, window_end, words, drawn):
    gap, end = 64 * min(drawn[0], drawn[1]), 64 * drawn[1]
    while reader[_START] < window_end:
        if reader[_STOP] > base:
            start = min(max(reader[_START], base) - base, end)
            if gap < start:
                _draw(words, drawn, gap, start, _CLEAR)
            gap = max(gap, min(reader[_STOP], window_end) - base)
        if reader[_STOP] > window_end:
            break
        _next_of(data, reader, pixels)
    if gap < end:
        _draw(words, drawn, gap, end, _CLEAR)


@jit
def _flush(words, drawn, base, chars, state):
    before = np.uint64(0)
    for word in range(drawn[0], drawn[1]):
        bits = words[word]
        words[word] = 0
        changes = bits ^ (bits << np.uint64(1) | before)
        while changes != 0:
            _toggle(chars, state, base + 64 * word + lowest_bit(changes))
            changes &= changes - np.uint64(1)
        before = bits >> np.uint64(63)
    if before != 0:
        _toggle(chars, state, base + 64 * drawn[1])
    drawn[0], drawn[1] = _WINDOW_WORDS, 0


@jit
def _combine_group(data, other, readers, pixels, kind, words, drawn, chars, state):
    if kind == COMPLEMENT:
        _toggle(chars, state, 0)
    how = _CLEAR if kind == DIFFERENCE else _FLIP if kind == XOR else _SET
    base = np.int64(0)
    while base < pixels:
        start = readers[0, _START]
        if kind != INTERSECTION and kind != DIFFERENCE:
            for i in range(1, len(readers)):
                start = min(start, readers[i, _START])
        if start == pixels:
            break
        base = max(base, start // (64 * _WINDOW_WORDS) * (64 * _WINDOW_WORDS))
        window_end = min(base + 64 * _WINDOW_WORDS, pixels)
        for i in range(len(readers)):
            reader = readers[i]
            source = other if reader[_OF_OTHER] else data
            if i > 0 and kind == INTERSECTION:
                _clear_gaps(source, reader, pixels, base, window_end, words, drawn)
            else:
                draw = how if i > 0 else _SET
                _draw_runs(source, reader, pixels, base, window_end, words, drawn, draw)
        _flush(words, drawn, base, chars, state)
        base += 64 * _WINDOW_WORDS


@jit
def _combine_groups(
    data, header, num_masks, other, other_header, num_other, kind, members, group_offsets,
    begin, stop, chars, offsets, lengths, readers, words, drawn, state,
):  # fmt: skip
    for group in range(begin, stop):
        first, end = group_offsets[group], group_offsets[group + 1]
        used = readers[: end - first]
        pixels = np.int64(0)
        for k in range(first, end):
            reader = used[k - first]
            reader[:] = 0
            reader[_NONE_READ] = 1
            i = members[k]
            if i < num_masks:
                pixels = header[2 * i] * header[2 * i + 1]
                reader[_AT], reader[_END] = header[2 * num_masks + i], header[2 * num_masks + i + 1]
                _next_of(data, reader, pixels)
            else:
                i -= num_masks
                pixels = other_header[2 * i] * other_header[2 * i + 1]
                reader[_AT] = other_header[2 * num_other + i]
                reader[_END] = other_header[2 * num_other + i + 1]
                reader[_OF_OTHER] = 1
                _next_of(other, reader, pixels)
        to = chars[offsets[group] : offsets[group + 1]]
        _begin(state)
        _combine_group(data, other, used, pixels, kind, words, drawn, to, state)
        lengths[group] = _finish(to, state, pixels)


def _find_sizes(sizes: Array, members: Array, ends: Array) -> Array | int:
    """Return the sizes (G,2) of the masks of each group, or a status."""
    if ends[0] != 0 or ends[-1] != len(members) or (ends[1:] <= ends[:-1]).any():
        return BAD_PLANE
    if ((members < 0) | (members >= len(sizes))).any():
        return BAD_PLANE
    firsts = sizes[members[ends[:-1]]]
    if (sizes[members] != np.repeat(firsts, np.diff(ends), axis=0)).any():
        return MIXED_SIZES
    return firsts


def combine(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    kind: int,
    members: int,
    num_members: int,
    group_offsets: int,
    num_groups: int,
    images: int,
    num_images: int,
    num_threads: int,
) -> Array | int:
    blocks = array_at(data, num_bytes, np.uint8), array_at(other, other_bytes, np.uint8)
    headers = read_header(blocks[0], num_masks), read_header(blocks[1], num_other)
    if headers[0] is None or headers[1] is None:
        return BAD_HEADER
    if not UNION <= kind <= COMPLEMENT:
        return BAD_PLANE
    ids = array_at(members, num_members, np.int64)
    ends = array_at(group_offsets, num_groups + 1, np.int64)
    all_sizes = np.concatenate([headers[0][: 2 * num_masks], headers[1][: 2 * num_other]])
    sizes = _find_sizes(all_sizes.reshape(-1, 2), ids, ends)
    if isinstance(sizes, int):
        return sizes
    most = int(np.diff(ends).max(initial=0))

    def write(begin: int, stop: int, chars: Array, offsets: Array, lengths: Array) -> None:
        _combine_groups(
            blocks[0], headers[0], num_masks, blocks[1], headers[1], num_other, kind, ids, ends,
            begin, stop, chars, offsets, lengths, np.empty((most, _READER_SIZE), np.int64),
            np.zeros(_WINDOW_WORDS, np.uint64), np.array([_WINDOW_WORDS, 0]),
            np.empty(_STATE_SIZE, np.int64),
        )  # fmt: skip

    table = array_at(images, 3 * num_images, np.int64)
    return _make(sizes, table, num_threads, num_bytes + other_bytes, write)


# --- Windows


@jit
def _put_columns(chars, state, begin, stop, out_h, rows, n):
    """Write rows (top, bottom) of a column to each of the columns [begin, stop)."""
    if n == 1 and rows[0, 0] == 0 and rows[0, 1] == out_h:
        _put_run(chars, state, begin * out_h, stop * out_h)
        return
    for x in range(begin, stop):
        for i in range(n):
            _put_run(chars, state, x * out_h + rows[i, 0], x * out_h + rows[i, 1])


@jit
def _place_masks(
    data, header, num_masks, windows, sizes, begin, stop_mask, chars, offsets, lengths, rows, state
):
    for i in range(begin, stop_mask):
        h, w = header[2 * i], header[2 * i + 1]
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        top, left, window_h, window_w = windows[i]
        out_h, out_w = sizes[i]
        resize = window_h != out_h or window_w != out_w
        to = chars[offsets[i] : offsets[i + 1]]
        _begin(state)
        if window_h == 0 or window_w == 0:
            end = at  # shows nothing
        first_row = to_output(np.int64(0), top, window_h, out_h, resize)
        last_row = to_output(h, top, window_h, out_h, resize)
        older = np.int64(0)
        newer = np.int64(0)
        position = np.int64(0)
        first = True
        # (x1, y1) is the last pixel of the run before; what is gathered is of column x.
        x1, y1 = np.int64(0), np.int64(-1)
        x = np.int64(0)
        n = 0
        while True:
            last = position
            at, older, newer, start, position = next_run(
                data, at, end, older, newer, first, position, h * w
            )
            if at < 0:
                break
            first = False
            x0, y0 = move(x1, y1, start - last + 1, h)
            x1, y1 = move(x0, y0, position - 1 - start, h)
            for part in range(2):
                column = x0 if part == 0 else x1
                if n > 0 and (column != x or part == 1):
                    begin_column = to_output(x, left, window_w, out_w, resize)
                    end_column = to_output(x + 1, left, window_w, out_w, resize)
                    _put_columns(to, state, begin_column, end_column, out_h, rows, n)
                    n = 0
                if part == 1 and x0 + 1 < x1 and first_row < last_row:
                    begin_column = to_output(x0 + 1, left, window_w, out_w, resize)
                    end_column = to_output(x1, left, window_w, out_w, resize)
                    rows[0, 0], rows[0, 1] = first_row, last_row
                    _put_columns(to, state, begin_column, end_column, out_h, rows, 1)
                x = column
                row, end_row = first_row, last_row
                if part == 0:
                    row = to_output(y0, top, window_h, out_h, resize)
                if column == x1:
                    end_row = to_output(y1 + 1, top, window_h, out_h, resize)
                if row < end_row:
                    rows[n, 0], rows[n, 1] = row, end_row
                    n += 1
                if x0 == x1:
                    break
        if n > 0:
            begin_column = to_output(x, left, window_w, out_w, resize)
            end_column = to_output(x + 1, left, window_w, out_w, resize)
            _put_columns(to, state, begin_column, end_column, out_h, rows, n)
        lengths[i] = _finish(to, state, out_h * out_w)


def place(
    data: int,
    num_bytes: int,
    num_masks: int,
    windows: int,
    sizes: int,
    images: int,
    num_images: int,
    num_threads: int,
) -> Array | int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    shown = array_at(windows, 4 * num_masks, np.int64).reshape(-1, 4)
    out_sizes = array_at(sizes, 2 * num_masks, np.int64).reshape(-1, 2)
    if (
        (out_sizes < 0).any()
        or (out_sizes > MAX_PIXELS).any()
        or (out_sizes.astype(np.uint64).prod(axis=1) > np.uint64(MAX_PIXELS)).any()
    ):
        return BAD_SHAPE
    begins, sides = shown[:, :2], shown[:, 2:]
    if ((begins < -_FAR) | (begins > _FAR)).any() or ((sides < 0) | (sides > MAX_PIXELS)).any():
        return BAD_WINDOW
    room = _most_runs_of_column(header, num_masks)

    def write(begin: int, stop: int, chars: Array, offsets: Array, lengths: Array) -> None:
        _place_masks(
            block, header, num_masks, shown, out_sizes, begin, stop, chars, offsets, lengths,
            np.empty((room, 2), np.int64), np.empty(_STATE_SIZE, np.int64),
        )  # fmt: skip

    return _make(
        out_sizes, array_at(images, 3 * num_images, np.int64), num_threads, num_bytes, write
    )


def _most_runs_of_column(header: Array, num_masks: int) -> int:
    """Return how many runs one column of any mask can have, whatever its string is."""
    heights = header[: 2 * num_masks : 2]
    runs = np.diff(header[2 * num_masks :]) // 2
    return int(np.minimum(heights, runs).max(initial=0)) + 1


# --- Flips, quarter turns and transposition

_BAND_ROWS = 1 << 16


@jit
def _gather_runs(data, at, end, pixels, backwards, runs):
    """Store the runs, or those of the mask with all positions reversed; return their number."""
    older = np.int64(0)
    newer = np.int64(0)
    stop = np.int64(0)
    first = True
    n = 0
    while True:
        at, older, newer, start, stop = next_run(data, at, end, older, newer, first, stop, pixels)
        if at < 0:
            break
        first = False
        runs[n, 0], runs[n, 1] = start, stop
        n += 1
    if backwards:
        for i in range((n + 1) // 2):
            k = n - 1 - i
            start, stop = runs[i, 0], runs[i, 1]
            runs[i, 0], runs[i, 1] = pixels - runs[k, 1], pixels - runs[k, 0]
            runs[k, 0], runs[k, 1] = pixels - stop, pixels - start
    return n


@jit
def _put_mirrored(runs, n, h, pixels, chars, state):
    """Write runs with the columns in reversed order."""
    while n > 0:
        start, stop = np.int64(runs[n - 1, 0]), np.int64(runs[n - 1, 1])
        column = (stop - 1) // h * h
        if start <= column and stop == column + h:
            # Whole columns, from the first one that the run fills.
            whole = (start + h - 1) // h * h
            _put_run(chars, state, pixels - stop, pixels - whole)
            runs[n - 1, 1] = whole
        else:
            first = n - 1
            while first > 0 and np.int64(runs[first - 1, 1]) > column:
                first -= 1
            to = pixels - column - h
            for i in range(first, n):
                begin = max(np.int64(runs[i, 0]), column)
                _put_run(chars, state, to + begin - column, to + np.int64(runs[i, 1]) - column)
            n = first + 1
            runs[first, 1] = column
        if runs[n - 1, 0] >= runs[n - 1, 1]:
            n -= 1


@jit
def _reverse(data, at, end, h, pixels, rows, columns, runs, chars, state):
    n = _gather_runs(data, at, end, pixels, rows, runs)
    if rows == columns:
        for i in range(n):
            _put_run(chars, state, np.int64(runs[i, 0]), np.int64(runs[i, 1]))
    else:
        _put_mirrored(runs, n, h, pixels, chars, state)


@jit
def _change(ends, xs, placing, x, top, bottom):
    """Count or place the boundaries of rows [top, bottom), in which column x differs."""
    if placing:
        for y in range(top, bottom):
            xs[ends[y]] = x
            ends[y] += 1
    else:
        ends[top] += 1
        ends[bottom] -= 1


# Of the two columns that are compared: how many rows each holds, and which one is the current.
_CURRENT = 2


@jit
def _compare_columns(columns, sizes, ends, xs, placing, x):
    """Find the rows in which the current column x differs from the one before it."""
    current = sizes[_CURRENT]
    before = 1 - current
    a, b = 0, 0
    top = np.int64(-1)
    while a < sizes[before] or b < sizes[current]:
        row_a = columns[before, a] if a < sizes[before] else np.int64(MAX_PIXELS)
        row_b = columns[current, b] if b < sizes[current] else np.int64(MAX_PIXELS)
        row = min(row_a, row_b)
        a += row_a == row
        b += row_b == row
        if row_a == row_b:
            continue
        if top >= 0:
            _change(ends, xs, placing, x, top, row)
            top = np.int64(-1)
        else:
            top = row


@jit
def _end_column(columns, sizes, ends, xs, placing, x, next_x):
    """Compare column x with the one before it, and go on to the empty column ``next_x``."""
    _compare_columns(columns, sizes, ends, xs, placing, x)
    sizes[_CURRENT] = 1 - sizes[_CURRENT]
    sizes[sizes[_CURRENT]] = 0
    if next_x > x + 1:
        _compare_columns(columns, sizes, ends, xs, placing, x + 1)
        sizes[:_CURRENT] = 0


@jit
def _find_changes(data, at, end, h, pixels, top, bottom, columns, sizes, ends, xs, placing):
    """Count or place the boundaries between columns, in rows [top, bottom)."""
    older = np.int64(0)
    newer = np.int64(0)
    position = np.int64(0)
    first = True
    x1, y1 = np.int64(0), np.int64(-1)
    x = np.int64(0)
    sizes[:] = 0
    while True:
        last = position
        at, older, newer, start, position = next_run(
            data, at, end, older, newer, first, position, pixels
        )
        if at < 0:
            break
        first = False
        x0, y0 = move(x1, y1, start - last + 1, h)
        x1, y1 = move(x0, y0, position - 1 - start, h)
        # The columns between are full: only the first of them can differ from the one before.
        column = x0
        while True:
            if column != x:
                _end_column(columns, sizes, ends, xs, placing, x, column)
                x = column
            row = max(y0 if column == x0 else np.int64(0), top)
            end_row = min(y1 + 1 if column == x1 else h, bottom)
            if row < end_row:
                current = sizes[_CURRENT]
                n = sizes[current]
                columns[current, n], columns[current, n + 1] = row - top, end_row - top
                sizes[current] = n + 2
            if column == x1:
                break
            column += 1
            if column == x0 + 3 and column < x1:
                x = x1 - 1
                column = x1
    _end_column(columns, sizes, ends, xs, placing, x, x + 2)


@jit
def _find_rows(data, at, end, h, pixels):
    """Return the first row of a mask and the one after the last."""
    older = np.int64(0)
    newer = np.int64(0)
    position = np.int64(0)
    first = True
    x1, y1 = np.int64(0), np.int64(-1)
    top, bottom = h, np.int64(0)
    while True:
        last = position
        at, older, newer, start, position = next_run(
            data, at, end, older, newer, first, position, pixels
        )
        if at < 0:
            break
        first = False
        x0, y0 = move(x1, y1, start - last + 1, h)
        x1, y1 = move(x0, y0, position - 1 - start, h)
        top = min(top, y0 if x0 == x1 else np.int64(0))
        bottom = max(bottom, y1 + 1 if x0 == x1 else h)
    return top, bottom


@jit
def _transpose(
    data, at, end, h, w, reverse_rows, reverse_columns, columns, sizes, ends, xs, chars, state
):
    """Write a mask whose rows become columns; return how much room in ``xs`` that takes.

    If that is more than there is, the string is not complete.
    """
    most = np.int64(0)
    top, bottom = _find_rows(data, at, end, h, h * w)
    if top >= bottom:
        return most
    band_rows = min(bottom - top, max(np.int64(_BAND_ROWS), end - at))
    bands = (bottom - top + band_rows - 1) // band_rows
    for band in range(bands):
        begin = top + (bands - 1 - band if reverse_columns else band) * band_rows
        stop = min(begin + band_rows, bottom)
        rows = stop - begin
        ends[: rows + 1] = 0
        _find_changes(data, at, end, h, h * w, begin, stop, columns, sizes, ends, xs, False)
        total = np.int64(0)
        in_row = np.int64(0)
        for y in range(rows):
            in_row += ends[y]
            ends[y] = total
            total += in_row
        most = max(most, total)
        if total > len(xs):
            continue
        _find_changes(data, at, end, h, h * w, begin, stop, columns, sizes, ends, xs, True)
        for i in range(rows):
            y = rows - 1 - i if reverse_columns else i
            first, last = (ends[y - 1] if y > 0 else np.int64(0)), ends[y]
            column = (h - 1 - begin - y if reverse_columns else begin + y) * w
            for k in range((last - first) // 2):
                if reverse_rows:
                    run = last - 2 * k - 2
                    start, end_of_run = w - np.int64(xs[run + 1]), w - np.int64(xs[run])
                else:
                    run = first + 2 * k
                    start, end_of_run = np.int64(xs[run]), np.int64(xs[run + 1])
                _put_run(chars, state, column + start, column + end_of_run)
    return most


@jit
def _turn_masks(
    data, header, num_masks, transpose, reverse_rows, reverse_columns, begin, stop, chars, offsets,
    lengths, runs, columns, sizes, ends, xs, state,
):  # fmt: skip
    """Turn masks from ``begin`` on; return where it stopped and how much room in ``xs`` it needs.

    It stops before ``stop`` only for want of that room.
    """
    for i in range(begin, stop):
        h, w = header[2 * i], header[2 * i + 1]
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        to = chars[offsets[i] : offsets[i + 1]]
        _begin(state)
        if transpose and h != 1 and w != 1:
            room = _transpose(
                data, at, end, h, w, reverse_rows, reverse_columns, columns, sizes, ends, xs, to,
                state,
            )  # fmt: skip
            if room > len(xs):
                return i, room
        else:
            rows, reversed_columns = reverse_rows, reverse_columns
            if transpose:  # a single row or column
                rows = reversed_columns = reverse_columns if w == 1 else reverse_rows
            _reverse(data, at, end, h, h * w, rows, reversed_columns, runs, to, state)
        lengths[i] = _finish(to, state, h * w)
    return stop, np.int64(0)


def turn(
    data: int,
    num_bytes: int,
    num_masks: int,
    transpose: bool,
    reverse_rows: bool,
    reverse_columns: bool,
    images: int,
    num_images: int,
    num_threads: int,
) -> Array | int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    sizes = header[: 2 * num_masks].reshape(-1, 2)
    most_chars = int(np.diff(header[2 * num_masks :]).max(initial=0))
    most_rows = min(int(sizes[:, 0].max(initial=0)), max(_BAND_ROWS, most_chars))
    if not transpose:
        most_rows = 0
    room = _most_runs_of_column(header, num_masks) if transpose else 0

    def write(begin: int, stop: int, chars: Array, offsets: Array, lengths: Array) -> None:
        xs = np.empty(0, np.uint32)
        needed = 1 << 12
        while begin < stop:
            if needed > len(xs):
                xs = np.empty(needed + needed // 4, np.uint32)
            begin, needed = _turn_masks(
                block, header, num_masks, transpose, reverse_rows, reverse_columns, begin, stop,
                chars, offsets, lengths, np.empty((most_chars // 2 + 1, 2), np.uint32),
                np.empty((2, 2 * room), np.int64), np.zeros(3, np.int64),
                np.empty(most_rows + 1, np.int64), xs, np.empty(_STATE_SIZE, np.int64),
            )  # fmt: skip

    out_sizes = sizes[:, ::-1].copy() if transpose else sizes
    return _make(
        out_sizes, array_at(images, 3 * num_images, np.int64), num_threads, num_bytes, write
    )
