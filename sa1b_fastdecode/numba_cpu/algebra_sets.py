"""Unions and the like, in Numba, as ``csrc/cpu/algebra_sets.cpp`` does it.

Groups of two masks are drawn like larger ones.
"""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.bits import lowest_bit
from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import Array, array_at, read_header
from sa1b_fastdecode.numba_cpu.runs import next_run
from sa1b_fastdecode.numba_cpu.stream_writer import (
    STATE_SIZE,
    begin_string,
    finish_string,
    make_block,
    toggle,
)
from sa1b_fastdecode.status import BAD_HEADER, BAD_PLANE, MIXED_SIZES

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
            toggle(chars, state, base + 64 * word + lowest_bit(changes))
            changes &= changes - np.uint64(1)
        before = bits >> np.uint64(63)
    if before != 0:
        toggle(chars, state, base + 64 * drawn[1])
    drawn[0], drawn[1] = _WINDOW_WORDS, 0


@jit
def _combine_group(data, other, readers, pixels, kind, words, drawn, chars, state):
    if kind == COMPLEMENT:
        toggle(chars, state, 0)
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
        begin_string(state)
        _combine_group(data, other, used, pixels, kind, words, drawn, to, state)
        lengths[group] = finish_string(to, state, pixels)


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
            np.empty(STATE_SIZE, np.int64),
        )  # fmt: skip

    table = array_at(images, 3 * num_images, np.int64)
    return make_block(sizes, table, num_threads, num_bytes + other_bytes, write)
