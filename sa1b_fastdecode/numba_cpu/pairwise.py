"""What pairs of masks share; how runs are split into tables and lists stands in pairwise.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array, array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import move, next_run
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import (
    BAD_HEADER,
    INTERSECTION,
    IOU,
    MAX_PIXELS,
    MIXED_SIZES,
    NOT_GROUPED,
    OK,
)

_MAX_TABLE_ROWS = 32767
_MAX_TABLE_COLUMNS = 1 << 14
_MAX_RUNS_PER_COLUMN = 4
_SEARCH_RATIO = 16
_SCRATCH_HITS = 1 << 19

# Columns of an outline: its box, the end of its table and its area; where its table and its list
# begin in the memory of all, counted in elements, and how many runs are listed.
_TOP, _BOTTOM, _LEFT, _RIGHT, _TABLE_END, _AREA, _TABLE, _RUNS, _NUM_RUNS = range(9)


@jit
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
            at, older, newer, start, position = next_run(
                data, at, end, older, newer, first, position, pixels
            )
            if at < 0:
                break
            first = False
            length = position - start
            x0, y0 = move(x1, y1, start - last + 1, h)
            x1, y1 = move(x0, y0, length - 1, h)
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
        runs[memory + num_runs, 0] = MAX_PIXELS
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


@jit
def _end_of(runs, k):
    return np.int64(runs[k, 0]) + np.int64(runs[k + 1, 1]) - np.int64(runs[k, 1])


@jit
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


@jit
def _first_starting(runs, low, end, position):
    """Return the first of the runs [low, end) that starts at a position or after it."""
    while low < end:
        middle = (low + end) // 2
        if np.int64(runs[middle, 0]) < position:
            low = middle + 1
        else:
            end = middle
    return low


@jit
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


@jit
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


@jit
def _shared_by_search(short, k, last, long, first, end):
    total = np.int64(0)
    low = first
    while k < last:
        low, before = _pixels_before(long, first, low, end, np.int64(short[k, 0]))
        low, until = _pixels_before(long, first, low, end, _end_of(short, k))
        total += until - before
        k += 1
    return total


@jit
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


@jit
def _shared_by_tables(tables_a, top_a, bottom_a, tables_b, top_b, bottom_b, n):
    # In 16 bits as far as possible, so that a vector register holds many columns.
    total = np.int64(0)
    for i in range(n):
        top = max(tables_a[top_a + i], tables_b[top_b + i])
        bottom = min(tables_a[bottom_a + i], tables_b[bottom_b + i])
        total += np.int64(max(np.int16(bottom - top), np.int16(0)))
    return total


@jit
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


@jit
def _boxes_meet(a, b):
    return (
        a[_LEFT] < b[_RIGHT]
        and b[_LEFT] < a[_RIGHT]
        and a[_TOP] < b[_BOTTOM]
        and b[_TOP] < a[_BOTTOM]
    )


@jit
def _write_pair(out, floats, kind, iscrowd, at, column, row_area, column_area, shared):
    if kind == INTERSECTION:
        out[at] = shared
        return
    divisor = column_area
    if kind == IOU:
        crowd = len(iscrowd) > 0 and iscrowd[column] != 0
        divisor = row_area if crowd else row_area + column_area - shared
    floats[at] = np.float32(np.float64(shared) / np.float64(divisor))


@jit
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


@jit
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
    threads = useful_threads(num_threads, num_masks, 64 * chars)

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        scratch = np.empty((2, _MAX_TABLE_COLUMNS), np.int16)
        _split_runs(block, header, num_masks, tables, runs, outlines, scratch, begin, stop)

    in_threads(threads, work)
    return outlines, tables, runs


def _images(block: Array, header: Array, num_masks: int, num_images: int) -> Array | None:
    """Return how many masks each image has, None if the block holds no such table."""
    if num_images == NOT_GROUPED:
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
        block = array_at(address, size, np.uint8)
        header = read_header(block, n)
        counts = None if header is None else _images(block, header, n, num_images)
        if header is None or counts is None:
            return BAD_HEADER, None
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
                return MIXED_SIZES, None
    row_side = _outlines(*sides[0][:3], num_threads)
    itself = (data, num_bytes, num_masks) == (other, other_bytes, num_other)
    column_side = row_side if itself else _outlines(*sides[1][:3], num_threads)
    return OK, (row_side, column_side, images, sides[0][1], itself)


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
        return BAD_HEADER
    size = len(images) * rows * columns
    integers = array_at(out if kind == INTERSECTION else 0, size, np.int64)
    floats = array_at(out if kind != INTERSECTION else 0, size, np.float32)
    crowd = array_at(iscrowd, num_other, np.uint8)
    # A pair that is only tested takes about as long as moving 8 bytes.
    threads = useful_threads(num_threads, num_masks, 8 * size)

    def work(thread: int) -> None:
        _write_pairs(
            *row_side, *column_side, images, header, itself, rows, columns, kind, crowd,
            integers, floats, thread, threads,
        )  # fmt: skip

    in_threads(threads, work)
    return OK


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
    pairs = array_at(indices, 2 * capacity, np.int64).reshape(-1, 2)
    areas = array_at(intersection, capacity, np.int64)
    found = 0
    for image in images[(images[:, [1, 3]] > 0).all(axis=1)]:
        first_row, num_rows, _, num_columns = image.tolist()
        block = min(max(_SCRATCH_HITS // num_columns, 1), num_rows)
        hits = np.empty((block, num_columns, 2), np.uint32)
        num_hits = np.empty(block, np.int64)
        for begin in range(first_row, first_row + num_rows, block):
            stop = min(begin + block, first_row + num_rows)
            threads = useful_threads(num_threads, stop - begin, 8 * (stop - begin) * num_columns)

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

            in_threads(threads, work)
            for i in range(begin, stop):
                n = int(num_hits[i - begin])
                room = min(max(capacity - found, 0), n)
                pairs[found : found + room, 0] = i
                pairs[found : found + room, 1] = hits[i - begin, :room, 0]
                areas[found : found + room] = hits[i - begin, :room, 1]
                found += n
    return found
