"""How well predicted masks fit the true ones, from their runs.

Masks are what :func:`pack_rles` takes, or dense masks ``(N, H, W)``. For COCO's average precision
give :mod:`pycocotools` or torchmetrics the same masks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from sa1b_fastdecode.arguments import Int64Array
from sa1b_fastdecode.ops import read_masks
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = ["Evaluation", "compute_iou", "evaluate_masks"]

Float64Array = npt.NDArray[np.float64]


class Evaluation(TypedDict):
    """What :func:`evaluate_masks` returns."""

    mean_iou: float
    median_iou: float
    ious: Float64Array
    pairs: Int64Array


def compute_iou(m1: Any, m2: Any) -> float:
    """Return intersection over union of two masks of one size; 0 if both are empty.

    Each is one RLE, an RLEBatch of one mask, or a dense mask ``(H, W)``.

    Raises:
        ValueError: malformed masks, more or less than one, or two of different sizes.
        TypeError: something of a wrong kind in place of a mask.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> fd.evaluation.compute_iou({"size": [2, 3], "counts": [0, 4, 2]}, np.ones((2, 3)))
        0.6666666666666666
    """
    batches = [read_masks(mask).cpu().flat() for mask in (m1, m2)]
    for name, batch in zip(("m1", "m2"), batches, strict=True):
        if len(batch) != 1:
            raise ValueError(f"{name} must be one mask, not {len(batch)}; see fd.mask_iou for many")
    return float(_iou_in_order(*batches)[0])


def evaluate_masks(
    pred: Any, gt: Any, *, matching: Literal["order", "optimal", "greedy"] = "order"
) -> Evaluation:
    """Return the mean and the median IoU of predicted masks with the true ones.

    Args:
        pred: N masks, or masks grouped by image.
        gt: M masks; grouped if ``pred`` is, for as many images.
        matching: which masks belong together, in each image:

            * "order": the first with the first and so on; there must be as many.
            * "optimal": so that the sum of the IoUs is the largest possible (needs SciPy).
            * "greedy": the pair of the largest IoU first, then that of what is left, and so on; of
              equal ones the first.

            The last two make ``min(N, M)`` pairs, some of which may not meet; what is left over on
            the longer side has no influence on the result.

    Returns:
        Evaluation: a dict.

        * ``mean_iou``, ``median_iou``: over the pairs; NaN if there are none.
        * ``ious`` float64 ``(K,)``: of each pair. Exact integers are divided, as by pycocotools.
        * ``pairs`` int64 ``(K, 2)``: indices of ``pred`` and ``gt``, sorted; counted over all
          images where they are grouped.

    Raises:
        ValueError: another number of masks or images where it must be the same; malformed masks;
            masks of different sizes that would have to be compared.
        TypeError: something of a wrong kind in place of masks.
        ImportError: SciPy is missing.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> pred = [{"size": [1, 6], "counts": c} for c in ([0, 2, 4], [3, 3])]
        >>> gt = [{"size": [1, 6], "counts": c} for c in ([3, 3], [0, 1, 5])]
        >>> fd.evaluation.evaluate_masks(pred, gt)["mean_iou"]
        0.0
        >>> fd.evaluation.evaluate_masks(pred, gt, matching="optimal")["mean_iou"]
        0.75
    """
    predicted, true = read_masks(pred).cpu(), read_masks(gt).cpu()
    if matching == "order":
        _check_lengths(predicted, true)
        pairs = np.repeat(np.arange(len(predicted), dtype=np.int64)[:, None], 2, axis=1)
        ious = _iou_in_order(predicted.flat(), true.flat())
    elif matching in ("optimal", "greedy"):
        match = _match_optimally if matching == "optimal" else _match_greedily
        pairs, ious = _match_images(predicted, true, match)
    else:
        raise ValueError(f"matching must be 'order', 'optimal' or 'greedy', not {matching!r}")
    return {
        "mean_iou": float(ious.mean()) if len(ious) else float("nan"),
        "median_iou": float(np.median(ious)) if len(ious) else float("nan"),
        "ious": ious,
        "pairs": pairs,
    }


def _check_lengths(predicted: RLEBatch, true: RLEBatch) -> None:
    _check_images(predicted, true)
    if predicted.counts_per_image is not None and true.counts_per_image is not None:
        counts = zip(
            predicted.counts_per_image.tolist(), true.counts_per_image.tolist(), strict=True
        )
        named = [(f"image {i}: ", *pair) for i, pair in enumerate(counts)]
    else:
        named = [("", len(predicted), len(true))]
    for where, n, m in named:
        if n != m:
            raise ValueError(
                f"{where}masks in order need as many predictions as true masks, not {n} and {m}; "
                "matching='optimal' finds out which belong together"
            )


def _check_images(predicted: RLEBatch, true: RLEBatch) -> None:
    if predicted.num_images != true.num_images:
        what = [
            "a flat batch" if batch.num_images is None else f"{batch.num_images} images"
            for batch in (predicted, true)
        ]
        raise ValueError(f"pred and gt must hold as many images, not {what[0]} and {what[1]}")


def _iou_in_order(first: RLEBatch, second: RLEBatch) -> Float64Array:
    """Return float64 (N,): IoU of mask i of two flat batches of N; their sizes may vary with i."""
    sizes, other_sizes = first.sizes.numpy(), second.sizes.numpy()
    differ = (sizes != other_sizes).any(axis=1)
    if differ.any():
        i = int(differ.argmax())
        (h, w), (other_h, other_w) = sizes[i].tolist(), other_sizes[i].tolist()
        raise ValueError(
            f"masks of different sizes cannot be compared: mask {i} is {h}x{w}, the other one "
            f"{other_h}x{other_w}"
        )
    # As if each pair were an image of its own, so that nothing else is compared.
    images = np.insert(sizes, 0, 1, axis=1)
    alone = [RLEBatch._join([batch], images) for batch in (first, second)]
    shared = alone[0].intersection(alone[1]).flatten().numpy()
    return _divide(shared, first.area().numpy(), second.area().numpy())


def _divide(shared: Int64Array, area: Int64Array, other_area: Int64Array) -> Float64Array:
    """Return float64 intersection over union; 0 where the union is 0."""
    iou: Float64Array = shared / np.maximum(area + other_area - shared, 1)
    return iou


def _match_images(
    predicted: RLEBatch, true: RLEBatch, match: Callable[[Float64Array], Int64Array]
) -> tuple[Int64Array, Float64Array]:
    """Match the masks of each image; return pairs (K, 2) over all images and their IoU (K,)."""
    _check_images(predicted, true)
    limits = [_limits(batch) for batch in (predicted, true)]
    flat, other = predicted.flat(), true.flat()
    pairs, ious = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for image, (rows, columns) in enumerate(zip(*limits, strict=True)):
        first, second = flat[slice(*rows)], other[slice(*columns)]
        try:
            shared = first.intersection(second).numpy()
        except ValueError as error:
            where = "" if predicted.num_images is None else f"image {image}: "
            raise ValueError(f"{where}{error}") from None
        iou = _divide(shared, first.area().numpy()[:, None], second.area().numpy())
        found = match(iou)
        pairs.append(found + np.array([rows[0], columns[0]]))
        ious.append(iou[found[:, 0], found[:, 1]])
    return np.concatenate(pairs), np.concatenate(ious)


def _limits(batch: RLEBatch) -> list[tuple[int, int]]:
    """Return the first mask of each image and the one after its last; a flat batch is one image."""
    counts = batch.counts_per_image
    ends = [len(batch)] if counts is None else counts.cumsum(0).tolist()
    return list(itertools.pairwise([0, *ends]))


def _match_optimally(iou: Float64Array) -> Int64Array:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("matching='optimal' needs SciPy: pip install scipy") from error
    return np.stack(linear_sum_assignment(iou, maximize=True), axis=1).astype(np.int64)


def _match_greedily(iou: Float64Array) -> Int64Array:
    rows, columns = np.nonzero(iou)
    order = np.argsort(-iou[rows, columns], kind="stable")
    column_of: dict[int, int] = {}
    taken = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in column_of and column not in taken:
            column_of[row] = column
            taken.add(column)
    # What meets nothing that is left is paired in order.
    free_rows = (row for row in range(iou.shape[0]) if row not in column_of)
    free_columns = (column for column in range(iou.shape[1]) if column not in taken)
    column_of |= dict(zip(free_rows, free_columns, strict=False))
    return np.array(sorted(column_of.items()), np.int64).reshape(-1, 2)
