"""Datumaro imports SA-1B's own files: the same masks, areas and boxes.

It needs an environment of its own, see docs/pycocotools.md.
"""

import json

import numpy as np
import pytest
from real_data import REAL_DATA, needs_real_data

from sa1b_fastdecode import mask

datumaro = pytest.importorskip("datumaro")


def import_masks(folder):
    """Import the files of a folder; return the name of the module used, and what masks are."""
    import pycocotools.mask

    found = []
    for item in datumaro.Dataset.import_from(str(folder), "segment_anything"):
        masks = [each for each in item.annotations if isinstance(each, datumaro.RleMask)]
        found += [
            (item.id, each.id, each.get_area(), each.get_bbox(), np.asarray(each.image))
            for each in masks
        ]
    return pycocotools.mask.__name__, found


def assert_equal(both):
    (theirs, expected), (ours, got) = both
    assert (theirs, ours) == ("pycocotools.mask", "sa1b_fastdecode.mask")
    assert len(expected) == len(got) > 0
    for one, other in zip(expected, got, strict=True):
        assert one[:3] == other[:3]
        assert type(one[2]) is type(other[2])
        np.testing.assert_array_equal(one[3], other[3], strict=True)
        np.testing.assert_array_equal(one[4], other[4], strict=True)


def test_generated(with_both, detections, tmp_path):
    truth, _ = detections
    for image in truth["images"]:
        h, w = image["height"], image["width"]
        annotations = []
        for annotation in truth["annotations"]:
            if annotation["image_id"] == image["id"]:
                objects = annotation["segmentation"]
                rles = mask.frPyObjects(objects, h, w, counts="str")
                rle = rles if isinstance(rles, dict) else rles[0]
                annotations.append(
                    {"id": annotation["id"], "segmentation": rle, "bbox": annotation["bbox"]}
                )
        about = {"image_id": image["id"], "height": h, "width": w, "file_name": image["file_name"]}
        content = {"image": about, "annotations": annotations}
        (tmp_path / f"{image['id']}.json").write_text(json.dumps(content))
    assert_equal(with_both(lambda: import_masks(tmp_path)))


@needs_real_data
def test_real(with_both):
    assert_equal(with_both(lambda: import_masks(REAL_DATA / "sa1b")))
