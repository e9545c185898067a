"""The operators as functions: whatever ``pack_rles`` takes, in one line."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode.arguments import Pad
from sa1b_fastdecode.pack import pack_rles


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
