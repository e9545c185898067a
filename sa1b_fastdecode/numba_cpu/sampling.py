"""Pixels of masks by their rank."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import next_run
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import BAD_HEADER, BAD_SHAPE, OK

_FOREGROUND, _BACKGROUND, _BOUNDARY = range(3)

# Where a reader of a mask stands: what next_run takes, the run that it read ahead, and the one
# before, which has a gap before and behind it.
_READ, _OLDER, _NEWER, _FIRST, _POSITION, _NEXT, _NEXT_STOP, _START, _STOP = range(9)
_READER_SIZE = 9

# The readers of a mask itself, and of its columns moved one to the right and one to the left; then
# the part of a column that the boundary is looked for in.
_OWN, _FROM_LEFT, _FROM_RIGHT, _PART, _NUM_ROWS = range(5)
_AT, _INNER, _PART_STOP = range(3)

_NONE = 1 << 62  # behind all positions
_MAX_INTERIOR_ROWS = 1 << 24


@jit
def _read_ahead(data, end, pixels, reader):
    at, older, newer, start, stop = next_run(
        data, reader[_READ], end, reader[_OLDER], reader[_NEWER], reader[_FIRST] != 0,
        reader[_POSITION], pixels,
    )  # fmt: skip
    reader[_OLDER], reader[_NEWER], reader[_FIRST] = older, newer, 0
    if at < 0:
        reader[_READ] = end
        reader[_NEXT] = reader[_NEXT_STOP] = _NONE
    else:
        reader[_READ] = at
        reader[_NEXT] = start
        reader[_NEXT_STOP] = reader[_POSITION] = stop


@jit
def _read_run(data, end, pixels, reader, moved_by):
    start, stop = reader[_NEXT], reader[_NEXT_STOP]
    if start == _NONE:
        reader[_START] = reader[_STOP] = _NONE
        return
    _read_ahead(data, end, pixels, reader)
    while reader[_NEXT] == stop:  # a background of length zero parts nothing
        stop = reader[_NEXT_STOP]
        _read_ahead(data, end, pixels, reader)
    reader[_START], reader[_STOP] = start + moved_by, stop + moved_by


@jit
def _start_reading(data, at, end, pixels, h, state):
    state[:, :] = 0
    for reader, moved_by in ((_OWN, np.int64(0)), (_FROM_LEFT, h), (_FROM_RIGHT, -h)):
        state[reader, _READ] = at
        state[reader, _FIRST] = 1
        _read_ahead(data, end, pixels, state[reader])
        if reader != _OWN:
            _read_run(data, end, pixels, state[reader], moved_by)


@jit
def _next_boundary_run(data, end, pixels, h, state):
    """Return the next run of boundary pixels; it starts at _NONE after the last."""
    own, left, right, part = state[_OWN], state[_FROM_LEFT], state[_FROM_RIGHT], state[_PART]
    if part[_AT] == part[_PART_STOP]:  # the next part of this run, or of the next
        if own[_START] == own[_STOP]:
            _read_run(data, end, pixels, own, np.int64(0))
            if own[_START] == _NONE:
                return own[_START], own[_STOP]
        start = own[_START]
        part[_AT], part[_INNER] = start, start + 1
        part[_PART_STOP] = min(own[_STOP], start // h * h + h)
        own[_START] = part[_PART_STOP]
    start = part[_AT]
    while part[_INNER] < part[_PART_STOP] - 1:
        inner = part[_INNER]
        while left[_STOP] <= inner:
            _read_run(data, end, pixels, left, h)
        while right[_STOP] <= inner:
            _read_run(data, end, pixels, right, -h)
        begin = max(inner, left[_START], right[_START])
        last = min(part[_PART_STOP] - 1, left[_STOP], right[_STOP])
        if begin < last:
            part[_AT] = part[_INNER] = last
            return start, begin
        part[_INNER] = begin
    part[_AT] = part[_PART_STOP]
    return start, part[_PART_STOP]


@jit
def _next_region_run(data, end, pixels, h, region, state):
    """The same for any region."""
    if region == _BOUNDARY:
        return _next_boundary_run(data, end, pixels, h, state)
    own = state[_OWN]
    while True:
        gap = own[_STOP]
        if gap == _NONE:
            return np.int64(_NONE), np.int64(_NONE)
        _read_run(data, end, pixels, own, np.int64(0))
        if region == _FOREGROUND:
            return own[_START], own[_STOP]
        stop = min(own[_START], pixels)
        if gap < stop:
            return gap, stop


@jit
def _boundary_area(data, header, num_masks, begin, stop_mask, area, state):
    for i in range(begin, stop_mask):
        h = header[2 * i]
        pixels = h * header[2 * i + 1]
        end = header[2 * num_masks + i + 1]
        _start_reading(data, header[2 * num_masks + i], end, pixels, h, state)
        total = np.int64(0)
        while True:
            start, stop = _next_boundary_run(data, end, pixels, h, state)
            if start == _NONE:
                break
            total += stop - start
        area[i] = total


@jit
def _pixels_at_ranks(
    data, header, num_masks, region, ranks, order, points, begin, stop_mask, state
):
    num_ranks = ranks.shape[1]
    for i in range(begin, stop_mask):
        h = header[2 * i]
        pixels = h * header[2 * i + 1]
        end = header[2 * num_masks + i + 1]
        _start_reading(data, header[2 * num_masks + i], end, pixels, h, state)
        points[i, :, :] = -1
        k = 0
        while k < num_ranks and ranks[i, order[i, k]] < 0:
            k += 1
        before = np.int64(0)
        while k < num_ranks:
            start, stop = _next_region_run(data, end, pixels, h, region, state)
            if start == _NONE:
                break
            until = before + stop - start
            while k < num_ranks and ranks[i, order[i, k]] < until:
                position = start + ranks[i, order[i, k]] - before
                points[i, order[i, k], 0] = position // h
                points[i, order[i, k], 1] = position % h
                k += 1
            before = until


@jit
def _interior_points(data, header, num_masks, begin, stop_mask, points, left, own, reader):
    for i in range(begin, stop_mask):
        h = header[2 * i]
        pixels = h * header[2 * i + 1]
        end = header[2 * num_masks + i + 1]
        reader[:] = 0
        reader[_READ], reader[_FIRST] = header[2 * num_masks + i], 1
        _read_ahead(data, end, pixels, reader)
        left[: h + 1] = 0
        own[: h + 1] = 0
        # Rows of both columns outside these are zero.
        left_top, left_bottom, own_top, own_bottom = h, np.int64(0), h, np.int64(0)
        x, best = np.int64(-2), np.int64(0)
        points[i, 0] = points[i, 1] = -1
        _read_run(data, end, pixels, reader, np.int64(0))
        while reader[_START] != _NONE:
            start = reader[_START]
            column = start // h
            y = start - column * h
            if column != x:
                left[left_top + 1 : left_bottom + 1] = 0
                left_top, left_bottom = h, np.int64(0)
                if column == x + 1:
                    left, own = own, left
                    left_top, left_bottom = own_top, own_bottom
                else:
                    own[own_top + 1 : own_bottom + 1] = 0
                own_top, own_bottom = h, np.int64(0)
                x = column
            bottom = min(h, y + reader[_STOP] - start)
            own_top, own_bottom = min(own_top, y), bottom
            reader[_START] += bottom - y
            if reader[_START] == reader[_STOP]:
                _read_run(data, end, pixels, reader, np.int64(0))
            above = np.uint32(0)
            while y < bottom:
                above = np.uint32(1 + min(above, left[y], left[y + 1]))
                own[y + 1] = above
                if np.int64(above) >= 2 * best + 1:
                    points[i, 0], points[i, 1] = x - best, y - best
                    best += 1
                y += 1
        points[i, 2] = best


def interior_points(
    data: int, num_bytes: int, num_masks: int, points: int, num_threads: int
) -> int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    sizes = header[: 2 * num_masks].reshape(-1, 2)
    rows = int(sizes[:, 0].max(initial=0))
    if rows > _MAX_INTERIOR_ROWS:
        return BAD_SHAPE
    result = array_at(points, 3 * num_masks, np.int64).reshape(num_masks, 3)
    threads = useful_threads(num_threads, num_masks, int(sizes.prod(axis=1).sum()))

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        left, own = np.zeros((2, rows + 1), np.uint32)
        reader = np.empty(_READER_SIZE, np.int64)
        _interior_points(block, header, num_masks, begin, stop, result, left, own, reader)

    in_threads(threads, work)
    return OK


def boundary_area(data: int, num_bytes: int, num_masks: int, area: int, num_threads: int) -> int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    result = array_at(area, num_masks, np.int64)
    threads = useful_threads(num_threads, num_masks, 48 * num_bytes)

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        state = np.empty((_NUM_ROWS, _READER_SIZE), np.int64)
        _boundary_area(block, header, num_masks, begin, stop, result, state)

    in_threads(threads, work)
    return OK


def pixels_at_ranks(
    data: int,
    num_bytes: int,
    num_masks: int,
    region: int,
    ranks: int,
    num_ranks: int,
    points: int,
    num_threads: int,
) -> int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    shape = (num_masks, num_ranks)
    wanted = array_at(ranks, num_masks * num_ranks, np.int64).reshape(shape)
    result = array_at(points, 2 * num_masks * num_ranks, np.int64).reshape(*shape, 2)
    order = np.argsort(wanted, axis=1)
    threads = useful_threads(num_threads, num_masks, 48 * num_bytes + 64 * wanted.size)

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        state = np.empty((_NUM_ROWS, _READER_SIZE), np.int64)
        _pixels_at_ranks(
            block, header, num_masks, region, wanted, order, result, begin, stop, state
        )

    in_threads(threads, work)
    return OK
