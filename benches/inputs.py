"""The masks that are measured: generated, dense worst cases, and real files where present."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_data import REAL_DATA, SA1B_FILE

with contextlib.suppress(ImportError):  # on machines with a GPU it may be missing
    import pycocotools.mask

PAGE = 4096
WINDOW = 256  # side of the crops and of the resized masks

Rle = dict[str, Any]


class Sample:
    """One image's worth of masks, all of one size, with what pycocotools says about them."""

    def __init__(self, rles: Sequence[Rle]) -> None:
        self.rles = list(rles)
        self.height, self.width = (int(side) for side in self.rles[0]["size"])
        self._ious: dict[int, NDArray[np.float32]] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.rles), self.height, self.width

    @cached_property
    def byte_rles(self) -> list[Rle]:
        """The same with ``bytes`` counts, which most libraries read faster than ``str``."""
        return [{"size": rle["size"], "counts": rle["counts"].encode()} for rle in self.rles]

    @cached_property
    def _truth(self) -> tuple[list[NDArray[np.uint8]], dict[int, NDArray[np.int64]]]:
        # Packed to bits, since the dense masks of every sample would not fit beside the outputs.
        bits: list[NDArray[np.uint8]] = []
        pages: dict[int, list[NDArray[np.int64]]] = {1: [], 4: []}
        for index, rle in enumerate(self.byte_rles):
            mask = np.ascontiguousarray(pycocotools.mask.decode(rle))
            bits.append(np.packbits(mask))
            foreground = np.flatnonzero(mask.view(bool)) + index * mask.size
            for itemsize, found in pages.items():
                found.append(np.unique(foreground * itemsize // PAGE))
        return bits, {size: np.unique(np.concatenate(found)) for size, found in pages.items()}

    def foreground_pages(self, itemsize: int) -> NDArray[np.int64]:
        """The 4 KiB pages of a dense (N,H,W) batch that hold at least one foreground pixel."""
        return self._truth[1][itemsize]

    def all_pages(self, itemsize: int) -> NDArray[np.int64]:
        return np.arange(-(-np.prod(self.shape) * itemsize // PAGE), dtype=np.int64)

    def check_dense(self, masks: NDArray[Any]) -> None:
        """Every value must be 0 or 1, and equal to what pycocotools decodes."""
        assert masks.shape == self.shape, (masks.shape, self.shape)
        assert masks.flags.c_contiguous
        for index, (mask, bits) in enumerate(zip(masks, self._truth[0], strict=True)):
            ones = mask == 1
            assert np.array_equal(np.packbits(ones), bits), f"mask {index} differs"
            assert np.array_equal(ones, mask != 0), f"mask {index} has other values than 0 and 1"

    @cached_property
    def areas(self) -> NDArray[Any]:
        # One by one: with NumPy 2, pycocotools 2.0.11 cannot be asked for more than 255 at once.
        return np.array([pycocotools.mask.area(rle) for rle in self.byte_rles])

    @cached_property
    def boxes(self) -> NDArray[Any]:
        return np.asarray(pycocotools.mask.toBbox(self.byte_rles))

    def iou_with(self, other: Sample) -> NDArray[np.float32]:
        if id(other) not in self._ious:
            iou = pycocotools.mask.iou(self.byte_rles, other.byte_rles, [0] * len(other.rles))
            self._ious[id(other)] = np.asarray(iou).astype(np.float32)
        return self._ious[id(other)]

    def containment(self) -> NDArray[np.float32]:
        # Over the areas of the columns: as if those were the ones that are detected, all crowds.
        iou = pycocotools.mask.iou(self.byte_rles, self.byte_rles, [1] * len(self.rles))
        return np.asarray(iou).T.astype(np.float32)

    @cached_property
    def windows(self) -> list[tuple[int, int, int, int]]:
        """A (y, x, h, w) window around the middle of each mask, moved to lie inside the image."""
        x, y, width, height = self.boxes.T
        top = np.clip(y + height // 2 - WINDOW // 2, 0, self.height - WINDOW).astype(int)
        left = np.clip(x + width // 2 - WINDOW // 2, 0, self.width - WINDOW).astype(int)
        return [(int(t), int(s), WINDOW, WINDOW) for t, s in zip(top, left, strict=True)]

    def _dense(self, index: int) -> NDArray[np.uint8]:
        packed = np.unpackbits(self._truth[0][index], count=self.height * self.width)
        return packed.reshape(self.height, self.width)

    @cached_property
    def rows(self) -> NDArray[np.uint8]:
        """The masks (N, H, W), each in row-major order."""
        return np.stack([self._dense(index) for index in range(len(self.rles))])

    @cached_property
    def columns(self) -> NDArray[np.uint8]:
        """The masks (N, H, W), each in column-major order, as pycocotools has them."""
        masks = np.empty((len(self.rles), self.width, self.height), np.uint8).transpose(0, 2, 1)
        masks[...] = self.rows
        self.__dict__.pop("rows")  # both would not fit beside the outputs
        return masks

    @cached_property
    def _canonical(self) -> list[bytes]:
        encode = pycocotools.mask.encode
        return [
            encode(np.asfortranarray(self._dense(index)))["counts"]
            for index in range(len(self.rles))
        ]

    def check_encoded(self, counts: Sequence[bytes]) -> None:
        for index, (string, expected) in enumerate(zip(counts, self._canonical, strict=True)):
            assert string == expected, f"mask {index} is encoded differently"

    def check_cropped(self, crops: NDArray[Any]) -> None:
        for index, (y, x, h, w) in enumerate(self.windows):
            expected = self._dense(index)[y : y + h, x : x + w]
            assert np.array_equal(crops[index], expected), f"crop of mask {index} differs"

    def check_resized(self, masks: NDArray[Any]) -> None:
        rows, columns = (_nearest_exact(size) for size in (self.height, self.width))
        for index, mask in enumerate(masks):
            expected = self._dense(index)[np.ix_(rows, columns)]
            assert np.array_equal(mask, expected), f"mask {index} differs after resizing"


def _nearest_exact(size: int) -> NDArray[np.int64]:
    scale = np.float32(size) / np.float32(WINDOW)
    position = (np.arange(WINDOW, dtype=np.float32) + np.float32(0.5)) * scale
    return np.asarray(np.minimum(position.astype(np.int64), size - 1))


@dataclass(frozen=True)
class Inputs:
    """A named set of samples. Rounds rotate over them, so that no input is measured alone."""

    title: str
    make: Callable[[], list[Sample]]
    file: Path | None = None  # present only where the real data is

    @property
    def missing(self) -> str | None:
        return f"{self.file} is not there" if self.file and not self.file.exists() else None


def _generated(num_masks: int, height: int, width: int, seeds: Sequence[int]) -> Inputs:
    def make() -> list[Sample]:
        from sa1b_fastdecode.sample import generate_annotation

        size = {"height": height, "width": width, "num_masks": num_masks}
        annotations = [generate_annotation(seed, **size)["annotations"] for seed in seeds]
        return [Sample([a["segmentation"] for a in image]) for image in annotations]

    noun = "mask" if num_masks == 1 else "masks"
    return Inputs(f"{num_masks} {noun} of {height} x {width}", make)


def _encode(mask: NDArray[np.uint8]) -> Rle:
    rle = pycocotools.mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _noise() -> list[Sample]:
    rng = np.random.default_rng(0)
    draw = [[rng.integers(0, 2, (1500, 2250), np.uint8) for _ in range(4)] for _ in range(2)]
    return [Sample([_encode(mask) for mask in masks]) for masks in draw]


def _checkerboard() -> list[Sample]:
    board = (np.indices((1500, 2250)).sum(0) % 2).astype(np.uint8)
    phases = [_encode(board), _encode(1 - board)]
    return [Sample(phases * 2), Sample(phases[::-1] * 2)]


def _load(path: Path) -> Any:
    return json.loads(path.read_text())


def _real_sa1b() -> list[Sample]:
    annotations = _load(REAL["real-sa1b"])["annotations"]
    rles = [annotation["segmentation"] for annotation in annotations]
    # One file is all there is, so the rotation is over its order.
    return [Sample(rles[start:] + rles[:start]) for start in (0, 40, 80)]


def _real_video() -> list[Sample]:
    frames = _load(REAL["real-video"])["masklet"]
    chunks = [frames[start : start + 12] for start in (0, 40, 80)]
    return [Sample([rle for frame in chunk for rle in frame]) for chunk in chunks]


def _real_nuclei() -> list[Sample]:
    images: dict[int, list[Rle]] = {}
    for result in _load(REAL["real-nuclei"]):
        images.setdefault(result["image_id"], []).append(result["segmentation"])
    return [Sample(rles) for rles in list(images.values())[:2]]


REAL = {
    "real-sa1b": SA1B_FILE,
    "real-video": REAL_DATA / "sav" / "sav_000001_auto.json",
    "real-nuclei": REAL_DATA / "other" / "nuclei_results.segm.json",
}

INPUTS: dict[str, Inputs] = {
    "sa1b-1": _generated(1, 1500, 2250, seeds=(1, 2, 3, 4, 5)),
    "sa1b-10": _generated(10, 1500, 2250, seeds=(1, 2, 3)),
    "sa1b-30": _generated(30, 1500, 2250, seeds=(1, 2)),
    "sa1b-100": _generated(100, 1500, 2250, seeds=(1, 2, 3)),
    "sa1b-400": _generated(400, 1500, 2250, seeds=(1, 2)),
    "small-100": _generated(100, 480, 640, seeds=(1, 2, 3)),
    "small-1000": _generated(1000, 480, 640, seeds=(1, 2, 3)),
    "large-10": _generated(10, 7072, 7072, seeds=(1, 2)),
    "one-64": _generated(1, 64, 64, seeds=(1, 2, 3, 4, 5)),
    "noise": Inputs("4 masks of noise, 1500 x 2250", _noise),
    "checkerboard": Inputs("4 checkerboards, 1500 x 2250", _checkerboard),
    "real-sa1b": Inputs("a real SA-1B image, 113 masks", _real_sa1b, REAL["real-sa1b"]),
    "real-video": Inputs("real SA-V frames, 848 x 480", _real_video, REAL["real-video"]),
    "real-nuclei": Inputs("real nuclei, 1000 x 1000", _real_nuclei, REAL["real-nuclei"]),
}


@lru_cache(maxsize=1)  # one set at a time: the truths of all of them would fill the memory
def load_samples(name: str) -> list[Sample]:
    return INPUTS[name].make()
