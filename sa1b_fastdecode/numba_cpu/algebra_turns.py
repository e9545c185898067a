"""Masks flipped, turned and transposed, in Numba, as ``csrc/cpu/algebra_turns.cpp`` does it."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array, array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import most_runs_of_column, move, next_run
from sa1b_fastdecode.numba_cpu.stream_writer import (
    STATE_SIZE,
    begin_string,
    finish_string,
    make_block,
    put_run,
)
from sa1b_fastdecode.status import BAD_HEADER, MAX_PIXELS

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
            put_run(chars, state, pixels - stop, pixels - whole)
            runs[n - 1, 1] = whole
        else:
            first = n - 1
            while first > 0 and np.int64(runs[first - 1, 1]) > column:
                first -= 1
            to = pixels - column - h
            for i in range(first, n):
                begin = max(np.int64(runs[i, 0]), column)
                put_run(chars, state, to + begin - column, to + np.int64(runs[i, 1]) - column)
            n = first + 1
            runs[first, 1] = column
        if runs[n - 1, 0] >= runs[n - 1, 1]:
            n -= 1


@jit
def _reverse(data, at, end, h, pixels, rows, columns, runs, chars, state):
    n = _gather_runs(data, at, end, pixels, rows, runs)
    if rows == columns:
        for i in range(n):
            put_run(chars, state, np.int64(runs[i, 0]), np.int64(runs[i, 1]))
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
                put_run(chars, state, column + start, column + end_of_run)
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
        begin_string(state)
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
        lengths[i] = finish_string(to, state, h * w)
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
    room = most_runs_of_column(header, num_masks) if transpose else 0

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
                np.empty(most_rows + 1, np.int64), xs, np.empty(STATE_SIZE, np.int64),
            )  # fmt: skip

    out_sizes = sizes[:, ::-1].copy() if transpose else sizes
    return make_block(
        out_sizes, array_at(images, 3 * num_images, np.int64), num_threads, num_bytes, write
    )
