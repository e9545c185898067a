"""Every backend, dtype and option of decoding against two oracles, bit for bit."""

import functools

import draws
import numpy as np
import pytest
import reference
import torch
from cases import CASES, DTYPES, Decoding, assert_same, bits, some_rles, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd

MEBIBYTE = 1 << 20


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
def test_decode_bits(backend, device, case):
    """Operator ``decode_bits``."""
    decoding = case.build()
    batch = fd.pack_rles(decoding.rles, **decoding.pack or {})
    result = batch.to(device).decode_bits(**decoding.arguments)
    expected = np.packbits(decoding.expected, axis=-1, bitorder="little")
    assert_same(result, expected, torch.uint8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decode_rle_batch(backend, device, case):
    """The function gives what pack and decode give."""
    decoding = case.build()
    rles = fd.pack_rles(decoding.rles, **decoding.pack) if decoding.pack else decoding.rles
    result = fd.decode_rle_batch(rles, device, **decoding.arguments)
    assert_same(result, decoding.expected, torch.uint8)


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
def test_large_outputs(fast_backend, device, dtype, num_threads, name):
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
def test_long_planes(fast_backend, device, size, num_threads):
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


def test_tiny_masks_of_huge_planes_are_free(fast_backend, device):
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


def test_size_beyond_what_float32_counts(fast_backend, device):
    """Past 2**24 the index d + 0.5 is rounded; the rule of the reference still holds."""
    counts = [5, 2**24, 3, 7, 11, 2**22]
    n = sum(counts)
    batch = fd.pack_rles({"size": [1, n], "counts": counts}).to(device)
    flat = np.repeat(np.arange(len(counts), dtype=np.uint8) % 2, counts)
    for width in (n - 1, n // 3, 2**24 + 2**23 + 1):
        expected = flat[reference.nearest_indices(n, width)][None, None]
        assert_same(batch.decode(size=(1, width)), expected, torch.uint8)


def test_mask_without_rows_before_a_large_one(backend, device):
    """In an output that gets pages of its own (from 32 MB on) and is planned for."""
    rles = [{"size": [0, 5], "counts": "0"}, {"size": [6000, 6000], "counts": [100, 35_999_900]}]
    planes = fd.decode_rle_batch(rles, device, pad=True)
    assert planes.shape == (2, 6000, 6000)
    assert planes[0].count_nonzero() == 0
    assert planes[1].count_nonzero() == 35_999_900
    assert planes[1, :100, 0].count_nonzero() == 0


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
def test_decode_property(fast_backend, device, data, dtype, compressed):
    rles = data.rles
    if compressed:
        rles = [r | {"counts": reference.counts_to_string(r["counts"])} for r in rles]
    batch = fd.pack_rles(rles).to(device)
    assert_same(batch.decode(dtype=dtype, **data.arguments), data.expected, dtype)
    out = torch.full(data.expected.shape, 1, dtype=dtype, device=device)
    assert_same(batch.decode(dtype=dtype, out=out, **data.arguments), data.expected, dtype)
