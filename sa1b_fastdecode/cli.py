"""The command line: ``python -m sa1b_fastdecode``.

A command is one ``_add_<name>`` function that declares its arguments and one ``_run_<name>`` that
does the work and returns the exit status; ``_COMMANDS`` lists the former. What the user can put
right is raised as ``CommandError`` and ends as one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import colorsys
import ctypes
import json
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from . import RLEBatch

__all__ = ["main"]

_DEMO_EXTRA = "pip install sa1b-fastdecode[demo]"


class CommandError(Exception):
    """The command cannot be carried out; the message tells the user why.

    ``status`` is the exit status: 2 for what the user can put right, 1 for a check that failed.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, 0 for success."""
    arguments = _build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    return status


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sa1b_fastdecode",
        description="Fast batch decoding of SA-1B's COCO RLE masks.",
        epilog="examples:\n"
        "  python -m sa1b_fastdecode info\n"
        "  python -m sa1b_fastdecode demo\n"
        "  python -m sa1b_fastdecode demo sa_223750.json sa_223750.jpg --output overlay.png\n"
        "  python -m sa1b_fastdecode sample sa_000000.tar --images 16 --tar\n"
        "  python -m sa1b_fastdecode run evaluate.py --arguments of the script\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


# info


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("info", help="show the version and what can run here")
    command.set_defaults(run=_run_info)


def _run_info(arguments: argparse.Namespace) -> int:
    import torch

    from . import __version__, backends

    print(f"sa1b_fastdecode {__version__}, torch {torch.__version__}\n")
    rows = [("backend", "device", "available", "detail")]
    for backend in backends():
        rows.append(
            (backend.name, backend.device, "yes" if backend.available else "no", backend.detail)
        )
    print(_format_table(rows, "<<<<"))
    print(f"\nactive on cpu: {_find_backend('cpu')}, {torch.get_num_threads()} threads")
    return 0


def _find_backend(device: str) -> str:
    """Return the name of the backend that serves ``device``."""
    from . import active_backend

    try:
        return active_backend(device)
    except (RuntimeError, ValueError) as error:  # one was forced that is not there
        raise CommandError(str(error)) from error


# demo


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "demo",
        help="decode one annotation, compare with pycocotools, draw the masks",
        description="Decode the masks of one SA-1B annotation file, check them bit for bit against "
        "pycocotools, time both, and draw the masks over the image. Without a file it shows all "
        "this on a generated sample.",
    )
    command.add_argument("annotation", nargs="?", type=Path, help="an SA-1B sa_*.json")
    command.add_argument(
        "image", nargs="?", type=Path, help="its image; default: the .jpg beside it, else plain"
    )
    command.add_argument(
        "--output",
        type=Path,
        default=Path("overlay.png"),
        metavar="PNG",
        help="the picture to write; default: overlay.png",
    )
    command.add_argument(
        "--seed", type=_non_negative, default=0, metavar="S", help="seed of the generated sample"
    )
    command.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    # A missing extra should show before any work is done.
    try:
        import PIL.Image
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"the demo needs {error.name}, which is not installed: {_DEMO_EXTRA}"
        ) from error
    from . import backends, pack_rles

    has_cuda = any(backend.device == "cuda" and backend.available for backend in backends())
    device = "cuda" if has_cuda else "cpu"
    backend_name = _find_backend(device)
    annotation, image = _load_demo_input(arguments)
    try:
        batch = pack_rles(annotation["annotations"])
    except (ValueError, TypeError) as error:
        raise CommandError(f"{arguments.annotation}: {error}") from error

    height, width = image.shape[:2]
    print(
        f"{arguments.annotation or 'generated sample'}: {len(batch)} masks of {height} x {width}, "
        f"decoded on {device} by {backend_name}"
    )
    if len(batch):
        _check_and_time(annotation, batch, device)
    overlay = draw_overlay(image, batch)
    try:
        PIL.Image.fromarray(overlay).save(arguments.output, "PNG")
    except OSError as error:
        raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
    print(f"\nwrote {arguments.output}")
    return 0


def _load_demo_input(arguments: argparse.Namespace) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Return the annotation and its RGB image (H, W, 3)."""
    if arguments.annotation is None:
        from .sample import generate_annotation, generate_image

        annotation = generate_annotation(arguments.seed)
        return annotation, generate_image(annotation, arguments.seed)

    annotation = _load_annotation(arguments.annotation)
    height, width = annotation["image"]["height"], annotation["image"]["width"]
    beside = arguments.annotation.with_suffix(".jpg")
    image_file = arguments.image or (beside if beside.exists() else None)
    if image_file is None:
        return annotation, np.full((height, width, 3), 88, dtype=np.uint8)
    import PIL.Image

    try:
        with PIL.Image.open(image_file) as opened:
            image = np.asarray(opened.convert("RGB"))
    except PIL.UnidentifiedImageError as error:
        raise CommandError(f"{image_file} is not an image") from error
    except OSError as error:
        raise CommandError(f"cannot read {image_file}: {error.strerror or error}") from error
    if image.shape[:2] != (height, width):
        raise CommandError(
            f"{image_file} is {image.shape[0]} x {image.shape[1]}, but {arguments.annotation} "
            f"belongs to an image of {height} x {width}"
        )
    return annotation, image


