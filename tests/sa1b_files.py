"""Small files in SA-1B's layout, and what naive code makes of them."""

import io
import json
import tarfile

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sa1b_fastdecode.sample import write_folder, write_tar

Image = pytest.importorskip("PIL.Image")

SIZES = [(40, 56), (64, 48)]
NUM_MASKS = [6, 0, 9]
IMAGES = (7, 6)  # of the tars of the fixture `root`, and their names
IDS = [f"sa_{i + 1}" for n in IMAGES for i in range(n)]


def write_tars(folder, images=IMAGES):
    """Tars sa_000000.tar and so on in Meta's layout, with one image in three without masks."""
    return [
        write_tar(folder / f"sa_{k:06d}.tar", n, k, sizes=SIZES, num_masks=NUM_MASKS)
        for k, n in enumerate(images)
    ]


def write_extracted(folder, k, images):
    """The folder that a tar of :func:`write_tars` is extracted to."""
    write_folder(folder / f"sa_{k:06d}", images, k, sizes=SIZES, num_masks=NUM_MASKS)


def members(tar):
    """All contents of a tar by name without "./"."""
    with tarfile.open(tar) as opened:
        return {m.name.removeprefix("./"): opened.extractfile(m).read() for m in opened}


def rewrite(tar, change):
    """Write a tar again with other members: ``change`` takes the dict of contents and edits it."""
    contents = members(tar)
    change(contents)
    with tarfile.open(tar, "w") as opened:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))


def truth_of(contents, image_id):
    """Image, masks and annotations of one image, by PIL, json and pycocotools."""
    image = np.asarray(Image.open(io.BytesIO(contents[f"{image_id}.jpg"])).convert("RGB"))
    annotations = json.loads(contents[f"{image_id}.json"])["annotations"]
    masks = np.zeros((len(annotations), *image.shape[:2]), np.uint8)
    for i, annotation in enumerate(annotations):
        masks[i] = coco_mask.decode(annotation["segmentation"])
    return image, masks, annotations
