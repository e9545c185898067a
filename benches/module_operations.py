"""The operations of `fd.labels`, `fd.matching` and `fd.sampling`: who does them how; the checks.

Each contender gets what it would have in a program (masks parsed before, a label map as it takes
it) and returns its own kind of result, which the check brings into one form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .inputs import Sample
from .peers import CONTENDERS, Contender

IOU_THRESHOLD = 0.5
POINTS = 10

Call = Callable[[], Any]


class DenseTorch(Contender):
    """What is done with decoded masks: pixels found by `nonzero`."""

    name = "torch, decoded masks"


CONTENDERS[DenseTorch.name] = DenseTorch()


@dataclass(frozen=True)
class Operation:
    calls: dict[str, Callable[[Contender, Sample], Call]]  # of each contender by its name
    check: Callable[[Sample, Any], None]

    def bind(self, contender: Contender, sample: Sample) -> Call:
        return self.calls[contender.name](contender, sample)


def _ours(call: Callable[[Any, Sample], Any]) -> dict[str, Callable[[Contender, Sample], Call]]:
    """All forms of this library; `call` gets the packed batch."""

    def bind(contender: Contender, sample: Sample) -> Call:
        batch = contender.prepare(sample)
        return lambda: call(batch, sample)

    return dict.fromkeys(("cpp", "cpp, 2 threads", "numba", "numba, 2 threads"), bind)


# --- Label maps


def _dense_label_map(sample: Sample) -> NDArray[np.int32]:
    """The last mask on top, numbered from 1; kept, since making it takes long."""
    if "label_map" not in sample.__dict__:
        label_map = np.zeros((sample.height, sample.width), np.int32)
        for index in range(len(sample.rles)):
            label_map[sample._dense(index) != 0] = index + 1
        sample.__dict__["label_map"] = label_map
    label_map = sample.__dict__["label_map"]
    return label_map


def _paint_with_rlemasklib(contender: Contender, sample: Sample) -> Call:
    from rlemasklib import RLEMask

    masks = contender.prepare(sample)
    # It paints uint8 in column-major order; here it must give what the others do.
    return lambda: RLEMask.merge_to_label_map(masks).astype(np.int32, order="C")


def _check_label_map(sample: Sample, result: Any) -> None:
    assert np.array_equal(np.asarray(result), _dense_label_map(sample))
    assert np.asarray(result).flags.c_contiguous


def _from_label_map(dtype: type[np.integer[Any]]) -> Callable[[Any, Sample], Any]:
    def call(_: Any, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.labels.from_label_map(_map_of(sample, dtype))

    return call


def _map_of(sample: Sample, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    maps = sample.__dict__.setdefault("label_maps", {})
    if dtype not in maps:
        maps[dtype] = _dense_label_map(sample).astype(dtype)
    return maps[dtype]  # type: ignore[no-any-return]


def _split_with_rlemasklib(_: Contender, sample: Sample) -> Call:
    from rlemasklib import RLEMask

    label_map = _map_of(sample, np.uint8)
    return lambda: RLEMask.from_label_map(label_map)


def _check_split(sample: Sample, result: Any) -> None:
    label_map = _dense_label_map(sample)
    if isinstance(result, dict):
        masks = {label: mask.to_array() for label, mask in result.items()}
    else:
        batch, labels = result
        masks = dict(zip(labels.tolist(), batch.decode().numpy(), strict=True))
    assert sorted(masks) == [label for label in np.unique(label_map).tolist() if label != 0]
    for label, mask in masks.items():
        assert np.array_equal(mask != 0, label_map == label), f"label {label} differs"


# --- Suppression and matching


def _scores(sample: Sample) -> NDArray[np.float32]:
    return np.random.default_rng(0).permutation(len(sample.rles)).astype(np.float32)


def _greedy(iou: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.int64]:
    """Suppression with a dense matrix, as it is usually written."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order) > 0:
        first, rest = order[0], order[1:]
        kept.append(first)
        order = rest[iou[first, rest] <= IOU_THRESHOLD]
    return np.array(kept)


def _nms(batch: Any, sample: Sample) -> Any:
    import sa1b_fastdecode as fd

    return fd.matching.nms(batch, _scores(sample), IOU_THRESHOLD)


def _nms_from_matrix(contender: Contender, sample: Sample) -> Call:
    prepared = contender.prepare(sample)
    return lambda: _greedy(np.asarray(contender.iou(prepared, prepared)), _scores(sample))


def _check_nms(sample: Sample, result: Any) -> None:
    assert np.array_equal(np.asarray(result), _greedy(sample.iou_with(sample), _scores(sample)))


def _pairs(batch: Any, _: Sample) -> Any:
    import sa1b_fastdecode as fd

    return fd.matching.iou_pairs(batch, batch, IOU_THRESHOLD)[0]