def _load_annotation(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # JSON's own error, or bytes that are no text
        raise CommandError(f"{path} is not JSON: {error}") from error
    problem = _find_problem(content)
    if problem:
        raise CommandError(f"{path} is not an SA-1B annotation: {problem}")
    annotation: dict[str, Any] = content
    return annotation


def _find_problem(content: Any) -> str | None:
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


def _check_and_time(annotation: dict[str, Any], batch: RLEBatch, device: str) -> None:
    """Compare our result with pycocotools' bit for bit, then print what both take."""
    import torch
    from pycocotools import mask as coco_mask

    from . import decode_rle_batch

    rles = [a["segmentation"] for a in annotation["annotations"]]

    def decode_with_pycocotools() -> torch.Tensor:
        # It fills (H, W, N) in Fortran order; a loader wants (N, H, W), contiguous.
        return torch.from_numpy(coco_mask.decode(rles)).permute(2, 0, 1).contiguous()

    def synchronize() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    reference = decode_with_pycocotools()
    buffer = decode_rle_batch(rles, device)
    _check_equal(buffer, reference, "a new tensor")
    # The timed calls find the answer already there, so check once that they do write it.
    buffer.fill_(255)
    decode_rle_batch(rles, device, out=buffer)
    _check_equal(buffer, reference, "a reused tensor")
    del reference  # as large as all masks
    print(f"all {len(rles)} masks ({buffer.numel():,} pixels) equal pycocotools' bit for bit\n")

    def decode_into_buffer() -> torch.Tensor:
        return decode_rle_batch(rles, device, out=buffer)

    if device == "cpu":
        memset = ctypes.CDLL(None).memset
        memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)

        def fill() -> object:
            return memset(buffer.data_ptr(), 0, buffer.numel())
    else:

        def fill() -> object:
            return buffer.zero_()

    cases: list[tuple[str, Callable[[], object], int]] = [
        ("sa1b_fastdecode, new tensor", lambda: decode_rle_batch(rles, device), 9),
        ("sa1b_fastdecode, into a reused tensor", decode_into_buffer, 9),
        ("pycocotools decode + stack, C order", decode_with_pycocotools, 3),
        ("memset of as many bytes (the floor)", fill, 9),
    ]
    medians = [_median_ms(function, repeats, synchronize) for _, function, repeats in cases]
    rows = [("", "median ms", "times ours")]
    for (label, _, _), median in zip(cases, medians, strict=True):
        rows.append((label, f"{median:.2f}", f"{median / medians[0]:.2f}"))
    print(_format_table(rows, "<>>"))


def _check_equal(masks: torch.Tensor, reference: torch.Tensor, where: str) -> None:
    num_wrong = int((masks.cpu() != reference).flatten(1).any(1).sum())
    if num_wrong:
        raise CommandError(
            f"decoded into {where}, {num_wrong} of {len(masks)} masks differ from pycocotools: "
            "please report this bug",
            status=1,
        )


def _median_ms(
    function: Callable[[], object], repeats: int, synchronize: Callable[[], None]
) -> float:
    function()
    synchronize()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        synchronize()
        durations.append(time.perf_counter() - start)
    return 1e3 * statistics.median(durations)


