"""IoU of matched masks, against pycocotools, plain loops and all possible matchings."""

import itertools
import math
import sys

import numpy as np
import pytest
import reference
import torch
from draws import blobs, empty, every_kind, to_rle

import sa1b_fastdecode as fd
from sa1b_fastdecode.evaluation import compute_iou, evaluate_masks

coco_mask = pytest.importorskip("pycocotools.mask")

H, W = 33, 31
MASKS = every_kind(H, W)
SHIFTED = [np.roll(mask, 2, axis=1) for mask in MASKS]


def draw(seed, count, h=24, w=30):
    rng = np.random.default_rng(seed)
    return [blobs(rng, h, w, discs=2) for _ in range(count)]


def rles(masks):
    return [to_rle(mask) for mask in masks]


def exact_iou(a, b):
    shared = reference.intersection(a, b)
    union = reference.area(a) + reference.area(b) - shared
    return shared / union if union else 0.0


def test_compute_iou(backend):
    for a, b in itertools.product(MASKS, SHIFTED):
        iou = compute_iou(to_rle(a), to_rle(b))
        assert isinstance(iou, float)
        assert iou == exact_iou(a, b)
        if a.any() or b.any():
            assert iou == coco_mask.iou([to_rle(a)], [to_rle(b)], [0])[0, 0]


def test_compute_iou_of_anything():
    a, b = MASKS[0], SHIFTED[0]
    expected = exact_iou(a, b)
    for first in (a, a.astype(bool), torch.from_numpy(a), a[None], to_rle(a), rles([a])):
        for second in (b, fd.pack_rles(to_rle(b)), {"segmentation": to_rle(b)}, fd.encode_masks(b)):
            assert compute_iou(first, second) == expected


def test_compute_iou_of_wrong_masks():
    with pytest.raises(ValueError, match="m2 must be one mask, not 2"):
        compute_iou(to_rle(MASKS[0]), rles(MASKS[:2]))
    with pytest.raises(ValueError, match="33x31, the other one 31x33"):
        compute_iou(MASKS[0], MASKS[0].T)
    with pytest.raises(TypeError):
        compute_iou("mask", MASKS[0])


def test_in_order(backend):
    found = evaluate_masks(rles(MASKS), SHIFTED)
    expected = [exact_iou(a, b) for a, b in zip(MASKS, SHIFTED, strict=True)]
    assert found["ious"].tolist() == expected
    assert found["pairs"].tolist() == [[i, i] for i in range(len(MASKS))]
    assert found["mean_iou"] == np.mean(expected)
    assert found["median_iou"] == np.median(expected)


def test_in_order_sizes_may_vary_between_pairs():
    masks = [np.ones((2, 3)), np.ones((5, 4)), np.ones((7, 7))]
    assert evaluate_masks(masks, rles(masks))["ious"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="mask 1 is 5x4, the other one 4x5"):
        evaluate_masks(masks, [masks[0], masks[1].T, masks[2]])


def test_in_order_by_image():
    pred, gt = draw(0, 5), draw(1, 5)
    flat = evaluate_masks(rles(pred), rles(gt))
    grouped = evaluate_masks(*([rles(m[:2]), [], rles(m[2:])] for m in (pred, gt)))
    for key, value in flat.items():
        np.testing.assert_array_equal(grouped[key], value)


