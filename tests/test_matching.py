"""Suppression and matching, against the plainest loops and COCO's own evaluation."""

import builtins

import draws
import numpy as np
import pytest
import reference
import torch
from conftest import EMULATED
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

import sa1b_fastdecode as fd
from sa1b_fastdecode.matching import iou_pairs, match_greedy, match_optimal, nms

ops = torch.ops.sa1b_fastdecode


# --- The truth


def overlap(kept, other, metric):
    """Return what is compared with the threshold, in float64."""
    shared = reference.intersection(kept, other)
    divisor = reference.area(other)
    if metric == "iou":
        divisor += reference.area(kept) - shared
    return shared / divisor if divisor else 0.0


def greedy_nms(masks, scores, threshold, metric, labels):
    kept = []
    for j in sorted(range(len(masks)), key=lambda j: (-scores[j], j)):
        if not any(
            labels[i] == labels[j] and overlap(masks[i], masks[j], metric) > threshold for i in kept
        ):
            kept.append(j)
    return kept


def evaluate_img(detections, truth, scores, thresholds, iscrowd, ignore):
    """Return what COCO's evaluation of one image makes of it: (T, N)."""
    coco = COCOeval()
    coco.params.iouThrs = np.array(thresholds)
    n = len(detections)
    coco.params.maxDets = [max(n, 1)]
    coco._gts[0, 0] = [
        {"id": i + 1, "iscrowd": c, "ignore": c or g, "area": 1, "segmentation": rle}
        for i, (rle, c, g) in enumerate(zip(truth, iscrowd, ignore, strict=True))
    ]
    coco._dts[0, 0] = [
        {"id": i + 1, "score": score, "area": 1, "segmentation": rle}
        for i, (rle, score) in enumerate(zip(detections, scores, strict=True))
    ]
    coco.ious[0, 0] = coco.computeIoU(0, 0)
    result = coco.evaluateImg(0, 0, [0, 2], max(n, 1))
    matches = np.full((len(thresholds), n), -1)
    if result is not None:
        matches[:, np.array(result["dtIds"], int) - 1] = result["dtMatches"] - 1
    return matches


# --- Non-maximum suppression


def crowded(seed, h=60, w=70, n=40):
    """Masks that overlap a lot, some of them equal."""
    rng = np.random.default_rng(seed)
    masks = [draws.blobs(rng, h, w, 1) for _ in range(n - 6)]
    return [*masks, *masks[:3], draws.empty(rng, h, w), draws.full(rng, h, w), masks[0]]


@pytest.mark.parametrize("metric", ["iou", "containment"])
@pytest.mark.parametrize("threshold", [0, 0.3, 0.5, 0.9, 1])
def test_nms(backend, device, metric, threshold):
    masks = crowded(1)
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 12, len(masks)) / 12  # many are equal
    labels = rng.integers(0, 2, len(masks))
    batch = fd.encode_masks(np.stack(masks)).to(device)
    kept = nms(batch, torch.from_numpy(scores), threshold, metric)
    assert kept.dtype == torch.int64
    assert kept.device == device
    assert kept.tolist() == greedy_nms(masks, scores, threshold, metric, [0] * len(masks))
    kept = nms(batch, scores, threshold, metric, labels=labels)
    assert kept.tolist() == greedy_nms(masks, scores, threshold, metric, labels)


def test_threshold_is_exact(backend, device):
    """What overlaps by exactly the threshold is kept, also where float32 would round it up."""
    rles = [{"size": [10, 1], "counts": c} for c in ([0, 10], [0, 6, 4])]  # IoU 3 / 5
    masks = fd.pack_rles(rles).to(device)
    assert nms(masks, [1, 0], 0.6).tolist() == [0, 1]
    assert nms(masks, [1, 0], np.nextafter(0.6, 0)).tolist() == [0]
    assert nms(masks, [1, 0], 0.999, "containment").tolist() == [0]
    assert nms(masks, [0, 1], 0.6, "containment").tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64, torch.bool])
