"""Choosing among masks by how much they overlap: suppression of duplicates, matching to the truth.

Only masks that meet are ever compared, so many masks of which few meet take little memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import arguments, dispatch, library
from sa1b_fastdecode import status as status_codes
from sa1b_fastdecode.cuda import on_device_of
from sa1b_fastdecode.grouping import sort_by_image
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch

# As in csrc/launch.h.
_METRICS = {"iou": 1, "containment": 2}


def nms(
    masks: Any,
    scores: Any,
    threshold: float,
    metric: Literal["iou", "containment"] = "iou",
    labels: Any = None,
) -> Tensor:
    """Keep of masks that overlap the one of the highest score: greedy non-maximum suppression.

    Masks are taken by falling score, of equal scores the first one first. Each that is still there
    is kept, and removes those after it that overlap it by more than the threshold.

    Args:
        masks: N masks, what :func:`sa1b_fastdecode.pack_rles` takes; all of one size, or grouped by
            image: then masks of different images never remove one another.
        scores: N numbers.
        threshold: from 0 to 1; what overlaps by exactly that is kept.
        metric: "iou", or "containment": the part of the removed mask that the kept one covers.
        labels: N integers, such as categories; only masks of one label remove one another.

    Returns:
        Tensor: int64 ``(K,)``, the masks that are kept by falling score, of equal scores the first
        one first; on the device of the masks.

    Raises:
        ValueError: masks of different sizes, naming them; another number of scores or labels; a
            score that is NaN, naming its mask; a threshold outside [0, 1]; another metric.

    Note:
        Exact integers are divided in float64 and compared with the threshold unrounded, so results
        are the same on every backend. Memory: 8 bytes a run, whatever overlaps; on a GPU 24 bytes
        for each pair with a pixel in common, counted both ways round. There it waits twice: to
        learn how many pairs there are, and how many masks are kept.

    Example:
        >>> masks = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [0, 5, 1], [5, 1])]
        >>> nms(masks, [0.5, 0.9, 0.7], threshold=0.7)
        tensor([1, 2])
    """
    batch = pack_rles(masks)
    batch._pair_shape(batch)
    if metric not in _METRICS:
        raise ValueError(f"metric must be one of {', '.join(_METRICS)}, not {metric!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1, not {threshold}")
    table = _read_scores(scores, batch)
    order = _by_falling_score(table)
    categories = None
    if labels is not None:
        categories = arguments.read_labels(labels, batch.num_masks).contiguous()
    keep = torch.ops.sa1b_fastdecode.suppress.default(
        batch.data,
        batch.num_masks,
        sort_by_image(batch, order),
        categories,
        _METRICS[metric],
        float(threshold),
        batch.num_images,
    )
    kept = keep[order]
    # One wait for both: how many there are, and whether their order means anything.
    num_kept, any_nan = torch.stack([kept.sum(), table.isnan().any()]).tolist()
    if any_nan:
        _refuse_nan(table)
    return order[kept.argsort(stable=True, descending=True)[:num_kept]]


def _read_scores(scores: Any, batch: RLEBatch) -> Tensor:
    """Return real numbers (N,) where the batch is."""
    table = torch.as_tensor(scores)
    if tuple(table.shape) != (batch.num_masks,):
        raise ValueError(f"scores must have shape ({batch.num_masks},), not {tuple(table.shape)}")
    if table.is_complex():
        raise TypeError(f"scores must be real numbers, not {table.dtype}")
    return on_device_of(batch.data, table.detach())


def _refuse_nan(scores: Tensor) -> None:
    if bool(scores.isnan().any()):
        raise ValueError(f"mask {int(scores.isnan().int().argmax())}: its score is NaN")


def _by_falling_score(scores: Tensor) -> Tensor:
    """Return int64 (N,): the masks by falling score, of equals the first one first."""
    return scores.argsort(stable=True, descending=True)


def iou_pairs(
    a: Any, b: Any, threshold: float = 0.0, *, iscrowd: Any = None
) -> tuple[Tensor, Tensor]:
    """Return the IoU of only those pairs of masks that overlap, as a sparse list.

    For many masks of which few meet, where ``(N, M)`` numbers would not fit into memory.

    Args:
        a, b: N and M masks, what :func:`sa1b_fastdecode.pack_rles` takes, as
            :meth:`RLEBatch.intersection` compares them.
        threshold: pairs of a smaller IoU are left out; those without a pixel in common always are.
        iscrowd: as in :meth:`RLEBatch.iou`.

    Returns:
        tuple: ``indices`` int64 ``(K, 2)``, sorted: a mask of ``a`` and one of ``b``, counted over
        all images where they are grouped; ``iou`` float32 ``(K,)``.

    Raises:
        ValueError, TypeError: as in :meth:`RLEBatch.iou`.

    Note:
        Exact integers are divided in float64, compared with the threshold, and rounded once.
        Memory: 40 bytes for each pair with a pixel in common.

    Example:
        >>> masks = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])]
        >>> iou_pairs(masks, masks, 0.5)
        (tensor([[0, 0],
                [1, 1]]), tensor([1., 1.]))
    """
    first = pack_rles(a)
    second = first if b is a else pack_rles(b)
    indices, iou = _overlaps(first, second, iscrowd)
    near = iou >= threshold
    return indices[near], iou[near].to(torch.float32)


def _overlaps(a: RLEBatch, b: RLEBatch, iscrowd: Any) -> tuple[Tensor, Tensor]:
    """Return all pairs with a pixel in common and their IoU in float64."""
    indices, intersection = a.intersecting_pairs(b)
    rows, columns = indices.unbind(1)
    union = a.area()[rows]
    others = b.area()[columns] - intersection
    if iscrowd is not None:
        crowd = arguments.read_iscrowd(iscrowd, b.num_masks).to(others.device)
        others = others.masked_fill(crowd[columns], 0)
    return indices, intersection.to(torch.float64) / (union + others).to(torch.float64)


def match_greedy(
    detections: Any,
    truth: Any,
    scores: Any,
    threshold: float | Sequence[float] = 0.5,
    *,
    iscrowd: Any = None,
    ignore: Any = None,
) -> Tensor:
    """Match detections to the truth as COCO's evaluation does (``COCOeval.evaluateImg``).

    Detections are taken by falling score, of equal scores the first one first. Each gets the mask
    of the truth of the highest IoU that no other has yet, if that reaches the threshold; of equals
    the last one. Crowds can be matched again and again. Crowds and ignored masks are matched only
    if no other mask is left that could be.

    Args:
        detections: N masks, what :func:`sa1b_fastdecode.pack_rles` takes.
        truth: M masks, of the same sizes, or grouped by image as the detections are.
        scores: N numbers.
        threshold: an IoU above 0, or several.
        iscrowd: M bools or integers; the IoU with a crowd is the part of the detection inside it.
        ignore: M bools or integers: masks that are ignored though they are no crowds.

    Returns:
        Tensor: int64 ``(N,)``, or ``(T, N)`` for T thresholds: the mask of the truth of each
        detection, counted over all images where they are grouped; -1 for none.

    Raises:
        ValueError: as in :meth:`RLEBatch.iou`; another number of scores; a score that is NaN; a
            threshold outside (0, 1].
        TypeError: as in :meth:`RLEBatch.iou`.

    Note:
        IoU is compared in float64, as pycocotools does. Memory follows the pairs that overlap.

    Example:
        >>> truth = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [5, 1])]
        >>> found = [{"size": [2, 3], "counts": c} for c in ([0, 2, 4], [0, 3, 3], [4, 2])]
        >>> match_greedy(found, truth, [0.9, 0.8, 0.7], [0.5, 0.75])
        tensor([[ 0, -1,  1],
                [-1,  0, -1]])
    """
    a, b = pack_rles(detections), pack_rles(truth)
    thresholds = torch.as_tensor(threshold, dtype=torch.float64)
    if thresholds.dim() > 1 or not bool(((thresholds > 0) & (thresholds <= 1)).all()):
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    table = _read_scores(scores, a)
    _refuse_nan(table)
    indices, iou = _overlaps(a, b, iscrowd)
    none = torch.zeros(b.num_masks, dtype=torch.bool, device=b.device)
    crowd = none if iscrowd is None else arguments.read_iscrowd(iscrowd, b.num_masks).to(b.device)
    ignored = crowd
    if ignore is not None:
        ignored = crowd | arguments.read_iscrowd(ignore, b.num_masks).to(b.device)
    matches: Tensor = torch.ops.sa1b_fastdecode.match.default(
        indices,
        iou,
        _by_falling_score(table),
        crowd,
        ignored,
        thresholds.reshape(-1).to(b.device),
    )
    return matches if thresholds.dim() == 1 else matches[0]


def match_optimal(detections: Any, truth: Any, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Match detections to the truth, one to one, so that the sum of all IoU is the largest.

    Args:
        detections: N masks, what :func:`sa1b_fastdecode.pack_rles` takes.
        truth: M masks, of the same sizes, or grouped by image as the detections are.
        threshold: pairs of a smaller IoU, or of none, are never matched.

    Returns:
        tuple: ``indices`` int64 ``(K, 2)``, sorted: a detection and its mask of the truth, counted
        over all images where they are grouped; ``iou`` float32 ``(K,)``. On the CPU.

    Raises:
        ValueError, TypeError: as in :meth:`RLEBatch.iou`.
        ImportError: SciPy is not installed.

    Note:
        SciPy's ``linear_sum_assignment`` solves each group of masks that overlap, directly or
        through others, by itself: no ``(N, M)`` matrix is made where few meet.

    Example:
        >>> truth = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [2, 4])]
        >>> found = [{"size": [2, 3], "counts": c} for c in ([0, 5, 1], [0, 3, 3])]
        >>> match_optimal(found, truth, 0.1)
        (tensor([[0, 1],
                [1, 0]]), tensor([0.5000, 0.7500]))
    """
    try:
        from scipy.optimize import linear_sum_assignment
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ImportError as error:
        raise ImportError(
            f"optimal matching needs SciPy ({error}); pip install scipy, or use match_greedy"
        ) from error
    a, b = pack_rles(detections), pack_rles(truth)
    all_indices, all_iou = _overlaps(a, b, None)
    near = all_iou >= threshold
    indices, iou = all_indices[near].cpu().numpy(), all_iou[near].cpu().numpy()
    # Masks of both sides as one graph: those of the truth come behind the detections.
    nodes = (indices[:, 0], len(a) + indices[:, 1])
    graph = coo_array((np.ones(len(iou), bool), nodes), shape=(len(a) + len(b),) * 2)
    component = connected_components(graph, directed=False)[1][indices[:, 0]]
    groups = np.argsort(component, kind="stable")
    matched = []
    for group in np.split(groups, np.flatnonzero(np.diff(component[groups])) + 1):
        rows, row = np.unique(indices[group, 0], return_inverse=True)
        columns, column = np.unique(indices[group, 1], return_inverse=True)
        gain = np.zeros((len(rows), len(columns)))
        place = np.full(gain.shape, -1)
        gain[row, column], place[row, column] = iou[group], group
        chosen = place[linear_sum_assignment(gain, maximize=True)]
        matched.append(chosen[chosen >= 0])
    chosen = np.sort(np.concatenate(matched))
    return torch.from_numpy(indices[chosen]), torch.from_numpy(iou[chosen].astype(np.float32))


