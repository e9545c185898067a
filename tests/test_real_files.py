"""All operators on real annotations, where there are any, against pycocotools."""

import json

import numpy as np
import pytest
import reference
from conftest import available
from pycocotools import mask as coco_mask
from real_data import REAL_DATA, needs_real_data

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch


def rles_in(node):
    """Yield every RLE dict anywhere inside parsed JSON."""
    if isinstance(node, dict) and "counts" in node and "size" in node:
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from rles_in(child)


@needs_real_data
@pytest.mark.parametrize("path", sorted(REAL_DATA.rglob("*.json")), ids=lambda path: path.stem)
def test_real_files(path):
    """All backends in one test, because pycocotools takes most of the time."""
    rles = sorted(rles_in(json.loads(path.read_text())), key=lambda rle: rle["size"])
    assert rles
    for begin in range(0, len(rles), 40):
        some = rles[begin : begin + 40]
        coco = [r if isinstance(r["counts"], str) else coco_mask.frPyObjects(r, *r["size"])
                for r in some]  # fmt: skip
        masks = [np.ascontiguousarray(coco_mask.decode(rle)) for rle in coco]
        for name in available():
            with dispatch.use(name):
                batch = fd.pack_rles(some)
                decoded = batch.decode(pad=True).numpy()
                for mask, plane in zip(masks, decoded, strict=True):
                    assert np.array_equal(plane[: mask.shape[0], : mask.shape[1]], mask)
                area = coco_mask.area(coco)
                assert np.count_nonzero(decoded.view(bool)) == area.sum()  # none in the padding
                assert np.array_equal(batch.area().numpy(), area)
                assert np.array_equal(batch.bbox().numpy(), coco_mask.toBbox(coco))
                for mask in masks:
                    (rle,) = fd.encode_masks(mask).to_coco("bytes")
                    assert rle["counts"] == coco_mask.encode(np.asfortranarray(mask))["counts"]
                assert batch.to_coco("list") == [
                    {"size": rle["size"], "counts": reference.string_to_counts(rle["counts"])}
                    for rle in coco
                ]
