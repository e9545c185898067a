"""An annotation file as packed masks and columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sa1b_fastdecode.pack import pack_rles
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = ["Annotations", "parse_annotations", "read_json"]

Array: TypeAlias = npt.NDArray[Any]

# Key in the file, key in a sample, dtype, shape of one value.
_COLUMNS: tuple[tuple[str, str, type[np.generic], tuple[int, ...]], ...] = (
    ("bbox", "bboxes", np.float32, (4,)),
    ("area", "areas", np.int64, ()),
    ("predicted_iou", "predicted_ious", np.float32, ()),
    ("stability_score", "stability_scores", np.float32, ()),
)
COLUMNS = tuple(name for _, name, _, _ in _COLUMNS)


def column_layout(num_masks: int) -> list[tuple[str, type[np.generic], tuple[int, ...]]]:
    """Return name, dtype and shape of each column of ``num_masks`` masks."""
    return [(name, dtype, (num_masks, *shape)) for _, name, dtype, shape in _COLUMNS]


@dataclass(frozen=True)
class Annotations:
    """The masks of one image, compressed, with what the file says about them.

    Attributes:
        height, width: of the image, in pixels.
        masks: N masks of that size.
        columns: arrays with one entry a mask. ``bboxes`` float32 ``(N, 4)``, as the file has them:
            (x, y, w-1, h-1). ``areas`` int64 ``(N,)``, ``predicted_ious`` and ``stability_scores``
            float32 ``(N,)``.
    """

    height: int
    width: int
    masks: RLEBatch
    columns: dict[str, Array]

    def take(self, indices: npt.NDArray[np.int64]) -> Annotations:
        """Return some masks and their columns; nothing is decoded."""
        columns = {name: column[indices] for name, column in self.columns.items()}
        return Annotations(self.height, self.width, self.masks[indices], columns)

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, without Python's own."""
        return self.masks.data.numel() + sum(column.nbytes for column in self.columns.values())


def _read_json_slowly(content: bytes) -> Any:
    """Do without orjson."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _choose_json() -> Callable[[bytes], Any]:
    try:
        import orjson
    except ImportError:
        return _read_json_slowly
    loads: Callable[[bytes], Any] = orjson.loads
    return loads


read_json = _choose_json()


def parse_annotations(content: bytes) -> Annotations:
    """Parse and check an annotation file of SA-1B.

    Raises:
        ValueError: it is none, or a mask in it is malformed; the message says which and why.

    Example:
        >>> import json
        >>> from sa1b_fastdecode.sample import generate_annotation
        >>> file = json.dumps(generate_annotation(0, height=48, width=64, num_masks=3)).encode()
        >>> annotations = parse_annotations(file)
        >>> len(annotations.masks), annotations.height, annotations.columns["areas"].shape
        (3, 48, (3,))
    """
    try:
        file = read_json(content)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    try:
        image, items = file["image"], file["annotations"]
        height, width = image["height"], image["width"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no annotation file of SA-1B: {_describe(error)}") from None
    for side in (height, width):
        if not isinstance(side, int) or not 0 < side < 2**32:
            raise ValueError(f"the image has the size {height!r} x {width!r}")
    if not isinstance(items, list):
        raise ValueError(f"its annotations are a {type(items).__name__}, not a list")
    try:
        masks = pack_rles(items)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if len(items) and not (masks.uniform and (masks.height, masks.width) == (height, width)):
        sizes = masks.sizes.tolist()
        i = next(i for i, size in enumerate(sizes) if size != [height, width])
        raise ValueError(f"mask {i} is {sizes[i][0]}x{sizes[i][1]}, the image {height}x{width}")
    columns = {name: _read_column(items, key, dtype, shape) for key, name, dtype, shape in _COLUMNS}
    return Annotations(height, width, masks, columns)


def _describe(error: KeyError | TypeError) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else "it is no object of objects"


def _read_column(
    items: list[Any], key: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> Array:
    try:
        column = np.array([item[key] for item in items], dtype)
        if column.shape == (len(items), *shape) or not items:
            return column.reshape(len(items), *shape)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    for i, item in enumerate(items):  # find which one it was
        if key not in item:
            raise ValueError(f"mask {i} has no {key!r}")
        try:
            wrong = np.array(item[key], dtype).shape != shape
        except (TypeError, ValueError, OverflowError):
            wrong = True
        if wrong:
            raise ValueError(f"mask {i} has the {key} {item[key]!r}")
    raise AssertionError("all of its values are right one by one")
