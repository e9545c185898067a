"""The Numba kernels for a GPU, on Numba's simulator of one; test_numba_cuda.py runs this file.

Every thread of the simulator is one of Python, so the masks are small.
"""

import warnings

import numpy as np
import pytest
import reference
import torch
from cases import CASES, DTYPES, assert_same, some_rles
from test_pairwise import PAIRS, PAIRWISE, expected_pairs, masks_of
from test_regions import REGIONS, expected_regions

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch, numba_cuda

SIMULATED = "numba-cuda-on-cpu"
NAME = numba_cuda.__name__

SMALL = [case for case in CASES if case.build().expected.size <= 8_000]
FEW = ("size_2x128", "pad_to_largest", "crop_of_other_sizes_then_size", "grouped_and_cropped")


# The simulator runs every thread as one of Python, which costs more than what it does here.
GRID = (2, 3)


def launch(kernel, num_items, *arguments):
    kernel[GRID](*(x.numpy() if isinstance(x, torch.Tensor) else x for x in arguments))


@pytest.fixture(scope="module", autouse=True)
def entry():
    found = dispatch._Entry(SIMULATED, "cpu", NAME, NAME, lambda: (True, "Numba's simulator"))
    dispatch._TABLE = (*dispatch._TABLE, found)
    numba_cuda._launch = launch


def decode(case, dtype=torch.uint8, **arguments):
    """Decode a case on the simulator; packing is not what is tested."""
    decoding = case.build()
    batch = fd.pack_rles(decoding.rles, **decoding.pack or {})
    with dispatch.use(SIMULATED):
        return batch.decode(dtype=dtype, **decoding.arguments, **arguments)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_decode(case):
    assert_same(decode(case), case.build().expected, torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FEW)
def test_dtypes(name, dtype):
    """Also into used memory, at any alignment, and not an element beyond it."""
    (case,) = (case for case in CASES if case.name == name)
    expected = case.build().expected
    assert_same(decode(case, dtype), expected, dtype)
    memory = torch.full((expected.size + 2,), 1, dtype=dtype)
    out = memory[1:-1].view(expected.shape)
    assert decode(case, dtype, out=out) is out
    assert_same(out, expected, dtype)
    assert memory[[0, -1]].tolist() == [1, 1]


@pytest.mark.parametrize("width", [1, 7, 8, 9, 21])
def test_bits(width):
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 5, width), np.uint8))
    batch = fd.encode_masks(masks)
    for arguments in ({}, {"size": (3, 2 * width)}):
        with dispatch.use(SIMULATED):
            bits = batch.decode_bits(**arguments)
        pixels = batch.decode(**arguments).numpy()
        np.testing.assert_array_equal(bits, np.packbits(pixels, axis=-1, bitorder="little"))


@pytest.mark.parametrize("length", [640, 1001])
def test_size_rounds_as_float32(length):
    """The ratio is no number of float32, and d + 0.5 times it is rounded again."""
    mask = np.random.default_rng(length).integers(0, 2, (1, length), np.uint8)
    batch = fd.encode_masks(mask)
    for width in (3, 7, 333, 1283):
        with dispatch.use(SIMULATED):
            result = batch.decode(size=(1, width))
        assert_same(result, reference.resize(mask, (1, width))[None], torch.uint8)


@pytest.mark.parametrize("operator", REGIONS)
def test_regions(operator):
    for case in CASES:
        if case.keywords or case not in SMALL:
            continue
        decoding = case.build()
        batch = fd.pack_rles(decoding.rles, **decoding.pack or {})
        expected, _ = expected_regions(batch.to_coco("list"), operator)
        with dispatch.use(SIMULATED):
            result = getattr(batch, operator)()
        np.testing.assert_array_equal(result.numpy(), expected, strict=True)


def test_regions_of_the_largest_masks():
    """Sums just below 2**63, divided in float64."""
    for h, w in ((2**32 - 1, 1), (1, 2**32 - 1), (65535, 65537), (2**31, 1)):
        batch = fd.pack_rles([{"size": [h, w], "counts": [0, h * w]}])
        with dispatch.use(SIMULATED):
            assert batch.area().tolist() == [h * w]
            expected = np.float32([[(h - 1) / 2, (w - 1) / 2]])
            np.testing.assert_array_equal(batch.centroid().numpy(), expected)
            np.testing.assert_array_equal(batch.bbox().numpy(), np.float32([[0, 0, w, h]]))


@pytest.mark.parametrize("operator", PAIRWISE)
@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ("37x53", "64x65")])
def test_pairwise(name, operator):
    a, b = PAIRS[name]()
    first, second = fd.pack_rles(a), fd.pack_rles(b)
    expected = expected_pairs(operator, masks_of(a), masks_of(b))
    with dispatch.use(SIMULATED):
        result = getattr(first, operator)(second)
    np.testing.assert_array_equal(result.numpy(), expected, strict=True)


def test_iou_with_crowds():
    rles = some_rles(12, 17)
    batch, masks = fd.pack_rles(rles), masks_of(rles)
    crowd = [i % 2 == 0 for i in range(len(rles))]
    with dispatch.use(SIMULATED):
        result = batch.iou(batch, iscrowd=crowd)
    np.testing.assert_array_equal(result.numpy(), expected_pairs("iou", masks, masks, crowd))


def test_what_has_no_kernel_comes_from_the_cpu():
    batch = fd.pack_rles(some_rles(12, 17))
    operators = numba_cuda.Operators(numba_cuda)
    block = operators.encode(batch.decode(), (1, 0xFF), 1)
    assert torch.equal(block, batch.data)
    found = operators.intersecting_pairs(batch.data, 9, batch.data, 9, None)
    for mine, wanted in zip(found, batch.intersecting_pairs(batch), strict=True):
        assert torch.equal(mine, wanted)


def test_hostile_bytes():
    """Wrong pixels at most: the arrays of the simulator raise for what lies behind them."""
    batch = fd.pack_rles([some_rles(5, 6)[:3], some_rles(4, 7)[:2]])
    data, rng = batch.data.numpy(), np.random.default_rng(0)
    header = 8 * (3 * len(batch) + 1)
    ops = torch.ops.sa1b_fastdecode
    with dispatch.use(SIMULATED), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's integers say that they overflow
        for i in range(60):
            block = data.copy()
            if i % 2:  # the strings
                block[header + 48 :] = rng.integers(0, 256, len(block) - header - 48)
            else:  # sizes, offsets and the table of images
                words = block[: header + 48].view(np.int64)
                choice = [-1, 2**40, -(2**63), 2**63 - 1, 3, 2**32 - 1]
                words[rng.integers(len(words), size=2)] = rng.choice(choice, 2)
            block = torch.from_numpy(block)
            planes = ops.decode(block, 5, 2, None, None, False, [2, 3, 5, 7], torch.uint8, 1)
            assert int(planes.max()) <= 1
            ops.area(block, 5)
            ops.intersection(block, 5, block, 5, [2, 3, 3])


def test_headers_that_do_not_fit():
    ops, data = torch.ops.sa1b_fastdecode, torch.zeros(40, dtype=torch.uint8)
    with dispatch.use(SIMULATED):
        with pytest.raises(ValueError, match="sizes and offsets"):
            ops.area(data, 2)
        with pytest.raises(IndexError):
            ops.decode(data, 1, None, None, None, False, [2, 1, 1], torch.uint8, 1)
