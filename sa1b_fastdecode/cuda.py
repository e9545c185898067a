"""The compiled CUDA kernels, called with tensors.

Every call allocates its output and workspace from torch's caching allocator and runs on the current
stream of the device that the batch is on. Nothing here waits for the GPU, except where a result is
as long as it turns out to be: encoding, and lists of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_NOT_GROUPED = -1


class Kernels:
    """Runs the functions of ``_C.cuda``: addresses and sizes in, a status out."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def _run(self, name: str, data: Tensor, *arguments: Any) -> None:
        """Call a launcher on the device and the current stream of ``data``, and check it."""
        launcher = getattr(self._native, name)
        if data.is_cuda:
            with torch.cuda.device(data.device):
                stream = torch.cuda.current_stream().cuda_stream
                status = launcher(data.device.index, stream, *arguments)
        else:  # kernels that run on the CPU, as they do in tests
            status = launcher(0, 0, *arguments)
        if status < 0:
            raise ValueError("data does not hold the sizes and offsets of that many masks")
        if status > 0:
            raise RuntimeError(
                f"CUDA error {status} in sa1b_fastdecode: {self._native.describe(status)}"
            )

    def decode(
        self,
        data: Tensor,
        num_masks: int,
        num_images: int | None,
        planes: Tensor | None,
        crops: Tensor | None,
        resize: bool,
        shape: Sequence[int],
        item_size: int,
        one: int,
        out: Tensor,
    ) -> None:
        """Decode into ``out``, whose last two dimensions are the planes' height and width."""
        *leading, height, width = shape
        images = _NOT_GROUPED if num_images is None else num_images
        size = self._native.decode_workspace(data.numel(), num_masks, images)
        workspace = _workspace(size, data)
        planes, crops = _on_device_of(data, planes), _on_device_of(data, crops)
        num_planes = 1
        for side in leading:
            num_planes *= side
        self._run(
            "decode",
            data,
            *_block(data, num_masks),
            images,
            _address(planes),
            num_planes,
            _address(crops),
            resize,
            height,
            width,
            out.data_ptr(),
            item_size,
            one,
            workspace.data_ptr(),
        )

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
        out: Tensor,
    ) -> None:
        """Write into ``out`` of zeros what is not zero; kinds as in csrc/launch.h."""
        images, rows, columns = shape if len(shape) == 3 else (_NOT_GROUPED, *shape)
        blocks = (*_block(data, num_masks), *_block(other, num_other), images)
        workspace = _workspace(self._native.pairs_workspace(*blocks), data)
        iscrowd = _on_device_of(data, iscrowd)
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

    def intersecting_pairs(
        self, data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
    ) -> tuple[Tensor, Tensor]:
        """Return int64 (K, 2) and int64 (K,); waits once, to learn K."""
        images = _NOT_GROUPED if num_images is None else num_images
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
        return indices, intersection


def _block(data: Tensor, num_masks: int) -> tuple[int, int, int]:
    return data.data_ptr(), data.numel(), num_masks


def _workspace(num_bytes: int, data: Tensor) -> Tensor:
    return data.new_empty(num_bytes)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _on_device_of(data: Tensor, table: Tensor | None) -> Tensor | None:
    """Return a small table where the batch is, without waiting for the copy."""
    if table is None or table.device == data.device:
        return table
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "select, crop and iscrowd are copied from the host, which a CUDA graph cannot replay; "
            "make them before the capture, or capture without them"
        )
    return table.pin_memory().to(data.device, non_blocking=True)