# --- The operators


def _suppress(
    data: Tensor,
    num_masks: int,
    order: Tensor,
    labels: Tensor | None,
    metric: int,
    threshold: float,
    num_images: int | None,
) -> Tensor:
    library.check_data(data)
    if metric not in _METRICS.values():
        raise ValueError(f"there is no metric {metric}")
    if num_images is not None and num_images < 0:
        raise ValueError(f"num_images must not be negative, but is {num_images}")
    library._check_table(order, num_masks, torch.int64, data, "order")
    library._check_table(labels, num_masks, torch.int64, data, "labels")
    keep: Tensor = dispatch.operators(data.device.type).suppress(
        data, num_masks, order, labels, metric, threshold, num_images
    )
    return keep


def _suppress_fake(
    data: Tensor,
    num_masks: int,
    order: Tensor,
    labels: Tensor | None,
    metric: int,
    threshold: float,
    num_images: int | None,
) -> Tensor:
    library._check_places(data, order, labels)
    return data.new_empty(num_masks, dtype=torch.bool)


def _match(
    pairs: Tensor,
    iou: Tensor,
    order: Tensor,
    iscrowd: Tensor,
    ignore: Tensor,
    thresholds: Tensor,
) -> Tensor:
    matches = torch.empty(len(thresholds), len(order), dtype=torch.int64, device="cpu")
    pairs = pairs.contiguous()
    status = library.cpu_kernels(pairs).match(
        len(iou),
        len(order),
        len(iscrowd),
        len(thresholds),
        library.address_of(pairs, torch.int64, 2 * len(iou)),
        library.address_of(iou, torch.float64, len(iou)),
        library.address_of(order, torch.int64, len(order)),
        library.address_of(iscrowd, torch.bool, len(iscrowd)),
        library.address_of(ignore, torch.bool, len(iscrowd)),
        library.address_of(thresholds, torch.float64, len(thresholds)),
        matches.data_ptr(),
    )
    status_codes.raise_for(status)
    return matches


def _match_fake(
    pairs: Tensor,
    iou: Tensor,
    order: Tensor,
    iscrowd: Tensor,
    ignore: Tensor,
    thresholds: Tensor,
) -> Tensor:
    library._check_places(pairs, iou, order, iscrowd, ignore, thresholds)
    return order.new_empty(len(thresholds), len(order))


library._register(
    "suppress(Tensor data, SymInt num_masks, Tensor order, Tensor? labels, int metric, "
    "float threshold, SymInt? num_images) -> Tensor",
    _suppress,
    _suppress_fake,
)
library._register(
    "match(Tensor pairs, Tensor iou, Tensor order, Tensor iscrowd, Tensor ignore, "
    "Tensor thresholds) -> Tensor",
    _match,
    _match_fake,
)
