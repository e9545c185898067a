"""COCO's own evaluation: equal statistics, on generated and on real data."""

import contextlib
import copy
import importlib
import io
import json
import sys

import numpy as np
import pytest
from real_data import REAL_DATA, needs_real_data

pytest.importorskip("pycocotools.cocoeval")


def evaluate(truth, found):
    """Import COCOeval anew, with whatever pycocotools.mask is now; return its numbers."""
    for name in ("pycocotools.coco", "pycocotools.cocoeval"):
        sys.modules.pop(name, None)
    coco_module = importlib.import_module("pycocotools.coco")
    evaluation_module = importlib.import_module("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        results = coco.loadRes(copy.deepcopy(found))
        evaluation = evaluation_module.COCOeval(coco, results, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    masks = [coco.annToMask(annotation) for annotation in coco.dataset["annotations"][:20]]
    areas = [annotation["area"] for annotation in results.dataset["annotations"]]
    boxes = [annotation["bbox"] for annotation in results.dataset["annotations"]]
    used = coco_module.maskUtils.__name__
    return (
        used,
        evaluation.stats,
        evaluation.eval["precision"],
        areas,
        boxes,
        evaluation.ious,
        masks,
    )


def assert_equal(theirs, ours):
    assert (theirs[0], ours[0]) == ("pycocotools.mask", "sa1b_fastdecode.mask")
    for index in (1, 2, 3, 4):
        np.testing.assert_array_equal(theirs[index], ours[index])
    assert theirs[5].keys() == ours[5].keys()
    for key, ious in theirs[5].items():
        np.testing.assert_array_equal(ious, ours[5][key])
    for one, other in zip(theirs[6], ours[6], strict=True):
        np.testing.assert_array_equal(one, other)


def test_generated(with_both, detections):
    theirs, ours = with_both(lambda: evaluate(*detections))
    assert theirs[1][0] > 0.1
    assert_equal(theirs, ours)


@needs_real_data
def test_real(with_both):
    names = ("instances_val2014_100", "instances_val2014_fakesegm100_results")
    truth, found = (json.loads((REAL_DATA / f"coco/{name}.json").read_text()) for name in names)
    theirs, ours = with_both(lambda: evaluate(truth, found))
    assert theirs[1][0] > 0.1
    assert_equal(theirs, ours)
