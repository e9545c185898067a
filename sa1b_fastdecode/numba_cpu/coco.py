"""The functions behind ``sa1b_fastdecode.mask``: those of ``csrc/bindings_coco.cpp``.

Objects are read in Python, so a call costs tens of microseconds where the compiled one costs one.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from sa1b_fastdecode.numba_cpu import algebra_sets
from sa1b_fastdecode.numba_cpu.codec import compress, decompress, validate
from sa1b_fastdecode.numba_cpu.encode import encode
from sa1b_fastdecode.numba_cpu.jit import jit
from sa1b_fastdecode.numba_cpu.matching import suppress
from sa1b_fastdecode.numba_cpu.memory import Array, read_header
from sa1b_fastdecode.numba_cpu.pairwise import pairwise
from sa1b_fastdecode.status import (
    INTERSECTION,
    IOU,
    MAX_CHARS_PER_COUNT,
    MAX_PIXELS,
    NOT_GROUPED,
    OK,
)

_MOST_ON_GRID = 2**31 - 1


class _Masks:
    """RLEs that were read and validated: a block, and what is known of it."""

    def __init__(self, sizes: list[Any], strings: list[bytes], single: bool) -> None:
        self.single = single
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.uniform = bool((self.sizes == self.sizes[:1]).all())
        n = len(sizes)
        header = np.zeros(3 * n + 1, np.int64)
        header[: 2 * n] = self.sizes.ravel()
        header[2 * n] = header.nbytes
        np.cumsum([len(string) for string in strings], out=header[2 * n + 1 :])
        header[2 * n + 1 :] += header.nbytes
        block = header.tobytes() + b"".join(strings)
        self.block = np.frombuffer(block, np.uint8)

    def __len__(self) -> int:
        return len(self.sizes)

    def address(self) -> tuple[int, int, int]:
        return self.block.ctypes.data, len(self.block), len(self)

    def counts(self) -> list[Array]:
        """Return the counts of each mask as int64."""
        counts = np.empty(len(self.block), np.uint32)
        offsets = np.empty(len(self) + 1, np.int64)
        decompress(*self.address(), counts.ctypes.data, offsets.ctypes.data)
        return np.split(counts[: offsets[-1]].astype(np.int64), offsets[1:-1]) if len(self) else []


def _read(rles: Any) -> _Masks | None:
    single = type(rles) is dict
    if not single and type(rles) not in (list, tuple):
        return None
    sizes, strings = [], []
    for rle in [rles] if single else list(rles):
        if type(rle) is not dict:
            return None
        size: Any = rle.get("size")
        counts: Any = rle.get("counts")
        if type(counts) is str and counts.isascii():
            counts = counts.encode()
        if type(counts) is not bytes or type(size) not in (list, tuple) or len(size) != 2:
            return None
        h, w = size
        if type(h) is not int or type(w) is not int:
            return None
        if min(h, w) < 0 or max(h, w, h * w) > MAX_PIXELS:
            return None
        sizes.append((h, w))
        strings.append(counts)
    masks = _Masks(sizes, strings, single)
    return masks if validate(*masks.address()) == OK else None


def _make_rle(h: int, w: int, counts: Array, text: bool) -> dict[str, Any]:
    counts = counts.astype(np.uint32)
    chars = np.empty(MAX_CHARS_PER_COUNT * len(counts), np.uint8)
    count_offsets = np.array([0, len(counts)], np.int64)
    offsets = np.empty(2, np.int64)
    compress(
        counts.ctypes.data, count_offsets.ctypes.data, 1, chars.ctypes.data, offsets.ctypes.data
    )
    string = chars[: offsets[1]].tobytes()
    return {"size": [int(h), int(w)], "counts": string.decode() if text else string}


def coco_encode(masks: Any, text: bool) -> Any:
    if not isinstance(masks, np.ndarray) or masks.ndim not in (2, 3):
        return None
    kind, item_size = masks.dtype.kind, masks.dtype.itemsize
    if kind not in "buif" or item_size > 8 or not masks.dtype.isnative:
        return None
    value_bits = (1 << 8 * item_size - (kind == "f")) - 1  # -0.0 is background
    h, w, *rest = masks.shape
    n = rest[0] if rest else 1
    mask_stride = masks.strides[2] if rest else 0
    strides = mask_stride, masks.strides[0], masks.strides[1]
    block = encode(masks.ctypes.data, n, h, w, *strides, item_size, value_bits, 1)
    if block is None:
        return None
    data = bytes(block)
    offsets = np.frombuffer(data, np.int64, n + 1, 16 * n).tolist()
    rles = []
    for begin, end in itertools.pairwise(offsets):
        string = data[begin:end]
        rles.append({"size": [h, w], "counts": string.decode() if text else string})
    return rles if rest else rles[0]


def coco_decode(rles: Any) -> Any:
    masks = _read(rles)
    if masks is None or not masks.uniform:
        return None
    h, w = masks.sizes[0].tolist() if len(masks) else (0, 0)
    out = np.zeros((h, w, len(masks)), np.uint8, order="F")
    for i, counts in enumerate(masks.counts()):
        values = (np.arange(len(counts)) % 2).astype(np.uint8)
        out[:, :, i] = np.repeat(values, counts).reshape(w, h).T
    return out[:, :, 0] if masks.single else out


def coco_area(rles: Any) -> Any:
    masks = _read(rles)
    if masks is None:
        return None
    areas = np.array([counts[1::2].sum() for counts in masks.counts()], np.uint32)
    return areas[0] if masks.single else areas


def _boxes(masks: _Masks) -> Array:
    """Return int64 x, y, w, h."""
    boxes = np.zeros((len(masks), 4), np.int64)
    for i, counts in enumerate(masks.counts()):
        h = masks.sizes[i, 0]
        lengths = counts[1::2]
        stops = np.cumsum(counts)[1::2][lengths > 0]
        if len(stops) == 0:
            continue
        left, top = divmod(stops - lengths[lengths > 0], h)
        right, bottom = divmod(stops - 1, h)
        if (left < right).any():
            top, bottom = np.zeros(1, np.int64), h - 1
        y, x = top.min(), left.min()
        boxes[i] = x, y, right.max() + 1 - x, np.max(bottom) + 1 - y
    return boxes


def coco_boxes(rles: Any) -> Any:
    masks = _read(rles)
    if masks is None:
        return None
    boxes = _boxes(masks).astype(np.float64)
    return boxes[0] if masks.single else boxes


@jit
def _merge_two(a, b, pixels, both, out):
    """Merge two lists of toggles, each ended by ``pixels``; return how many there are then."""
    i = j = k = 0
    in_result = False
    while True:
        at = min(a[i], b[j])
        if at == pixels:
            out[k] = pixels
            return k + 1
        toggles_a, toggles_b = a[i] == at, b[j] == at
        i += toggles_a
        j += toggles_b
        in_a, in_b = i % 2 == 1, j % 2 == 1
        inside = in_a and in_b if both else in_a or in_b
        if inside != in_result:
            out[k] = at
            k += 1
        in_result = inside


def _toggles(counts: Array, pixels: int) -> Array:
    ends = np.cumsum(counts)
    return np.append(ends[ends < pixels], pixels)


def _merge(a: Array, b: Array, pixels: int, both: bool) -> Array:
    out = np.empty(len(a) + len(b), np.int64)
    return out[: _merge_two(a, b, pixels, both, out)]


def coco_merge(rles: Any, intersect: Any, text: bool) -> dict[str, Any] | None:
    masks = _read(rles)
    if type(intersect) not in (bool, int):
        return None
    if masks is None or masks.single or len(masks) == 0 or not masks.uniform:
        return None
    h, w = masks.sizes[0].tolist()
    counts = masks.counts()
    if len(masks) == 1:
        return _make_rle(h, w, counts[0], text)
    if all((each[1:] > 0).all() for each in counts):
        return _combine(masks, bool(intersect), text)
    # As in merge.cpp: with runs of length zero the order matters.
    merged, *others = (_toggles(each, h * w) for each in counts)
    for each in others:
        merged = _merge(merged, each, h * w, bool(intersect))
    return _make_rle(h, w, np.diff(merged, prepend=0), text)


def _combine(masks: _Masks, intersect: bool, text: bool) -> dict[str, Any]:
    kind = algebra_sets.INTERSECTION if intersect else algebra_sets.UNION
    members, ends = np.arange(len(masks)), np.array([0, len(masks)])
    block = algebra_sets.combine(
        *masks.address(), *masks.address(), kind, members.ctypes.data, len(members),
        ends.ctypes.data, 1, 0, 0, 1,
    )  # fmt: skip
    assert not isinstance(block, int)  # all masks are of one size
    header = read_header(block, 1)
    assert header is not None
    string = block[header[2] : header[3]].tobytes()
    return {"size": masks.sizes[0].tolist(), "counts": string.decode() if text else string}


def coco_iou(rles: Any, others: Any, iscrowd: Any) -> Any:
    a, b = _read(rles), _read(others)
    if a is None or b is None or a.single or b.single:
        return None
    crowd = np.asarray(iscrowd)
    if crowd.shape != (len(b),) or crowd.dtype.kind not in "bui":
        return None
    if len(crowd) and not 0 <= crowd.min() <= crowd.max() <= 255:
        return None
    if len(a) == 0 or len(b) == 0:
        return []
    area_a, area_b = (
        np.array([counts[1::2].sum() for counts in masks.counts()]) for masks in (a, b)
    )
    uniform = a.uniform and b.uniform and (a.sizes[0] == b.sizes[0]).all()
    shared = np.zeros((len(b), len(a)), np.int64)
    if uniform:
        sizes = NOT_GROUPED, len(b), len(a), 0, INTERSECTION
        pairwise(*b.address(), *a.address(), *sizes, shared.ctypes.data, 1)
    else:
        _walk_pairs(a, b, shared)
    union = np.where(crowd[:, None] != 0, area_a, area_a + area_b[:, None] - shared)
    # -1 stands for masks of different sizes whose boxes meet.
    ious = np.minimum(shared, 0).astype(np.float64)
    np.divide(shared, union, out=ious, where=shared > 0)
    return ious.T


def _walk_pairs(a: _Masks, b: _Masks, shared: Array) -> None:
    boxes = _boxes(a)
    begin, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    counts_a, counts_b = a.counts(), b.counts()
    for j, box in enumerate(_boxes(b)):
        meet = np.minimum(end, box[:2] + box[2:]) > np.maximum(begin, box[:2])
        for i in np.flatnonzero(meet.all(axis=1)):
            if (a.sizes[i] != b.sizes[j]).any():
                shared[j, i] = -1
                continue
            pixels = int(a.sizes[i].prod())
            of_a, of_b = _toggles(counts_a[i], pixels), _toggles(counts_b[j], pixels)
            shared[j, i] = np.diff(_merge(of_a, of_b, pixels, True))[::2].sum()


def coco_box_iou(boxes: Array, others: Array, iscrowd: Array) -> Array:
    x, y, w, h = boxes.T
    x2, y2, w2, h2 = others.T[:, :, None]
    with np.errstate(all="ignore"):
        width = np.fmin(w + x, w2 + x2) - np.fmax(x, x2)
        height = np.fmin(h + y, h2 + y2) - np.fmax(y, y2)
        area, shared = w * h, width * height
        union = np.where(iscrowd[:, None] != 0, area, area + w2 * h2 - shared)
        ious = np.where((width <= 0) | (height <= 0), 0, shared / union)
    transposed: Array = ious.T
    return transposed


def coco_suppress(rles: Any, order: Array, threshold: float) -> Array | None:
    masks = _read(rles)
    if masks is None or masks.single or not masks.uniform:
        return None
    keep = np.empty(len(masks), np.bool_)
    by_score, no_labels = order.ctypes.data, 0
    suppress(
        *masks.address(), NOT_GROUPED, by_score, no_labels, IOU, threshold, keep.ctypes.data, 1
    )
    return keep


@jit
def _cross_columns(points, h, w, toggles):
    """Write the toggles of a closed polygon; return how many. None are written to no array."""
    n = 0
    for i in range(len(points)):
        before = len(points) - 1 if i == 0 else i - 1
        x, y = points[before, 0], points[before, 1]
        x2, y2 = points[i, 0], points[i, 1]
        dx, dy = abs(x2 - x), abs(y2 - y)
        if (dx >= dy and x > x2) or (dx < dy and y > y2):
            x, y, x2, y2 = x2, y2, x, y
        left, right = min(x, x2), max(x, x2)
        first = max((left + 2) // 5, 0)
        last = min((right - 3) // 5, w - 1)
        if len(toggles) == 0:
            n += max(last - first + 1, 0)
            continue
        for column in range(first, last + 1):
            middle = 5 * column + 2
            if dx >= dy:
                slope = (y2 - y) / dx
                sample = np.int64(y + slope * (middle - x + (slope < 0)) + 0.5)
            else:
                slope = (x2 - x) / dy
                step = min(max(np.int64((middle - x + 0.5) / slope), 1), dy)
                while step < dy and (np.int64(x + slope * step + 0.5) > middle) != (slope > 0):
                    step += 1
                while step > 1 and (np.int64(x + slope * (step - 1) + 0.5) > middle) == (slope > 0):
                    step -= 1
                sample = y + step - 1
            row = min((sample + 2) // 5, h) if sample > 2 else 0
            toggles[n] = column * h + row
            n += 1
    return n


def _read_polygons(polygons: Any) -> list[Array] | None:
    """Return the corners of polygons, or of boxes (N, 4), as float64 (K, 2)."""
    if isinstance(polygons, np.ndarray):
        if polygons.ndim != 2 or polygons.shape[1] != 4 or polygons.dtype != np.float64:
            return None
        x, y, w, h = polygons.T
        corners = np.stack([x, y, x, y + h, x + w, y + h, x + w, y], axis=1)
        return list(corners.reshape(-1, 4, 2))
    if type(polygons) is not list:
        return None
    outlines = []
    for polygon in polygons:
        if type(polygon) not in (list, tuple) or len(polygon) < 2:
            return None
        if not all(type(number) in (int, float) for number in polygon):
            return None
        try:
            numbers = np.array(polygon[: len(polygon) // 2 * 2], np.float64)
        except OverflowError:
            return None
        outlines.append(numbers.reshape(-1, 2))
    return outlines


def coco_draw(polygons: Any, h: int, w: int, text: bool) -> Any:
    outlines = _read_polygons(polygons)
    if outlines is None or min(h, w) < 0 or max(h, w, h * w) > MAX_PIXELS:
        return None
    rles = []
    for outline in outlines:
        with np.errstate(all="ignore"):
            scaled = 5 * outline + 0.5
        if not (np.abs(scaled) <= _MOST_ON_GRID).all():
            return None
        points = scaled.astype(np.int64)
        toggles = np.empty(_cross_columns(points, h, w, np.empty(0, np.int64)), np.int64)
        if len(toggles) > 0:
            _cross_columns(points, h, w, toggles)
        positions, times = np.unique(toggles, return_counts=True)
        ends = np.append(positions[(times % 2 == 1) & (positions < h * w)], h * w)
        rles.append(_make_rle(h, w, np.diff(ends, prepend=0), text))
    return rles


def coco_compress(rle: Any, text: bool) -> None:
    """Leave run lengths of any form to Python."""
