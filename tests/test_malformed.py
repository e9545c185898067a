"""What is wrong is said, with the mask it is in; and nothing crashes, whatever the bytes are."""

import contextlib
import functools
import subprocess
import sys

import draws
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode import RLEBatch, dispatch

GOOD = {"size": [4, 5], "counts": [3, 7, 10]}
GOOD_STRING = b"37:"
BATCH = fd.pack_rles([GOOD] * 3)


def counts(counts):
    return {"size": [4, 5], "counts": counts}


def size(size):
    return {"size": size, "counts": [3, 7, 10]}


def string(*values):
    """Characters of values of 6 bits."""
    return bytes(48 + value for value in values)


# (what is wrong, the RLE, the type of the error, what its message must say)
MALFORMED = [
    # The sum
    ("sum too short", counts([3, 7, 9]), ValueError, "add up to 19.*4x5 has 20"),
    ("sum too long", counts([3, 7, 11]), ValueError, "add up to 21.*4x5 has 20"),
    ("sum of string too short", counts(b"379"), ValueError, "add up to 19.*4x5 has 20"),
    ("sum of string too long", counts("37;"), ValueError, "add up to 21.*4x5 has 20"),
    ("sum past 32 bits", counts([2**32 - 1, 21]), ValueError, "add up to 4294967316"),
    ("sum past 64 bits is still found", counts([2**32 - 1] * 9), ValueError, "add up to"),
    ("no counts in list", counts([]), ValueError, "empty.*4x5"),
    ("no counts in string", counts(""), ValueError, "empty.*4x5"),
    ("no counts in bytes", counts(b""), ValueError, "empty.*4x5"),
    ("no counts in array", counts(np.array([], np.int64)), ValueError, "empty.*4x5"),
    ("only zeros", counts([0, 0, 0]), ValueError, "add up to 0"),
    # The string
    ("truncated", counts(b"37Z"), ValueError, "middle of a run length.*character 3"),
    ("one continued character", counts(string(63)), ValueError, "middle.*character 1"),
    ("endless continuation", counts(string(32) * 500), ValueError, "longer than 7"),
    (
        "eight characters",
        counts(string(35, 32, 32, 32, 32, 32, 32, 0)),
        ValueError,
        "longer than 7",
    ),
    ("late eight characters", counts(b"37" + string(*[32] * 7, 0)), ValueError, "character 2"),
    ("character 47", counts(b"3/7:"), ValueError, r"character 1.*b'/'"),
    ("character 112", counts(b"37p"), ValueError, r"character 2.*b'p'"),
    ("character 127", counts(b"37\x7f"), ValueError, "character 2"),
    ("character 255", counts(b"\xff37:"), ValueError, "character 0"),
    ("character 128", counts(b"37:\x80"), ValueError, "character 3"),
    ("NUL", counts(b"37:\x00"), ValueError, "character 3"),
    ("NUL in str", counts("37:\0"), ValueError, "character 3"),
    ("space", counts("3 7:"), ValueError, "character 1"),
    ("newline", counts("37:\n"), ValueError, "character 3"),
    ("wrong second character", counts(string(35, 90)), ValueError, "character 1"),
    ("non-ASCII str", counts("37é"), ValueError, "character 2.*é"),
    ("full-width digit", counts("3\uff17:"), ValueError, "character 1"),
    ("lone surrogate", counts("37\ud800"), ValueError, "character 2"),
    ("character of 32 bits", counts("37\U0001f600"), ValueError, "character 2"),
    # Run lengths
    ("negative first count in string", counts(string(31, 21)), ValueError, "run length 0.* -1"),
    ("difference below zero", counts(string(3, 3, 1, 28, 1)), ValueError, "run length 3.* -1"),
    (
        "difference past 32 bits",
        counts(reference.counts_to_string([0, 2**32 - 1, 0]) + string(1)),
        ValueError,
        "run length 3.* 4294967296",
    ),
    ("35 bits", counts(string(63, 63, 63, 63, 63, 63, 15)), ValueError, "run length 0"),
    ("most negative", counts(string(32, 32, 32, 32, 32, 32, 16)), ValueError, "run length 0 .*-"),
    ("negative count", counts([3, -7, 24]), ValueError, "-7"),
    ("negative count in array", counts(np.array([3, -7, 24])), ValueError, "-7"),
    ("negative count in tensor", counts(torch.tensor([3, -7, 24])), ValueError, "-7"),
    ("count of 2**32", counts([2**32, 0]), ValueError, "4294967296"),
    ("count of 2**32 + 20", counts([2**32 + 20]), ValueError, "4294967316"),
    ("count of 2**32 + 20 in array", counts(np.array([2**32 + 20])), ValueError, "4294967316"),
    ("count of 2**40", counts([2**40]), ValueError, str(2**40)),
    ("count of 2**64 + 20", counts([2**64 + 20]), ValueError, str(2**64 + 20)),
    ("count of -2**64 + 20", counts([20 - 2**64]), ValueError, str(20 - 2**64)),
    ("uint64 count", counts(np.array([2**63 + 1], np.uint64)), ValueError, str(2**63 + 1)),
    ("float count", counts([3, 7.0, 10]), TypeError, "integers.*7.0"),
    ("NaN", counts([3, float("nan"), 10]), TypeError, "integers.*nan"),
    ("float array", counts(np.array([3.0, 7.0, 10.0])), TypeError, "integers.*3.0"),
    ("float tensor", counts(torch.tensor([3.0, 7.0, 10.0])), TypeError, "integers.*3.0"),
    ("bool count", counts([True, 19]), TypeError, "integers.*True"),
    ("bool array", counts(np.ones(20, bool)), TypeError, "integers.*True"),
    ("nested counts", counts([[3, 7, 10]]), TypeError, r"integers.*\[3, 7, 10\]"),
    ("array of two dimensions", counts(np.ones((4, 5), int)), TypeError, r"\(4, 5\)"),
    ("array of no dimension", counts(np.array(20)), TypeError, r"one-dimensional.*\(\)"),
    ("str in counts", counts(["3", "7", "10"]), TypeError, "integers.*'3'"),
    ("None in counts", counts([None, 20]), TypeError, "integers.*None"),
    ("complex array", counts(np.array([20j])), TypeError, "integers"),
    (
        "tensor with gradient",
        counts(torch.tensor([20.0], requires_grad=True)),
        TypeError,
        "integers",
    ),
    (
        "tensor without values",
        counts(torch.zeros(2, dtype=torch.int64, device="meta")),
        TypeError,
        "",
    ),
    ("counts of None", counts(None), TypeError, "NoneType"),
    ("counts of int", counts(20), TypeError, "int"),
    ("counts of float", counts(20.0), TypeError, "float"),
    ("counts of dict", counts({3: 7}), TypeError, "dict"),
    ("counts of set", counts({3, 7, 10}), TypeError, "set"),
    ("counts of generator", counts(i for i in (3, 7, 10)), TypeError, "generator"),
    # The size
    ("size zero and counts", size([0, 5]), ValueError, "add up to 20.*0x5 has 0"),
    ("size 0x0 and counts", size([0, 0]), ValueError, "add up to 20.*0x0 has 0"),
    ("negative height", size([-4, 5]), ValueError, "-4x5"),
    ("negative sides", size([-4, -5]), ValueError, "-4x-5"),
    ("product of 2**32", size([2**16, 2**16]), ValueError, "65536x65536.*2\\*\\*32"),
    ("side of 2**32", size([2**32, 1]), ValueError, "4294967296x1"),
    ("side of 2**32 and none", size([0, 2**32]), ValueError, "0x4294967296"),
    ("product that wraps to 20", size([2**62 + 5, 4]), ValueError, "too large"),
    ("side of 2**64 + 4", size([2**64 + 4, 5]), ValueError, "too large"),
    ("side of -2**64 + 4", size([4 - 2**64, 5]), ValueError, "negative"),
    ("one side", size([20]), ValueError, "has 1"),
    ("three sides", size([4, 5, 1]), ValueError, "has 3"),
    ("no sides", size([]), ValueError, "has 0"),
    ("float sides", size([4.0, 5.0]), TypeError, r"integers.*4\.0"),
    ("float array as size", size(np.array([4.0, 5.0])), TypeError, "integers"),
    ("strings as sides", size(["4", "5"]), TypeError, "'4'"),
    ("string as size", size("45"), TypeError, "'45'"),
    ("bytes as size", size(b"\x04\x05"), TypeError, "integers"),
    ("None as size", size(None), TypeError, "None"),
    ("int as size", size(20), TypeError, "20"),
    ("None as side", size([4, None]), TypeError, "None"),
    ("set as size", size({4, 5}), TypeError, "integers"),
    ("dict as size", size({"h": 4, "w": 5}), TypeError, "integers"),
    ("no size", {"counts": b"37:"}, ValueError, "no 'size'"),
    ("no counts", {"size": [4, 5]}, ValueError, "no 'counts'"),
    ("nothing", {}, ValueError, "no '"),
    # Other things
    ("None", None, TypeError, "NoneType"),
    ("int", 7, TypeError, "int"),
    ("str", "37:", TypeError, "str"),
    ("bytes", b"37:", TypeError, "bytes"),
    ("set", {3, 7}, TypeError, "set"),
    ("list", [3, 7, 10], TypeError, "list"),
    ("generator", (i for i in ()), TypeError, "generator"),
    ("array", np.zeros((4, 5), np.uint8), TypeError, "ndarray"),
    ("object", object(), TypeError, "object"),
    # Annotations
    ("polygons", {"segmentation": [[0, 0, 3, 0, 3, 3]]}, ValueError, "polygon"),
    ("no polygons", {"segmentation": []}, ValueError, "polygon"),
    ("segmentation of None", {"segmentation": None}, TypeError, "NoneType"),
    ("segmentation of str", {"segmentation": "37:"}, TypeError, "str"),
    ("segmentation without size", {"segmentation": {"counts": b"37:"}}, ValueError, "no 'size'"),
    ("bad segmentation", {"segmentation": counts(b"379")}, ValueError, "add up to 19"),
]


