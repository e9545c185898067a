"""Joint transforms of an image and its masks, which stay compressed.

Each takes a sample (the dict of :class:`SA1BDataset`, with the image as ``uint8 (3, H, W)`` and the
masks as an RLEBatch) and returns another one. Boxes and areas are computed anew from the masks:
boxes in the files' convention, (x, y, w-1, h-1). Masks that a crop leaves empty are dropped.
Randomness is torch's, which seeds every worker of a DataLoader differently.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from sa1b_fastdecode.data.annotations import COLUMNS
from sa1b_fastdecode.data.images import resize_image
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = ["Compose", "HorizontalFlip", "JointTransform", "RandomCrop", "Resize"]

Sample: TypeAlias = dict[str, Any]


class JointTransform(ABC):
    """What takes a sample whose masks are compressed; other transforms get dense masks."""

    @abstractmethod
    def __call__(self, sample: Sample) -> Sample:
        """Return the changed sample; the one given stays as it is."""


class Compose(JointTransform):
    """One joint transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Sample], Sample]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, sample: Sample) -> Sample:
        """Apply all of them."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample


class HorizontalFlip(JointTransform):
    """Exchange left and right with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, sample: Sample) -> Sample:
        """Flip it or not."""
        return _warp(sample, flip=True) if float(torch.rand(())) < self.p else sample


class RandomCrop(JointTransform):
    """Cut out a random window of ``size`` (height, width), or less where the image is smaller."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, sample: Sample) -> Sample:
        """Cut out one window."""
        sides = sample["image"].shape[1:]
        height, width = (min(a, b) for a, b in zip(self.size, sides, strict=True))
        y = int(torch.randint(sides[0] - height + 1, ()))
        x = int(torch.randint(sides[1] - width + 1, ()))
        return _warp(sample, crop=(y, x, height, width))


class Resize(JointTransform):
    """Resize to ``size`` (height, width): images bilinear, masks to the nearest pixel."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, sample: Sample) -> Sample:
        """Resize it."""
        return _warp(sample, size=self.size)


def _warp(
    sample: Sample,
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
    flip: bool = False,
) -> Sample:
    """Crop, then resize, then flip."""
    image, changed = sample["image"], dict(sample)
    if crop is not None:
        y, x, h, w = crop
        image = image[:, y : y + h, x : x + w]
    if size is not None:
        image = resize_image(image, size)
    changed["image"] = image.flip(-1) if flip else image
    if "masks" not in sample:
        return changed
    masks: RLEBatch = sample["masks"]
    if len(masks) > 0:
        masks = masks if crop is None else masks.crop(crop)
        masks = masks if size is None else masks.resize(size)
        masks = masks.flip("horizontal") if flip else masks
    areas = masks.area()
    kept = (areas > 0).nonzero().flatten()
    for name in COLUMNS:
        changed[name] = sample[name][kept]
    changed["masks"] = masks = masks[kept]
    changed["areas"] = areas[kept]
    changed["bboxes"] = masks.bbox() - torch.tensor([0.0, 0.0, 1.0, 1.0])
    return changed
