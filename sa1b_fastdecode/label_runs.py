"""The runs of labels in maps, found with torch: what the masks of all labels are made of on a GPU.

A run is a stretch of equal pixels in column-major order. Sorted by map and label, stably, those of
one label are its mask, and where they begin and end are its boundaries.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sa1b_fastdecode.status import BAD_LABEL, OK

# Of integers only the bits matter until they are labels; torch compares few unsigned ones.
_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class LabelRuns(NamedTuple):
    """The masks of all labels of some maps, N in all, by their boundaries."""

    positions: Tensor  # uint32, of all masks; see Boundaries in csrc/launch.h
    begins: Tensor  # int64 (N,)
    ends: Tensor  # int64 (N,)
    labels: Tensor  # int64 (N,) ascending in each map
    counts: Tensor  # int64 (B,) labels of each map
    status: Tensor  # int64 (), OK or BAD_LABEL


def find_label_runs(maps: Tensor, background: int | None) -> LabelRuns:
    """Find the runs in maps ``(B, H, W)`` of any integers; waits to learn how many there are."""
    num_maps, pixels = len(maps), maps.shape[1] * maps.shape[2]
    starts, ends, labels = _runs(maps.mT.reshape(num_maps, pixels), maps.dtype)
    status = OK + (BAD_LABEL - OK) * (labels < 0).any() * (maps.dtype == torch.uint64)
    if background is not None:
        (kept,) = (labels != background).nonzero(as_tuple=True)
        starts, ends, labels = starts[kept], ends[kept], labels[kept]
    image = starts // max(pixels, 1)

    order = labels.argsort(stable=True)
    order = order[image[order].argsort(stable=True)]
    image, labels = image[order], labels[order]
    positions = torch.stack([starts, ends], 1)[order] - pixels * image[:, None]
    is_first = torch.ones_like(labels, dtype=torch.bool)
    is_first[1:] = (image[1:] != image[:-1]) | (labels[1:] != labels[:-1])
    (firsts,) = is_first.nonzero(as_tuple=True)
    after_last = _next(firsts, len(labels))
    # Where a map ends is no boundary.
    to_the_end = positions[after_last - 1, 1] == pixels
    image_of_mask = image[firsts]
    images = torch.arange(num_maps + 1, device=maps.device)
    return LabelRuns(
        positions.to(torch.uint32),
        2 * firsts,
        2 * after_last - to_the_end.to(torch.int64),
        labels[firsts],
        torch.searchsorted(image_of_mask, images).diff(),
        status,
    )


def _runs(columns: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return where runs start and end, counted over all maps (B, pixels), and their labels."""
    values = columns.view(_SIGNED[dtype.itemsize])
    is_start = torch.ones_like(values, dtype=torch.bool)
    torch.ne(values[:, 1:], values[:, :-1], out=is_start[:, 1:])
    (starts,) = is_start.flatten().nonzero(as_tuple=True)
    labels = values.flatten()[starts].to(torch.int64)
    if not dtype.is_signed and dtype.itemsize < 8:
        labels &= 2 ** (8 * dtype.itemsize) - 1
    return starts, _next(starts, values.numel()), labels


def _next(begins: Tensor, end: int) -> Tensor:
    """Return where each of some parts ends: where the next one begins."""
    ends = begins.roll(-1)
    ends[-1:] = end
    return ends
