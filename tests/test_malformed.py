"""What is wrong is said, with the mask it is in; and nothing crashes, whatever the bytes are."""

import contextlib

import draws
import numpy as np
import pytest
import reference
import torch
from conftest import EMULATED, available, require
from good import BATCH, GOOD, GOOD_STRING, counts
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch


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
    for what, rle, *_ in MALFORMED:
        errors = set()
        for name in available():
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
    ids=lambda value: type(value).__name__,
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


# --- Without validation: no rule is broken but that of pixels


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


@given(st.lists(draws.hostile_strings, min_size=1, max_size=6))
@settings(max_examples=40)
def test_hostile_strings_emulated(strings):
    """A GPU's kernels may read other masks into them, but zeros and ones only."""
    require(EMULATED)
    with dispatch.use(EMULATED):
        rles = [{"size": (33, 70), "counts": characters} for characters in strings]
        batch = fd.pack_rles(rles, validate=False)
        out = torch.full((len(rles), 33, 70), 0xA5, dtype=torch.uint8)
        for decoded in (batch.decode(out=out), batch.decode(size=(9, 11))):
            assert int(decoded.max()) <= 1
        assert bool((batch.area() >= 0).all() and (batch.bbox() >= 0).all())
        assert bool((batch.intersection(batch) >= 0).all() and (batch.iou(batch) >= 0).all())
        indices, pixels = batch.intersecting_pairs(batch)
        assert bool((indices < len(rles)).all() and (pixels > 0).all())


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
