"""From everything that people hold RLEs in to an RLEBatch, and what is wrong where it cannot be."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sa1b_fastdecode import dispatch
from sa1b_fastdecode.arguments import Int64Array
from sa1b_fastdecode.rle_batch import RLEBatch
from sa1b_fastdecode.status import MAX_CHARS_PER_COUNT, MAX_PIXELS


def pack_rles(rles: Any, *, image_sizes: Any = None, validate: bool = True) -> RLEBatch:
    """Gather COCO RLE masks into one RLEBatch on the CPU.

    Args:
        rles: one RLE (a batch of one), or a sequence of them. An RLE is a dict with ``size``
            ``(h, w)`` and ``counts``: the compressed string (``str`` or any bytes-like object) or a
            list, tuple or array of run lengths, background first. In place of an RLE: an annotation
            (dict with ``segmentation``). In place of a sequence: the dict of an annotation file
            (with ``annotations``), the columns ``(counts, sizes (N, 2))``, or an RLEBatch, which is
            taken as it is. A sequence of those, one an image, gives a batch grouped by image.
        image_sizes: integers ``(B, 2)``, height and width of each image of a grouped batch; keeps
            the size of images that have no masks. Default: the size of the image's largest mask.
        validate: check that every string is exactly a mask of its size. Without it a malformed
            string may give wrong pixels, never an access outside its memory.

    Returns:
        RLEBatch: the masks in the order given. An RLEBatch is returned as it is.

    Raises:
        ValueError: bad content, naming the mask, as in "mask 3: counts add up to 5, but ...". A
            size with h = 0 or w = 0 is accepted, as pycocotools does, if the counts add up to 0.
        TypeError: something of a wrong kind in place of an RLE, a size or the counts.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> fd.pack_rles([{"size": [2, 3], "counts": "12"}], validate=False)
        RLEBatch(1 mask, 2x3, 34 bytes, cpu)
    """
    if isinstance(rles, RLEBatch) and image_sizes is None:
        return rles
    if not _is_grouped(rles) and not (_is_empty(rles) and image_sizes is not None):
        if image_sizes is not None:
            raise ValueError("image_sizes needs one list of masks for each image")
        return _pack_flat(rles, validate)
    images = []
    for i, image in enumerate(rles):
        if not _is_image(image):
            raise TypeError(f"image {i}: expected a list of masks, not {type(image).__name__}")
        try:
            images.append(_pack_flat(image, validate))
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {i}, {error}") from None
    table = np.array(
        [(image.num_masks, image.height, image.width) for image in images], np.int64
    ).reshape(-1, 3)
    if image_sizes is not None:
        table[:, 1:] = _read_image_sizes(image_sizes, images)
    return RLEBatch._join(images, table)


def _is_grouped(rles: Any) -> bool:
    """Whether this is one sequence of masks for each image, to judge by its first element."""
    if not isinstance(rles, Sequence) or isinstance(rles, str | bytes | bytearray | memoryview):
        return False
    if len(rles) == 0 or _is_columns(rles):
        return False
    return _is_image(rles[0])


def _is_empty(rles: Any) -> bool:
    return isinstance(rles, list | tuple) and len(rles) == 0


def _is_image(item: Any) -> bool:
    """Whether this holds the masks of an image, rather than being one mask."""
    if isinstance(item, Mapping):
        return "annotations" in item
    return isinstance(item, list | tuple | RLEBatch)


def _is_columns(rles: Any) -> bool:
    """Whether this is a pair (array of counts strings, array of sizes (N, 2))."""
    if not isinstance(rles, tuple) or len(rles) != 2:
        return False
    strings, sizes = rles
    if isinstance(strings, list | tuple) and isinstance(sizes, np.ndarray):
        return True
    if isinstance(strings, np.ndarray):
        return strings.ndim == 1 and (strings.dtype.kind in "OSU" or strings.size == 0)
    return (
        isinstance(strings, list | tuple)
        and len(strings) > 0
        and isinstance(strings[0], str | bytes)
    )


def _pack_flat(rles: Any, validate: bool) -> RLEBatch:
    if isinstance(rles, RLEBatch):
        return rles.flat()
    kernels = dispatch.kernels("cpu")
    packed = kernels.pack(rles)
    if packed is not None:
        block, *known = packed
        batch = RLEBatch._known(torch.frombuffer(block, dtype=torch.uint8), *known)
    else:
        batch = _pack_any(rles)
    if validate:
        wrong = kernels.validate(batch.data.data_ptr(), batch.data.numel(), batch.num_masks)
        if wrong >= 0:
            counts = batch[wrong].data.numpy()[8 * 4 :].tobytes()
            raise ValueError(f"mask {wrong}: {find_fault(counts, *batch.sizes[wrong].tolist())}")
    return batch


def _pack_any(rles: Any) -> RLEBatch:
    """Pack what is not a plain list of dicts with strings."""
    if _is_columns(rles):
        strings, table = rles
        table = np.asarray(table)
        if table.shape != (len(strings), 2):
            raise ValueError(
                f"columns of RLEs need sizes of shape ({len(strings)}, 2), not {table.shape}"
            )
        items: Any = [{"size": s, "counts": c} for s, c in zip(table, strings, strict=True)]
    elif isinstance(rles, Mapping):
        items = rles["annotations"] if "annotations" in rles else [rles]
        if not isinstance(items, list | tuple):
            raise TypeError(f"annotations must be a list, not {type(items).__name__}")
    elif isinstance(rles, Sequence) and not isinstance(rles, str | bytes | bytearray | memoryview):
        items = rles
    elif isinstance(rles, np.ndarray) and rles.dtype == object and rles.ndim == 1:
        items = rles.tolist()
    else:
        raise TypeError(f"expected an RLE dict or a sequence of them, not {type(rles).__name__}")

    sizes = np.zeros((len(items), 2), np.int64)
    strings_or_counts = []
    for i, item in enumerate(items):
        try:
            size, counts = _read_rle(item)
        except (TypeError, ValueError) as error:
            raise type(error)(f"mask {i}: {error}") from None
        sizes[i] = size
        strings_or_counts.append(counts)
    strings = _compress_counts(strings_or_counts)
    lengths = np.array([len(string) for string in strings], np.int64)
    # Text is encoded as it is laid out, so that no second copy of all of it exists.
    chunks = (string.encode() if isinstance(string, str) else string for string in strings)
    return RLEBatch._from_parts(sizes, lengths, chunks)


def _read_rle(item: Any) -> tuple[tuple[int, int], Any]:
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


def _read_size(size: Any) -> tuple[int, int]:
    if isinstance(size, str | bytes) or not isinstance(size, Sequence | np.ndarray | torch.Tensor):
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
    if isinstance(counts, torch.Tensor):
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


def _compress_counts(strings_or_counts: list[Any]) -> list[str | bytes]:
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


def _read_image_sizes(image_sizes: Any, images: list[RLEBatch]) -> Int64Array:
    table = np.asarray(image_sizes)
    if table.shape != (len(images), 2):
        raise ValueError(f"image_sizes must have shape ({len(images)}, 2), not {table.shape}")
    if table.size and table.dtype.kind not in "iu":
        raise TypeError(f"image_sizes must be integers, not {table.dtype}")
    for i, (image, size) in enumerate(zip(images, table.tolist(), strict=True)):
        if min(size) < 0 or max(size) > MAX_PIXELS:
            raise ValueError(f"image {i}: {size[0]}x{size[1]} is not a size")
        for k, mask_size in enumerate(image.sizes.tolist()):
            if mask_size != size:
                raise ValueError(
                    f"image {i}, mask {k}: the mask is {mask_size[0]}x{mask_size[1]}, "
                    f"the image {size[0]}x{size[1]}"
                )
    return table.astype(np.int64)


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
