"""The operators as functions: whatever ``pack_rles`` takes, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import dispatch, library
from sa1b_fastdecode.arguments import Pad, read_num_threads
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch

_encode = torch.ops.sa1b_fastdecode.encode.default


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


def encode_masks(masks: Any, *, num_threads: int | None = None) -> RLEBatch:
    """Encode dense masks as COCO RLE.

    Every element that is not zero is foreground. The strings are the canonical ones, equal byte by
    byte to what ``pycocotools.mask.encode`` makes of the same masks as 0 and 1.

    Args:
        masks: ``(N, H, W)``, or ``(H, W)`` for a batch of one: a torch tensor, a NumPy array, or
            what NumPy can view as an array, such as a PIL image. bool, integers of any size,
            float16, bfloat16, float32 or float64; NaN is foreground, -0.0 background. Any strides
            (row-major, column-major, permuted, sliced, expanded, negative): nothing is copied.
        num_threads: default: torch's setting, which is 1 in a DataLoader's workers.

    Returns:
        RLEBatch: N masks of H x W, flat, on the device of ``masks``.

    Raises:
        ValueError: a wrong number of dimensions, or masks of 2**32 pixels or more.
        TypeError: not an array, or elements of another type, such as complex ones.
        RuntimeError: nothing in this build encodes on the device of ``masks``.

    Note:
        Bit-identical on every backend. No more memory than the result and 16 MB.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> batch = fd.encode_masks(torch.tensor([[False, True, False], [True, False, False]]))
        >>> batch.to_coco("list")
        [{'size': [2, 3], 'counts': [1, 2, 3]}]
    """
    threads = read_num_threads(num_threads)
    if isinstance(masks, Tensor):
        if masks.layout != torch.strided:
            raise TypeError(f"masks must be a dense tensor, not one of layout {masks.layout}")
        library.check_masks(masks)
        dispatch.operators(masks.device.type)  # raises for a device that has none
        block = _encode(masks, threads)
    else:
        masks = _as_array(masks)
        block = _encode_array(masks, threads)
    height, width = masks.shape[-2:]
    num_masks = masks.shape[0] if masks.ndim == 3 else 1
    if num_masks == 0:
        height = width = 0
    return RLEBatch._known(block, num_masks, height, width, True)


def _as_array(masks: Any) -> np.ndarray[Any, Any]:
    """Return what is an array, or can show itself as one, as an array."""
    if isinstance(masks, np.ndarray):
        return masks
    if not any(hasattr(masks, name) for name in ("__array__", "__array_interface__")):
        raise TypeError(f"masks must be a tensor or an array, not {type(masks).__name__}")
    return np.asarray(masks)


def read_masks(masks: Any) -> RLEBatch:
    """Return masks as an RLEBatch: RLEs of any kind are packed, dense masks encoded.

    Dense is a tensor or an array ``(N, H, W)`` or ``(H, W)``, or a list of such ones.
    """
    if _is_dense(masks):
        return encode_masks(masks)
    if isinstance(masks, list | tuple) and len(masks) > 0 and _is_dense(masks[0]):
        return RLEBatch.cat([encode_masks(mask) for mask in masks])
    return pack_rles(masks)


def _is_dense(masks: Any) -> bool:
    """Whether this is an array of pixels; one-dimensional arrays hold counts or dicts."""
    return isinstance(masks, Tensor | np.ndarray) and masks.ndim > 1


def _encode_array(masks: np.ndarray[Any, Any], num_threads: int) -> Tensor:
    """Encode an array where it lies. As a tensor it could have no negative stride."""
    dtype, item_size = masks.dtype, masks.dtype.itemsize
    if dtype.kind not in "biuf" or item_size > 8:
        raise TypeError(f"masks must be bool, integers or floats, not {dtype}")
    if masks.ndim not in (2, 3):
        raise ValueError(f"masks must have shape (N, H, W) or (H, W), not {masks.shape}")
    library.check_shape(masks.shape)
    value_bits = (1 << 8 * item_size) - 1
    if dtype.kind == "f":
        value_bits >>= 1  # the sign
    if not dtype.isnative:
        value_bits = int.from_bytes(value_bits.to_bytes(item_size, "little"), "big")
    block: Tensor = dispatch.operators("cpu").encode_memory(
        masks.ctypes.data, masks.shape, masks.strides, (item_size, value_bits), num_threads
    )
    return block


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


def mask_intersecting_pairs(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Return only the pairs of masks that have pixels in common, and how many.

    int64 ``(K, 2)``, sorted, and int64 ``(K,)``. Both arguments are what :func:`pack_rles` takes;
    see :meth:`RLEBatch.intersecting_pairs`.

    >>> masks = [{"size": [2, 3], "counts": [0, 1, 5]}, {"size": [2, 3], "counts": [3, 3]}]
    >>> mask_intersecting_pairs(masks, masks)
    (tensor([[0, 0],
            [1, 1]]), tensor([1, 3]))
    """
    first, second = _pack_both(a, b)
    return first.intersecting_pairs(second)


def _pack_both(a: Any, b: Any) -> tuple[RLEBatch, RLEBatch]:
    """Pack both; the same masks once, since a batch with itself takes half the time."""
    first = _pack_named("a", a)
    return first, first if b is a else _pack_named("b", b)


def _pack_named(name: str, rles: Any) -> RLEBatch:
    """Pack one of two arguments; an error says in which it is."""
    try:
        return pack_rles(rles)
    except (TypeError, ValueError) as error:
        raise type(error)(f"in {name}, {error}") from None
