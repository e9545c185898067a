"""Seeded stand-ins for SA-1B: annotations, images, folders and tars in Meta's layout.

The dataset may not be redistributed, so demos, tests and benchmarks run on these. The masks follow
the statistics of real files: sizes, bytes of counts, runs a column, nesting of parts in objects.

How a mask is made: a star-shaped contour (``_Blob``: one radius an angle, then an affine map) is
placed in the image, and its crossings with the centre line of every pixel column are the run
boundaries. No plane of pixels exists at any point.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["generate_annotation", "generate_image", "write_folder", "write_tar"]

FloatArray = NDArray[np.float64]

# Area of a mask as a fraction of the image, at these quantiles. Between them: linear in the log.
_AREA_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.985, 1.0)
_AREA_FRACTIONS = (9e-5, 2.4e-4, 6.8e-4, 1.43e-3, 6.7e-3, 3.05e-2, 0.15, 0.22)
_PART_PROBABILITY = 0.5  # some parts find no room, so about half of all masks end up nested
_HOLES_PROBABILITY = 0.08
_NUM_CANDIDATES = 32  # places tried for a mask
_USUAL_NUM_MASKS = 100  # what the fractions above belong to
_USUAL_SIZES = ((1500, 2250), (2250, 1500), (1500, 2000))  # the shorter side is 1500, mostly


def generate_annotation(
    seed: int,
    *,
    height: int = 1500,
    width: int = 2250,
    num_masks: int = 100,
    image_id: int = 1,
) -> dict[str, Any]:
    """Make one SA-1B-like annotation, the content of a ``sa_<image_id>.json``.

    Args:
        seed: the same seed and arguments give the same annotation.
        height, width: image size in pixels.
        num_masks: how many masks; none of them is empty.
        image_id: the number in the file names.

    Returns:
        ``{"image": {...}, "annotations": [...]}`` with Meta's keys. ``bbox`` follows the files'
        convention, ``(x, y, w - 1, h - 1)``; ``area`` is the exact number of pixels.

    Raises:
        ValueError: a size below 1, or a negative number of masks.

    Example:
        >>> annotation = generate_annotation(0, height=120, width=160, num_masks=5)
        >>> len(annotation["annotations"]), annotation["image"]["file_name"]
        (5, 'sa_1.jpg')
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be positive, got {height} x {width}")
    if num_masks < 0:
        raise ValueError(f"num_masks must not be negative, got {num_masks}")
    rng = np.random.default_rng(seed)
    image = {
        "image_id": image_id,
        "width": width,
        "height": height,
        "file_name": f"sa_{image_id}.jpg",
    }
    blobs = _place_blobs(rng, height, width, num_masks)
    # Files list masks by the crop they were found in, not by size.
    blobs = [blobs[i] for i in rng.permutation(num_masks)]
    return {"image": image, "annotations": _annotate(rng, blobs, height, width, image_id)}


def _annotate(
    rng: np.random.Generator, blobs: Sequence[_Blob], height: int, width: int, image_id: int
) -> list[dict[str, Any]]:
    if not blobs:
        return []
    from . import pack_rles

    run_counts = _rasterize(blobs, height, width)
    batch = pack_rles([{"size": [height, width], "counts": c.tolist()} for c in run_counts])
    annotations = []
    for index, (rle, area, (x, y, w, h)) in enumerate(
        zip(batch.to_coco(counts="str"), batch.area().tolist(), batch.bbox().tolist(), strict=True)
    ):
        annotations.append(
            {
                "id": image_id * 10_000 + index,
                "segmentation": rle,
                "bbox": [x, y, w - 1, h - 1],
                "area": area,
                # The model's own estimate: it passes 1 now and then.
                "predicted_iou": float(0.88 + 0.14 * rng.beta(3.0, 2.0)),
                "stability_score": float(0.92 + 0.08 * rng.beta(3.0, 2.0)),
                "point_coords": [_prompt_point(run_counts[index], height)],
                "crop_box": _crop_box(rng, (x, y, w, h), height, width),
            }
        )
    return annotations


