"""Samples to batches. Masks stay compressed until `.decode`, images until they have their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode.arguments import read_size
from sa1b_fastdecode.data.annotations import column_layout
from sa1b_fastdecode.data.errors import SampleError, SkippedSample
from sa1b_fastdecode.data.images import EncodedImage, resize_image, resize_masks
from sa1b_fastdecode.data.selection import Key, check_key, choose_masks
from sa1b_fastdecode.data.worker_memory import Packing
from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = ["Collate", "SA1BBatch", "sa1b_collate_fn", "sampling_collate_fn"]

Sample: TypeAlias = dict[str, Any]
Size: TypeAlias = tuple[int, int]
# One size, or several of which each batch draws one, or a function of the epoch that returns those.
Sizes: TypeAlias = Size | Sequence[Size] | None
Schedule: TypeAlias = Sizes | Callable[[int], Sizes]


class SA1BBatch(dict[str, Any]):
    """A batch: a dict that moves as one, masks included."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SA1BBatch:
        """Return the batch with all tensors and masks on a device."""
        return SA1BBatch(
            (key, _convert(value, "to", device, non_blocking=non_blocking))
            for key, value in self.items()
        )

    def pin_memory(self) -> SA1BBatch:
        """Return the batch in page-locked memory; DataLoader(pin_memory=True) calls it."""
        return SA1BBatch((key, _convert(value, "pin_memory")) for key, value in self.items())


