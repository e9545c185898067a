"""The CPU kernels in Numba, for machines where nothing could be compiled at installation.

Same functions, arguments and results as ``_C.pyi``; the algorithms are those of ``csrc/cpu`` and
their reasons stand there. Kernels are serial and release the GIL; threads come from Python, because
Numba's own thread pools abort when several Python threads call at once, or kill forked children.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_OK, _BAD_HEADER, _BAD_PLANE, _BAD_WINDOW, _MIXED_SIZES = -1, -2, -3, -4, -6
_NOT_GROUPED = -1
_MAX_CHARS_PER_COUNT = 7
_MAX_PIXELS = 2**32 - 1
_SCRATCH_BYTES = 8 << 20
_TILE_COLUMNS = 1 << 16

# Without _nrt=False every call that passes an array counts references atomically, which costs four
# times what reading a count does; so kernels allocate nothing.
_options: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
_jit: Any = numba.njit(**_options)


def _at(address: int, count: int, dtype: Any) -> Array:
    """Return the array of ``count`` elements at an address; empty for address 0."""
    if address == 0 or count == 0:
        return np.empty(0, dtype)
    num_bytes = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * num_bytes).from_address(address), dtype)


def _header(data: Array, num_masks: int) -> Array | None:
    """Return sizes (2N) and offsets (N+1) as int64, None if they do not fit the block."""
    words = 3 * num_masks + 1
    if num_masks < 0 or 8 * words > len(data):
        return None
    header = data[: 8 * words].view(np.int64)
    sizes = header[: 2 * num_masks].reshape(-1, 2)
    offsets = header[2 * num_masks :]
    fits = (sizes >= 0).all() and (sizes <= _MAX_PIXELS).all()
    fits = (
        fits
        and offsets[0] >= 0
        and offsets[-1] <= len(data)
        and (offsets[1:] >= offsets[:-1]).all()
    )
    # Two sides below 2**32 multiply without overflow in uint64.
    if not fits or (sizes.astype(np.uint64).prod(axis=1) > np.uint64(_MAX_PIXELS)).any():
        return None
    return header


def _in_threads(num_threads: int, *phases: Callable[[int], None]) -> None:
    """Call phase(thread) for every thread, one phase after the other.

    Threads live only as long as the call.
    """
    if num_threads == 1:
        for phase in phases:
            phase(0)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        for phase in phases:
            list(pool.map(phase, range(num_threads)))


def _useful_threads(wanted: int, items: int, num_bytes: int) -> int:
    return max(1, min(wanted, items, 1 + (num_bytes >> 23)))


class ZeroPages:
    """Fresh memory that reads as zero; supports the buffer protocol."""

    def __new__(cls, num_bytes: int) -> Any:
        return np.zeros(num_bytes, np.uint8)


def pack(rles: Any) -> None:
    """Leave the packing of Python objects to Python."""


@_jit
def _next_count(data, at, end, older, newer, first):
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


@_jit
def _first_invalid(data, header, num_masks):
    for i in range(num_masks):
        pixels = header[2 * i] * header[2 * i + 1]
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        total = np.int64(0)
        older = np.int64(0)
        newer = np.int64(0)
        first = True
        while at < end:
            value = np.int64(0)
            chars = 0
            while True:
                if at == end or chars == _MAX_CHARS_PER_COUNT:
                    return i
                bits = np.int64(data[at]) - 48
                if bits < 0 or bits > 63:
                    return i
                at += 1
                value |= (bits & 0x1F) << (5 * chars)
                chars += 1
                if bits & 0x20 == 0:
                    break
            if bits & 0x10:
                value -= np.int64(1) << (5 * chars)
            count = value + older
            if count < 0 or count > _MAX_PIXELS:
                return i
            total += count
            if total > pixels:
                return i
            older = newer
            newer = np.int64(0) if first else count
            first = False
        if total != pixels:
            return i
    return -1


def validate(data: int, num_bytes: int, num_masks: int) -> int:
    block = _at(data, num_bytes, np.uint8)
    header = _header(block, num_masks)
    return _BAD_HEADER if header is None else int(_first_invalid(block, header, num_masks))


@_jit
def _put(chars, out, value):
    """Write one value from ``out`` on; return where the next one goes."""
    more = True
    while more:
        low = value & 0x1F
        value >>= 5
        more = value != (-1 if low & 0x10 else 0)
        chars[out] = 48 + low + (0x20 if more else 0)
        out += 1
    return out


@_jit
def _compress(counts, count_offsets, chars, char_offsets):
    out = 0
    char_offsets[0] = 0
    for i in range(len(count_offsets) - 1):
        begin = count_offsets[i]
        for k in range(begin, count_offsets[i + 1]):
            value = np.int64(counts[k])
            if k - begin > 2:
                value -= np.int64(counts[k - 2])
            out = _put(chars, out, value)
        char_offsets[i + 1] = out


def compress(
    counts: int, count_offsets: int, num_masks: int, chars: int, char_offsets: int
) -> None:
    offsets = _at(count_offsets, num_masks + 1, np.int64)
    total = int(offsets[-1])
    _compress(
        _at(counts, total, np.uint32),
        offsets,
        _at(chars, _MAX_CHARS_PER_COUNT * total, np.uint8),
        _at(char_offsets, num_masks + 1, np.int64),
    )


@_jit
def _decompress(data, header, num_masks, counts, count_offsets):
    total = 0
    count_offsets[0] = 0
    for i in range(num_masks):
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        older = np.int64(0)
        newer = np.int64(0)
        first = True
        while True:
            at, count, older, newer = _next_count(data, at, end, older, newer, first)
            if at < 0:
                break
            first = False
            counts[total] = count
            total += 1
        count_offsets[i + 1] = total


def decompress(data: int, num_bytes: int, num_masks: int, counts: int, count_offsets: int) -> int:
    block = _at(data, num_bytes, np.uint8)
    header = _header(block, num_masks)
    if header is None:
        return _BAD_HEADER
    _decompress(
        block,
        header,
        num_masks,
        _at(counts, num_bytes, np.uint32),
        _at(count_offsets, num_masks + 1, np.int64),
    )
    return _OK


@_jit
def _next_run(data, at, end, older, newer, first, position, pixels):
    """Read one foreground run: (at, older, newer, start, stop); at = -1 after the last."""
    while True:
        at, background, older, newer = _next_count(data, at, end, older, newer, first)
        if at < 0 or position + background >= pixels:
            return np.int64(-1), older, newer, pixels, pixels
        start = position + background
        at, foreground, older, newer = _next_count(data, at, end, older, newer, False)
        if at < 0:
            return np.int64(-1), older, newer, pixels, pixels
        position = min(start + foreground, pixels)
        first = False
        if foreground > 0:
            return at, older, newer, start, position


@_jit
def _move(x, y, step, h):
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


@_jit
def _sum_of_range(first, last):
    n = last - first
    twice_mean = first + last - 1
    return n * (twice_mean // 2) if n & 1 else (n // 2) * twice_mean


@_jit
def _regions(data, header, num_masks, begin, stop_mask, area, bbox, centroid):
    for i in range(begin, stop_mask):
        h, w = header[2 * i], header[2 * i + 1]
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        pixels = h * w
        older = np.int64(0)
        newer = np.int64(0)
        position = np.int64(0)
        first = True
        total = np.int64(0)
        sum_y = np.int64(0)
        sum_x = np.int64(0)
        top, bottom, left, right = h, np.int64(0), np.int64(0), np.int64(0)
        x1, y1 = np.int64(0), np.int64(-1)
        while True:
            last = position
            at, older, newer, start, position = _next_run(
                data, at, end, older, newer, first, position, pixels
            )
            if at < 0:
                break
            first = False
            # (x1, y1) is the last pixel of the run before, one position back.
            x0, y0 = _move(x1, y1, start - last + 1, h)
            x1, y1 = _move(x0, y0, position - 1 - start, h)
            if total == 0:
                left = x0
            right = x1 + 1
            total += position - start
            if x0 == x1:
                top, bottom = min(top, y0), max(bottom, y1 + 1)
                sum_y += _sum_of_range(y0, y1 + 1)
                sum_x += x0 * (y1 + 1 - y0)
            else:
                top, bottom = np.int64(0), h
                sum_y += _sum_of_range(y0, h) + _sum_of_range(np.int64(0), y1 + 1)
                sum_x += x0 * (h - y0) + x1 * (y1 + 1)
                sum_y += (x1 - x0 - 1) * _sum_of_range(np.int64(0), h)
                sum_x += h * _sum_of_range(x0 + 1, x1)
        if total == 0:
            top = np.int64(0)
        if len(area) > 0:
            area[i] = total
        if len(bbox) > 0:
            bbox[4 * i] = left
            bbox[4 * i + 1] = top
            bbox[4 * i + 2] = right - left
            bbox[4 * i + 3] = bottom - top
        if len(centroid) > 0:
            centroid[2 * i] = np.float32(sum_y / total) if total > 0 else np.float32(np.nan)
            centroid[2 * i + 1] = np.float32(sum_x / total) if total > 0 else np.float32(np.nan)


def regions(
    data: int,
    num_bytes: int,
    num_masks: int,
    area: int,
    bbox: int,
    centroid: int,
    num_threads: int,
) -> int:
    block = _at(data, num_bytes, np.uint8)
    header = _header(block, num_masks)
    if header is None:
        return _BAD_HEADER
    outputs = (
        _at(area, num_masks, np.int64),
        _at(bbox, 4 * num_masks, np.float32),
        _at(centroid, 2 * num_masks, np.float32),
    )
    threads = _useful_threads(num_threads, num_masks, 16 * num_bytes)

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        _regions(block, header, num_masks, begin, stop, *outputs)

    _in_threads(threads, work)
    return _OK


# --- Pairs of masks; the split of their runs into tables and lists is described in pairwise.cpp.

_MAX_TABLE_ROWS = 32767
_MAX_TABLE_COLUMNS = 1 << 14
_MAX_RUNS_PER_COLUMN = 4
_SEARCH_RATIO = 16
_SCRATCH_HITS = 1 << 19

# Columns of an outline: its box, the end of its table and its area; where its table and its list
# begin in the memory of all, counted in elements, and how many runs are listed.
_TOP, _BOTTOM, _LEFT, _RIGHT, _TABLE_END, _AREA, _TABLE, _RUNS, _NUM_RUNS = range(9)


@_jit
def _split_runs(data, header, num_masks, tables, runs, outlines, scratch, begin, stop_mask):
    """Split the runs of masks into lists of (start, pixels before) and, behind each, its table."""
    memory = (header[2 * num_masks + begin] - header[2 * num_masks]) // 2 + begin
    for i in range(begin, stop_mask):
        h, w = header[2 * i], header[2 * i + 1]
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        pixels = h * w
        tabled = h <= _MAX_TABLE_ROWS and end - at <= 2 * _MAX_RUNS_PER_COLUMN * w
        most_columns = np.int64(2 if tabled else 0)
        columns = np.int64(0)
        num_runs = np.int64(0)
        listed = np.int64(0)
        area = np.int64(0)
        top, bottom, left, right = h, np.int64(0), np.int64(0), np.int64(0)
        older = np.int64(0)
        newer = np.int64(0)
        position = np.int64(0)
        first = True
        x1, y1 = np.int64(0), np.int64(-1)
        while True:
            last = position
            at, older, newer, start, position = _next_run(
                data, at, end, older, newer, first, position, pixels
            )
            if at < 0:
                break
            first = False
            length = position - start
            x0, y0 = _move(x1, y1, start - last + 1, h)
            x1, y1 = _move(x0, y0, length - 1, h)
            if area == 0:
                left = x0
            right = x1 + 1
            area += length
            if x0 == x1:
                top, bottom = min(top, y0), max(bottom, y1 + 1)
                column = x0 - left
                if column >= columns and column < most_columns:
                    while columns < column:
                        scratch[0, columns] = 0
                        scratch[1, columns] = 0
                        columns += 1
                    scratch[0, columns] = y0
                    scratch[1, columns] = y1 + 1
                    columns += 1
                    most_columns = min(most_columns + 2, _MAX_TABLE_COLUMNS)
                    continue
            else:
                top, bottom = np.int64(0), h
            runs[memory + num_runs, 0] = start
            runs[memory + num_runs, 1] = listed
            num_runs += 1
            listed += length
        runs[memory + num_runs, 0] = _MAX_PIXELS
        runs[memory + num_runs, 1] = listed
        table = 4 * (memory + num_runs + 1)
        for k in range(columns):
            tables[table + k] = scratch[0, k]
            tables[table + columns + k] = scratch[1, k]
        outlines[i, _TOP] = top if area > 0 else np.int64(0)
        outlines[i, _BOTTOM] = bottom
        outlines[i, _LEFT] = left
        outlines[i, _RIGHT] = right
        outlines[i, _TABLE_END] = left + columns
        outlines[i, _AREA] = area
        outlines[i, _TABLE] = table
        outlines[i, _RUNS] = memory
        outlines[i, _NUM_RUNS] = num_runs
        memory += num_runs + 1 + (columns + 1) // 2


@_jit
def _end_of(runs, k):
    return np.int64(runs[k, 0]) + np.int64(runs[k + 1, 1]) - np.int64(runs[k, 1])


@_jit
def _first_ending_after(runs, outline, position):
    low, n = outline[_RUNS], outline[_NUM_RUNS]
    while n > 0:
        half = n // 2
        if _end_of(runs, low + half) <= position:
            low += half + 1
            n -= half + 1
        else:
            n = half
    return low


@_jit
def _first_starting(runs, low, end, position):
    """Return the first of the runs [low, end) that starts at a position or after it."""
    while low < end:
        middle = (low + end) // 2
        if np.int64(runs[middle, 0]) < position:
            low = middle + 1
        else:
            end = middle
    return low


@_jit
def _shared_by_list_and_table(a, runs, b, tables, h):
    left, right = max(a[_LEFT], b[_LEFT]), min(a[_RIGHT], b[_TABLE_END])
    total = np.int64(0)
    if a[_NUM_RUNS] == 0 or left >= right:
        return total
    begin, end = left * h, right * h
    last = a[_RUNS] + a[_NUM_RUNS]
    k = _first_ending_after(runs, a, begin)
    while k < last and np.int64(runs[k, 0]) < end:
        at = max(np.int64(runs[k, 0]), begin)
        stop = min(_end_of(runs, k), end)
        x = at // h
        y = at - x * h
        while at < stop:
            rows = min(stop - at, h - y)
            column = b[_TABLE] + x - b[_LEFT]
            bottom = min(y + rows, np.int64(tables[column + b[_TABLE_END] - b[_LEFT]]))
            total += max(bottom - max(y, np.int64(tables[column])), np.int64(0))
            at += rows
            y = np.int64(0)
            x += 1
        k += 1
    return total


@_jit
def _pixels_before(runs, first, low, end, position):
    """Return the first run from ``low`` on that starts later, and the pixels before a position."""
    step = np.int64(1)
    while step <= end - low and np.int64(runs[low + step - 1, 0]) <= position:
        low += step
        step *= 2
    low = _first_starting(runs, low, min(low + step, end), position + 1)
    if low == first:
        return low, np.int64(0)
    length = np.int64(runs[low, 1]) - np.int64(runs[low - 1, 1])
    inside = min(position - np.int64(runs[low - 1, 0]), length)
    return low, np.int64(runs[low - 1, 1]) + inside


@_jit
def _shared_by_search(short, k, last, long, first, end):
    total = np.int64(0)
    low = first
    while k < last:
        low, before = _pixels_before(long, first, low, end, np.int64(short[k, 0]))
        low, until = _pixels_before(long, first, low, end, _end_of(short, k))
        total += until - before
        k += 1
    return total


@_jit
def _shared_by_lists(a, runs_a, b, runs_b, h):
    total = np.int64(0)
    if a[_NUM_RUNS] == 0 or b[_NUM_RUNS] == 0:
        return total
    begin, end = max(a[_LEFT], b[_LEFT]) * h, min(a[_RIGHT], b[_RIGHT]) * h
    i, j = _first_ending_after(runs_a, a, begin), _first_ending_after(runs_b, b, begin)
    end_a, end_b = a[_RUNS] + a[_NUM_RUNS], b[_RUNS] + b[_NUM_RUNS]
    last_i = _first_starting(runs_a, i, end_a, end)
    last_j = _first_starting(runs_b, j, end_b, end)
    if (last_i - i) * _SEARCH_RATIO < last_j - j:
        return _shared_by_search(runs_a, i, last_i, runs_b, b[_RUNS], end_b)
    if (last_j - j) * _SEARCH_RATIO < last_i - i:
        return _shared_by_search(runs_b, j, last_j, runs_a, a[_RUNS], end_a)
    while i < last_i and j < last_j:
        stop_a, stop_b = _end_of(runs_a, i), _end_of(runs_b, j)
        start = max(np.int64(runs_a[i, 0]), np.int64(runs_b[j, 0]))
        total += max(min(stop_a, stop_b) - start, np.int64(0))
        i += np.int64(stop_a <= stop_b)
        j += np.int64(stop_b <= stop_a)
    return total


@_jit
def _shared_by_tables(tables_a, top_a, bottom_a, tables_b, top_b, bottom_b, n):
    # In 16 bits as far as possible, so that a vector register holds many columns.
    total = np.int64(0)
    for i in range(n):
        top = max(tables_a[top_a + i], tables_b[top_b + i])
        bottom = min(tables_a[bottom_a + i], tables_b[bottom_b + i])
        total += np.int64(max(np.int16(bottom - top), np.int16(0)))
    return total


@_jit
def _intersect(a, tables_a, runs_a, b, tables_b, runs_b, h):
    left, table_end = max(a[_LEFT], b[_LEFT]), min(a[_TABLE_END], b[_TABLE_END])
    total = np.int64(0)
    if left < table_end:
        top_a, top_b = a[_TABLE] + left - a[_LEFT], b[_TABLE] + left - b[_LEFT]
        total += _shared_by_tables(
            tables_a,
            top_a,
            top_a + a[_TABLE_END] - a[_LEFT],
            tables_b,
            top_b,
            top_b + b[_TABLE_END] - b[_LEFT],
            table_end - left,
        )
    total += _shared_by_list_and_table(a, runs_a, b, tables_b, h)
    total += _shared_by_list_and_table(b, runs_b, a, tables_a, h)
    return total + _shared_by_lists(a, runs_a, b, runs_b, h)


@_jit
def _boxes_meet(a, b):
    return (
        a[_LEFT] < b[_RIGHT]
        and b[_LEFT] < a[_RIGHT]
        and a[_TOP] < b[_BOTTOM]
        and b[_TOP] < a[_BOTTOM]
    )


@_jit
def _write_pair(out, floats, kind, iscrowd, at, column, row_area, column_area, shared):
    if kind == 0:
        out[at] = shared
        return
    divisor = column_area
    if kind == 1:
        crowd = len(iscrowd) > 0 and iscrowd[column] != 0
        divisor = row_area if crowd else row_area + column_area - shared
    floats[at] = np.float32(np.float64(shared) / np.float64(divisor))


@_jit
def _write_pairs(
    a, tables_a, runs_a, b, tables_b, runs_b, images, heights, itself,
    rows, columns, kind, iscrowd, out, floats, thread, threads,
):  # fmt: skip
    for k in range(len(images)):
        first_row, num_rows = images[k, 0], images[k, 1]
        first_column, num_columns = images[k, 2], images[k, 3]
        for i in range(first_row + thread, first_row + num_rows, threads):
            start = (k * rows + i - first_row) * columns - first_column
            for j in range(i if itself else first_column, first_column + num_columns):
                if not _boxes_meet(a[i], b[j]):
                    continue
                area, other = a[i, _AREA], b[j, _AREA]
                same = itself and i == j
                shared = area
                if not same:
                    shared = _intersect(
                        a[i], tables_a, runs_a, b[j], tables_b, runs_b, heights[2 * i]
                    )
                if shared == 0:
                    continue
                _write_pair(out, floats, kind, iscrowd, start + j, j, area, other, shared)
                if itself and not same:
                    at = (k * rows + j - first_row) * columns + i - first_column
                    _write_pair(out, floats, kind, iscrowd, at, i, other, area, shared)


@_jit
def _find_pairs(
    a, tables_a, runs_a, b, tables_b, runs_b, image, heights, begin, stop, hits, num_hits
):
    """Write (column, area) of the pairs of rows [begin, stop), which are all of one image."""
    for i in range(begin, stop):
        n = 0
        for j in range(image[2], image[2] + image[3]):
            if _boxes_meet(a[i], b[j]):
                shared = _intersect(a[i], tables_a, runs_a, b[j], tables_b, runs_b, heights[2 * i])
                if shared > 0:
                    hits[i - begin, n, 0] = j
                    hits[i - begin, n, 1] = shared
                    n += 1
        num_hits[i - begin] = n


def _outlines(block: Array, header: Array, num_masks: int, num_threads: int) -> Any:
    """Return outlines (N, 9), and the one memory of lists and tables, as each of them."""
    chars = int(header[-1] - header[2 * num_masks])
    outlines = np.empty((num_masks, 9), np.int64)
    # Room for the most that there can be; memory that is never touched costs nothing.
    memory = np.empty(chars // 2 + num_masks, np.uint64)
    tables, runs = memory.view(np.int16), memory.view(np.uint32).reshape(-1, 2)
    threads = _useful_threads(num_threads, num_masks, 64 * chars)

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        scratch = np.empty((2, _MAX_TABLE_COLUMNS), np.int16)
        _split_runs(block, header, num_masks, tables, runs, outlines, scratch, begin, stop)

    _in_threads(threads, work)
    return outlines, tables, runs


def _images(block: Array, header: Array, num_masks: int, num_images: int) -> Array | None:
    """Return how many masks each image has, None if the block holds no such table."""
    if num_images == _NOT_GROUPED:
        return np.array([num_masks], np.int64)
    words = 3 * num_masks + 1
    if num_images < 0 or num_images > (len(block) // 8 - words) // 3:
        return None
    counts = block[8 * words : 8 * (words + 3 * num_images)].view(np.int64)[::3]
    # No sum of counts that are each in range can overflow.
    if (counts < 0).any() or (counts > num_masks).any() or counts.sum() != num_masks:
        return None
    return counts


def _prepare_pairs(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    num_images: int,
    num_threads: int,
) -> Any:
    """Return a status and, if it is good, both sides, images (B, 4), sizes, if both are one."""
    sides = []
    for address, size, n in ((data, num_bytes, num_masks), (other, other_bytes, num_other)):
        block = _at(address, size, np.uint8)
        header = _header(block, n)
        counts = None if header is None else _images(block, header, n, num_images)
        if header is None or counts is None:
            return _BAD_HEADER, None
        sides.append((block, header, n, counts))
    images = np.zeros((len(sides[0][3]), 4), np.int64)
    for k, (_, _, _, counts) in enumerate(sides):
        images[:, 2 * k + 1] = counts
        images[1:, 2 * k] = np.cumsum(counts)[:-1]
    compared = images[(images[:, [1, 3]] > 0).all(axis=1)]
    for first_row, rows, first_column, columns in compared.tolist():
        wanted = sides[0][1][2 * first_row : 2 * first_row + 2]
        ends = (first_row, rows), (first_column, columns)
        for (_, header, _, _), (first, n) in zip(sides, ends, strict=True):
            if (header[2 * first : 2 * (first + n)].reshape(-1, 2) != wanted).any():
                return _MIXED_SIZES, None
    row_side = _outlines(*sides[0][:3], num_threads)
    itself = (data, num_bytes, num_masks) == (other, other_bytes, num_other)
    column_side = row_side if itself else _outlines(*sides[1][:3], num_threads)
    return _OK, (row_side, column_side, images, sides[0][1], itself)


def pairwise(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    num_images: int,
    rows: int,
    columns: int,
    iscrowd: int,
    kind: int,
    out: int,
    num_threads: int,
) -> int:
    status, prepared = _prepare_pairs(
        data, num_bytes, num_masks, other, other_bytes, num_other, num_images, num_threads
    )
    if prepared is None:
        return int(status)
    row_side, column_side, images, header, itself = prepared
    if (images[:, 1] > rows).any() or (images[:, 3] > columns).any():
        return _BAD_HEADER
    size = len(images) * rows * columns
    integers = _at(out if kind == 0 else 0, size, np.int64)
    floats = _at(out if kind != 0 else 0, size, np.float32)
    crowd = _at(iscrowd, num_other, np.uint8)
    # A pair that is only tested takes about as long as moving 8 bytes.
    threads = _useful_threads(num_threads, num_masks, 8 * size)

    def work(thread: int) -> None:
        _write_pairs(
            *row_side, *column_side, images, header, itself, rows, columns, kind, crowd,
            integers, floats, thread, threads,
        )  # fmt: skip

    _in_threads(threads, work)
    return _OK


def intersecting_pairs(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    num_images: int,
    capacity: int,
    indices: int,
    intersection: int,
    num_threads: int,
) -> int:
    status, prepared = _prepare_pairs(
        data, num_bytes, num_masks, other, other_bytes, num_other, num_images, num_threads
    )
    if prepared is None:
        return int(status)
    row_side, column_side, images, header, _ = prepared
    pairs = _at(indices, 2 * capacity, np.int64).reshape(-1, 2)
    areas = _at(intersection, capacity, np.int64)
    found = 0
    for image in images[(images[:, [1, 3]] > 0).all(axis=1)]:
        first_row, num_rows, _, num_columns = image.tolist()
        block = min(max(_SCRATCH_HITS // num_columns, 1), num_rows)
        hits = np.empty((block, num_columns, 2), np.uint32)
        num_hits = np.empty(block, np.int64)
        for begin in range(first_row, first_row + num_rows, block):
            stop = min(begin + block, first_row + num_rows)
            threads = _useful_threads(num_threads, stop - begin, 8 * (stop - begin) * num_columns)

            def work(
                thread: int, begin: int = begin, stop: int = stop, threads: int = threads,
                image: Array = image, hits: Array = hits, num_hits: Array = num_hits,
            ) -> None:  # fmt: skip
                rows = stop - begin
                first, last = rows * thread // threads, rows * (thread + 1) // threads
                _find_pairs(
                    *row_side, *column_side, image, header, begin + first, begin + last,
                    hits[first:last], num_hits[first:last],
                )  # fmt: skip

            _in_threads(threads, work)
            for i in range(begin, stop):
                n = int(num_hits[i - begin])
                room = min(max(capacity - found, 0), n)
                pairs[found : found + room, 0] = i
                pairs[found : found + room, 1] = hits[i - begin, :room, 0]
                areas[found : found + room] = hits[i - begin, :room, 1]
                found += n
    return found


@_jit
def _nearest_source(d, scale, size):
    return min(np.int64((np.float32(d) + np.float32(0.5)) * scale), size - 1)


@_jit
def _to_output(source, begin, length, out_length, resize):
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


@_jit
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


@_jit
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
        at, older, newer, start, position = _next_run(
            data, at, end, older, newer, first, position, pixels
        )
        if at < 0:
            return
        first = False
        x0, y0 = _move(x1, y1, start - last + 1, h)
        x1, y1 = _move(x0, y0, position - 1 - start, h)
        begin_0 = _to_output(x0, left, width, out_w, resize)
        if begin_0 >= last_column:
            return
        end_0 = _to_output(x0 + 1, left, width, out_w, resize)
        _flip(bits, box, tile, begin_0, end_0, _to_output(y0, top, height, out_h, resize))
        begin_1 = _to_output(x1, left, width, out_w, resize)
        end_1 = _to_output(x1 + 1, left, width, out_w, resize)
        if x1 != x0:
            _flip(bits, box, tile, end_0, end_1, 0)
        if y1 + 1 < h:
            _flip(bits, box, tile, begin_1, end_1, _to_output(y1 + 1, top, height, out_h, resize))


@_jit
def _find_window(header, num_masks, planes, crops, resize, out_h, out_w, plane):
    """Return (status, mask or -1, window) of what a plane shows."""
    i = planes[plane] if len(planes) > 0 else np.int64(plane)
    none = (np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0))
    if i == -1:
        return _OK, np.int64(-1), none
    if i < 0 or i >= num_masks:
        return _BAD_PLANE, np.int64(-1), none
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
            return _BAD_WINDOW, np.int64(-1), none
    if not resize and (h > out_h or w > out_w):
        return _BAD_WINDOW, np.int64(-1), none
    if h == 0 or w == 0:
        return _OK, np.int64(-1), none
    if resize:
        return _OK, i, (y, x, h, w, np.int64(out_h), np.int64(out_w))
    return _OK, i, (y, x, h, w, h, w)


@_jit
def _check_windows(header, num_masks, planes, crops, resize, out_h, out_w, num_planes):
    for plane in range(num_planes):
        status = _find_window(header, num_masks, planes, crops, resize, out_h, out_w, plane)[0]
        if status != _OK:
            return status
    return _OK


@_jit
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


@_jit
def _decode_tiles(
    data, header, num_masks, planes, crops, resize, out, num_planes, out_h, out_w, one,
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
        start = (plane * out_h + row) * out_w + column
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
        if box[1] > 0:
            _write_rows(out, start, out_w, used_rows, one, bits, state, elements, box)


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
    block = _at(data, num_bytes, np.uint8)
    header = _header(block, num_masks)
    if header is None:
        return _BAD_HEADER
    if num_planes == 0:
        return _OK
    if planes == 0 and num_planes != num_masks:
        return _BAD_PLANE
    if max(out_h, out_w) > _MAX_PIXELS:
        return _BAD_WINDOW
    shown = _at(planes, num_planes, np.int64)
    windows = _at(crops, 4 * num_planes, np.int64)
    status = _check_windows(header, num_masks, shown, windows, resize, out_h, out_w, num_planes)
    pixels = num_planes * out_h * out_w
    if status != _OK or pixels == 0:
        return int(status)
    dtype = {1: np.uint8, 2: np.uint16, 4: np.uint32}[item_size]
    result = _at(out, pixels, dtype)
    threads = _useful_threads(num_threads, pixels, item_size * pixels + 16 * num_bytes)
    columns = min(out_w, _TILE_COLUMNS)
    words = (columns + 63) // 64
    rows = max(1, min(out_h, _SCRATCH_BYTES // threads // (8 * words)))
    if num_planes < threads:
        rows = min(rows, -(-out_h * num_planes // threads))

    def work(thread: int) -> None:
        _decode_tiles(
            block, header, num_masks, shown, windows, resize, result, num_planes, out_h, out_w,
            dtype(one), rows, columns, thread, threads,
            np.zeros((rows, words), np.uint64), np.zeros(words, np.uint64),
            np.zeros(64 * words, dtype), np.zeros(4, np.int64),
        )  # fmt: skip

    def clear(thread: int) -> None:
        result[pixels * thread // threads : pixels * (thread + 1) // threads].fill(0)

    _in_threads(threads, *([] if fresh else [clear]), work)
    return _OK


# What there is to know where encoding stands: the kernel returns when its chunk of characters is
# full and goes on in the next one.
_MASK, _STARTED, _POSITION, _COLUMN, _BAND = range(5)
# Of the string: the last boundary, the counts before the next, whether there are any, and how many
# boundaries are still to be left to those who join strips, with the place of the first.
_LAST, _OLDER, _NEWER, _FIRST, _HEADS_LEFT, _HEADS = range(5, 11)
_STATE_SIZE = _HEADS + 3

_WORD_CHARS = 64 * _MAX_CHARS_PER_COUNT
_FIRST_CHUNK, _CHUNK = 16 << 10, 1 << 20
_MAX_ENCODERS = 64
_MIN_STRIP_COLUMNS, _MIN_STRIP_PIXELS = 256, 1 << 18

# Multiplied by this, each power of two has other 6 highest bits, which tell it apart.
_DE_BRUIJN = 0x03F79D71B4CB0A89
_BIT_INDEX = np.zeros(64, np.uint8)
for _bit in range(64):
    _BIT_INDEX[(_DE_BRUIJN << _bit & 0xFFFFFFFFFFFFFFFF) >> 58] = _bit


@_jit
def _is_foreground(flat, at, size, value_bits):
    """Whether the element at ``at`` is; one of ``size`` bytes if they do not lie as such."""
    if size == 1:
        return (np.uint64(flat[at]) & value_bits) != 0
    for i in range(size):
        if (np.uint64(flat[at + i]) & (value_bits >> np.uint64(8 * i)) & np.uint64(0xFF)) != 0:
            return True
    return False


@_jit
def _foreground(flat, at, step, n, size, value_bits):
    """Return which of ``n`` <= 64 elements are foreground, as bits."""
    bits = np.uint64(0)
    for i in range(n):
        bits |= np.uint64(_is_foreground(flat, at + i * step, size, value_bits)) << np.uint64(i)
    return bits


@_jit
def _differ(one, other):
    """Whether two lines of 64 elements differ anywhere."""
    differences = one[0] ^ other[0]
    for i in range(1, 64):
        differences |= one[i] ^ other[i]
    return differences != 0


@_jit
def _set_changes(blocks, touched, block, y, changes):
    if touched[block] == 0:
        touched[block] = 1
        blocks[block, :] = 0
    blocks[block, y & 63] = changes


@_jit
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


@_jit
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


@_jit
def _put_boundary(chars, out, state, position):
    count = position - state[_LAST]
    state[_LAST] = position
    if state[_HEADS_LEFT] > 0:
        state[_HEADS + 3 - state[_HEADS_LEFT]] = position
        state[_HEADS_LEFT] -= 1
    else:
        out = _put(chars, out, count - state[_OLDER])
    state[_OLDER] = state[_NEWER]
    # Of a string's first three counts none is a difference; of a strip's, all that is not a head.
    state[_NEWER] = 0 if state[_FIRST] else count
    state[_FIRST] = 0
    return out


@_jit
def _put_boundaries(chars, out, state, position, bits):
    """Write a boundary at ``position`` + i for every set bit i."""
    while bits != 0:
        lowest = bits & (~bits + np.uint64(1))
        i = _BIT_INDEX[(lowest * np.uint64(_DE_BRUIJN)) >> np.uint64(58)]
        out = _put_boundary(chars, out, state, position + np.int64(i))
        bits ^= lowest
    return out


@_jit
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


@_jit
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


@_jit
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
            done = out + _MAX_CHARS_PER_COUNT <= len(chars)
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
    flat = _at(address + low, (high - low) // unit, dtype)
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
    if min(num_masks, h, w) < 0 or max(h, w, h * w) > _MAX_PIXELS:
        return None
    sides = h, w
    pixels = h * w
    if h == 1:
        row_stride = column_stride
    if h == 1 or w == 1 or column_stride == h * row_stride:
        h, w = pixels, 1  # no gaps between columns: one long column
    threads = min(num_threads, _MAX_ENCODERS)
    threads = _useful_threads(threads, _MAX_ENCODERS, num_masks * pixels * item_size)
    bands = (h + 63) // 64
    group_bytes = bands * 513
    by_rows = pixels > 0 and w > 1 and abs(column_stride) < abs(row_stride)
    by_rows = by_rows and group_bytes <= _SCRATCH_BYTES
    if by_rows:
        threads = min(threads, _SCRATCH_BYTES // group_bytes)
    wanted = 1 if threads == 1 else -(-2 * threads // num_masks)
    size = w if by_rows else pixels
    if by_rows:
        groups = -(-w // 64)
        shared = max(-(-groups // wanted), _MIN_STRIP_COLUMNS // 64)
        strip_size = 64 * min(_SCRATCH_BYTES // threads // group_bytes, shared, groups)
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
    small = num_masks * strips * (_MAX_CHARS_PER_COUNT * (pixels + 1)) < 2**32
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

    _in_threads(threads, work)
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
    chars = np.empty(3 * _MAX_CHARS_PER_COUNT, np.uint8)
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


# These build on what is above.
from sa1b_fastdecode.numba_cpu.labels import paint_labels, split_labels  # noqa: E402, F401
from sa1b_fastdecode.numba_cpu.matching import match, suppress  # noqa: E402, F401
from sa1b_fastdecode.numba_cpu.sampling import (  # noqa: E402, F401
    boundary_area,
    interior_points,
    pixels_at_ranks,
)
