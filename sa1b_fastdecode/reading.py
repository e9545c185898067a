"""One RLE as people hold it, read without torch: its size, its counts, what is wrong in them."""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sa1b_fastdecode import dispatch
from sa1b_fastdecode.status import MAX_CHARS_PER_COUNT, MAX_PIXELS


def read_rle(item: Any) -> tuple[tuple[int, int], Any]:
    """Return the size and the counts (ASCII, bytes, or uint32 run lengths) of one RLE."""
    if not isinstance(item, Mapping):
        raise TypeError(f"expected an RLE dict, not {type(item).__name__}")
    if "counts" not in item and "segmentation" in item:
        item = item["segmentation"]
        if isinstance(item, list | tuple):
            raise ValueError("the segmentation is a polygon, which cannot be rasterised here yet")
        if not isinstance(item, Mapping):
            raise TypeError(f"expected an RLE dict as segmentation, not {type(item).__name__}")
    for key in ("size", "counts"):
        if key not in item:
            raise ValueError(f"the RLE has no {key!r}")
    return _read_size(item["size"]), _read_counts(item["counts"])


def _is_tensor(value: Any) -> bool:
    """Whether this is a torch tensor; where torch was not imported nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _read_size(size: Any) -> tuple[int, int]:
    if isinstance(size, str | bytes) or not (
        isinstance(size, Sequence | np.ndarray) or _is_tensor(size)
    ):
        raise TypeError(f"size must be two integers (h, w), not {size!r}")
    if len(size) != 2:
        raise ValueError(f"size must be two integers (h, w), but has {len(size)}")
    try:
        h, w = (operator.index(side) for side in size)
        if any(isinstance(side, bool) for side in size):
            raise TypeError
    except TypeError:
        raise TypeError(f"size must be two integers (h, w), not {size!r}") from None
    if h < 0 or w < 0:
        raise ValueError(f"size {h}x{w} is negative")
    if h * w > MAX_PIXELS or max(h, w) > MAX_PIXELS:
        raise ValueError(f"size {h}x{w} is too large: a mask has fewer than 2**32 pixels")
    return h, w


def _read_counts(counts: Any) -> Any:
    if isinstance(counts, str):
        if not counts.isascii():
            at = next(i for i, char in enumerate(counts) if not char.isascii())
            raise ValueError(f"character {at} of counts is {counts[at]!r}, not one of the code")
        return counts
    if isinstance(counts, bytes | bytearray | memoryview):
        return bytes(counts)
    if _is_tensor(counts):
        try:
            counts = counts.detach().cpu().numpy()
        except RuntimeError as error:
            raise TypeError(f"counts cannot be read from a tensor on {counts.device}") from error
    if isinstance(counts, np.ndarray):
        if counts.ndim != 1:
            raise TypeError(f"counts must be one-dimensional, not of shape {counts.shape}")
        if counts.dtype.kind in "iu":
            _check_count_range(counts)
            return counts.astype(np.uint32)
        counts = counts.tolist()
    if not isinstance(counts, Sequence):
        raise TypeError(f"counts must be a string or run lengths, not {type(counts).__name__}")
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(f"run lengths must be integers, not {count!r}")
    _check_count_range(counts)
    return np.array(counts, np.uint32)


def _check_count_range(counts: Any) -> None:
    if len(counts) > 0:
        for extreme in (min(counts), max(counts)):
            if not 0 <= extreme < 2**32:
                raise ValueError(f"run length {extreme} is not in [0, 2**32)")


def compress_counts(strings_or_counts: list[Any]) -> list[str | bytes]:
    """Turn every array of run lengths into its compressed string, all in one call."""
    places = [i for i, item in enumerate(strings_or_counts) if not isinstance(item, str | bytes)]
    if not places:
        return strings_or_counts
    arrays = [strings_or_counts[i] for i in places]
    counts = np.concatenate([np.empty(0, np.uint32), *arrays])
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    chars = np.empty(MAX_CHARS_PER_COUNT * len(counts), np.uint8)
    char_offsets = np.empty(len(arrays) + 1, np.int64)
    dispatch.kernels("cpu").compress(
        counts.ctypes.data,
        offsets.ctypes.data,
        len(arrays),
        chars.ctypes.data,
        char_offsets.ctypes.data,
    )
    strings = list(strings_or_counts)
    for place, begin, end in zip(places, char_offsets[:-1], char_offsets[1:], strict=True):
        strings[place] = chars[begin:end].tobytes()
    return strings


def find_fault(counts: bytes, h: int, w: int) -> str:
    """Say what keeps a compressed string from being exactly a mask of h x w.

    The slow and plain counterpart of the ``validate`` kernels, for the message of an error.
    """
    values: list[int] = []
    at = total = 0
    while at < len(counts):
        begin, value, more = at, 0, True
        while more:
            if at == len(counts):
                return f"counts end in the middle of a run length, at character {at}"
            if at - begin == MAX_CHARS_PER_COUNT:
                return (
                    f"the run length at character {begin} of counts is longer than "
                    f"{MAX_CHARS_PER_COUNT} characters"
                )
            bits = counts[at] - 48
            if not 0 <= bits < 64:
                return f"character {at} of counts is {bytes([counts[at]])!r}, not one of the code"
            value |= (bits & 0x1F) << (5 * (at - begin))
            at += 1
            more = bool(bits & 0x20)
        if bits & 0x10:
            value -= 1 << (5 * (at - begin))
        if len(values) > 2:
            value += values[-2]
        if not 0 <= value < 2**32:
            return f"run length {len(values)} of counts is {value}, not in [0, 2**32)"
        values.append(value)
        total += value
    what = "counts are empty" if not values else f"counts add up to {total}"
    return f"{what}, but a mask of {h}x{w} has {h * w} pixels"
