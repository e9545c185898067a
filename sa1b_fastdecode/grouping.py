"""Which image of a grouped batch a mask belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from sa1b_fastdecode.rle_batch import RLEBatch


def image_of_masks(batch: RLEBatch) -> Tensor:
    """Return int64 ``(N,)``, where the batch is: the image of each mask; of a flat batch 0.

    Read from the block, so that nothing is copied from the host, and a CUDA graph sees what the
    batch holds when it is replayed.
    """
    masks = torch.arange(batch.num_masks, device=batch.device)
    if batch.num_images is None:
        return torch.zeros_like(masks)
    head = 8 * (3 * batch.num_masks + 1)
    images = batch.data[head : head + 24 * batch.num_images].view(torch.int64).view(-1, 3)
    return torch.searchsorted(images[:, 0].cumsum(0), masks, right=True)


def sort_by_image(batch: RLEBatch, order: Tensor) -> Tensor:
    """Return masks in the order given, but those of the first image first."""
    if batch.num_images is None:
        return order
    return order[image_of_masks(batch)[order].argsort(stable=True)]
