"""The operators as torch sees them: schemas, CPU kernels and fake kernels.

A batch reaches an operator as the block of bytes that ``RLEBatch`` holds (laid out in
``csrc/rle_format.h``) and its number of masks. Outputs are allocated here; the kernels get
addresses. Nothing links against torch, so one build serves every torch version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode import dispatch

# How an element inside a mask looks: bytes of an element, and its bits. Outside, all bits are zero.
ELEMENTS = {
    torch.uint8: (1, 1),
    torch.bool: (1, 1),
    torch.float16: (2, 0x3C00),
    torch.bfloat16: (2, 0x3F80),
    torch.float32: (4, 0x3F800000),
}

# What `encode` reads: bytes of an element, and those of its bits that make it foreground. A float's
# sign is none of them, so -0.0 is background.
VALUES = {
    torch.bool: (1, 0xFF),
    torch.uint8: (1, 0xFF),
    torch.int8: (1, 0xFF),
    torch.uint16: (2, 0xFFFF),
    torch.int16: (2, 0xFFFF),
    torch.uint32: (4, 0xFFFF_FFFF),
    torch.int32: (4, 0xFFFF_FFFF),
    torch.uint64: (8, 0xFFFF_FFFF_FFFF_FFFF),
    torch.int64: (8, 0xFFFF_FFFF_FFFF_FFFF),
    torch.float16: (2, 0x7FFF),
    torch.bfloat16: (2, 0x7FFF),
    torch.float32: (4, 0x7FFF_FFFF),
    torch.float64: (8, 0x7FFF_FFFF_FFFF_FFFF),
}

# Outputs from this size on get memory of their own from the kernels: fresh pages that read as zero,
# of which only those inside a mask's box are ever written.
_FRESH_BYTES = 4 << 20

# No machine has more; below it sizes do not overflow on their way to the allocator.
_MAX_BYTES = 1 << 56

# From here on memory for the header of a block is no matter of course.
_MANY_MASKS = 1 << 20

# Status codes of csrc/launch.h.
_OK, _BAD_HEADER, _BAD_PLANE, _BAD_WINDOW = -1, -2, -3, -4

# All arguments are positional: a keyword costs the dispatcher almost a microsecond.
_library = torch.library.Library("sa1b_fastdecode", "DEF")


def _register(schema: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, cpu, "CPU")
    torch.library.register_fake(f"sa1b_fastdecode::{name}", fake, lib=_library)


def check_data(data: Tensor) -> None:
    """Raise ValueError for what cannot be the block of an RLEBatch."""
    if data.dtype != torch.uint8 or data.dim() != 1 or not data.is_contiguous():
        raise ValueError("data must be the contiguous one-dimensional uint8 block of an RLEBatch")


def _address(table: Tensor | None, rows: int, columns: int) -> int:
    """Return the address of an int64 table, 0 for none."""
    if table is None:
        return 0
    if table.dtype != torch.int64 or not table.is_contiguous() or table.numel() != rows * columns:
        raise ValueError(f"expected a contiguous int64 table of {rows}x{columns} values")
    if table.device.type != "cpu":
        raise ValueError(f"expected a table on the CPU, not on {table.device}")
    return table.data_ptr()


def raise_for(status: int) -> None:
    """Raise what a kernel's status stands for, if it is not that all went well."""
    if status == _OK:
        return
    if status == _BAD_PLANE:
        raise IndexError("an index is out of range for the masks of the batch")
    if status == _BAD_WINDOW:
        raise ValueError("a crop does not lie inside its mask, or a mask does not fit the output")
    raise ValueError("data does not hold the sizes and offsets of that many masks")


def _run_decode(
    data: Tensor,
    num_masks: int,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    dtype: torch.dtype,
    out: Tensor,
    fresh: bool,
    num_threads: int,
) -> None:
    check_data(data)
    *leading, height, width = shape
    num_planes = math.prod(leading)
    item_size, one = ELEMENTS[dtype]
    status = dispatch.kernels("cpu").decode(
        data.data_ptr(),
        data.numel(),
        num_masks,
        _address(planes, num_planes, 1),
        num_planes,
        _address(crops, num_planes, 4),
        resize,
        height,
        width,
        out.data_ptr(),
        item_size,
        one,
        fresh,
        num_threads or torch.get_num_threads(),
    )
    raise_for(status)


def _decode(
    data: Tensor,
    num_masks: int,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    dtype: torch.dtype,
    num_threads: int,
) -> Tensor:
    if dtype not in ELEMENTS:
        raise ValueError(f"dtype {dtype} is not supported")
    num_bytes = math.prod(shape) * ELEMENTS[dtype][0]
    if num_bytes > _MAX_BYTES:
        raise MemoryError(f"the decoded batch would take {num_bytes} bytes")
    fresh = num_bytes >= _FRESH_BYTES
    if fresh:
        pages = dispatch.kernels("cpu").ZeroPages(num_bytes)
        out = torch.frombuffer(pages, dtype=dtype).view(shape)
    else:
        out = torch.empty(*shape, dtype=dtype, device="cpu")
    _run_decode(
        data, num_masks, planes, crops, resize, shape, dtype, out, fresh, num_threads
    )
    return out


