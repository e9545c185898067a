"""Masks made of masks: strings in, strings out, and no pixel in between.

Every function takes what :func:`pack_rles` takes and returns a new :class:`RLEBatch` on the same
device. The strings are canonical: byte by byte what encoding the dense result would give.

* Mask by mask: :func:`union` ``a | b``, :func:`intersection` ``a & b``, :func:`difference`
  ``a - b``, :func:`xor` ``a ^ b``, :func:`complement` ``~a``.
* Many to one: :func:`merge`, of a whole batch, of each image, of each label.
* Where the pixels lie: :func:`crop`, :func:`pad`, :func:`resize`, exactly as the keywords ``crop``,
  ``pad`` and ``size`` of :meth:`RLEBatch.decode` have it; :func:`translate`, :func:`flip`,
  :func:`rot90`. These are on the CPU only: a batch on another device raises RuntimeError.

A batch that is grouped by image stays so, and the sizes of its images change as those of its masks
do. Of all but :func:`merge` the result has a mask for each mask, in order.
"""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import arguments, library_algebra
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = [
    "complement",
    "crop",
    "difference",
    "flip",
    "intersection",
    "merge",
    "pad",
    "resize",
    "rot90",
    "translate",
    "union",
    "xor",
]

_combine = torch.ops.sa1b_fastdecode.combine.default
_place = torch.ops.sa1b_fastdecode.place.default
_turn = torch.ops.sa1b_fastdecode.turn.default

# No mask has a pixel that far away.
_FAR = 2**32


def union(a: Any, b: Any) -> RLEBatch:
    """Return what lies in ``a`` or in ``b``, mask by mask; also ``a | b``.

    Args:
        a, b: as many masks each, or a single mask on one side, which then meets all of the other.

    Raises:
        ValueError: numbers or sizes of masks, or the numbers of masks an image, that do not fit.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> a = fd.pack_rles({"size": [2, 3], "counts": [1, 2, 3]})
        >>> b = fd.pack_rles({"size": [2, 3], "counts": [2, 3, 1]})
        >>> union(a, b).to_coco("list")
        [{'size': [2, 3], 'counts': [1, 4, 1]}]
    """
    return _elementwise(library_algebra.UNION, a, b)


def intersection(a: Any, b: Any) -> RLEBatch:
    """Return what lies in both ``a`` and ``b``, mask by mask; also ``a & b``.

    How many pixels these are, for all pairs at once, is :meth:`RLEBatch.intersection`. Arguments
    and errors as for :func:`union`.

    >>> a = {"size": [2, 3], "counts": [1, 2, 3]}
    >>> intersection(a, {"size": [2, 3], "counts": [2, 3, 1]}).to_coco("list")
    [{'size': [2, 3], 'counts': [2, 1, 3]}]
    """
    return _elementwise(library_algebra.INTERSECTION, a, b)


def difference(a: Any, b: Any) -> RLEBatch:
    """Return what lies in ``a`` but not in ``b``, mask by mask; also ``a - b``.

    Arguments and errors as for :func:`union`.

    >>> a = {"size": [2, 3], "counts": [1, 2, 3]}
    >>> difference(a, {"size": [2, 3], "counts": [2, 3, 1]}).to_coco("list")
    [{'size': [2, 3], 'counts': [1, 1, 4]}]
    """
    return _elementwise(library_algebra.DIFFERENCE, a, b)


def xor(a: Any, b: Any) -> RLEBatch:
    """Return what lies in one of ``a`` and ``b`` alone, mask by mask; also ``a ^ b``.

    Arguments and errors as for :func:`union`.

    >>> a = {"size": [2, 3], "counts": [1, 2, 3]}
    >>> xor(a, {"size": [2, 3], "counts": [2, 3, 1]}).to_coco("list")
    [{'size': [2, 3], 'counts': [1, 1, 1, 2, 1]}]
    """
    return _elementwise(library_algebra.XOR, a, b)


def complement(masks: Any) -> RLEBatch:
    """Return what lies outside of each mask, inside its size; also ``~masks``.

    >>> complement({"size": [2, 3], "counts": [1, 2, 3]}).to_coco("list")
    [{'size': [2, 3], 'counts': [0, 1, 2, 3]}]
    """
    batch = pack_rles(masks)
    n = batch.num_masks
    groups = torch.arange(n + 1, device="cpu")
    data = _combine(
        batch.data, n, batch.data, n, groups[:n], groups, _images(batch), library_algebra.COMPLEMENT
    )
    return batch._with_block(data, n, batch.max_masks)