def test_scores_of_any_type(backend, device, dtype):
    masks = crowded(3)
    scores = torch.arange(len(masks), device=device).flip(0).to(dtype)
    kept = nms(fd.encode_masks(np.stack(masks)).to(device), scores, 0.4)
    assert kept.tolist() == greedy_nms(masks, scores.tolist(), 0.4, "iou", [0] * len(masks))


def test_infinite_scores(backend, device):
    masks = fd.pack_rles([{"size": [2, 2], "counts": [0, 4]}] * 3).to(device)
    assert nms(masks, [-float("inf"), float("inf"), 0], 0.5).tolist() == [1]
    rles = [{"size": [3, 1], "counts": [i, 1, 2 - i]} for i in range(3)]
    apart = fd.pack_rles(rles).to(device)
    assert nms(apart, [-float("inf"), 1, float("inf")], 0.5).tolist() == [2, 1, 0]
    assert nms(apart[:0], [], 0.5).tolist() == []


def test_nms_of_images(backend, device):
    """Masks of different images, which may differ in size, never remove one another."""
    images = [crowded(4, 30, 40, 12), [], crowded(5, 41, 23, 9), crowded(4, 30, 40, 12)]
    rles = [[draws.to_rle(mask) for mask in image] for image in images]
    batch = fd.pack_rles(rles).to(device)
    scores = np.random.default_rng(6).integers(0, 5, len(batch))
    kept = nms(batch, scores, 0.3)
    expected, begin = [], 0
    for image in images:
        of_image = scores[begin : begin + len(image)]
        found = greedy_nms(image, of_image, 0.3, "iou", [0] * len(image))
        expected += [begin + i for i in found]
        begin += len(image)
    assert kept.tolist() == sorted(expected, key=lambda i: (-scores[i], i))


@st.composite
def scored_masks(draw):
    h, w = draw(draws.sides), draw(draws.sides)
    counts = draw(st.lists(draws.counts_of(h, w), max_size=6))
    n = len(counts)
    scores = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    threshold = draw(st.sampled_from([0, 0.1, 1 / 3, 0.5, 0.6, 1]))
    return [{"size": [h, w], "counts": each} for each in counts], scores, labels, threshold


@given(drawn=scored_masks(), metric=st.sampled_from(["iou", "containment"]))
@settings(max_examples=100)
def test_nms_property(fast_backend, device, drawn, metric):
    rles, scores, labels, threshold = drawn
    masks = list(fd.decode_rle_batch(rles).numpy())
    expected = greedy_nms(masks, scores, threshold, metric, labels)
    batch = fd.pack_rles(rles).to(device)
    assert nms(batch, scores, threshold, metric, labels).tolist() == expected


# --- Sparse pairs


@pytest.mark.parametrize("threshold", [0, 0.2, 0.6, 1])
def test_iou_pairs(cpu_backend, device, threshold):
    a, b = (fd.encode_masks(np.stack(crowded(seed))).to(device) for seed in (7, 8))
    crowd = [i % 3 == 0 for i in range(len(b))]
    for first, second, iscrowd in ((a, b, None), (a, a, None), (a, b, crowd)):
        # Exact integers once more, since float32 may round to the other side of the threshold.
        shared = first.intersection(second).double()
        union = first.area()[:, None] + second.area() - shared
        if iscrowd:
            union = torch.where(torch.tensor(iscrowd), first.area()[:, None].double(), union)
        near = (shared > 0) & (shared / union >= threshold)
        indices, iou = iou_pairs(first, second, threshold, iscrowd=iscrowd)
        assert (indices.dtype, iou.dtype) == (torch.int64, torch.float32)
        assert torch.equal(indices, near.nonzero())
        assert torch.equal(iou, first.iou(second, iscrowd)[near])


