"""What is decoded in the tests, how, and what must come out.

The oracles are pycocotools and the naive ``reference.py``; they must agree with each other too.
``CASES`` is the table; ``test_coverage.py`` compares it with what the library offers.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import draws
import numpy as np
import reference
import torch
from pycocotools import mask as coco_mask

from sa1b_fastdecode.library import ELEMENTS

DTYPES = tuple(ELEMENTS)


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


# --- How results are compared


def assert_same(result, expected, dtype):
    """Equal in shape, type and every bit, so that a bool of 2 or a float of -0 is found."""
    assert result.dtype == dtype
    assert tuple(result.shape) == expected.shape
    assert result.is_contiguous()
    wanted = torch.from_numpy(np.ascontiguousarray(expected)).to(dtype)
    assert torch.equal(bits(result), bits(wanted))


def bits(tensor):
    return tensor.cpu().flatten().view(torch.uint8)
