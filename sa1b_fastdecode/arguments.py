"""What users pass to the methods of an RLEBatch, read and checked."""

from __future__ import annotations

import operator
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pad: TypeAlias = bool | tuple[int, int]
Int64Array: TypeAlias = npt.NDArray[np.int64]

_MAX_THREADS = 1024


def _integers(values: Any, what: str) -> Tensor:
    """Return integers or bools of any kind as an int64 or bool tensor on the CPU."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values.copy())  # negative strides, read-only memory
    if isinstance(values, Tensor):
        table = values.cpu()
    else:
        try:
            table = torch.tensor(values, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            if "Overflow" in str(error):
                raise ValueError(f"{what} must be below 2**63") from None
            raise TypeError(f"{what} must be integers, not {values!r}") from error
    if (table.is_floating_point() and table.numel() > 0) or table.is_complex():
        raise TypeError(f"{what} must be integers, not {table.dtype}")
    if table.dtype == torch.bool:
        return table
    integers = table.to(torch.int64)
    if table.dtype == torch.uint64 and bool((integers < 0).any()):
        raise ValueError(f"{what} must be below 2**63")
    return integers


def as_indices(index: Any, num_masks: int) -> Tensor:
    """Return int64 indices in [0, num_masks) from an int, ints or bools; negatives count back."""
    try:
        table = _integers(index, "indices of masks")
    except ValueError:
        raise IndexError(f"an index is out of range for {num_masks} masks") from None
    if table.dtype == torch.bool:
        if table.shape != (num_masks,):
            raise IndexError(f"{table.numel()} bools cannot select from {num_masks} masks")
        return table.nonzero().flatten()
    table = table.flatten()
    wrong = (table < -num_masks) | (table >= num_masks)
    # A compiled graph cannot stop here; the kernel then meets an index that is no mask.
    if not torch.compiler.is_compiling() and bool(wrong.any()):
        raise IndexError(f"mask {int(table[wrong][0])} is out of range for {num_masks} masks")
    return torch.where(wrong, num_masks, torch.where(table < 0, table + num_masks, table))


def planes_of_images(counts: Tensor, per_image: int) -> Tensor:
    """Return int64 (B * per_image,): the mask that each plane of a grouped batch shows, or -1."""
    counts = counts[:, None]
    place = torch.arange(per_image, device="cpu")
    return torch.where(place < counts, counts.cumsum(0) - counts + place, -1).flatten()


def read_iscrowd(iscrowd: Any, num_masks: int) -> Tensor:
    """Return one bool for each mask from bools or integers."""
    table = _integers(iscrowd, "iscrowd")
    if tuple(table.shape) != (num_masks,):
        raise ValueError(f"iscrowd must have shape ({num_masks},), not {tuple(table.shape)}")
    return (table != 0).contiguous()


def read_size(size: Any, what: str) -> tuple[int, int]:
    """Return (height, width) from two positive integers."""
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be two integers (height, width), not {size!r}") from error
    if height < 1 or width < 1 or height >= 2**32 or width >= 2**32:
        raise ValueError(f"{what} must be two positive sides below 2**32, not {height}x{width}")
    return height, width


def read_pad(pad: Any, height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) to pad to, which must hold the largest mask."""
    padded = read_size(pad, "pad")
    if padded[0] < height or padded[1] < width:
        raise ValueError(f"pad={padded} is smaller than the largest mask, {height}x{width}")
    return padded


def read_num_threads(num_threads: int | None) -> int:
    """Return 0 for torch's own setting, which is 1 inside a DataLoader's workers."""
    if num_threads is None:
        return 0
    if operator.index(num_threads) < 1:
        raise ValueError(f"num_threads must be at least 1, not {num_threads}")
    return min(num_threads, _MAX_THREADS)


def extent_of(sizes: Tensor) -> tuple[int, int, bool]:
    """Return the largest height and width of sizes (N,2), and whether all are equal."""
    if len(sizes) == 0:
        return 0, 0, True
    height, width = sizes.amax(dim=0).tolist()
    return height, width, bool((sizes == sizes[0]).all())


