"""The real clients of pycocotools, unmodified: each with pycocotools.mask, then with ours."""

import warnings

import numpy as np
import pytest

from sa1b_fastdecode import mask


@pytest.fixture
def with_both():
    """Call a function with theirs and with ours in place, and return both results."""

    def call(function):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the clients
            theirs = function()
            mask.install()
            try:
                return theirs, function()
            finally:
                mask.uninstall()

    return call


@pytest.fixture
def detections():
    """Ground truth and detections of a few images: (h, w), polygons, crowds, scores."""
    rng = np.random.default_rng(0)
    images, truth, found = [], [], []
    for image_id in range(1, 9):
        h, w = rng.integers(60, 120, 2).tolist()
        images.append({"id": image_id, "height": h, "width": w, "file_name": f"{image_id}.jpg"})
        for _ in range(rng.integers(1, 8)):
            centre, angles = rng.uniform(0, (w, h)), np.sort(rng.uniform(0, 2 * np.pi, 9))
            circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(5, 40)
            polygon = (centre + circle).ravel().round(2).tolist()
            shifted = (centre + rng.normal(0, 2, 2) + circle * rng.uniform(0.7, 1.2)).ravel()
            crowd = int(rng.random() < 0.2)
            (rle,) = mask.frPyObjects([polygon], h, w)
            dense = mask.decode(rle).T.ravel()
            runs = np.diff(np.flatnonzero(np.diff(dense, prepend=0, append=2)), prepend=0).tolist()
            common = {"image_id": image_id, "category_id": int(rng.integers(1, 4))}
            truth.append(
                {
                    **common,
                    "id": len(truth) + 1,
                    "iscrowd": crowd,
                    "area": float(mask.area(rle)),
                    "bbox": mask.toBbox(rle).tolist(),
                    "segmentation": {"size": [h, w], "counts": runs} if crowd else [polygon],
                }
            )
            (rle,) = mask.frPyObjects([shifted.tolist()], h, w, counts="str")
            found.append({**common, "segmentation": rle, "score": float(rng.random())})
    categories = [{"id": k, "name": f"category {k}"} for k in range(1, 4)]
    return {"images": images, "annotations": truth, "categories": categories, "info": {}}, found