def _convert(value: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of all tensors and RLEBatches in a value."""
    if isinstance(value, Tensor | RLEBatch):
        return getattr(value, method)(*args, **kwargs)
    if isinstance(value, dict):
        return {key: _convert(item, method, *args, **kwargs) for key, item in value.items()}
    if isinstance(value, list):
        return [_convert(item, method, *args, **kwargs) for item in value]
    return value


def sa1b_collate_fn(
    batch: Sequence[Any],
    *,
    dense: bool = False,
    mask_dtype: torch.dtype = torch.uint8,
    out_size: Sizes = None,
    ragged: bool = False,
) -> SA1BBatch:
    """Join samples of :class:`SA1BDataset`; what they hold is not changed.

    Args:
        batch: B samples; a SkippedSample among them is left out and listed under ``skipped``.
        dense: decode the masks here. By default they stay compressed, and
            ``batch["masks"].decode(...)`` decodes them on whatever device they were moved to.
        mask_dtype: of the masks that are decoded here.
        out_size: (height, width) that images, and dense masks, are resized to; of several one is
            drawn for each batch. Boxes and areas stay in pixels of the original image.
        ragged: pad nothing, see below.

    Returns:
        SA1BBatch: a dict. N is the largest number of masks, H and W the largest sides, of any
        image, or ``out_size``; what is smaller is padded with zeros at the end, below and right.

        * ``images``: ``(B, 3, H, W)``, "channels last" in memory.
        * ``masks``: a grouped RLEBatch, each mask at its original size, or dense ``(B, N, H, W)``.
          Dense masks that the samples hold stay dense, and of their dtype.
        * ``mask_counts``: int64 ``(B,)``, how many masks of each image are real.
        * ``bboxes (B, N, 4)``, ``areas``, ``predicted_ious``, ``stability_scores (B, N)``, and
          whatever else the samples hold for each mask.
        * ``image_ids``: list of str.
        * ``image_sizes``: int64 ``(B, 2)``, height and width in ``images`` without padding.
        * ``skipped``: list of SkippedSample.

        With ``ragged`` ``images`` is a list of ``(3, h, w)``; dense ``masks`` are a list of
        ``(n, h, w)``; what is there for each mask is joined to ``(sum of n, ...)``.

    Raises:
        SampleError: an image is damaged.
        ValueError: samples that do not fit together, or an ``out_size`` that is none.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> masks = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}])
        >>> image = torch.zeros((3, 2, 3), dtype=torch.uint8)
        >>> sample = {"image": image, "masks": masks, "areas": masks.area(), "image_id": "sa_1"}
        >>> batch = fd.data.sa1b_collate_fn([sample, sample])
        >>> batch["masks"], batch["masks"].decode().shape, batch["areas"]
        (RLEBatch(2 images, 2 masks, 2x3, 110 bytes, cpu), torch.Size([2, 1, 2, 3]), tensor([[2],
                [2]]))
    """
    return Collate(dense=dense, mask_dtype=mask_dtype, out_size=out_size, ragged=ragged)(batch)


def sampling_collate_fn(
    batch: Sequence[Any],
    max_masks_per_sample: int = 50,
    *,
    generator: torch.Generator | None = None,
    weights: Key | None = None,
    dense: bool = False,
    mask_dtype: torch.dtype = torch.uint8,
    out_size: Sizes = None,
    ragged: bool = False,
) -> SA1BBatch:
    """Join samples, with a random subset of the masks of each image that has more.

    Args:
        batch: B samples.
        max_masks_per_sample: at most as many masks of each image.
        generator: of random numbers; default: torch's, which differs between workers.
        weights: "area", "predicted_iou", "stability_score" or a function of a sample's columns:
            masks are drawn with probabilities in proportion. Default: all alike.
        dense, mask_dtype, out_size, ragged: as for :func:`sa1b_collate_fn`.

    Returns:
        SA1BBatch: as :func:`sa1b_collate_fn`.

    Raises:
        SampleError, ValueError: as :func:`sa1b_collate_fn`; samples with spatial features.
    """
    check_key(weights, "weights")
    collate = Collate(dense=dense, mask_dtype=mask_dtype, out_size=out_size, ragged=ragged)
    return collate([_take_some(s, max_masks_per_sample, weights, generator) for s in batch])


def _take_some(
    sample: Any, max_masks: int, weights: Key | None, generator: torch.Generator | None
) -> Any:
    if isinstance(sample, SkippedSample) or "masks" not in sample:
        return sample
    if any(isinstance(value, dict) for value in sample.values()):
        raise ValueError(
            "the sample has features of all its masks; let the dataset choose fewer of them, with "
            "max_masks and mask_choice='random'"
        )
    num_masks = len(sample["masks"])
    per_mask = [
        key
        for key, value in sample.items()
        if key != "image" and isinstance(value, Tensor) and value.shape[:1] == (num_masks,)
    ]
    columns = {key: np.asarray(sample[key]) for key in per_mask}
    seed = int(torch.randint(2**62, (), generator=generator))
    chosen = choose_masks(
        columns,
        num_masks,
        max_masks,
        by="random",
        weights=weights,
        rng=np.random.default_rng(seed),
    )
    if chosen is None:
        return sample
    indices = torch.from_numpy(chosen)
    return {**sample, **{key: sample[key][indices] for key in {"masks", *per_mask}}}


@dataclass(frozen=True)
class Collate:
    """:func:`sa1b_collate_fn` with its options, for workers."""

    dense: bool = False
    mask_dtype: torch.dtype = torch.uint8
    out_size: Schedule = None
    ragged: bool = False
    epoch: Tensor | None = None  # shared with the main process; what ``out_size`` may depend on
    sends: bool = False  # batches go straight to the main process, so large tensors go as Parcels

    def __call__(self, batch: Sequence[Any]) -> SA1BBatch:
        """Join samples."""
        epoch = 0 if self.epoch is None else int(self.epoch)
        size = _draw_size(self.out_size(epoch) if callable(self.out_size) else self.out_size)
        packing = Packing(self.sends)
        sealed: SA1BBatch = packing.seal(self._join(batch, size, packing))
        return sealed

    def _join(self, batch: Sequence[Any], size: Size | None, packing: Packing) -> SA1BBatch:
        skipped = [sample for sample in batch if isinstance(sample, SkippedSample)]
        samples = [sample for sample in batch if not isinstance(sample, SkippedSample)]
        _check_alike(samples)
        images, sizes, damaged = self._join_images([s["image"] for s in samples], size, packing)
        if damaged:  # rare, and only where they are to be skipped: begin again without them
            kept = [s for i, s in enumerate(samples) if i not in damaged]
            lost = [SkippedSample(samples[i]["image_id"], why) for i, why in damaged.items()]
            return self._join([*kept, *skipped, *lost], size, packing)
        joined = SA1BBatch(
            images=images,
            image_ids=[sample["image_id"] for sample in samples],
            image_sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
            skipped=skipped,
        )
        if not samples:  # all of them were skipped
            none = {
                name: torch.from_numpy(np.zeros((0, *shape), dtype))
                for name, dtype, shape in column_layout(0)
            }
            counts = torch.zeros(0, dtype=torch.int64)
            empty = pack_rles([], image_sizes=np.empty((0, 2), np.int64))
            return SA1BBatch({**joined, **none, "mask_counts": counts, "masks": empty})
        if "masks" not in samples[0]:
            return joined
        joined["mask_counts"] = torch.tensor([len(sample["masks"]) for sample in samples])
        masks = [sample["masks"] for sample in samples]
        joined["masks"] = self._join_masks(masks, samples, size, packing)
        for key in [k for k in samples[0] if k not in ("image", "masks", "image_id")]:
            joined[key] = self._join_values([sample[key] for sample in samples])
        return joined

    def _join_images(
        self, images: list[Any], size: Size | None, packing: Packing
    ) -> tuple[Any, list[Size], dict[int, str]]:
        """Return the images, their sizes, and which of them are damaged, and how."""
        damaged: dict[int, str] = {}
        if self.ragged or size is not None:
            decoded = [_decode_image(image, i, damaged) for i, image in enumerate(images)]
            images = [image if size is None else resize_image(image, size) for image in decoded]
        sizes = [_size_of(image) for image in images]
        if self.ragged:
            return images, sizes, damaged
        height, width = size or (max((s[side] for s in sizes), default=0) for side in (0, 1))
        kinds = {_kind_of(image) for image in images} or {(torch.uint8, 3)}
        if len(kinds) > 1:
            raise ValueError(f"images of {' and '.join(map(str, kinds))} channels cannot be joined")
        dtype, channels = kinds.pop()
        rows = packing.empty((len(images), height, width, channels), dtype)
        if any(image_size != (height, width) for image_size in sizes):
            rows.zero_()
        joined = rows.permute(0, 3, 1, 2)
        for i, image in enumerate(images):
            h, w = sizes[i]
            if isinstance(image, EncodedImage):
                try:
                    image.decode_into(rows[i, :h, :w].numpy())
                except SampleError as error:
                    if not image.skip_errors:
                        raise
                    damaged[i] = str(error)
            else:
                joined[i, :, :h, :w] = image
        return joined, sizes, damaged

    def _join_masks(
        self, masks: list[Any], samples: list[Sample], size: Size | None, packing: Packing
    ) -> Any:
        if isinstance(masks[0], RLEBatch):
            sizes = [_size_of(sample["image"]) for sample in samples]
            return self._join_runs(masks, sizes, size, packing)
        if size is not None:
            masks = [resize_masks(dense, size) for dense in masks]
        return masks if self.ragged else pad(masks)

    def _join_runs(
        self, masks: list[RLEBatch], sizes: list[Size], size: Size | None, packing: Packing
    ) -> Any:
        # Sizes of images count where there are no masks; a transform may have left other ones.
        fitting = [
            (image.height, image.width) if len(image) else image_size
            for image, image_size in zip(masks, sizes, strict=True)
        ]
        grouped = pack_rles(masks, image_sizes=fitting, validate=False)
        if not self.dense:
            return grouped
        if not self.ragged:
            height, width = size or (grouped.height, grouped.width)
            shape = (len(masks), grouped.max_masks, height, width)
            out = packing.empty(shape, self.mask_dtype)
            return grouped.decode(dtype=self.mask_dtype, size=size, out=out)
        decoded = []
        for image, image_size in zip(masks, fitting, strict=True):
            if len(image):
                decoded.append(image.decode(dtype=self.mask_dtype, size=size))
            else:
                decoded.append(torch.zeros((0, *(size or image_size)), dtype=self.mask_dtype))
        return decoded

    def _join_values(self, values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: _join_features([value[key] for value in values]) for key in values[0]}
        if not isinstance(values[0], Tensor):
            return values
        return torch.cat(values) if self.ragged else pad(values)


def _join_features(values: list[Any]) -> Any:
    """Pad matrices of masks; lists of indices (of dtype int64) would lose their ends."""
    is_padded = isinstance(values[0], Tensor) and values[0].is_floating_point()
    return pad(values) if is_padded else values


def _check_alike(samples: list[Sample]) -> None:
    for sample in samples[1:]:
        both = f"{samples[0]['image_id']} and {sample['image_id']} cannot be joined"
        differ = sorted(samples[0].keys() ^ sample.keys())
        if differ:
            raise ValueError(f"{both}: only one of them has {', '.join(differ)}")
        if len({isinstance(s.get("masks"), RLEBatch) for s in (samples[0], sample)}) > 1:
            raise ValueError(f"{both}: only the masks of one of them are dense")


def _draw_size(sizes: Sizes) -> Size | None:
    """Return one of several sizes, at random by torch's numbers."""
    if sizes is None:
        return None
    if isinstance(sizes, Sequence) and sizes and isinstance(sizes[0], Sequence):
        several = [read_size(size, "out_size") for size in sizes]
        return several[int(torch.randint(len(several), ()))]
    return read_size(sizes, "out_size")