def _pairs_from_matrix(contender: Contender, sample: Sample) -> Call:
    prepared = contender.prepare(sample)
    return lambda: np.argwhere(np.asarray(contender.iou(prepared, prepared)) >= IOU_THRESHOLD)


def _check_pairs(sample: Sample, result: Any) -> None:
    assert np.array_equal(np.asarray(result), np.argwhere(sample.iou_with(sample) >= IOU_THRESHOLD))


def _thresholds() -> list[float]:
    return [0.5 + 0.05 * i for i in range(10)]


def _match(batch: Any, sample: Sample) -> Any:
    import sa1b_fastdecode as fd

    truth = batch[::2]
    return fd.matching.match_greedy(batch, truth, _scores(sample), _thresholds())


def _match_with_cocoeval(_: Contender, sample: Sample) -> Call:
    return lambda: _evaluate_img(sample)


def _evaluate_img(sample: Sample) -> NDArray[np.int64]:
    from pycocotools.cocoeval import COCOeval

    coco = COCOeval()
    coco.params.iouThrs = np.array(_thresholds())
    coco.params.maxDets = [len(sample.rles)]
    common = {"area": 1, "iscrowd": 0, "ignore": 0}
    coco._gts[0, 0] = [
        {"id": i + 1, "segmentation": rle} | common for i, rle in enumerate(sample.byte_rles[::2])
    ]
    coco._dts[0, 0] = [
        {"id": i + 1, "segmentation": rle, "score": score} | common
        for i, (rle, score) in enumerate(zip(sample.byte_rles, _scores(sample), strict=True))
    ]
    coco.ious[0, 0] = coco.computeIoU(0, 0)
    result = coco.evaluateImg(0, 0, [0, 2], len(sample.rles))
    matches = np.full((len(_thresholds()), len(sample.rles)), -1)
    matches[:, np.array(result["dtIds"]) - 1] = result["dtMatches"] - 1
    return matches


def _check_match(sample: Sample, result: Any) -> None:
    if "matches" not in sample.__dict__:
        sample.__dict__["matches"] = _evaluate_img(sample)
    assert np.array_equal(np.asarray(result), sample.__dict__["matches"])


# --- Points


def _points(region: str) -> Callable[[Any, Sample], Any]:
    return lambda batch, _: batch.sample_points(POINTS, region)


def _points_of_decoded(_: Contender, sample: Sample) -> Call:
    masks = torch.from_numpy(sample.rows)

    def draw() -> Any:
        points = []
        for mask in masks:
            pixels = mask.nonzero()
            points.append(pixels[torch.randint(len(pixels), (POINTS,))].flip(1))
        return torch.stack(points)

    return draw


def _check_points(sample: Sample, result: Any) -> None:
    assert result.shape == (len(sample.rles), POINTS, 2)
    for index, points in enumerate(result.long()):
        assert sample._dense(index)[points[:, 1], points[:, 0]].all(), f"mask {index}"


def _interior(batch: Any, _: Sample) -> Any:
    import sa1b_fastdecode as fd

    return fd.sampling.interior_points(batch)


def _check_interior(sample: Sample, result: Any) -> None:
    """The square around each point lies in the mask; that none is larger is for the tests."""
    points, distances = result
    for index, ((x, y), r) in enumerate(
        zip(points.long().tolist(), distances.tolist(), strict=True)
    ):
        square = sample._dense(index)[y - r + 1 : y + r, x - r + 1 : x + r]
        assert square.shape == (2 * r - 1, 2 * r - 1) and square.all(), f"mask {index}"


OPERATIONS = {
    "label_map": Operation(
        {
            **_ours(lambda batch, _: batch.to_label_map(on_top="last")),
            "rlemasklib": _paint_with_rlemasklib,
        },
        _check_label_map,
    ),
    "split_labels": Operation(
        {**_ours(_from_label_map(np.uint8)), "rlemasklib": _split_with_rlemasklib}, _check_split
    ),
    "split_labels_int32": Operation(_ours(_from_label_map(np.int32)), _check_split),
    "nms": Operation(
        {
            **_ours(_nms),
            "pycocotools": _nms_from_matrix,
            "ultrafast-pycocotools": _nms_from_matrix,
            "rlemasklib": _nms_from_matrix,
        },
        _check_nms,
    ),
    "pairs": Operation(
        {
            **_ours(_pairs),
            "pycocotools": _pairs_from_matrix,
            "ultrafast-pycocotools": _pairs_from_matrix,
            "rlemasklib": _pairs_from_matrix,
        },
        _check_pairs,
    ),
    "match": Operation({**_ours(_match), "pycocotools": _match_with_cocoeval}, _check_match),
    "points": Operation(
        {**_ours(_points("foreground")), DenseTorch.name: _points_of_decoded}, _check_points
    ),
    "points_on_boundary": Operation(_ours(_points("boundary")), _check_points),
    "interior_points": Operation(_ours(_interior), _check_interior),
}
