"""``view``: a picture of one image's masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa1b_fastdecode.cli.common import (
    CommandError,
    Commands,
    add_command,
    decode_image,
    image_for,
    load_image_beside,
    open_shards,
    parse_annotation,
    read_file,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "view",
        "draw the masks of one image over it",
        "Draw the masks of one image over it, in distinct colours, and write a PNG.",
        [
            "sa_223750.json",
            "sa_223750.json photo.png --output overlay.png --ids",
            "sa_000020.tar sa_223750 --alpha 0.8 --no-contours",
        ],
    )
    command.add_argument("source", type=Path, help="an SA-1B sa_*.json, or a tar")
    command.add_argument(
        "image",
        nargs="?",
        help="of a .json: the image file (default: the .jpg beside it, else plain grey); "
        "of a tar: the image's id, such as sa_223750 (default: the first)",
    )
    command.add_argument(
        "--output",
        type=Path,
        default=Path("overlay.png"),
        metavar="PNG",
        help="the picture to write; default: overlay.png",
    )
    command.add_argument(
        "--alpha", type=float, default=0.5, metavar="A", help="opacity, 0 to 1; default: 0.5"
    )
    command.add_argument("--ids", action="store_true", help="write each mask's index on it")
    command.add_argument("--no-contours", action="store_true", help="leave out the outlines")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise CommandError("view needs Pillow: pip install pillow") from error
    from sa1b_fastdecode import pack_rles, visualize

    load = _load_from_tar if arguments.source.suffix == ".tar" else _load_files
    name, annotation, image = load(arguments.source, arguments.image)
    try:
        visualize.show_masks(
            image_for(annotation, image, name),
            pack_rles(annotation["annotations"]),
            alpha=arguments.alpha,
            contours=not arguments.no_contours,
            ids=arguments.ids,
            path=arguments.output,
        )
    except (ValueError, TypeError) as error:
        raise CommandError(f"{name}: {error}") from error
    except OSError as error:
        raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
    print(f"{name}: {len(annotation['annotations'])} masks, written to {arguments.output}")
    return 0


def _load_files(
    source: Path, image: str | None
) -> tuple[str, dict[str, Any], NDArray[np.uint8] | None]:
    annotation = parse_annotation(read_file(source), str(source))
    return str(source), annotation, load_image_beside(source, Path(image) if image else None)


def _load_from_tar(
    source: Path, image_id: str | None
) -> tuple[str, dict[str, Any], NDArray[np.uint8] | None]:
    (shard,) = open_shards([source])
    ids = [shard.image_id(i) for i in range(len(shard))]
    if not ids:
        raise CommandError(f"{source} holds no image with its annotations")
    if image_id is not None and image_id not in ids:
        raise CommandError(f"{source} has no image {image_id}; it has {ids[0]} to {ids[-1]}")
    i = 0 if image_id is None else ids.index(image_id)
    annotation_name, image_name = (f"{source}: {shard.member(i, kind)}" for kind in ("json", "jpg"))
    try:
        annotation = parse_annotation(shard.read(i, "json"), annotation_name)
        return annotation_name, annotation, decode_image(shard.read(i, "jpg"), image_name)
    except OSError as error:
        raise CommandError(f"cannot read {source}: {error.strerror or error}") from error