def test_iou_pairs_of_images(cpu_backend):
    images = [crowded(9, n=8), [], crowded(10, n=9)]
    batch = fd.pack_rles([[draws.to_rle(mask) for mask in image] for image in images])
    indices, iou = iou_pairs(batch, batch, 0.1)
    expected = [
        (i + begin, j + begin, value)
        for begin, image in ((0, images[0]), (len(images[0]), images[2]))
        for (i, j), value in np.ndenumerate(
            reference.pairs(reference.iou, image, image, np.float32)
        )
        if value >= 0.1
    ]
    assert [(i, j, v) for (i, j), v in zip(indices.tolist(), iou.tolist(), strict=True)] == expected


# --- Matching

THRESHOLDS = [0.05, 0.3, 0.5, 0.6, 0.7, 0.95, 1.0]


def draw_matching(seed, n=25, m=15):
    """Detections that are shifted truths, scores that repeat, crowds, and ignored masks."""
    rng = np.random.default_rng(seed)
    truth = [draws.blobs(rng, 40, 50, 1) for _ in range(m)]
    truth[m // 2] = truth[0]  # equal IoU
    detections = [np.roll(truth[i % m], rng.integers(-4, 5, 2), (0, 1)) for i in range(n)]
    detections[:3] = truth[:3]
    rles = [[draws.to_rle(mask) for mask in masks] for masks in (detections, truth)]
    iscrowd, ignore = rng.integers(0, 4, (2, m)) == 0
    return *rles, rng.integers(0, 8, n) / 8, iscrowd.tolist(), ignore.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_match_greedy_is_cocos(cpu_backend, device, seed):
    detections, truth, scores, iscrowd, ignore = draw_matching(seed)
    arguments = fd.pack_rles(detections).to(device), fd.pack_rles(truth).to(device), scores
    expected = evaluate_img(detections, truth, scores, THRESHOLDS, iscrowd, ignore)
    found = match_greedy(*arguments, THRESHOLDS, iscrowd=iscrowd, ignore=ignore)
    assert found.dtype == torch.int64
    assert np.array_equal(found.cpu(), expected)
    none = [False] * len(truth)
    expected = evaluate_img(detections, truth, scores, [0.5], none, none)[0]
    assert np.array_equal(match_greedy(*arguments).cpu(), expected)
    expected = evaluate_img(detections, truth, scores, [0.3], none, ignore)[0]
    assert np.array_equal(match_greedy(*arguments, 0.3, ignore=ignore).cpu(), expected)


@given(drawn=scored_masks(), others=st.data())
@settings(max_examples=60)
def test_match_greedy_property(cpu_backend, drawn, others):
    rles, scores, _, _ = drawn
    h, w = rles[0]["size"] if rles else (3, 3)
    truth = others.draw(st.lists(draws.counts_of(h, w), max_size=5))
    flags = st.lists(st.booleans(), min_size=len(truth), max_size=len(truth))
    iscrowd, ignore = others.draw(flags), others.draw(flags)
    # Canonical strings, since pycocotools reads no lists of counts.
    detections, masks = (
        [draws.to_rle(reference.decode(counts, h, w)) for counts in side]
        for side in ([rle["counts"] for rle in rles], truth)
    )
    found = match_greedy(detections, masks, scores, THRESHOLDS, iscrowd=iscrowd, ignore=ignore)
    if detections and masks:
        expected = evaluate_img(detections, masks, scores, THRESHOLDS, iscrowd, ignore)
        assert np.array_equal(found, expected)
    else:
        assert torch.equal(found, torch.full((len(THRESHOLDS), len(rles)), -1))


def test_matching_of_images(cpu_backend):
    """As if each image were matched by itself, with indices counted over all of them."""
    parts = [draw_matching(seed, n, m) for seed, n, m in ((1, 9, 5), (2, 7, 8), (3, 12, 4))]
    batches = [fd.pack_rles([part[k] for part in parts]) for k in (0, 1)]
    scores = np.concatenate([part[2] for part in parts])
    iscrowd = [flag for part in parts for flag in part[3]]
    found = match_greedy(*batches, scores, THRESHOLDS, iscrowd=iscrowd).numpy()
    begin, first_truth = 0, 0
    for detections, truth, of_image, crowds, _ in parts:
        none = [False] * len(truth)
        expected = evaluate_img(detections, truth, of_image, THRESHOLDS, crowds, none)
        expected[expected >= 0] += first_truth
        assert np.array_equal(found[:, begin : begin + len(detections)], expected)
        begin += len(detections)
        first_truth += len(truth)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0, 0.3, 0.7])
