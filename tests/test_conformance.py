"""Every operator, backend, dtype and option against two oracles, bit for bit.

The oracles are pycocotools and the naive ``reference.py``; they must agree with each other too.
``CASES`` is the table of what is decoded; ``test_coverage.py`` compares it, and the parameters of
the tests here, with what the library offers.
"""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draws
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch
from sa1b_fastdecode.library import ELEMENTS, VALUES

DATA = Path(__file__).parents[2] / "shared" / "data"
DTYPES = tuple(ELEMENTS)
REGIONS = ("area", "bbox", "centroid")

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Decoding:
    """What to decode, how, and what must come out."""

    rles: Any
    arguments: dict[str, Any]
    expected: np.ndarray
    pack: dict[str, Any] | None = None


@dataclass(frozen=True)
class Case:
    """A named way to use ``decode``; ``keywords`` are those of ``RLEBatch.decode`` it is about."""

    name: str
    keywords: frozenset[str]
    build: Callable[[], Decoding]


CASES: list[Case] = []


def case(*keywords):
    """Enter a function that makes a Decoding into the table."""

    def enter(build):
        CASES.append(Case(build.__name__, frozenset(keywords), functools.cache(build)))
        return build

    return enter


def coco_decode(rle):
    if not isinstance(rle["counts"], str | bytes):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    return coco_mask.decode(rle)


def truth(rles):
    """Return the masks (h, w) of RLEs with bytes or lists as counts; both oracles agree on them."""
    masks = []
    for rle in rles:
        counts = rle["counts"]
        if isinstance(counts, bytes):
            counts = reference.string_to_counts(counts)
        mask = reference.decode(counts, *rle["size"])
        assert np.array_equal(mask, coco_decode(rle))
        masks.append(mask)
    return masks


def some_rles(h=37, w=53, seed=0):
    return [draws.to_rle(mask) for mask in draws.every_kind(h, w, seed)]


def mixed_rles():
    """Masks of different sizes, the largest height and the largest width not in the same mask."""
    masks = [draws.every_kind(h, w)[i] for i, (h, w) in enumerate([(9, 70), (41, 3), (33, 33)])]
    return [draws.to_rle(mask) for mask in (masks[1], masks[0], masks[2])]


def images_of_rles():
    """Three images: nine masks of 20x31, none, and two of 33x8."""
    return [some_rles(20, 31), [], some_rles(33, 8)[:2]]


# --- The cases: plain decoding


def _of_size(h, w):
    def build():
        rles = some_rles(h, w)
        return Decoding(rles, {}, reference.stack(truth(rles), (h, w)))

    build.__name__ = f"size_{h}x{w}"
    return build


for _size in [
    *[(1, 1), (1, 65), (65, 1), (2, 128), (128, 2), (7, 200), (31, 33), (32, 32), (33, 31)],
    *[(63, 64), (64, 63), (64, 64), (65, 65), (100, 127)],
]:
    case()(_of_size(*_size))


@case()
def zero_length_runs():
    """Legal anywhere, and they change nothing."""
    lists = [
        [0, 12],
        [12, 0],
        [0, 0, 12],
        [0, 0, 0, 12],
        [3, 0, 2, 4, 3],
        [3, 2, 0, 4, 3],
        [3, 0, 0, 0, 2, 4, 0, 0, 3],
        [1, 0, 2, 0, 3, 0, 6],
        [0, 0, 0, 5, 0, 0, 7, 0],
    ]
    rles = [{"size": [3, 4], "counts": counts} for counts in lists]
    return Decoding(rles, {}, reference.stack(truth(rles), (3, 4)))


@case()
def counts_of_many_characters():
    """Counts of 1 to 5 characters, and differences as large below zero."""
    sizes = (1, 15, 16, 511, 512, 16383, 16384, 3)
    counts = [0, 1, *[n for size in sizes for n in (size, 2)]]
    h, w = 7, math.ceil(sum(counts) / 7)
    rles = [{"size": [h, w], "counts": [*counts, h * w - sum(counts)]}]
    return Decoding(rles, {}, reference.stack(truth(rles), (h, w)))


@case()
def no_masks():
    return Decoding([], {}, np.zeros((0, 0, 0), np.uint8))


@case()
def masks_without_rows():
    return Decoding([{"size": [0, 5], "counts": b""}] * 2, {}, np.zeros((2, 0, 5), np.uint8))


@case()
def masks_without_columns():
    rles = [{"size": [5, 0], "counts": [0]}, {"size": [5, 0], "counts": []}]
    return Decoding(rles, {}, np.zeros((2, 5, 0), np.uint8))


@case()
def single_rle():
    rle = draws.to_rle(draws.every_kind(12, 21)[0])
    return Decoding(rle, {}, reference.stack(truth([rle]), (12, 21)))


# --- pad


@case("pad")
def pad_to_largest():
    rles = mixed_rles()
    return Decoding(rles, {"pad": True}, reference.stack(truth(rles), (41, 70)))


@case("pad")
def pad_to_size():
    rles = mixed_rles()
    return Decoding(rles, {"pad": (64, 129)}, reference.stack(truth(rles), (64, 129)))


@case("pad")
def pad_masks_of_one_size():
    rles = some_rles(37, 53)
    return Decoding(rles, {"pad": (38, 53)}, reference.stack(truth(rles), (38, 53)))


@case("pad")
def pad_true_masks_of_one_size():
    rles = some_rles(37, 53)
    return Decoding(rles, {"pad": True}, reference.stack(truth(rles), (37, 53)))


@case("pad")
def pad_with_masks_without_pixels():
    rles = [{"size": [0, 80], "counts": []}, *some_rles(5, 6)]
    expected = reference.stack([np.zeros((0, 80), np.uint8), *truth(rles[1:])], (5, 80))
    return Decoding(rles, {"pad": True}, expected)


@case("pad")
def pad_no_masks():
    return Decoding([], {"pad": (4, 5)}, np.zeros((0, 4, 5), np.uint8))


# --- size


def _to_size(name, size, rles=some_rles):
    def build():
        inputs = rles()
        expected = [reference.resize(mask, size) for mask in truth(inputs)]
        return Decoding(inputs, {"size": size}, np.array(expected))

    build.__name__ = f"size_{name}"
    case("size")(build)


_to_size("up", (74, 106))
_to_size("up_by_no_integer", (91, 187))
_to_size("down", (9, 13))
_to_size("down_by_no_integer", (20, 31))
_to_size("up_and_down", (3, 190))
_to_size("one_pixel", (1, 1))
_to_size("same", (37, 53))
_to_size("one_row", (1, 65))
_to_size("mixed", (32, 65), mixed_rles)
_to_size("large_factor", (640, 7), lambda: some_rles(3, 700))


@case("size")
def size_no_masks():
    return Decoding([], {"size": (4, 5)}, np.zeros((0, 4, 5), np.uint8))


@case("size")
def size_from_masks_without_pixels():
    rles = [{"size": [0, 5], "counts": []}, {"size": [5, 0], "counts": [0]}]
    return Decoding(rles, {"size": (3, 4)}, np.zeros((2, 3, 4), np.uint8))


@case("size", "pad")
def size_decides_over_pad():
    rles = mixed_rles()
    expected = [reference.resize(mask, (5, 9)) for mask in truth(rles)]
    return Decoding(rles, {"size": (5, 9), "pad": True}, np.array(expected))


# --- crop


