"""supervision loads a COCO dataset, masks included, to the same arrays."""

import json

import numpy as np
import pytest

supervision = pytest.importorskip("supervision")


def test_from_coco(with_both, detections, tmp_path):
    import cv2

    truth, _ = detections
    for image in truth["images"]:
        pixels = np.zeros((image["height"], image["width"], 3), np.uint8)
        cv2.imwrite(str(tmp_path / image["file_name"]), pixels)
    (tmp_path / "truth.json").write_text(json.dumps(truth))

    def load():
        dataset = supervision.DetectionDataset.from_coco(
            str(tmp_path), str(tmp_path / "truth.json"), force_masks=True
        )
        return {path: found.mask for path, found in dataset.annotations.items()}

    theirs, ours = with_both(load)
    assert any(masks is not None and masks.any() for masks in theirs.values())
    for path, masks in theirs.items():
        np.testing.assert_array_equal(masks, ours[path])