def _check_same_device(data: Tensor, *tables: Tensor | None) -> None:
    """Refuse a meta tensor beside real ones: torch would take the fake kernel for the real one."""
    if any(table is not None and table.device != data.device for table in tables):
        raise ValueError(f"tables must be on the device of the batch, {data.device}")


def _decode_fake(
    data: Tensor,
    num_masks: int,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    dtype: torch.dtype,
    num_threads: int,
) -> Tensor:
    _check_same_device(data, planes, crops)
    return data.new_empty(shape, dtype=dtype)


def _decode_out(
    data: Tensor,
    num_masks: int,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    out: Tensor,
    num_threads: int,
) -> None:
    if not out.is_contiguous() or out.dim() < 2 or out.dtype not in ELEMENTS:
        raise ValueError("out must be contiguous, of two dimensions or more and a supported dtype")
    _run_decode(
        data, num_masks, planes, crops, resize, out.shape, out.dtype, out, False, num_threads
    )


def _region(index: int, columns: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the CPU and the fake kernel for output ``index`` of the ``regions`` kernel."""

    def shape(num_masks: int) -> tuple[int, ...]:
        return (num_masks, columns) if columns > 1 else (num_masks,)

    def cpu(data: Tensor, num_masks: int) -> Tensor:
        check_data(data)
        out = torch.empty(shape(num_masks), dtype=dtype, device="cpu")
        addresses = [0, 0, 0]
        addresses[index] = out.data_ptr()
        status = dispatch.kernels("cpu").regions(
            data.data_ptr(), data.numel(), num_masks, *addresses, torch.get_num_threads()
        )
        raise_for(status)
        return out

    def fake(data: Tensor, num_masks: int) -> Tensor:
        return data.new_empty(shape(num_masks), dtype=dtype)

    return cpu, fake


def encode_memory(
    address: int,
    shape: Sequence[int],
    strides: Sequence[int],
    item_size: int,
    value_bits: int,
    num_threads: int,
) -> Tensor:
    """Encode masks ``(N, H, W)`` or ``(H, W)`` that lie at an address; strides are in bytes."""
    height, width = shape[-2:]
    num_masks, mask_stride = (shape[0], strides[0]) if len(shape) == 3 else (1, 0)
    if num_masks > _MANY_MASKS:
        # An expanded tensor may show more masks than memory holds: then fail before the work.
        bytearray(min(24 * num_masks, _MAX_BYTES))
    block = dispatch.kernels("cpu").encode(
        address,
        num_masks,
        height,
        width,
        mask_stride,
        *strides[-2:],
        item_size,
        value_bits,
        num_threads or torch.get_num_threads(),
    )
    if block is None:
        raise ValueError(f"masks are {height}x{width}; a mask has fewer than 2**32 pixels")
    return torch.frombuffer(block, dtype=torch.uint8)


def check_masks(masks: Tensor) -> None:
    """Raise TypeError or ValueError for a tensor that cannot hold masks."""
    if masks.dtype not in VALUES:
        raise TypeError(f"masks must be bool, integers or floats, not {masks.dtype}")
    if masks.dim() not in (2, 3):
        raise ValueError(f"masks must have shape (N, H, W) or (H, W), not {tuple(masks.shape)}")


def _encode(masks: Tensor, num_threads: int) -> Tensor:
    check_masks(masks)
    item_size, value_bits = VALUES[masks.dtype]
    strides = [item_size * stride for stride in masks.stride()]
    return encode_memory(masks.data_ptr(), masks.shape, strides, item_size, value_bits, num_threads)


def _encode_fake(masks: Tensor, num_threads: int) -> Tensor:
    check_masks(masks)
    num_bytes = torch.library.get_ctx().new_dynamic_size(min=8)
    return masks.new_empty((num_bytes,), dtype=torch.uint8)


_register("encode(Tensor masks, int num_threads) -> Tensor", _encode, _encode_fake)
_register(
    "decode(Tensor data, SymInt num_masks, Tensor? planes, Tensor? crops, bool resize, "
    "SymInt[] shape, ScalarType dtype, int num_threads) -> Tensor",
    _decode,
    _decode_fake,
)
_register(
    "decode_out(Tensor data, SymInt num_masks, Tensor? planes, Tensor? crops, bool resize, "
    "Tensor(a!) out, int num_threads) -> ()",
    _decode_out,
    lambda data, num_masks, planes, crops, *rest: _check_same_device(data, planes, crops),
)
_register("area(Tensor data, SymInt num_masks) -> Tensor", *_region(0, 1, torch.int64))
_register("bbox(Tensor data, SymInt num_masks) -> Tensor", *_region(1, 4, torch.float32))
_register("centroid(Tensor data, SymInt num_masks) -> Tensor", *_region(2, 2, torch.float32))