def test_match_optimal(cpu_backend, seed, threshold):
    optimize = pytest.importorskip("scipy.optimize")
    detections, truth, *_ = draw_matching(seed)
    indices, iou = match_optimal(detections, truth, threshold)
    dense = fd.mask_iou(detections, truth)
    allowed = dense.double().where(dense >= threshold, 0).numpy()
    best = allowed[optimize.linear_sum_assignment(allowed, maximize=True)].sum()
    assert iou.dtype == torch.float32
    assert torch.equal(iou, dense[tuple(indices.T)])
    assert (iou > 0).all()
    assert (iou >= threshold).all()
    assert abs(float(iou.double().sum()) - best) < 1e-6
    assert all(len(set(side)) == len(iou) for side in indices.T.tolist())
    assert indices.tolist() == sorted(indices.tolist())


def test_match_optimal_of_nothing(cpu_backend):
    pytest.importorskip("scipy.optimize")
    mask = {"size": [2, 2], "counts": [0, 1, 3]}
    apart = {"size": [2, 2], "counts": [3, 1]}
    for detections, truth in (([], []), ([mask], []), ([], [mask]), ([mask], [apart])):
        indices, iou = match_optimal(detections, truth)
        assert indices.shape == (0, 2)
        assert len(iou) == 0


def test_without_scipy(monkeypatch):
    imported = builtins.__import__

    def without_scipy(name, *rest, **more):
        if name.startswith("scipy"):
            raise ImportError("No module named 'scipy'")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(ImportError, match=r"needs SciPy .*pip install scipy"):
        match_optimal([], [])


# --- What is refused


def test_malformed_nms(backend, device):
    rle = {"size": [2, 3], "counts": [1, 2, 3]}
    masks = fd.pack_rles([rle] * 2).to(device)
    mixed = fd.pack_rles([rle, {"size": [3, 2], "counts": [6]}]).to(device)
    with pytest.raises(ValueError, match="mask 0 is 2x3, mask 1 is 3x2"):
        nms(mixed, [1, 2], 0.5)
    with pytest.raises(ValueError, match=r"scores must have shape \(2,\), not \(3,\)"):
        nms(masks, [1, 2, 3], 0.5)
    with pytest.raises(ValueError, match="mask 1: its score is NaN"):
        nms(masks, torch.tensor([1, float("nan")], device=device), 0.5)
    with pytest.raises(TypeError, match="real numbers"):
        nms(masks, [1j, 2], 0.5)
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold must be from 0 to 1"):
            nms(masks, [1, 2], threshold)
    with pytest.raises(ValueError, match="iou, containment, not 'dice'"):
        nms(masks, [1, 2], 0.5, "dice")
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\)"):
        nms(masks, [1, 2], 0.5, labels=[1])
    with pytest.raises(TypeError, match="labels must be integers"):
        nms(masks, [1, 2], 0.5, labels=[0.5, 1])
    with pytest.raises(ValueError, match="mask 1"):
        nms([rle, {"size": [2, 3], "counts": [1]}], [1, 2], 0.5)


