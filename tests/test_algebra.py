"""Masks made of masks: the same as of dense masks, in canonical strings, on every backend."""

import itertools
import pickle

import draws
import numpy as np
import pycocotools.mask
import pytest
import reference
import torch
from conftest import available
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import sa1b_fastdecode as fd
from sa1b_fastdecode import algebra, dispatch, library

ops = torch.ops.sa1b_fastdecode


# --- What each operator is, on dense uint8 masks (N, H, W) or (H, W)


def translate(masks, offset):
    moved = np.zeros_like(masks)
    (dy, dx), (h, w) = offset, masks.shape[-2:]
    rows, columns = slice(max(dy, 0), max(min(h, h + dy), 0)), slice(max(dx, 0), max(w + dx, 0))
    rows_from = slice(max(-dy, 0), max(min(h, h - dy), 0))
    columns_from = slice(max(-dx, 0), max(w - dx, 0))
    moved[..., rows, columns] = masks[..., rows_from, columns_from]
    return moved


def resize(masks, size):
    return np.array([reference.resize(mask, size) for mask in masks], np.uint8)


PAIRED = {
    "union": np.bitwise_or,
    "intersection": np.bitwise_and,
    "difference": lambda a, b: a & (1 - b),
    "xor": np.bitwise_xor,
}
OPERATORS = {
    "union": "__or__",
    "intersection": "__and__",
    "difference": "__sub__",
    "xor": "__xor__",
}
MERGED = {
    "union": lambda masks: masks.max(axis=0),
    "intersection": lambda masks: masks.min(axis=0),
    "xor": lambda masks: np.bitwise_xor.reduce(masks, axis=0),
}


# The operators of one batch: a call, and what it does to dense masks.
SETS = {
    "complement": (lambda b: ~b, lambda m: 1 - m),
    **{
        how: (lambda b, how=how: b.merge(how=how), lambda m, dense=dense: dense(m)[None])
        for how, dense in MERGED.items()
    },
}


