"""What several commands need: their errors, files of one image, tables, arguments."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sa1b_fastdecode.data.shards import Shard, ShardFile

T = TypeVar("T")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class CommandError(Exception):
    """The command cannot be carried out; the message tells the user why.

    ``status`` is the exit status: 2 for what the user can put right, 1 for a check that failed.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def add_command(
    commands: Commands, name: str, summary: str, description: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add a command whose help ends with examples, each what follows the program's name."""
    lines = [f"  python -m sa1b_fastdecode {name} {example}".rstrip() for example in examples]
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error


def parse_annotation(content: bytes, name: str) -> dict[str, Any]:
    """Return the annotation in the content of a file called ``name``."""
    from sa1b_fastdecode.data.annotations import read_json

    try:
        annotation = read_json(content)
    except ValueError as error:
        raise CommandError(f"{name} is not JSON: {error}") from error
    problem = find_problem(annotation)
    if problem:
        raise CommandError(f"{name} is not an SA-1B annotation: {problem}")
    found: dict[str, Any] = annotation
    return found


def find_problem(content: Any) -> str | None:
    """Say what keeps ``content`` from being an SA-1B annotation; None where nothing does."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}, not an object"
    image, annotations = content.get("image"), content.get("annotations")
    if not isinstance(image, dict) or not isinstance(annotations, list):
        return 'it has no "image" object and "annotations" list'
    size = [image.get("height"), image.get("width")]
    if not all(isinstance(length, int) and length > 0 for length in size):
        return f'the "height" and "width" of its "image" are {size[0]} and {size[1]}'
    for index, annotation in enumerate(annotations):
        segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
        if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str):
            return f'mask {index} has no "segmentation" with compressed "counts"'
        if segmentation.get("size") != size:
            return f"mask {index} has size {segmentation.get('size')}, the image {size}"
    return None


def load_image_beside(annotation_file: Path, image_file: Path | None) -> NDArray[np.uint8] | None:
    """Return an image file, default: the .jpg beside the annotation; None if there is none."""
    beside = annotation_file.with_suffix(".jpg")
    chosen = image_file or (beside if beside.exists() else None)
    return None if chosen is None else decode_image(read_file(chosen), str(chosen))


def decode_image(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the RGB image (H, W, 3) in the content of a file called ``name``."""
    import numpy as np
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(content)) as opened:
            return np.asarray(opened.convert("RGB"))
    except PIL.UnidentifiedImageError as error:
        raise CommandError(f"{name} is not an image") from error
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error}") from error


def image_for(
    annotation: dict[str, Any], image: NDArray[np.uint8] | None, name: str
) -> NDArray[np.uint8]:
    """Return the image if it has the size that its annotation says; plain grey in place of None."""
    import numpy as np

    size = annotation["image"]["height"], annotation["image"]["width"]
    if image is None:
        return np.full((*size, 3), 88, dtype=np.uint8)
    if image.shape[:2] != size:
        raise CommandError(
            f"the image is {image.shape[0]} x {image.shape[1]}, but {name} belongs to one of "
            f"{size[0]} x {size[1]}"
        )
    return image


def find_files(paths: Sequence[Path]) -> list[ShardFile]:
    """Return the tars among the paths, and the tars and folders of images below the others."""
    from sa1b_fastdecode.data.shards import ShardFile, find_shards

    files = []
    for path in paths:
        try:
            if path.is_dir():
                files += find_shards(path, None, prefer_tars=True)
            else:
                path.stat()
                files.append(ShardFile(path, None, is_tar=True))
        except OSError as error:
            raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    return files


def open_shards(paths: Sequence[Path]) -> list[Shard]:
    """Return what is in the paths. Tars without a saved index are scanned, and none is saved."""
    from sa1b_fastdecode.data.folder_index import FolderIndex
    from sa1b_fastdecode.data.tar_index import TarIndex

    shards: list[Shard] = []
    files = find_files(paths)
    for file in show_progress(files, "indexing", "tar", len(files)):
        try:
            shards.append(
                TarIndex.load(file.path) or TarIndex.scan(file.path)
                if file.is_tar
                else FolderIndex(file.path)
            )
        except OSError as error:
            raise CommandError(f"cannot read {file.path}: {error.strerror or error}") from error
    return shards


def show_progress(items: Iterable[T], title: str, unit: str, total: int) -> Iterable[T]:
    """Return the items behind a progress bar, if there is a terminal, tqdm, and any work."""
    if total == 0:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[T] = tqdm(items, title, total, unit=unit, disable=None, leave=False)
    return bar


def non_negative(text: str) -> int:
    """Read an argument that must be an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def positive(text: str) -> int:
    """Read an argument that must be an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def format_table(rows: Sequence[Sequence[str]], align: str) -> str:
    """Return rows as aligned text; ``align`` has one "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
