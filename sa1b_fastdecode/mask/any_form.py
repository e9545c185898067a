"""RLEs, boxes and polygons of any form: brought into the plain one, or said what is wrong in them.

Plain are exact dicts with a size of two ``int`` and counts of ``bytes`` or ``str``, and lists of
those; polygons are lists of ``float``.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from sa1b_fastdecode.dispatch import kernels
from sa1b_fastdecode.reading import compress_counts, find_fault, read_rle
from sa1b_fastdecode.status import MAX_PIXELS

_MOST_ON_GRID = 2**31 - 1  # polygons are drawn on a grid five times as fine as the pixels


def is_text(counts: str) -> bool:
    """Whether counts are asked for as ``str``."""
    if counts not in ("bytes", "str"):
        raise ValueError(f'counts must be "bytes" or "str", not {counts!r}')
    return counts == "str"


def as_list(rles: Any) -> list[Any]:
    """Return the items of any iterable that can hold RLEs or boxes."""
    if isinstance(rles, Mapping | str | bytes | bytearray | memoryview):
        raise TypeError(f"expected a sequence of RLEs, not {type(rles).__name__}")
    try:
        return list(rles)
    except TypeError:
        raise TypeError(f"expected a sequence of RLEs, not {type(rles).__name__}") from None


def _with_integers(rle: Any) -> Any:
    """Return an RLE without floats that are integers, such as JSON may hold."""
    if not isinstance(rle, Mapping):
        return rle
    lists = {key: rle[key] for key in ("size", "counts") if isinstance(rle.get(key), list | tuple)}
    return {**rle, **{key: [_without_fraction(number) for number in lists[key]] for key in lists}}


def _without_fraction(number: Any) -> Any:
    """Return a float that is an integer as an int, anything else as it is."""
    is_integer = isinstance(number, float | np.floating) and number.is_integer()
    return int(number) if is_integer else number


def _plain(rles: list[Any]) -> list[dict[str, Any]]:
    """Return RLEs of any form as plain dicts with bytes, whatever these hold."""
    sizes, strings = [], []
    for i, rle in enumerate(rles):
        try:
            size, counts = read_rle(_with_integers(rle))
        except (TypeError, ValueError) as error:
            raise type(error)(f"mask {i}: {error}") from None
        sizes.append(list(size))
        strings.append(counts)
    return [
        {"size": size, "counts": counts.encode() if isinstance(counts, str) else bytes(counts)}
        for size, counts in zip(sizes, compress_counts(strings), strict=True)
    ]


def call(name: str, rles: Any, *arguments: Any) -> Any:
    """Call a kernel with the plain form of one or several RLEs, or say what is wrong in them."""
    kernel = getattr(kernels("cpu"), name)
    single = isinstance(rles, Mapping)
    plain = _plain([rles] if single else as_list(rles))
    result = kernel(plain[0] if single else plain, *arguments)
    if result is None:
        _raise_fault(plain)
    return result


def _raise_fault(plain: list[dict[str, Any]]) -> NoReturn:
    for i, rle in enumerate(plain):
        if kernels("cpu").coco_area(rle) is None:
            raise ValueError(f"mask {i}: {find_fault(rle['counts'], *rle['size'])}")
    h, w = plain[0]["size"]
    i, other = next((i, rle["size"]) for i, rle in enumerate(plain) if rle["size"] != [h, w])
    raise ValueError(f"masks differ in size: mask 0 is {h}x{w}, mask {i} is {other[0]}x{other[1]}")


def encode(masks: Any, text: bool) -> Any:
    """Encode what is no array, or one of an unusual dtype."""
    array = np.asarray(masks)
    if array.dtype.kind not in "buif":
        raise TypeError(f"masks must be bool, integers or floats, not {array.dtype}")
    if array.ndim not in (2, 3):
        raise ValueError(f"masks must have shape (h, w) or (h, w, N), not {array.shape}")
    h, w = array.shape[:2]
    if h * w > MAX_PIXELS:
        _raise_too_large(h, w)
    return kernels("cpu").coco_encode(array != 0, text)


def read_objects(objects: Any) -> Any:
    """Return float64 boxes (N, 4), plain RLEs, or an empty list."""
    if not isinstance(objects, np.ndarray) or objects.dtype == object:
        items = as_list(objects)
        masks = [isinstance(item, Mapping) for item in items]
        if all(masks):
            return _plain(items)
        if any(masks):
            raise TypeError("masks and boxes are mixed in one list")
        try:
            objects = np.array(items, np.float64)
        except (TypeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind("expected RLEs, or boxes of four numbers each") from None
    if len(objects) == 0:
        return []
    if objects.dtype.kind not in "buif":
        raise TypeError(f"boxes must be numbers, not {objects.dtype}")
    if objects.ndim != 2 or objects.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), not {objects.shape}")
    return np.ascontiguousarray(objects, np.float64)


def iou(dt: Any, gt: Any, pyiscrowd: Any) -> Any:
    """Compute the IoU of boxes, or of RLEs of other forms than the plain one."""
    if not hasattr(pyiscrowd, "__len__"):
        pyiscrowd = list(pyiscrowd)
    iscrowd = np.array(pyiscrowd, np.uint8)
    if iscrowd.ndim != 1:
        raise ValueError(f"iscrowd must have one dimension, not {iscrowd.ndim}")
    dt, gt = read_objects(dt), read_objects(gt)
    if len(iscrowd) != len(gt):
        raise AssertionError("iou(iscrowd=) must have the same length as gt")
    if len(dt) == 0 or len(gt) == 0:
        return []
    if type(dt) is not type(gt):
        raise TypeError("dt and gt must both be RLEs, or both boxes")
    if isinstance(dt, np.ndarray):
        return kernels("cpu").coco_box_iou(dt, gt, iscrowd)
    ious = kernels("cpu").coco_iou(dt, gt, iscrowd)
    if ious is None:
        for name, rles in (("dt", dt), ("gt", gt)):
            if kernels("cpu").coco_area(rles) is None:
                try:
                    _raise_fault(rles)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
    return ious


def _read_side(side: Any) -> int:
    """Return the height or width of a mask."""
    if type(side) is not int:
        try:
            side = operator.index(_without_fraction(side))
        except TypeError:
            raise TypeError(f"h and w must be integers, not {side!r}") from None
    if not 0 <= side <= MAX_PIXELS:
        raise ValueError(f"h and w must be in [0, 2**32), not {side}")
    return side  # type: ignore[no-any-return]


def convert(objects: Any, h: Any, w: Any, text: bool) -> Any:
    """Return the RLEs of polygons, boxes or RLEs, or of a single one."""
    h, w = _read_side(h), _read_side(w)
    if isinstance(objects, Mapping):
        return _recode([objects], text)[0]
    is_table = isinstance(objects, np.ndarray) and objects.ndim == 2
    items = read_objects(objects).tolist() if is_table and len(objects) else as_list(objects)
    if not items:
        if is_table:
            return []
        raise IndexError("there are no objects to convert")
    if isinstance(items[0], Mapping):
        return _recode(items, text)
    single = isinstance(items[0], numbers.Real)
    if single:
        items = [items]
    try:
        length = len(items[0])
    except TypeError:
        raise TypeError(f"object 0: expected numbers, not {type(items[0]).__name__}") from None
    if length < 4:
        raise ValueError(f"object 0 has {length} numbers, a box has 4 and a polygon more")
    polygons = [_read_polygon(item, length == 4, i) for i, item in enumerate(items)]
    rles = kernels("cpu").coco_draw(polygons, h, w, text)
    if rles is None:
        _raise_undrawable(polygons, h, w)
    return rles[0] if single else rles


def _read_polygon(item: Any, is_box: bool, i: int) -> list[float]:
    """Return the corners of a polygon or a box (x, y, w, h)."""
    try:
        corners = np.asarray(item, np.float64)
    except OverflowError as error:
        raise ValueError(f"object {i}: {error}") from None
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"object {i}: expected numbers, not {item!r:.100}") from None
    if corners.ndim != 1:
        raise ValueError(f"object {i} must be a flat list of numbers, not {corners.shape}")
    if is_box:
        if len(corners) != 4:
            raise ValueError(f"object {i} has {len(corners)} numbers, the boxes before it have 4")
        left, top, width, height = corners.tolist()
        right, bottom = left + width, top + height
        return [left, top, left, bottom, right, bottom, right, top]
    if len(corners) < 2:
        raise ValueError(f"object {i} has {len(corners)} numbers, a point has 2")
    return corners.tolist()  # type: ignore[no-any-return]


def _raise_undrawable(polygons: list[list[float]], h: int, w: int) -> NoReturn:
    for i, polygon in enumerate(polygons):
        for number in polygon:
            if not abs(5 * number + 0.5) <= _MOST_ON_GRID:
                raise ValueError(f"object {i}: coordinate {number} is not finite or too large")
    _raise_too_large(h, w)


def _raise_too_large(h: int, w: int) -> NoReturn:
    """Say that no mask has this size."""
    raise ValueError(f"size {h}x{w} is too large: a mask has fewer than 2**32 pixels")


def _recode(rles: list[Any], text: bool) -> list[dict[str, Any]]:
    """Return RLEs with the same counts, compressed."""
    compress = kernels("cpu").coco_compress
    recoded = [compress(rle, text) for rle in rles]
    if None in recoded:
        plain = _plain(rles)
        recoded = [kernels("cpu").coco_merge([rle], False, text) for rle in plain]
        if None in recoded:
            _raise_fault(plain)
    return recoded
