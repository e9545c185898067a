"""The operators on the CPU: outputs are allocated here, the kernels get addresses.

The kernels are a module with the functions of ``_C.pyi``, compiled or of Numba. Arguments were
checked before; ``cuda.py`` has the same operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode.arguments import planes_of_images
from sa1b_fastdecode.library import Decode
from sa1b_fastdecode.status import MIXED_SIZES, NOT_GROUPED, raise_for

# Outputs from this size on get their memory from the kernels' ZeroPages: it reads as zero, so that
# only what lies inside a mask's box is ever written.
_FRESH_BYTES = 4 << 20

# Room for that many pairs, never touched unless they are found: 400 MB of addresses. More than that
# are found twice, the first time to count them.
_MOST_PAIRS = 1 << 24


class Operators:
    """Runs kernels on tensors of the CPU."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes >= _FRESH_BYTES:
            pages = self._kernels.ZeroPages(num_bytes)
            return torch.frombuffer(pages, dtype=dtype).view(shape)
        return torch.zeros(shape, dtype=dtype, device="cpu")

    def decode(
        self, data: Tensor, num_masks: int, decode: Decode, out: Tensor | None, num_threads: int
    ) -> Tensor:
        """Decode into ``out``, or into a new tensor."""
        *leading, height, _ = decode.shape
        planes = decode.planes
        if planes is None and decode.num_images is not None:
            planes = _planes_of(data, num_masks, decode.num_images, leading[-1])
        num_bytes = math.prod(decode.shape) * decode.dtype.itemsize
        fresh = out is None and num_bytes >= _FRESH_BYTES and decode.element[0] > 0
        if fresh:
            out = self._zeros(decode.shape, decode.dtype)
        elif out is None:
            out = torch.empty(*decode.shape, dtype=decode.dtype, device="cpu")
        status = self._kernels.decode(
            data.data_ptr(),
            data.numel(),
            num_masks,
            _address(planes),
            math.prod(leading),
            _address(decode.crops),
            decode.resize,
            height,
            decode.width,
            out.data_ptr(),
            *decode.element,
            fresh,
            num_threads or torch.get_num_threads(),
        )
        raise_for(status)
        return out

    def regions(
        self,
        data: Tensor,
        num_masks: int,
        area: Tensor | None,
        bbox: Tensor | None,
        centroid: Tensor | None,
    ) -> None:
        """Write what is not None: int64 (N,), float32 (N, 4), float32 (N, 2)."""
        status = self._kernels.regions(
            data.data_ptr(),
            data.numel(),
            num_masks,
            _address(area),
            _address(bbox),
            _address(centroid),
            torch.get_num_threads(),
        )
        raise_for(status)

    def pairwise(
        self,
        data: Tensor,
        num_masks: int,
        other: Tensor,
        num_other: int,
        shape: Sequence[int],
        iscrowd: Tensor | None,
        kind: int,
        dtype: torch.dtype,
    ) -> Tensor:
        """Compare all pairs, of each image if the shape has three dimensions."""
        num_images, rows, columns = shape if len(shape) == 3 else (NOT_GROUPED, *shape)
        out = self._zeros(shape, dtype)  # most pairs of many masks have nothing in common
        status = self._kernels.pairwise(
            data.data_ptr(),
            data.numel(),
            num_masks,
            other.data_ptr(),
            other.numel(),
            num_other,
            num_images,
            rows,
            columns,
            _address(iscrowd),
            kind,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        raise_for(status)
        return out

    def intersecting_pairs(
        self, data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
    ) -> tuple[Tensor, Tensor]:
        """Return int64 (K, 2) and int64 (K,)."""
        capacity = min(max(num_masks, 0) * max(num_other, 0), _MOST_PAIRS)
        while True:
            indices = np.empty((capacity, 2), np.int64)
            intersection = np.empty(capacity, np.int64)
            found = self._kernels.intersecting_pairs(
                data.data_ptr(),
                data.numel(),
                num_masks,
                other.data_ptr(),
                other.numel(),
                num_other,
                NOT_GROUPED if num_images is None else num_images,
                capacity,
                indices.ctypes.data,
                intersection.ctypes.data,
                torch.get_num_threads(),
            )
            if found < 0:
                raise_for(found)
            if found <= capacity:
                break
            del indices, intersection  # before more room is made
            capacity = found
        indices, intersection = indices[:found], intersection[:found]
        if indices.nbytes < _FRESH_BYTES:  # not worth holding on to the room that nobody needed
            indices, intersection = indices.copy(), intersection.copy()
        return torch.from_numpy(indices), torch.from_numpy(intersection)

    def encode(self, masks: Tensor, element: tuple[int, int], num_threads: int) -> Tensor:
        """Encode masks ``(N, H, W)`` or ``(H, W)``; return the block."""
        strides = [element[0] * stride for stride in masks.stride()]
        return self.encode_memory(masks.data_ptr(), masks.shape, strides, element, num_threads)

    def encode_memory(
        self,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        element: tuple[int, int],
        num_threads: int,
    ) -> Tensor:
        """Encode masks ``(N, H, W)`` or ``(H, W)`` that lie at an address; strides are in bytes."""
        height, width = shape[-2:]
        num_masks, mask_stride = (shape[0], strides[0]) if len(shape) == 3 else (1, 0)
        block = self._kernels.encode(
            address,
            num_masks,
            height,
            width,
            mask_stride,
            *strides[-2:],
            *element,
            num_threads or torch.get_num_threads(),
        )
        return torch.frombuffer(block, dtype=torch.uint8)

    def boundary_area(self, data: Tensor, num_masks: int) -> Tensor:
        """Return int64 (N,)."""
        area = torch.empty(num_masks, dtype=torch.int64, device="cpu")
        status = self._kernels.boundary_area(
            data.data_ptr(), data.numel(), num_masks, area.data_ptr(), torch.get_num_threads()
        )
        raise_for(status)
        return area

    def pixels_at_ranks(self, data: Tensor, num_masks: int, ranks: Tensor, region: int) -> Tensor:
        """Return int64 (N, n, 2): x and y, -1 for a rank that no pixel of the region has."""
        points = torch.empty(*ranks.shape, 2, dtype=torch.int64, device="cpu")
        status = self._kernels.pixels_at_ranks(
            data.data_ptr(),
            data.numel(),
            num_masks,
            region,
            ranks.data_ptr(),
            ranks.shape[1],
            points.data_ptr(),
            torch.get_num_threads(),
        )
        raise_for(status)
        return points

    def paint_labels(
        self,
        data: Tensor,
        num_masks: int,
        order: Tensor,
        labels: Tensor,
        background: int,
        shape: Sequence[int],
    ) -> Tensor:
        """Paint masks into maps of labels int32 ``(H, W)``, or ``(B, H, W)`` of a grouped batch."""
        *images, height, width = shape
        out = torch.empty(*shape, dtype=torch.int32, device="cpu")
        status = self._kernels.paint_labels(
            data.data_ptr(),
            data.numel(),
            num_masks,
            images[0] if images else NOT_GROUPED,
            order.data_ptr(),
            labels.data_ptr(),
            background,
            height,
            width,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        if status == MIXED_SIZES:
            raise ValueError("the masks of one map must have one size")
        raise_for(status)
        return out

    def suppress(
        self,
        data: Tensor,
        num_masks: int,
        order: Tensor,
        labels: Tensor | None,
        metric: int,
        threshold: float,
        num_images: int | None,
    ) -> Tensor:
        """Return bool (N,): which masks remain of those that better ones overlap too much."""
        keep = torch.empty(num_masks, dtype=torch.bool, device="cpu")
        status = self._kernels.suppress(
            data.data_ptr(),
            data.numel(),
            num_masks,
            NOT_GROUPED if num_images is None else num_images,
            order.data_ptr(),
            _address(labels),
            metric,
            threshold,
            keep.data_ptr(),
            torch.get_num_threads(),
        )
        raise_for(status)
        return keep

    def combine(
        self,
        data: Tensor,
        num_masks: int,
        other: Tensor,
        num_other: int,
        members: Tensor,
        group_offsets: Tensor,
        images: Tensor | None,
        kind: int,
    ) -> Tensor:
        """Make a mask of each group of members; return the block."""
        block = self._kernels.combine(
            data.data_ptr(),
            data.numel(),
            num_masks,
            other.data_ptr(),
            other.numel(),
            num_other,
            kind,
            members.data_ptr(),
            members.numel(),
            group_offsets.data_ptr(),
            group_offsets.numel() - 1,
            _address(images),
            0 if images is None else len(images),
            torch.get_num_threads(),
        )
        if isinstance(block, int):
            raise_for(block)
        return torch.frombuffer(block, dtype=torch.uint8)

    def split_labels(
        self, label_map: Tensor, background: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split maps ``(B, H, W)`` or ``(H, W)``: the block, its labels, how many each map has."""
        item_size = label_map.itemsize
        strides = [item_size * stride for stride in label_map.stride()]
        is_signed = label_map.dtype.is_signed
        return self.split_memory(
            label_map.data_ptr(), label_map.shape, strides, item_size, is_signed, background
        )

    def split_memory(
        self,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        item_size: int,
        is_signed: bool,
        background: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split maps ``(B, H, W)`` or ``(H, W)`` that lie at an address; strides are in bytes."""
        num_maps, map_stride = (shape[0], strides[0]) if len(shape) == 3 else (1, 0)
        split = self._kernels.split_labels(
            address,
            num_maps,
            *shape[-2:],
            map_stride,
            *strides[-2:],
            item_size,
            is_signed,
            len(shape) == 3,
            background is not None,
            background or 0,
            torch.get_num_threads(),
        )
        if isinstance(split, int):
            raise_for(split)
        block, labels, counts = split
        return (
            torch.frombuffer(block, dtype=torch.uint8),
            _integers_in(labels),
            _integers_in(counts),
        )


def _integers_in(memory: Any) -> Tensor:
    """Return the int64 values in a buffer, of which torch cannot view an empty one."""
    if len(memory) == 0:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.frombuffer(memory, dtype=torch.int64)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _planes_of(data: Tensor, num_masks: int, num_images: int, per_image: int) -> Tensor:
    """Return the mask that each plane of a grouped batch shows, from the table in its block."""
    begin = 8 * (3 * num_masks + 1)
    table = data[begin : begin + 24 * num_images]
    return planes_of_images(table.view(torch.int64).view(-1, 3)[:, 0], per_image)
