"""Masks made of masks: what is measured, how it is asked of each library, and the truth.

All start from dicts with strings and end with such dicts, so that everybody parses and writes.
rlemasklib alone holds masks as integers, too, and is faster from there: flips, half turns and
complements of them copy numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from .inputs import Rle, Sample

Mask = NDArray[np.uint8]
Masks = Callable[[], Iterator[Mask]]  # the dense masks of a sample, one by one


@dataclass(frozen=True)
class Operation:
    """One operator; of which peers it is asked is said by which of them have a function here."""

    title: str
    ours: Callable[[Callable[..., Any], list[Rle]], Any]  # pack, dicts -> RLEBatch
    dense: Callable[[Masks], Iterator[Mask]]
    rlemasklib: Callable[[Sequence[Any]], list[Any]]  # RLEMasks -> RLEMasks
    coco: Callable[[Any, Sequence[Rle]], list[Rle]] | None = None  # module, dicts -> dicts
    rounds_otherwise: bool = False  # rlemasklib, so it is timed but not compared

    def check(self, sample: Sample, strings: Sequence[bytes]) -> None:
        for index, (string, expected) in enumerate(
            zip(strings, _expected(self, sample), strict=True)
        ):
            assert string == expected, f"mask {index} of the {self.title} differs"


@lru_cache(maxsize=3)  # the samples of one case
def _expected(operation: Operation, sample: Sample) -> list[bytes]:
    def masks() -> Iterator[Mask]:
        return (sample._dense(index) for index in range(len(sample.rles)))

    encode = pycocotools.mask.encode
    return [encode(np.asfortranarray(mask))["counts"] for mask in operation.dense(masks)]


def _of_batch(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any], list[Rle]], Any]:
    return lambda pack, rles: change(pack(rles))


def _each(change: Callable[[Mask], Mask]) -> Callable[[Masks], Iterator[Mask]]:
    return lambda masks: (change(mask) for mask in masks())


def _pairs(combine: Callable[[Mask, Mask], Mask]) -> Callable[[Masks], Iterator[Mask]]:
    return lambda masks: (combine(a, b) for a, b in itertools.pairwise(masks()))


def _all(combine: Callable[[Mask, Mask], Mask]) -> Callable[[Masks], Iterator[Mask]]:
    return lambda masks: iter([reduce(combine, masks())])


LABELS = 10


def _by_label(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The items of each label; they are labelled in turn."""
    return (items[label::LABELS] for label in range(LABELS))


def _rlemask() -> Any:
    import rlemasklib

    return rlemasklib


def _shift(mask: Mask) -> Mask:
    moved = np.zeros_like(mask)
    moved[10:, 20:] = mask[:-10, :-20]
    return moved


