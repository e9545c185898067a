"""Masks drawn over their image: one blended overlay, from runs, in a few planes of its size."""

from __future__ import annotations

import functools
import importlib
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sa1b_fastdecode.arguments import raise_mixed_sizes
from sa1b_fastdecode.ops import read_masks
from sa1b_fastdecode.rle_batch import RLEBatch

if TYPE_CHECKING:
    import supervision

__all__ = ["distinct_colors", "show_masks", "to_detections"]

UInt8Array = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]

_PALETTE = 256  # colours, before they start again
_BAND = 1 << 17  # pixels that are blended at a time: their buffers stay in the cache


def show_masks(
    image: Any,
    masks: Any,
    *,
    alpha: float = 0.5,
    contours: bool = True,
    ids: bool = False,
    colors: Any = None,
    ax: Any = None,
    path: str | PathLike[str] | None = None,
) -> UInt8Array:
    """Blend masks over their image, each in a colour of its own.

    Smaller masks lie on larger ones, so that parts stay visible on their objects. A pixel takes the
    colour of the mask on top alone; colours do not pile up where masks are nested.

    Args:
        image: uint8 or float in [0, 1]; ``(H, W, 3)``, ``(3, H, W)`` or ``(H, W)``; an array, a
            tensor or a PIL image. It is not changed.
        masks: N masks of ``(H, W)``: what :func:`pack_rles` takes, or dense masks.
        alpha: how much of a mask's colour is seen, from 0 to 1.
        contours: draw a light line inside the border of each mask.
        ids: write each mask's index where most of it is seen (needs Pillow).
        colors: ``(N, 3)`` RGB in 0..255; default: :func:`distinct_colors`.
        ax: matplotlib axes to show the result on.
        path: a file to write the result to, as PNG (needs Pillow).

    Returns:
        ``uint8 (H, W, 3)``, RGB.

    Raises:
        ValueError: masks or colours that do not fit the image or one another.
        TypeError: an image of a wrong kind.
        ImportError: Pillow is missing.
        OSError: ``path`` cannot be written.

    Note:
        Memory: about 20 bytes a pixel and the largest mask's box, however many masks there are.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> image = np.zeros((2, 3, 3), np.uint8)
        >>> masks = [{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])]
        >>> colors = [(255, 0, 0), (0, 255, 0)]
        >>> overlay = fd.visualize.show_masks(image, masks, contours=False, colors=colors)
        >>> overlay[..., 1]
        array([[  0,   0, 128],
               [  0, 128, 128]], dtype=uint8)
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, not {alpha}")
    pixels = _read_image(image)
    batch = _read_masks_of(pixels, masks)
    palette = _read_colors(colors, len(batch))

    order = batch.area().cpu().argsort(descending=True, stable=True).numpy()
    ranks = _rank_pixels(batch, order, pixels.shape[:2])
    overlay = _blend(pixels, ranks, palette[order], alpha, contours)
    if ids:
        overlay = _write_ids(overlay, ranks, order, batch)
    if path is not None:
        _pillow("Image").fromarray(overlay).save(path, "PNG")
    if ax is not None:
        ax.imshow(overlay)
        ax.set_axis_off()
    return overlay


def distinct_colors(n: int) -> UInt8Array:
    """Return n RGB colours (n, 3), vivid and as far from one another as they can be.

    Each is the one farthest from all before it in OKLab, where distances are as we see them. So the
    first colours are always the same, and the first are the best to tell apart. After 256 they
    start again.

    >>> distinct_colors(3)
    array([[255,   0, 255],
           [  0, 255,   0],
           [119, 102,   0]], dtype=uint8)
    """
    return _palette()[np.arange(n) % _PALETTE]


@functools.cache
def _palette() -> UInt8Array:
    levels = np.linspace(0, 255, 16)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_oklab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    vivid = (lab[:, 0] > 0.5) & (chroma > 0.1)  # neither dark nor grey, as photos are
    rgb, lab, chroma = rgb[vivid], lab[vivid], chroma[vivid]
    distance = chroma  # the first is the most vivid
    chosen = []
    for _ in range(_PALETTE):
        chosen.append(int(distance.argmax()))
        to_last = np.linalg.norm(lab - lab[chosen[-1]], axis=1)
        distance = to_last if len(chosen) == 1 else np.minimum(distance, to_last)
    palette: UInt8Array = rgb[chosen].round().astype(np.uint8)
    return palette


def _to_oklab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert sRGB (N, 3) in 0..255 to OKLab, with the constants of its definition."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: npt.NDArray[np.float64] = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab


def _read_image(image: Any) -> UInt8Array:
    """Return uint8 (H, W, 3), which may share memory with ``image``."""
    if hasattr(image, "convert"):  # a PIL image of any mode
        image = image.convert("RGB")
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = np.broadcast_to(array[..., None], (*array.shape, 3))
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3), (3, H, W) or (H, W), not {array.shape}")
    if array.dtype.kind == "f":
        array = (255 * array.clip(0, 1)).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"image must hold uint8, or float in [0, 1], not {array.dtype}")
    return array


def _read_masks_of(image: UInt8Array, masks: Any) -> RLEBatch:
    batch = read_masks(masks)
    if batch.num_images not in (None, 1):
        raise ValueError(f"masks must be those of one image, not of {batch.num_images}")
    size = list(image.shape[:2])
    for i, mask_size in enumerate(batch.sizes.tolist()):
        if mask_size != size:
            raise ValueError(
                f"mask {i} is {mask_size[0]}x{mask_size[1]}, the image {size[0]}x{size[1]}"
            )
    return batch


def _read_colors(colors: Any, num_masks: int) -> UInt8Array:
    if colors is None:
        return distinct_colors(num_masks)
    table = np.asarray(colors)
    if table.shape != (num_masks, 3):
        raise ValueError(f"colors must have shape ({num_masks}, 3), not {table.shape}")
    if table.size and (table.min() < 0 or table.max() > 255):
        raise ValueError("colors must be RGB in 0..255")
    return table.astype(np.uint8)


def _rank_pixels(batch: RLEBatch, order: Any, size: tuple[int, ...]) -> Int32Array:
    """Return (H, W): 0 outside of all masks, else 1 + the place in ``order`` of the mask on top."""
    ranks = np.zeros(size, np.int32)
    boxes = batch.bbox().long().tolist()
    for rank, index in enumerate(order.tolist(), start=1):
        x, y, w, h = boxes[index]
        if w > 0:
            # One after another in one buffer of pixels, so starting threads would cost more.
            crop = (y, x, h, w)
            inside = batch.decode(dtype=torch.bool, select=[index], crop=crop, num_threads=1)[0]
            np.copyto(ranks[y : y + h, x : x + w], rank, where=inside.cpu().numpy())
    return ranks


def _blend(
    image: UInt8Array, ranks: Int32Array, colors: UInt8Array, alpha: float, contours: bool
) -> UInt8Array:
    """Return the overlay; ``colors`` are in the order of ranks."""
    # What a pixel becomes follows from its code: (pixel * weight + color) / 256, in 16 bits. Codes
    # are 2 * rank for the inside of a mask, and 1 more for its contour.
    share = round(256 * alpha)
    weight = np.full(2 * len(colors) + 2, 256 - share, np.uint16)
    color = np.full((2 * len(colors) + 2, 3), 128, np.uint16)  # rounds to the nearest
    weight[:2] = 256
    color[2::2] += share * colors.astype(np.uint16)
    weight[3::2] = 0
    color[3::2] += 115 * colors.astype(np.uint16) + 141 * 255  # more than half is white

    codes = 2 * ranks
    if contours:
        codes += _find_contours(ranks)
    height, width = ranks.shape
    overlay = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // max(width, 1))
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        mixed = image[band] * np.take(weight, codes[band])[..., None]
        mixed += np.take(color, codes[band], axis=0)
        overlay[band] = mixed >> 8
    return overlay


def _find_contours(ranks: Int32Array) -> npt.NDArray[np.bool_]:
    """Return (H, W): the pixels of a mask near what lies beneath it, by the width of a line."""
    lowest = ranks
    for _ in range(max(1, round(min(ranks.shape) / 750))):
        around = lowest.copy()
        np.minimum(around[1:], lowest[:-1], out=around[1:])
        np.minimum(around[:-1], lowest[1:], out=around[:-1])
        np.minimum(around[:, 1:], lowest[:, :-1], out=around[:, 1:])
        np.minimum(around[:, :-1], lowest[:, 1:], out=around[:, :-1])
        lowest = around
    return lowest < ranks


def _write_ids(overlay: UInt8Array, ranks: Int32Array, order: Any, batch: RLEBatch) -> UInt8Array:
    """Write each mask's index on that visible pixel of it that is nearest to their middle."""
    canvas = _pillow("Image").fromarray(overlay)
    draw = _pillow("ImageDraw").Draw(canvas)
    font_of = functools.cache(_pillow("ImageFont").load_default)
    largest = max(12, min(ranks.shape) // 60)
    boxes = batch.bbox().long().tolist()
    for rank, index in enumerate(order.tolist(), start=1):
        x, y, w, h = boxes[index]
        rows, columns = np.nonzero(ranks[y : y + h, x : x + w] == rank)
        if len(rows) == 0:  # empty, or hidden by others
            continue
        distance = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
        at = int(distance.argmin())
        place = (x + int(columns[at]), y + int(rows[at]))
        size = int(np.clip(len(rows) ** 0.5 / 2, largest // 2, largest))
        rim = max(1, size // 12)
        draw.text(
            place, str(index), "white", font_of(size), "mm", stroke_width=rim, stroke_fill="black"
        )
    return np.asarray(canvas)


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise ImportError("ids and files need Pillow: pip install pillow") from error


def to_detections(
    masks: Any, *, confidence: Any = None, class_id: Any = None, compact: bool = False
) -> supervision.Detections:
    """Return masks as ``supervision.Detections``, for its annotators and trackers.

    Args:
        masks: N masks of one size: what :func:`pack_rles` takes, or dense masks.
        confidence: ``(N,)``, such as SA-1B's ``predicted_iou``; default: none.
        class_id: ``(N,)`` integers; default: none.
        compact: keep the masks as ``supervision.CompactMask``, run-length encoded in their boxes;
            default: dense, bool ``(N, H, W)``.

    Returns:
        supervision.Detections: boxes as supervision makes them of masks, ``(x1, y1, x2, y2)`` of
        the first and the last pixels; the masks; ``data["area"]`` int64 ``(N,)`` in pixels.

    Raises:
        ValueError, TypeError: malformed masks, or masks of different sizes.
        ImportError: supervision is missing.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_detections needs supervision: pip install supervision") from error
    batch = read_masks(masks).cpu().flat()
    boxes, area = batch.bbox().numpy(), batch.area().numpy()
    xyxy = boxes.copy()
    xyxy[:, 2:] += boxes[:, :2] - (area > 0)[:, None]
    shown: Any
    if compact:
        if not batch.uniform:
            raise_mixed_sizes(batch.sizes)
        size = (batch.height, batch.width)
        rles: Any = batch.to_coco("bytes")
        shown = supervision.CompactMask.from_coco_rle(rles, xyxy, size)
    else:
        shown = batch.decode(dtype=torch.bool).numpy()
    return supervision.Detections(
        xyxy=xyxy,
        mask=shown,
        confidence=None if confidence is None else np.asarray(confidence, np.float32),
        class_id=None if class_id is None else np.asarray(class_id, np.int64),
        data={"area": area},
    )
