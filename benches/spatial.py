"""What is measured beyond single operators: features, trees and pictures of all masks of an image.

The loops over dense masks are what loaders do today. Decoding is not part of their time; what this
library takes begins with the dicts. They take minutes for 100 masks, so they compete over fewer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from .common import CASES, OURS, Case, Target, faster
from .inputs import Sample
from .peers import CONTENDERS, Contender, Ours

LOOPS = "loops over dense masks"
ONE_RGBA = "one float RGBA"
RGBA_EACH = "a float RGBA each"
THRESHOLD = 0.9


class OursSpatial(Ours):
    """One of this library's backends, with what is built on its operators."""

    def spatial_features(self, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.spatial.spatial_features(sample.rles)

    def containment_tree(self, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.spatial.containment_tree(sample.rles, THRESHOLD).parent.tolist()

    def overlay(self, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.visualize.show_masks(_image(sample), sample.rles, contours=False)


class Loops(Contender):
    """A loop over all pairs of dense masks, as ARR-COC's dataset has it."""

    name = LOOPS

    def spatial_features(self, sample: Sample) -> Any:
        masks = _dense(sample)
        n = len(masks)
        iou, containment = np.zeros((2, n, n), np.float32)
        for i in range(n):
            for j in range(n):
                shared = np.logical_and(masks[i], masks[j]).sum()
                union = np.logical_or(masks[i], masks[j]).sum()
                iou[i, j] = shared / union if union else 0
                if i != j:
                    containment[i, j] = shared / masks[j].sum()
        centroids = np.array([np.argwhere(mask).mean(axis=0) for mask in masks], np.float32)
        distances = np.linalg.norm(centroids[:, None] - centroids[None], axis=-1)
        return {
            "iou_matrix": iou,
            "containment": containment,
            "centroids": centroids,
            "distances": distances,
        }

    def containment_tree(self, sample: Sample) -> Any:
        masks = _dense(sample)
        areas = [int(mask.sum()) for mask in masks]
        order = sorted(range(len(masks)), key=lambda i: (-areas[i], i))
        parents = [-1] * len(masks)
        for place, inner in enumerate(order):
            for outer in reversed(order[:place]):
                if np.logical_and(masks[outer], masks[inner]).sum() / areas[inner] >= THRESHOLD:
                    parents[inner] = outer
                    break
        return parents


class CocoSpatial(Contender):
    """The fastest way through pycocotools: its IoU twice, dense masks for the centroids only."""

    name = "pycocotools iou"
    kind = "pycocotools"
    package = "pycocotools"

    def _matrices(self, sample: Sample) -> tuple[NDArray[Any], NDArray[Any]]:
        rles, n = sample.byte_rles, len(sample.rles)
        iou = np.asarray(pycocotools.mask.iou(rles, rles, [0] * n))
        containment = np.asarray(pycocotools.mask.iou(rles, rles, [1] * n)).T.copy()
        np.fill_diagonal(containment, 0)
        return iou, containment

    def spatial_features(self, sample: Sample) -> Any:
        iou, containment = self._matrices(sample)
        centroids = np.empty((len(iou), 2), np.float32)
        for rle, centroid in zip(sample.byte_rles, centroids, strict=True):
            columns, rows = np.nonzero(pycocotools.mask.decode(rle).T)
            centroid[:] = rows.mean(), columns.mean()
        steps = centroids[:, None].astype(np.float64) - centroids[None]
        return {
            "iou_matrix": iou.astype(np.float32),
            "containment": containment.astype(np.float32),
            "centroids": centroids,
            "distances": np.sqrt((steps**2).sum(axis=-1)).astype(np.float32),
        }

    def containment_tree(self, sample: Sample) -> Any:
        _, containment = self._matrices(sample)
        return _tree(containment, sample.areas)


class OneRgba(Contender):
    """Segment Anything's ``show_anns``: masks into one float RGBA image, which is then blended."""

    name = ONE_RGBA

    def overlay(self, sample: Sample) -> Any:
        colors = np.random.default_rng(0).random((len(sample.rles), 3))
        rgba = np.ones((sample.height, sample.width, 4))
        rgba[..., 3] = 0
        for i in np.argsort(-sample.areas, kind="stable"):
            mask = pycocotools.mask.decode(sample.byte_rles[i]).astype(bool)
            rgba[mask] = (*colors[i], 0.5)
        alpha = rgba[..., 3:]
        mixed = _image(sample) / 255 * (1 - alpha) + rgba[..., :3] * alpha
        return (255 * mixed).round().astype(np.uint8)


class RgbaEach(Contender):
    """``show_mask`` for each: a float RGBA image a mask, each blended over what is there."""

    name = RGBA_EACH

    def overlay(self, sample: Sample) -> Any:
        colors = np.random.default_rng(0).random((len(sample.rles), 3))
        mixed = _image(sample) / 255
        for i in np.argsort(-sample.areas, kind="stable"):
            mask = pycocotools.mask.decode(sample.byte_rles[i])
            rgba = mask[..., None] * np.array([*colors[i], 0.5])
            mixed = mixed * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]
        return (255 * mixed).round().astype(np.uint8)


@lru_cache(maxsize=2)
def _dense_of(rles: tuple[tuple[int, int, bytes], ...]) -> list[NDArray[np.bool_]]:
    return [
        np.ascontiguousarray(pycocotools.mask.decode({"size": [h, w], "counts": counts}) > 0)
        for h, w, counts in rles
    ]


def _dense(sample: Sample) -> list[NDArray[np.bool_]]:
    return _dense_of(tuple((*rle["size"], rle["counts"]) for rle in sample.byte_rles))


@lru_cache(maxsize=2)
def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _image(sample: Sample) -> NDArray[np.uint8]:
    return _noise(sample.height, sample.width)


def _tree(containment: NDArray[Any], areas: NDArray[Any]) -> list[int]:
    """The parent of each mask: of those before it by area that contain it the last."""
    order = np.argsort(-areas, kind="stable")
    parents = [-1] * len(order)
    for place, inner in enumerate(order.tolist()):
        before = order[:place]
        around = before[containment[before, inner] >= THRESHOLD]
        if len(around):
            parents[inner] = int(around[-1])
    return parents


def _check_features(sample: Sample, features: Any) -> None:
    expected = CocoSpatial().spatial_features(sample)
    assert np.array_equal(np.float32(features["iou_matrix"]), expected["iou_matrix"])
    assert np.array_equal(np.float32(features["containment"]), expected["containment"])
    for key in ("centroids", "distances"):  # NumPy's means of floats differ in the last bits
        assert np.allclose(features[key], expected[key], rtol=1e-5), key


def _check_tree(sample: Sample, parents: list[int]) -> None:
    assert parents == CocoSpatial().containment_tree(sample)


def _check_overlay(sample: Sample, overlay: NDArray[np.uint8]) -> None:
    image = _image(sample)
    assert overlay.dtype == np.uint8
    inside = np.zeros(image.shape[:2], bool)
    for rle in sample.byte_rles:
        inside |= pycocotools.mask.decode(rle) > 0
    same = (overlay == image).all(axis=2)
    assert same[~inside].all()
    assert not same[inside].any() or same[inside].mean() < 0.01


CONTENDERS.update(
    {
        contender.name: contender
        for contender in (
            *(OursSpatial(backend, threads) for backend in ("cpp", "numba") for threads in (1, 2)),
            Loops(),
            CocoSpatial(),
            OneRgba(),
            RgbaEach(),
        )
    }
)

COCO = CocoSpatial.name
CASES.update(
    {
        case.name: case
        for case in (
            Case(
                "sa1b-100-spatial-features",
                "spatial features, from dicts",
                "sa1b-100",
                "spatial_features",
                (*OURS, COCO),
                targets=(Target("cpp", limit_ms=3), faster("cpp", COCO, 100)),
                check=_check_features,
            ),
            Case(
                "sa1b-10-spatial-features",
                "spatial features, from dicts",
                "sa1b-10",
                "spatial_features",
                (*OURS, COCO, LOOPS),
                targets=(faster("cpp", LOOPS, 1000),),
                check=_check_features,
            ),
            Case(
                "sa1b-100-containment-tree",
                "containment tree, from dicts",
                "sa1b-100",
                "containment_tree",
                (*OURS, COCO),
                check=_check_tree,
            ),
            Case(
                "small-1000-containment-tree",
                "containment tree, from dicts",
                "small-1000",
                "containment_tree",
                (*OURS, COCO),
                check=_check_tree,
            ),
            Case(
                "sa1b-30-containment-tree",
                "containment tree, from dicts",
                "sa1b-30",
                "containment_tree",
                (*OURS, LOOPS),
                targets=(faster("cpp", LOOPS, 1000),),
                check=_check_tree,
            ),
            Case(
                "sa1b-100-overlay",
                "overlay",
                "sa1b-100",
                "overlay",
                (*OURS, ONE_RGBA),
                targets=(faster("cpp", ONE_RGBA, 10),),
                check=_check_overlay,
            ),
            Case(
                "sa1b-10-overlay",
                "overlay",
                "sa1b-10",
                "overlay",
                (*OURS, ONE_RGBA, RGBA_EACH),
                targets=(faster("cpp", RGBA_EACH, 20),),
                check=_check_overlay,
            ),
        )
    }
)