def _half(size: int) -> NDArray[np.int64]:
    position = (np.arange(size // 2, dtype=np.float32) + np.float32(0.5)) * np.float32(2)
    return position.astype(np.int64)


OPERATIONS: dict[str, Operation] = {
    "algebra_union": Operation(
        "union of all",
        _of_batch(lambda batch: batch.merge()),
        _all(np.bitwise_or),
        lambda masks: [_rlemask().RLEMask.union(masks)],
        lambda coco, rles: [coco.merge(rles)],
    ),
    "algebra_merge_by_label": Operation(
        f"unions by {LABELS} labels",
        lambda pack, rles: pack(rles).merge(np.arange(len(rles)) % LABELS),
        lambda masks: (
            reduce(np.bitwise_or, itertools.islice(masks(), label, None, LABELS))
            for label in range(LABELS)
        ),
        lambda masks: [_rlemask().RLEMask.union(each) for each in _by_label(masks)],
        lambda coco, rles: [coco.merge(each) for each in _by_label(rles)],
    ),
    "algebra_intersections": Operation(
        "intersections of neighbours",
        lambda pack, rles: pack(rles[:-1]) & pack(rles[1:]),
        _pairs(np.bitwise_and),
        lambda masks: [a & b for a, b in itertools.pairwise(masks)],
        lambda coco, rles: [coco.merge([a, b], True) for a, b in itertools.pairwise(rles)],
    ),
    "algebra_unions": Operation(
        "unions of neighbours",
        lambda pack, rles: pack(rles[:-1]) | pack(rles[1:]),
        _pairs(np.bitwise_or),
        lambda masks: [a | b for a, b in itertools.pairwise(masks)],
        lambda coco, rles: [coco.merge([a, b]) for a, b in itertools.pairwise(rles)],
    ),
    "algebra_differences": Operation(
        "differences of neighbours",
        lambda pack, rles: pack(rles[:-1]) - pack(rles[1:]),
        _pairs(lambda a, b: a & (1 - b)),
        lambda masks: [a - b for a, b in itertools.pairwise(masks)],
    ),
    "algebra_xors": Operation(
        "exclusive ors of neighbours",
        lambda pack, rles: pack(rles[:-1]) ^ pack(rles[1:]),
        _pairs(np.bitwise_xor),
        lambda masks: [a ^ b for a, b in itertools.pairwise(masks)],
    ),
    "algebra_xor": Operation(
        "exclusive or of all",
        _of_batch(lambda batch: batch.merge(how="xor")),
        _all(np.bitwise_xor),
        lambda masks: [_rlemask().RLEMask.merge_many(masks, _rlemask().BoolFunc.XOR)],
    ),
    "algebra_complement": Operation(
        "complements",
        _of_batch(lambda batch: ~batch),
        _each(lambda mask: 1 - mask),
        lambda masks: [~mask for mask in masks],
    ),
    "algebra_crop": Operation(
        "crops of a quarter",
        _of_batch(lambda batch: batch.crop((100, 200, batch.height // 2, batch.width // 2))),
        _each(lambda mask: mask[100:, 200:][: mask.shape[0] // 2, : mask.shape[1] // 2]),
        lambda masks: [
            mask.crop((200, 100, mask.shape[1] // 2, mask.shape[0] // 2)) for mask in masks
        ],
    ),
    "algebra_pad": Operation(
        "padded by 20 and 30",
        _of_batch(lambda batch: batch.pad((batch.height + 20, batch.width + 30))),
        _each(lambda mask: np.pad(mask, ((0, 20), (0, 30)))),
        lambda masks: [mask.pad(0, 20, 0, 30) for mask in masks],
    ),
    "algebra_translate": Operation(
        "moved by (10, 20)",
        _of_batch(lambda batch: batch.translate((10, 20))),
        _each(_shift),
        lambda masks: [mask.shift((10, 20)) for mask in masks],
    ),
    "algebra_resize": Operation(
        "half size",
        _of_batch(lambda batch: batch.resize((batch.height // 2, batch.width // 2))),
        _each(lambda mask: mask[np.ix_(*map(_half, mask.shape))]),
        lambda masks: [mask.resize((mask.shape[0] // 2, mask.shape[1] // 2)) for mask in masks],
        rounds_otherwise=True,
    ),
    "algebra_flip_horizontal": Operation(
        "left and right exchanged",
        _of_batch(lambda batch: batch.flip("horizontal")),
        _each(np.fliplr),
        lambda masks: [mask.fliplr() for mask in masks],
    ),
    "algebra_flip_vertical": Operation(
        "top and bottom exchanged",
        _of_batch(lambda batch: batch.flip("vertical")),
        _each(np.flipud),
        lambda masks: [mask.flipud() for mask in masks],
    ),
    "algebra_rot90": Operation(
        "turned by 90 degrees",
        _of_batch(lambda batch: batch.rot90()),
        _each(np.rot90),
        lambda masks: [mask.rot90() for mask in masks],
    ),
    "algebra_rot180": Operation(
        "turned by 180 degrees",
        _of_batch(lambda batch: batch.rot90(2)),
        _each(lambda mask: np.rot90(mask, 2)),
        lambda masks: [mask.rot90(2) for mask in masks],
    ),
}