def read_crop(crop: Any, sizes: Tensor) -> tuple[Tensor, int, int, bool]:
    """Return a window (y, x, h, w) for each mask of ``sizes`` (N,2), and their extent."""
    num_masks = len(sizes)
    table = _integers(crop, "crop (y, x, h, w)")
    if table.dtype == torch.bool:
        raise TypeError(f"crop (y, x, h, w) must be integers, not {crop!r}")
    if tuple(table.shape) not in ((4,), (num_masks, 4)):
        raise ValueError(f"crop must have shape (4,) or ({num_masks}, 4), not {tuple(table.shape)}")
    windows = table.expand(num_masks, 4).contiguous()
    if not torch.compiler.is_compiling():  # else the kernel checks, without saying which mask
        _check_windows(windows, sizes)
    if table.dim() == 1:
        _, _, height, width = (int(side) for side in crop)
        return windows, height, width, True
    return windows, *extent_of(windows[:, 2:])


def _check_windows(windows: Tensor, sizes: Tensor) -> None:
    begin, length = windows[:, :2], windows[:, 2:]
    outside = (begin < 0) | (length < 0) | (begin > sizes) | (length > sizes - begin)
    outside = outside.any(dim=1)
    if bool(outside.any()):
        i = int(outside.int().argmax())
        h, w = sizes[i].tolist()
        raise ValueError(
            f"mask {i}: crop (y, x, h, w) = {tuple(windows[i].tolist())} does not lie inside the "
            f"mask of {h}x{w}"
        )


def raise_mixed_sizes(sizes: Tensor) -> NoReturn:
    """Name two masks whose sizes differ, and what to do about it."""
    first, *others = sizes.tolist()
    i, other = next((i, size) for i, size in enumerate(others, 1) if size != first)
    raise ValueError(
        f"masks differ in size: mask 0 is {first[0]}x{first[1]}, mask {i} is "
        f"{other[0]}x{other[1]}; pass pad=True, pad=(H, W) or size=(H, W)"
    )


def check_out(
    out: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Raise for an ``out`` that is not exactly what the result would be."""
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a tensor, not {type(out).__name__}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)}, the decoded batch has {shape}")
    if out.dtype != dtype:
        raise ValueError(f"out has dtype {out.dtype}, but dtype={dtype} was asked for")
    if out.device != device:
        raise ValueError(f"out is on {out.device}, the batch is on {device}")
    if out.requires_grad:
        raise ValueError("out must not require a gradient: what it holds is overwritten")
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, but has strides {out.stride()}")


def check_comparable(
    sizes: tuple[Int64Array, Int64Array], masks_of_images: tuple[Int64Array, Int64Array]
) -> None:
    """Raise ValueError, naming two masks, where masks that are compared differ in size.

    Sizes (N,2) of the masks of two batches, and how many of them each image has (B,): compared are
    those of the same image.
    """
    counts = masks_of_images
    image_of_mask = [np.repeat(np.arange(len(count)), count) for count in counts]
    begins = np.cumsum(counts[0]) - counts[0]
    both = (counts[0] > 0) & (counts[1] > 0)
    of_image = np.full((len(both), 2), -1, np.int64)
    of_image[both] = sizes[0][begins[both]]
    for which, (side, images) in enumerate(zip(sizes, image_of_mask, strict=True)):
        differs = both[images] & (side != of_image[images]).any(axis=1)
        if differs.any():
            j = int(differs.argmax())
            i = int(begins[images[j]])
            where = f"image {images[j]}: " if len(both) > 1 else ""
            h, w = sizes[0][i].tolist()
            other_h, other_w = side[j].tolist()
            raise ValueError(
                f"{where}masks of different sizes cannot be compared: mask {i} is {h}x{w}, "
                f"mask {j}{' of other' if which else ''} is {other_h}x{other_w}"
            )
