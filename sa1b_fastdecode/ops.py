"""The operators as functions: whatever ``pack_rles`` takes, in one line."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode.arguments import Pad
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch


def decode_rle_batch(
    rles: Any,
    device: torch.device | str | None = None,
    *,
    dtype: torch.dtype = torch.uint8,
    out: Tensor | None = None,
    pad: Pad = False,
    size: tuple[int, int] | None = None,
    crop: Any = None,
    select: Any = None,
    num_threads: int | None = None,
    validate: bool = True,
) -> Tensor:
    """Decode COCO RLE masks into one dense tensor.

    ``out[n, y, x]`` is the parity of the run that holds pixel ``x*h + y`` of mask n.

    Args:
        rles: one RLE, a sequence of them, one sequence for each image, or an RLEBatch; all that
            :func:`pack_rles` takes.
        device: where to decode; default: where the RLEBatch is, else "cpu".
        dtype: uint8, bool, float16, bfloat16 or float32. Values are 0 and 1.
        out: a contiguous tensor to decode into, of exactly the shape, dtype and device that the
            result would have; it is returned. Saves making fresh pages in a loop.
        pad: for masks of different sizes: True pads with zeros, below and on the right, to the
            largest; ``(H, W)`` to that size.
        size: ``(H, W)``, decode at that size, after ``crop``. Nearest neighbour: output index d
            shows source index ``min(floor((d + 0.5) * (in / out)), in - 1)`` in float32, which is
            torch's "nearest-exact". Costs what the output costs, not what the mask does.
        crop: ``(y, x, h, w)`` or int ``(N, 4)``, the window of the masks, or of each mask, to
            decode, in pixels; it must lie inside the mask.
        select: indices of the masks to decode, in that order, before anything else; negative ones
            count from the end. The result is flat also for a grouped batch.
        num_threads: default: torch's setting, which is 1 in a DataLoader's workers.
        validate: as in :func:`pack_rles`.

    Returns:
        Tensor: ``dtype (N, h, w)``, contiguous, on ``device``; ``(0, 0, 0)`` for no masks. Grouped
        by image: ``(B, max N, H, W)`` with zeros where an image has fewer masks or is smaller.

    Raises:
        ValueError: malformed RLE, naming the mask; masks of different sizes and no ``pad`` or
            ``size``; a crop outside its mask; a wrong ``out``.
        TypeError: something of a wrong kind in place of an RLE.
        IndexError: ``select`` out of range.
        RuntimeError: nothing in this build decodes on ``device``.

    Note:
        Bit-identical on every backend. No more memory than the result and 16 MB.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> fd.decode_rle_batch({"size": [2, 3], "counts": [1, 2, 3]}, dtype=torch.float32)
        tensor([[[0., 1., 0.],
                 [1., 0., 0.]]])
    """
    batch = pack_rles(rles, validate=validate)
    if device is not None:
        batch = batch.to(device)
    return batch.decode(
        dtype=dtype, out=out, pad=pad, size=size, crop=crop, select=select, num_threads=num_threads
    )


def mask_area(rles: Any) -> Tensor:
    """Return int64 ``(N,)``, the pixels of each mask; takes what :func:`pack_rles` takes.

    >>> mask_area({"size": [2, 3], "counts": [1, 2, 3]})
    tensor([2])
    """
    return pack_rles(rles).area()


def mask_bbox(rles: Any) -> Tensor:
    """Return float32 ``(N, 4)``, the box (x, y, w, h) of each mask in full pixels.

    A box of zeros for an empty mask. Takes what :func:`pack_rles` takes.

    >>> mask_bbox({"size": [2, 3], "counts": [1, 2, 3]})
    tensor([[0., 0., 2., 2.]])
    """
    return pack_rles(rles).bbox()


def mask_centroid(rles: Any) -> Tensor:
    """Return float32 ``(N, 2)``, mean y and x of each mask's pixel centres; NaN if it is empty.

    Takes what :func:`pack_rles` takes.

    >>> mask_centroid({"size": [2, 3], "counts": [1, 2, 3]})
    tensor([[0.5000, 0.5000]])
    """
    return pack_rles(rles).centroid()


def mask_intersection(a: Any, b: Any) -> Tensor:
    """Return int64 ``(N, M)``, the pixels that each mask of ``a`` shares with each of ``b``.

    Both are what :func:`pack_rles` takes; see :meth:`RLEBatch.intersection`. Grouped by image:
    ``(B, max N, max M)``.

    >>> masks = [{"size": [2, 3], "counts": [0, 4, 2]}, {"size": [2, 3], "counts": [3, 3]}]
    >>> mask_intersection(masks, masks)
    tensor([[4, 1],
            [1, 3]])
    """
    first, second = _pack_both(a, b)
    return first.intersection(second)


def mask_iou(a: Any, b: Any, iscrowd: Any = None) -> Tensor:
    """Return float32 ``(N, M)``, intersection over union of each mask of ``a`` with each of ``b``.

    Both are what :func:`pack_rles` takes; ``iscrowd`` belongs to ``b``; see :meth:`RLEBatch.iou`.

    >>> masks = [{"size": [2, 3], "counts": [0, 4, 2]}, {"size": [2, 3], "counts": [3, 3]}]
    >>> mask_iou(masks, masks)
    tensor([[1.0000, 0.1667],
            [0.1667, 1.0000]])
    """
    first, second = _pack_both(a, b)
    return first.iou(second, iscrowd)


def mask_containment(a: Any, b: Any) -> Tensor:
    """Return float32 ``(N, M)``, how much of each mask of ``b`` lies in each mask of ``a``.

    Both are what :func:`pack_rles` takes; see :meth:`RLEBatch.containment`.

    >>> masks = [{"size": [2, 3], "counts": [0, 4, 2]}, {"size": [2, 3], "counts": [3, 3]}]
    >>> mask_containment(masks, masks)
    tensor([[1.0000, 0.3333],
            [0.2500, 1.0000]])
    """
    first, second = _pack_both(a, b)
    return first.containment(second)


def _pack_both(a: Any, b: Any) -> tuple[RLEBatch, RLEBatch]:
    """Pack both; the same masks once, since a batch with itself takes half the time."""
    first = pack_rles(a)
    return first, first if b is a else pack_rles(b)