def _size_of(image: Any) -> Size:
    """Return height and width of an image, decoded or not."""
    if isinstance(image, EncodedImage):
        return image.height, image.width
    if not isinstance(image, Tensor) or image.dim() != 3:
        raise TypeError(
            f"images must be tensors (C, H, W) to be joined, not {type(image).__name__}"
        )
    height, width = image.shape[-2:]
    return height, width


def _kind_of(image: Any) -> tuple[torch.dtype, int]:
    return (torch.uint8, 3) if isinstance(image, EncodedImage) else (image.dtype, image.shape[0])


def _decode_image(image: Any, i: int, damaged: dict[int, str]) -> Any:
    if not isinstance(image, EncodedImage):
        return image
    try:
        return image.decode()
    except SampleError as error:
        if not image.skip_errors:
            raise
        damaged[i] = str(error)
        return torch.zeros((3, image.height, image.width), dtype=torch.uint8)


def pad(tensors: Iterable[Tensor]) -> Tensor:
    """Stack tensors of different sizes, zeros behind what is smaller."""
    items = list(tensors)
    shape = [max(sides) for sides in zip(*(item.shape for item in items), strict=True)]
    joined = torch.zeros((len(items), *shape), dtype=items[0].dtype)
    for place, item in zip(joined, items, strict=True):
        place[tuple(slice(side) for side in item.shape)] = item
    return joined
