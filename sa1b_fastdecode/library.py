"""The operators as torch sees them: schemas, checks of arguments, fake kernels.

A batch reaches an operator as the block of bytes that ``RLEBatch`` holds (laid out in
``csrc/rle_format.h``) and its number of masks. What then runs, `dispatch` chooses by the device of
the block. Nothing links against torch, so one build serves every torch version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sa1b_fastdecode import dispatch
from sa1b_fastdecode.status import CONTAINMENT, INTERSECTION, IOU, MAX_PIXELS

# How an element inside a mask looks: bytes of an element, and its bits. Outside, all bits are zero.
ELEMENTS = {
    torch.uint8: (1, 1),
    torch.bool: (1, 1),
    torch.float16: (2, 0x3C00),
    torch.bfloat16: (2, 0x3F80),
    torch.float32: (4, 0x3F800000),
}
_PACKED = (0, 1)  # bits, not bytes

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

# No machine has more; below it sizes do not overflow on their way to the allocator.
_MAX_BYTES = 1 << 56

# From here on memory for the header of a block is no matter of course.
_MANY_MASKS = 1 << 20


class Decode(NamedTuple):
    """What `decode` writes: planes of ``width`` pixels, into a tensor of ``shape``.

    ``planes`` says which mask each shows, ``crops`` which window of it; see csrc/launch.h.
    """

    num_images: int | None
    planes: Tensor | None
    crops: Tensor | None
    resize: bool
    shape: Sequence[int]
    width: int
    dtype: torch.dtype
    element: tuple[int, int]


# All arguments are positional: a keyword costs the dispatcher almost a microsecond.
_library: Any = torch.library.Library("sa1b_fastdecode", "DEF")  # type: ignore[no-untyped-call]


def _register(schema: str, real: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in ("CPU", "CUDA"):
        _library.impl(name, real, device)
    torch.library.register_fake(f"sa1b_fastdecode::{name}", fake, lib=_library)


def check_data(data: Tensor) -> None:
    """Raise ValueError for what cannot be the block of an RLEBatch."""
    if data.dtype != torch.uint8 or data.dim() != 1 or not data.is_contiguous():
        raise ValueError("data must be the contiguous one-dimensional uint8 block of an RLEBatch")


def _check_blocks(data: Tensor, other: Tensor) -> None:
    check_data(data)
    check_data(other)
    if other.device != data.device:
        raise ValueError(f"the blocks are on different devices, {data.device}, {other.device}")


def _check_table(
    table: Tensor | None, size: int, dtype: torch.dtype, data: Tensor, what: str
) -> None:
    """Raise ValueError for what is no table of that size on the CPU or beside the block."""
    if table is None:
        return
    if table.dtype != dtype or not table.is_contiguous() or table.numel() != size:
        raise ValueError(f"{what} must be {size} contiguous values of {dtype}")
    _check_places(data, table)


def address_of(values: Tensor, dtype: torch.dtype, numel: int) -> int:
    """Return where that many values of a type lie on the CPU, one behind the other."""
    if values.dtype != dtype or not values.is_contiguous() or values.numel() != numel:
        raise ValueError(f"expected {numel} contiguous values of {dtype}")
    if values.device.type != "cpu":
        raise ValueError(f"expected values on the CPU, not on {values.device}")
    return values.data_ptr()


def cpu_kernels(data: Tensor) -> Any:
    """Return the kernels for an operator that only the CPU has.

    Raises:
        RuntimeError: ``data`` is elsewhere.
    """
    if data.device.type != "cpu":
        raise RuntimeError(f"this is done on the CPU only, not on {data.device}; use .cpu()")
    return dispatch.kernels("cpu")


def _check_places(data: Tensor, *tables: Tensor | None) -> None:
    """Refuse a meta tensor beside real ones too: torch would take the fake kernel for the real."""
    for table in tables:
        if table is not None and table.device not in (data.device, torch.device("cpu")):
            raise ValueError(f"expected a table on the CPU or on {data.device}, not {table.device}")


def _check_bytes(shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raise MemoryError for a result of more bytes than an allocator can be asked for."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or num_bytes > _MAX_BYTES:
        raise MemoryError(f"a result of {tuple(shape)} would take {num_bytes} bytes")


def _decode_into(
    data: Tensor, num_masks: int, decode: Decode, out: Tensor | None, num_threads: int
) -> Tensor:
    check_data(data)
    shape, num_images = decode.shape, decode.num_images
    num_planes = math.prod(shape[:-2])
    _check_bytes(shape, decode.dtype)
    _check_table(decode.planes, num_planes, torch.int64, data, "planes")
    _check_table(decode.crops, 4 * num_planes, torch.int64, data, "crops")
    if num_images is not None and (len(shape) != 4 or shape[0] != num_images):
        raise ValueError(f"{num_images} images cannot have the shape {tuple(shape)}")
    operators = dispatch.operators(data.device.type)
    decoded: Tensor = operators.decode(data, num_masks, decode, out, num_threads)
    return decoded


def _decode(
    data: Tensor,
    num_masks: int,
    num_images: int | None,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    dtype: torch.dtype,
    num_threads: int,
) -> Tensor:
    if dtype not in ELEMENTS:
        raise ValueError(f"dtype {dtype} is not supported")
    what = (num_images, planes, crops, resize, shape, shape[-1], dtype, ELEMENTS[dtype])
    return _decode_into(data, num_masks, Decode(*what), None, num_threads)


def _decode_fake(
    data: Tensor,
    num_masks: int,
    num_images: int | None,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    dtype: torch.dtype,
    num_threads: int,
) -> Tensor:
    _check_places(data, planes, crops)
    return data.new_empty(shape, dtype=dtype)


def _decode_out(
    data: Tensor,
    num_masks: int,
    num_images: int | None,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    out: Tensor,
    num_threads: int,
) -> None:
    if not out.is_contiguous() or out.dim() < 2 or out.dtype not in ELEMENTS:
        raise ValueError("out must be contiguous, of two dimensions or more and a supported dtype")
    if out.device != data.device:
        raise ValueError(f"out is on {out.device}, the batch is on {data.device}")
    if not out.is_inference():
        # What autograd saved of it is no longer there; backward must say so.
        torch.autograd.graph.increment_version(out)
    shape, dtype = out.shape, out.dtype
    what = (num_images, planes, crops, resize, shape, shape[-1], dtype, ELEMENTS[dtype])
    _decode_into(data, num_masks, Decode(*what), out, num_threads)


def _decode_out_fake(data: Tensor, num_masks: int, num_images: int | None, *rest: Any) -> None:
    planes, crops, *_ = rest
    _check_places(data, planes, crops)


def _packed(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape[:-1], (shape[-1] + 7) // 8)


def _decode_bits(
    data: Tensor,
    num_masks: int,
    num_images: int | None,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    num_threads: int,
) -> Tensor:
    what = (num_images, planes, crops, resize, _packed(shape), shape[-1], torch.uint8, _PACKED)
    return _decode_into(data, num_masks, Decode(*what), None, num_threads)


def _decode_bits_fake(
    data: Tensor,
    num_masks: int,
    num_images: int | None,
    planes: Tensor | None,
    crops: Tensor | None,
    resize: bool,
    shape: Sequence[int],
    num_threads: int,
) -> Tensor:
    _check_places(data, planes, crops)
    return data.new_empty(_packed(shape), dtype=torch.uint8)


def _region(index: int, columns: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the real and the fake kernel for output ``index`` of the ``regions`` kernel."""

    def empty(data: Tensor, num_masks: int) -> Tensor:
        shape = (num_masks, columns) if columns > 1 else (num_masks,)
        return data.new_empty(shape, dtype=dtype)

    def real(data: Tensor, num_masks: int) -> Tensor:
        check_data(data)
        outputs: list[Tensor | None] = [None, None, None]
        outputs[index] = out = empty(data, num_masks)
        dispatch.operators(data.device.type).regions(data, num_masks, *outputs)
        return out

    return real, empty