def _elementwise(kind: int, a: Any, b: Any) -> RLEBatch:
    first, second = pack_rles(a), pack_rles(b)
    n = second.num_masks if first.num_masks == 1 else first.num_masks
    if second.num_masks not in (1, n):
        raise ValueError(
            f"{first.num_masks} and {second.num_masks} masks cannot be combined; both sides need "
            "as many, or one of them a single mask"
        )
    alike = [x for x in (first, second) if x.num_masks == n]
    grouped = [x for x in alike if x.num_images is not None]
    if len(grouped) == 2:
        counts = [x._images[:, 0] for x in grouped]
        if not torch.equal(*counts):
            raise ValueError("grouped batches must have as many masks in each image")
    like = [*grouped, *alike][0]
    masks = torch.arange(n, device="cpu")
    members = torch.stack(
        [
            masks if first.num_masks == n else torch.zeros_like(masks),
            first.num_masks + (masks if second.num_masks == n else torch.zeros_like(masks)),
        ],
        dim=1,
    )
    data = _combine(
        first.data,
        first.num_masks,
        second.data,
        second.num_masks,
        members,
        torch.arange(0, 2 * n + 1, 2, device="cpu"),
        _images(like),
        kind,
    )
    return like._with_block(data, n, like.max_masks)


_HOW = {
    "union": library_algebra.UNION,
    "intersection": library_algebra.INTERSECTION,
    "xor": library_algebra.XOR,
}


def merge(
    masks: Any, labels: Any = None, how: Literal["union", "intersection", "xor"] = "union"
) -> RLEBatch:
    """Make one mask of many: of all masks, of those of each image, of those with each label.

    Args:
        masks: of one size each image, or all of one size if flat.
        labels: integers ``(N,)``, one for each mask: one mask is made for each different label, in
            ascending order. Default: all are alike.
        how: "union" is what lies in any mask, "intersection" in all, "xor" in an odd number.

    Returns:
        RLEBatch: flat, or grouped with a mask for each image (and label) that has any.

    Raises:
        ValueError: masks of different sizes, labels of another shape.
        TypeError: labels that are no integers.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> batch = fd.pack_rles([{"size": [1, 4], "counts": [i, 1, 3 - i]} for i in range(3)])
        >>> merge(batch).to_coco("list")
        [{'size': [1, 4], 'counts': [0, 3, 1]}]
        >>> merge(batch, labels=[7, 2, 7]).decode().tolist()
        [[[0, 1, 0, 0]], [[1, 0, 1, 0]]]
    """
    if how not in _HOW:
        raise ValueError(f"how must be one of {', '.join(_HOW)}, not {how!r}")
    batch = pack_rles(masks)
    n, num_images = batch.num_masks, batch.num_images
    label = np.zeros(n, np.int64)
    if labels is not None:
        label = arguments.read_labels(labels, n).numpy()
    image = np.zeros(n, np.int64)
    if num_images is not None:
        image = np.repeat(np.arange(num_images), batch._images_array()[:, 0])
    order = np.lexsort((label, image))  # stable
    image, label = image[order], label[order]
    is_first = np.ones(n, bool)
    is_first[1:] = (image[1:] != image[:-1]) | (label[1:] != label[:-1])
    begins = np.flatnonzero(is_first)
    images = _images(batch)
    most = len(begins)
    if images is not None:
        counts = np.bincount(image[begins], minlength=len(images))
        images[:, 0] = torch.from_numpy(counts)
        most = int(counts.max(initial=0))
    data = _combine(
        batch.data,
        n,
        batch.data,
        n,
        torch.from_numpy(order),
        torch.from_numpy(np.append(begins, n)),
        images,
        _HOW[how],
    )
    return batch._with_block(data, len(begins), most)


def crop(masks: Any, window: Any) -> RLEBatch:
    """Cut a window out of each mask.

    Args:
        window: ``(y, x, h, w)`` or integers ``(N, 4)``, in pixels, inside the mask.

    Raises:
        ValueError, TypeError: as the keyword ``crop`` of :meth:`RLEBatch.decode`.

    Example:
        >>> crop({"size": [2, 3], "counts": [1, 2, 3]}, (0, 1, 2, 2)).to_coco("list")
        [{'size': [2, 2], 'counts': [0, 1, 3]}]
    """
    batch = pack_rles(masks)
    windows, height, width, uniform = arguments.read_crop(window, batch.sizes)
    images = _images(batch)
    if images is not None and uniform:
        images[:, 1:] = torch.tensor([height, width], device="cpu")
    elif images is not None:
        parts = torch.split(windows[:, 2:], images[:, 0].tolist())
        images[:, 1:] = torch.stack([arguments.largest_sides(part) for part in parts])
    return _placed(batch, windows, windows[:, 2:].contiguous(), images)


