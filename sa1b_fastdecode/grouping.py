"""Which image of a grouped batch a mask belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from sa1b_fastdecode.rle_batch import RLEBatch


def image_of_masks(batch: RLEBatch) -> Tensor:
    """Return int64 ``(N,)``, on the CPU: the image of each mask; of a flat batch 0."""
    counts = batch.counts_per_image
    if counts is None:
        return torch.zeros(batch.num_masks, dtype=torch.int64, device="cpu")
    return torch.repeat_interleave(counts)


def sort_by_image(batch: RLEBatch, order: Tensor) -> Tensor:
    """Return masks in the order given, but those of the first image first."""
    if batch.num_images is None:
        return order
    image = image_of_masks(batch).to(order.device)
    return order[image[order].argsort(stable=True)]
