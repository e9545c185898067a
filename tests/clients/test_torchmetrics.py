"""torchmetrics' MeanAveragePrecision of masks gives the same."""

import sys
import types

import numpy as np
import pytest
import torch

from sa1b_fastdecode import mask

mean_ap = pytest.importorskip("torchmetrics.detection.mean_ap")


def test_mean_average_precision(with_both, detections, monkeypatch):
    # It imports a function of torchvision, which it calls for boxes only.
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        monkeypatch.setattr(mean_ap, "_TORCHVISION_AVAILABLE", True)
        for name in ("torchvision", "torchvision.ops"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setattr(sys.modules["torchvision.ops"], "box_convert", None, raising=False)
    truth, found = detections

    def tensors(image, annotations):
        rles = [
            rle["segmentation"]
            if isinstance(rle["segmentation"], dict)
            else mask.frPyObjects(rle["segmentation"], image["height"], image["width"])[0]
            for rle in annotations
        ]
        return {
            "masks": torch.from_numpy(mask.decode(mask.frPyObjects(rles, 0, 0))).permute(2, 0, 1)
            > 0,
            "labels": torch.tensor([rle["category_id"] for rle in annotations]),
            "scores": torch.tensor([rle.get("score", 1.0) for rle in annotations]),
        }

    def evaluate():
        metric = mean_ap.MeanAveragePrecision(iou_type="segm", backend="pycocotools")
        for image in truth["images"]:
            of_image = [
                [a for a in annotations if a["image_id"] == image["id"]]
                for annotations in (found, truth["annotations"])
            ]
            predicted, expected = (tensors(image, annotations) for annotations in of_image)
            metric.update([predicted], [expected])
        return {name: np.asarray(value) for name, value in metric.compute().items()}

    theirs, ours = with_both(evaluate)
    assert theirs["map"] > 0.1
    for name, value in theirs.items():
        np.testing.assert_array_equal(value, ours[name])
