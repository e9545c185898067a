"""Between masks and label maps: images of integers, one for each mask.

>>> import sa1b_fastdecode as fd
>>> masks = fd.pack_rles([{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])])
>>> label_map = fd.labels.to_label_map(masks)
>>> label_map
tensor([[1, 1, 2],
        [1, 2, 2]], dtype=torch.int32)
>>> fd.labels.from_label_map(label_map)
(RLEBatch(2 masks, 2x3, 61 bytes, cpu), tensor([1, 2]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import arguments, dispatch, library
from sa1b_fastdecode.cuda import on_device_of
from sa1b_fastdecode.grouping import image_of_masks, sort_by_image
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch
from sa1b_fastdecode.status import MAX_PIXELS

_INTEGERS = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
)

_INT32 = torch.iinfo(torch.int32)


def to_label_map(
    masks: Any, labels: Any = None, *, on_top: Any = "smallest", background: int = 0
) -> Tensor:
    """Paint masks into one map that says of each pixel which mask it belongs to.

    Args:
        masks: what :func:`sa1b_fastdecode.pack_rles` takes; all masks of one size, or grouped by
            image, of one size in each image.
        labels: the value of each mask's pixels, N integers that int32 holds. Default: 1 to N;
            grouped: from 1 on in each image.
        on_top: which mask a pixel belongs to that is in several: "smallest", the one of the
            smallest area; "first" or "last" in order; or N numbers, of which the largest wins. Of
            equals the first.
        background: the value of pixels in no mask.

    Returns:
        Tensor: int32 ``(H, W)`` on the device of the masks; ``(0, 0)`` for none. Grouped:
        ``(B, H, W)``, background below and right of smaller images.

    Raises:
        ValueError: masks of one map differ in size, naming them; a label that int32 does not hold;
            another number of labels or priorities than masks.
        TypeError: labels that are no integers.

    Note:
        Bit-identical on every backend. No more memory than the result and 16 MB, however many
        masks there are; on a GPU the result and 6 times the batch. There nothing waits, except
        for ``labels`` or ``on_top`` that are tensors on it.

    Example:
        >>> masks = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])]
        >>> to_label_map(masks, labels=[7, 300], on_top="first", background=-1)
        tensor([[  7,   7, 300],
                [  7,   7, 300]], dtype=torch.int32)
    """
    batch = pack_rles(masks)
    _check_sizes(batch)
    shape = [batch.height, batch.width]
    if batch.num_images is not None:
        shape.insert(0, batch.num_images)
    if not _INT32.min <= background <= _INT32.max:
        raise ValueError(f"background must fit into int32, but is {background}")
    label_map: Tensor = torch.ops.sa1b_fastdecode.paint_labels.default(
        batch.data,
        batch.num_masks,
        _paint_order(batch, on_top),
        _read_labels(batch, labels),
        background,
        shape,
    )
    return label_map


def _check_sizes(batch: RLEBatch) -> None:
    """Raise if masks that share a map differ in size."""
    if batch.uniform:
        return
    sizes, counts = batch.sizes, batch.counts_per_image
    begin = torch.zeros(len(sizes), dtype=torch.int64, device="cpu")
    if counts is not None:
        begin = (counts.cumsum(0) - counts).repeat_interleave(counts)
    # `begin` is the first mask of the same image.
    wrong = (sizes != sizes[begin]).any(dim=1)
    if bool(wrong.any()):
        i = int(wrong.int().argmax())
        (h, w), (first_h, first_w) = sizes[i].tolist(), sizes[begin[i]].tolist()
        raise ValueError(
            f"the masks of one map must have one size: mask {int(begin[i])} is "
            f"{first_h}x{first_w}, mask {i} is {h}x{w}"
        )


def _paint_order(batch: RLEBatch, on_top: Any) -> Tensor:
    """Return int64 (N,): the masks as they are painted, those on top last."""
    forwards = torch.arange(batch.num_masks, device=batch.device)
    backwards = forwards.flip(0)
    if not isinstance(on_top, str):
        priorities = _read_priorities(batch, on_top)
    elif on_top == "smallest":
        priorities = -batch.area()
    elif on_top in ("first", "last"):
        return sort_by_image(batch, backwards if on_top == "first" else forwards)
    else:
        raise ValueError(f"on_top must be 'smallest', 'first', 'last' or numbers, not {on_top!r}")
    return sort_by_image(batch, backwards[priorities[backwards].argsort(stable=True)])


def _read_priorities(batch: RLEBatch, on_top: Any) -> Tensor:
    priorities = torch.as_tensor(on_top)
    if tuple(priorities.shape) != (batch.num_masks,):
        raise ValueError(
            f"on_top must have shape ({batch.num_masks},), not {tuple(priorities.shape)}"
        )
    if bool(priorities.isnan().any()):
        raise ValueError(f"mask {int(priorities.isnan().int().argmax())}: its priority is NaN")
    return on_device_of(batch.data, priorities)


def _read_labels(batch: RLEBatch, labels: Any) -> Tensor:
    """Return int32 (N,), where the batch is or on the CPU."""
    if labels is None:
        image = image_of_masks(batch)
        place = torch.arange(batch.num_masks, device=batch.device)
        return (place + 1 - torch.searchsorted(image, image)).to(torch.int32)
    table = arguments._integers(labels, "labels").to(torch.int64)
    if tuple(table.shape) != (batch.num_masks,):
        raise ValueError(f"labels must have shape ({batch.num_masks},), not {tuple(table.shape)}")
    wrong = (table < _INT32.min) | (table > _INT32.max)
    if bool(wrong.any()):
        i = int(wrong.int().argmax())
        raise ValueError(f"mask {i}: label {int(table[i])} does not fit into int32")
    return table.to(torch.int32).contiguous()


def from_label_map(label_map: Any, *, background: int | None = 0) -> tuple[RLEBatch, Tensor]:
    """Split a label map into the masks of all its labels.

    Args:
        label_map: ``(H, W)``, or ``(B, H, W)`` for one map an image: a torch tensor, a NumPy array,
            or what NumPy can view as an array, such as a PIL image. Integers of any size, or bool;
            any strides, nothing is copied.
        background: the label that is no mask; None: every label is one.

    Returns:
        tuple: the masks as an :class:`RLEBatch`, flat of ``(H, W)`` and grouped of ``(B, H, W)``,
        and int64 ``(N,)``, the label of each mask, ascending in each map; on the device of the map.

    Raises:
        ValueError: a wrong number of dimensions, 2**32 pixels or more, or a label of 2**63 or more.
        TypeError: not an array, or elements that are no integers.

    Note:
        Bit-identical on every backend; canonical strings. One pass over the map, however many
        labels it has; on a GPU a few, with 80 bytes a run, and it waits for what it finds.

    Example:
        >>> masks, labels = from_label_map(torch.tensor([[9, 9, 0], [9, 4, 4]]))
        >>> labels
        tensor([4, 9])
        >>> masks.decode()
        tensor([[[0, 0, 0],
                 [0, 1, 1]],
        <BLANKLINE>
                [[1, 1, 0],
                 [1, 0, 0]]], dtype=torch.uint8)
    """
    if background is not None and not -(2**63) <= background < 2**63:
        raise ValueError(f"background must fit into int64, but is {background}")
    if isinstance(label_map, Tensor):
        if label_map.layout != torch.strided:
            raise TypeError(f"a label map must be a dense tensor, not one of {label_map.layout}")
        split = torch.ops.sa1b_fastdecode.split_labels.default
        block, labels, _ = split(label_map, background)
        shape: tuple[int, ...] = tuple(label_map.shape)
    else:
        if not any(hasattr(label_map, name) for name in ("__array__", "__array_interface__")):
            raise TypeError(
                f"a label map must be a tensor or an array, not {type(label_map).__name__}"
            )
        array = np.asarray(label_map)
        if array.dtype.kind not in "biu":
            raise TypeError(f"a label map must hold integers, not {array.dtype}")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        _check_shape(array.shape)
        # Where it lies: as a tensor it could have no negative stride.
        block, labels, _ = dispatch.operators("cpu").split_memory(
            array.ctypes.data,
            array.shape,
            array.strides,
            array.itemsize,
            array.dtype.kind == "i",
            background,
        )
        shape = array.shape
    if len(shape) == 3:
        return RLEBatch(block, len(labels), shape[0]), labels
    height, width = shape if len(labels) > 0 else (0, 0)
    return RLEBatch._known(block, len(labels), height, width, True), labels


def rgb_to_ids(rgb: Tensor) -> Tensor:
    """Return the ids that COCO's panoptic images hold as colours: R + 256 G + 256**2 B.

    Args:
        rgb: uint8 ``(..., 3)``, such as an image ``(H, W, 3)``.

    Returns:
        Tensor: int32 ``(...)``, ready for :func:`from_label_map`.

    Raises:
        ValueError: another shape.
        TypeError: not uint8.

    Example:
        >>> rgb_to_ids(torch.tensor([[[1, 2, 0], [0, 0, 1]]], dtype=torch.uint8))
        tensor([[  513, 65536]], dtype=torch.int32)
    """
    if rgb.dtype != torch.uint8:
        raise TypeError(f"colours must be uint8, not {rgb.dtype}")
    if rgb.dim() < 1 or rgb.shape[-1] != 3:
        raise ValueError(f"colours must have shape (..., 3), not {tuple(rgb.shape)}")
    red, green, blue = rgb.to(torch.int32).unbind(-1)
    return red + (green << 8) + (blue << 16)


def ids_to_rgb(ids: Tensor) -> Tensor:
    """Return the colours that stand for ids in COCO's panoptic images.

    Args:
        ids: integers ``(...)`` from 0 to 2**24 - 1.

    Returns:
        Tensor: uint8 ``(..., 3)``; :func:`rgb_to_ids` reads it.

    Raises:
        ValueError: an id that three bytes do not hold.
        TypeError: no integers.

    Example:
        >>> ids_to_rgb(torch.tensor([513, 65536]))
        tensor([[1, 2, 0],
                [0, 0, 1]], dtype=torch.uint8)
    """
    if ids.dtype not in _INTEGERS:
        raise TypeError(f"ids must be integers, not {ids.dtype}")
    values = ids.to(torch.int64)
    if bool(((values < 0) | (values >= 1 << 24)).any()):
        raise ValueError("panoptic ids must be at least 0 and below 2**24")
    return torch.stack([values & 255, values >> 8 & 255, values >> 16], -1).to(torch.uint8)


# --- The operators


def _paint_labels(
    data: Tensor,
    num_masks: int,
    order: Tensor,
    labels: Tensor,
    background: int,
    shape: Sequence[int],
) -> Tensor:
    library.check_data(data)
    library._check_table(order, num_masks, torch.int64, data, "order")
    library._check_table(labels, num_masks, torch.int32, data, "labels")
    label_map: Tensor = dispatch.operators(data.device.type).paint_labels(
        data, num_masks, order, labels, background, shape
    )
    return label_map


def _paint_labels_fake(
    data: Tensor,
    num_masks: int,
    order: Tensor,
    labels: Tensor,
    background: int,
    shape: Sequence[int],
) -> Tensor:
    library._check_places(data, order, labels)
    return data.new_empty(shape, dtype=torch.int32)


def _check_map(label_map: Tensor) -> None:
    if label_map.dtype not in _INTEGERS:
        raise TypeError(f"a label map must hold integers, not {label_map.dtype}")
    _check_shape(label_map.shape)


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) not in (2, 3):
        raise ValueError(f"a label map must have shape (H, W) or (B, H, W), not {tuple(shape)}")
    height, width = shape[-2:]
    if height * width > MAX_PIXELS:
        raise ValueError(f"maps are {height}x{width}; a map has fewer than 2**32 pixels")


def _split_labels(label_map: Tensor, background: int | None) -> tuple[Tensor, Tensor, Tensor]:
    _check_map(label_map)
    split: tuple[Tensor, Tensor, Tensor] = dispatch.operators(label_map.device.type).split_labels(
        label_map, background
    )
    return split


def _split_labels_fake(label_map: Tensor, background: int | None) -> tuple[Tensor, Tensor, Tensor]:
    _check_map(label_map)
    context = torch.library.get_ctx()
    return (
        label_map.new_empty(context.new_dynamic_size(min=8), dtype=torch.uint8),
        label_map.new_empty(context.new_dynamic_size(), dtype=torch.int64),
        label_map.new_empty(label_map.shape[0] if label_map.dim() == 3 else 1, dtype=torch.int64),
    )


library._register(
    "paint_labels(Tensor data, SymInt num_masks, Tensor order, Tensor labels, int background, "
    "SymInt[] shape) -> Tensor",
    _paint_labels,
    _paint_labels_fake,
)
library._register(
    "split_labels(Tensor label_map, int? background) -> (Tensor, Tensor, Tensor)",
    _split_labels,
    _split_labels_fake,
)
