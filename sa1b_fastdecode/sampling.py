"""Random points and boxes of masks, such as the prompts that Segment Anything is trained with.

>>> import sa1b_fastdecode as fd
>>> masks = fd.pack_rles({"size": [2, 3], "counts": [3, 1, 2]})
>>> fd.sampling.sample_points(masks, 2)
tensor([[[1., 1.],
         [1., 1.]]])
"""

from __future__ import annotations

import operator
from typing import Any, Literal

import torch
from torch import Tensor

from sa1b_fastdecode import dispatch, library
from sa1b_fastdecode import status as status_codes
from sa1b_fastdecode.cuda import on_device_of
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch

# As in csrc/sampling.h.
_REGIONS = {"foreground": 0, "background": 1, "boundary": 2}

Region = Literal["foreground", "background", "boundary"]


def sample_points(
    masks: Any, n: int, region: Region = "foreground", *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw random pixels of each mask, each as likely as any other, with replacement.

    A rank is drawn for each point and the runs say which pixel has it; nothing is decoded.

    Args:
        masks: N masks, what :func:`sa1b_fastdecode.pack_rles` takes.
        n: points of each mask.
        region: "foreground"; "background", all other pixels; or "boundary", pixels of the mask
            with a pixel above, below, left or right that is not in it or not in the image.
        generator: where randomness comes from, on the CPU or on the device of the masks; default:
            torch's own there. Seeded alike, generators of the same kind of device give the same
            points wherever the masks are; one of a GPU draws other numbers than one of the CPU.

    Returns:
        Tensor: float32 ``(N, n, 2)``: x and y of pixels, as SAM takes its point prompts, on the
        device of the masks. NaN for a mask without a pixel of that kind. Of a batch grouped by
        image too, masks in order. Exact up to 2**24.

    Raises:
        ValueError: another ``region``; a negative ``n``; a generator on another device.

    Note:
        Bit-identical on every backend. Memory: a few numbers a point. Does not wait for the GPU.

    Example:
        >>> masks = [{"size": [2, 3], "counts": c} for c in ([1, 2, 3], [6])]
        >>> sample_points(masks, 3, generator=torch.Generator().manual_seed(2))
        tensor([[[1., 0.],
                 [0., 1.],
                 [1., 0.]],
        <BLANKLINE>
                [[nan, nan],
                 [nan, nan],
                 [nan, nan]]])
    """
    batch = pack_rles(masks)
    if region not in _REGIONS:
        raise ValueError(f"region must be one of {', '.join(_REGIONS)}, not {region!r}")
    if operator.index(n) < 0:
        raise ValueError(f"n must not be negative, but is {n}")
    # Below 2**62, so that what the remainder prefers it prefers by less than one in 2**30.
    draws = torch.randint(
        2**62,
        (len(batch), n),
        generator=generator,
        dtype=torch.int64,
        device=_device_of(generator, batch),
    )
    ranks = on_device_of(batch.data, draws) % _count_pixels(batch, region).clamp(min=1)[:, None]
    points = torch.ops.sa1b_fastdecode.pixels_at_ranks.default(
        batch.data, batch.num_masks, ranks, _REGIONS[region]
    )
    return torch.where(points < 0, torch.nan, points.to(torch.float32))


def _device_of(generator: torch.Generator | None, batch: RLEBatch) -> torch.device:
    """Return where to draw random numbers."""
    if generator is None:
        return batch.device
    if generator.device not in (batch.device, torch.device("cpu")):
        raise ValueError(
            f"the generator is on {generator.device}, the masks are on {batch.device}; "
            "one on the CPU serves all"
        )
    return generator.device


def _sizes(batch: RLEBatch) -> Tensor:
    """Return int64 (N, 2): height and width of each mask, on the device of the batch."""
    return batch.data[: 16 * len(batch)].view(torch.int64).view(-1, 2)


def _count_pixels(batch: RLEBatch, region: Region) -> Tensor:
    """Return int64 (N,): the pixels of each mask's region."""
    if region == "boundary":
        count: Tensor = torch.ops.sa1b_fastdecode.boundary_area.default(batch.data, batch.num_masks)
        return count
    area = batch.area()
    return area if region == "foreground" else _sizes(batch).prod(dim=1) - area


def sample_boxes(
    masks: Any,
    scale: float = 0.1,
    limit: float = 20.0,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the box of each mask with noise on its sides, as SAM was trained with.

    Args:
        masks: N masks, what :func:`sa1b_fastdecode.pack_rles` takes.
        scale: standard deviation of the noise, as a part of the box's width (for x) or height.
        limit: the most that a side is moved, in pixels.
        generator: as in :func:`sample_points`.

    Returns:
        Tensor: float32 ``(N, 4)``: x0, y0, x1, y1 in pixels, as SAM takes its box prompts, on the
        device of the masks; without noise x1 and y1 are the ends of the last pixel. Inside the
        image, x0 <= x1, y0 <= y1. NaN for an empty mask.

    Raises:
        ValueError: ``scale`` or ``limit`` is negative or NaN; a generator on another device.

    Example:
        >>> sample_boxes({"size": [2, 3], "counts": [1, 2, 3]}, scale=0)
        tensor([[0., 0., 2., 2.]])
    """
    if not (scale >= 0 and limit >= 0):
        raise ValueError(f"scale and limit must not be negative, but are {scale} and {limit}")
    batch = pack_rles(masks)
    boxes = batch.bbox()
    origin, side = boxes[:, :2], boxes[:, 2:]
    noise = torch.randn(
        (len(batch), 2, 2),
        generator=generator,
        dtype=torch.float32,
        device=_device_of(generator, batch),
    )
    moved = (on_device_of(batch.data, noise) * (scale * side[:, None])).clamp(-limit, limit)
    corners = torch.stack([origin, origin + side], 1) + moved
    extent = _sizes(batch).flip(1).to(torch.float32)
    corners = corners.clamp(min=0).minimum(extent[:, None])
    jittered = torch.sort(corners, dim=1)[0].flatten(1)
    return jittered.masked_fill(side[:, :1] == 0, torch.nan)


def interior_points(masks: Any) -> tuple[Tensor, Tensor]:
    """Return the pixel of each mask that is farthest from everything outside it.

    The distance of two pixels is the larger of those in x and in y (Chebyshev's); outside is what
    is not in the mask, or not in the image. Of pixels as far the first one, column by column. A
    square of ``2 * distance - 1`` pixels a side around the point lies in the mask, no larger one
    does anywhere.

    Args:
        masks: N masks, what :func:`sa1b_fastdecode.pack_rles` takes.

    Returns:
        tuple: ``points`` float32 ``(N, 2)``: x and y of pixels, NaN for an empty mask, exact up to
        2**24; ``distance`` int64 ``(N,)``: in pixels, at least 1, 0 for an empty mask.

    Raises:
        ValueError: a mask of more than 2**24 rows.
        RuntimeError: the masks are on a GPU.

    Note:
        Bit-identical on every backend. Time follows the pixels of the masks.

    Example:
        >>> points, distance = interior_points({"size": [5, 5], "counts": [0, 20, 5]})
        >>> points, distance
        (tensor([[1., 1.]]), tensor([2]))
    """
    batch = pack_rles(masks)
    found = torch.ops.sa1b_fastdecode.interior_points.default(batch.data, batch.num_masks)
    points, distance = found[:, :2], found[:, 2]
    return torch.where(points < 0, torch.nan, points.to(torch.float32)), distance


# --- The operators


def _interior_points(data: Tensor, num_masks: int) -> Tensor:
    library.check_data(data)
    points = torch.empty(num_masks, 3, dtype=torch.int64, device="cpu")
    status = library.cpu_kernels(data).interior_points(
        data.data_ptr(), data.numel(), num_masks, points.data_ptr(), torch.get_num_threads()
    )
    if status == status_codes.BAD_SHAPE:
        sizes = data[: 16 * num_masks].view(torch.int64)[::2]
        raise ValueError(f"mask {int(sizes.argmax())} has more than 2**24 rows")
    status_codes.raise_for(status)
    return points


def _interior_points_fake(data: Tensor, num_masks: int) -> Tensor:
    return data.new_empty((num_masks, 3), dtype=torch.int64)


def _boundary_area(data: Tensor, num_masks: int) -> Tensor:
    library.check_data(data)
    area: Tensor = dispatch.operators(data.device.type).boundary_area(data, num_masks)
    return area


def _boundary_area_fake(data: Tensor, num_masks: int) -> Tensor:
    return data.new_empty(num_masks, dtype=torch.int64)


def _pixels_at_ranks(data: Tensor, num_masks: int, ranks: Tensor, region: int) -> Tensor:
    library.check_data(data)
    _check_ranks(num_masks, ranks, region)
    ranks = ranks.contiguous()
    library._check_table(ranks, ranks.numel(), torch.int64, data, "ranks")
    points: Tensor = dispatch.operators(data.device.type).pixels_at_ranks(
        data, num_masks, ranks, region
    )
    return points


def _pixels_at_ranks_fake(data: Tensor, num_masks: int, ranks: Tensor, region: int) -> Tensor:
    library._check_places(data, ranks)
    _check_ranks(num_masks, ranks, region)
    return data.new_empty((*ranks.shape, 2), dtype=torch.int64)


def _check_ranks(num_masks: int, ranks: Tensor, region: int) -> None:
    if ranks.dim() != 2 or ranks.shape[0] != num_masks:
        raise ValueError(f"ranks must have shape ({num_masks}, n), not {tuple(ranks.shape)}")
    if region not in _REGIONS.values():
        raise ValueError(f"there is no region {region}")


library._register(
    "boundary_area(Tensor data, SymInt num_masks) -> Tensor", _boundary_area, _boundary_area_fake
)
library._register(
    "pixels_at_ranks(Tensor data, SymInt num_masks, Tensor ranks, int region) -> Tensor",
    _pixels_at_ranks,
    _pixels_at_ranks_fake,
)
library._register(
    "interior_points(Tensor data, SymInt num_masks) -> Tensor",
    _interior_points,
    _interior_points_fake,
)
