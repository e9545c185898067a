"""From everything that people hold RLEs in to an RLEBatch, and what is wrong where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sa1b_fastdecode import dispatch
from sa1b_fastdecode.arguments import Int64Array
from sa1b_fastdecode.reading import compress_counts, find_fault, read_rle
from sa1b_fastdecode.rle_batch import RLEBatch
from sa1b_fastdecode.status import MAX_PIXELS


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
            size, counts = read_rle(item)
        except (TypeError, ValueError) as error:
            raise type(error)(f"mask {i}: {error}") from None
        sizes[i] = size
        strings_or_counts.append(counts)
    strings = compress_counts(strings_or_counts)
    lengths = np.array([len(string) for string in strings], np.int64)
    # Text is encoded as it is laid out, so that no second copy of all of it exists.
    chunks = (string.encode() if isinstance(string, str) else string for string in strings)
    return RLEBatch._from_parts(sizes, lengths, chunks)


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
