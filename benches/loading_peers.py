"""Tars in Meta's layout to load from, and who else loads them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

import sa1b_fastdecode as fd
from sa1b_fastdecode.data.images import decode_jpeg
from sa1b_fastdecode.sample import generate_annotation, generate_image

DISTINCT = 8  # images; a tar holds each of them many times

Image = tuple[bytes, bytes]  # its JPEG and its JSON


def make_images() -> list[Image]:
    """Return a few images of SA-1B's usual size and number of masks."""
    images = []
    for seed in range(DISTINCT):
        annotation = generate_annotation(seed)
        jpeg = io.BytesIO()
        PIL.Image.fromarray(generate_image(annotation, seed)).save(jpeg, "JPEG", quality=90)
        images.append((jpeg.getvalue(), json.dumps(annotation).encode()))
    return images


def repeat(images: list[Image], times: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of ``times`` images, of which many are the same."""
    for i in range(times):
        jpeg, annotations = images[i % len(images)]
        yield f"sa_{i + 1}.jpg", jpeg
        yield f"sa_{i + 1}.json", annotations


def write_tar(path: Path, contents: Iterator[tuple[str, bytes]], seed: int = 0) -> Path:
    """Write members in random order, as in Meta's tars."""
    members = list(contents)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in np.random.default_rng(seed).permutation(len(members)).tolist():
            name, content = members[i]
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def decode_usually(image: Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (H, W, 3) and its masks (N, H, W) by Pillow, json and pycocotools."""
    jpeg, annotations = image
    masks = [coco_mask.decode(a["segmentation"]) for a in json.loads(annotations)["annotations"]]
    with PIL.Image.open(io.BytesIO(jpeg)) as opened:
        return np.array(opened.convert("RGB")), np.stack(masks)


class JpegOnly(Dataset[int]):
    """Reads and decodes images, and gives nothing."""

    def __init__(self, index: fd.data.TarIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> int:
        return int(decode_jpeg(self.index.read(i, "jpg"))[0, 0, 0])


class FromTheDocuments(Dataset[dict[str, Any]]):
    """The loader of the documents, from a folder: pycocotools, stack, float."""

    def __init__(self, folder: Path, num_images: int) -> None:
        self.stems = [folder / f"sa_{i + 1}" for i in range(num_images)]

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, i: int) -> dict[str, Any]:
        stem = self.stems[i]
        with PIL.Image.open(stem.with_suffix(".jpg")) as opened:
            image = np.array(opened.convert("RGB"))
        annotations = json.loads(stem.with_suffix(".json").read_text())["annotations"]
        masks = np.stack([coco_mask.decode(a["segmentation"]) for a in annotations])
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "masks": torch.from_numpy(masks).float(),
            "bboxes": torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32),
            "areas": torch.tensor([a["area"] for a in annotations]),
            "predicted_ious": torch.tensor([a["predicted_iou"] for a in annotations]),
            "stability_scores": torch.tensor([a["stability_score"] for a in annotations]),
            "image_id": stem.name,
        }
