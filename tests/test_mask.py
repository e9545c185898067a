"""What `sa1b_fastdecode.mask` takes and gives beyond pycocotools, and what it says of nonsense."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from draws import hostile_strings, to_rle
from hypothesis import given, settings
from hypothesis import strategies as st

from sa1b_fastdecode import mask

A = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
B = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
RLES = [to_rle(A), to_rle(B)]
SHORT = {"size": [2, 3], "counts": b"12"}


@pytest.mark.parametrize(
    "arrange",
    [tuple, iter, lambda rles: (rle for rle in rles), lambda rles: np.array(rles, object)],
)
def test_sequences_of_any_kind(cpu_backend, arrange):
    np.testing.assert_array_equal(mask.decode(arrange(RLES)), np.stack([A, B], axis=2))
    assert mask.area(arrange(RLES)).tolist() == [3, 2]
    assert mask.toBbox(arrange(RLES)).tolist() == [[0, 0, 3, 2], [0, 0, 2, 1]]
    np.testing.assert_array_equal(mask.decode(mask.merge(arrange(RLES))), A | B)
    ious = mask.iou(arrange(RLES), arrange(RLES), arrange([0, 0]))
    np.testing.assert_array_equal(ious, [[1, 0.25], [0.25, 1]])
    objects = arrange([to_rle(A, "list")])
    assert mask.frPyObjects(objects, 2, 3) == RLES[:1]


@pytest.mark.parametrize(
    "convert",
    [str, np.str_, bytearray, memoryview, np.bytes_, lambda b: np.array([1, 1, 1, 1, 2])],
)
def test_counts_of_any_kind(cpu_backend, convert):
    counts = RLES[0]["counts"]
    counts = counts.decode() if convert in (str, np.str_) else counts
    rle = {"size": np.array([2, 3]), "counts": convert(counts)}
    if isinstance(rle["counts"], np.ndarray):
        rle["counts"] = np.array([1, 2, 1, 1, 1][: len(mask.decode(RLES[0]).T.ravel())])
        rle["counts"] = np.array([1, 2, 1, 1, 1])
    assert mask.area(rle) == 3
    np.testing.assert_array_equal(mask.decode([rle, RLES[1]])[:, :, 0], A)


def test_sizes_as_json_has_them(cpu_backend):
    assert mask.area({"size": (2.0, 3.0), "counts": RLES[0]["counts"]}) == 3
    assert mask.frPyObjects([[0, 0, 2, 0, 2, 2]], 2.0, np.float32(3))[0]["size"] == [2, 3]
    with pytest.raises(TypeError, match="size must be two integers"):
        mask.area({"size": (2.5, 3), "counts": "6"})
    with pytest.raises(TypeError, match=r"h and w must be integers, not 2\.5"):
        mask.frPyObjects([[0, 0, 2, 0, 2, 2]], 2.5, 3)


def test_text_by_choice(cpu_backend):
    expected = to_rle(A, "str")
    assert mask.encode(A, counts="str") == expected
    assert mask.encode(A[:, :, None], counts="str") == [expected]
    assert mask.merge([expected], counts="str") == expected
    assert mask.merge([], counts="str") == {"size": [0, 0], "counts": ""}
    assert mask.frPyObjects(to_rle(A, "list"), 2, 3, counts="str") == expected
    polygon = [[0, 0, 2, 0, 2, 2]]
    as_bytes = mask.frPyObjects(polygon, 2, 3)[0]["counts"]
    assert mask.frPyObjects(polygon, 2, 3, counts="str")[0]["counts"] == as_bytes.decode()
    with pytest.raises(ValueError, match='"bytes" or "str"'):
        mask.encode(A, counts="list")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16, np.float64, ">i4", "g"])
def test_masks_of_any_dtype_and_order(cpu_backend, dtype):
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 2, (20, 30, 4)).astype(dtype) * 1
    expected = [to_rle(np.asarray(dense[:, :, k] != 0)) for k in range(4)]
    for layout in (dense, np.asfortranarray(dense), dense[::-1, ::-1][::-1, ::-1]):
        assert mask.encode(layout) == expected
        assert mask.encode(layout[:, :, 1]) == expected[1]
    transposed = np.ascontiguousarray(dense.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert mask.encode(transposed) == expected
    assert mask.encode((dense != 0).tolist()) == expected


def test_every_value_but_zero_is_foreground(cpu_backend):
    """pycocotools starts a run wherever the value changes."""
    values = np.array([[0, 1, 2, 255, -0.0, np.nan]])
    assert mask.encode(values) == to_rle(np.array([[0, 1, 1, 1, 0, 1]]))
    assert mask.encode(values[:, :4].astype(np.uint8)) == to_rle(np.array([[0, 1, 1, 1]]))


def test_nothing(cpu_backend):
    assert mask.decode([]).shape == (0, 0, 0)
    assert (mask.area([]).dtype, mask.area([]).shape) == (np.uint32, (0,))
    assert (mask.toBbox([]).dtype, mask.toBbox([]).shape) == (np.float64, (0, 4))
    assert mask.merge([]) == {"size": [0, 0], "counts": b""}
    assert mask.iou([], RLES, [0, 0]) == mask.iou(RLES, [], []) == mask.iou([], [], []) == []
    assert mask.iou(np.zeros((0, 4)), [[1, 2, 3, 4]], [0]) == []
    assert mask.encode(np.zeros((2, 3, 0), np.uint8)) == []
    for shape in ((0, 3), (3, 0), (0, 0)):
        rle = mask.encode(np.zeros(shape, np.uint8))
        assert rle == {"size": list(shape), "counts": b"0"}
        assert mask.decode(rle).shape == shape
        assert mask.merge([rle, rle]) == mask.merge([rle, rle], 1) == rle
        assert mask.toBbox(rle).tolist() == [0, 0, 0, 0]
        assert mask.iou([rle], [rle], [0]).tolist() == [[0]]
        assert mask.frPyObjects([[0, 0, 2, 0, 2, 2]], *shape) == [rle]
    assert mask.frPyObjects(np.zeros((0, 4)), 2, 3) == []
    with pytest.raises(IndexError):
        mask.frPyObjects([], 2, 3)


def test_a_box_around_runs_of_no_length(cpu_backend):
    assert mask.toBbox({"size": [2, 3], "counts": [3, 0, 3]}).tolist() == [0, 0, 0, 0]


def test_boxes_and_single_objects_as_lists(cpu_backend):
    """Where pycocotools raises for all but an array."""
    box, polygon = [0.5, 0.0, 2.0, 2.0], [0, 0, 2, 0, 2, 2]
    expected = mask.frPyObjects(np.array([box]), 2, 3)
    for boxes in ([box], (tuple(box),), np.array([box], np.float32), [np.array(box)]):
        assert mask.frPyObjects(boxes, 2, 3) == expected
    columns = np.asfortranarray([box, [0.0, 0.0, 1.0, 1.0]])
    assert mask.frPyObjects(columns, 2, 3)[:1] == expected
    assert mask.frPyObjects(box, 2, 3) == expected[0]
    assert mask.frPyObjects(polygon, 2, 3) == mask.frPyObjects([polygon], 2, 3)[0]


@pytest.mark.parametrize("call", [mask.decode, mask.area, mask.toBbox, mask.merge])
def test_malformed_masks_are_named(cpu_backend, call):
    for counts, fault in {
        b"12": "counts add up to 3, but a mask of 2x3 has 6 pixels",
        b"1f": "counts end in the middle",
        b"7": "counts add up to 7",
        "\x00": "character 0 of counts",
        "é": "character 0 of counts is 'é'",
        b"": "counts are empty",
    }.items():
        with pytest.raises(ValueError, match=f"mask 1: {fault}"):
            call([RLES[0], {"size": [2, 3], "counts": counts}])
    for rle, error in {
        ("size", "counts"): TypeError,
        None: TypeError,
        5: TypeError,
    }.items():
        with pytest.raises(error, match="mask 1: expected an RLE dict"):
            call([RLES[0], rle])
    for rle in ({"size": [2, 3]}, {"counts": "6"}, {}):
        with pytest.raises(ValueError, match="mask 0: the RLE has no"):
            call([rle])
    for size in ([-1, 3], [2**32, 1], [2**20, 2**20], [2**70, 1], [2]):
        with pytest.raises(ValueError, match="mask 0: size"):
            call([{"size": size, "counts": b"6"}])
    for nothing in (None, 5, "66", b"66"):
        with pytest.raises(TypeError, match="expected a sequence of RLEs"):
            call(nothing)


@pytest.mark.parametrize("call", [mask.decode, mask.merge])
def test_different_sizes_are_named(cpu_backend, call):
    with pytest.raises(ValueError, match="mask 0 is 2x3, mask 2 is 3x2"):
        call([*RLES, {"size": [3, 2], "counts": b"6"}])


def test_errors_of_iou(cpu_backend):
    with pytest.raises(AssertionError, match="must have the same length as gt"):
        mask.iou(RLES, RLES, [0])
    with pytest.raises(ValueError, match="gt: mask 1: counts add up to 3"):
        mask.iou(RLES, [RLES[0], SHORT], [0, 0])
    with pytest.raises(ValueError, match="dt: mask 0: counts add up to 3"):
        mask.iou([SHORT], RLES, [0, 0])
    for dt, gt in ((RLES, [[1, 2, 3, 4]] * 2), (np.ones((2, 4)), RLES)):
        with pytest.raises(TypeError, match="both be RLEs, or both boxes"):
            mask.iou(dt, gt, [0, 0])
    for wrong in (RLES[0], "ab", None, 3, [RLES[0], [1, 2, 3, 4]]):
        with pytest.raises(TypeError):
            mask.iou(wrong, RLES, [0, 0])
    for wrong in (["ab"], [[1, 2, 3, "x"]]):
        with pytest.raises(ValueError, match="expected RLEs, or boxes of four numbers"):
            mask.iou(wrong, RLES, [0, 0])
    for boxes in (np.ones(4), np.ones((2, 5)), [[1, 2, 3]]):
        with pytest.raises(ValueError, match=r"boxes must have shape \(N, 4\)"):
            mask.iou(boxes, RLES, [0, 0])
    for iscrowd, error in {None: TypeError, 3: TypeError, ((0, 1), (0, 1)): ValueError}.items():
        with pytest.raises(error):
            mask.iou(RLES, RLES, iscrowd)
    with pytest.raises(OverflowError):
        mask.iou(RLES, RLES, [0, -1])


@pytest.mark.parametrize(
    ("objects", "error", "message"),
    [
        ([[0, 0, 1, np.nan, 2, 2]], ValueError, "object 0: coordinate nan"),
        ([[0, 0, 1, 0, 2, 2], [0, 0, 1e300, 0, 2, 2]], ValueError, "object 1: coordinate 1e.300"),
        ([[0, 0, 1, 0, 2, 10**400]], ValueError, "object 0"),
        (np.array([[0, 0, np.inf, 2.0]]), ValueError, "object 0: coordinate inf"),
        ([[0, 0, 1, 0, 2, 2], []], ValueError, "object 1 has 0 numbers"),
        ([[]], ValueError, "object 0 has 0 numbers"),
        ([[1, 2]], ValueError, "object 0 has 2 numbers"),
        ([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], ValueError, "object 1 has 6 numbers"),
        ([[[0, 0], [1, 0], [2, 2], [0, 2], [0, 1]]], ValueError, "flat list"),
        ([[0, 0, 1, 0, 2, 2], {"size": [2, 3], "counts": [6]}], TypeError, "object 1"),
        ([{"size": [2, 3], "counts": [6]}, [0, 0, 1, 0, 2, 2]], TypeError, "mask 1"),
        ([[0, 0, 1, "x", 2, 2]], ValueError, "object 0"),
        ([None], TypeError, "object 0"),
        ("012345", TypeError, "str"),
        (None, TypeError, "NoneType"),
        (np.ones((2, 5)), ValueError, "boxes must have shape"),
        (np.ones((2, 3, 4)), ValueError, "object 0"),
        ({"size": [2, 3], "counts": [1, 2]}, ValueError, "counts add up to 3"),
        ({"size": [2, 3], "counts": [-1, 7]}, ValueError, "run length -1"),
        ({"size": [2, 3], "counts": [2**70]}, ValueError, "run length"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, TypeError, "run lengths must be integers"),
        ({"size": [2, 3]}, ValueError, "no 'counts'"),
    ],
)
def test_errors_of_objects(cpu_backend, objects, error, message):
    with pytest.raises(error, match=message):
        mask.frPyObjects(objects, 2, 3)


def test_errors_of_sides_and_dense_masks(cpu_backend):
    polygon = [[0, 0, 2, 0, 2, 2]]
    for h, w in ((-1, 3), (2**32, 1), (2**20, 2**20), (2**70, 1)):
        with pytest.raises(ValueError, match=r"h and w must be|too large"):
            mask.frPyObjects(polygon, h, w)
    with pytest.raises(TypeError, match="h and w must be integers, not 'a'"):
        mask.frPyObjects(polygon, "a", 3)
    for array in (A[0], np.zeros((1, 1, 1, 1), np.uint8)):
        with pytest.raises(ValueError, match="shape"):
            mask.encode(array)
    for array in (A.astype(complex), A.astype(str), None):
        with pytest.raises(TypeError, match="bool, integers or floats"):
            mask.encode(array)
    huge = np.lib.stride_tricks.as_strided(A, (2**17, 2**17), (0, 0))
    with pytest.raises(ValueError, match="too large"):
        mask.encode(huge)


def naive_nms(ious, scores, threshold):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(ious[k, i] <= threshold for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0, 0.3, 0.5, 1])
def test_nms(cpu_backend, threshold):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 20, 60) / 20
    boxes = np.hstack([rng.uniform(0, 20, (60, 2)), rng.uniform(1, 20, (60, 2))])
    rles = mask.frPyObjects(boxes, 40, 40)
    for objects in (boxes, boxes.tolist(), rles, tuple(rles)):
        ious = mask.iou(objects, objects, [0] * 60)
        kept = mask.nms(objects, scores, threshold)
        assert kept.dtype == np.int64
        assert kept.tolist() == naive_nms(ious, scores, threshold)


def test_nms_of_many_that_all_overlap(cpu_backend):
    rles = [RLES[0]] * 70
    assert mask.nms(rles, np.arange(70)).tolist() == [69]
    assert mask.nms(rles, [0] * 70, 1).tolist() == list(range(70))
    assert mask.nms([], []).tolist() == []


def test_nms_keeps_no_pairs():
    """Of 6,000 masks that all overlap there are 18 million."""
    code = """
