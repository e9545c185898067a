"""The operators as torch sees them: schemas, CPU kernels and fake kernels.

A batch reaches an operator as the block of bytes that ``RLEBatch`` holds (laid out in
``csrc/rle_format.h``) and its number of masks. Outputs are allocated here; the kernels get
addresses. Nothing links against torch, so one build serves every torch version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
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

# Outputs from this size on get their memory from the kernels' ZeroPages: it reads as zero, so that
# only what lies inside a mask's box is ever written.
_FRESH_BYTES = 4 << 20

# No machine has more; below it sizes do not overflow on their way to the allocator.
_MAX_BYTES = 1 << 56

# From here on memory for the header of a block is no matter of course.
_MANY_MASKS = 1 << 20

# Status codes of csrc/launch.h.
_OK, _BAD_HEADER, _BAD_PLANE, _BAD_WINDOW, _MIXED_SIZES = -1, -2, -3, -4, -6

_NOT_GROUPED = -1

# Room for that many pairs, never touched unless they are found: 400 MB of addresses. More than that
# are found twice, the first time to count them.
_MOST_PAIRS = 1 << 24

# All arguments are positional: a keyword costs the dispatcher almost a microsecond.
_library: Any = torch.library.Library("sa1b_fastdecode", "DEF")  # type: ignore[no-untyped-call]


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


def address_of(values: Tensor, dtype: torch.dtype, numel: int) -> int:
    """Return where that many values of a type lie on the CPU, one behind the other."""
    if values.dtype != dtype or not values.is_contiguous() or values.numel() != numel:
        raise ValueError(f"expected {numel} contiguous values of {dtype}")
    if values.device.type != "cpu":
        raise ValueError(f"expected values on the CPU, not on {values.device}")
    return values.data_ptr()


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
    _run_decode(data, num_masks, planes, crops, resize, shape, dtype, out, fresh, num_threads)
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
    if not out.is_inference():
        # What autograd saved of it is no longer there; backward must say so.
        torch.autograd.graph.increment_version(out)
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


def _pairwise(kind: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the CPU and the fake kernel for one kind of ``Pairwise`` in csrc/launch.h."""

    def cpu(
        data: Tensor,
        num_masks: int,
        other: Tensor,
        num_other: int,
        *rest: Any,
    ) -> Tensor:
        *crowd, shape = rest
        check_data(data)
        check_data(other)
        num_images, rows, columns = shape if len(shape) == 3 else (_NOT_GROUPED, *shape)
        if num_images == _NOT_GROUPED and (rows, columns) != (num_masks, num_other):
            raise ValueError(f"expected a shape of {num_masks}x{num_other}, not {rows}x{columns}")
        num_bytes = math.prod(shape) * dtype.itemsize
        if min(shape) < 0 or num_bytes > _MAX_BYTES:
            raise MemoryError(f"a result of {tuple(shape)} would take {num_bytes} bytes")
        if num_bytes >= _FRESH_BYTES:  # most pairs of many masks have nothing in common
            pages = dispatch.kernels("cpu").ZeroPages(num_bytes)
            out = torch.frombuffer(pages, dtype=dtype).view(shape)
        else:
            out = torch.zeros(shape, dtype=dtype, device="cpu")
        status = dispatch.kernels("cpu").pairwise(
            data.data_ptr(),
            data.numel(),
            num_masks,
            other.data_ptr(),
            other.numel(),
            num_other,
            num_images,
            rows,
            columns,
            _crowd_address(crowd[0], num_other) if crowd else 0,
            kind,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        _raise_for_pairs(status, data, num_masks, other, num_other, num_images)
        return out

    def fake(data: Tensor, num_masks: int, other: Tensor, num_other: int, *rest: Any) -> Tensor:
        *crowd, shape = rest
        _check_same_device(data, other, *crowd)
        return data.new_empty(shape, dtype=dtype)

    return cpu, fake


def _crowd_address(iscrowd: Tensor | None, num_other: int) -> int:
    if iscrowd is None:
        return 0
    if iscrowd.dtype != torch.bool or not iscrowd.is_contiguous() or iscrowd.numel() != num_other:
        raise ValueError(f"expected {num_other} contiguous bools as iscrowd")
    if iscrowd.device.type != "cpu":
        raise ValueError(f"expected iscrowd on the CPU, not on {iscrowd.device}")
    return iscrowd.data_ptr()


def _intersecting_pairs(
    data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
) -> tuple[Tensor, Tensor]:
    check_data(data)
    check_data(other)
    if num_images is not None and num_images < 0:
        raise ValueError(f"num_images must not be negative, but is {num_images}")
    images = _NOT_GROUPED if num_images is None else num_images
    capacity = min(max(num_masks, 0) * max(num_other, 0), _MOST_PAIRS)
    while True:
        indices = np.empty((capacity, 2), np.int64)
        intersection = np.empty(capacity, np.int64)
        found = dispatch.kernels("cpu").intersecting_pairs(
            data.data_ptr(),
            data.numel(),
            num_masks,
            other.data_ptr(),
            other.numel(),
            num_other,
            images,
            capacity,
            indices.ctypes.data,
            intersection.ctypes.data,
            torch.get_num_threads(),
        )
        if found < 0:
            _raise_for_pairs(found, data, num_masks, other, num_other, images)
        if found <= capacity:
            break
        del indices, intersection  # before more room is made
        capacity = found
    indices, intersection = indices[:found], intersection[:found]
    if indices.nbytes < _FRESH_BYTES:  # not worth holding on to the room that nobody needed
        indices, intersection = indices.copy(), intersection.copy()
    return torch.from_numpy(indices), torch.from_numpy(intersection)


def _intersecting_pairs_fake(
    data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
) -> tuple[Tensor, Tensor]:
    _check_same_device(data, other)
    found = torch.library.get_ctx().new_dynamic_size()
    return data.new_empty((found, 2), dtype=torch.int64), data.new_empty(found, dtype=torch.int64)


def _raise_for_pairs(
    status: int, data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int
) -> None:
    """As ``raise_for``; where sizes differ, name two masks that cannot be compared."""
    if status != _MIXED_SIZES:
        raise_for(status)
        return
    grouped = num_images != _NOT_GROUPED
    begins = [0, 0]
    tables = []  # sizes of the masks of both batches, and how many of them each image has
    for block, n in ((data, num_masks), (other, num_other)):
        words = 3 * n + 1 + (3 * num_images if grouped else 0)
        header = block[: 8 * words].view(torch.int64).tolist()
        sizes = list(zip(header[: 2 * n : 2], header[1 : 2 * n : 2], strict=True))
        first = 3 * n + 1
        tables.append((sizes, header[first : first + 3 * num_images : 3] if grouped else [n]))
    for image, counts in enumerate(zip(tables[0][1], tables[1][1], strict=True)):
        named = [
            (f"mask {k}{of}", sizes[begin + k])
            for (sizes, _), begin, count, of in zip(
                tables, begins, counts, ("", " of other"), strict=True
            )
            for k in range(count)
        ]
        begins = [begin + count for begin, count in zip(begins, counts, strict=True)]
        another = next((mask for mask in named if mask[1] != named[0][1]), None)
        if another and min(counts) > 0:
            (name, (h, w)), (other_name, (other_h, other_w)) = named[0], another
            where = f"image {image}: " if grouped else ""
            raise ValueError(
                f"{where}masks of different sizes cannot be compared: {name} is {h}x{w}, "
                f"{other_name} is {other_h}x{other_w}"
            )


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

_PAIR = "Tensor data, SymInt num_masks, Tensor other, SymInt num_other"
_register(f"intersection({_PAIR}, SymInt[] shape) -> Tensor", *_pairwise(0, torch.int64))
_register(f"iou({_PAIR}, Tensor? iscrowd, SymInt[] shape) -> Tensor", *_pairwise(1, torch.float32))
_register(f"containment({_PAIR}, SymInt[] shape) -> Tensor", *_pairwise(2, torch.float32))
_register(
    f"intersecting_pairs({_PAIR}, SymInt? num_images) -> (Tensor, Tensor)",
    _intersecting_pairs,
    _intersecting_pairs_fake,
)
