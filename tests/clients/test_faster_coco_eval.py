"""faster-coco-eval has masks and an evaluation of its own: the same statistics."""

import contextlib
import copy
import io

import numpy as np
import pytest

from .test_pycocotools import evaluate

faster_coco_eval = pytest.importorskip("faster_coco_eval")


def test_generated(with_both, detections):
    truth, found = detections
    _, ours = with_both(lambda: evaluate(truth, found))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = faster_coco_eval.COCO(copy.deepcopy(truth))
        results = coco.loadRes(copy.deepcopy(found))
        evaluation = faster_coco_eval.COCOeval_faster(coco, results, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    np.testing.assert_allclose(evaluation.stats[:12], ours[1], rtol=0, atol=1e-12)