def error_of(function, *arguments, **keywords):
    """Return the type and the message of what a call raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        function(*arguments, **keywords)
    return caught.type, str(caught.value)


@pytest.mark.parametrize(
    ("rle", "kind", "message"), [c[1:] for c in MALFORMED], ids=[c[0] for c in MALFORMED]
)
def test_malformed(backend, rle, kind, message):
    """As the third of five masks, among strings and among lists."""
    for good in (GOOD, counts(GOOD_STRING)):
        with pytest.raises(kind, match=rf"(?s)^mask 2: .*{message}"):
            fd.pack_rles([good, good, rle, good, good])
    with pytest.raises(kind, match=rf"(?s)^image 1, mask 1: .*{message}"):
        fd.pack_rles([[GOOD], [GOOD, rle]])
    with pytest.raises(kind, match=rf"(?s)^mask 1: .*{message}"):
        fd.decode_rle_batch([GOOD, rle])


@pytest.mark.parametrize(
    "rle", [c[1] for c in MALFORMED if isinstance(c[1], dict)],
    ids=[c[0] for c in MALFORMED if isinstance(c[1], dict)],
)  # fmt: skip
def test_malformed_alone(backend, rle):
    """A dict by itself is a batch of one."""
    _, message = error_of(fd.pack_rles, rle)
    assert message.startswith("mask 0: ")


def test_messages_are_the_same_on_every_backend():
    names = [found.name for found in dispatch.backends() if found.available]
    for what, rle, *_ in MALFORMED:
        errors = set()
        for name in names:
            with dispatch.use(name):
                errors.add(error_of(fd.pack_rles, [GOOD, rle]))
        assert len(errors) == 1, what


def test_the_first_of_several_is_named(backend):
    rles = [GOOD, counts(b"379"), GOOD, counts(b"")]
    assert error_of(fd.pack_rles, rles)[1].startswith("mask 1: ")
    # Whether a mask is read or checked wrong is found in two passes.
    assert error_of(fd.pack_rles, [counts(b"379"), counts(None)])[1].startswith("mask ")


@pytest.mark.parametrize(
    "rles",
    [None, 3, "37:", b"37:", {3}, (rle for rle in [GOOD]), np.zeros((2, 4, 5)), object(), 1.5],
    ids=repr,
)
def test_not_rles(backend, rles):
    with pytest.raises(TypeError, match=type(rles).__name__):
        fd.pack_rles(rles)


@pytest.mark.parametrize(
    "rles",
    [
        [GOOD, [GOOD]],
        [[GOOD], GOOD],
        [[GOOD], None],
        [[GOOD], "37:"],
        [[GOOD], [[GOOD]]],
        [BATCH, GOOD],
    ],
    ids=["list in masks", "mask in lists", "None", "str", "too deep", "mask after batch"],
)  # fmt: skip
def test_nests_that_are_uneven(backend, rles):
    with pytest.raises(TypeError, match=r"(mask|image) 1"):
        fd.pack_rles(rles)


@pytest.mark.parametrize("annotations", [None, 3, "37:", {"a": GOOD}])
def test_annotations_of_a_wrong_kind(backend, annotations):
    with pytest.raises(TypeError, match=type(annotations).__name__):
        fd.pack_rles({"annotations": annotations})


@pytest.mark.parametrize(
    "sizes", [np.zeros((3, 2), int), np.zeros(2, int), np.zeros((2, 3), int), np.zeros((2, 0), int)]
)
def test_columns_of_another_length(backend, sizes):
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        fd.pack_rles((np.array([b"37:", b"37:"], object), sizes))


def test_columns_with_a_bad_mask(backend):
    sizes = np.full((3, 2), (4, 5))
    with pytest.raises(ValueError, match=r"^mask 1: .*add up to 19"):
        fd.pack_rles((np.array([b"37:", b"379", b"37:"], object), sizes))
    with pytest.raises(TypeError, match=r"^mask 0: .*integers"):
        fd.pack_rles((np.array([b"37:"], object), np.array([[4.0, 5.0]])))
    with pytest.raises(TypeError, match=r"^mask 1: .*NoneType"):
        fd.pack_rles((np.array([b"37:", None], object), sizes[:2]))


# --- Odd, but it means something


def test_what_pycocotools_accepts_is_exact(backend):
    for values in ([0, 20], [0, 3, 17], [3, 0, 2, 15], [20, 0], [20], [0, 0, 20], [5, 0, 0, 15, 0]):
        rle = counts(values)
        expected = coco_mask.decode(coco_mask.frPyObjects(rle, 4, 5))
        for form in (values, reference.counts_to_string(values)):
            assert np.array_equal(fd.decode_rle_batch(counts(form))[0].numpy(), expected)


@pytest.mark.parametrize("values", [[], [0], [0, 0, 0]])
@pytest.mark.parametrize("sides", [(0, 0), (0, 5), (5, 0), (0, 2**32 - 1)])
def test_size_zero_holds_nothing(backend, values, sides):
    for form in (values, reference.counts_to_string(values)):
        batch = fd.pack_rles({"size": sides, "counts": form})
        assert batch.decode().shape == (1, *sides)
        assert batch.area().tolist() == [0]
        assert batch.bbox().tolist() == [[0, 0, 0, 0]]
        assert bool(batch.centroid().isnan().all())


@given(draws.hostile_strings, st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=500)
def test_accepted_exactly_if_it_is_a_mask(backend, characters, h, w):
    """The reference decides; what it accepts is decoded as it says."""
    inside = all(48 <= character < 112 for character in characters)
    ended = not characters or characters[-1] - 48 < 32
    longest = max(map(len, bytes(c & 32 for c in (b - 48 & 63 for b in characters)).split(b"\0")))
    values = reference.string_to_counts(characters) if inside and ended else []
    valid = inside and ended and longest < 7
    valid = valid and all(0 <= value < 2**32 for value in values) and sum(values) == h * w
    rle = {"size": [h, w], "counts": characters}
    if valid:
        assert np.array_equal(fd.decode_rle_batch(rle)[0], reference.decode(values, h, w))
    else:
        assert error_of(fd.decode_rle_batch, rle)[1].startswith("mask 0: ")


# --- Without validation: no rule is broken but that of pixels


@functools.cache
def available():
    return [found.name for found in dispatch.backends() if found.available]


@given(
    st.lists(draws.hostile_strings, min_size=1, max_size=6),
    st.sampled_from([(1, 1), (5, 7), (64, 3), (3, 70), (33, 33), (0, 4), (5000, 1), (1, 4096)]),
)
@settings(max_examples=1000)
def test_hostile_strings(strings, sides):
    """Zeros and ones only, and the same ones on every backend."""
    rles = [{"size": sides, "counts": characters} for characters in strings]
    results = []
    for name in available():
        with dispatch.use(name):
            batch = fd.pack_rles(rles, validate=False)
            out = torch.full((len(rles), *sides), 0xA5, dtype=torch.uint8)
            batch.decode(out=out)
            assert not out.numel() or int(out.max()) <= 1
            small = batch.decode(size=(9, 11))
            centroid = batch.centroid().nan_to_num(-1)
            shared = batch.intersection(batch)
            results.append([out, small, batch.area(), batch.bbox(), centroid, shared])
            results[-1] += [batch.iou(batch[:]), *batch.intersecting_pairs(batch[:2])]
            pixels = out.flatten(1).double()
            assert torch.equal(shared.double(), pixels @ pixels.T)
            # What is counted is what is drawn.
            drawn = torch.stack([plane.sum(dtype=torch.int64) for plane in out])
            assert torch.equal(batch.area(), drawn)
            assert [rle["counts"] for rle in batch.to_coco("bytes")] == strings
            results[-1].append(
                torch.tensor([n for rle in batch.to_coco("list") for n in rle["counts"]])
            )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@given(draws.hostile_strings)
@settings(max_examples=300)
def test_hostile_strings_of_the_largest_masks(characters):
    """Positions up to 2**32, and counts that would take them beyond it."""
    areas = set()
    for name in available():
        with dispatch.use(name):
            batch = fd.pack_rles({"size": [65535, 65537], "counts": characters}, validate=False)
            area = int(batch.area())
            assert 0 <= area < 2**32
            x, y, w, h = batch.bbox()[0].tolist()
            assert 0 <= x <= x + w <= 65537
            assert 0 <= y <= y + h <= 65535
            crop = batch.decode(crop=(65000, 65530, 535, 7))
            assert int(crop.max()) <= 1
            assert batch.intersection(batch).tolist() == batch.intersection(batch[:]).tolist()
            assert batch.intersection(batch).tolist() == [[area]]
            areas.add((area, x, y, w, h, int(crop.sum())))
    assert len(areas) == 1


# --- Arguments of decode


def test_mixed_sizes_need_padding(backend):
    batch = fd.pack_rles([GOOD, GOOD, {"size": [6, 5], "counts": [30]}])
    with pytest.raises(ValueError, match=r"mask 0 is 4x5, mask 2 is 6x5.*pad"):
        batch.decode()
    with pytest.raises(ValueError, match=r"\(5, 5\).*6x5"):
        batch.decode(pad=(5, 5))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((3, 4, 6), torch.uint8, r"\(3, 4, 6\).*\(3, 4, 5\)"),
        ((2, 4, 5), torch.uint8, r"\(2, 4, 5\)"),
        ((60,), torch.uint8, r"\(60,\)"),
        ((1, 3, 4, 5), torch.uint8, r"\(1, 3, 4, 5\)"),
        ((3, 4, 5), torch.bool, "bool.*uint8"),
        ((3, 4, 5), torch.int64, "int64"),
    ],
)
def test_out_of_another_kind(backend, shape, dtype, message):
    out = torch.full(shape, 1, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        BATCH.decode(out=out)
    assert bool((out == 1).all())


@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(3, 5, 4, dtype=torch.uint8).transpose(1, 2),
        torch.zeros(3, 4, 10, dtype=torch.uint8)[:, :, ::2],
        torch.zeros(3, 4, 6, dtype=torch.uint8)[:, :, :5],
        torch.zeros(1, 4, 5, dtype=torch.uint8).expand(3, 4, 5),
        torch.zeros(60, dtype=torch.uint8).as_strided((3, 4, 5), (1, 5, 1)),
    ],
    ids=["transposed", "every second", "rows with gaps", "expanded", "overlapping"],
)
def test_out_with_strides(backend, out):
    with pytest.raises(ValueError, match="contiguous"):
        BATCH.decode(out=out)
    assert int(out.sum()) == 0


@pytest.mark.parametrize("out", [np.zeros((3, 4, 5), np.uint8), [[0]], "out", 3])
def test_out_is_no_tensor(backend, out):
    with pytest.raises(TypeError, match=f"out.*{type(out).__name__}"):
        BATCH.decode(out=out)


def test_out_on_another_device(backend):
    with pytest.raises(ValueError, match=r"meta.*cpu"):
        BATCH.decode(out=torch.zeros(3, 4, 5, dtype=torch.uint8, device="meta"))


def test_out_of_one_plane_may_have_any_stride_where_it_does_not_matter(backend):
    out = torch.zeros(1, 4, 5, dtype=torch.uint8).as_strided((1, 4, 5), (1, 5, 1))
    assert torch.equal(BATCH[0].decode(out=out), BATCH[0].decode())


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.float64, torch.int8, torch.complex64, "uint8", np.uint8, None, int]
)
def test_dtypes_that_do_not_exist(backend, dtype):
    with pytest.raises((ValueError, TypeError), match=r"dtype.*torch\.uint8.*bfloat16"):
        BATCH.decode(dtype=dtype)


OUTSIDE = [
    *[(0, 0, 5, 5), (0, 0, 4, 6), (1, 0, 4, 5), (0, 1, 4, 5), (4, 5, 1, 1), (5, 0, 0, 1)],
    *[(0, 6, 1, 0), (-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, -1, 2), (0, 0, 2, -1)],
    *[(2**32, 0, 1, 1), (0, 2**62, 1, 1), (2**63 - 1, 0, 2**63 - 1, 1), (0, 2**63 - 1, 1, 2**62)],
    *[(-(2**63), 0, 2**63 - 1, 1), (2**62, 2**62, 2**63 - 1, 2**63 - 1)],
]


@pytest.mark.parametrize("window", OUTSIDE, ids=str)
@pytest.mark.parametrize("size", [None, (2, 2)])
def test_crop_outside_its_mask(backend, window, size):
    with pytest.raises(ValueError, match=r"^mask 0: crop.*4x5"):
        BATCH.decode(crop=window, size=size)
    windows = torch.tensor([(0, 0, 1, 1), (0, 0, 1, 1), window])
    with pytest.raises(ValueError, match=r"^mask 2: crop.*4x5"):
        BATCH.decode(crop=windows, size=size)


@pytest.mark.parametrize(
    "crop",
    [(0, 0, 1), (0, 0, 1, 1, 1), [[0, 0, 1, 1]] * 2, [[0, 0, 1, 1]] * 4, [[[0, 0, 1, 1]]], []],
)
def test_crop_of_another_shape(backend, crop):
    with pytest.raises((ValueError, TypeError), match="crop"):
        BATCH.decode(crop=crop)


@pytest.mark.parametrize(
    "crop",
    [(0.0, 0.0, 1.0, 1.0), "0011", object(), (None,) * 4, [True] * 4, {0, 1}, (2**64, 0, 1, 1)],
)
def test_crop_of_a_wrong_kind(backend, crop):
    with pytest.raises((TypeError, ValueError), match="crop"):
        BATCH.decode(crop=crop)


@pytest.mark.parametrize("index", [[3], [-4], [0, 1, 2**40], -4, torch.tensor([3]), [2**63]])
def test_select_out_of_range(backend, index):
    with pytest.raises(IndexError, match="3 masks"):
        BATCH.decode(select=index)
    mixed = fd.pack_rles([GOOD, GOOD, {"size": [6, 5], "counts": [30]}])
    with pytest.raises(IndexError, match="3 masks"):
        mixed.decode(select=index, pad=True)
    with pytest.raises(IndexError, match="0 masks"):
        BATCH[:0].decode(select=[0])


@pytest.mark.parametrize("select", [[0.5], "0", object(), [None], torch.tensor([0.0]), {0}])
def test_select_of_a_wrong_kind(backend, select):
    with pytest.raises(TypeError, match="integers"):
        BATCH.decode(select=select)


@pytest.mark.parametrize("keyword", ["size", "pad"])
@pytest.mark.parametrize(
    "value", [5, "55", (5,), (5, 5, 5), (5.0, 5.0), ("5", "5"), (None, 5), object()]
)
def test_sizes_of_a_wrong_kind(backend, keyword, value):
    with pytest.raises(TypeError, match=f"{keyword}.*integers"):
        BATCH.decode(**{keyword: value})


@pytest.mark.parametrize("keyword", ["size", "pad"])
@pytest.mark.parametrize("value", [(0, 5), (5, 0), (-5, 5), (2**32, 5), (5, 2**64)])
def test_sizes_that_do_not_exist(backend, keyword, value):
    with pytest.raises(ValueError, match=keyword):
        BATCH.decode(**{keyword: value})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("keyword", ["size", "pad"])
@pytest.mark.parametrize("num_masks", [1, 2, 3])
def test_results_too_large_for_any_memory(backend, keyword, num_masks, dtype):
    with pytest.raises((MemoryError, ValueError), match=r"(?i)memory|bytes|large|4294967295"):
        BATCH[:num_masks].decode(dtype=dtype, **{keyword: (2**32 - 1, 2**32 - 1)})


@pytest.mark.parametrize("num_threads", [0, -1, -(2**40)])
def test_no_threads(backend, num_threads):
    with pytest.raises(ValueError, match=f"num_threads.*{num_threads}"):
        BATCH.decode(num_threads=num_threads)


@pytest.mark.parametrize("num_threads", [1.0, "2", [2]])
def test_num_threads_of_a_wrong_kind(backend, num_threads):
    with pytest.raises(TypeError):
        BATCH.decode(num_threads=num_threads)


@pytest.mark.parametrize("num_threads", [1000, 2**31, 2**40])
def test_more_threads_than_any_machine_has(backend, num_threads):
    assert torch.equal(BATCH.decode(num_threads=num_threads), BATCH.decode())


@pytest.mark.parametrize(
    ("image_sizes", "kind", "message"),
    [
        ([(4, 5)], ValueError, r"\(2, 2\)"),
        ([(4, 5)] * 3, ValueError, r"\(2, 2\)"),
        ([4, 5], ValueError, r"\(2, 2\)"),
        ([(4, 5), (4, 6)], ValueError, "image 1, mask 0: .*4x5.*4x6"),
        ([(4.0, 5.0)] * 2, TypeError, "integers"),
        ([(-1, 5), (4, 5)], ValueError, "image 0"),
        ([(2**32, 5), (4, 5)], ValueError, "image 0"),
    ],
)
def test_image_sizes(backend, image_sizes, kind, message):
    with pytest.raises(kind, match=message):
        fd.pack_rles([[], [GOOD]], image_sizes=image_sizes)


def test_image_sizes_of_a_flat_batch(backend):
    with pytest.raises(ValueError, match="image"):
        fd.pack_rles([GOOD], image_sizes=[(4, 5)])


# --- encode_masks


@pytest.mark.parametrize(
    ("masks", "kind", "message"),
    [
        (None, TypeError, "tensor or an array, not NoneType"),
        ([[0, 1], [1, 0]], TypeError, "tensor or an array, not list"),
        (b"0101", TypeError, "tensor or an array, not bytes"),
        ("0101", TypeError, "tensor or an array, not str"),
        (BATCH, TypeError, "tensor or an array, not RLEBatch"),
        (GOOD, TypeError, "tensor or an array, not dict"),
        (torch.zeros(3, 3, dtype=torch.complex64), TypeError, "not torch.complex64"),
        (np.zeros((3, 3), np.complex128), TypeError, "not complex128"),
        (np.zeros((3, 3), object), TypeError, "not object"),
        (np.zeros((3, 3), "U1"), TypeError, "not <U1"),
        (np.zeros((3, 3), "M8[s]"), TypeError, "not datetime64"),
        (np.zeros((3, 3), np.longdouble), TypeError, "not float128"),
        (np.zeros((3, 3), "V1"), TypeError, "not "),
        (np.zeros((3, 3), [("a", "u1")]), TypeError, "not "),
        (torch.zeros(3, 3).to_sparse(), TypeError, "torch.sparse_coo"),
        (torch.zeros(3, 3, dtype=torch.float8_e5m2), TypeError, "not torch.float8_e5m2"),
        (torch.zeros(9), ValueError, r"\(N, H, W\) or \(H, W\), not \(9,\)"),
        (torch.zeros(()), ValueError, r"not \(\)"),
        (torch.zeros(1, 2, 3, 4), ValueError, r"not \(1, 2, 3, 4\)"),
        (np.zeros(9), ValueError, r"not \(9,\)"),
        (np.float32(1), ValueError, r"not \(\)"),
        (np.zeros((1, 2, 3, 4)), ValueError, r"not \(1, 2, 3, 4\)"),
        (torch.zeros(1, 1).expand(2**16, 2**16), ValueError, "65536x65536.*fewer than 2"),
        (torch.zeros(1, 1, 1).expand(0, 2**16, 2**16), ValueError, "65536x65536"),
        (np.broadcast_to(np.uint8(0), (1, 2**31, 3)), ValueError, "2147483648x3"),
        (torch.zeros(0, 2**40), ValueError, "0x1099511627776"),
        (np.zeros((2**40, 0), np.uint8), ValueError, "1099511627776x0"),
    ],
)
def test_not_masks(backend, masks, kind, message):
    with pytest.raises(kind, match=message):
        fd.encode_masks(masks)


@pytest.mark.parametrize("num_threads", [0, -1])
def test_no_threads_to_encode(backend, num_threads):
    with pytest.raises(ValueError, match="at least 1"):
        fd.encode_masks(np.ones((3, 3)), num_threads=num_threads)


def test_more_masks_than_any_memory_holds(backend):
    with pytest.raises(MemoryError):
        fd.encode_masks(torch.zeros(1, 0, 5).expand(2**50, 0, 5))


def test_masks_on_devices_without_kernels(backend):
    with pytest.raises(RuntimeError, match=r"meta.*device='cpu'"):
        fd.encode_masks(torch.zeros(3, 3, device="meta"))


def test_operator_of_encode_called_directly(backend):
    encode = torch.ops.sa1b_fastdecode.encode
    with pytest.raises(TypeError, match="complex"):
        encode(torch.zeros(3, 3, dtype=torch.complex64), 1)
    with pytest.raises(ValueError, match="shape"):
        encode(torch.zeros(3), 1)


# --- Pairs

PAIRWISE = ["intersection", "iou", "containment", "intersecting_pairs"]
HIGHER = {"size": [6, 5], "counts": [30]}


def compare(operator, a, b):
    """Call an operator on two batches, and its function, if it has one, on what makes them."""
    function = getattr(fd, f"mask_{operator}", None)
    if function is not None:
        function(a, b)
    return getattr(fd.pack_rles(a), operator)(fd.pack_rles(b))


@pytest.mark.parametrize("operator", PAIRWISE)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([GOOD, GOOD], [GOOD, HIGHER], "^masks .*: mask 0 is 4x5, mask 1 of other is 6x5"),
        ([GOOD, HIGHER], [GOOD], "^masks .*: mask 0 is 4x5, mask 1 is 6x5"),
        ([HIGHER], [GOOD], "mask 0 is 6x5, mask 0 of other is 4x5"),
        ([GOOD], [{"size": [5, 4], "counts": [20]}], "mask 0 is 4x5, mask 0 of other is 5x4"),
        (
            [[GOOD], [HIGHER, GOOD]],
            [[], [HIGHER]],
            "^image 1: masks .*: mask 0 is 6x5, mask 1 is 4x5",
        ),
        (
            [[GOOD, HIGHER], [], [GOOD]],
            [[], [GOOD, HIGHER], [GOOD, HIGHER]],
            "^image 2: .*mask 0 is 4x5, mask 1 of other is 6x5",
        ),
        ([GOOD], [[GOOD]], "flat"),
        ([[GOOD]], [GOOD], "flat"),
        ([[GOOD], []], [[GOOD]], "2 and 1"),
        ([[GOOD]], [[GOOD], [GOOD], []], "1 and 3"),
    ],
)
def test_masks_that_cannot_be_compared(backend, operator, a, b, message):
    with pytest.raises(ValueError, match=message):
        compare(operator, a, b)


@pytest.mark.parametrize("operator", PAIRWISE)
def test_sizes_do_not_matter_where_nothing_is_compared(backend, operator):
    for a, b, shape in [
        ([GOOD, HIGHER], [], (2, 0)),
        ([], [GOOD, HIGHER], (0, 2)),
        ([[GOOD, HIGHER], []], [[], [HIGHER, GOOD]], (2, 2, 2)),
    ]:
        result = compare(operator, a, b)
        if operator == "intersecting_pairs":
            assert [part.shape for part in result] == [(0, 2), (0,)]
        else:
            assert result.shape == shape
            assert not result.any()


@pytest.mark.parametrize("operator", PAIRWISE)
@pytest.mark.parametrize(
    "other", [None, GOOD, [GOOD], torch.zeros(3), np.zeros((3, 4, 5)), "12", 3]
)
def test_other_is_no_batch(backend, operator, other):
    with pytest.raises(TypeError, match=f"RLEBatch, not {type(other).__name__}"):
        getattr(BATCH, operator)(other)


@pytest.mark.parametrize("operator", PAIRWISE[:3])
@pytest.mark.parametrize("wrong", [None, 3, "37:", object(), [None], [GOOD, 3]], ids=repr)
def test_pairs_of_what_is_no_rle(backend, operator, wrong):
    function = getattr(fd, f"mask_{operator}")
    for arguments in ((wrong, [GOOD]), ([GOOD], wrong)):
        with pytest.raises(TypeError):
            function(*arguments)
    with pytest.raises(ValueError, match=r"^mask 1: .*add up to 19"):
        function([GOOD], [GOOD, counts(b"379")])


@pytest.mark.parametrize(
    ("iscrowd", "kind", "message"),
    [
        ([0, 1], ValueError, r"\(3,\).*\(2,\)"),
        ([0] * 4, ValueError, r"\(3,\).*\(4,\)"),
        ([], ValueError, r"\(3,\).*\(0,\)"),
        (1, ValueError, r"\(3,\).*\(\)"),
        (True, ValueError, "iscrowd"),
        ([[0, 1, 0]], ValueError, r"\(3,\).*\(1, 3\)"),
        (np.zeros((3, 1), bool), ValueError, r"\(3, 1\)"),
        ([0.0, 1.0, 0.0], TypeError, "iscrowd must be integers"),
        (torch.zeros(3), TypeError, "iscrowd must be integers"),
        (["0", "1", "0"], TypeError, "iscrowd must be integers"),
        ("010", TypeError, "iscrowd must be integers"),
        ([None] * 3, TypeError, "iscrowd must be integers"),
        ({0, 1}, TypeError, "iscrowd must be integers"),
        ([0, 1j, 0], TypeError, "iscrowd must be integers"),
        ([2**64] * 3, ValueError, "iscrowd"),
    ],
)
def test_iscrowd_of_a_wrong_kind(backend, iscrowd, kind, message):
    with pytest.raises(kind, match=message):
        BATCH.iou(BATCH, iscrowd)
    with pytest.raises(kind, match=message):
        fd.pack_rles([[GOOD], [GOOD, GOOD]]).iou(fd.pack_rles([[GOOD, GOOD], [GOOD]]), iscrowd)
    with pytest.raises(kind, match=message):
        fd.mask_iou([GOOD], [GOOD] * 3, iscrowd)


def test_any_integer_but_zero_is_a_crowd(backend):
    expected = BATCH.iou(BATCH, [True, False, True])
    assert torch.equal(BATCH.iou(BATCH, [-1, 0, 256]), expected)
    assert torch.equal(BATCH.iou(BATCH, np.array([2**40, 0, 1])[::-1][::-1]), expected)


# --- Devices


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_without_cuda(backend, device):
    with pytest.raises(RuntimeError, match=r"cuda.*device='cpu'"):
        fd.decode_rle_batch([GOOD], device)
    with pytest.raises(RuntimeError, match="cuda"):
        BATCH.to(device)
    with pytest.raises(RuntimeError, match="cuda"):
        BATCH.cuda()


@pytest.mark.parametrize("device", ["meta", "xpu"])
def test_devices_without_kernels(backend, device):
    with pytest.raises(RuntimeError, match=device):
        BATCH.to(device)


# --- The operators themselves, with blocks that lie


def corrupt_blocks():
    """Yield (what, data, num_masks) for blocks that no RLEBatch would hold."""
    block = BATCH.data
    n = BATCH.num_masks
    for num_masks in (n + 1, n + 2, 100, 2**31, 2**40, 2**61, 2**62 + 1, -1, -(2**63)):
        yield f"num_masks {num_masks}", block, num_masks
    for word in range(3 * n + 1):
        for value in (-1, 2**32, 2**50, 2**63 - 1, -(2**63)):
            data = block.clone()
            data[: 8 * (3 * n + 1)].view(torch.int64)[word] = value
            yield f"word {word} is {value}", data, n
    for num_bytes in range(0, 8 * (3 * n + 1), 7):
        yield f"{num_bytes} bytes", block[:num_bytes].clone(), n
    yield "strings cut off", block[:-1].clone(), n
    yield "int8", block.view(torch.int8), n
    yield "float", block.float(), n
    yield "strided", torch.stack([block, block], 1)[:, 0], n
    yield "matrix", block[None], n


def operator_calls(data, num_masks):
    """Return calls of every operator on a block."""
    ops = torch.ops.sa1b_fastdecode
    out = torch.full((3, 4, 5), 7, dtype=torch.uint8)
    planes = torch.tensor([2, 0, 1])
    return [
        lambda: ops.decode(data, num_masks, planes, None, False, [3, 4, 5], torch.uint8, 1),
        lambda: ops.decode(data, num_masks, planes, None, True, [3, 9, 9], torch.float32, 2),
        lambda: ops.decode_out(data, num_masks, planes, None, False, out, 1),
        lambda: ops.area(data, num_masks),
        lambda: ops.bbox(data, num_masks),
        lambda: ops.centroid(data, num_masks),
        *(
            call
            for a, b in (((data, num_masks), (BATCH.data, 3)), ((BATCH.data, 3), (data, num_masks)))
            for call in (
                lambda a=a, b=b: ops.intersection(*a, *b, [a[1], b[1]]),
                lambda a=a, b=b: ops.iou(*a, *b, None, [a[1], b[1]]),
                lambda a=a, b=b: ops.containment(*a, *b, [a[1], b[1]]),
                lambda a=a, b=b: ops.intersecting_pairs(*a, *b, None),
            )
        ),
        lambda: ops.intersection(data, num_masks, data, num_masks, [num_masks, num_masks]),
    ]


def check_corrupt_blocks():
    for name in available():
        with dispatch.use(name):
            for what, data, num_masks in corrupt_blocks():
                for i, call in enumerate(operator_calls(data, num_masks)):
                    try:
                        call()
                    except (ValueError, TypeError, RuntimeError, IndexError, MemoryError):
                        continue
                    raise AssertionError(f"{name}: call {i} accepted a block with {what}")


def check_inconsistent_arguments():
    ops = torch.ops.sa1b_fastdecode
    data, n = BATCH.data, 3
    decode = functools.partial(ops.decode, data, n)
    window = torch.tensor([[0, 0, 4, 5]] * 3)
    shape, u8 = [3, 4, 5], torch.uint8
    calls = {
        "planes out of range": lambda: decode(torch.tensor([0, 1, 3]), None, False, shape, u8, 1),
        "planes below -1": lambda: decode(torch.tensor([0, 1, -2]), None, False, shape, u8, 1),
        "too few planes": lambda: decode(torch.tensor([0, 1]), None, False, shape, u8, 1),
        "too many planes": lambda: decode(torch.arange(4), None, False, shape, u8, 1),
        "int32 planes": lambda: decode(torch.arange(3).int(), None, False, shape, u8, 1),
        "strided planes": lambda: decode(window[:, 0], None, False, shape, u8, 1),
        "meta planes": lambda: decode(window[:, 0].to("meta"), None, False, shape, u8, 1),
        "too few crops": lambda: decode(None, window[:2], False, shape, u8, 1),
        "int32 crops": lambda: decode(None, window.int(), False, shape, u8, 1),
        "crops outside": lambda: decode(None, window + 1, False, shape, u8, 1),
        "crops negative": lambda: decode(None, window - 1, False, shape, u8, 1),
        "no planes, other number": lambda: decode(None, None, False, [4, 4, 5], u8, 1),
        "too small": lambda: decode(None, None, False, [3, 3, 5], u8, 1),
        "one dimension": lambda: decode(None, None, False, [60], u8, 1),
        "no dimension": lambda: decode(None, None, False, [], u8, 1),
        "negative shape": lambda: decode(None, None, False, [3, -4, -5], u8, 1),
        "huge negative shape": lambda: decode(None, None, False, [-3000, -3000, 5], u8, 1),
        "other dtype": lambda: decode(None, None, False, shape, torch.int64, 1),
        "2**64 - 2 bytes": lambda: decode(
            torch.zeros(2, dtype=torch.int64), None, False, [2, 2**63 - 1, 1], u8, 1
        ),
        "2**64 bytes": lambda: decode(
            torch.zeros(4, dtype=torch.int64), None, False, [4, 2**62, 1], u8, 1
        ),
        "out of other dtype": lambda: ops.decode_out(
            data, n, None, None, False, torch.zeros(3, 4, 5).double(), 1
        ),
        "strided out": lambda: ops.decode_out(
            data, n, None, None, False, torch.zeros(3, 5, 4, dtype=u8).transpose(1, 2), 1
        ),
        "small out": lambda: ops.decode_out(
            data, n, None, None, False, torch.zeros(3, 4, 4, dtype=u8), 1
        ),
        "few planes in out": lambda: ops.decode_out(
            data, n, None, None, False, torch.zeros(2, 4, 5, dtype=u8), 1
        ),
    }
    for name in available():
        with dispatch.use(name):
            for what, call in calls.items():
                try:
                    call()
                except (ValueError, TypeError, RuntimeError, IndexError, MemoryError):
                    continue
                raise AssertionError(f"{name}: {what} was accepted")


def check_inconsistent_pairs():
    ops = torch.ops.sa1b_fastdecode
    data, n = BATCH.data, 3
    grouped = fd.pack_rles([[GOOD], [GOOD, GOOD]])
    pair, images = (data, n, data, n), (grouped.data, 3, grouped.data, 3)
    crowd = torch.zeros(3, dtype=torch.bool)
    calls = {
        "too few rows": lambda: ops.intersection(*pair, [2, 3]),
        "too many columns": lambda: ops.intersection(*pair, [3, 4]),
        "transposed": lambda: ops.iou(data, n, BATCH[:2].data, 2, None, [2, 3]),
        "one dimension": lambda: ops.containment(*pair, [9]),
        "no dimension": lambda: ops.containment(*pair, []),
        "four dimensions": lambda: ops.containment(*pair, [1, 1, 3, 3]),
        "negative shape": lambda: ops.containment(*pair, [-3, -3]),
        "flat blocks as images": lambda: ops.intersection(*pair, [1, 3, 3]),
        "too many images": lambda: ops.intersection(*images, [3, 2, 2]),
        "too few images": lambda: ops.intersection(*images, [1, 2, 2]),
        "no images": lambda: ops.intersection(*images, [0, 2, 2]),
        "negative number of images": lambda: ops.intersection(*images, [-1, 3, 3]),
        "too few masks an image": lambda: ops.intersection(*images, [2, 1, 2]),
        "huge shape": lambda: ops.intersection(*images, [2, 2**40, 2**40]),
        "negative rows": lambda: ops.intersection(*images, [2, -2, -2]),
        "pairs of too many images": lambda: ops.intersecting_pairs(*images, 3),
        "pairs of too few images": lambda: ops.intersecting_pairs(*images, 1),
        "pairs of -1 images": lambda: ops.intersecting_pairs(*images, -1),
        "pairs of 2**62 images": lambda: ops.intersecting_pairs(*images, 2**62),
        "short iscrowd": lambda: ops.iou(*pair, crowd[:2], [3, 3]),
        "long iscrowd": lambda: ops.iou(*pair, torch.zeros(4, dtype=torch.bool), [3, 3]),
        "int iscrowd": lambda: ops.iou(*pair, crowd.int(), [3, 3]),
        "strided iscrowd": lambda: ops.iou(*pair, torch.zeros(6, dtype=torch.bool)[::2], [3, 3]),
        "meta iscrowd": lambda: ops.iou(*pair, crowd.to("meta"), [3, 3]),
        "meta other": lambda: ops.iou(data, n, data.to("meta"), n, None, [3, 3]),
    }
    for word, value in [(10, -1), (10, 2), (13, 0), (13, 2**62), (13, -(2**62))]:
        bad = grouped.data.clone()
        bad[: 8 * 16].view(torch.int64)[word] = value
        for what, first, second in (
            ("both", bad, bad), ("the one", bad, grouped.data), ("the other", grouped.data, bad)
        ):  # fmt: skip
            calls[f"word {word} of {what} is {value}"] = lambda a=first, b=second: ops.intersection(
                a, 3, b, 3, [2, 2, 2]
            )
    for name in available():
        with dispatch.use(name):
            for what, call in calls.items():
                try:
                    call()
                except (ValueError, TypeError, RuntimeError, IndexError, MemoryError):
                    continue
                raise AssertionError(f"{name}: {what} was accepted")


CHECKS = ["check_corrupt_blocks", "check_inconsistent_arguments", "check_inconsistent_pairs"]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("check", CHECKS)
def test_operators_called_directly(check):
    """In a process of its own, so that a crash is a failure of this test only."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_malformed as t; t.{check}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("counts", ["str", "bytes", "list"])
