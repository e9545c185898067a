"""``verify``: whether annotation files say what is true of their masks."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from sa1b_fastdecode.cli.common import (
    CommandError,
    Commands,
    add_command,
    format_table,
    non_negative,
    open_shards,
    read_file,
    show_progress,
)

if TYPE_CHECKING:
    from sa1b_fastdecode import RLEBatch
    from sa1b_fastdecode.data.shards import Shard

# What can be wrong, in the order of the report.
_KINDS = {
    "pair": "an image or its annotations are missing or damaged in the tar or folder",
    "file": "a file is not an annotation file of its image",
    "counts": "counts are malformed or do not add up to the size",
    "size": "a mask has not the size of its image",
    "area": "the area is not that of the mask",
    "bbox": "the bbox is not that of the mask",
    "values": "scores, points, crop boxes or ids are missing or impossible",
    "image": "an image cannot be decoded or has another size",
}


class Problem(NamedTuple):
    """Something that is wrong."""

    kind: str
    where: str
    what: str


class Checked(NamedTuple):
    """What was found in one annotation file."""

    num_masks: int
    boxes: Counter[str]  # how many are written in which way
    problems: list[tuple[str, str]]  # kind and what


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "verify",
        "check all annotations against their masks",
        "Check every annotation file: that image and annotations come in pairs, that each mask's\n"
        "runs add up to the size of the image, and that area, bbox and the other values are those\n"
        "of the mask. A bbox may be (x, y, w-1, h-1), as SA-1B has it, or (x, y, w, h).\n"
        "The exit status is 0 if all is well, 1 if anything is wrong, 2 if it cannot be checked.",
        [
            "sa_000020.tar",
            "/data/sa1b --images --report problems.json",
            "annotations/*.json  # files by themselves need no images",
        ],
    )
    command.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a tar, a folder, or an sa_*.json"
    )
    command.add_argument(
        "--images", action="store_true", help="decode every JPEG, too, and compare its size"
    )
    command.add_argument(
        "--report", type=Path, metavar="JSON", help="write all problems to this file"
    )
    command.add_argument(
        "--show", type=non_negative, default=20, metavar="N", help="print N problems; default: 20"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    single = [path for path in arguments.paths if path.suffix == ".json"]
    shards = open_shards([path for path in arguments.paths if path not in single])
    problems = [Problem("pair", shard.path, what) for shard in shards for what in shard.problems]
    num_images = num_masks = 0
    boxes: Counter[str] = Counter()

    def note(where: str, checked: Checked) -> None:
        nonlocal num_images, num_masks
        num_images += 1
        num_masks += checked.num_masks
        boxes.update(checked.boxes)
        problems.extend(Problem(kind, where, what) for kind, what in checked.problems)

    for path in show_progress(single, "verifying", "file", len(single)):
        note(str(path), check_annotation(read_file(path), path.stem))
    total = sum(map(len, shards))
    for shard, i in show_progress(_images(shards), "verifying", "image", total):
        where = f"{shard.path}: {shard.member(i, 'json')}"
        try:
            content = shard.read(i, "json")
            note(where, check_annotation(content, shard.image_id(i)))
            if arguments.images:
                problems += [
                    Problem("image", where, what) for what in _check_image(shard, i, content)
                ]
        except OSError as error:
            problems.append(Problem("pair", where, f"cannot be read: {error}"))

    print(f"{num_images:,} annotation files with {num_masks:,} masks")
    written = ", ".join(f"{count:,} as {name}" for name, count in boxes.most_common())
    print(f"boxes: {written or 'none'}")
    _print_problems(problems, arguments.show)
    if arguments.report:
        _write_report(arguments.report, num_images, num_masks, boxes, problems)
    return 1 if problems else 0


def _images(shards: Sequence[Shard]) -> Iterator[tuple[Shard, int]]:
    """Yield all images, each tar from its beginning to its end."""
    return ((shard, i) for shard in shards for i in shard.reading_order().tolist())


def check_annotation(content: bytes, image_id: str) -> Checked:
    """Compare what an annotation file says with its masks.

    Args:
        content: of the file.
        image_id: the stem of its name, as in "sa_226692".
    """
    from sa1b_fastdecode.data.annotations import read_json

    try:
        file = read_json(content)
    except ValueError as error:
        return _unreadable(f"it is not JSON: {error}")
    if not isinstance(file, dict):
        return _unreadable(f"it holds a {type(file).__name__}, not an object")
    image, items = file.get("image"), file.get("annotations")
    if not isinstance(image, dict) or not isinstance(items, list):
        return _unreadable('it has no "image" object and "annotations" list')
    size: list[Any] = [image.get("height"), image.get("width")]
    if not all(isinstance(side, int) and side > 0 for side in size):
        return _unreadable(f'the "height" and "width" of its "image" are {size[0]} and {size[1]}')

    problems: list[tuple[str, str]] = []
    for key, expected in (
        ("file_name", f"{image_id}.jpg"),
        ("image_id", int(image_id[3:]) if image_id[3:].isdecimal() else None),
    ):
        if expected is not None and image.get(key) != expected:
            problems.append(("file", f"its {key} is {image.get(key)!r}, not {expected!r}"))
    batch, places = _pack_all(items, problems)
    boxes: Counter[str] = Counter()
    mask_sizes, areas, mask_boxes = (
        batch.sizes.tolist(),
        batch.area().tolist(),
        batch.bbox().tolist(),
    )
    for i, mask_size, area, box in zip(places, mask_sizes, areas, mask_boxes, strict=True):
        if mask_size != size:
            problems.append(("size", f"mask {i} is {_by(mask_size)}, the image {_by(size)}"))
        if items[i].get("area") != area:
            what = f"mask {i} has {area} pixels, but its area is {items[i].get('area')!r}"
            problems.append(("area", what))
        written = _box_style(items[i].get("bbox"), box)
        if written:
            boxes[written] += 1
        else:
            what = f"mask {i} has the box {box}, but its bbox is {items[i].get('bbox')!r}"
            problems.append(("bbox", what))
        problems += [("values", f"mask {i}: {what}") for what in _wrong_values(items[i], size)]
    ids = Counter(repr(items[i].get("id")) for i in places)
    problems += [("values", f"{n} masks have the id {name}") for name, n in ids.items() if n > 1]
    return Checked(len(items), boxes, problems)


def _unreadable(what: str) -> Checked:
    return Checked(0, Counter(), [("file", what)])


def _by(size: Sequence[Any]) -> str:
    return f"{size[0]}x{size[1]}"


def _pack_all(items: list[Any], problems: list[tuple[str, str]]) -> tuple[RLEBatch, list[int]]:
    """Return the masks that are well-formed, and their places among the items."""
    from sa1b_fastdecode import RLEBatch, pack_rles

    try:
        return pack_rles(items), list(range(len(items)))
    except (ValueError, TypeError):
        pass  # one at a time, so that all that are malformed are named
    batches, places = [], []
    for i, item in enumerate(items):
        try:
            batches.append(pack_rles([item]))
            places.append(i)
        except (ValueError, TypeError) as error:
            problems.append(("counts", f"mask {i}: {str(error).removeprefix('mask 0: ')}"))
    return RLEBatch.cat(batches), places


def _box_style(bbox: Any, box: list[float]) -> str | None:
    """Say in which of the two usual ways a bbox is that of the mask."""
    x, y, w, h = box
    if bbox == [x, y, w - 1, h - 1]:
        return "(x, y, w-1, h-1)"
    return "(x, y, w, h)" if bbox == box else None


def _wrong_values(item: dict[str, Any], size: list[int]) -> Iterator[str]:
    height, width = size
    for key in ("predicted_iou", "stability_score"):
        score: Any = item.get(key)
        if not _are_numbers([score], 1) or score < 0:
            yield f"{key} is {score!r}"
    points = item.get("point_coords")
    inside = isinstance(points, list) and all(
        _are_numbers(point, 2) and 0 <= point[0] < width and 0 <= point[1] < height
        for point in points
    )
    if not inside:
        yield f"point_coords {points!r} are no points of the image"
    crop = item.get("crop_box")
    if not _are_numbers(crop, 4) or not (
        min(crop) >= 0 and crop[0] + crop[2] <= width and crop[1] + crop[3] <= height
    ):
        yield f"crop_box {crop!r} is no part of the image"


def _are_numbers(values: Any, count: int) -> TypeGuard[list[float]]:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )


def _check_image(shard: Shard, i: int, annotation: bytes) -> Iterator[str]:
    from sa1b_fastdecode.data.annotations import read_json
    from sa1b_fastdecode.data.images import decode_jpeg

    try:
        height, width, _ = decode_jpeg(shard.read(i, "jpg")).shape
    except ValueError as error:
        yield str(error)
        return
    except ImportError as error:
        raise CommandError(str(error)) from error
    try:
        image = read_json(annotation)["image"]
        said = [image["height"], image["width"]]
    except (ValueError, KeyError, TypeError):
        return  # which is told elsewhere
    if said != [height, width]:
        yield f"the image is {height}x{width}, its annotations say {_by(said)}"


def _print_problems(problems: Sequence[Problem], limit: int) -> None:
    if not problems:
        print("no problems")
        return
    counts = Counter(problem.kind for problem in problems)
    rows = [("problems", "", "")]
    rows += [(kind, f"{counts[kind]:,}", text) for kind, text in _KINDS.items() if counts[kind]]
    print(f"\n{format_table(rows, '<><')}\n")
    for problem in problems[:limit]:
        print(f"{problem.where}: {problem.what}")
    if len(problems) > limit:
        print(f"... and {len(problems) - limit:,} more; --report writes all of them")


def _write_report(
    path: Path, num_images: int, num_masks: int, boxes: Counter[str], problems: Sequence[Problem]
) -> None:
    content = {
        "images": num_images,
        "masks": num_masks,
        "boxes": dict(boxes),
        "problems": [problem._asdict() for problem in problems],
    }
    try:
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