@pytest.mark.parametrize("matching", ["order", "optimal", "greedy"])
def test_no_masks(matching):
    if matching == "optimal":
        pytest.importorskip("scipy")
    found = evaluate_masks([], [], matching=matching)
    assert math.isnan(found["mean_iou"])
    assert math.isnan(found["median_iou"])
    assert found["ious"].shape == (0,)
    assert found["pairs"].shape == (0, 2)
    if matching != "order":
        assert math.isnan(evaluate_masks([], rles(MASKS), matching=matching)["mean_iou"])


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5), (5, 3)])
def test_optimal(n, m):
    pytest.importorskip("scipy")
    pred, gt = draw(2, n), draw(3, m)
    iou = np.array([[exact_iou(a, b) for b in gt] for a in pred])
    transposed = n > m
    square = iou.T if transposed else iou
    best = max(
        sum(square[range(len(square)), columns])
        for columns in itertools.permutations(range(square.shape[1]), len(square))
    )
    found = evaluate_masks(rles(pred), rles(gt), matching="optimal")
    assert len(found["pairs"]) == min(n, m)
    assert found["ious"].tolist() == iou[tuple(found["pairs"].T)].tolist()
    assert found["ious"].sum() == pytest.approx(best)
    assert sorted(found["pairs"].tolist()) == found["pairs"].tolist()


def greedy_of(iou):
    """The rule as it is told."""
    left = [(-iou[i, j], i, j) for i, j in np.ndindex(iou.shape)]
    pairs = []
    while left:
        _, row, column = min(left)
        pairs.append([row, column])
        left = [pair for pair in left if pair[1] != row and pair[2] != column]
    return sorted(pairs)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 7), (7, 4)])
def test_greedy(n, m):
    pred, gt = [*draw(4, n - 1), empty(None, 24, 30)], draw(5, m)
    gt[1] = gt[0]  # a tie
    iou = np.array([[exact_iou(a, b) for b in gt] for a in pred])
    found = evaluate_masks(rles(pred), rles(gt), matching="greedy")
    assert found["pairs"].tolist() == greedy_of(iou)
    assert found["ious"].tolist() == iou[tuple(found["pairs"].T)].tolist()


@pytest.mark.parametrize("matching", ["optimal", "greedy"])
def test_matching_stays_in_the_image(matching):
    if matching == "optimal":
        pytest.importorskip("scipy")
    pred, gt = draw(6, 6), draw(7, 5)
    parts = [
        evaluate_masks(rles(p), rles(g), matching=matching)
        for p, g in ((pred[:4], gt[:2]), (pred[4:], gt[2:]))
    ]
    whole = evaluate_masks(
        [rles(pred[:4]), rles(pred[4:])], [rles(gt[:2]), rles(gt[2:])], matching=matching
    )
    expected = [*parts[0]["pairs"].tolist(), *(parts[1]["pairs"] + [4, 2]).tolist()]
    assert whole["pairs"].tolist() == expected
    assert whole["ious"].tolist() == [*parts[0]["ious"], *parts[1]["ious"]]


def test_wrong_lengths():
    with pytest.raises(ValueError, match=r"not 2 and 3.*matching='optimal'"):
        evaluate_masks(rles(MASKS[:2]), rles(MASKS[:3]))
    with pytest.raises(ValueError, match=r"image 1: .* not 2 and 1"):
        evaluate_masks([[], rles(MASKS[:2])], [[], rles(MASKS[:1])])
    for matching in ("order", "greedy"):
        with pytest.raises(ValueError, match="a flat batch and 1 images"):
            evaluate_masks(rles(MASKS), [rles(MASKS)], matching=matching)
        with pytest.raises(ValueError, match="2 images and 1 images"):
            evaluate_masks([rles(MASKS)] * 2, [rles(MASKS)], matching=matching)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="'order', 'optimal' or 'greedy', not 'best'"):
        evaluate_masks([], [], matching="best")
    with pytest.raises(ValueError, match=r"image 1: masks of different sizes.*33x31.*31x33"):
        evaluate_masks([[], rles(MASKS[:1])], [[], rles([MASKS[0].T])], matching="greedy")
    with pytest.raises(ValueError, match="mask 0: counts add up to 3"):
        evaluate_masks([{"size": [3, 4], "counts": [1, 2]}], rles(MASKS[:1]))


def test_scipy_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        evaluate_masks(rles(MASKS), rles(MASKS), matching="optimal")
