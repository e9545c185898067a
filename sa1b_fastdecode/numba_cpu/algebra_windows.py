"""Windows of masks, in Numba, as ``csrc/cpu/algebra_windows.cpp`` does it."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.decode import to_output
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
from sa1b_fastdecode.status import BAD_HEADER, BAD_SHAPE, BAD_WINDOW, MAX_PIXELS

_FAR = 1 << 33


@jit
def _put_columns(chars, state, begin, stop, out_h, rows, n):
    """Write rows (top, bottom) of a column to each of the columns [begin, stop)."""
    if n == 1 and rows[0, 0] == 0 and rows[0, 1] == out_h:
        put_run(chars, state, begin * out_h, stop * out_h)
        return
    for x in range(begin, stop):
        for i in range(n):
            put_run(chars, state, x * out_h + rows[i, 0], x * out_h + rows[i, 1])


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
        begin_string(state)
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
        lengths[i] = finish_string(to, state, out_h * out_w)


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
    room = most_runs_of_column(header, num_masks)

    def write(begin: int, stop: int, chars: Array, offsets: Array, lengths: Array) -> None:
        _place_masks(
            block, header, num_masks, shown, out_sizes, begin, stop, chars, offsets, lengths,
            np.empty((room, 2), np.int64), np.empty(STATE_SIZE, np.int64),
        )  # fmt: skip

    return make_block(
        out_sizes, array_at(images, 3 * num_images, np.int64), num_threads, num_bytes, write
    )
