"""``bench``: how fast the user's own data loads, and what holds it up."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa1b_fastdecode.cli.common import (
    CommandError,
    Commands,
    add_command,
    format_table,
    non_negative,
    positive,
)
from sa1b_fastdecode.cli.info import find_backend

if TYPE_CHECKING:
    from sa1b_fastdecode.data import SA1BDataset

_USUAL_SAMPLES = 2  # what loaders do today takes a second each


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "bench",
        "measure how fast your data loads",
        "Load samples as training does and print samples/s by number of workers, prefetch_factor\n"
        "and (with CUDA) pin_memory, beside the floor: the same images without any masks. Nothing\n"
        "is cached but by the operating system, so run it twice: the first run reads the disk.",
        ["/data/sa1b", "/data/sa1b --workers 0,4,8 --batch-size 8 --samples 256"],
    )
    command.add_argument("folder", type=Path, help="tars, or folders of extracted files")
    command.add_argument(
        "--workers",
        type=partial(_read_list, read=non_negative),
        metavar="N,N,...",
        help="default: 0, and powers of two up to the number of cores",
    )
    command.add_argument(
        "--prefetch",
        type=partial(_read_list, read=positive),
        default=[1, 2, 4],
        metavar="N,N,...",
        help="default: 1,2,4",
    )
    command.add_argument("--batch-size", type=positive, default=4, metavar="B", help="default: 4")
    command.add_argument(
        "--max-masks", type=positive, default=100, metavar="N", help="of an image; default: 100"
    )
    command.add_argument(
        "--samples", type=positive, default=64, metavar="N", help="in a measurement; default: 64"
    )
    command.add_argument("--device", default="cpu", help="where masks are decoded; default: cpu")
    command.set_defaults(run=run)


def _read_list(text: str, read: Callable[[str], int]) -> list[int]:
    try:
        return [read(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas, got {text!r}") from None


def run(arguments: argparse.Namespace) -> int:
    from sa1b_fastdecode.data import SA1BDataset

    backend = find_backend(arguments.device)
    options: dict[str, Any] = {
        "max_masks": arguments.max_masks,
        "use_tar_streaming": True,
        "cache_size": 0,
        "progress": sys.stderr.isatty(),
    }
    try:
        dataset = SA1BDataset(arguments.folder, **options)
        without_masks = SA1BDataset(arguments.folder, mask_format="none", **options)
    except (OSError, ImportError) as error:
        raise CommandError(str(error)) from error
    if len(dataset) == 0:
        raise CommandError(f"{arguments.folder} holds no images with their annotations")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{arguments.folder}: {len(dataset):,} images; {cores} cores; "
        f"masks decoded on {arguments.device} by {backend}\n"
    )
    bench = _Bench(
        dataset,
        without_masks,
        min(arguments.samples, len(dataset)),
        arguments.batch_size,
        arguments.device,
    )
    workers = arguments.workers or _default_workers(cores or 1)
    try:
        print(format_table(list(_stage_rows(dataset, bench.samples)), "<>"), end="\n\n")
        best = _print_workers(bench, workers)
        _print_prefetch(bench, best, arguments.prefetch)
        _print_pinning(bench, best)
    except (OSError, ValueError, RuntimeError) as error:
        # What a worker raises comes with its traceback; the last line says what it was.
        raise CommandError(str(error).strip().splitlines()[-1]) from error
    return 0


def _default_workers(cores: int) -> list[int]:
    powers = [1 << exponent for exponent in range(cores.bit_length())]
    return [0, *(power for power in powers if power < cores), cores]


# One sample, step by step


def _stage_rows(dataset: SA1BDataset, num_samples: int) -> Iterator[tuple[str, str]]:
    """Yield a title and the median milliseconds of each step that a sample takes."""
    from sa1b_fastdecode.data.annotations import parse_annotations
    from sa1b_fastdecode.data.images import decode_jpeg

    places = [dataset.shards.locate(i) for i in _spread(len(dataset), num_samples)]

    def read(n: int, kind: str) -> bytes:
        k, i = places[n]
        return dataset.shards[k].read(i, kind)

    masks = [parse_annotations(read(n, "json")).masks for n in range(num_samples)]
    steps: list[tuple[str, Callable[[int], object]]] = [
        ("annotations: read, parse, pack", lambda n: parse_annotations(read(n, "json"))),
        ("image: read, decode", lambda n: decode_jpeg(read(n, "jpg"))),
        (
            "all masks: area, box, IoU of all pairs",
            lambda n: (masks[n].area(), masks[n].bbox(), masks[n].iou(masks[n])),
        ),
        ("all masks: decode to uint8", lambda n: masks[n].decode()),
    ]
    yield "one sample, in this process", "median ms"
    for title, step in steps:
        yield title, _milliseconds(step, num_samples)
    usual = _usual_way()
    if usual is not None:
        few = min(num_samples, _USUAL_SAMPLES)
        median = _milliseconds(lambda n: usual(read(n, "json")), few)
        yield "as is usual: pycocotools, stack, float32", median


def _milliseconds(step: Callable[[int], object], num_samples: int) -> str:
    median = 1e3 * statistics.median(_seconds(partial(step, n)) for n in range(num_samples))
    return f"{median:,.0f}" if median >= 100 else f"{median:.3g}"


def _usual_way() -> Callable[[bytes], object] | None:
    """Return what loaders do today with an annotation file, if pycocotools is installed."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError:
        return None
    import json

    import numpy as np
    import torch

    def load(content: bytes) -> object:
        masks = [coco_mask.decode(a["segmentation"]) for a in json.loads(content)["annotations"]]
        return torch.from_numpy(np.stack(masks)).float() if masks else None

    return load


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _spread(length: int, count: int) -> list[int]:
    """Return ``count`` places all over a dataset."""
    return [i * length // count for i in range(count)]


# Loaders


@dataclass
class _Measured:
    samples_per_second: float
    peak_bytes: int | None


@dataclass
class _Bench:
    """Runs loaders over the same samples."""

    dataset: SA1BDataset
    without_masks: SA1BDataset
    samples: int
    batch_size: int
    device: str

    def measure(
        self, workers: int, *, masks: bool = True, decode: bool = False, **options: Any
    ) -> _Measured:
        """Load all samples twice: to start the workers and see the memory, and on time."""
        import torch
        from torch.utils.data import Subset

        from sa1b_fastdecode.data import create_sa1b_dataloader

        dataset = self.dataset if masks else self.without_masks
        loader = create_sa1b_dataloader(
            Subset(dataset, _spread(len(dataset), self.samples)),
            batch_size=self.batch_size,
            num_workers=workers,
            **options,
        )

        def load(after_batch: Callable[[], object]) -> None:
            for batch in loader:
                batch = batch.to(self.device, non_blocking=True)
                if decode:
                    batch["masks"].decode()
                after_batch()
            if self.device != "cpu":
                torch.cuda.synchronize()

        peak = _PeakMemory()
        load(peak.look)
        seconds = _seconds(lambda: load(lambda: None))
        return _Measured(self.samples / seconds, peak.num_bytes)


class _PeakMemory:
    """The most memory that this process and its workers had together, shared pages counted once."""

    num_bytes: int | None = None

    def look(self) -> None:
        pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        try:
            sizes = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        except OSError:  # another system, or a worker that has just gone
            return
        kilobytes = (re.findall(r"^Pss: +(\d+)", text, re.MULTILINE)[0] for text in sizes)
        total = 1024 * sum(map(int, kilobytes))
        self.num_bytes = max(self.num_bytes or 0, total)


def _print_workers(bench: _Bench, workers: Sequence[int]) -> int:
    """Print samples/s by number of workers; return the best number."""
    rows = [
        ("samples/s by num_workers", "masks packed", "decoded", "images only", "share", "peak MB")
    ]
    packed = {}
    for number in workers:
        floor = bench.measure(number, masks=False)
        decoded = bench.measure(number, decode=True)
        packed[number] = bench.measure(number)
        rate = packed[number].samples_per_second
        rows.append(
            (
                str(number),
                f"{rate:.3g}",
                f"{decoded.samples_per_second:.3g}",
                f"{floor.samples_per_second:.3g}",
                f"{rate / floor.samples_per_second:.0%}",
                _megabytes(packed[number]),
            )
        )
    print(format_table(rows, "<>>>>>"))
    print("decoded: to uint8 in this process; share: packed against the floor, images only\n")
    return max(packed, key=lambda number: packed[number].samples_per_second)


def _print_prefetch(bench: _Bench, workers: int, factors: Sequence[int]) -> None:
    if workers == 0:
        print("prefetch_factor: needs workers; without any it is fastest here")
        return
    rows = [("samples/s by prefetch_factor", "masks packed", "peak MB")]
    for factor in factors:
        measured = bench.measure(workers, prefetch_factor=factor)
        rows.append((str(factor), f"{measured.samples_per_second:.3g}", _megabytes(measured)))
    print(format_table(rows, "<>>"))
    print(f"with {workers} workers\n")


def _print_pinning(bench: _Bench, workers: int) -> None:
    if bench.device == "cpu":
        print("pin_memory: needs --device cuda")
        return
    rows = [("samples/s by pin_memory", f"packed, on {bench.device}", "decoded")]
    for pin in (False, True):
        packed, decoded = (bench.measure(workers, decode=d, pin_memory=pin) for d in (False, True))
        rows.append(
            (str(pin), f"{packed.samples_per_second:.3g}", f"{decoded.samples_per_second:.3g}")
        )
    print(format_table(rows, "<>>"))
    print(f"with {workers} workers")


def _megabytes(measured: _Measured) -> str:
    return "" if measured.peak_bytes is None else f"{measured.peak_bytes / 1e6:,.0f}"