def test_blocks_that_lie_do_not_show_other_memory(backend, counts):
    """A batch made by hand from a bad block raises when it is read."""
    n = BATCH.num_masks
    for word, value in [(0, 2**33), (2 * n, -1), (2 * n + 1, 2**50), (2 * n + 1, -8)]:
        data = BATCH.data.clone()
        data[: 8 * (3 * n + 1)].view(torch.int64)[word] = value
        with pytest.raises(ValueError, match="offsets"):
            RLEBatch(data, n).to_coco(counts)


def test_out_that_requires_a_gradient():
    out = torch.zeros((1, 2, 3), requires_grad=True)
    with pytest.raises(ValueError, match="must not require a gradient"):
        fd.decode_rle_batch({"size": [2, 3], "counts": [6]}, dtype=torch.float32, out=out)


def test_unsigned_indices_do_not_wrap():
    batch = fd.pack_rles([{"size": [2, 3], "counts": [6]}] * 3)
    index = np.array([2**64 - 1], np.uint64)
    for call in (lambda: batch[index], lambda: batch.decode(select=index)):
        with pytest.raises(IndexError, match="out of range"):
            call()
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        batch.decode(crop=np.array([0, 0, 2**64 - 1, 1], np.uint64))


def test_bools_are_no_size():
    with pytest.raises(TypeError, match="mask 0: size must be two integers"):
        fd.pack_rles([{"size": [True, 3], "counts": [3]}])


def test_keys_that_change_the_list_while_it_is_read():
    """Whatever a dict's own keys do when they are compared, nothing that is in use goes away."""

    class Key(str):
        __slots__ = ()

        def __hash__(self):
            return hash("counts")

        def __eq__(self, other):
            rles.clear()
            return False

    rles = []
    rles += [{Key("key"): 0, "size": [2, 3], "counts": bytes([48 + 6])} for _ in range(5)]
    with contextlib.suppress(ValueError, TypeError):
        assert len(fd.pack_rles(rles)) in (0, 5)  # what was there before, or after
    assert rles == []
