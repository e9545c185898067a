"""Masks of every dtype, layout and size encoded on every backend: the bytes of both oracles."""

import functools
import math

import draws
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode.library import VALUES


def canonical(masks):
    """Return the RLE dicts that dense masks must become; both oracles agree on them."""
    rles = []
    for mask in masks:
        rle = draws.to_rle(mask)
        coco = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert (list(coco["size"]), coco["counts"]) == (rle["size"], rle["counts"])
        rles.append(rle)
    return rles


def assert_encoded(batch, rles, device="cpu"):
    """Equal to the batch that packing makes, in every byte; so sizes and offsets are right, too."""
    expected = fd.pack_rles(rles)
    assert batch.to_coco("bytes") == rles
    assert batch == expected
    assert (batch.height, batch.width, batch.uniform) == (
        expected.height,
        expected.width,
        expected.uniform,
    )
    assert batch.device.type == torch.device(device).type


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


def on_device(tensor, device):
    """Return a tensor on a device with the same strides, and the same memory between elements."""
    if device.type == "cpu":
        return tensor
    memory = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).to(device)
    elements = memory.view(tensor.dtype)
    return elements.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", VALUES, ids=str)
def test_encode(backend, device, dtype, arrange):
    """Operator ``encode``."""
    masks = masks_of_every_kind(67, 131)
    elements = arrange(of_type(masks, dtype))
    tensor = torch.from_numpy(elements).view(dtype)
    assert tensor.data_ptr() == elements.ctypes.data
    tensor = on_device(tensor, device)
    rles = canonical(masks)
    assert_encoded(fd.encode_masks(tensor), rles, device)
    assert_encoded(fd.encode_masks(tensor[2]), rles[2:3], device)
    assert np.array_equal(fd.encode_masks(tensor).decode().cpu().numpy(), masks)
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
def test_encode_sizes(backend, device, size, arrange):
    masks = masks_of_every_kind(*size)
    for dtype in (np.uint8, np.float32):
        tensor = on_device(torch.from_numpy(arrange(masks.astype(dtype))), device)
        assert_encoded(fd.encode_masks(tensor), canonical(masks), device)


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 5, 0), (1, 0, 0), (0, 4, 5), (0, 0, 0), (0, 9)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64], ids=str)
def test_encode_nothing(backend, device, shape, dtype):
    masks = torch.zeros(shape, dtype=dtype, device=device)
    leading = masks if masks.ndim == 3 else masks[None]
    rles = canonical(leading.cpu().numpy())
    for some in (masks, masks.transpose(-1, -2).contiguous().transpose(-1, -2)):
        assert_encoded(fd.encode_masks(some), rles, device)
    assert_encoded(fd.encode_masks(masks.cpu().numpy()), rles)


def test_encode_values(backend, device):
    """What is foreground, in words: everything but zero."""
    floats = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 1e-8, -1e-8, 0.5, 1.0, 2.0, 255]
    wanted = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        masks = torch.tensor([floats], dtype=dtype, device=device)
        tiny = torch.finfo(dtype).smallest_normal
        masks[0, 6], masks[0, 7] = tiny, -tiny
        assert fd.encode_masks(masks).decode()[0, 0].tolist() == wanted
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        masks = torch.tensor([[0, 1, -1, info.min, info.max, 0]], dtype=dtype, device=device)
        assert fd.encode_masks(masks).decode()[0, 0].tolist() == [0, 1, 1, 1, 1, 0]


def test_encode_expanded(backend, device):
    """Strides of zero, along each axis and along all."""
    rng = np.random.default_rng(4)
    for shape in ((1, 70, 90), (3, 1, 90), (3, 70, 1), (1, 1, 90), (3, 1, 1), (1, 1, 1)):
        small = rng.integers(0, 2, shape, np.uint8)
        masks = np.broadcast_to(small, (3, 70, 90))
        rles = canonical(masks)
        assert_encoded(fd.encode_masks(masks), rles)
        expanded = torch.from_numpy(small).to(device).expand(3, 70, 90)
        assert_encoded(fd.encode_masks(expanded), rles, device)


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
def test_encode_split_masks(fast_backend, device, size, num_threads, order):
    masks, rles = split_masks(size)
    for begin, end in ((0, len(masks)), (5, 6), (9, 10), (10, 11), (0, 2)):
        some = on_device(torch.from_numpy(LAYOUTS[order](masks[begin:end])), device)
        assert_encoded(fd.encode_masks(some, num_threads=num_threads), rles[begin:end], device)


def test_encode_many_small_masks(fast_backend, device):
    """More masks than items of work; a thread's share is more than one chunk of characters."""
    rng = np.random.default_rng(9)
    masks = rng.integers(0, 2, (70_001, 5, 7), np.uint8)
    batch = fd.encode_masks(torch.from_numpy(masks).to(device), num_threads=3)
    assert np.array_equal(batch.decode().cpu().numpy(), masks)
    places = rng.integers(0, len(masks), 200)
    assert batch[places].to_coco("bytes") == canonical(masks[places])


@given(
    drawn=draws.sizes_and_counts(),
    dtype=st.sampled_from(tuple(VALUES)),
    arrange=st.sampled_from(tuple(LAYOUTS.values())),
    num_threads=st.sampled_from([None, 1, 3]),
)
@settings(max_examples=300)
def test_encode_property(fast_backend, device, drawn, dtype, arrange, num_threads):
    h, w, counts = drawn
    mask = reference.decode(counts, h, w)
    masks = np.stack([mask, 1 - mask])
    tensor = on_device(torch.from_numpy(arrange(of_type(masks, dtype))).view(dtype), device)
    batch = fd.encode_masks(tensor, num_threads=num_threads)
    assert_encoded(batch, canonical(masks), device)
    assert np.array_equal(batch.decode().cpu().numpy(), masks)
    # What another encoder wrote less tightly becomes canonical.
    loose = fd.pack_rles({"size": [h, w], "counts": counts}).to(device)
    assert fd.encode_masks(loose.decode()) == batch[0]
