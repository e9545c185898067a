"""Areas, boxes and centroids on every backend against two oracles; integers and floats exactly."""

import math

import draws
import numpy as np
import pytest
import reference
import torch
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd

REGIONS = ("area", "bbox", "centroid")


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


@given(drawn=st.lists(draws.sizes_and_counts(), min_size=1, max_size=4))
@settings(max_examples=200)
def test_regions_property(fast_backend, device, drawn):
    rles = [{"size": [h, w], "counts": counts} for h, w, counts in drawn]
    batch = fd.pack_rles(rles).to(device)
    for operator in REGIONS:
        expected, _ = expected_regions(rles, operator)
        np.testing.assert_array_equal(getattr(batch, operator)().cpu().numpy(), expected)
