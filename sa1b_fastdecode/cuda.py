"""The compiled CUDA kernels, called with tensors.

Every call allocates its output and workspace from torch's caching allocator and runs on the current
stream of the device that the batch is on. Nothing here waits for the GPU, except where a result is
as long as it turns out to be: encoding, masks made of masks or label maps, and lists of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode.label_runs import find_label_runs
from sa1b_fastdecode.library import Decode
from sa1b_fastdecode.status import BAD_PLANE, NOT_GROUPED, raise_for

# What to do about the errors of CUDA that are the machine's, by their numbers.
_ADVICE = {
    2: "free memory of the GPU, or take fewer or smaller masks at a time",
    35: "update NVIDIA's driver, or build with a CUDA toolkit that is as old as it",
    100: "see whether nvidia-smi finds the GPU and CUDA_VISIBLE_DEVICES names it",
    209: "reinstall with TORCH_CUDA_ARCH_LIST naming this GPU's compute capability, such as 9.0",
}

_COMPLEMENT = 4  # the last kind of Combine in csrc/algebra.h


_Table = TypeVar("_Table", Tensor, Tensor | None)


class Operators:
    """Runs the functions of ``kernels.cuda``: addresses and sizes in, a status out."""

    def __init__(self, kernels: Any) -> None:
        self._native = kernels.cuda

    def _run(self, name: str, data: Tensor, *arguments: Any) -> None:
        """Call a launcher where ``data`` is, and check it."""
        status = self._launch(getattr(self._native, name), data, *arguments)
        if status < 0:
            raise_for(status)
        if status > 0:
            advice = _ADVICE.get(status)
            raise RuntimeError(
                f"CUDA error {status} in sa1b_fastdecode: {self._native.describe(status)}"
                + (f"; {advice}" if advice else "")
            )

    def _launch(self, launcher: Callable[..., int], data: Tensor, *arguments: Any) -> int:
        """Call a launcher on the device and the current stream of ``data``."""
        with torch.cuda.device(data.device):
            stream = torch.cuda.current_stream().cuda_stream
            return launcher(data.device.index, stream, *arguments)

    def decode(
        self, data: Tensor, num_masks: int, decode: Decode, out: Tensor | None, num_threads: int
    ) -> Tensor:
        """Decode into ``out``, or into a new tensor."""
        if out is None:
            out = data.new_empty(decode.shape, dtype=decode.dtype)
        *leading, height, _ = decode.shape
        images = NOT_GROUPED if decode.num_images is None else decode.num_images
        size = self._native.decode_workspace(data.numel(), num_masks, images)
        workspace = _workspace(size, data)
        planes, crops = on_device_of(data, decode.planes), on_device_of(data, decode.crops)
        self._run(
            "decode",
            data,
            *_block(data, num_masks),
            images,
            _address(planes),
            math.prod(leading),
            _address(crops),
            decode.resize,
            height,
            decode.width,
            out.data_ptr(),
            *decode.element,
            workspace.data_ptr(),
        )
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
        outputs = (_address(area), _address(bbox), _address(centroid))
        self._run("regions", data, *_block(data, num_masks), *outputs)

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
        out = data.new_zeros(shape, dtype=dtype)
        images, rows, columns = shape if len(shape) == 3 else (NOT_GROUPED, *shape)
        blocks = (*_block(data, num_masks), *_block(other, num_other), images)
        workspace = _workspace(self._native.pairs_workspace(*blocks), data)
        iscrowd = on_device_of(data, iscrowd)
        self._run(
            "pairwise",
            data,
            *blocks,
            rows,
            columns,
            _address(iscrowd),
            kind,
            out.data_ptr(),
            workspace.data_ptr(),
        )
        return out

    def intersecting_pairs(
        self, data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
    ) -> tuple[Tensor, Tensor]:
        """Return int64 (K, 2) and int64 (K,); waits once, to learn K."""
        _, indices, intersection = self._find_pairs(data, num_masks, other, num_other, num_images)
        return indices, intersection

    def _find_pairs(
        self, data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return how many pairs come before those of each mask, int64 (N + 1,), and the pairs."""
        images = NOT_GROUPED if num_images is None else num_images
        blocks = (*_block(data, num_masks), *_block(other, num_other), images)
        workspace = _workspace(self._native.pairs_workspace(*blocks), data)
        begins = data.new_empty(num_masks + 1, dtype=torch.int64)
        self._run("count_pairs", data, *blocks, begins.data_ptr(), workspace.data_ptr())
        found = int(begins[-1])
        indices = data.new_empty((found, 2), dtype=torch.int64)
        intersection = data.new_empty(found, dtype=torch.int64)
        self._run(
            "write_pairs",
            data,
            *blocks,
            found,
            indices.data_ptr(),
            intersection.data_ptr(),
            begins.data_ptr(),
            workspace.data_ptr(),
        )
        return begins, indices, intersection

    def encode(self, masks: Tensor, element: tuple[int, int], num_threads: int) -> Tensor:
        """Encode masks ``(N, H, W)`` or ``(H, W)``; waits once, to learn how much they take."""
        height, width = masks.shape[-2:]
        mask_stride, row_stride, column_stride = (
            element[0] * stride for stride in ((0,) * (3 - masks.dim()) + masks.stride())
        )
        num_masks = masks.shape[0] if masks.dim() == 3 else 1
        dense = (
            masks.data_ptr(),
            num_masks,
            height,
            width,
            mask_stride,
            row_stride,
            column_stride,
            *element,
        )
        workspace = _workspace(self._native.encode_workspace(*dense), masks)
        num_chars = masks.new_empty(1, dtype=torch.int64)
        addresses = (workspace.data_ptr(), num_chars.data_ptr())
        self._run("encode_measure", masks, *dense, *addresses)
        num_bytes = 8 * (3 * num_masks + 1) + int(num_chars)
        block = masks.new_empty(num_bytes, dtype=torch.uint8)
        self._run("encode_write", masks, *dense, workspace.data_ptr(), block.data_ptr())
        return block

    def boundary_area(self, data: Tensor, num_masks: int) -> Tensor:
        """Return int64 (N,)."""
        area = data.new_empty(num_masks, dtype=torch.int64)
        workspace = _workspace(self._native.sampling_workspace(data.numel(), num_masks), data)
        addresses = (area.data_ptr(), workspace.data_ptr())
        self._run("boundary_area", data, *_block(data, num_masks), *addresses)
        return area

    def pixels_at_ranks(self, data: Tensor, num_masks: int, ranks: Tensor, region: int) -> Tensor:
        """Return int64 (N, n, 2): x and y, -1 for a rank that no pixel of the region has."""
        points = data.new_empty((*ranks.shape, 2), dtype=torch.int64)
        workspace = _workspace(self._native.sampling_workspace(data.numel(), num_masks), data)
        there = on_device_of(data, ranks)
        self._run(
            "pixels_at_ranks",
            data,
            *_block(data, num_masks),
            region,
            _address(there),
            ranks.shape[1],
            points.data_ptr(),
            workspace.data_ptr(),
        )
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
        out = data.new_empty(shape, dtype=torch.int32)
        *grouped, height, width = shape
        images = grouped[0] if grouped else NOT_GROUPED
        size = self._native.decode_workspace(data.numel(), num_masks, images)
        workspace = _workspace(size, data)
        tables = on_device_of(data, order), on_device_of(data, labels)
        self._run(
            "paint_labels",
            data,
            *_block(data, num_masks),
            images,
            *map(_address, tables),
            background,
            height,
            width,
            out.data_ptr(),
            workspace.data_ptr(),
        )
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
        """Return bool (N,): which masks remain of those that better ones overlap too much.

        Waits once, to learn how many pairs of masks have pixels in common.
        """
        images = NOT_GROUPED if num_images is None else num_images
        pairs = self._find_pairs(data, num_masks, data, num_masks, num_images)
        area, ranks = (data.new_empty(num_masks, dtype=torch.int64) for _ in range(2))
        self.regions(data, num_masks, area, None, None)
        keep = data.new_empty(num_masks, dtype=torch.bool)
        tables = on_device_of(data, order), on_device_of(data, labels)
        self._run(
            "suppress",
            data,
            num_masks,
            len(pairs[-1]),
            *map(_address, (area, *pairs)),
            images,
            *map(_address, tables),
            metric,
            threshold,
            keep.data_ptr(),
            ranks.data_ptr(),
        )
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
        """Make a mask of each group of members; return the block.

        Waits once, to learn how much it takes; before that for tables that are on the device.
        """
        if kind not in range(_COMPLEMENT + 1):
            raise_for(BAD_PLANE)
        uses = _uses(members, group_offsets, num_masks + num_other)
        # No mask has more boundaries than characters.
        most = int(uses[:num_masks].max(initial=0)) * data.numel()
        most += int(uses[num_masks:].max(initial=0)) * other.numel()
        blocks = (*_block(data, num_masks), *_block(other, num_other))
        num_members, num_groups = members.numel(), group_offsets.numel() - 1
        size = self._native.combine_workspace(*blocks, num_members, most)
        workspace = _workspace(size, data)
        members_there, offsets_there = (on_device_of(data, x) for x in (members, group_offsets))
        boundaries = (
            data.new_empty(most, dtype=torch.uint32),
            data.new_empty(num_groups, dtype=torch.int64),
            data.new_empty(num_groups, dtype=torch.int64),
            data.new_empty((num_groups, 2), dtype=torch.int64),
        )
        status = data.new_empty((), dtype=torch.int64)
        self._run(
            "combine",
            data,
            *blocks,
            kind,
            _address(members_there),
            num_members,
            _address(offsets_there),
            num_groups,
            most,
            workspace.data_ptr(),
            *map(_address, boundaries),
            status.data_ptr(),
        )
        return self._compress(boundaries, kind == _COMPLEMENT, on_device_of(data, images), status)

    def split_labels(
        self, label_map: Tensor, background: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split maps ``(B, H, W)`` or ``(H, W)``: the block, its labels, how many each map has.

        Waits for the number of runs, of those that are not background, of labels, and of bytes.
        """
        *grouped, height, width = label_map.shape
        maps = label_map if grouped else label_map[None]
        runs = find_label_runs(maps, background)
        sizes = runs.begins.new_empty((len(runs.labels), 2))
        sizes[:, 0], sizes[:, 1] = height, width
        images = None
        if grouped:
            images = sizes.new_empty((len(maps), 3))
            images[:, 0], images[:, 1], images[:, 2] = runs.counts, height, width
        boundaries = (runs.positions, runs.begins, runs.ends, sizes)
        block = self._compress(boundaries, False, images, runs.status)
        return block, runs.labels, runs.counts

    def _compress(
        self,
        boundaries: tuple[Tensor, Tensor, Tensor, Tensor],
        inverted: bool,
        images: Tensor | None,
        status: Tensor,
    ) -> Tensor:
        """Make a block of positions, where those of each mask begin and end, and sizes.

        Waits once, to learn how much it takes, and what status the kernels before have left.
        """
        begins = boundaries[1]
        num_masks = len(begins)
        addresses = (*map(_address, boundaries), num_masks, inverted)
        char_begins = begins.new_empty(num_masks + 1)
        self._run("compress_measure", begins, *addresses, char_begins.data_ptr())
        num_chars, found = torch.stack([char_begins[-1], status]).tolist()
        raise_for(found)
        num_images = 0 if images is None else len(images)
        num_bytes = 8 * (3 * num_masks + 1 + 3 * num_images) + num_chars
        block = begins.new_empty(num_bytes, dtype=torch.uint8)
        self._run(
            "compress_write",
            begins,
            *addresses,
            char_begins.data_ptr(),
            _address(images),
            num_images,
            block.data_ptr(),
        )
        return block


def _uses(members: Tensor, group_offsets: Tensor, num_masks: int) -> Any:
    """Return how often each mask is a member; refuse tables that do not name groups of masks."""
    masks, offsets = members.flatten().cpu().numpy(), group_offsets.cpu().numpy()
    good = (
        offsets[0] == 0
        and offsets[-1] == len(masks)
        and (offsets[1:] > offsets[:-1]).all()
        and masks.min(initial=0) >= 0
        and masks.max(initial=-1) < num_masks
    )
    if not good:
        raise_for(BAD_PLANE)
    return np.bincount(masks)


def _block(data: Tensor, num_masks: int) -> tuple[int, int, int]:
    return data.data_ptr(), data.numel(), num_masks


def _workspace(num_bytes: int, beside: Tensor) -> Tensor:
    return beside.new_empty(num_bytes, dtype=torch.uint8)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def on_device_of(data: Tensor, table: _Table) -> _Table:
    """Return a small table where the batch is, without waiting for a copy from the CPU."""
    if table is None or table.device == data.device:
        return table
    if not table.is_cpu:
        return table.to(data.device)
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "select, crop, iscrowd, labels and what a generator of the CPU draws are copied from "
            "the host, which a CUDA graph cannot replay; make them before the capture, or capture "
            "without them"
        )
    return table.pin_memory().to(data.device, non_blocking=True)
