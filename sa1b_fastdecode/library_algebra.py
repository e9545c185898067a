"""The operators that make masks of masks as torch sees them; see library.py."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode import dispatch
from sa1b_fastdecode.library import (
    _check_blocks,
    _check_places,
    _check_table,
    _register,
    check_data,
    cpu_kernels,
)
from sa1b_fastdecode.status import BAD_SHAPE, BAD_WINDOW, MixedSizesError, raise_for

# Kinds of `Combine` in csrc/algebra.h.
UNION, INTERSECTION, XOR, DIFFERENCE, COMPLEMENT = range(5)


def _images_at(images: Tensor | None, data: Tensor) -> tuple[int, int]:
    """Return the address of a table (B,3) and B, zeros for none."""
    if images is None:
        return 0, 0
    _check_table(images, 3 * len(images), torch.int64, data, "images")
    return images.data_ptr(), len(images)


def _to_data(result: Any) -> Tensor:
    """Return the block that a kernel made, or raise what its status stands for."""
    if not isinstance(result, int):
        return torch.frombuffer(result, dtype=torch.uint8)
    if result == BAD_SHAPE:
        raise ValueError("a mask has fewer than 2**32 pixels, and no side below 0")
    if result == BAD_WINDOW:
        raise ValueError("a window is too far away, or a side of it is below 0")
    raise_for(result)
    raise AssertionError("a kernel returned neither a block nor an error")


def _combine(
    data: Tensor,
    num_masks: int,
    other: Tensor,
    num_other: int,
    members: Tensor,
    group_offsets: Tensor,
    images: Tensor | None,
    kind: int,
) -> Tensor:
    _check_blocks(data, other)
    num_groups = group_offsets.numel() - 1
    if num_groups < 0:
        raise ValueError("group_offsets must hold one number more than there are groups")
    _check_table(members, members.numel(), torch.int64, data, "members")
    _check_table(group_offsets, num_groups + 1, torch.int64, data, "group_offsets")
    if images is not None:
        _check_table(images, 3 * len(images), torch.int64, data, "images")
    operators = dispatch.operators(data.device.type)
    blocks = (data, num_masks, other, num_other)
    try:
        block: Tensor = operators.combine(*blocks, members, group_offsets, images, kind)
    except MixedSizesError:
        _raise_mixed_sizes(*blocks, members, group_offsets)
        raise
    return block


def _raise_mixed_sizes(
    data: Tensor,
    num_masks: int,
    other: Tensor,
    num_other: int,
    members: Tensor,
    group_offsets: Tensor,
) -> None:
    """Name two masks of a group that differ."""
    masks = [
        (f"mask {i}{of}", size)
        for block, n, of in ((data, num_masks, ""), (other, num_other, " of other"))
        for i, size in enumerate(block[: 16 * n].view(torch.int64).view(n, 2).tolist())
    ]
    ends = group_offsets.tolist()
    for begin, end in itertools.pairwise(ends):
        (name, (h, w)), *others = (masks[i] for i in members.flatten()[begin:end].tolist())
        for other_name, (other_h, other_w) in others:
            if (other_h, other_w) != (h, w):
                raise ValueError(
                    f"masks of different sizes cannot be combined: {name} is {h}x{w}, "
                    f"{other_name} is {other_h}x{other_w}"
                )


def _place(
    data: Tensor, num_masks: int, windows: Tensor, sizes: Tensor, images: Tensor | None
) -> Tensor:
    check_data(data)
    kernels = cpu_kernels(data)
    _check_table(windows, 4 * num_masks, torch.int64, data, "windows")
    _check_table(sizes, 2 * num_masks, torch.int64, data, "sizes")
    result = kernels.place(
        data.data_ptr(),
        data.numel(),
        num_masks,
        windows.data_ptr(),
        sizes.data_ptr(),
        *_images_at(images, data),
        torch.get_num_threads(),
    )
    return _to_data(result)


def _turn(
    data: Tensor,
    num_masks: int,
    transpose: bool,
    reverse_rows: bool,
    reverse_columns: bool,
    images: Tensor | None,
) -> Tensor:
    check_data(data)
    result = cpu_kernels(data).turn(
        data.data_ptr(),
        data.numel(),
        num_masks,
        transpose,
        reverse_rows,
        reverse_columns,
        *_images_at(images, data),
        torch.get_num_threads(),
    )
    return _to_data(result)


def _fake(data: Tensor, *arguments: Any) -> Tensor:
    _check_places(data, *(each for each in arguments if isinstance(each, Tensor)))
    num_bytes = torch.library.get_ctx().new_dynamic_size(min=8)
    return data.new_empty((num_bytes,), dtype=torch.uint8)


_register(
    "combine(Tensor data, SymInt num_masks, Tensor other, SymInt num_other, Tensor members, "
    "Tensor group_offsets, Tensor? images, int kind) -> Tensor",
    _combine,
    _fake,
)
_register(
    "place(Tensor data, SymInt num_masks, Tensor windows, Tensor sizes, Tensor? images) -> Tensor",
    _place,
    _fake,
)
_register(
    "turn(Tensor data, SymInt num_masks, bool transpose, bool reverse_rows, bool reverse_columns, "
    "Tensor? images) -> Tensor",
    _turn,
    _fake,
)