import resource
from sa1b_fastdecode import mask
rles = [{"size": [2, 3], "counts": "15"}] * 6000
mask.nms(rles[:9], range(9), 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(mask.nms(rles, range(6000), 1)) == 6000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32 << 10  # KiB


def test_errors_of_nms(cpu_backend):
    with pytest.raises(ValueError, match=r"scores must have shape \(2,\)"):
        mask.nms(RLES, [0.5])
    with pytest.raises(ValueError, match="threshold"):
        mask.nms(RLES, [0.5, 0.6], 1.5)
    with pytest.raises(ValueError, match="mask 1: counts add up to 3"):
        mask.nms([RLES[0], SHORT], [0.5, 0.6])
    with pytest.raises(ValueError, match="differ in size"):
        mask.nms([RLES[0], {"size": [3, 2], "counts": b"6"}], [0.5, 0.6])


class Mutating(str):
    """A key that changes the dict and the list it is looked up in."""

    __slots__ = ("victims",)

    def __eq__(self, other):
        for victim in self.victims:
            victim.clear()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("call", [mask.decode, mask.area, mask.toBbox, mask.merge])
def test_keys_that_mutate(cpu_backend, call):
    for name in ("size", "counts"):
        rle = dict(RLES[0])
        value = rle.pop(name)
        key = Mutating(name)
        key.victims = []
        rle[key] = value
        rles = [rle, RLES[1]]
        key.victims = [rle, rles]
        try:
            result = call(rles)
        except (TypeError, ValueError, RuntimeError):
            continue
        # What is left of the list when it is read again: nothing.
        assert len(result) == 0 or result["size"] == [0, 0]


nasty = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        hostile_strings,
        hostile_strings.map(lambda b: b.decode("latin-1")),
        st.just(np.zeros(3)),
        st.just(RLES[0]),
        st.builds(
            lambda h, w, counts: {"size": [h, w], "counts": counts},
            st.integers(-1, 9),
            st.integers(-1, 9) | st.integers(),
            hostile_strings | st.lists(st.integers(-1, 40), max_size=9),
        ),
    ),
    lambda inner: st.lists(inner, max_size=6) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(one=nasty, other=nasty, third=nasty)