def check_masks(masks: Tensor) -> None:
    """Raise TypeError or ValueError for a tensor that cannot hold masks."""
    if masks.dtype not in VALUES:
        raise TypeError(f"masks must be bool, integers or floats, not {masks.dtype}")
    if masks.dim() not in (2, 3):
        raise ValueError(f"masks must have shape (N, H, W) or (H, W), not {tuple(masks.shape)}")


def check_shape(shape: Sequence[int]) -> None:
    """Raise ValueError for a size that no mask has, MemoryError for too many masks."""
    *leading, height, width = shape
    num_masks = math.prod(leading)
    if num_masks > _MANY_MASKS:  # expanded; fail before the work
        bytearray(min(24 * num_masks, _MAX_BYTES))
    if max(height, width, height * width) > MAX_PIXELS:
        raise ValueError(f"masks are {height}x{width}; a mask has fewer than 2**32 pixels")


def _encode(masks: Tensor, num_threads: int) -> Tensor:
    check_masks(masks)
    check_shape(masks.shape)
    block: Tensor = dispatch.operators(masks.device.type).encode(
        masks, VALUES[masks.dtype], num_threads
    )
    return block


def _encode_fake(masks: Tensor, num_threads: int) -> Tensor:
    check_masks(masks)
    num_bytes = torch.library.get_ctx().new_dynamic_size(min=8)
    return masks.new_empty((num_bytes,), dtype=torch.uint8)