def _one_crop(name, window):
    def build():
        rles = some_rles()
        expected = [reference.crop(mask, window) for mask in truth(rles)]
        return Decoding(rles, {"crop": window}, np.array(expected))

    build.__name__ = f"crop_{name}"
    case("crop")(build)


_one_crop("inside", (5, 7, 20, 40))
_one_crop("top_left", (0, 0, 36, 52))
_one_crop("bottom_right", (1, 1, 36, 52))
_one_crop("everything", (0, 0, 37, 53))
_one_crop("one_pixel", (36, 52, 1, 1))
_one_crop("one_row", (36, 0, 1, 53))
_one_crop("one_column", (0, 52, 37, 1))
_one_crop("no_rows", (37, 3, 0, 5))
_one_crop("no_columns", (3, 53, 5, 0))


WINDOWS = [
    [0, 0, 20, 20],
    [17, 33, 20, 20],
    [3, 4, 20, 20],
    [17, 0, 20, 20],
    [0, 33, 20, 20],
    [1, 1, 20, 20],
    [8, 8, 20, 20],
    [9, 8, 20, 20],
    [8, 9, 20, 20],
]


@case("crop")
def crop_each():
    rles = some_rles()
    expected = [reference.crop(m, window) for m, window in zip(truth(rles), WINDOWS, strict=True)]
    return Decoding(rles, {"crop": torch.tensor(WINDOWS)}, np.array(expected))


@case("crop", "pad")
def crop_each_to_other_sizes():
    rles = some_rles()
    windows = [[y, x, 1 + i, 20 - i] for i, (y, x, _, _) in enumerate(WINDOWS)]
    windows[4][2:] = 0, 0
    crops = [reference.crop(m, window) for m, window in zip(truth(rles), windows, strict=True)]
    arguments = {"crop": np.array(windows, np.int32), "pad": True}
    return Decoding(rles, arguments, reference.stack(crops, (9, 20)))


@case("crop")
def crop_masks_of_mixed_sizes():
    rles = mixed_rles()
    expected = [reference.crop(mask, (2, 1, 7, 2)) for mask in truth(rles)]
    return Decoding(rles, {"crop": (2, 1, 7, 2)}, np.array(expected))


@case("crop", "size")
def crop_then_size():
    rles = some_rles()
    crops = [reference.crop(m, window) for m, window in zip(truth(rles), WINDOWS, strict=True)]
    expected = [reference.resize(mask, (33, 7)) for mask in crops]
    return Decoding(rles, {"crop": WINDOWS, "size": (33, 7)}, np.array(expected))


@case("crop", "size")
def crop_of_other_sizes_then_size():
    rles = mixed_rles()
    windows = [[0, 0, 41, 3], [8, 0, 1, 70], [3, 3, 0, 30]]
    crops = [reference.crop(m, window) for m, window in zip(truth(rles), windows, strict=True)]
    expected = [reference.resize(mask, (65, 31)) for mask in crops]
    return Decoding(rles, {"crop": windows, "size": (65, 31)}, np.array(expected))


# --- select


def _select(name, indices, places):
    def build():
        rles = some_rles()
        masks = truth(rles)
        expected = reference.stack([masks[i] for i in places], (37, 53))
        return Decoding(rles, {"select": indices}, expected)

    build.__name__ = f"select_{name}"
    case("select")(build)


_select("list", [3, 1, 7], [3, 1, 7])
_select("repeated", [2, 2, 0, 2], [2, 2, 0, 2])
_select("negative", [-1, 0, -9], [8, 0, 0])
_select("one", 4, [4])
_select("tuple", (5,), [5])
_select("array", np.array([1, -2], np.int16), [1, 7])
_select("reversed_array", np.arange(9)[::-1], list(range(9))[::-1])
_select("tensor", torch.tensor([6, 5]), [6, 5])
_select("tensor_int32", torch.tensor([0, 8], dtype=torch.int32), [0, 8])
_select("bools", torch.arange(9) % 4 == 1, [1, 5])
_select("list_of_bools", [True] + [False] * 7 + [True], [0, 8])
_select("nothing", [], [])
_select("empty_tensor", torch.zeros(0, dtype=torch.int64), [])
_select("no_bools", torch.zeros(9, dtype=torch.bool), [])


@case("select")
def select_makes_sizes_equal():
    """The masks that are left have one size, so nothing needs padding."""
    rles = [*some_rles(9, 8)[:2], *some_rles(5, 4)]
    masks = truth(rles)
    expected = reference.stack([masks[i] for i in (1, 0, 1)], (9, 8))
    return Decoding(rles, {"select": [1, 0, 1]}, expected)


@case("select", "pad")
def select_then_pad():
    """Padded to the largest of the selected masks, not of all."""
    rles = mixed_rles()
    masks = truth(rles)
    expected = reference.stack([masks[2], masks[0]], (41, 33))
    return Decoding(rles, {"select": [2, 0], "pad": True}, expected)


@case("select", "crop", "size")
def select_then_crop_then_size():
    rles = some_rles()
    masks = truth(rles)
    windows = [[1, 2, 30, 31], [0, 0, 37, 53], [36, 52, 1, 1]]
    crops = [reference.crop(masks[i], w) for i, w in zip([8, 0, 8], windows, strict=True)]
    expected = np.array([reference.resize(mask, (17, 70)) for mask in crops])
    return Decoding(rles, {"select": [-1, 0, 8], "crop": windows, "size": (17, 70)}, expected)


# --- Masks grouped by image


@case()
def grouped():
    images = images_of_rles()
    expected = reference.stack_images([truth(image) for image in images], (33, 31))
    return Decoding(images, {}, expected)


@case()
def grouped_of_one_size():
    images = [some_rles(10, 12)[:2], some_rles(10, 12)]
    expected = reference.stack_images([truth(image) for image in images], (10, 12))
    return Decoding(images, {}, expected)


@case()
def grouped_one_image():
    images = [some_rles(10, 12)]
    return Decoding(images, {}, reference.stack_images([truth(images[0])], (10, 12)))


@case()
def grouped_without_any_mask():
    return Decoding([[], []], {}, np.zeros((2, 0, 0, 0), np.uint8))


@case()
def grouped_with_image_sizes():
    """An image without masks can be the largest one."""
    images = images_of_rles()
    expected = reference.stack_images([truth(image) for image in images], (33, 90))
    return Decoding(images, {}, expected, {"image_sizes": [(20, 31), (4, 90), (33, 8)]})


@case("pad")
def grouped_and_padded():
    images = images_of_rles()
    expected = reference.stack_images([truth(image) for image in images], (64, 65))
    return Decoding(images, {"pad": (64, 65)}, expected)


@case("size")
def grouped_to_size():
    images = images_of_rles()
    resized = [[reference.resize(m, (40, 12)) for m in truth(image)] for image in images]
    return Decoding(images, {"size": (40, 12)}, reference.stack_images(resized, (40, 12)))


@case("crop")
def grouped_and_cropped():
    images = images_of_rles()
    crops = [[reference.crop(m, (1, 2, 19, 6)) for m in truth(image)] for image in images]
    return Decoding(images, {"crop": (1, 2, 19, 6)}, reference.stack_images(crops, (19, 6)))


@case("crop")
def grouped_and_each_cropped():
    images = images_of_rles()
    windows = [[i, 0, 20 - i, 1 + i % 8] for i in range(11)]
    masks = [mask for image in images for mask in truth(image)]
    crops = [reference.crop(mask, w) for mask, w in zip(masks, windows, strict=True)]
    expected = reference.stack_images([crops[:9], [], crops[9:]], (20, 8))
    return Decoding(images, {"crop": windows}, expected)


