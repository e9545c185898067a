"""From a compressed sample to what a dataset or a loader gives out."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode.data.annotations import COLUMNS, Annotations
from sa1b_fastdecode.data.compressed import CompressedSample
from sa1b_fastdecode.data.errors import SampleError
from sa1b_fastdecode.data.images import EncodedImage, read_size
from sa1b_fastdecode.data.selection import Key, check_key, choose_masks
from sa1b_fastdecode.data.transforms import JointTransform
from sa1b_fastdecode.library import ELEMENTS
from sa1b_fastdecode.ops import encode_masks
from sa1b_fastdecode.rle_batch import RLEBatch

Sample: TypeAlias = dict[str, Any]
MaskFormat: TypeAlias = Literal["dense", "rle", "none"]


@dataclass(frozen=True)
class Pipeline:
    """The options of :class:`SA1BDataset` that say what a sample looks like."""

    transform: Callable[[Tensor], Any] | None
    mask_transform: Callable[[Any], Any] | None
    transforms: Callable[[Sample], Sample] | None
    max_masks: int | None
    mask_choice: Key
    mask_weights: Key | None
    mask_format: MaskFormat
    mask_dtype: torch.dtype
    mask_size: tuple[int, int] | None
    exact_bboxes: bool
    skip_errors: bool
    # Adds to a sample what is computed from its masks.
    features: Callable[[RLEBatch], Sample] | None = None
    # Leave images as EncodedImages where no transform wants to see them.
    keep_jpeg: bool = False

    def __post_init__(self) -> None:
        if self.mask_format not in ("dense", "rle", "none"):
            raise ValueError(
                f"mask_format must be 'dense', 'rle' or 'none', not {self.mask_format!r}"
            )
        if self.mask_dtype not in ELEMENTS:
            raise ValueError(f"mask_dtype {self.mask_dtype} is not one that masks decode to")
        if self.max_masks is not None and self.max_masks < 0:
            raise ValueError(f"max_masks must not be negative, but is {self.max_masks}")
        if self.mask_size is not None and self.mask_format != "dense":
            raise ValueError("mask_size needs mask_format='dense'; an RLEBatch decodes at any size")
        check_key(self.mask_choice, "mask_choice", ("random",))
        check_key(self.mask_weights, "mask_weights")
        if self.mask_weights is not None and self.mask_choice != "random":
            raise ValueError("mask_weights are for mask_choice='random'")

    def for_loader(self, dense: bool) -> Pipeline:
        """Return what workers run: masks stay compressed, whatever the dataset gives out.

        Unless a ``mask_transform`` waits for dense ones, or those of ``mask_size`` are asked for.
        """
        wait = self.mask_transform is None and not (dense and self.mask_size is not None)
        if self.mask_format == "dense" and wait:
            return replace(self, mask_format="rle", mask_size=None)
        return self

    def limited(self, max_masks: int | None) -> Pipeline:
        """Return the same with at most ``max_masks`` masks, if that is fewer."""
        limits = [limit for limit in (self.max_masks, max_masks) if limit is not None]
        return replace(self, max_masks=min(limits, default=None))

    def __call__(self, source: CompressedSample, where: str, rng: np.random.Generator) -> Sample:
        """Make a sample.

        Args:
            source: all that the files hold.
            where: the image's file, for messages.
            rng: for the choice of masks.

        Raises:
            SampleError: the image is damaged, or of another size than its annotations say.
        """
        annotations = source.annotations
        height, width = _find_size(source, where)
        image = EncodedImage(source.jpeg, height, width, where, self.skip_errors)
        keep_jpeg = self.keep_jpeg and self.transform is None and self.transforms is None
        sample: Sample = {
            "image": image if keep_jpeg else image.decode(),
            "image_id": source.image_id,
        }
        if annotations is not None:
            self._add_masks(sample, annotations, rng)
        if self.transforms is not None:
            sample = _apply_jointly(self.transforms, sample)
        if self.transform is not None:
            sample["image"] = self.transform(sample["image"])
        if annotations is not None:
            self._finish_masks(sample, height, width)
        return sample

    def _add_masks(
        self, sample: Sample, annotations: Annotations, rng: np.random.Generator
    ) -> None:
        chosen = choose_masks(
            annotations.columns,
            len(annotations.masks),
            self.max_masks,
            by=self.mask_choice,
            weights=self.mask_weights,
            rng=rng,
        )
        if chosen is not None:
            annotations = annotations.take(chosen)
        sample["masks"] = annotations.masks
        for name in COLUMNS:
            # A copy: what is cached must not change when a user writes into a sample.
            sample[name] = torch.from_numpy(annotations.columns[name].copy())

    def _finish_masks(self, sample: Sample, height: int, width: int) -> None:
        masks: RLEBatch = sample["masks"]
        if self.exact_bboxes:
            sample["exact_bboxes"] = masks.bbox()
        if self.features is not None:
            sample.update(self.features(masks))
        if self.mask_format == "dense":
            if len(masks) > 0:
                sample["masks"] = masks.decode(dtype=self.mask_dtype, size=self.mask_size)
            else:
                if self.transforms is not None and isinstance(sample["image"], Tensor):
                    height, width = sample["image"].shape[-2:]
                shape = (0, *(self.mask_size or (height, width)))
                sample["masks"] = torch.zeros(shape, dtype=self.mask_dtype)
        if self.mask_transform is not None:
            sample["masks"] = self.mask_transform(sample["masks"])


def _find_size(source: CompressedSample, where: str) -> tuple[int, int]:
    """Return height and width of the image, before memory is taken for it."""
    try:
        height, width = read_size(source.jpeg)
    except ValueError as error:
        raise SampleError(f"{where}: {error}") from None
    said = source.annotations
    if said is not None and (said.height, said.width) != (height, width):
        raise SampleError(
            f"{where}: it is {height}x{width}, its annotations say {said.height}x{said.width}"
        )
    return height, width


def _apply_jointly(transforms: Callable[[Sample], Sample], sample: Sample) -> Sample:
    """Apply joint transforms; those that are not ours see dense masks, and torchvision's types."""
    if isinstance(transforms, JointTransform) or "masks" not in sample:
        return transforms(sample)
    masks: RLEBatch = sample["masks"]
    height, width = sample["image"].shape[1:]
    dense = masks.decode() if len(masks) else torch.zeros((0, height, width), dtype=torch.uint8)
    changed = dict(transforms(_as_tv_tensors({**sample, "masks": dense})))
    for name, value in changed.items():
        if isinstance(value, Tensor):
            changed[name] = value.as_subclass(Tensor)
    changed["masks"] = masks = encode_masks(changed["masks"])
    changed["areas"] = masks.area()  # the transforms do not know what they are
    return changed


@functools.cache
def _find_tv_tensors() -> Any:
    """Return torchvision's types; None where it is not there, or was built for another torch."""
    try:
        return importlib.import_module("torchvision.tv_tensors")
    except (ImportError, RuntimeError):
        return None


def _as_tv_tensors(sample: Sample) -> Sample:
    """Tell torchvision's v2 transforms what is what; without torchvision all are plain tensors."""
    tv_tensors = _find_tv_tensors()
    if tv_tensors is None:
        return sample
    image = sample["image"]
    boxes = tv_tensors.BoundingBoxes(
        sample["bboxes"], format="XYWH", canvas_size=tuple(image.shape[1:])
    )
    return {
        **sample,
        "image": tv_tensors.Image(image),
        "masks": tv_tensors.Mask(sample["masks"]),
        "bboxes": boxes,
    }
