"""Strings to counts and back, and whether strings are masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import next_count, put_value
from sa1b_fastdecode.status import BAD_HEADER, MAX_CHARS_PER_COUNT, MAX_PIXELS, OK


def pack(rles: Any) -> None:
    """Leave the packing of Python objects to Python."""


@jit
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
                if at == end or chars == MAX_CHARS_PER_COUNT:
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
            if count < 0 or count > MAX_PIXELS:
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
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    return BAD_HEADER if header is None else int(_first_invalid(block, header, num_masks))


@jit
def _compress(counts, count_offsets, chars, char_offsets):
    out = 0
    char_offsets[0] = 0
    for i in range(len(count_offsets) - 1):
        begin = count_offsets[i]
        for k in range(begin, count_offsets[i + 1]):
            value = np.int64(counts[k])
            if k - begin > 2:
                value -= np.int64(counts[k - 2])
            out = put_value(chars, out, value)
        char_offsets[i + 1] = out


def compress(
    counts: int, count_offsets: int, num_masks: int, chars: int, char_offsets: int
) -> None:
    offsets = array_at(count_offsets, num_masks + 1, np.int64)
    total = int(offsets[-1])
    _compress(
        array_at(counts, total, np.uint32),
        offsets,
        array_at(chars, MAX_CHARS_PER_COUNT * total, np.uint8),
        array_at(char_offsets, num_masks + 1, np.int64),
    )


@jit
def _decompress(data, header, num_masks, counts, count_offsets):
    total = 0
    count_offsets[0] = 0
    for i in range(num_masks):
        at, end = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        older = np.int64(0)
        newer = np.int64(0)
        first = True
        while True:
            at, count, older, newer = next_count(data, at, end, older, newer, first)
            if at < 0:
                break
            first = False
            counts[total] = count
            total += 1
        count_offsets[i + 1] = total


def decompress(data: int, num_bytes: int, num_masks: int, counts: int, count_offsets: int) -> int:
    block = array_at(data, num_bytes, np.uint8)
    header = read_header(block, num_masks)
    if header is None:
        return BAD_HEADER
    _decompress(
        block,
        header,
        num_masks,
        array_at(counts, num_bytes, np.uint32),
        array_at(count_offsets, num_masks + 1, np.int64),
    )
    return OK