@settings(max_examples=300)
def test_any_object(cpu_backend, one, other, third):
    """Whatever it is, there is a result or an error that says what is wrong, and no crash."""
    for call in (
        lambda: mask.decode(one),
        lambda: mask.area(one),
        lambda: mask.toBbox(one),
        lambda: mask.merge(one, third),
        lambda: mask.iou(one, other, third),
        lambda: mask.iou([RLES[0]], one, other),
        lambda: mask.frPyObjects(one, 4, 5),
        lambda: mask.frPyObjects([one, other], 4, third),
        lambda: mask.nms(one, [1]),
        lambda: mask.encode(one),
    ):
        try:
            call()
        except (TypeError, ValueError, AssertionError, IndexError, OverflowError):
            pass


def test_several_threads(cpu_backend):
    """Long calls let other threads run, on memory of their own."""
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 2, (500, 600, 2), dtype=np.uint8)
    rles, failed = mask.encode(dense), []

    def work():
        for _ in range(5):
            if not (mask.decode(rles) == dense).all() or mask.encode(dense) != rles:
                failed.append(1)
            if mask.decode(mask.merge(rles)).sum() != (dense.max(2)).sum():
                failed.append(2)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_no_memory_stays():
    """A worker may call for days."""
    code = """
import resource, numpy as np
from sa1b_fastdecode import mask
dense = np.random.default_rng(0).integers(0, 2, (200, 200, 5), dtype=np.uint8)
def work():
    rles = mask.encode(dense)
    mask.decode(rles), mask.area(rles), mask.toBbox(rles), mask.iou(rles, rles, [0] * 5)
    mask.merge(rles), mask.merge(rles[:1]), mask.nms(rles, range(5))
    mask.frPyObjects([[0.0, 0.0, 99.0, 0.0, 99.0, 99.0]] * 50, 200, 200)
    for wrong in (mask.area, mask.merge, mask.decode):
        try: wrong([{"size": [2, 3], "counts": b"1"}] * 10)
        except ValueError: pass
for _ in range(30): work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(200): work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4096  # KiB; each work() handles 1 MB