def _pairwise(kind: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the real and the fake kernel for one kind of ``Pairwise`` in csrc/launch.h."""

    def real(data: Tensor, num_masks: int, other: Tensor, num_other: int, *rest: Any) -> Tensor:
        *crowd, shape = rest
        iscrowd = crowd[0] if crowd else None
        _check_blocks(data, other)
        _check_table(iscrowd, num_other, torch.bool, data, "iscrowd")
        if len(shape) == 2 and tuple(shape) != (num_masks, num_other):
            raise ValueError(f"expected a shape of {num_masks}x{num_other}, not {tuple(shape)}")
        _check_bytes(shape, dtype)
        out: Tensor = dispatch.operators(data.device.type).pairwise(
            data, num_masks, other, num_other, shape, iscrowd, kind, dtype
        )
        return out

    def fake(data: Tensor, num_masks: int, other: Tensor, num_other: int, *rest: Any) -> Tensor:
        *crowd, shape = rest
        _check_places(data, other, *crowd)
        return data.new_empty(shape, dtype=dtype)

    return real, fake


def _intersecting_pairs(
    data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
) -> tuple[Tensor, Tensor]:
    _check_blocks(data, other)
    if num_images is not None and num_images < 0:
        raise ValueError(f"num_images must not be negative, but is {num_images}")
    pairs: tuple[Tensor, Tensor] = dispatch.operators(data.device.type).intersecting_pairs(
        data, num_masks, other, num_other, num_images
    )
    return pairs


def _intersecting_pairs_fake(
    data: Tensor, num_masks: int, other: Tensor, num_other: int, num_images: int | None
) -> tuple[Tensor, Tensor]:
    _check_places(data, other)
    found = torch.library.get_ctx().new_dynamic_size()
    return data.new_empty((found, 2), dtype=torch.int64), data.new_empty(found, dtype=torch.int64)


_register(
    "decode(Tensor data, SymInt num_masks, SymInt? num_images, Tensor? planes, Tensor? crops, "
    "bool resize, SymInt[] shape, ScalarType dtype, int num_threads) -> Tensor",
    _decode,
    _decode_fake,
)
_register(
    "decode_out(Tensor data, SymInt num_masks, SymInt? num_images, Tensor? planes, Tensor? crops, "
    "bool resize, Tensor(a!) out, int num_threads) -> ()",
    _decode_out,
    _decode_out_fake,
)
_register(
    "decode_bits(Tensor data, SymInt num_masks, SymInt? num_images, Tensor? planes, "
    "Tensor? crops, bool resize, SymInt[] shape, int num_threads) -> Tensor",
    _decode_bits,
    _decode_bits_fake,
)
_register("area(Tensor data, SymInt num_masks) -> Tensor", *_region(0, 1, torch.int64))
_register("bbox(Tensor data, SymInt num_masks) -> Tensor", *_region(1, 4, torch.float32))
_register("centroid(Tensor data, SymInt num_masks) -> Tensor", *_region(2, 2, torch.float32))
_register("encode(Tensor masks, int num_threads) -> Tensor", _encode, _encode_fake)

_PAIR = "Tensor data, SymInt num_masks, Tensor other, SymInt num_other"
_register(f"intersection({_PAIR}, SymInt[] shape) -> Tensor", *_pairwise(INTERSECTION, torch.int64))
_register(
    f"iou({_PAIR}, Tensor? iscrowd, SymInt[] shape) -> Tensor", *_pairwise(IOU, torch.float32)
)
_register(f"containment({_PAIR}, SymInt[] shape) -> Tensor", *_pairwise(CONTAINMENT, torch.float32))
_register(
    f"intersecting_pairs({_PAIR}, SymInt? num_images) -> (Tensor, Tensor)",
    _intersecting_pairs,
    _intersecting_pairs_fake,
)
