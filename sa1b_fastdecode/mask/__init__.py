"""The functions of ``pycocotools.mask``, name for name and result for result, and ``nms``.

Equal bit by bit to pycocotools 2.0.11 wherever that gives a meaningful answer; docs/pycocotools.md
lists each difference. Needs NumPy and the kernels, neither torch nor, where they are compiled,
Numba.

An RLE is a dict with ``size`` ``(h, w)`` and ``counts``, the compressed string as ``bytes``. What
is read may as well have its counts as ``str``, as any other bytes-like object or as run lengths;
where a list of RLEs is expected, any iterable of them will do.

>>> import numpy as np
>>> from sa1b_fastdecode import mask
>>> rle = mask.encode(np.array([[0, 1, 0], [1, 0, 0]], np.uint8))
>>> rle
{'size': [2, 3], 'counts': b'123'}
>>> mask.decode(rle)
array([[0, 1, 0],
       [1, 0, 0]], dtype=uint8)
>>> int(mask.area(rle)), mask.toBbox(rle).tolist()
(2, [0.0, 0.0, 2.0, 2.0])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sa1b_fastdecode.dispatch import kernels
from sa1b_fastdecode.mask import any_form
from sa1b_fastdecode.mask.drop_in import install, uninstall

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "area",
    "decode",
    "encode",
    "frPyObjects",
    "install",
    "iou",
    "merge",
    "nms",
    "toBbox",
    "uninstall",
]

# Every function asks the kernels first, which answer None for whatever is not of the plain form
# that nearly all RLEs have. Only then is it brought into that form, or found to be wrong.


def encode(bimask: Any, *, counts: str = "bytes") -> Any:
    """Encode binary masks.

    Args:
        bimask: one mask ``(h, w)`` or several ``(h, w, N)``, bool, integers or floats in any memory
            order. What is not zero is foreground.
        counts: "bytes" or "str", the type of the counts.

    Returns:
        The canonical RLE of one mask, a list of those of several.

    Raises:
        TypeError: elements of another kind.
        ValueError: another number of dimensions, or 2**32 or more pixels.
    """
    text = counts != "bytes" and any_form.is_text(counts)
    rles = kernels("cpu").coco_encode(bimask, text)
    return any_form.encode(bimask, text) if rles is None else rles


def decode(rleObjs: Any) -> Any:
    """Decode one RLE to ``uint8 (h, w)``, several to ``(h, w, N)``, in column-major order.

    Raises:
        ValueError: an RLE that is no mask of its size, or masks of different sizes.
        TypeError: something of a wrong kind in place of an RLE.
    """
    masks = kernels("cpu").coco_decode(rleObjs)
    return any_form.call("coco_decode", rleObjs) if masks is None else masks


def area(rleObjs: Any) -> Any:
    """Return the pixels of one RLE as a ``numpy.uint32``, of several as ``uint32 (N,)``.

    Raises:
        As ``decode``, which masks of different sizes are no reason for.
    """
    areas = kernels("cpu").coco_area(rleObjs)
    return any_form.call("coco_area", rleObjs) if areas is None else areas


def toBbox(rleObjs: Any) -> Any:
    """Return x, y, w, h in full pixels, ``float64 (4,)`` of one RLE, ``(N, 4)`` of several.

    The box of an empty mask is all zeros.

    Raises:
        As ``area``.
    """
    boxes = kernels("cpu").coco_boxes(rleObjs)
    return any_form.call("coco_boxes", rleObjs) if boxes is None else boxes


def merge(rleObjs: Any, intersect: Any = 0, *, counts: str = "bytes") -> dict[str, Any]:
    """Return the RLE of the union, or with ``intersect`` the intersection, of several RLEs.

    Args:
        rleObjs: the RLEs, all of one size; of none the result has size ``[0, 0]``.
        intersect: whether to intersect.
        counts: "bytes" or "str", the type of the counts.

    Raises:
        As ``decode``.

    Example:
        >>> from sa1b_fastdecode import mask
        >>> a, b = {"size": [1, 4], "counts": b"022"}, {"size": [1, 4], "counts": b"121"}
        >>> mask.merge([a, b]), mask.merge([a, b], intersect=True)
        ({'size': [1, 4], 'counts': b'031'}, {'size': [1, 4], 'counts': b'112'})
    """
    text = counts != "bytes" and any_form.is_text(counts)
    rle = kernels("cpu").coco_merge(rleObjs, intersect, text)
    if rle is not None:
        return rle  # type: ignore[no-any-return]
    rles = any_form.as_list(rleObjs)
    if not rles:
        return {"size": [0, 0], "counts": "" if text else b""}
    return any_form.call("coco_merge", rles, int(intersect), text)  # type: ignore[no-any-return]


def iou(dt: Any, gt: Any, pyiscrowd: Any) -> Any:
    """Return intersection over union of each detection and each ground truth.

    Args:
        dt: RLEs, or boxes (x, y, w, h) as a list of them or as an array ``(M, 4)``.
        gt: the same kind, N of them.
        pyiscrowd: for each of ``gt`` whether it is a crowd: the union is then the area of ``dt``.

    Returns:
        ``float64 (M, N)`` in column-major order; an empty list if there are no detections or no
        ground truths. Of two masks of different sizes: -1 if their boxes meet, else 0.

    Raises:
        AssertionError: another number of ``pyiscrowd`` than of ``gt``.
        TypeError: masks against boxes, or neither of them.
        ValueError: an RLE that is no mask of its size, or boxes without four numbers each.
    """
    ious = kernels("cpu").coco_iou(dt, gt, pyiscrowd)
    return any_form.iou(dt, gt, pyiscrowd) if ious is None else ious


def frPyObjects(pyobj: Any, h: Any, w: Any, *, counts: str = "bytes") -> Any:
    """Return the RLEs of polygons, boxes or uncompressed RLEs, of which there may be a list.

    Args:
        pyobj: a polygon ``[x, y, x, y, ...]`` of more than two points, a box ``[x, y, w, h]`` or an
            RLE with run lengths as counts; or several of one kind, boxes as an array, too.
        h: height of the masks; an RLE keeps its own.
        w: their width.
        counts: "bytes" or "str", the type of the counts.

    Returns:
        One RLE for a single object, else a list.

    Raises:
        IndexError: an empty list, as with pycocotools.
        TypeError: objects of another kind, or of several kinds.
        ValueError: coordinates that are not finite or too large, run lengths that do not add up.

    Example:
        >>> from sa1b_fastdecode import mask
        >>> mask.frPyObjects([[0, 0, 2, 0, 2, 2, 0, 2]], 3, 3)
        [{'size': [3, 3], 'counts': b'02103'}]
    """
    text = counts != "bytes" and any_form.is_text(counts)
    kind = type(pyobj)
    if kind is dict:
        rle = kernels("cpu").coco_compress(pyobj, text)
        if rle is not None:
            return rle
    elif type(h) is int and type(w) is int and 0 <= h < 2**32 and 0 <= w < 2**32:
        is_polygons = kind is list and pyobj and type(pyobj[0]) is list and len(pyobj[0]) > 4
        if is_polygons or kind is np.ndarray:
            rles = kernels("cpu").coco_draw(pyobj, h, w, text)
            if rles is not None:
                return rles
    return any_form.convert(pyobj, h, w, text)


def nms(objects: Any, scores: Any, threshold: float = 0.5) -> NDArray[np.int64]:
    """Suppress all that overlap with something better: greedy non-maximum suppression.

    Args:
        objects: RLEs of one size, or boxes as in ``iou``.
        scores: a number for each; of equal ones the first is better.
        threshold: the intersection over union above which the worse one is suppressed.

    Returns:
        ``int64 (K,)``, the indices of what is kept, by decreasing score.

    Raises:
        ValueError: malformed RLEs, another number of scores, a threshold outside [0, 1].
        TypeError: neither RLEs nor boxes.

    Example:
        >>> from sa1b_fastdecode import mask
        >>> mask.nms([[0, 0, 4, 4], [0, 0, 4, 3], [9, 0, 4, 4]], [0.5, 0.9, 0.1])
        array([1, 2])
    """
    objects = any_form.read_objects(objects)
    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(objects),):
        raise ValueError(f"scores must have shape ({len(objects)},), not {scores.shape}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], not {threshold}")
    order = np.argsort(-scores, kind="stable")
    if len(objects) == 0:
        return order
    if isinstance(objects, np.ndarray):
        return _nms_of_boxes(objects, order, threshold)
    keep: NDArray[np.bool_] = any_form.call("coco_suppress", objects, order, float(threshold))
    return order[keep[order]]


def _nms_of_boxes(
    boxes: NDArray[np.float64], order: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    no_crowd = np.zeros(1, np.uint8)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        ious = kernels("cpu").coco_box_iou(boxes[order], boxes[[best]], no_crowd)[:, 0]
        order = order[~(ious > threshold)]
    return np.array(kept, np.int64)
