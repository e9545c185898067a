"""Between masks and label maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array, array_at, read_header
from sa1b_fastdecode.numba_cpu.pairwise import _images as images_of
from sa1b_fastdecode.numba_cpu.runs import next_run, put_value
from sa1b_fastdecode.numba_cpu.threads import in_threads, useful_threads
from sa1b_fastdecode.status import (
    BAD_HEADER,
    BAD_LABEL,
    BAD_PLANE,
    BAD_SHAPE,
    BAD_WINDOW,
    MAX_CHARS_PER_COUNT,
    MAX_PIXELS,
    MIXED_SIZES,
    OK,
)

_BUFFER_PIXELS = 1 << 17
_MIN_COLUMNS = 128
_STRIP_PIXELS = 1 << 20

# Where reading a mask stands: what next_run takes, and the run that is still to be painted.
_READ, _OLDER, _NEWER, _FIRST, _POSITION, _START, _STOP, _STATE_SIZE = range(8)


@jit
def _advance(data, end, pixels, mask):
    at, older, newer, start, stop = next_run(
        data, mask[_READ], end, mask[_OLDER], mask[_NEWER], mask[_FIRST] != 0, mask[_POSITION],
        pixels,
    )  # fmt: skip
    mask[_READ] = end if at < 0 else at  # nothing follows the end
    mask[_OLDER], mask[_NEWER], mask[_FIRST] = older, newer, 0
    mask[_POSITION] = mask[_STOP] = stop
    mask[_START] = pixels if at < 0 else start


@jit
def _paint_columns(
    data, header, num_masks, order, labels, background, h, first, last, plane, out_w, masks, buffer
):
    """Paint columns [first, last) of masks of h rows, a buffer of columns after the other."""
    offsets = 2 * num_masks
    pixels = h * header[2 * order[0] + 1]
    for k in range(len(order)):
        masks[k, :] = 0
        masks[k, _FIRST] = 1
        masks[k, _READ] = header[offsets + order[k]]
        _advance(data, header[offsets + order[k] + 1], pixels, masks[k])
    columns = max(np.int64(1), _BUFFER_PIXELS // h)
    rows = min(h, np.int64(_BUFFER_PIXELS))
    x = first
    while x < last:
        n = min(columns, last - x)
        for y in range(0, h, rows):
            m = min(rows, h - y)
            begin = x * h + y
            stop = begin + n * m
            buffer[: n * m] = background
            for k in range(len(order)):
                mask = masks[k]
                while mask[_START] < stop:
                    start = max(mask[_START], begin)
                    end = min(mask[_STOP], stop)
                    for position in range(start, end):
                        buffer[position - begin] = labels[order[k]]
                    if mask[_STOP] > stop:
                        mask[_START] = stop
                        break
                    _advance(data, header[offsets + order[k] + 1], pixels, mask)
            for row in range(m):
                to = (y + row) * out_w + x
                for column in range(n):
                    plane[to + column] = buffer[column * m + row]
        x += n


def paint_labels(
    data: int,
    num_bytes: int,
    num_masks: int,
    num_images: int,
    order: int,
    labels: int,
    background: int,
    out_h: int,
    out_w: int,
    out: int,
    num_threads: int,
) -> int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    counts = None if header is None else images_of(block, header, num_masks, num_images)
    if header is None or counts is None:
        return BAD_HEADER
    sizes = header[: 2 * num_masks].reshape(-1, 2)
    ends = np.cumsum(counts)
    begins = ends - counts
    painted = array_at(order, num_masks, np.int64)
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        if (sizes[begin:end] != sizes[begin : begin + 1]).any():
            return MIXED_SIZES
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        if ((painted[begin:end] < begin) | (painted[begin:end] >= end)).any():
            return BAD_PLANE
    if (sizes > (out_h, out_w)).any():
        return BAD_WINDOW
    num_planes, pixels = len(counts), out_h * out_w
    values = array_at(labels, num_masks, np.int32)
    planes = array_at(out, num_planes * pixels, np.int32).reshape(num_planes, pixels)
    if planes.size == 0:
        return OK
    threads = useful_threads(num_threads, num_planes * out_w, 4 * planes.size)
    parts = 1 if num_planes >= threads else min(max(out_w // _MIN_COLUMNS, 1), threads)

    def work(thread: int) -> None:
        buffer = np.empty(_BUFFER_PIXELS, np.int32)
        masks = np.empty((int(counts.max(initial=0)), _STATE_SIZE), np.int64)
        for item in range(thread, num_planes * parts, threads):
            plane, part = divmod(item, parts)
            begin, end = int(begins[plane]), int(ends[plane])
            h, w = sizes[begin].tolist() if end > begin else (0, 0)
            first, stop = out_w * part // parts, out_w * (part + 1) // parts
            last = min(stop, w)
            if h > 0 and first < last:
                _paint_columns(
                    block, header, num_masks, painted[begin:end], values, background, h, first,
                    last, planes[plane], out_w, masks, buffer,
                )  # fmt: skip
            image = planes[plane].reshape(out_h, out_w)
            image[:h, max(first, last) : stop] = background
            image[h:, first:stop] = background

    in_threads(threads, work)
    return OK


@jit
def _put_strings(starts, stops, order, ends, pixels, chars, char_ends):
    """Write the string of each label from its runs, which lie together in ``order``."""
    out = 0
    begin = 0
    for label in range(len(ends)):
        last = np.int64(0)
        older = np.int64(0)
        newer = np.int64(0)
        first = True
        for k in range(begin, ends[label]):
            start, stop = np.int64(starts[order[k]]), np.int64(stops[order[k]])
            for count in (start - last, stop - start):
                out = put_value(chars, out, count - older)
                older, newer = newer, np.int64(0) if first else count
                first = False
            last = stop
        if last < pixels:
            out = put_value(chars, out, pixels - last - older)
        begin = ends[label]
        char_ends[label] = out


def _find_runs(columns: Array) -> tuple[Array, Array]:
    """Return where the runs of a map (W, H) begin, column by column, and their labels."""
    w, h = columns.shape
    starts, labels = [], []
    before = None  # the last pixel of the strip before
    step = max(1, _STRIP_PIXELS // h)
    for x in range(0, w, step):
        strip = np.ascontiguousarray(columns[x : x + step]).reshape(-1)
        begins = np.flatnonzero(strip[1:] != strip[:-1]) + 1
        if before is None or before != strip[0]:
            begins = np.concatenate([[0], begins])
        starts.append((begins + x * h).astype(np.uint32))
        labels.append(strip[begins])
        before = strip[-1]
    return np.concatenate(starts), np.concatenate(labels)


def _split_map(columns: Array, background: int | None) -> tuple[Array, Array, Array]:
    """Return the labels of a map (W, H), the end of each one's string, and the strings."""
    starts, values = _find_runs(columns)
    pixels = columns.size
    stops = np.append(starts[1:], np.uint32(pixels))
    labels, slots = np.unique(values, return_inverse=True)
    order = np.argsort(slots, kind="stable")
    ends = np.cumsum(np.bincount(slots, minlength=len(labels)))
    info = np.iinfo(labels.dtype)
    if background is not None and info.min <= background <= info.max:
        at = int(np.searchsorted(labels, background))
        if at < len(labels) and labels[at] == background:
            begin = int(ends[at - 1]) if at > 0 else 0
            order = np.delete(order, slice(begin, int(ends[at])))
            ends[at:] -= ends[at] - begin
            labels, ends = np.delete(labels, at), np.delete(ends, at)
    chars = np.empty(MAX_CHARS_PER_COUNT * (2 * len(order) + len(labels)), np.uint8)
    char_ends = np.empty(len(labels), np.int64)
    _put_strings(starts, stops, order, ends, pixels, chars, char_ends)
    used = int(char_ends[-1]) if len(labels) > 0 else 0
    return labels, char_ends, chars[:used].copy()


