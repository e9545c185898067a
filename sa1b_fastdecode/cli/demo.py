"""``demo``: decode one image's masks, check them against pycocotools, time both, draw them."""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa1b_fastdecode.cli.common import (
    CommandError,
    Commands,
    format_table,
    image_for,
    load_image_beside,
    non_negative,
    parse_annotation,
    read_file,
)
from sa1b_fastdecode.cli.info import find_backend

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sa1b_fastdecode import RLEBatch

_EXTRA = "pip install '.[demo]' (in a clone of the repository)"


def add(commands: Commands) -> None:
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
        "--seed", type=non_negative, default=0, metavar="S", help="seed of the generated sample"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    # A missing extra should show before any work is done.
    try:
        import PIL.Image  # noqa: F401
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"the demo needs {error.name}, which is not installed: {_EXTRA}"
        ) from error
    from sa1b_fastdecode import backends, pack_rles, visualize

    has_cuda = any(backend.device == "cuda" and backend.available for backend in backends())
    device = "cuda" if has_cuda else "cpu"
    backend_name = find_backend(device)
    annotation, image = _load_input(arguments)
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
    try:
        visualize.show_masks(image, batch, path=arguments.output)
    except OSError as error:
        raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
    print(f"\nwrote {arguments.output}")
    return 0


def _load_input(arguments: argparse.Namespace) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Return the annotation and its RGB image (H, W, 3)."""
    if arguments.annotation is None:
        from sa1b_fastdecode.sample import generate_annotation, generate_image

        annotation = generate_annotation(arguments.seed)
        return annotation, generate_image(annotation, arguments.seed)
    name = str(arguments.annotation)
    annotation = parse_annotation(read_file(arguments.annotation), name)
    image = load_image_beside(arguments.annotation, arguments.image)
    return annotation, image_for(annotation, image, name)


def _check_and_time(annotation: dict[str, Any], batch: RLEBatch, device: str) -> None:
    """Compare our result with pycocotools' bit for bit, then print what both take."""
    import torch
    from pycocotools import mask as coco_mask

    from sa1b_fastdecode import decode_rle_batch

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
    print(format_table(rows, "<>>"))


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
