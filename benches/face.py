"""The cases of `sa1b_fastdecode.mask` against pycocotools and those that have its interface too."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask
from numpy.typing import NDArray

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

    def evaluation(self, sample: Sample) -> NDArray[Any]:
        """COCOeval's evaluate step: what each detection matches at each threshold."""
        evaluation = _evaluation(sample)
        with self._under_cocoeval():
            evaluation.evaluate()
        return np.hstack([image["dtMatches"] for image in evaluation.evalImgs if image])

    def evaluation_ious(self, sample: Sample) -> NDArray[Any]:
        """What it asks `pycocotools.mask` for, image by image."""
        rles, n = sample.byte_rles, _MASKS_AN_IMAGE
        images = (rles[k : k + n] for k in range(0, len(rles), n))
        return np.concatenate(
            [self._mask.iou(masks, masks[::2], [0] * len(masks[::2])) for masks in images]
        )

    @contextlib.contextmanager
    def _under_cocoeval(self) -> Iterator[None]:
        modules = pycocotools.coco, pycocotools.cocoeval
        for module in modules:
            module.maskUtils = self._mask
        with contextlib.redirect_stdout(io.StringIO()):
            yield
        for module in modules:
            module.maskUtils = pycocotools.mask

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


_MASKS_AN_IMAGE = 20


def _evaluation(sample: Sample) -> Any:
    """COCOeval of the masks of each image against every second one of them."""
    if "coco" not in sample.__dict__:
        scores = np.random.default_rng(0).permutation(len(sample.rles)) / len(sample.rles)
        detections = [
            {
                "id": k + 1,
                "image_id": k // _MASKS_AN_IMAGE,
                "category_id": 1,
                "segmentation": rle,
                "score": float(score),
                "area": float(area),
                "iscrowd": 0,
            }
            for k, (rle, score, area) in enumerate(
                zip(sample.byte_rles, scores, sample.areas, strict=True)
            )
        ]
        sides = {"height": sample.height, "width": sample.width}
        sample.__dict__["coco"] = [_coco(each, sides) for each in (detections[::2], detections)]
    return pycocotools.cocoeval.COCOeval(*sample.__dict__["coco"], "segm")


def _coco(annotations: list[dict[str, Any]], sides: dict[str, int]) -> Any:
    coco = pycocotools.coco.COCO()
    images = [{"id": k, **sides} for k in sorted({each["image_id"] for each in annotations})]
    coco.dataset = {
        "images": images,
        "annotations": [dict(each) for each in annotations],
        "categories": [{"id": 1}],
    }
    coco.createIndex()
    return coco


class _Truth(FaceCalls):
    _mask = pycocotools.mask


def check(operation: str, sample: Sample, result: Any) -> None:
    """Compare what an operation returned with what pycocotools does."""
    truth = getattr(_Truth(), operation)(sample)
    assert result == truth if isinstance(truth, dict | list) else np.array_equal(result, truth)
