"""Area, box and centroid of masks, from their runs."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import move, next_run
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import BAD_HEADER, OK


@jit
def sum_of_range(first, last):
    n = last - first
    twice_mean = first + last - 1
    return n * (twice_mean // 2) if n & 1 else (n // 2) * twice_mean


@jit
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
            at, older, newer, start, position = next_run(
                data, at, end, older, newer, first, position, pixels
            )
            if at < 0:
                break
            first = False
            # (x1, y1) is the last pixel of the run before, one position back.
            x0, y0 = move(x1, y1, start - last + 1, h)
            x1, y1 = move(x0, y0, position - 1 - start, h)
            if total == 0:
                left = x0
            right = x1 + 1
            total += position - start
            if x0 == x1:
                top, bottom = min(top, y0), max(bottom, y1 + 1)
                sum_y += sum_of_range(y0, y1 + 1)
                sum_x += x0 * (y1 + 1 - y0)
            else:
                top, bottom = np.int64(0), h
                sum_y += sum_of_range(y0, h) + sum_of_range(np.int64(0), y1 + 1)
                sum_x += x0 * (h - y0) + x1 * (y1 + 1)
                sum_y += (x1 - x0 - 1) * sum_of_range(np.int64(0), h)
                sum_x += h * sum_of_range(x0 + 1, x1)
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
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    outputs = (
        array_at(area, num_masks, np.int64),
        array_at(bbox, 4 * num_masks, np.float32),
        array_at(centroid, 2 * num_masks, np.float32),
    )
    threads = useful_threads(num_threads, num_masks, 16 * num_bytes)

    def work(thread: int) -> None:
        begin, stop = num_masks * thread // threads, num_masks * (thread + 1) // threads
        _regions(block, header, num_masks, begin, stop, *outputs)

    in_threads(threads, work)
    return OK