def pad(masks: Any, size: tuple[int, int] | None = None) -> RLEBatch:
    """Make all masks as large as the largest, or of a size, with background below and on the right.

    For background on all sides, :func:`translate` the result.

    Args:
        size: ``(H, W)``, in pixels, at least the size of the largest mask (and image).

    Raises:
        ValueError, TypeError: as the keyword ``pad`` of :meth:`RLEBatch.decode`.

    Example:
        >>> pad({"size": [2, 3], "counts": [1, 2, 3]}, (3, 3)).to_coco("list")
        [{'size': [3, 3], 'counts': [1, 1, 1, 1, 5]}]
    """
    batch = pack_rles(masks)
    sides = batch.height, batch.width
    if size is not None:
        sides = arguments.read_pad(size, *sides)
    sizes = torch.tensor(sides, device="cpu").expand(batch.num_masks, 2).contiguous()
    return _placed(batch, _windows_at(0, sizes), sizes, _images(batch, sides))


def translate(masks: Any, offset: Any) -> RLEBatch:
    """Move masks inside their size; what leaves it is lost, background comes in.

    Args:
        offset: ``(dy, dx)`` or integers ``(N, 2)``, in pixels: down and to the right.

    Raises:
        ValueError: offsets of another shape.
        TypeError: offsets that are no integers.

    Example:
        >>> translate({"size": [2, 3], "counts": [1, 2, 3]}, (0, 1)).to_coco("list")
        [{'size': [2, 3], 'counts': [3, 2, 1]}]
    """
    batch = pack_rles(masks)
    offsets = arguments.read_offsets(offset, batch.num_masks)
    sizes = batch.sizes
    return _placed(batch, _windows_at(-offsets.clamp(-_FAR, _FAR), sizes), sizes, _images(batch))


def resize(masks: Any, size: tuple[int, int]) -> RLEBatch:
    """Resize masks to the nearest pixel, as torch's "nearest-exact" does.

    Args:
        size: ``(H, W)``, in pixels, of all masks of the result.

    Raises:
        ValueError, TypeError: as the keyword ``size`` of :meth:`RLEBatch.decode`, or 2**32 pixels.

    Example:
        >>> resize({"size": [2, 3], "counts": [1, 2, 3]}, (1, 6)).to_coco("list")
        [{'size': [1, 6], 'counts': [0, 2, 4]}]
    """
    batch = pack_rles(masks)
    sides = arguments.read_size(size, "size")
    sizes = torch.tensor(sides, device="cpu").expand(batch.num_masks, 2).contiguous()
    return _placed(batch, _windows_at(0, batch.sizes), sizes, _images(batch, sides))


def _windows_at(begins: Tensor | int, sizes: Tensor) -> Tensor:
    """Return windows (y, x, h, w) of some sizes."""
    windows = torch.empty((len(sizes), 4), dtype=torch.int64, device="cpu")
    windows[:, :2] = begins
    windows[:, 2:] = sizes
    return windows


def _placed(batch: RLEBatch, windows: Tensor, sizes: Tensor, images: Tensor | None) -> RLEBatch:
    data = _place(batch.data, batch.num_masks, windows, sizes, images)
    return RLEBatch._from_block(data, batch.num_masks, batch.num_images)


def flip(masks: Any, direction: Literal["horizontal", "vertical"]) -> RLEBatch:
    """Mirror masks: "horizontal" exchanges left and right, "vertical" top and bottom.

    >>> flip({"size": [2, 3], "counts": [1, 2, 3]}, "horizontal").to_coco("list")
    [{'size': [2, 3], 'counts': [2, 1, 2, 1]}]
    """
    if direction not in ("horizontal", "vertical"):
        raise ValueError(f"direction must be 'horizontal' or 'vertical', not {direction!r}")
    batch = pack_rles(masks)
    horizontal = direction == "horizontal"
    data = _turn(batch.data, batch.num_masks, False, not horizontal, horizontal, _images(batch))
    return RLEBatch._from_block(data, batch.num_masks, batch.num_images)


def rot90(masks: Any, k: int = 1) -> RLEBatch:
    """Turn masks by ``k`` times 90 degrees counterclockwise, as ``numpy.rot90`` does.

    >>> rot90({"size": [2, 3], "counts": [1, 2, 3]}).to_coco("list")
    [{'size': [3, 2], 'counts': [1, 1, 3, 1]}]
    """
    quarter = operator.index(k) % 4
    batch = pack_rles(masks)
    images = _images(batch)
    transpose = quarter % 2 == 1
    if images is not None and transpose:
        images = images[:, [0, 2, 1]].contiguous()
    data = _turn(
        batch.data, batch.num_masks, transpose, quarter in (1, 2), quarter in (2, 3), images
    )
    return RLEBatch._from_block(data, batch.num_masks, batch.num_images)


def _images(batch: RLEBatch, sides: tuple[int, int] | None = None) -> Tensor | None:
    """Return a copy of the table (B,3) of a grouped batch, or that of images of other sides."""
    if batch.num_images is None:
        return None
    images = batch._images.clone()
    if sides is not None:
        images[:, 1:] = torch.tensor(sides, device="cpu")
    return images
