"""`sa1b_fastdecode.mask` gives what pycocotools gives: values, types, dtypes and memory order."""

import json

import numpy as np
import pycocotools.mask as theirs
import pytest
from draws import KINDS, counts_of, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import REAL_DATA, needs_real_data
from reference import counts_to_string, string_to_counts

from sa1b_fastdecode import mask as ours


def check(name, *arguments, **keywords):
    """Call a function of both, compare, and return the result."""
    check.calls += 1
    got = getattr(ours, name)(*arguments, **keywords)
    assert_same(got, getattr(theirs, name)(*arguments, **keywords))
    return got


check.calls = 0


def assert_same(got, expected):
    assert type(got) is type(expected)
    if not isinstance(expected, np.ndarray):
        assert got == expected
        return
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    for flag in ("c_contiguous", "f_contiguous", "writeable", "aligned"):
        assert getattr(got.flags, flag) == getattr(expected.flags, flag), flag
    np.testing.assert_array_equal(got, expected, strict=True)


def draw_mask(rng, h, w):
    return np.asfortranarray(KINDS[rng.integers(len(KINDS))](rng, h, w))


def with_counts(rle, form):
    """Return the RLE with its counts as "str" or run lengths."""
    counts = rle["counts"]
    return {**rle, "counts": counts.decode() if form == "str" else string_to_counts(counts)}


def draw_polygons(rng, n):
    """Random polygons on grids of several widths, partly outside the mask."""
    spread, step = rng.choice([5, 20, 60]), rng.choice([0, 0.1, 0.5, 1])
    points = [rng.normal(10, spread, 2 * rng.integers(3, 9)) for _ in range(n)]
    if step:
        points = [np.round(polygon / step) * step for polygon in points]
    return [polygon.tolist() for polygon in points]


@pytest.mark.parametrize("seed", range(8))
def test_random_calls(cpu_backend, seed):
    """10,000 calls in all on the compiled kernels."""
    rng = np.random.default_rng(seed)
    end = check.calls + (1250 if cpu_backend == "cpp" else 150)
    while check.calls < end:
        h, w = rng.integers(1, 70, 2).tolist()
        n, m = rng.integers(1, 6, 2).tolist()
        dense = np.stack([draw_mask(rng, h, w) for _ in range(n)], axis=2)
        rles = check("encode", np.asfortranarray(dense))
        gt = [theirs.encode(draw_mask(rng, h, w)) for _ in range(m)]
        texts = [with_counts(rle, "str") for rle in rles]
        for k, rle in enumerate(rles):
            assert check("encode", np.asfortranarray(dense[:, :, k])) == rle
            assert (check("decode", rle) == dense[:, :, k]).all()
            check("area", rle)
            check("toBbox", texts[k])
        np.testing.assert_array_equal(check("decode", rles), dense)
        for several in (rles, texts, rles + gt):
            check("area", several)
            check("toBbox", several)
            check("merge", several)
            check("merge", several, True)
            check("merge", several[:1], intersect=1)
        crowd = rng.integers(0, 2, m)
        for flags in (crowd.tolist(), crowd.astype(bool), crowd.astype(np.uint8)):
            check("iou", rles, gt, flags)
        check("iou", texts, texts, [0] * n)
        boxes, others = rng.normal(0, 10, (n, 4)), np.abs(rng.normal(0, 10, (m, 4)))
        check("iou", boxes, others, crowd.tolist())
        check("iou", boxes.tolist(), list(others), crowd.tolist())
        check("iou", np.round(boxes).astype(int), others.tolist(), crowd)
        check("frPyObjects", draw_polygons(rng, n), h, w)
        check("frPyObjects", boxes, h, w)
        check("frPyObjects", np.round(boxes * 5) / 5, h, w)
        uncompressed = [with_counts(rle, "list") for rle in rles]
        check("frPyObjects", uncompressed, h, w)
        check("frPyObjects", uncompressed[0], h, w)
        counts = [float(count) for count in uncompressed[0]["counts"]]  # as JSON may have them
        check("frPyObjects", {"size": [h, w], "counts": counts}, h, w)