def test_malformed_matching(cpu_backend):
    masks = [{"size": [2, 3], "counts": [1, 2, 3]}] * 2
    for threshold in (0, -1, 1.5, [0.5, 0], float("nan"), [[0.5]]):
        with pytest.raises(ValueError, match="threshold must be above 0"):
            match_greedy(masks, masks, [1, 2], threshold)
    with pytest.raises(ValueError, match="iscrowd must have shape"):
        match_greedy(masks, masks, [1, 2], iscrowd=[1])
    with pytest.raises(ValueError, match="grouped"):
        match_greedy([masks], masks, [1, 2])
    with pytest.raises(ValueError, match="mask 0 of other is 3x2"):
        iou_pairs(masks, {"size": [3, 2], "counts": [6]})


def test_hostile_suppress(backend, device):
    """Whatever is passed to the operator, it stays inside its buffers."""
    data = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}] * 2).data.to(device)
    order = torch.arange(2)
    with pytest.raises(ValueError, match="sizes and offsets"):
        ops.suppress(data, 3, torch.arange(3), None, 1, 0.5, None)
    with pytest.raises(ValueError, match="sizes and offsets"):
        ops.suppress(data, 2, order, None, 1, 0.5, 7)
    with pytest.raises(ValueError, match="order must be 2 contiguous values"):
        ops.suppress(data, 2, torch.arange(3), None, 1, 0.5, None)
    with pytest.raises(ValueError, match="labels must be 2 contiguous values"):
        ops.suppress(data, 2, order, order.int(), 1, 0.5, None)
    with pytest.raises(ValueError, match="no metric"):
        ops.suppress(data, 2, order, None, 0, 0.5, None)
    with pytest.raises(ValueError, match="num_images"):
        ops.suppress(data, 2, order, None, 1, 0.5, -1)


def test_orders_that_lie(backend, device):
    """A GPU keeps masks that they leave out, since it finds out too late."""
    data = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}] * 2).data.to(device)
    for order in ([0, 2], [-1, 0], [2**63 - 1, -(2**63)]):
        call = (data, 2, torch.tensor(order), None, 1, 0.5, None)
        if backend in (EMULATED, "cuda"):
            assert ops.suppress(*call).tolist() == [True, True]
        else:
            with pytest.raises(IndexError):
                ops.suppress(*call)


def test_hostile_match(cpu_backend):
    """Whatever is passed to the operator, it stays inside its buffers."""
    two = torch.ones(2, dtype=torch.float64)
    flags = torch.zeros(3, dtype=torch.bool)
    order = torch.arange(2)
    for pairs in ([[0, 3], [1, 0]], [[0, -1], [1, 0]], [[0, 0], [2, 0]], [[1, 0], [0, 0]]):
        with pytest.raises(IndexError):
            ops.match(torch.tensor(pairs), two, order, flags, flags, two)
    with pytest.raises(IndexError):
        ops.match(torch.tensor([[0, 0], [1, 0]]), two, order + 1, flags, flags, two)
    with pytest.raises(ValueError, match="contiguous values"):
        ops.match(torch.tensor([[0, 0]]), two, order, flags, flags, two)


# --- As torch sees them


def test_opcheck_suppress(backend, device):
    rles = [draws.to_rle(mask) for mask in crowded(11, n=12)]
    data = fd.pack_rles(rles).data.to(device)
    order, labels = torch.arange(12, device=device), torch.arange(12) % 3
    torch.library.opcheck(ops.suppress.default, (data, 12, order, labels, 1, 0.5, None))
    grouped = fd.pack_rles([rles[:5], [], rles[5:]]).data.to(device)
    torch.library.opcheck(ops.suppress.default, (grouped, 12, order, None, 2, 0.5, 3))


def test_opcheck_match(cpu_backend):
    batch = fd.encode_masks(np.stack(crowded(11, n=12)))
    order = torch.arange(12)
    indices, iou = iou_pairs(batch, batch)
    flags = torch.zeros(12, dtype=torch.bool)
    thresholds = torch.tensor([0.5, 0.75], dtype=torch.float64)
    arguments = indices, iou.double(), order, flags, flags, thresholds
    torch.library.opcheck(ops.match.default, arguments)
