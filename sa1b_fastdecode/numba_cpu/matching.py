"""Greedy choices among masks."""

from __future__ import annotations

import numpy as np

from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.memory import array_at
from sa1b_fastdecode.numba_cpu.pairwise import (
    _AREA,
    _BOTTOM,
    _LEFT,
    _RIGHT,
    _TOP,
    _boxes_meet,
    _intersect,
)
from sa1b_fastdecode.numba_cpu.pairwise import _prepare_pairs as prepare_pairs
from sa1b_fastdecode.status import BAD_PLANE, IOU, OK


@jit
def _most_shared(a, b):
    rows = min(a[_BOTTOM], b[_BOTTOM]) - max(a[_TOP], b[_TOP])
    columns = min(a[_RIGHT], b[_RIGHT]) - max(a[_LEFT], b[_LEFT])
    return min(a[_AREA], b[_AREA], rows * columns)


@jit
def _is_over(kept, other, shared, metric, threshold):
    divisor = other[_AREA]
    if metric == IOU:
        divisor += kept[_AREA] - shared
    return np.float64(shared) / np.float64(divisor) > threshold


@jit
def _suppress(outlines, tables, runs, heights, order, begin, end, labels, metric, threshold, keep):
    """Remove masks of order[begin:end], which are of one image."""
    for at in range(begin, end):
        i = order[at]
        if keep[i] == 0:
            continue
        for later in range(at + 1, end):
            j = order[later]
            if keep[j] == 0 or (len(labels) > 0 and labels[i] != labels[j]):
                continue
            kept, other = outlines[i], outlines[j]
            if not _boxes_meet(kept, other):
                continue
            if not _is_over(kept, other, _most_shared(kept, other), metric, threshold):
                continue
            shared = _intersect(kept, tables, runs, other, tables, runs, heights[2 * i])
            if _is_over(kept, other, shared, metric, threshold):
                keep[j] = 0


def suppress(
    data: int,
    num_bytes: int,
    num_masks: int,
    num_images: int,
    order: int,
    labels: int,
    metric: int,
    threshold: float,
    keep: int,
    num_threads: int,
) -> int:
    side = data, num_bytes, num_masks
    status, prepared = prepare_pairs(*side, *side, num_images, num_threads)
    if prepared is None:
        return int(status)
    outlines, _, images, header, _ = prepared
    by_score = array_at(order, num_masks, np.int64)
    categories = array_at(labels, num_masks, np.int64)
    kept = array_at(keep, num_masks, np.uint8)
    kept[:] = 1
    for first, n in images[:, :2].tolist():
        if (
            (by_score[first : first + n] < first) | (by_score[first : first + n] >= first + n)
        ).any():
            return BAD_PLANE
    for first, n in images[:, :2].tolist():
        _suppress(
            *outlines, header, by_score, first, first + n, categories, metric, threshold, kept
        )
    return OK


@jit
def _match(pairs, first, iou, order, iscrowd, ignore, threshold, taken, matches):
    matches[:] = -1
    taken[:] = 0
    for place in range(len(order)):
        d = order[place]
        best = np.int64(-1)
        for ignored in range(2):
            if best >= 0:
                break  # ignored ones only if there is no other
            most = min(threshold, 1 - 1e-10)
            for k in range(first[d], first[d + 1]):
                g = pairs[k, 1]
                if (ignore[g] != 0) != (ignored == 1) or (taken[g] and not iscrowd[g]):
                    continue
                if iou[k] >= most:  # of equals the last one
                    most = iou[k]
                    best = g
        matches[d] = best
        if best >= 0:
            taken[best] = 1


def match(
    num_pairs: int,
    num_detections: int,
    num_truths: int,
    num_thresholds: int,
    pairs: int,
    iou: int,
    order: int,
    iscrowd: int,
    ignore: int,
    thresholds: int,
    matches: int,
) -> int:
    candidates = array_at(pairs, 2 * num_pairs, np.int64).reshape(-1, 2)
    by_score = array_at(order, num_detections, np.int64)
    rows = candidates[:, 0]
    if (
        (candidates < 0).any()
        or (candidates >= (num_detections, num_truths)).any()
        or (rows[1:] < rows[:-1]).any()
        or ((by_score < 0) | (by_score >= num_detections)).any()
    ):
        return BAD_PLANE
    first = np.searchsorted(rows, np.arange(num_detections + 1))
    result = array_at(matches, num_thresholds * num_detections, np.int64)
    for threshold, found in zip(
        array_at(thresholds, num_thresholds, np.float64).tolist(),
        result.reshape(num_thresholds, num_detections),
        strict=True,
    ):
        _match(
            candidates,
            first,
            array_at(iou, num_pairs, np.float64),
            by_score,
            array_at(iscrowd, num_truths, np.uint8),
            array_at(ignore, num_truths, np.uint8),
            threshold,
            np.empty(num_truths, np.uint8),
            found,
        )
    return OK