def test_masks_of_different_sizes(cpu_backend):
    """-1 where the boxes of two such masks meet."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        shapes = rng.integers(1, 9, (6, 2)).tolist()
        rles = [theirs.encode(draw_mask(rng, h, w)) for h, w in shapes]
        ious = check("iou", rles[:4], rles[2:], [0, 1, 0, 1])
        assert (ious[[2, 3], [0, 1]] >= 0).all()
        check("area", rles)
        check("toBbox", rles)


def test_boxes_without_sense(cpu_backend):
    numbers = [0.0, -0.0, 1.0, -2.0, np.inf, -np.inf, np.nan, 1e308]
    rng = np.random.default_rng(0)
    boxes = rng.choice(numbers, (60, 4))
    check("iou", boxes, boxes[::-1].copy(), [0, 1] * 30)


MASK = {"size": [2, 3], "counts": b"6"}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("decode", [None]),
        ("decode", [5]),
        ("decode", ["66"]),
        ("decode", [[None]]),
        ("decode", [[[MASK]]]),
        ("decode", [{"size": [2, 3], "counts": None}]),
        ("decode", [{"size": [2, 3], "counts": 6}]),
        ("decode", [{"size": [2, 3], "counts": "\u00e9"}]),
        ("decode", [{"size": None, "counts": b"6"}]),
        ("decode", [{"size": "23", "counts": b"6"}]),
        ("area", [None]),
        ("area", [[None]]),
        ("toBbox", [None]),
        ("merge", [MASK]),
        ("merge", [None]),
        ("merge", [[MASK], None]),
        ("merge", [[MASK], []]),
        ("iou", [[MASK], [MASK], [0, 0]]),
        ("iou", [[MASK], [MASK], [-1]]),
        ("iou", [[MASK], [MASK], [256]]),
        ("iou", [[MASK], [MASK], ["a"]]),
        ("iou", [[MASK], [MASK], [None]]),
        ("iou", [[MASK], [MASK], None]),
        ("iou", [[MASK], [MASK], [[0]]]),
        ("iou", [[MASK], np.ones((1, 4)), [0]]),
        ("iou", [[MASK, [1, 2, 3, 4]], [MASK], [0]]),
        ("iou", [[[1, 2, 3]], [[1, 2, 3]], [0]]),
        ("iou", [[["a"] * 4], [["a"] * 4], [0]]),
        ("iou", [None, [MASK], [0]]),
        ("frPyObjects", [None, 2, 3]),
        ("frPyObjects", [5, 2, 3]),
        ("frPyObjects", ["01", 2, 3]),
        ("frPyObjects", [[], 2, 3]),
        ("frPyObjects", [[[]], 2, 3]),
        ("frPyObjects", [[[1, 2]], 2, 3]),
        ("frPyObjects", [[None], 2, 3]),
        ("frPyObjects", [[["a"] * 6], 2, 3]),
        ("frPyObjects", [[[1, 1, 2, 2, 3, 1]], None, 3]),
        ("frPyObjects", [[[1, 1, 2, 2, 3, 1]], "2", 3]),
        ("frPyObjects", [[{"size": [2, 3], "counts": [6]}, [1, 1, 2, 2, 3, 1]], 2, 3]),
    ],
)
def test_types_of_errors(cpu_backend, name, arguments):
    """What catches their error catches ours; docs/pycocotools.md has the exceptions from this."""
    with pytest.raises(Exception) as raised:
        getattr(theirs, name)(*arguments)
    with pytest.raises(raised.type):
        getattr(ours, name)(*arguments)


def truncates(a, b):
    """Whether both have a run of length zero at one place, where pycocotools gets lost."""
    ends = [np.cumsum(string_to_counts(rle["counts"])) for rle in (a, b)]
    twice = [set(each[1:][np.diff(each) == 0].tolist()) for each in ends]
    return bool(twice[0] & twice[1]) or any(0 in each for each in twice)


def test_runs_of_length_zero(cpu_backend):
    """They change no mask, and stay in merged strings where pycocotools leaves them."""
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(200):
        h, w = rng.integers(9, 20, 2).tolist()
        rles = []
        for _ in range(4):
            cuts = np.sort(rng.integers(0, h * w + 1, rng.integers(0, 14)))
            cuts = np.repeat(cuts, rng.integers(1, 4, len(cuts)))
            counts = np.diff(np.concatenate([[0], cuts, [h * w]])).tolist()
            rles.append({"size": [h, w], "counts": counts_to_string(counts)})
        check("merge", rles[:1])
        check("frPyObjects", with_counts(rles[0], "list"), h, w)
        check("area", rles)
        dense = check("decode", rles)
        pairs = [pair for pair in (rles[:2], rles[1:3], rles[2:]) if not truncates(*pair)]
        for intersect, expected in ((0, dense.max(2)), (1, dense.min(2))):
            for pair in pairs:
                check("merge", pair, intersect)
                compared += 1
            np.testing.assert_array_equal(ours.decode(ours.merge(rles, intersect)), expected)
        canonical = theirs.encode(dense)
        crowd = [0, 1, 0, 1]
        assert_same(ours.iou(rles, rles, crowd), theirs.iou(canonical, canonical, crowd))
        assert_same(ours.toBbox(rles), theirs.toBbox(canonical))
    assert compared > 200


@given(data=st.data(), h=sides, w=sides)
@settings(max_examples=60)
def test_drawn_masks(cpu_backend, data, h, w):
    rles = []
    for _ in range(data.draw(st.integers(1, 3))):
        counts = data.draw(counts_of(h, w))
        dense = ours.decode({"size": [h, w], "counts": counts})
        rles.append(check("encode", dense))
        check("frPyObjects", {"size": [h, w], "counts": counts}, h, w)
    check("decode", rles)
    check("merge", rles)
    check("merge", rles, 1)
    check("iou", rles, rles[:1], [data.draw(st.booleans())])


coordinates = st.one_of(
    st.integers(-9, 40), st.integers(-90, 400).map(lambda n: n / 10), st.floats(-300, 300)
)


@given(
    polygons=st.lists(st.lists(coordinates, min_size=5, max_size=15), min_size=1, max_size=3),
    h=st.integers(0, 33),
    w=st.integers(1, 33),
)
@settings(max_examples=300)
def test_drawn_polygons(cpu_backend, polygons, h, w):
    check("frPyObjects", polygons, h, w)


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e6])
def test_long_edges(cpu_backend, scale):
    """Where they lie on the fine grid depends on the last bit of float64."""
    rng = np.random.default_rng(0)
    for _ in range(4 if scale > 1e5 else 20):
        points = rng.normal(0, scale, 6) if rng.random() < 0.5 else rng.normal(50, scale, 6)
        points[:2] = rng.uniform(0, 60, 2)
        check("frPyObjects", [points.tolist()], 50, 60)


def test_many_masks(cpu_backend):
    """Many merge in another order than few, with the same result."""
    rng = np.random.default_rng(0)
    rles = [theirs.encode(draw_mask(rng, 30, 40)) for _ in range(100)]
    for n in (2, 3, 7, 64, 99, 100):
        check("merge", rles[:n])
        check("merge", rles[:n], True)
    # With NumPy 2, pycocotools cannot be asked for the areas of more than 255.
    areas = ours.area(rles * 3)
    assert (areas.dtype, areas.shape) == (np.uint32, (300,))
    assert areas.tolist() == [int(theirs.area(rle)) for rle in rles] * 3


def real_items():
    """Yield the RLEs or annotations of every real file."""
    for path in sorted(REAL_DATA.glob("*/*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, list):
            yield content
        elif "masklet" in content:
            yield [rle for frame in content["masklet"] for rle in frame]
        else:
            yield content.get("annotations", [])


@needs_real_data
def test_real_files(cpu_backend):
    compared = 0
    for items in real_items():
        by_size = {}
        for item in items[:: 1 if cpu_backend == "cpp" else 20]:
            segmentation = item.get("segmentation", item.get("rle", item))
            if isinstance(segmentation, list):
                segmentation = check("frPyObjects", segmentation, 640, 640)[0]
            elif isinstance(segmentation.get("counts"), list):
                segmentation = check("frPyObjects", segmentation, 0, 0)
            if "counts" in segmentation:
                by_size.setdefault(tuple(segmentation["size"]), []).append(segmentation)
        for rles in by_size.values():
            compared += len(rles)
            for start in range(0, len(rles), 200):
                part = rles[start : start + 200]
                check("area", part)
                check("toBbox", part)
                check("merge", part)
                check("iou", part[:40], part[20:80], [k % 2 for k in range(len(part[20:80]))])
                for rle in part[:3]:
                    assert (
                        check("encode", check("decode", rle))["counts"]
                        == check("merge", [rle])["counts"]
                    )
                check("merge", part[:2], True)
    assert compared > (5000 if cpu_backend == "cpp" else 200)
