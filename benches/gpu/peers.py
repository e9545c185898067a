"""How people do it on a GPU now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .clocks import DEVICE


def has_pycocotools() -> bool:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        return False
    return True


def _values_of(string: bytes) -> np.ndarray[Any, Any]:
    """Read the values of one compressed string, all at once with NumPy."""
    chars = np.frombuffer(string, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(chars < 32)
    begins = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(chars)) - np.repeat(begins, ends - begins + 1)
    values = np.add.reduceat((chars & 31) << (5 * place), begins)
    negative = (chars[ends] & 16) != 0
    return np.asarray(values - (negative << (5 * (ends - begins + 1))))


def _counts_of(string: bytes) -> np.ndarray[Any, Any]:
    values = _values_of(string)
    counts = values.copy()
    counts[1::2] = np.cumsum(values[1::2])  # from the fourth on, differences to the one before last
    counts[2::2] = np.cumsum(values[2::2])
    return counts


def decode_by_repeating(rles: Sequence[Any]) -> torch.Tensor:
    """Run lengths on the host; ``repeat_interleave`` and a transposition on the GPU."""
    height, width = rles[0]["size"]
    masks = []
    for rle in rles:
        counts = torch.from_numpy(_counts_of(rle["counts"].encode())).to(DEVICE)
        values = torch.arange(len(counts), device=DEVICE).to(torch.uint8) & 1
        pixels = torch.repeat_interleave(values, counts, output_size=height * width)
        masks.append(pixels.view(width, height).t())
    return torch.stack(masks)


def decode_by_pycocotools(rles: Sequence[Any]) -> torch.Tensor:
    import pycocotools.mask

    masks = [torch.from_numpy(pycocotools.mask.decode(rle)) for rle in rles]
    return torch.stack(masks).to(DEVICE)


def iou_by_matmul(masks: torch.Tensor) -> torch.Tensor:
    """Of dense float masks; the counts are below 2**24, so float32 holds them exactly."""
    flat = masks.flatten(1)
    shared = flat @ flat.T
    area = shared.diagonal()
    return shared / (area[:, None] + area - shared)


def iou_by_broadcasting(masks: torch.Tensor) -> torch.Tensor:
    """A row at a time: all pairs at once would take N times the memory of the masks."""
    area = masks.sum((1, 2))
    rows = []
    for index in range(len(masks)):
        shared = (masks[index] & masks).sum((1, 2))
        rows.append(shared / (area[index] + area - shared))
    return torch.stack(rows)


def encode_by_nonzero(masks: torch.Tensor) -> list[list[int]]:
    """Boundaries of each mask with ``nonzero``, its run lengths with a copy to the host."""
    n, height, width = masks.shape
    flat = masks.transpose(1, 2).reshape(n, -1)
    changes = flat[:, 1:] ^ flat[:, :-1]
    counts = []
    for index in range(n):
        ends = changes[index].nonzero()[:, 0] + 1
        edges = torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), height * width)])
        lengths = (edges[1:] - edges[:-1]).tolist()
        counts.append(lengths if flat[index, 0] == 0 else [0, *lengths])
    return counts