def split_labels(
    data: int,
    num_maps: int,
    h: int,
    w: int,
    map_stride: int,
    row_stride: int,
    column_stride: int,
    item_size: int,
    is_signed: bool,
    grouped: bool,
    has_background: bool,
    background: int,
    num_threads: int,
) -> Any:
    if min(num_maps, h, w) < 0 or max(h, w, h * w) > MAX_PIXELS:
        return BAD_SHAPE
    none = np.empty(0, np.int64)
    split = [(none, none, np.empty(0, np.uint8))] * num_maps
    if num_maps * h * w > 0:
        maps = _view_maps(
            data, (num_maps, w, h), (map_stride, column_stride, row_stride), item_size, is_signed
        )
        split = [_split_map(each, background if has_background else None) for each in maps]
    labels = np.concatenate([none, *[each[0].astype(np.int64) for each in split]])
    if not is_signed and (labels < 0).any():
        return BAD_LABEL
    counts = np.array([len(each[0]) for each in split], np.int64)
    num_masks = len(labels)
    head = 8 * (3 * num_masks + 1 + (3 * num_maps if grouped else 0))
    strings = [each[2] for each in split]
    block = np.empty(head + sum(map(len, strings)), np.uint8)
    words = block[:head].view(np.int64)
    words[: 2 * num_masks].reshape(-1, 2)[:] = h, w
    offsets = words[2 * num_masks :]
    if grouped:
        images = words[3 * num_masks + 1 :].reshape(-1, 3)
        images[:, 0], images[:, 1], images[:, 2] = counts, h, w
    offsets[0] = at = head
    mask = 1
    for _, ends, chars in split:
        offsets[mask : mask + len(ends)] = at + ends
        block[at : at + len(chars)] = chars
        at += len(chars)
        mask += len(ends)
    return block, labels, counts


def _view_maps(
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    item_size: int,
    is_signed: bool,
) -> Array:
    """Return memory as an array; strides are in bytes and of any sign."""
    spans = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    low = sum(span for span in spans if span < 0)
    high = sum(span for span in spans if span > 0) + item_size
    memory = array_at(address + low, high - low, np.uint8)
    dtype = np.dtype(f"{'i' if is_signed else 'u'}{item_size}")
    maps: Array = np.ndarray(shape, dtype, memory, -low, strides)
    return maps
