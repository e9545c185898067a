"""What pairs of masks share, on every backend against two oracles, bit for bit."""

import draws
import numpy as np
import pytest
import reference
import torch
from cases import some_rles, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode import cpu

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
        of_function = fd.mask_intersecting_pairs(first, second)
        assert torch.equal(of_function[0], indices)
        assert torch.equal(of_function[1], intersection)


def test_more_intersecting_pairs_than_room(backend, monkeypatch):
    a, b = (fd.pack_rles(rles) for rles in PAIRS["37x53"]())
    expected = a.intersecting_pairs(b)
    for room in (0, 1, len(expected[1]) - 1, len(expected[1])):
        monkeypatch.setattr(cpu, "_MOST_PAIRS", room)
        for result, wanted in zip(a.intersecting_pairs(b), expected, strict=True):
            assert torch.equal(result, wanted)


@pytest.mark.parametrize("h", [32766, 32767, 32768, 70_000])
def test_pairs_of_high_masks(fast_backend, device, h):
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
def test_pairs_enough_for_threads(fast_backend, device, num_threads):
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
    assert np.array_equal(indices.cpu().numpy(), np.argwhere(shared))
    assert np.array_equal(intersection.cpu().numpy(), shared[shared > 0])


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
def test_pairwise_property(fast_backend, device, drawn):
    a, b, crowd = drawn
    first, second = (fd.pack_rles(rles).to(device) for rles in (a, b))
    for operator in PAIRWISE:
        expected = expected_pairs(operator, masks_of(a), masks_of(b))
        assert_pairs(getattr(first, operator)(second), expected)
        assert_pairs(getattr(first, operator)(first), expected_pairs(operator, *[masks_of(a)] * 2))
    expected = expected_pairs("iou", masks_of(a), masks_of(b), crowd)
    assert_pairs(first.iou(second, crowd), expected)