def draw_overlay(image: NDArray[np.uint8], batch: RLEBatch) -> NDArray[np.uint8]:
    """Blend masks over an image, each in its own colour and outlined.

    Larger masks are painted first, so that parts stay visible on their objects.

    Args:
        image: ``uint8 (H, W, 3)``, RGB; not changed.
        batch: masks of that size.

    Returns:
        ``uint8 (H, W, 3)``.
    """
    overlay: NDArray[np.uint8] = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 750))
    boxes = batch.bbox().tolist()
    order = np.argsort(-batch.area().cpu().numpy(), kind="stable").tolist()
    # One label a pixel, blended once: colours do not pile up where masks are nested.
    labels = np.zeros(image.shape[:2], dtype=np.int32)
    edges = np.zeros(image.shape[:2], dtype=np.bool_)
    for rank, index in enumerate(order, start=1):
        x, y, w, h = (int(v) for v in boxes[index])
        if w == 0:
            continue
        inside = batch[index].decode(crop=(y, x, h, w))[0].cpu().numpy().astype(np.bool_)
        window = (slice(y, y + h), slice(x, x + w))
        labels[window][inside] = rank
        # This mask lies on top, and so does its outline.
        edges[window][inside] = _inner_edge(inside, thickness)[inside]

    # The first row belongs to label 0, which is not painted.
    colors = np.array([(0, 0, 0), *(_distinct_color(i) for i in range(len(order)))], np.float32)
    painted = labels > 0
    fill_colors = colors[labels[painted]]
    overlay[painted] = (0.5 * overlay[painted] + 0.5 * fill_colors).astype(np.uint8)
    outline_colors = 0.45 * colors[labels[edges]] + 0.55 * 255
    overlay[edges] = outline_colors.astype(np.uint8)
    return overlay


def _inner_edge(mask: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Return the mask's pixels that lie within ``thickness`` of its outside."""
    h, w = mask.shape
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = inner & padded[:h, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :w] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = mask & ~inner
    return edge


def _distinct_color(index: int) -> tuple[float, float, float]:
    """Return an RGB colour in 0..255; steps of the golden ratio keep neighbours' hues apart."""
    hue = (0.61803398875 * index) % 1.0
    saturation = (0.85, 0.6, 0.75)[index % 3]
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return 255 * r, 255 * g, 255 * b


# sample


def _add_sample(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "sample",
        help="write generated images and annotations in SA-1B's layout",
        description="Write generated sa_<id>.jpg and sa_<id>.json with the statistics of SA-1B: "
        "to a folder, or with --tar to a tar as Meta lays it out.",
    )
    command.add_argument("output", type=Path, help="the folder, or the tar with --tar")
    command.add_argument("--images", type=_non_negative, default=4, metavar="N", help="default: 4")
    command.add_argument("--seed", type=_non_negative, default=0, metavar="S", help="default: 0")
    command.add_argument("--tar", action="store_true", help="write one tar")
    command.set_defaults(run=_run_sample)


def _run_sample(arguments: argparse.Namespace) -> int:
    from .sample import write_folder, write_tar

    write = write_tar if arguments.tar else write_folder
    try:
        write(arguments.output, arguments.images, arguments.seed)
    except ImportError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
    print(f"wrote {arguments.images} images and their annotations to {arguments.output}")
    return 0


# run


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "run",
        help="run a script whose pycocotools.mask is ours",
        description="Run a Python script as it is, with sa1b_fastdecode.mask in the place of "
        "pycocotools.mask.",
    )
    command.add_argument("script", type=Path, help="the script")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="what is passed to it")
    command.set_defaults(run=_run_script)


def _run_script(arguments: argparse.Namespace) -> int:
    from .mask import install

    if not arguments.script.is_file():
        raise CommandError(f"cannot read {arguments.script}: no such file")
    install()
    # What Python itself does for `python script.py arguments`.
    sys.argv = [str(arguments.script), *arguments.arguments]
    sys.path[0] = str(arguments.script.resolve().parent)
    runpy.run_path(str(arguments.script), run_name="__main__")
    return 0


def _non_negative(text: str) -> int:
    """Read an argument that must be an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def _format_table(rows: Sequence[Sequence[str]], align: str) -> str:
    """Return rows as aligned text; ``align`` has one "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


_COMMANDS = (_add_info, _add_demo, _add_sample, _add_run)