@case("select")
def grouped_and_selected():
    """The result is flat: its masks may come from anywhere."""
    images = [some_rles(10, 12)[:2], [], some_rles(10, 12, seed=1)]
    masks = [mask for image in images for mask in truth(image)]
    expected = reference.stack([masks[i] for i in (10, 0, 2)], (10, 12))
    return Decoding(images, {"select": [-1, 0, 2]}, expected)


@case("select", "pad")
def grouped_of_mixed_sizes_and_selected():
    images = images_of_rles()
    masks = [mask for image in images for mask in truth(image)]
    expected = reference.stack([masks[i] for i in (10, 0)], (33, 31))
    return Decoding(images, {"select": [10, 0], "pad": True}, expected)


# --- num_threads: each thread is worth a megabyte of work, so these outputs have some


def _with_threads(num_threads):
    def build():
        rles = [draws.to_rle(mask) for mask in draws.every_kind(41, 101)]
        expected = [reference.resize(mask, (413, 507)) for mask in truth(rles)]
        arguments = {"size": (413, 507), "num_threads": num_threads}
        return Decoding(rles, arguments, np.array(expected))

    build.__name__ = f"threads_{num_threads}"
    return build


for _threads in (1, 2, 5):
    case("num_threads")(_with_threads(_threads))


@case("num_threads")
def more_threads_than_masks():
    rle = draws.to_rle(draws.every_kind(61, 101)[0])
    expected = reference.resize(truth([rle])[0], (2101, 1003))
    return Decoding([rle], {"size": (2101, 1003), "num_threads": 5}, expected[None])


# --- The tests over the table


def assert_same(result, expected, dtype):
    """Equal in shape, type and every bit, so that a bool of 2 or a float of -0 is found."""
    assert result.dtype == dtype
    assert tuple(result.shape) == expected.shape
    assert result.is_contiguous()
    wanted = torch.from_numpy(np.ascontiguousarray(expected)).to(dtype)
    assert torch.equal(bits(result), bits(wanted))


def bits(tensor):
    return tensor.cpu().flatten().view(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decode(backend, device, case, dtype):
    """Operator ``decode``."""
    decoding = case.build()
    batch = fd.pack_rles(decoding.rles, **decoding.pack or {})
    result = batch.to(device).decode(dtype=dtype, **decoding.arguments)
    assert_same(result, decoding.expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decode_out(backend, device, case, dtype):
    """Operator ``decode_out``: into used memory, at any alignment, and not a byte beyond it."""
    decoding = case.build()
    batch = fd.pack_rles(decoding.rles, **decoding.pack or {}).to(device)
    n = decoding.expected.size
    for offset in (0, 1, 7):
        memory = torch.full((n + 9,), 1, dtype=dtype, device=device)
        bits_before = memory.view(torch.uint8)
        bits_before.fill_(0xA5)  # also bools: whatever was there must not matter
        out = memory[offset : offset + n].view(decoding.expected.shape)
        result = batch.decode(dtype=dtype, out=out, **decoding.arguments)
        assert result is out
        assert_same(out, decoding.expected, dtype)
        around = torch.cat([bits(memory[:offset]), bits(memory[offset + n :])])
        assert bool((around == 0xA5).all())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decode_rle_batch(backend, device, case):
    """The function gives what pack and decode give."""
    decoding = case.build()
    rles = fd.pack_rles(decoding.rles, **decoding.pack) if decoding.pack else decoding.rles
    result = fd.decode_rle_batch(rles, device, **decoding.arguments)
    assert_same(result, decoding.expected, torch.uint8)


# --- Areas, boxes and centroids


@pytest.mark.parametrize("operator", REGIONS)
@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.keywords], ids=lambda case: case.name
)
def test_regions(backend, device, case, operator):
    decoding = case.build()
    batch = fd.pack_rles(decoding.rles, **decoding.pack or {})
    expected, dtype = expected_regions(batch.to_coco("list"), operator)
    for result in (
        getattr(batch.to(device), operator)(),
        getattr(fd, f"mask_{operator}")(batch.to(device)),
    ):
        assert result.dtype == dtype
        assert result.is_contiguous()
        # Arrays compare NaN as equal; for integers and other floats this is exact equality.
        np.testing.assert_array_equal(result.cpu().numpy(), expected, strict=True)


def expected_regions(rles, operator):
    """Return what an operator must give; ``rles`` may be nested, counts are lists."""
    flat = [rle for item in rles for rle in (item if isinstance(item, list) else [item])]
    masks = [reference.decode(rle["counts"], *rle["size"]) for rle in flat]
    if operator == "area":
        expected = np.array([reference.area(mask) for mask in masks], np.int64)
    elif operator == "bbox":
        expected = np.array([reference.bbox(mask) for mask in masks], np.float32).reshape(-1, 4)
    else:
        expected = np.array([reference.centroid(m) for m in masks], np.float32).reshape(-1, 2)
    compressed = [draws.to_rle(mask) for mask in masks if mask.size]
    places = [i for i, mask in enumerate(masks) if mask.size]
    if operator == "area" and compressed:
        assert np.array_equal(expected[places], coco_mask.area(compressed))
    if operator == "bbox" and compressed:
        assert np.array_equal(expected[places], coco_mask.toBbox(compressed))
    return expected, torch.from_numpy(expected).dtype


def test_regions_of_strings_long_enough_for_threads(backend, device):
    masks = [draws.noise(np.random.default_rng(i), 301, 203) for i in range(12)]
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    batch = fd.pack_rles(rles).to(device)
    assert batch.data.numel() > 2**17
    assert batch.area().tolist() == [reference.area(mask) for mask in masks]
    assert batch.bbox().tolist() == [list(reference.bbox(mask)) for mask in masks]
    assert batch.centroid().tolist() == [list(reference.centroid(mask)) for mask in masks]


@pytest.mark.parametrize(
    "size", [(2**32 - 1, 1), (1, 2**32 - 1), (65535, 65537), (65537, 65535), (2**31, 1)]
)
def test_regions_of_the_largest_masks(backend, device, size):
    h, w = size
    n = h * w
    counts = [
        [0, n],  # full
        [n],  # empty
        [n - 1, 1],  # the last pixel
        [0, 1, n - 1],  # the first
        [1, n - 2, 1],  # all but the first and the last
    ]
    batch = fd.pack_rles([{"size": size, "counts": c} for c in counts]).to(device)
    assert batch.area().tolist() == [n, 0, 1, 1, n - 2]
    first, last = (0, 0), (h - 1, w - 1)
    corners = [(first, (h, w)), (first, first), (last, (h, w)), (first, (1, 1))]
    boxes = [(x0, y0, x1 - x0, y1 - y0) for (y0, x0), (y1, x1) in corners]
    boxes.append((0, 1, w, h - 2) if w == 1 else (1, 0, w - 2, h) if h == 1 else (0, 0, w, h))
    assert np.array_equal(batch.bbox().cpu().numpy(), np.array(boxes, np.float32))
    middle = ((h - 1) / 2, (w - 1) / 2)
    centres = [middle, (math.nan, math.nan), last, first, middle]
    np.testing.assert_array_equal(batch.centroid().cpu().numpy(), np.array(centres, np.float32))


# --- Pairs

