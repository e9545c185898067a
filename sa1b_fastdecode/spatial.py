"""How the masks of an image lie to one another: overlaps, distances, sizes, what is part of what.

All of it comes from the runs; nothing is decoded. ``masks`` is what :func:`pack_rles` takes, or
dense masks ``(N, H, W)``. Of a batch grouped by image every image is looked at alone, and results
are padded to the largest number of masks. Results are on the device of the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from sa1b_fastdecode.ops import read_masks
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = [
    "ContainmentTree",
    "MaskHierarchy",
    "SpatialFeatures",
    "containment_tree",
    "mask_hierarchy",
    "spatial_features",
]


class SpatialFeatures(TypedDict):
    """What :func:`spatial_features` returns."""

    iou_matrix: Tensor
    containment: Tensor
    centroids: Tensor
    distances: Tensor


class MaskHierarchy(TypedDict):
    """What :func:`mask_hierarchy` returns."""

    large: Tensor
    medium: Tensor
    small: Tensor


class ContainmentTree(NamedTuple):
    """What :func:`containment_tree` returns."""

    parent: Tensor
    depth: Tensor
    children: list[Any]


def spatial_features(masks: Any) -> SpatialFeatures:
    """Return how each mask of an image lies to each other one.

    Args:
        masks: N masks of one size; grouped by image, of one size in each image.

    Returns:
        SpatialFeatures: a dict of float32 tensors.

        * ``iou_matrix (N, N)``: intersection over union; its diagonal is 1, or 0 for an empty mask.
        * ``containment (N, N)``: ``[i, j]`` is the part of mask j that lies in mask i, their
          intersection over the area of j; 0 if j is empty, and on the diagonal.
        * ``centroids (N, 2)``: mean y and x of the pixel centres, in pixels; NaN for an empty mask.
        * ``distances (N, N)``: between the centroids, in pixels; NaN if either is.

        Grouped: ``(B, max N, max N)`` and ``(B, max N, 2)``, zeros where an image has fewer masks.

    Raises:
        ValueError: malformed masks, or masks of different sizes, naming them.
        TypeError: something of a wrong kind in place of masks.

    Note:
        Equal bit for bit to :meth:`RLEBatch.iou`, ``containment`` and ``centroid``, for the price
        of one of them: the intersections are found once. Peak memory is about 40 bytes a pair.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> masks = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])]
        >>> features = fd.spatial.spatial_features(masks)
        >>> features["containment"]
        tensor([[0.0000, 0.3333],
                [0.2500, 0.0000]])
        >>> features["centroids"]
        tensor([[0.5000, 0.5000],
                [0.6667, 1.6667]])
    """
    batch = read_masks(masks)
    iou, containment = _overlaps(batch)
    centroids = _pad(batch, batch.centroid(), 0)
    distances = _distances(centroids)
    real = _real_masks(batch)
    if real is not None:
        padding = ~(real.unsqueeze(-1) & real.unsqueeze(-2))
        distances.masked_fill_(padding.to(distances.device), 0)
    return {
        "iou_matrix": iou,
        "containment": containment,
        "centroids": centroids,
        "distances": distances,
    }


def _overlaps(batch: RLEBatch) -> tuple[Tensor, Tensor]:
    """Return IoU and containment, float32 (..., N, N), from the intersections of all pairs."""
    intersection = batch.intersection(batch)
    area = intersection.diagonal(dim1=-2, dim2=-1)
    union = area.unsqueeze(-1) + area.unsqueeze(-2) - intersection
    # Where the divisor is 0 so is the intersection. The quotient is rounded to float32 once.
    shared = intersection.double()
    iou = (shared / union.clamp_(min=1)).float()
    containment = (shared / area.unsqueeze(-2).clamp(min=1)).float()
    containment.diagonal(dim1=-2, dim2=-1).zero_()
    return iou, containment


def _distances(centroids: Tensor) -> Tensor:
    """Return float32 (..., N, N) of points (..., N, 2), rounded from float64."""
    y, x = centroids.double().unbind(-1)
    dy, dx = (side.unsqueeze(-1) - side.unsqueeze(-2) for side in (y, x))
    # Not `sqrt`, which has torch start threads for as little as 2048 numbers: milliseconds.
    return torch.hypot(dy, dx).float()


def _pad(batch: RLEBatch, values: Tensor, padding: int) -> Tensor:
    """Bring values (N, ...), one for each mask, to (B, max N, ...) if the batch is grouped."""
    real = _real_masks(batch)
    if real is None:
        return values
    padded = values.new_full((*real.shape, *values.shape[1:]), padding)
    # By places that are known on the CPU: bools on another device would have to be waited for.
    places = real.flatten().nonzero().flatten().to(values.device)
    padded.flatten(0, 1)[places] = values
    return padded


def _real_masks(batch: RLEBatch) -> Tensor | None:
    """Return bool (B, max N) on the CPU: False where an image has fewer; None for a flat batch."""
    counts = batch.counts_per_image
    return None if counts is None else torch.arange(batch.max_masks, device="cpu") < counts[:, None]


def mask_hierarchy(masks: Any) -> MaskHierarchy | list[MaskHierarchy]:
    """Return the masks in thirds by their area: the large, the medium and the small ones.

    Args:
        masks: N masks; their sizes may differ.

    Returns:
        MaskHierarchy: a dict of int64 indices, the largest mask first; of two with the same area
        the one that comes first. ``large`` has N // 3, ``large`` and ``medium`` together
        2 * N // 3. Grouped by image: a list with one such dict for each image, whose indices count
        within the image.

    Raises:
        ValueError, TypeError: as :func:`spatial_features`.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> masks = [{"size": [1, 9], "counts": [0, n, 9 - n]} for n in (2, 7, 4, 6)]
        >>> fd.spatial.mask_hierarchy(masks)
        {'large': tensor([1]), 'medium': tensor([3]), 'small': tensor([2, 0])}
    """
    batch = read_masks(masks)
    if batch.counts_per_image is None:
        return _thirds(batch.area())
    counts = batch.counts_per_image.tolist()
    return [_thirds(area) for area in torch.split_with_sizes(batch.area(), counts)]


def _thirds(area: Tensor) -> MaskHierarchy:
    order = area.argsort(descending=True, stable=True)
    n = len(order)
    a, b = n // 3, 2 * n // 3
    return {"large": order[:a], "medium": order[a:b], "small": order[b:]}


def containment_tree(masks: Any, threshold: float = 0.9) -> ContainmentTree:
    """Return which mask is part of which: a wheel of a car, the car of a street.

    The parent of a mask is the smallest of those that contain it: of which at least ``threshold``
    of its pixels are part. Masks are ranked by area, the largest first, and those of the same area
    by their index; only a mask that ranks before another can be its parent, and of those that
    contain it the last is. So there are no cycles, and of equal masks the first is the parent of
    the second and that one of the third.

    Args:
        masks: N masks of one size; grouped by image, of one size in each image.
        threshold: above 0, at most 1.

    Returns:
        ContainmentTree: a named tuple.

        * ``parent`` int64 ``(N,)``: the index of the mask's parent, -1 if it has none.
        * ``depth`` int64 ``(N,)``: how many masks are above it, 0 if it has no parent.
        * ``children``: for each mask the list of the indices of its children, ascending.

        Grouped: ``(B, max N)``, -1 where an image has fewer masks, and one list of lists for each
        image; indices count within the image. An empty mask is in nothing and contains nothing.

    Raises:
        ValueError: a ``threshold`` out of its range; else as :func:`spatial_features`.
        TypeError: as :func:`spatial_features`.

    Note:
        Only pairs that meet are looked at, so that thousands of masks are cheap.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> masks = [{"size": [1, 9], "counts": [0, n, 9 - n]} for n in (2, 7, 4)]
        >>> tree = fd.spatial.containment_tree(masks)
        >>> tree.parent, tree.depth, tree.children
        (tensor([ 2, -1,  1]), tensor([2, 0, 1]), [[], [2], [0]])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    batch = read_masks(masks)
    pairs, intersection = batch.intersecting_pairs(batch)
    outer, inner = pairs.unbind(1)
    area = batch.area()
    order = area.argsort(descending=True, stable=True)
    rank = order.argsort()
    # By `gather`, since an index has torch start threads for as few as 3000 numbers.
    before = rank.gather(0, outer) < rank.gather(0, inner)
    share = intersection.double() / area.gather(0, inner).double()
    found = (before & (share >= threshold)).nonzero().flatten()
    outer, inner = outer.gather(0, found), inner.gather(0, found)
    parent_rank = torch.full_like(rank, -1)
    parent_rank.scatter_reduce_(0, inner, rank.gather(0, outer), "amax")
    has_parent = parent_rank >= 0
    parent = torch.where(has_parent, order.gather(0, parent_rank.clamp(min=0)), -1)
    depth = _depths(parent)
    children = _children(parent)
    if batch.counts_per_image is None:
        return ContainmentTree(parent, depth, children)

    counts = batch.counts_per_image
    firsts = counts.cumsum(0) - counts
    first_of = firsts.repeat_interleave(counts).to(parent.device)
    parent = torch.where(has_parent, parent - first_of, -1)
    return ContainmentTree(
        _pad(batch, parent, -1),
        _pad(batch, depth, -1),
        [
            [[child - first for child in of_mask] for of_mask in children[first : first + count]]
            for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
        ],
    )


def _depths(parent: Tensor) -> Tensor:
    """Return int64 (N,): the number of ancestors; each step doubles how far up everyone has looked.

    A chain of n masks takes log2(n) steps, and the number of steps needs no look at the values.
    """
    n = len(parent)
    root = parent.new_full((1,), n)  # what is above all that have no parent, and above itself
    ancestor = torch.cat([torch.where(parent < 0, n, parent), root])
    depth = (ancestor < n).to(torch.int64)
    for _ in range(n.bit_length()):
        depth += depth.gather(0, ancestor)
        ancestor = ancestor.gather(0, ancestor)
    return depth[:n]


def _children(parent: Tensor) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in range(len(parent))]
    for child, above in enumerate(parent.tolist()):
        if above >= 0:
            children[above].append(child)
    return children