def _prompt_point(counts: NDArray[np.int64], height: int) -> list[float]:
    """Return (x, y) of the middle pixel of the mask's longest run: surely inside."""
    foreground = counts[1::2]
    longest = int(foreground.argmax())
    start = int(counts[: 2 * longest + 1].sum())
    x, y = divmod(start + int(foreground[longest]) // 2, height)
    return [float(x), float(y)]


def _crop_box(
    rng: np.random.Generator, box: tuple[float, float, float, float], height: int, width: int
) -> list[float]:
    """Return XYWH of one crop that holds ``box``: the image, or a tile of its 2x2 or 4x4 tiling.

    Segment Anything's mask generator runs on the image and on overlapping tiles of it.
    """
    x, y, w, h = box
    for tiles in (4, 2):
        if rng.random() < 0.5:
            continue
        overlap = int(512 / 1500 * min(height, width) * 2 / tiles)
        tile_w = math.ceil((overlap * (tiles - 1) + width) / tiles)
        tile_h = math.ceil((overlap * (tiles - 1) + height) / tiles)
        left = min(int(x // (tile_w - overlap)), tiles - 1) * (tile_w - overlap)
        top = min(int(y // (tile_h - overlap)), tiles - 1) * (tile_h - overlap)
        tile_w, tile_h = min(tile_w, width - left), min(tile_h, height - top)
        if x + w <= left + tile_w and y + h <= top + tile_h:
            return [float(left), float(top), float(tile_w), float(tile_h)]
    return [0.0, 0.0, float(width), float(height)]


# Shapes


@dataclass
class _Blob:
    """A star-shaped outline: ``axes @ (radius * direction)`` around ``center``, in pixels."""

    radii: FloatArray  # [K] at K equal steps of the angle, scaled so that the unit shape has area 1
    axes: FloatArray  # (2, 2) linear map, its determinant is the area in pixels
    center: FloatArray  # (2,) as (x, y)
    holes: list[FloatArray] = field(default_factory=list)  # contours, each (K, 2)

    @property
    def area(self) -> float:
        return float(abs(np.linalg.det(self.axes)))

    def offsets(self) -> FloatArray:
        """Return the contour relative to the centre, (K, 2)."""
        offsets: FloatArray = (_directions(len(self.radii)) * self.radii[:, None]) @ self.axes.T
        return offsets

    def outline(self) -> FloatArray:
        """Return the contour in the image, (K, 2)."""
        return self.center + self.offsets()

    def contains(self, points: FloatArray) -> NDArray[np.bool_]:
        """Tell for ``points (..., 2)`` which lie inside the outline; holes are not looked at."""
        x, y = np.moveaxis((points - self.center) @ np.linalg.inv(self.axes).T, -1, 0)
        num_radii = len(self.radii)
        step = np.rint(np.arctan2(y, x) * (num_radii / (2 * np.pi))).astype(np.int64) % num_radii
        inside: NDArray[np.bool_] = np.hypot(x, y) <= self.radii[step]
        return inside


def _directions(num: int) -> FloatArray:
    angle = np.arange(num) * (2 * np.pi / num)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _draw_blob(rng: np.random.Generator, area: float, height: int, width: int) -> _Blob:
    """Draw a shape of ``area`` pixels around the origin: form, wiggle, aspect, rotation, holes."""
    # About one vertex per two pixels of outline, a power of two for the FFT.
    num_radii = 1 << int(np.clip(np.log2(2 * math.sqrt(area) + 1), 5, 11))
    # A superellipse: an exponent of 2 is an ellipse, 8 almost a rectangle.
    exponent = rng.choice([2.0, 2.5, 4.0, 8.0])
    radii = (np.abs(_directions(num_radii)) ** exponent).sum(axis=1) ** (-1 / exponent)

    # Wiggles with a falling spectrum. Most objects have a smooth outline, a few are foliage.
    frequency = np.arange(num_radii // 2 + 1)
    roughness = min(0.12 * math.exp(rng.normal(0.0, 0.75)), 0.5)
    decay = rng.uniform(1.6, 2.4)
    amplitude = np.zeros(len(frequency))
    amplitude[2:] = roughness * (frequency[2:] / 2.0) ** -decay
    if rng.random() < 0.05:
        amplitude[8 : num_radii // 8] += 0.4 / math.sqrt(area)  # about a pixel or two
    phase = rng.uniform(0, 2 * np.pi, len(frequency))
    radii *= np.exp(np.fft.irfft(amplitude * np.exp(1j * phase), num_radii) * (num_radii / 2))
    radii /= math.sqrt(np.pi * np.mean(radii**2))

    # Large regions (sky, ground, walls) are wider than tall.
    wide = float(np.clip(np.log2(area / (height * width) / 0.02), 0, 3)) * 0.7
    aspect = 2.0 ** rng.normal(wide - 0.25, 1.3)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.3 else rng.normal(0.0, 0.12)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    axes = rotation @ np.diag([math.sqrt(area * aspect), math.sqrt(area / aspect)])
    blob = _Blob(radii, axes, np.zeros(2))

    # What does not fit the image in one direction is squeezed there and grows in the other.
    extent = np.ptp(blob.offsets(), axis=0)
    squeeze = min(1.0, width / extent[0])
    squeeze /= min(1.0, height / extent[1])
    blob.axes = np.diag([squeeze, 1 / squeeze]) @ axes
    return blob


def _add_holes(rng: np.random.Generator, blob: _Blob, height: int, width: int) -> None:
    for _ in range(rng.integers(1, 4)):
        hole = _draw_blob(rng, blob.area * rng.uniform(0.005, 0.05), height, width)
        _place_inside(rng, hole, blob, np.zeros((0, 4)))
        blob.holes.append(hole.outline())


def _place_inside(
    rng: np.random.Generator, blob: _Blob, parent: _Blob, rivals: FloatArray
) -> float:
    """Move ``blob`` into ``parent``, clear of the boxes ``rivals (N, 4)`` where that is possible.

    Returns the share of its outline that is inside.
    """
    direction = rng.integers(len(parent.radii), size=_NUM_CANDIDATES)
    # The square root spreads the points evenly over the area.
    reach = parent.radii[direction] * np.sqrt(rng.random(_NUM_CANDIDATES))
    local = _directions(len(parent.radii))[direction] * reach[:, None]
    centers = parent.center + local @ parent.axes.T  # (candidates, 2)
    offsets = blob.offsets()
    coarse = offsets[:: len(offsets) // 32]
    share = parent.contains(centers[:, None] + coarse).mean(axis=1)
    low, high = offsets.min(axis=0), offsets.max(axis=0)
    boxes = np.concatenate([centers + low, centers + high], axis=1)
    # To be inside comes first; among those inside, the freest place.
    score = np.minimum(share, 0.97) - 0.1 * np.minimum(_overlap(boxes, rivals), 1)
    best = int(score.argmax())
    blob.center = centers[best]
    return float(share[best])


def _place_apart(
    rng: np.random.Generator, blob: _Blob, rivals: FloatArray, height: int, width: int
) -> None:
    """Move ``blob`` to where its box meets the least of the boxes ``rivals (N, 4)``."""
    offsets = blob.offsets()
    low, high = offsets.min(axis=0), offsets.max(axis=0)
    extent = high - low
    # It may reach a little over the image's edge: real objects are cut there, too.
    slack = 0.05 * extent
    room = np.maximum(np.array([width, height]) - extent + 2 * slack, 0)
    corners = rng.random((_NUM_CANDIDATES, 2)) * room - slack
    boxes = np.concatenate([corners, corners + extent], axis=1)
    blob.center = corners[_overlap(boxes, rivals).argmin()] - low


def _overlap(boxes: FloatArray, rivals: FloatArray) -> FloatArray:
    """Return for ``boxes (N, 4)`` the area shared with all ``rivals (M, 4)``, in own areas."""
    shared = np.minimum(boxes[:, None, 2:], rivals[:, 2:])
    shared = shared - np.maximum(boxes[:, None, :2], rivals[:, :2])
    own_area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    share: FloatArray = np.maximum(shared, 0).prod(axis=2).sum(axis=1) / own_area
    return share


def _place_blobs(rng: np.random.Generator, height: int, width: int, num_masks: int) -> list[_Blob]:
    """Draw all shapes of an image, the largest first: objects side by side, parts in objects."""
    # One draw in each of num_masks equal slices, so that a single image has the whole range.
    quantile = (np.arange(num_masks)[::-1] + rng.random(num_masks)) / max(num_masks, 1)
    fraction = np.exp(np.interp(quantile, _AREA_QUANTILES, np.log(_AREA_FRACTIONS)))
    # Many masks are small masks.
    fraction = np.minimum(fraction * math.sqrt(_USUAL_NUM_MASKS / max(num_masks, 1)), 0.25)
    areas = np.maximum(fraction * (height * width), 6.0)

    blobs: list[_Blob] = []
    boxes = np.zeros((num_masks, 4))  # x0, y0, x1, y1
    is_object = np.zeros(num_masks, dtype=np.bool_)
    for index, area in enumerate(areas.tolist()):
        blob = _draw_blob(rng, area, height, width)
        num_parents = int((areas[:index] > 2 * area).sum())
        is_part = False
        if num_parents and rng.random() < _PART_PROBABILITY:
            for parent in rng.integers(num_parents, size=4).tolist():
                # What is larger than the parent may hold it; what is smaller may be a sibling.
                rivals = boxes[parent + 1 : index]
                if _place_inside(rng, blob, blobs[parent], rivals) > 0.9:
                    is_part = True
                    break
        if not is_part:
            is_object[index] = True
            _place_apart(rng, blob, boxes[:index][is_object[:index]], height, width)
        outline = blob.outline()
        boxes[index] = *outline.min(axis=0), *outline.max(axis=0)
        if area > 100 and rng.random() < _HOLES_PROBABILITY:
            _add_holes(rng, blob, height, width)
        blobs.append(blob)
    return blobs


def _rasterize(blobs: Sequence[_Blob], height: int, width: int) -> list[NDArray[np.int64]]:
    """Return the run lengths of every blob, background first, column-major."""
    contours, mask_of_contour = [], []
    for mask, blob in enumerate(blobs):
        for contour in (blob.outline(), *blob.holes):
            contours.append(contour)
            mask_of_contour.append(mask)
    start = np.concatenate(contours)
    end = np.concatenate([np.roll(c, -1, axis=0) for c in contours])
    mask_of_edge = np.repeat(mask_of_contour, [len(c) for c in contours])

    # Column c is crossed by the edges that lie on both sides of x = c + 0.5.
    left = np.minimum(start[:, 0], end[:, 0])
    right = np.maximum(start[:, 0], end[:, 0])
    first = np.clip(np.ceil(left - 0.5), 0, width).astype(np.int64)
    last = np.clip(np.ceil(right - 0.5), 0, width).astype(np.int64)
    crossings = last - first
    edge = np.repeat(np.arange(len(start)), crossings)
    column = np.arange(len(edge)) - np.repeat(np.cumsum(crossings) - crossings - first, crossings)
    x0, y0 = start[edge].T
    x1, y1 = end[edge].T
    y = y0 + (column + 0.5 - x0) * ((y1 - y0) / (x1 - x0))
    row = np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64)

    # A crossing flips the mask from its position on, so two at one position cancel; this also
    # joins a run that leaves a column at the bottom with one that enters the next at the top.
    num_pixels = height * width
    stride = num_pixels + 1  # a run may end at num_pixels
    key, times = np.unique(mask_of_edge[edge] * stride + column * height + row, return_counts=True)
    key = key[times % 2 == 1]
    mask_starts = np.searchsorted(key, np.arange(1, len(blobs)) * stride)

    counts = []
    for mask, (blob, keys) in enumerate(zip(blobs, np.split(key, mask_starts), strict=True)):
        boundaries = keys - mask * stride
        if len(boundaries) == 0:  # it slipped between the pixel centres
            x, y = np.clip(blob.center, 0, [width - 1, height - 1]).astype(np.int64).tolist()
            boundaries = x * height + y + np.arange(2)
        runs = np.diff(boundaries, prepend=0, append=num_pixels)
        counts.append(runs[:-1] if runs[-1] == 0 else runs)
    return counts


# Images


def generate_image(annotation: dict[str, Any], seed: int) -> NDArray[np.uint8]:
    """Paint a photo-like image in which every mask is a thing of its own colour and texture.

    Args:
        annotation: what :func:`generate_annotation` returns, or the content of a real file.
        seed: the same seed and annotation give the same image.

    Returns:
        ``uint8 (H, W, 3)``, RGB.
    """
    from . import pack_rles

    rng = np.random.default_rng(seed)
    height, width = annotation["image"]["height"], annotation["image"]["width"]
    # Sky above, ground below, light clouds over both.
    horizon = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    warmth = rng.uniform(-12, 12)
    sky = np.array([150 + warmth, 172, 200 - warmth], dtype=np.float32)
    ground = np.array([118 + warmth, 112, 98 - warmth], dtype=np.float32)
    image = sky + (ground - sky) * horizon
    image = image + 28 * _smooth_noise(rng, height, width, 4)[:, :, None]
    # Two grains that all textures are cut from: fine as fabric, coarse as foliage.
    fine = _smooth_noise(rng, height, width, max(height, width) // 4)
    coarse = _smooth_noise(rng, height, width, max(height, width) // 48)
    coarse += 0.5 * _smooth_noise(rng, height, width, max(height, width) // 17) + 0.3 * fine
    image += (3 * fine + 4 * coarse)[:, :, None]

    batch = pack_rles(annotation["annotations"])
    boxes = batch.bbox().tolist()
    for index in np.argsort(-batch.area().numpy(), kind="stable").tolist():
        x, y, w, h = (int(v) for v in boxes[index])
        if w == 0:  # an empty mask
            continue
        inside = batch[index].decode(crop=(y, x, h, w))[0].numpy().astype(np.bool_)
        window = (slice(y, y + h), slice(x, x + w))
        # A part keeps something of the colour of what it lies on.
        around = image[window][inside].mean(axis=0)
        color = 0.25 * around + 0.75 * _material_color(rng)
        light = np.linspace(-1, 1, h)[:, None] * rng.normal(-12, 8)
        light = light + np.linspace(-1, 1, w)[None, :] * rng.normal(0, 10)
        grain = rng.exponential(4) * fine[window] + rng.exponential(7) * coarse[window]
        painted = color + (light + grain)[:, :, None]
        rim = inside & ~_erode(inside)  # where the surface turns away from the light
        painted[rim] *= 0.82
        image[window][inside] = painted[inside]

    _soften(image)
    image += 3 * rng.standard_normal((height, width, 1), dtype=np.float32)
    rounded: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8)
    return rounded


def _material_color(rng: np.random.Generator) -> FloatArray:
    """Return an RGB colour as things have it: any hue, rarely vivid."""
    hue = rng.uniform(0, 2 * np.pi)
    chroma = np.cos(hue - np.array([0, 2, 4]) * np.pi / 3)
    color: FloatArray = rng.uniform(50, 205) + rng.exponential(18) * chroma
    return np.clip(color, 15, 240)


def _smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells: int
) -> NDArray[np.float32]:
    """Return noise (H, W) of unit variance at its nodes, ``cells`` nodes along the longer side."""
    scale = max(height, width) / max(cells, 1)
    rows, cols = math.ceil(height / scale) + 2, math.ceil(width / scale) + 2
    nodes = rng.standard_normal((rows, cols), dtype=np.float32)

    def interpolate(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
        position = np.arange(length, dtype=np.float32) / np.float32(scale)
        left = position.astype(np.int64)
        t = position - left.astype(np.float32)
        t = (t * t * (3 - 2 * t))[:, None]
        between: NDArray[np.float32] = values[left] + (values[left + 1] - values[left]) * t
        return between

    columns = interpolate(nodes.T, width)  # (W, rows)
    return interpolate(columns.T, height)


def _erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take off the outermost two pixels; beyond the array nothing is set."""
    padded = np.pad(mask, 2)
    h, w = mask.shape
    inner = padded[0:h, 2 : 2 + w] & padded[4:, 2 : 2 + w]
    inner &= padded[2 : 2 + h, 0:w] & padded[2 : 2 + h, 4:]
    return inner & mask


def _soften(image: NDArray[np.float32]) -> None:
    """Blur in place with (1, 2, 1) / 4 both ways, as a lens does."""
    for axis in (0, 1):
        moved = np.moveaxis(image, axis, 0)
        moved[1:-1] = 0.25 * moved[:-2] + 0.5 * moved[1:-1] + 0.25 * moved[2:]


# Files


def write_folder(
    path: str | PathLike[str],
    num_images: int,
    seed: int,
    *,
    sizes: Sequence[tuple[int, int]] = _USUAL_SIZES,
    num_masks: Sequence[int] = (100,),
) -> list[Path]:
    """Write ``sa_<id>.jpg`` and ``sa_<id>.json`` for ids 1 to ``num_images``, as if extracted.

    Args:
        path: the folder; made where it does not exist.
        num_images: how many pairs of files.
        seed: the same seed and arguments give the same files.
        sizes: (height, width) in pixels of image after image, over and over.
        num_masks: number of masks of image after image, over and over.

    Returns:
        The annotation files, in the order of their ids.

    Raises:
        ImportError: Pillow is missing.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    annotation_files = []
    for name, content in _generate_files(num_images, seed, sizes, num_masks):
        (folder / name).write_bytes(content)
        if name.endswith(".json"):
            annotation_files.append(folder / name)
    return annotation_files


def write_tar(
    path: str | PathLike[str],
    num_images: int,
    seed: int,
    *,
    sizes: Sequence[tuple[int, int]] = _USUAL_SIZES,
    num_masks: Sequence[int] = (100,),
) -> Path:
    """Write the files of :func:`write_folder` as a tar in Meta's layout, and return its path.

    The members are flat, named ``./sa_<id>.jpg`` and ``./sa_<id>.json``, in random order: from two
    images on, the files of one image are never neighbours. Arguments as for :func:`write_folder`.
    """
    members = list(_generate_files(num_images, seed, sizes, num_masks))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(members))
    # Members 2i and 2i + 1 belong to one image.
    while num_images > 1 and (order[:-1] // 2 == order[1:] // 2).any():
        order = rng.permutation(len(members))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in order.tolist():
            name, content = members[index]
            info = tarfile.TarInfo(f"./{name}")  # its time and owner are zero: same bytes each time
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def _generate_files(
    num_images: int, seed: int, sizes: Sequence[tuple[int, int]], num_masks: Sequence[int]
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the image and then the annotation file of each image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing JPEG files needs Pillow: pip install pillow") from error
    for index in range(num_images):
        own_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        height, width = sizes[index % len(sizes)]
        annotation = generate_annotation(
            own_seed,
            height=height,
            width=width,
            num_masks=num_masks[index % len(num_masks)],
            image_id=index + 1,
        )
        jpeg = io.BytesIO()
        Image.fromarray(generate_image(annotation, own_seed)).save(jpeg, "JPEG", quality=90)
        yield f"sa_{index + 1}.jpg", jpeg.getvalue()
        yield f"sa_{index + 1}.json", json.dumps(annotation).encode()