PAIRWISE = {"intersection": np.int64, "iou": np.float32, "containment": np.float32}


def many_rles(h, w, seed=0):
    """Masks of every kind, in two draws, and those that a table of columns would hold badly."""
    rng = np.random.default_rng(seed)
    masks = draws.every_kind(h, w, seed) + draws.every_kind(h, w, seed + 1)
    comb = np.zeros((h, w), np.uint8)
    comb[1::3, : (w + 1) // 2] = 1  # many runs a column on the left, none on the right
    corners = np.zeros((h, w), np.uint8)
    corners[0, 0] = corners[-1, -1] = 1  # a large box with two runs
    gaps = draws.full(rng, h, w)
    gaps[:, ::3] = 0
    gaps[h // 2, 1::6] = 0  # two runs in some columns, none in others
    hole = draws.blobs(rng, h, w)
    hole[h // 3 : h // 2, w // 3 : w // 2] = 0
    return [draws.to_rle(mask) for mask in [*masks, comb, corners, gaps, hole]]


def lists(counts, h, w):
    return [{"size": [h, w], "counts": c} for c in counts]


# (masks of one batch, masks of the other)
PAIRS = {
    "37x53": lambda: (many_rles(37, 53), many_rles(37, 53, seed=5)),
    "64x65": lambda: (many_rles(64, 65), many_rles(64, 65, seed=5)),
    "one row": lambda: (many_rles(1, 190), many_rles(1, 190, seed=5)),
    "one column": lambda: (many_rles(190, 1), many_rles(190, 1, seed=5)),
    "one pixel": lambda: (lists([[1], [0, 1]], 1, 1), lists([[0, 1], [1], [0, 1]], 1, 1)),
    "two rows": lambda: (many_rles(2, 200), many_rles(2, 200, seed=5)),
    "empty and full": lambda: (lists([[20], [0, 20], [19, 1]], 4, 5), lists([[0, 20], [20]], 4, 5)),
    "zero runs": lambda: (
        lists([[0, 0, 12], [3, 0, 0, 0, 2, 4, 0, 0, 3], [1, 0, 2, 0, 3, 0, 6]], 3, 4),
        lists([[0, 0, 0, 12], [3, 0, 2, 4, 3], [3, 2, 0, 4, 3], [2, 1, 0, 1, 0, 1, 7]], 3, 4),
    ),
    "more and fewer": lambda: (many_rles(20, 30)[:3], many_rles(20, 30, seed=5)),
    "one and many": lambda: (many_rles(20, 30)[0], many_rles(20, 30, seed=5)),
    "no masks": lambda: ([], []),
    "no rows": lambda: ([], some_rles(5, 6)),
    "no columns": lambda: (some_rles(5, 6), []),
    "without pixels": lambda: (lists([[], [0]], 0, 5), lists([[0], [], []], 0, 5)),
    "images": lambda: (
        [some_rles(20, 31), [], some_rles(33, 8)[:2], some_rles(5, 6), []],
        [some_rles(20, 31, seed=5)[:4], some_rles(9, 9), some_rles(33, 8, seed=5), [], []],
    ),
    "images without masks": lambda: ([[], []], [[], []]),
}


def masks_of(rles):
    """Return the masks of RLEs, of lists of them, or of one RLE, nested alike."""
    if isinstance(rles, dict):
        return truth([rles])
    nested = rles and isinstance(rles[0], list)
    return [truth(image) for image in rles] if nested else truth(rles)


def expected_pairs(operator, a, b, crowd=None):
    """Return what both oracles give for masks, or for lists of them, one an image."""
    grouped = bool(a or b) and isinstance((a or b)[0], list)
    function = getattr(reference, operator)
    stack = reference.pairs_of_images if grouped else reference.pairs
    if crowd is not None:
        of_mask = {id(mask): flag for mask, flag in zip(flatten(b), crowd, strict=True)}

        def function(x, y):
            return reference.iou(x, y, of_mask[id(y)])

    expected = stack(function, a, b, PAIRWISE[operator])
    if operator == "iou":
        flags = [0] * len(flatten(b)) if crowd is None else crowd
        begin = 0
        for k, (rows, columns) in enumerate(zip(a, b, strict=True) if grouped else [(a, b)]):
            image = expected[k] if grouped else expected
            own = [int(flag) for flag in flags[begin : begin + len(columns)]]
            begin += len(columns)
            if rows and columns and rows[0].size:
                coco = coco_mask.iou(*([draws.to_rle(m) for m in s] for s in (rows, columns)), own)
                # pycocotools divides by 0 where nothing is there to be shared.
                coco = np.nan_to_num(np.asarray(coco)).astype(np.float32)
                assert np.array_equal(image[: len(rows), : len(columns)], coco)
    return expected


def flatten(masks):
    return [m for image in masks for m in (image if isinstance(image, list) else [image])]


def assert_pairs(result, expected):
    assert result.is_contiguous()
    np.testing.assert_array_equal(result.cpu().numpy(), expected, strict=True)


@pytest.mark.parametrize("operator", PAIRWISE)
@pytest.mark.parametrize("name", PAIRS)
def test_pairwise(backend, device, name, operator):
    """Operators ``intersection``, ``iou`` and ``containment``; with itself, with an equal batch."""
    a, b = PAIRS[name]()
    batches = [fd.pack_rles(rles).to(device) for rles in (a, b)]
    expected = expected_pairs(operator, masks_of(a), masks_of(b))
    assert_pairs(getattr(batches[0], operator)(batches[1]), expected)
    assert_pairs(getattr(fd, f"mask_{operator}")(*batches), expected)
    assert_pairs(getattr(fd, f"mask_{operator}")(a, b), expected)
    itself = expected_pairs(operator, masks_of(a), masks_of(a))
    assert_pairs(getattr(batches[0], operator)(batches[0]), itself)
    assert_pairs(getattr(batches[0], operator)(fd.pack_rles(a).to(device)), itself)
    assert_pairs(getattr(fd, f"mask_{operator}")(a, a), itself)


@pytest.mark.parametrize("form", ["bools", "ints", "tuple", "array", "tensor"])
@pytest.mark.parametrize("name", ["37x53", "zero runs", "images", "no columns", "no masks"])
def test_iou_with_crowds(backend, device, name, form):
    a, b = PAIRS[name]()
    batches = [fd.pack_rles(rles).to(device) for rles in (a, b)]
    crowd = [i % 3 != 1 for i in range(batches[1].num_masks)]
    forms = {
        "bools": crowd,
        "ints": [int(flag) for flag in crowd],
        "tuple": tuple(crowd),
        "array": np.array(crowd, np.uint8),
        "tensor": torch.tensor(crowd, dtype=torch.bool),
    }
    expected = expected_pairs("iou", masks_of(a), masks_of(b), crowd)
    assert_pairs(batches[0].iou(batches[1], forms[form]), expected)
    assert_pairs(fd.mask_iou(a, b, iscrowd=forms[form]), expected)
    own = [i % 4 == 2 for i in range(batches[0].num_masks)]
    masks = masks_of(a)
    assert_pairs(batches[0].iou(batches[0], own), expected_pairs("iou", masks, masks, own))


@pytest.mark.parametrize("name", PAIRS)
def test_intersecting_pairs(backend, device, name):
    """Operator ``intersecting_pairs``: what is not zero in the dense result, in the same order."""
    a, b = (fd.pack_rles(rles).to(device) for rles in PAIRS[name]())
    for first, second in ((a, b), (a, a), (b, a)):
        dense = first.intersection(second).cpu()
        expected = dense.nonzero()
        if dense.dim() == 3:  # the indices count the masks of all images
            image = expected[:, 0]
            counts = [batch.counts_per_image for batch in (first, second)]
            begins = torch.stack([each.cumsum(0) - each for each in counts], 1)
            expected = expected[:, 1:] + begins[image]
        indices, intersection = first.intersecting_pairs(second)
        assert indices.dtype == intersection.dtype == torch.int64
        assert torch.equal(indices.cpu(), expected)
        assert torch.equal(intersection.cpu(), dense[dense > 0])


def test_more_intersecting_pairs_than_room(backend, monkeypatch):
    from sa1b_fastdecode import library

    a, b = (fd.pack_rles(rles) for rles in PAIRS["37x53"]())
    expected = a.intersecting_pairs(b)
    for room in (0, 1, len(expected[1]) - 1, len(expected[1])):
        monkeypatch.setattr(library, "_MOST_PAIRS", room)
        for result, wanted in zip(a.intersecting_pairs(b), expected, strict=True):
            assert torch.equal(result, wanted)


@pytest.mark.parametrize("h", [32766, 32767, 32768, 70_000])
def test_pairs_of_high_masks(backend, device, h):
    """Rows beyond what 16 bits hold."""
    w = 9
    rng = np.random.default_rng(h)
    masks = [draws.across_columns(rng, h, w) for _ in range(3)]
    for _ in range(4):
        mask = np.zeros((h, w), np.uint8)
        top, bottom = sorted(rng.integers(0, h + 1, 2))
        mask[top:bottom, rng.integers(0, 4) : rng.integers(5, 10)] = 1
        masks.append(mask)
    masks += [draws.full(rng, h, w), draws.noise(rng, h, w), draws.last_pixel(rng, h, w)]
    batch = fd.pack_rles([coco_mask.encode(np.asfortranarray(mask)) for mask in masks]).to(device)
    for operator, dtype in PAIRWISE.items():
        expected = reference.pairs(getattr(reference, operator), masks, masks, dtype)
        assert_pairs(getattr(batch, operator)(batch), expected)
        assert_pairs(getattr(batch, operator)(batch[:]), expected)


@pytest.mark.parametrize(
    "size", [(2**32 - 1, 1), (1, 2**32 - 1), (65535, 65537), (65537, 65535), (3, 2**30)]
)
def test_pairs_of_the_largest_masks(backend, device, size):
    h, w = size
    n = h * w
    counts = [[0, n], [n], [n - 1, 1], [0, 1, n - 1], [1, n - 2, 1], [n // 2, n - n // 2]]
    shared = [
        [n, 0, 1, 1, n - 2, n - n // 2],
        [0, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 1],
        [1, 0, 0, 1, 0, 0],
        [n - 2, 0, 0, 0, n - 2, n - n // 2 - 1],
        [n - n // 2, 0, 1, 0, n - n // 2 - 1, n - n // 2],
    ]
    batch = fd.pack_rles(lists(counts, h, w)).to(device)
    assert batch.intersection(batch).tolist() == batch.intersection(batch[:]).tolist() == shared
    area = np.array(shared).diagonal()
    union = area[:, None] + area - np.array(shared)
    expected = (np.array(shared) / np.maximum(union, 1)).astype(np.float32)
    assert_pairs(batch.iou(batch), expected)


@pytest.mark.parametrize("masks", ["noise and few", "many runs"])
def test_pairs_of_many_and_few_runs(backend, device, masks):
    """Lists that are merged, and lists of which the longer one is searched."""
    rng = np.random.default_rng(4)
    h, w = 211, 157
    many = [draws.noise(rng, h, w), draws.rows_on_and_off(rng, h, w)]
    few = [draws.across_columns(rng, h, w) for _ in range(5)]
    few += [draws.full(rng, h, w), draws.one_pixel(rng, h, w), draws.last_pixel(rng, h, w)]
    sides = {"noise and few": (many, few), "many runs": (many + few[:2], many)}[masks]
    a, b = (
        fd.pack_rles([coco_mask.encode(np.asfortranarray(m)) for m in side]).to(device)
        for side in sides
    )
    for operator, dtype in PAIRWISE.items():
        function = getattr(reference, operator)
        assert_pairs(getattr(a, operator)(b), reference.pairs(function, *sides, dtype))
        assert_pairs(getattr(b, operator)(a), reference.pairs(function, *sides[::-1], dtype))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_pairs_enough_for_threads(backend, device, num_threads):
    """All tests above end before a thread would be worth it."""
    rng = np.random.default_rng(6)
    masks = [draws.blobs(rng, 60, 70, 1 + i % 3) for i in range(700)]
    masks[::50] = [draws.noise(rng, 60, 70) for _ in masks[::50]]
    batch = fd.pack_rles([coco_mask.encode(np.asfortranarray(mask)) for mask in masks]).to(device)
    flat = np.stack(masks).reshape(len(masks), -1).astype(np.float32)
    shared = (flat @ flat.T).astype(np.int64)
    area = shared.diagonal()
    torch.set_num_threads(num_threads)
    assert_pairs(batch.intersection(batch), shared)
    assert_pairs(batch[:300].intersection(batch), shared[:300])
    union = area[:, None] + area - shared
    iou = (shared / np.maximum(union, 1)).astype(np.float32)
    assert_pairs(batch.iou(batch), iou)
    indices, intersection = batch.intersecting_pairs(batch)
    assert np.array_equal(indices.numpy(), np.argwhere(shared))
    assert np.array_equal(intersection.numpy(), shared[shared > 0])


@st.composite
def pairs_of_batches(draw):
    """Draw two lists of RLEs of one size, with counts as lists, and which are crowds."""
    h, w = draw(draws.sides), draw(draws.sides)
    masks = st.lists(draws.counts_of(h, w), max_size=5)
    batches = draw(masks), draw(masks)
    crowd = draw(st.lists(st.booleans(), min_size=len(batches[1]), max_size=len(batches[1])))
    return *(lists(batch, h, w) for batch in batches), crowd


@given(drawn=pairs_of_batches())
@settings(max_examples=200)
def test_pairwise_property(backend, device, drawn):
    a, b, crowd = drawn
    first, second = (fd.pack_rles(rles).to(device) for rles in (a, b))
    for operator in PAIRWISE:
        expected = expected_pairs(operator, masks_of(a), masks_of(b))
        assert_pairs(getattr(first, operator)(second), expected)
        assert_pairs(getattr(first, operator)(first), expected_pairs(operator, *[masks_of(a)] * 2))
    expected = expected_pairs("iou", masks_of(a), masks_of(b), crowd)
    assert_pairs(first.iou(second, crowd), expected)


# --- Large outputs: fresh pages, streaming stores, tiles of rows and of columns

LARGE_ARGUMENTS = {
    "plain": {},
    "pad": {"pad": (739, 1003)},
    "size": {"size": (731, 1015)},
    "crop": {"crop": (1, 2, 731, 990)},
    "crop and size": {"crop": (11, 12, 500, 501), "size": (755, 1001)},
}


def large_masks(num_bytes, itemsize, h=733, w=1001):
    """Return masks of an odd width whose decoded batch has at least ``num_bytes``."""
    rng = np.random.default_rng(3)
    base = [kind(rng, h, w) for kind in draws.KINDS if kind is not draws.noise]
    base[0] = reference.pad(draws.noise(rng, 200, 90), (h, w))
    n = -(-num_bytes // (h * w * itemsize))
    return [np.roll(base[i % len(base)], 13 * i, axis=(0, 1)) for i in range(n)]


def apply(mask, arguments):
    if "crop" in arguments:
        mask = reference.crop(mask, arguments["crop"])
    if "size" in arguments:
        mask = reference.resize(mask, arguments["size"])
    return reference.pad(mask, arguments["pad"]) if "pad" in arguments else mask


@functools.cache
def large_case(name, itemsize):
    """Return the RLEs and the result of a batch of 17 MB and more: three masks come from noise."""
    masks = large_masks(17 * MEBIBYTE, itemsize)
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    return rles, np.stack([apply(mask, LARGE_ARGUMENTS[name]) for mask in masks])


@pytest.mark.parametrize("name", LARGE_ARGUMENTS)
@pytest.mark.parametrize(
    ("dtype", "num_threads"), [(torch.uint8, 1), (torch.uint8, 5), *[(t, 2) for t in DTYPES]]
)
def test_large_outputs(backend, device, dtype, num_threads, name):
    rles, expected = large_case(name, dtype.itemsize)
    batch = fd.pack_rles(rles).to(device)
    arguments = LARGE_ARGUMENTS[name] | {"dtype": dtype, "num_threads": num_threads}
    assert_same(batch.decode(**arguments), expected, dtype)
    memory = torch.zeros(expected.size + 70, dtype=dtype, device=device)
    for offset in (0, 13):
        memory.view(torch.uint8).fill_(0xA5)
        out = memory[offset : offset + expected.size].view(expected.shape)
        batch.decode(out=out, **arguments)
        assert_same(out, expected, dtype)
        around = torch.cat([bits(memory[:offset]), bits(memory[offset + expected.size :])])
        assert bool((around == 0xA5).all())


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_large_grouped_batch(backend, device, num_threads):
    """Planes without a mask, in fresh pages and in a used output."""
    rles, expected = large_case("plain", 1)
    images = [rles[:3], [], rles[3:11], rles[11:12]]
    planes = reference.stack_images(
        [expected[:3], [], expected[3:11], expected[11:12]], expected.shape[1:]
    )
    batch = fd.pack_rles(images).to(device)
    result = batch.decode(num_threads=num_threads)
    assert_same(result, planes, torch.uint8)
    result.fill_(9)
    assert_same(batch.decode(out=result, num_threads=num_threads), planes, torch.uint8)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize(
    "size",
    [(3, 65_536), (3, 65_537), (5, 140_001), (65_537, 3), (140_001, 2), (1, 300_000), (300_000, 1)],
)
def test_long_planes(backend, device, size, num_threads):
    """Wider than a tile of columns, taller than 16 bits."""
    h, w = size
    rng = np.random.default_rng(5)
    masks = [draws.noise(rng, h, w), draws.across_columns(rng, h, w), draws.full(rng, h, w)]
    masks.append(reference.pad(draws.full(rng, min(h, 200), min(w, 65_540)), size))
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    batch = fd.pack_rles(rles).to(device)
    expected = np.stack(masks)
    assert_same(batch.decode(num_threads=num_threads), expected, torch.uint8)
    out = torch.full((4, h, w), 7.0, device=device)
    batch.decode(out=out, dtype=torch.float32, num_threads=num_threads)
    assert_same(out, expected, torch.float32)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_planes_of_many_row_tiles(backend, device, num_threads):
    """Rows of 65,537 columns: the flips of about 1,000 of them fill the scratch memory."""
    rles = some_rles(50, 61)[:3]
    size = (1203, 65_537)
    batch = fd.pack_rles(rles[:1]).to(device)
    expected = reference.resize(truth(rles[:1])[0], size)[None]
    result = batch.decode(size=size, num_threads=num_threads)
    assert_same(result, expected, torch.uint8)
    result.fill_(9)
    assert_same(batch.decode(size=size, num_threads=num_threads, out=result), expected, torch.uint8)


def test_tiny_masks_of_huge_planes_are_free(backend, device):
    """Fresh pages that no mask touches cost nothing, so this ends at once."""
    rles = [{"size": [4, 5], "counts": [3, 7, 10]}]
    result = fd.pack_rles(rles).to(device).decode(pad=(30_000, 40_000))
    assert result.shape == (1, 30_000, 40_000)
    assert_same(result[:, :4, :5].contiguous(), truth(rles)[0][None], torch.uint8)
    assert int(result[0, 29_999].sum()) == 0


def test_size_is_nearest_exact_of_torch(backend, device):
    """A third oracle for the resizing rule, with ratios that float32 cannot hold."""
    rng = np.random.default_rng(8)
    for h, w, out_h, out_w in rng.integers(1, 700, (12, 4)).tolist():
        mask = draws.noise(rng, h, w)
        batch = fd.pack_rles(coco_mask.encode(np.asfortranarray(mask))).to(device)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None], (out_h, out_w), mode="nearest-exact"
        )[0]
        assert torch.equal(batch.decode(size=(out_h, out_w)).cpu(), expected)


def test_size_beyond_what_float32_counts(backend, device):
    """Past 2**24 the index d + 0.5 is rounded; the rule of the reference still holds."""
    counts = [5, 2**24, 3, 7, 11, 2**22]
    n = sum(counts)
    batch = fd.pack_rles({"size": [1, n], "counts": counts}).to(device)
    flat = np.repeat(np.arange(len(counts), dtype=np.uint8) % 2, counts)
    for width in (n - 1, n // 3, 2**24 + 2**23 + 1):
        expected = flat[reference.nearest_indices(n, width)][None, None]
        assert_same(batch.decode(size=(1, width)), expected, torch.uint8)


# --- Encoding


def canonical(masks):
    """Return the RLE dicts that dense masks must become; both oracles agree on them."""
    rles = []
    for mask in masks:
        rle = draws.to_rle(mask)
        coco = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert (list(coco["size"]), coco["counts"]) == (rle["size"], rle["counts"])
        rles.append(rle)
    return rles


def assert_encoded(batch, rles):
    """Equal to the batch that packing makes, in every byte; so sizes and offsets are right, too."""
    expected = fd.pack_rles(rles)
    assert batch.to_coco("bytes") == rles
    assert batch == expected
    assert (batch.height, batch.width, batch.uniform) == (
        expected.height,
        expected.width,
        expected.uniform,
    )
    assert batch.device.type == "cpu"


def of_type(masks, dtype):
    """Return masks as elements of a dtype whose foreground has every bit that a value can have.

    The elements are integers of the same size, for NumPy knows no bfloat16.
    """
    item_size, value_bits = VALUES[dtype]
    unsigned = np.dtype(f"u{item_size}").type
    places = [i for i in range(8 * item_size) if value_bits >> i & 1]
    patterns = np.array([1] if dtype == torch.bool else [1 << i for i in places], unsigned)
    elements = np.where(masks, np.resize(patterns, masks.shape), unsigned(0))
    if dtype.is_floating_point:
        elements[:, ::2] |= unsigned(1 << (8 * item_size - 1))  # -0.0, and negative numbers
    return elements.view(f"i{item_size}")


LAYOUTS = {}


def layout(arrange):
    LAYOUTS[arrange.__name__] = arrange
    return arrange


@layout
def rows(masks):
    return np.ascontiguousarray(masks)


@layout
def columns(masks):
    return np.ascontiguousarray(masks.transpose(0, 2, 1)).transpose(0, 2, 1)


@layout
def masks_last(masks):
    return np.ascontiguousarray(masks.transpose(1, 2, 0)).transpose(2, 0, 1)


@layout
def fortran(masks):
    return np.asfortranarray(masks)


@layout
def window_of_rows(masks):
    """With foreground all around."""
    around = np.full((len(masks) + 2, masks.shape[1] + 9, masks.shape[2] + 70), 1, masks.dtype)
    around[1:-1, 4:-5, 3:-67] = masks
    return around[1:-1, 4:-5, 3:-67]


@layout
def window_of_columns(masks):
    return window_of_rows(masks.transpose(0, 2, 1)).transpose(0, 2, 1)


def _spread(masks, steps):
    """Return the masks as every so many elements of an array full of foreground."""
    shape = [side * step for side, step in zip(masks.shape, steps, strict=True)]
    spread = np.full(shape, 1, masks.dtype)
    places = tuple(slice(None, None, step) for step in steps)
    spread[places] = masks
    return spread[places]


@layout
def every_other_column(masks):
    return _spread(masks, (1, 1, 2))


@layout
def every_third_row(masks):
    return _spread(masks, (1, 3, 1))


@layout
def every_other_element(masks):
    return _spread(masks.transpose(0, 2, 1), (2, 2, 2)).transpose(0, 2, 1)


# What a tensor cannot be.
ARRAY_LAYOUTS = {
    "rows_backwards": lambda masks: np.ascontiguousarray(masks[:, ::-1])[:, ::-1],
    "columns_backwards": lambda masks: np.ascontiguousarray(masks[:, :, ::-1])[:, :, ::-1],
    "all_backwards": lambda masks: np.asfortranarray(masks[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "unaligned": lambda masks: _unaligned(masks),
    "field_of_records": lambda masks: _field_of_records(masks),
    "read_only": lambda masks: _read_only(masks),
    "other_byte_order": lambda masks: masks.astype(masks.dtype.newbyteorder()),
}


def _unaligned(masks):
    memory = np.zeros(masks.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(masks.tobytes(), np.uint8)
    return memory[1:].view(masks.dtype).reshape(masks.shape)


def _field_of_records(masks):
    records = np.full(masks.shape, 1, [("before", "u1"), ("mask", masks.dtype), ("after", "u2")])
    records["mask"] = masks
    return records["mask"]


def _read_only(masks):
    masks = masks.copy()
    masks.flags.writeable = False
    return masks


def masks_of_every_kind(h, w, seed=0):
    return np.stack(draws.every_kind(h, w, seed)).astype(bool)


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", VALUES, ids=str)
def test_encode(backend, dtype, arrange):
    """Operator ``encode``."""
    masks = masks_of_every_kind(67, 131)
    elements = arrange(of_type(masks, dtype))
    tensor = torch.from_numpy(elements).view(dtype)
    assert tensor.data_ptr() == elements.ctypes.data
    rles = canonical(masks)
    assert_encoded(fd.encode_masks(tensor), rles)
    assert_encoded(fd.encode_masks(tensor[2]), rles[2:3])
    assert np.array_equal(fd.encode_masks(tensor).decode().numpy(), masks)
    if dtype != torch.bfloat16:
        array = elements.view(np.dtype(str(dtype).removeprefix("torch.")))
        assert_encoded(fd.encode_masks(array), rles)


@pytest.mark.parametrize("arrange", ARRAY_LAYOUTS.values(), ids=ARRAY_LAYOUTS)
@pytest.mark.parametrize("dtype", [t for t in VALUES if t != torch.bfloat16], ids=str)
def test_encode_array(backend, dtype, arrange):
    masks = masks_of_every_kind(67, 131)
    array = of_type(masks, dtype).view(np.dtype(str(dtype).removeprefix("torch.")))
    arranged = arrange(array)
    assert_encoded(fd.encode_masks(arranged), canonical(masks))
    assert_encoded(fd.encode_masks(arranged[-1]), canonical(masks[-1:]))


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "size",
    [(h, w) for h in draws.EDGE_SIDES for w in draws.EDGE_SIDES]
    + [(1, 200), (200, 1), (127, 129), (128, 128), (129, 127)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_encode_sizes(backend, size, arrange):
    masks = masks_of_every_kind(*size)
    for dtype in (np.uint8, np.float32):
        assert_encoded(fd.encode_masks(arrange(masks.astype(dtype))), canonical(masks))


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 5, 0), (1, 0, 0), (0, 4, 5), (0, 0, 0), (0, 9)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64], ids=str)
def test_encode_nothing(backend, shape, dtype):
    masks = torch.zeros(shape, dtype=dtype)
    leading = masks if masks.ndim == 3 else masks[None]
    rles = canonical(leading.numpy())
    for some in (masks, masks.numpy(), masks.transpose(-1, -2).contiguous().transpose(-1, -2)):
        assert_encoded(fd.encode_masks(some), rles)


def test_encode_values(backend):
    """What is foreground, in words: everything but zero."""
    floats = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 1e-8, -1e-8, 0.5, 1.0, 2.0, 255]
    wanted = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        masks = torch.tensor([floats], dtype=dtype)
        tiny = torch.finfo(dtype).smallest_normal
        masks[0, 6], masks[0, 7] = tiny, -tiny
        assert fd.encode_masks(masks).decode()[0, 0].tolist() == wanted
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        masks = torch.tensor([[0, 1, -1, info.min, info.max, 0]], dtype=dtype)
        assert fd.encode_masks(masks).decode()[0, 0].tolist() == [0, 1, 1, 1, 1, 0]


def test_encode_expanded(backend):
    """Strides of zero, along each axis and along all."""
    rng = np.random.default_rng(4)
    for shape in ((1, 70, 90), (3, 1, 90), (3, 70, 1), (1, 1, 90), (3, 1, 1), (1, 1, 1)):
        small = rng.integers(0, 2, shape, np.uint8)
        masks = np.broadcast_to(small, (3, 70, 90))
        rles = canonical(masks)
        assert_encoded(fd.encode_masks(masks), rles)
        assert_encoded(fd.encode_masks(torch.from_numpy(small).expand(3, 70, 90)), rles)


def test_encode_what_shows_itself_as_an_array(backend):
    image = pytest.importorskip("PIL.Image")
    masks = masks_of_every_kind(33, 65)
    for mask in masks:
        assert_encoded(fd.encode_masks(image.fromarray(mask)), canonical([mask]))
        assert_encoded(fd.encode_masks(image.fromarray(mask * np.uint8(255))), canonical([mask]))


# Sizes at which masks are split into strips, for threads or to bound the bitmap: wide, tall, and so
# tall that rows are not read as such.
SPLIT_SIZES = [(1203, 1601), (41, 70_001), (70_001, 41), (1_100_000, 3), (3, 1_100_000)]


@functools.cache
def split_masks(size):
    """Return masks whose strips have no boundary, a few, or many; and their RLEs."""
    h, w = size
    rng = np.random.default_rng(6)
    kinds = (draws.empty, draws.full, draws.last_pixel, draws.one_pixel, draws.columns_on_and_off)
    masks = [kind(rng, h, w) for kind in kinds]
    masks += [draws.across_columns(rng, h, w) for _ in range(4)]
    masks += [draws.noise(rng, h, w), rng.random((h, w)) < 0.001]
    masks = np.stack(masks).astype(np.uint8)
    return masks, [dict(coco_mask.encode(np.asfortranarray(mask))) for mask in masks]


@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("num_threads", [1, 2, 5, 64])
@pytest.mark.parametrize("size", SPLIT_SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_encode_split_masks(backend, size, num_threads, order):
    masks, rles = split_masks(size)
    for begin, end in ((0, len(masks)), (5, 6), (9, 10), (10, 11), (0, 2)):
        some = LAYOUTS[order](masks[begin:end])
        assert_encoded(fd.encode_masks(some, num_threads=num_threads), rles[begin:end])


def test_encode_many_small_masks(backend):
    """More masks than items of work; a thread's share is more than one chunk of characters."""
    rng = np.random.default_rng(9)
    masks = rng.integers(0, 2, (70_001, 5, 7), np.uint8)
    batch = fd.encode_masks(masks, num_threads=3)
    assert np.array_equal(batch.decode().numpy(), masks)
    places = rng.integers(0, len(masks), 200)
    assert batch[places].to_coco("bytes") == canonical(masks[places])


@given(
    drawn=draws.sizes_and_counts(),
    dtype=st.sampled_from(tuple(VALUES)),
    arrange=st.sampled_from(tuple(LAYOUTS.values())),
    num_threads=st.sampled_from([None, 1, 3]),
)
@settings(max_examples=300)
def test_encode_property(backend, drawn, dtype, arrange, num_threads):
    h, w, counts = drawn
    mask = reference.decode(counts, h, w)
    masks = np.stack([mask, 1 - mask])
    tensor = torch.from_numpy(arrange(of_type(masks, dtype))).view(dtype)
    batch = fd.encode_masks(tensor, num_threads=num_threads)
    assert_encoded(batch, canonical(masks))
    assert np.array_equal(batch.decode().numpy(), masks)
    # What another encoder wrote less tightly becomes canonical.
    loose = fd.pack_rles({"size": [h, w], "counts": counts})
    assert fd.encode_masks(loose.decode()) == batch[0]


# --- All of it at once


@st.composite
def decodings(draw):
    """Draw RLEs with counts as lists, arguments of decode, and the result they must give."""
    drawn = draw(st.lists(draws.sizes_and_counts(), min_size=1, max_size=4))
    if draw(st.booleans()):
        h, w, _ = drawn[0]
        drawn = [item for item in drawn if item[:2] == (h, w)]
    rles = [{"size": [h, w], "counts": counts} for h, w, counts in drawn]
    masks = [reference.decode(counts, h, w) for h, w, counts in drawn]
    arguments = {"num_threads": draw(st.sampled_from([None, 1, 3]))}
    if draw(st.booleans()):
        places = st.integers(-len(masks), len(masks) - 1)
        arguments["select"] = draw(st.lists(places, min_size=1, max_size=5))
        masks = [masks[i] for i in arguments["select"]]
    if draw(st.booleans()):
        arguments["crop"] = [draw(windows_of(mask.shape)) for mask in masks]
        masks = [reference.crop(m, w) for m, w in zip(masks, arguments["crop"], strict=True)]
    size = tuple(np.max([mask.shape for mask in masks], axis=0).tolist())
    if draw(st.booleans()):
        size = (draw(draws.sides), draw(draws.sides))
        arguments["size"] = size
        masks = [reference.resize(mask, size) for mask in masks]
    elif draw(st.booleans()) and min(size) > 0:
        size = (size[0] + draw(st.integers(0, 9)), size[1] + draw(st.integers(0, 70)))
        arguments["pad"] = size
    else:
        arguments["pad"] = True
    return Decoding(rles, arguments, reference.stack(masks, size))


@st.composite
def windows_of(draw, size):
    h, w = size
    y, x = draw(st.integers(0, h)), draw(st.integers(0, w))
    return [y, x, draw(st.integers(0, h - y)), draw(st.integers(0, w - x))]


@given(data=decodings(), dtype=st.sampled_from(DTYPES), compressed=st.booleans())
@settings(max_examples=200)
def test_decode_property(backend, device, data, dtype, compressed):
    rles = data.rles
    if compressed:
        rles = [r | {"counts": reference.counts_to_string(r["counts"])} for r in rles]
    batch = fd.pack_rles(rles).to(device)
    assert_same(batch.decode(dtype=dtype, **data.arguments), data.expected, dtype)
    out = torch.full(data.expected.shape, 1, dtype=dtype, device=device)
    assert_same(batch.decode(dtype=dtype, out=out, **data.arguments), data.expected, dtype)


@given(drawn=st.lists(draws.sizes_and_counts(), min_size=1, max_size=4))
@settings(max_examples=200)
def test_regions_property(backend, device, drawn):
    rles = [{"size": [h, w], "counts": counts} for h, w, counts in drawn]
    batch = fd.pack_rles(rles).to(device)
    for operator in REGIONS:
        expected, _ = expected_regions(rles, operator)
        np.testing.assert_array_equal(getattr(batch, operator)().cpu().numpy(), expected)


# --- Real files


def rles_in(node):
    """Yield every RLE dict anywhere inside parsed JSON."""
    if isinstance(node, dict) and "counts" in node and "size" in node:
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from rles_in(child)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real annotations on this machine")
@pytest.mark.parametrize("path", sorted(DATA.rglob("*.json")), ids=lambda path: path.stem)
def test_real_files(path):
    """All backends in one test, because pycocotools takes most of the time."""
    rles = sorted(rles_in(json.loads(path.read_text())), key=lambda rle: rle["size"])
    assert rles
    names = [found.name for found in dispatch.backends() if found.available]
    for begin in range(0, len(rles), 40):
        some = rles[begin : begin + 40]
        coco = [r if isinstance(r["counts"], str) else coco_mask.frPyObjects(r, *r["size"])
                for r in some]  # fmt: skip
        masks = [np.ascontiguousarray(coco_mask.decode(rle)) for rle in coco]
        for name in names:
            with dispatch.use(name):
                batch = fd.pack_rles(some)
                decoded = batch.decode(pad=True).numpy()
                for mask, plane in zip(masks, decoded, strict=True):
                    assert np.array_equal(plane[: mask.shape[0], : mask.shape[1]], mask)
                area = coco_mask.area(coco)
                assert np.count_nonzero(decoded.view(bool)) == area.sum()  # none in the padding
                assert np.array_equal(batch.area().numpy(), area)
                assert np.array_equal(batch.bbox().numpy(), coco_mask.toBbox(coco))
                for mask in masks:
                    (rle,) = fd.encode_masks(mask).to_coco("bytes")
                    assert rle["counts"] == coco_mask.encode(np.asfortranarray(mask))["counts"]
                assert batch.to_coco("list") == [
                    {"size": rle["size"], "counts": reference.string_to_counts(rle["counts"])}
                    for rle in coco
                ]


def test_mask_without_rows_before_a_large_one(backend):
    """In an output that gets pages of its own (from 32 MB on) and is planned for."""
    rles = [{"size": [0, 5], "counts": "0"}, {"size": [6000, 6000], "counts": [100, 35_999_900]}]
    planes = fd.decode_rle_batch(rles, pad=True)
    assert planes.shape == (2, 6000, 6000)
    assert planes[0].count_nonzero() == 0
    assert planes[1].count_nonzero() == 35_999_900
    assert planes[1, :100, 0].count_nonzero() == 0
