"""Masks to dense planes."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import SCRATCH_BYTES, array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import move, next_run
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import BAD_HEADER, BAD_PLANE, BAD_WINDOW, MAX_PIXELS, OK

_TILE_COLUMNS = 1 << 16


@jit
def _nearest_source(d, scale, size):
    return min(np.int64((np.float32(d) + np.float32(0.5)) * scale), size - 1)


@jit
def to_output(source, begin, length, out_length, resize):
    """Return the first output index whose source index is at or after ``source``."""
    inside = min(max(source - begin, 0), length)
    if not resize or inside == 0:
        return inside
    if inside >= length:
        return out_length
    scale = np.float32(length) / np.float32(out_length)
    d = min(np.int64(np.float64(inside) / np.float64(scale)), out_length)
    while d > 0 and _nearest_source(d - 1, scale, length) >= inside:
        d -= 1
    while d < out_length and _nearest_source(d, scale, length) < inside:
        d += 1
    return d


@jit
def _flip(bits, box, tile, first, last, y):
    """Flip columns [first, last) of the plane from row y downward, within the tile."""
    row, rows, column, columns = tile
    first = max(first - column, 0)
    last = min(last - column, columns)
    y = max(y - row, 0)
    if first >= last or y >= rows:
        return
    box[0] = min(box[0], y)
    box[1] = max(box[1], y + 1)
    box[2] = min(box[2], first)
    box[3] = max(box[3], last)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    word, last_word = first >> 6, (last - 1) >> 6
    first_bits = ones << np.uint64(first & 63)
    last_bits = ones >> np.uint64(63 - ((last - 1) & 63))
    if word == last_word:
        bits[y, word] ^= first_bits & last_bits
        return
    bits[y, word] ^= first_bits
    for middle in range(word + 1, last_word):
        bits[y, middle] ^= ones
    bits[y, last_word] ^= last_bits


@jit
def _flip_all(data, at, end, h, w, window, resize, bits, box, tile):
    top, left, height, width, out_h, out_w = window
    last_column = tile[2] + tile[3]
    pixels = h * w
    older = np.int64(0)
    newer = np.int64(0)
    position = np.int64(0)
    first = True
    x1, y1 = np.int64(0), np.int64(-1)
    while True:
        last = position
        at, older, newer, start, position = next_run(
            data, at, end, older, newer, first, position, pixels
        )
        if at < 0:
            return
        first = False
        x0, y0 = move(x1, y1, start - last + 1, h)
        x1, y1 = move(x0, y0, position - 1 - start, h)
        begin_0 = to_output(x0, left, width, out_w, resize)
        if begin_0 >= last_column:
            return
        end_0 = to_output(x0 + 1, left, width, out_w, resize)
        _flip(bits, box, tile, begin_0, end_0, to_output(y0, top, height, out_h, resize))
        begin_1 = to_output(x1, left, width, out_w, resize)
        end_1 = to_output(x1 + 1, left, width, out_w, resize)
        if x1 != x0:
            _flip(bits, box, tile, end_0, end_1, 0)
        if y1 + 1 < h:
            _flip(bits, box, tile, begin_1, end_1, to_output(y1 + 1, top, height, out_h, resize))


@jit
def _find_window(header, num_masks, planes, crops, resize, out_h, out_w, plane):
    """Return (status, mask or -1, window) of what a plane shows."""
    i = planes[plane] if len(planes) > 0 else np.int64(plane)
    none = (np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0))
    if i == -1:
        return OK, np.int64(-1), none
    if i < 0 or i >= num_masks:
        return BAD_PLANE, np.int64(-1), none
    y, x, h, w = np.int64(0), np.int64(0), header[2 * i], header[2 * i + 1]
    if len(crops) > 0:
        full_h, full_w = h, w
        y, x, h, w = (
            crops[4 * plane],
            crops[4 * plane + 1],
            crops[4 * plane + 2],
            crops[4 * plane + 3],
        )
        if min(y, x, h, w) < 0 or h > full_h - y or w > full_w - x:
            return BAD_WINDOW, np.int64(-1), none
    if not resize and (h > out_h or w > out_w):
        return BAD_WINDOW, np.int64(-1), none
    if h == 0 or w == 0:
        return OK, np.int64(-1), none
    if resize:
        return OK, i, (y, x, h, w, np.int64(out_h), np.int64(out_w))
    return OK, i, (y, x, h, w, h, w)


@jit
def _check_windows(header, num_masks, planes, crops, resize, out_h, out_w, num_planes):
    for plane in range(num_planes):
        status = _find_window(header, num_masks, planes, crops, resize, out_h, out_w, plane)[0]
        if status != OK:
            return status
    return OK


@jit
def _write_rows(out, start, stride, used_rows, one, bits, state, elements, box):
    """Write the box of one tile onto zeros, row by row from its first flip on."""
    top, bottom, left, right = box[0], box[1], box[2], box[3]
    first_word, last_word = left >> 6, (right + 63) >> 6
    y = top
    while y < used_rows:
        if y < bottom:
            for word in range(first_word, last_word):
                flips = bits[y, word]
                if flips:
                    bits[y, word] = 0
                    changed = state[word] ^ flips
                    state[word] = changed
                    for k in range(64):
                        elements[64 * word + k] = ((changed >> np.uint64(k)) & np.uint64(1)) * one
        elif y == bottom:
            still_open = False
            for word in range(first_word, last_word):
                still_open = still_open or state[word] != 0
            if not still_open:
                break
        to = start + y * stride
        for k in range(left, right):
            out[to + k] = elements[k]
        y += 1
    for word in range(first_word, last_word):
        state[word] = 0
    elements[64 * first_word : 64 * last_word] = 0


@jit
def _write_packed_rows(out, start, stride, used_rows, columns, bits, state, box):
    """Write one tile onto zeros, eight pixels to a byte, the first in its lowest bit."""
    num_bytes = (columns + 7) // 8
    for y in range(box[0], used_rows):
        if y < box[1]:
            for word in range((columns + 63) >> 6):
                state[word] ^= bits[y, word]
                bits[y, word] = 0
        to = start + y * stride
        for k in range(num_bytes):
            out[to + k] = (state[k >> 3] >> np.uint64(8 * (k & 7))) & np.uint64(0xFF)
    state[:] = 0


@jit
def _decode_tiles(
    data, header, num_masks, planes, crops, resize, out, row_length, num_planes, out_h, out_w, one,
    rows, columns, thread, threads, bits, state, elements, box,
):  # fmt: skip
    row_tiles = (out_h + rows - 1) // rows
    column_tiles = (out_w + columns - 1) // columns
    tiles = row_tiles * column_tiles
    for item in range(thread, num_planes * tiles, threads):
        plane, tile_index = item // tiles, item % tiles
        row = tile_index // column_tiles * rows
        column = tile_index % column_tiles * columns
        tile_rows = min(rows, out_h - row)
        tile_columns = min(columns, out_w - column)
        _, mask, window = _find_window(
            header, num_masks, planes, crops, resize, out_h, out_w, plane
        )
        used_rows = min(tile_rows, max(window[4] - row, 0)) if mask >= 0 else 0
        box[0], box[1], box[2], box[3] = used_rows, 0, tile_columns, 0
        if used_rows > 0:
            _flip_all(
                data,
                header[2 * num_masks + mask],
                header[2 * num_masks + mask + 1],
                header[2 * mask],
                header[2 * mask + 1],
                window,
                resize,
                bits,
                box,
                (row, used_rows, column, tile_columns),
            )
        start = (plane * out_h + row) * row_length
        if box[1] > 0 and len(elements) > 0:
            start += column
            _write_rows(out, start, row_length, used_rows, one, bits, state, elements, box)
        elif box[1] > 0:  # packed: no elements
            start += column // 8
            _write_packed_rows(out, start, row_length, used_rows, tile_columns, bits, state, box)


def decode(
    data: int,
    num_bytes: int,
    num_masks: int,
    planes: int,
    num_planes: int,
    crops: int,
    resize: bool,
    out_h: int,
    out_w: int,
    out: int,
    item_size: int,
    one: int,
    fresh: bool,
    num_threads: int,
) -> int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    if num_planes == 0:
        return OK
    if planes == 0 and num_planes != num_masks:
        return BAD_PLANE
    if max(out_h, out_w) > MAX_PIXELS:
        return BAD_WINDOW
    shown = array_at(planes, num_planes, np.int64)
    windows = array_at(crops, 4 * num_planes, np.int64)
    status = _check_windows(header, num_masks, shown, windows, resize, out_h, out_w, num_planes)
    row_length = out_w if item_size else (out_w + 7) // 8
    size = num_planes * out_h * row_length
    if status != OK or size == 0:
        return int(status)
    dtype = {0: np.uint8, 1: np.uint8, 2: np.uint16, 4: np.uint32}[item_size]
    result = array_at(out, size, dtype)
    threads = useful_threads(num_threads, size, result.nbytes + 16 * num_bytes)
    columns = min(out_w, _TILE_COLUMNS)
    words = (columns + 63) // 64
    rows = max(1, min(out_h, SCRATCH_BYTES // threads // (8 * words)))
    if num_planes < threads:
        rows = min(rows, -(-out_h * num_planes // threads))

    def work(thread: int) -> None:
        _decode_tiles(
            block, header, num_masks, shown, windows, resize, result, row_length, num_planes,
            out_h, out_w, dtype(one), rows, columns, thread, threads,
            np.zeros((rows, words), np.uint64), np.zeros(words, np.uint64),
            np.zeros(64 * words if item_size else 0, dtype), np.zeros(4, np.int64),
        )  # fmt: skip

    def clear(thread: int) -> None:
        result[size * thread // threads : size * (thread + 1) // threads].fill(0)

    in_threads(threads, *([] if fresh else [clear]), work)
    return OK