def moves(h, w):
    """Return those that move pixels, for masks of a size."""
    calls = {
        "horizontal": (lambda b: b.flip("horizontal"), lambda m: m[:, :, ::-1]),
        "vertical": (lambda b: b.flip("vertical"), lambda m: m[:, ::-1]),
    }
    for k in (-1, 0, 1, 2, 7):
        calls["rot90", k] = (
            lambda b, k=k: b.rot90(k),
            lambda m, k=k: np.rot90(m, k, (1, 2)),
        )
    for window in {
        (0, 0, h, w),
        (h // 2, w // 2, h - h // 2, w - w // 2),
        (0, w // 3, h, w - w // 3),
        (h // 3, 0, h - h // 3, w),
        (h // 4, w // 4, h // 2, w // 2),
        (h, w, 0, 0),
    }:
        y, x, rows, columns = window
        calls["crop", window] = (
            lambda b, c=window: b.crop(c),
            lambda m, y=y, x=x, r=rows, c=columns: m[:, y : y + r, x : x + c],
        )
    for size in {(h, w), (h + 3, w), (h, w + 2), (h + 65, w + 1)}:
        calls["pad", size] = (
            lambda b, s=size: b.pad(s),
            lambda m, s=size: reference.stack(m, s),
        )
    for size in {(h, w), (1, 1), (2 * h, 3 * w), (h // 2 + 1, w), (h, w // 3 + 1), (70, 9)}:
        calls["resize", size] = (lambda b, s=size: b.resize(s), lambda m, s=size: resize(m, s))
    for offset in {(0, 0), (0, 1), (1, 0), (-1, -2), (3, 2), (h, 0), (-h + 1, w - 1), (2**40, 0)}:
        calls["translate", offset] = (
            lambda b, o=offset: b.translate(o),
            lambda m, o=offset: translate(m, o),
        )
    return calls


def assert_encodes(batch, masks):
    """The batch holds exactly the strings of these masks (N, H, W)."""
    expected = fd.encode_masks(np.ascontiguousarray(masks))
    assert batch.sizes.tolist() == expected.sizes.tolist()
    assert batch.to_coco("bytes") == expected.to_coco("bytes")
    assert batch == fd.RLEBatch(batch.data, len(masks))  # the header is right
    assert (batch.height, batch.width) == (expected.height, expected.width)
    assert batch.uniform


SIZES = [*itertools.product((1, 2, 33, 64), (1, 7, 65)), (5, 5), (63, 2), (130, 31)]


@pytest.mark.parametrize("h, w", SIZES)
def test_every_operator_that_moves_pixels(cpu_backend, h, w):
    masks = np.stack(draws.every_kind(h, w))
    batch = fd.encode_masks(masks)
    for call, dense in moves(h, w).values():
        assert_encodes(call(batch), dense(masks))


@pytest.mark.parametrize("h, w", SIZES)
def test_complement_and_merge(backend, device, h, w):
    masks = np.stack(draws.every_kind(h, w))
    batch = fd.encode_masks(masks).to(device)
    for call, dense in SETS.values():
        result = call(batch)
        assert result.device == batch.device
        assert_encodes(result, dense(masks))


@pytest.mark.parametrize("h, w", SIZES)
def test_mask_by_mask(backend, device, h, w):
    a, b = np.stack(draws.every_kind(h, w)), np.stack(draws.every_kind(h, w, seed=1)[::-1])
    first, second = fd.encode_masks(a).to(device), fd.encode_masks(b).to(device)
    for name, dense in PAIRED.items():
        operator = getattr(fd.RLEBatch, OPERATORS[name])
        result = operator(first, second)
        assert result.device == first.device
        assert_encodes(result, dense(a, b))
        assert_encodes(operator(first, first), dense(a, a))
        for i in (0, 3, 8):  # one mask against all of the other side
            assert_encodes(operator(first[i], second), dense(a[i], b))
            assert_encodes(operator(first, second[i]), dense(a, b[i]))
        assert getattr(algebra, name)(first.to_coco(), second.to_coco()) == result


@pytest.mark.parametrize("h, w", [(7, 65), (64, 33), (1, 9), (0, 3)])
def test_merged_as_pycocotools_does(backend, device, h, w):
    masks = np.stack(draws.every_kind(max(h, 1), w))[:, :h]
    rles = pycocotools.mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    for n in (1, 2, 3, len(rles)):
        for how, intersect in (("union", False), ("intersection", True)):
            expected = pycocotools.mask.merge(rles[:n], intersect=intersect)
            merged = fd.pack_rles(rles[:n]).to(device).merge(how=how)
            assert merged.to_coco("bytes")[0] == expected or h == 0


@st.composite
def masks_of_one_size(draw):
    """Counts of some masks of one size, with runs of no length, and two that are canonical."""
    h, w = draw(draws.sides), draw(draws.sides)
    return h, w, draw(st.lists(draws.counts_of(h, w), min_size=1, max_size=5))


@settings(max_examples=60)
@given(masks_of_one_size(), st.data())
def test_any_counts(masks, data):
    h, w, counts = masks
    dense = np.array([reference.decode(each, h, w) for each in counts])
    rles = [{"size": [h, w], "counts": each} for each in counts]
    calls = list((SETS | moves(h, w)).values())
    call, on_dense = calls[data.draw(st.integers(0, len(calls) - 1))]
    for name in available():
        with dispatch.use(name):
            batch = fd.pack_rles(rles)
            assert_encodes(call(batch), on_dense(dense))
            for paired, on_two in PAIRED.items():
                assert_encodes(getattr(algebra, paired)(batch, batch[0]), on_two(dense, dense[0]))
            for combine, on_all in SETS.values():
                assert_encodes(combine(batch), on_all(dense))


LARGE = {
    # More than a block of counts, a window of positions, a chunk of characters, a thread.
    "noise": np.random.default_rng(0).integers(0, 2, (4, 700, 901), np.uint8),
    "few": np.stack([draws.blobs(np.random.default_rng(i), 700, 901) for i in range(4)]),
    # More rows than a band has.
    "tall": np.stack(
        [draws.across_columns(np.random.default_rng(i), 140_001, 3) for i in range(3)]
    ),
    "tall noise": np.random.default_rng(1).integers(0, 2, (3, 70_001, 3), np.uint8),
}


@pytest.mark.parametrize("name", LARGE)
def test_sets_of_large_masks(fast_backend, device, name):
    masks = LARGE[name]
    batch = fd.encode_masks(masks).to(device)
    for call, dense in SETS.values():
        assert_encodes(call(batch), dense(masks))
    for paired, dense in PAIRED.items():
        assert_encodes(
            getattr(algebra, paired)(batch[:2], batch[1:3]), dense(masks[:2], masks[1:3])
        )


@pytest.mark.parametrize("name", LARGE)
def test_large_masks_are_moved(cpu_backend, name):
    masks = LARGE[name]
    h, w = masks.shape[1:]
    batch = fd.encode_masks(masks)
    for k in range(4):
        assert_encodes(batch.rot90(k), np.rot90(masks, k, (1, 2)))
    assert_encodes(batch.flip("horizontal"), masks[:, :, ::-1])
    assert_encodes(batch.flip("vertical"), masks[:, ::-1])
    assert_encodes(batch.crop((h // 3, 1, h // 2, w - 1)), masks[:, h // 3 : h // 3 + h // 2, 1:])
    assert_encodes(batch.pad((h + 1, w + 1)), reference.stack(masks, (h + 1, w + 1)))
    assert_encodes(batch.resize((h // 2, w + 5)), resize(masks, (h // 2, w + 5)))
    assert_encodes(batch.translate((-5, 1)), translate(masks, (-5, 1)))


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("tables", ["cpu", "beside"])
def test_groups_of_several_masks(backend, device, kind, tables):
    """What the methods do not offer: difference and complement of more than two."""
    masks = LARGE["few"]
    batch = fd.encode_masks(masks).to(device)
    members = torch.tensor([2, 0, 3, 4 + 1, 3, 1, 4 + 2])
    offsets = torch.tensor([0, 4, 5, 7])
    if tables == "beside":
        members, offsets = members.to(device), offsets.to(device)
    data = ops.combine(batch.data, 4, batch.data, 4, members, offsets, None, kind)
    assert data.device == batch.device
    groups = [masks[[2, 0, 3, 1]], masks[[3]], masks[[1, 2]]]
    dense = (
        *MERGED.values(),
        lambda m: m[0] & (1 - m[1:].max(axis=0, initial=0)),
        lambda m: 1 - m.max(axis=0),
    )[kind]
    assert_encodes(fd.RLEBatch(data, 3), np.stack([dense(group) for group in groups]))


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_transposed(cpu_backend, rows, columns):
    masks = np.stack(draws.every_kind(40, 67))
    batch = fd.encode_masks(masks)
    data = ops.turn(batch.data, len(masks), True, rows, columns, None)
    expected = masks.transpose(0, 2, 1)[:, :: -1 if rows else 1, :: -1 if columns else 1]
    assert_encodes(fd.RLEBatch(data, len(masks)), expected)


def test_a_string_that_fills_several_chunks(cpu_backend):
    """Resized to ten times its size, 3 MB of characters."""
    mask = draws.noise(np.random.default_rng(0), 400, 300)
    assert_encodes(fd.encode_masks(mask).resize((4000, 1500)), resize(mask[None], (4000, 1500)))


# --- As decode


@pytest.mark.parametrize("grouped", [False, True], ids=["flat", "grouped"])
def test_same_windows_as_decode(cpu_backend, grouped):
    rles = [draws.to_rle(mask) for h in (9, 12) for mask in draws.every_kind(h, 17)[:4]]
    batch = fd.pack_rles([rles[:3], [], rles[3:]] if grouped else rles)
    windows = torch.tensor([[i % 3, i, 9 - i % 3, 3 + i] for i in range(8)])
    assert torch.equal(batch.crop(windows).decode(pad=True), batch.decode(crop=windows, pad=True))
    assert torch.equal(batch.crop((1, 2, 7, 9)).decode(), batch.decode(crop=(1, 2, 7, 9)))
    assert torch.equal(batch.pad().decode(), batch.decode(pad=True))
    assert torch.equal(batch.pad((20, 18)).decode(), batch.decode(pad=(20, 18)))
    assert torch.equal(batch.resize((5, 40)).decode(), batch.decode(size=(5, 40)))
    cropped = batch.crop(windows).resize((6, 6))
    assert torch.equal(cropped.decode(), batch.decode(crop=windows, size=(6, 6)))


# --- Grouped by image

ONE, TWO = draws.every_kind(6, 8), draws.every_kind(5, 3, seed=2)
IMAGES = [[draws.to_rle(m) for m in ONE[:4]], [], [draws.to_rle(m) for m in TWO[:3]]]


def grouped_batch():
    return fd.pack_rles(IMAGES, image_sizes=[(6, 8), (4, 4), (5, 3)])


def assert_grouped(result, sizes):
    assert result.num_images == 3
    assert result.counts_per_image.tolist() == [4, 0, 3]
    assert result.image_sizes.tolist() == sizes
    assert result == (checked := fd.RLEBatch(result.data, 7, 3))
    for name in ("height", "width", "uniform", "max_masks"):
        assert getattr(result, name) == getattr(checked, name)


def test_sets_keep_the_grouping(backend, device):
    batch = grouped_batch().to(device)
    full = fd.encode_masks(np.ones((6, 8))).to(device)
    padded = fd.pack_rles([batch.cpu().pad()[:4], [], batch.cpu().pad()[4:]]).to(device)
    for result, sizes in (
        (~batch, [[6, 8], [4, 4], [5, 3]]),
        (batch | batch, [[6, 8], [4, 4], [5, 3]]),
        (batch.flat() ^ batch, [[6, 8], [4, 4], [5, 3]]),
        (padded & full, [[6, 8], [0, 0], [6, 8]]),
        (full - padded, [[6, 8], [0, 0], [6, 8]]),
    ):
        assert_grouped(result, sizes)
    assert (batch | batch).flat() == batch.flat() | batch.flat()


def test_grouping_is_kept(cpu_backend):
    batch = grouped_batch()
    for result, sizes in (
        (batch.flip("vertical"), [[6, 8], [4, 4], [5, 3]]),
        (batch.rot90(2), [[6, 8], [4, 4], [5, 3]]),
        (batch.rot90(), [[8, 6], [4, 4], [3, 5]]),
        (batch.translate((1, 0)), [[6, 8], [4, 4], [5, 3]]),
        (batch.crop((0, 0, 3, 2)), [[3, 2]] * 3),
        (batch.crop(torch.tensor([[0, 0, i % 5, 2] for i in range(7)])), [[3, 2], [0, 0], [4, 2]]),
        (batch.pad(), [[6, 8]] * 3),
        (batch.pad((9, 9)), [[9, 9]] * 3),
        (batch.resize((2, 1)), [[2, 1]] * 3),
        (batch.pad() & fd.encode_masks(np.ones((6, 8))), [[6, 8]] * 3),
    ):
        assert_grouped(result, sizes)
    assert batch.rot90().flat() == batch.flat().rot90()


@pytest.mark.parametrize("how", MERGED)
def test_merged_by_image(backend, device, how):
    merged = grouped_batch().to(device).merge(how=how)
    assert merged.max_masks == 1
    assert merged.counts_per_image.tolist() == [1, 0, 1]
    assert merged.image_sizes.tolist() == [[6, 8], [4, 4], [5, 3]]
    assert_encodes(merged[0], MERGED[how](np.stack(ONE[:4]))[None])
    assert_encodes(merged[1], MERGED[how](np.stack(TWO[:3]))[None])


@pytest.mark.parametrize("labels", [[3, -1, 3, 7], [0, 0, 0, 0], [4, 3, 2, 1], [1, 0, 1, 0]])
@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda x: np.array(x, np.int8)])
def test_merged_by_label(backend, device, labels, make):
    masks = np.stack(ONE[:4])
    merged = fd.encode_masks(masks).to(device).merge(make(labels))
    expected = [masks[np.array(labels) == label].max(axis=0) for label in np.unique(labels)]
    assert_encodes(merged, np.stack(expected))


def test_merged_by_label_and_image(backend, device):
    merged = grouped_batch().to(device).merge([5, 1, 5, 1, 1, 2, 1], how="xor")
    assert merged.max_masks == 2
    assert merged.counts_per_image.tolist() == [2, 0, 2]
    assert_encodes(merged[:2], np.stack([ONE[1] ^ ONE[3], ONE[0] ^ ONE[2]]))
    assert_encodes(merged[2:], np.stack([TWO[0] ^ TWO[2], TWO[1]]))


def test_sets_of_nothing(backend, device):
    none = fd.pack_rles([]).to(device)
    no_images = fd.pack_rles([[], []], image_sizes=[(3, 4), (5, 6)]).to(device)
    for batch in (none, no_images):
        for call in (lambda b: ~b, lambda b: b | b, lambda b: b.merge(), lambda b: b.merge([])):
            result = call(batch)
            assert len(result) == 0
            assert result.num_images == batch.num_images
            assert result == fd.RLEBatch(result.data, 0, batch.num_images)
    assert len(none - fd.encode_masks(np.ones((2, 2))).to(device)) == 0


def test_nothing(cpu_backend):
    none = fd.pack_rles([])
    no_images = fd.pack_rles([[], []], image_sizes=[(3, 4), (5, 6)])
    for batch in (none, no_images):
        for call in (
            lambda b: b.crop((0, 0, 2, 2)),
            lambda b: b.pad((9, 9)),
            lambda b: b.pad(),
            lambda b: b.translate((1, 1)),
            lambda b: b.resize((2, 2)),
            lambda b: b.flip("vertical"),
            lambda b: b.rot90(),
        ):
            result = call(batch)
            assert len(result) == 0
            assert result.num_images == batch.num_images
            assert result == fd.RLEBatch(result.data, 0, batch.num_images)
    assert no_images.rot90().image_sizes.tolist() == [[4, 3], [6, 5]]


NO_PIXELS = [{"size": [0, 5], "counts": [0]}, {"size": [5, 0], "counts": []}]


def test_sets_of_masks_without_pixels(backend, device):
    batch = fd.pack_rles(NO_PIXELS).to(device)
    for result in (~batch, batch | batch, batch.merge([0, 1])):
        assert result.sizes.tolist() == [[0, 5], [5, 0]]
        assert [rle["counts"] for rle in result.to_coco("list")] == [[0], [0]]


def test_masks_without_pixels(cpu_backend):
    batch = fd.pack_rles(NO_PIXELS)
    for result in (batch.flip("vertical"), batch.rot90(2)):
        assert result.sizes.tolist() == [[0, 5], [5, 0]]
        assert result.to_coco("list")[0]["counts"] == [0]
    assert batch.rot90().sizes.tolist() == [[5, 0], [0, 5]]
    assert int(batch.pad((6, 6)).area().sum()) == 0
    assert int(batch.resize((6, 6)).area().sum()) == 0


# --- The largest masks: positions up to 2**32 - 1


def largest_masks():
    """Return masks with all pixels, only the last one, and only the first one."""
    h, w = 65535, 65537
    counts = ([0, h * w], [h * w - 1, 1], [0, 1, h * w - 1])
    return h, w, *(fd.pack_rles({"size": [h, w], "counts": each}) for each in counts)


def test_sets_of_the_largest_masks(backend, device):
    h, w, *masks = largest_masks()
    full, last, first = (mask.to(device) for mask in masks)
    middle = full - first - last
    assert middle.to_coco("list")[0]["counts"] == [1, h * w - 2, 1]
    assert ~last == full - last
    assert fd.RLEBatch.cat([first, last, middle]).merge() == full
    assert fd.RLEBatch.cat([full, last, first]).merge(how="xor") == middle


def test_largest_masks(cpu_backend):
    h, w, full, last, first = largest_masks()
    middle = full - first - last
    assert last.flip("vertical").flip("horizontal") == first
    assert last.rot90(2) == first
    assert middle.rot90().rot90() == middle
    assert middle.rot90().sizes.tolist() == [[w, h]]
    assert full.rot90(3).to_coco("list")[0]["counts"] == [0, h * w]
    assert first.translate((h - 1, w - 1)) == last
    assert last.translate((1, 0)).area().tolist() == [0]
    assert full.crop((h - 1, 0, 1, w)).to_coco("list")[0]["counts"] == [0, w]
    assert full.resize((w, h)).area().tolist() == [h * w]
    line = fd.pack_rles({"size": [2**32 - 1, 1], "counts": [5, 2**32 - 7, 1]})
    assert line.rot90().sizes.tolist() == [[1, 2**32 - 1]]
    assert line.rot90(4) == line
    assert line.rot90(3).to_coco("list")[0]["counts"] == [1, 2**32 - 7, 5]


# --- Errors


def test_sizes_that_differ(backend, device):
    batch = fd.encode_masks(np.stack(ONE)).to(device)
    mixed = fd.pack_rles([draws.to_rle(ONE[0]), draws.to_rle(TWO[0])]).to(device)
    with pytest.raises(ValueError, match="mask 1 is 5x3, mask 1 of other is 6x8"):
        mixed | batch[:2]
    with pytest.raises(ValueError, match="mask 0 is 6x8, mask 1 is 5x3"):
        mixed.merge()
    assert mixed.merge([1, 2]) == mixed


def test_errors(cpu_backend):
    batch = fd.encode_masks(np.stack(ONE))
    with pytest.raises(ValueError, match="9 and 2 masks cannot be combined"):
        batch & batch[:2]
    with pytest.raises(ValueError, match="as many masks in each image"):
        fd.pack_rles([IMAGES[0], []]) - fd.pack_rles([[], IMAGES[0]])
    with pytest.raises(TypeError, match="unsupported operand"):
        batch | 3
    with pytest.raises(TypeError, match="not int"):
        algebra.union(batch, 3)
    with pytest.raises(ValueError, match="mask 0: counts add up to 3"):
        algebra.complement({"size": [2, 2], "counts": [1, 2]})
    with pytest.raises(ValueError, match=r"labels must have shape \(9,\)"):
        batch.merge([1, 2])
    with pytest.raises(TypeError, match="labels must be integers"):
        batch.merge([0.5] * 9)
    with pytest.raises(ValueError, match="how must be one of"):
        batch.merge(how="average")
    with pytest.raises(ValueError, match="mask 0: crop"):
        batch.crop((0, 0, 7, 8))
    with pytest.raises(ValueError, match="smaller than the largest"):
        batch.pad((5, 8))
    with pytest.raises(ValueError, match=r"offset must have shape"):
        batch.translate((1, 2, 3))
    with pytest.raises(TypeError, match="offset"):
        batch.translate((1.5, 2))
    with pytest.raises(TypeError, match="offset"):
        batch.translate((True, False))
    with pytest.raises(ValueError, match="positive"):
        batch.resize((0, 8))
    with pytest.raises(ValueError, match=r"2\*\*32 pixels"):
        batch.resize((2**31, 3))
    with pytest.raises(ValueError, match=r"2\*\*32 pixels"):
        batch.pad((2**31, 8))
    with pytest.raises(ValueError, match="direction must be"):
        batch.flip("sideways")
    with pytest.raises(TypeError):
        batch.rot90(1.5)


def test_combine_refuses_wrong_tables(backend, device):
    """Whoever calls an operator directly gets an error, whatever the numbers are."""
    data = fd.encode_masks(np.stack(ONE[:3])).to(device).data

    def combine(members, offsets, kind=0, n=3, images=None):
        tables = torch.tensor(members, dtype=torch.int64), torch.tensor(offsets)
        return ops.combine(data, n, data, 3, *tables, images, kind)

    for members, offsets in (
        ([0, 6], [0, 2]),
        ([-1, 1], [0, 2]),
        ([0, 1], [0, 3]),
        ([0, 1], [0, 1]),
        ([0, 1], [1, 2]),
        ([0, 1], [0, 0, 2]),
        ([0, 1], [0, 2, 1]),
        ([0, 1], [0, 2**62, 2]),
        ([0, 1], [0, 2**62, -(2**63), -(2**62), 2]),
    ):
        with pytest.raises(IndexError):
            combine(members, offsets)
    for kind in (-1, 5):
        with pytest.raises(IndexError):
            combine([0, 1], [0, 2], kind)
    with pytest.raises(ValueError, match="group_offsets"):
        ops.combine(data, 3, data, 3, torch.arange(2), torch.arange(0), None, 0)
    with pytest.raises(ValueError, match="that many masks"):
        combine([0, 1], [0, 2], n=9)
    with pytest.raises(ValueError, match="images must be"):
        combine([0, 1], [0, 2], images=torch.zeros(3))


def test_operators_refuse_wrong_tables(cpu_backend):
    batch = fd.encode_masks(np.stack(ONE[:3]))
    data = batch.data
    windows, sizes = torch.tensor([[0, 0, 6, 8]] * 3), torch.tensor([[6, 8]] * 3)
    assert fd.RLEBatch(ops.place(data, 3, windows, sizes, None), 3) == batch
    for wrong in ([0, 0, -1, 8], [0, 0, 6, 2**32], [2**34, 0, 6, 8], [0, -(2**63), 6, 8]):
        with pytest.raises(ValueError, match="window"):
            ops.place(data, 3, torch.tensor([wrong] * 3), sizes, None)
    for wrong in ([-1, 8], [2**32, 0], [2**16, 2**16], [2**62, 4]):
        with pytest.raises(ValueError, match="pixels"):
            ops.place(data, 3, windows, torch.tensor([wrong] * 3), None)
    with pytest.raises(ValueError, match="windows must be"):
        ops.place(data, 3, windows[:2], sizes, None)
    for name, arguments in (("turn", (True, False, False)), ("place", (windows, sizes))):
        with pytest.raises(ValueError, match="that many masks"):
            getattr(ops, name)(torch.zeros(79, dtype=torch.uint8), 3, *arguments, None)


def test_on_the_cpu_only():
    with pytest.raises(RuntimeError, match=r"on the CPU only, not on meta; use \.cpu\(\)"):
        library.cpu_kernels(FLAT.data.to("meta"))


@settings(max_examples=25)
@given(
    st.lists(draws.hostile_strings, min_size=3, max_size=3),
    st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_hostile_strings(strings, sides):
    """Not validated: what comes out is a mask, on every backend that of the pixels decoded."""
    rles = [{"size": sides, "counts": characters} for characters in strings]
    for name in available():
        with dispatch.use(name):
            batch = fd.pack_rles(rles, validate=False)
            masks = torch.zeros((3, *sides), dtype=torch.uint8)
            batch.decode(out=masks)
            masks = masks.numpy()
            for call, dense in (
                *((getattr(algebra, n), d) for n, d in PAIRED.items()),
                *((lambda a, b, f=f: f[0](a), lambda a, b, f=f: f[1](a)) for f in SOME.values()),
            ):
                assert_encodes(call(batch, batch[[1, 2, 0]]), dense(masks, masks[[1, 2, 0]]))


SOME = {
    "merged": (lambda b: b.merge(), lambda m: m.max(axis=0)[None]),
    "complement": (lambda b: ~b, lambda m: 1 - m),
    "flip": (lambda b: b.flip("horizontal"), lambda m: m[:, :, ::-1]),
    "rot90": (lambda b: b.rot90(), lambda m: np.rot90(m, 1, (1, 2))),
    "pad": (lambda b: b.pad((21, 22)), lambda m: reference.stack(m, (21, 22))),
    "resize": (lambda b: b.resize((9, 11)), lambda m: resize(m, (9, 11))),
}

# --- As torch sees them

FLAT = fd.pack_rles([draws.to_rle(mask) for mask in draws.every_kind(12, 17)])
GROUPED = fd.pack_rles([FLAT[:3], [], FLAT[3:9]])
TABLES = torch.tensor([[1, -2, 8, 9]] * 9), torch.tensor([[16, 9]] * 9)
COMBINE = (FLAT.data, 9, FLAT.data, 9, torch.arange(9), torch.tensor([0, 2, 9]))
SAMPLES = {
    "combine": ("combine", (*COMBINE, None, 2)),
    "combine images": ("combine", (*COMBINE, torch.tensor([[2, 12, 17]]), 0)),
    "place": ("place", (FLAT.data, 9, *TABLES, None)),
    "place images": ("place", (GROUPED.data, 9, *TABLES, GROUPED._images.clone())),
    "turn": ("turn", (FLAT.data, 9, False, True, False, None)),
    "turn images": ("turn", (GROUPED.data, 9, True, True, False, GROUPED._images.clone())),
}


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if "combine" in sample])
def test_opcheck_combine(backend, device, sample):
    name, arguments = SAMPLES[sample]
    there = [x.to(device) if isinstance(x, torch.Tensor) else x for x in arguments]
    torch.library.opcheck(getattr(ops, name).default, there)


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if "combine" not in sample])
def test_opcheck(cpu_backend, sample):
    name, arguments = SAMPLES[sample]
    torch.library.opcheck(getattr(ops, name).default, arguments)


@pytest.mark.parametrize("sample", SAMPLES)
def test_fake_results_have_a_size_that_is_not_known(sample):
    name, arguments = SAMPLES[sample]
    shape_env = ShapeEnv(allow_dynamic_output_shape_ops=True)
    with FakeTensorMode(shape_env=shape_env) as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        fake = getattr(ops, name)(*fakes)
    assert isinstance(fake.shape[0], torch.SymInt)
    assert (fake.dim(), fake.dtype, fake.device.type) == (1, torch.uint8, "cpu")


@pytest.mark.parametrize("sample", SAMPLES)
def test_compiled(sample):
    name, arguments = SAMPLES[sample]
    operator = getattr(ops, name)
    torch.compiler.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(lambda *a: operator(*a) + 1, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*arguments), operator(*arguments) + 1)
    torch.compiler.reset()


def test_results_are_batches_like_others(cpu_backend):
    """They own their memory, and can be sliced, joined, grouped and pickled."""
    batch = FLAT.rot90()
    assert pickle.loads(pickle.dumps(batch)) == batch
    assert fd.RLEBatch.cat([batch[:4], batch[4:]]) == batch
    assert fd.pack_rles([batch[:4], batch[4:]]).flat() == batch
    assert fd.pack_rles(batch.to_coco()) == batch
    with torch.inference_mode():
        assert FLAT.rot90() == batch
    with torch.device("meta"):
        assert FLAT.rot90() == batch
        assert FLAT.pad((20, 20)).translate((1, 1)).crop((1, 1, 12, 17)) == FLAT | FLAT
        assert FLAT.resize((3, 3)).merge(range(9)).num_masks == 9
