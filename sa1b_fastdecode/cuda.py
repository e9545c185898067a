"""The compiled CUDA kernels, called with tensors.

Every call allocates its output and workspace from torch's caching allocator and runs on the current
stream of the device that the batch is on. Nothing here waits for the GPU, except where a result is
as long as it turns out to be: encoding, and lists of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode.status import NOT_GROUPED, raise_for


class Operators:
    """Runs the functions of ``kernels.cuda``: addresses and sizes in, a status out."""

    def __init__(self, kernels: Any) -> None:
        self._native = kernels.cuda

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
            raise_for(status)
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
        dtype: torch.dtype,
        element: tuple[int, int],
        out: Tensor | None,
        num_threads: int,
    ) -> Tensor:
        """Decode into ``out``, or into a new tensor of ``shape``."""
        if out is None:
            out = data.new_empty(shape, dtype=dtype)
        *leading, height, width = shape
        images = NOT_GROUPED if num_images is None else num_images
        size = self._native.decode_workspace(data.numel(), num_masks, images)
        workspace = _workspace(size, data)
        planes, crops = _on_device_of(data, planes), _on_device_of(data, crops)
        self._run(
            "decode",
            data,
            *_block(data, num_masks),
            images,
            _address(planes),
            math.prod(leading),
            _address(crops),
            resize,
            height,
            width,
            out.data_ptr(),
            *element,
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
        return out

    def intersecting_pairs(
        self, data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
    ) -> tuple[Tensor, Tensor]:
        """Return int64 (K, 2) and int64 (K,); waits once, to learn K."""
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
