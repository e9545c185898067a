"""The cases of `sa1b_fastdecode.mask` against pycocotools and those that have its interface too."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pycocotools.mask

from .inputs import Sample

FACE = "mask"
CALLS = ("encode", "decode", "area", "bbox", "union", "intersection", "iou", "polygon")


class FaceCalls:
    """The operations of a module `_mask` with pycocotools' interface, from RLE dicts."""

    _mask: Any

    def union(self, sample: Sample) -> Any:
        return self._mask.merge(sample.byte_rles)

    def intersections(self, sample: Sample) -> Any:
        merge, rles = self._mask.merge, sample.byte_rles
        return [merge([a, b], True) for a, b in itertools.pairwise(rles)]

    def polygons(self, sample: Sample) -> Any:
        outlines = [_outline(box) for box in sample.boxes]
        return self._mask.frPyObjects(outlines, sample.height, sample.width)

    # One small mask in a loop.

    def call_encode(self, sample: Sample) -> Any:
        return self._mask.encode(sample.columns[0])

    def call_decode(self, sample: Sample) -> Any:
        return self._mask.decode(sample.byte_rles[0])

    def call_area(self, sample: Sample) -> Any:
        return self._mask.area(sample.byte_rles[0])

    def call_bbox(self, sample: Sample) -> Any:
        return self._mask.toBbox(sample.byte_rles[0])

    def call_union(self, sample: Sample) -> Any:
        return self._mask.merge(sample.byte_rles * 2)

    def call_intersection(self, sample: Sample) -> Any:
        return self._mask.merge(sample.byte_rles * 2, True)

    def call_iou(self, sample: Sample) -> Any:
        return self._mask.iou(sample.byte_rles, sample.byte_rles, [0])

    def call_polygon(self, sample: Sample) -> Any:
        return self._mask.frPyObjects([[8.0, 8.0, 50.0, 12.0, 40.0, 60.0]], 64, 64)


def _outline(box: Any) -> list[float]:
    """An octagon in a box."""
    x, y, w, h = box.tolist()
    corners = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
    return [part for u, v in corners for part in (x + u * w, y + v * h)]


class _Truth(FaceCalls):
    _mask = pycocotools.mask


def check(operation: str, sample: Sample, result: Any) -> None:
    """Compare what an operation returned with what pycocotools does."""
    truth = getattr(_Truth(), operation)(sample)
    assert result == truth if isinstance(truth, dict | list) else np.array_equal(result, truth)
