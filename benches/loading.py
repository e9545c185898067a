"""Measure loading from tars in Meta's layout: `python -m benches.loading`.

Loaders take turns, round by round, each with the same two workers, which live through all rounds; a
ratio is the median of ratios of neighbours in time. What each gives is checked first.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

import sa1b_fastdecode as fd
from sa1b_fastdecode.data.annotations import parse_annotations
from sa1b_fastdecode.data.images import decode_jpeg

from .compare import (
    RESULTS,
    describe_commit,
    describe_machine,
    describe_versions,
    machine_name,
    write,
)
from .inputs import Sample
from .loading_peers import (
    FromTheDocuments,
    Image,
    JpegOnly,
    decode_usually,
    make_images,
    repeat,
    write_tar,
)

WORKERS = 2
BATCH = 4
MEMBERS = 22_372  # of a tar of SA-1B
SOAK = 2000  # samples

PACKED = "masks packed"
MASKS_OFF = "masks off"
JPEG_ALONE = "JPEG decoding alone"
STREAMED = "masks packed, streamed"
DECODED = "masks packed, then decoded to float32 by the main process"
DOCUMENTS = "the documents' loader: pycocotools, stack, float32"

# What was measured, what is asked of it, and the unit.
TARGETS: list[tuple[str, str, float, str]] = [
    (f"{PACKED}, samples/s against {MASKS_OFF}", "at least", 0.90, "x"),
    (f"{PACKED}, samples/s against {JPEG_ALONE}", "at least", 0.80, "x"),
    (f"{PACKED}, samples/s against {DOCUMENTS}", "at least", 20, "x"),
    (f"{DECODED}, samples/s against {DOCUMENTS}", "at least", 20, "x"),
    (f"random access in {MEMBERS:,} members against tarfile.getmember", "at least", 500, "x"),
    ("bytes that a worker sends for a sample's masks against its counts", "at most", 2, "x"),
    ("memory of a worker, growth over 1,000 samples", "at most", 1, " MB"),
    ("spatial features of 100 masks, from dicts", "at most", 3, " ms"),
    ("opening 1,000 saved indexes", "at most", 50, " ms"),
]


# Loaders


def first(samples: list[Any]) -> Any:
    return samples[0]


def pass_over(loader: Any, consume: Callable[[Any], Any] | None = None) -> tuple[float, float]:
    """Return the seconds of one pass, and the processor's seconds of all who took part."""
    batches = iter(loader)
    start, before = time.perf_counter(), processor_seconds(loader)
    for batch in batches:
        if consume is not None:
            consume(batch)
    return time.perf_counter() - start, processor_seconds(loader) - before


def processor_seconds(loader: Any) -> float:
    """Return what this process and the workers have used, which other load changes less."""
    total = time.process_time()
    for worker in loader._iterator._workers:
        user, system = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")")[1].split()[11:13]
        total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def median_ms(function: Callable[[], Any], calls: int = 30) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


class Contender:
    """A loader, what the main process does with its batches, and how often it takes part."""

    def __init__(
        self,
        loader: Any,
        num_samples: int,
        consume: Callable[[Any], Any] | None = None,
        every: int = 1,
    ) -> None:
        self.loader = loader
        self.num_samples = num_samples
        self.consume = consume
        self.every = every
        self.rates: dict[int, float] = {}  # samples/s by round
        self.work: dict[int, float] = {}  # the processor's ms for a sample

    def measure(self, turn: int) -> None:
        if turn % self.every == 0:
            seconds, processor = pass_over(self.loader, self.consume)
            self.rates[turn] = self.num_samples / seconds
            self.work[turn] = 1e3 * processor / self.num_samples

    def against(self, other: Contender) -> float:
        """Return the median ratio of samples/s over the rounds that both took part in."""
        turns = self.rates.keys() & other.rates.keys()
        return statistics.median(self.rates[turn] / other.rates[turn] for turn in turns)


def make_contenders(folder: Path, images: list[Image]) -> dict[str, Contender]:
    num_images, few = 96, 3
    tar = write_tar(folder / "sa_000000.tar", repeat(images, num_images))
    extracted = folder / "extracted"
    extracted.mkdir()
    for name, content in repeat(images, few):
        (extracted / name).write_bytes(content)
    packed = fd.data.SA1BDataset(folder, [0], cache_size=0, progress=False)
    masks_off = fd.data.SA1BDataset(folder, [0], mask_format="none", cache_size=0, progress=False)
    plane = torch.empty((1, 100, 2250, 2250), dtype=torch.float32)

    def decode(batch: Any) -> None:
        masks = batch["masks"]
        out = plane.flatten()[: 100 * masks.height * masks.width]
        masks.decode(dtype=torch.float32, out=out.view(1, 100, masks.height, masks.width))

    make = fd.data.create_sa1b_dataloader
    alone = DataLoader(
        JpegOnly(fd.data.TarIndex.open(tar)),
        batch_size=BATCH,
        num_workers=WORKERS,
        shuffle=True,
        persistent_workers=True,
    )
    documents = DataLoader(
        FromTheDocuments(extracted, few),
        collate_fn=first,  # it cannot join images
        num_workers=WORKERS,
        persistent_workers=True,
        prefetch_factor=1,  # two gigabytes each
    )
    stream = fd.data.SA1BStream(packed)
    return {
        PACKED: Contender(make(packed, BATCH, WORKERS), num_images),
        MASKS_OFF: Contender(make(masks_off, BATCH, WORKERS), num_images),
        JPEG_ALONE: Contender(alone, num_images),
        STREAMED: Contender(make(stream, BATCH, WORKERS), num_images),
        DECODED: Contender(make(Subset(packed, range(24)), 1, WORKERS), 24, decode),
        DOCUMENTS: Contender(documents, few, every=9),
    }


def check(contenders: dict[str, Contender], images: list[Image]) -> None:
    """What the loaders give, images and masks, is what Pillow, json and pycocotools make of it."""
    for name in (PACKED, STREAMED, DECODED):
        batch = next(iter(contenders[name].loader))
        masks = batch["masks"].decode(pad=True)
        for i, image_id in enumerate(batch["image_ids"]):
            image, planes = decode_usually(images[(int(image_id[3:]) - 1) % len(images)])
            height, width = image.shape[:2]
            joined = batch["images"][i, :, :height, :width]
            assert np.array_equal(joined.permute(1, 2, 0).numpy(), image), name
            assert np.array_equal(masks[i, :, :height, :width].numpy(), planes), name
    sample = next(iter(contenders[DOCUMENTS].loader))
    image, planes = decode_usually(images[0])
    assert np.array_equal(sample["masks"].numpy(), planes)


def measure_loaders(folder: Path, images: list[Image], rounds: int) -> dict[str, Any]:
    contenders = make_contenders(folder, images)
    check(contenders, images)
    for contender in contenders.values():
        pass_over(contender.loader, contender.consume)  # starts the workers
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            contenders[name].measure(turn)
        print(f"round {turn + 1} of {rounds}")
    packed, decoded = contenders[PACKED], contenders[DECODED]
    loaders = {
        name: {
            "samples_per_second": statistics.median(contender.rates.values()),
            "processor_ms": statistics.median(contender.work.values()),
            "rounds": len(contender.rates),
            "packed_against_it": packed.against(contender),
        }
        for name, contender in contenders.items()
    }
    return {"loaders": loaders, "same_work": decoded.against(contenders[DOCUMENTS])}


# The rest


def measure_steps(folder: Path, images: list[Image]) -> dict[str, float]:
    """What one sample costs a worker, in milliseconds: where the rest of the time goes."""
    index = fd.data.TarIndex.open(folder / "sa_000000.tar")
    jpeg, annotations = images[0]
    pixels = decode_jpeg(jpeg)
    dataset = fd.data.SA1BDataset(
        folder, [0], mask_format="rle", cache_size=0, preload_index=False, progress=False
    )
    batch = fd.data.sa1b_collate_fn([dataset[0]])
    buffer = np.empty_like(pixels)

    def decode_shared() -> None:
        storage = torch.UntypedStorage._new_shared(pixels.nbytes)  # type: ignore[no-untyped-call]
        shared = torch.empty(0, dtype=torch.uint8).set_(storage).view(pixels.shape)
        decode_jpeg(jpeg, shared.numpy())

    return {
        "read the JPEG": median_ms(lambda: index.read(0, "jpg")),
        "read the annotations": median_ms(lambda: index.read(0, "json")),
        "parse, check and pack the annotations": median_ms(lambda: parse_annotations(annotations)),
        "decode the JPEG to memory of its own": median_ms(lambda: decode_jpeg(jpeg)),
        "decode the JPEG to memory used before": median_ms(lambda: decode_jpeg(jpeg, buffer)),
        "decode the JPEG to new shared memory": median_ms(decode_shared),
        "pickle the masks": median_ms(lambda: ForkingPickler.dumps(batch["masks"])),
        "the whole sample, image decoded": median_ms(lambda: dataset[0]),
    }


def measure_access(folder: Path) -> dict[str, float]:
    """A random member of a tar as large in members as Meta's, by our index and by tarfile."""
    place = folder / "many"
    place.mkdir()
    count = MEMBERS // 2
    contents = itertools.chain.from_iterable(
        ((f"sa_{i}.jpg", b"\xff" * 600), (f"sa_{i}.json", b"{}" * 300)) for i in range(1, count + 1)
    )
    tar = write_tar(place / "sa_000000.tar", contents)
    start = time.perf_counter()
    index = fd.data.TarIndex.open(tar)
    scan = time.perf_counter() - start
    picks = np.random.default_rng(0).integers(count, size=2000).tolist()
    start = time.perf_counter()
    for i in picks:
        assert len(index.read(i, "jpg")) == 600
    ours = (time.perf_counter() - start) / len(picks)
    start = time.perf_counter()
    for i in picks:
        index.read(index.find(f"sa_{i + 1}"), "jpg")
    by_name = (time.perf_counter() - start) / len(picks)
    theirs = []
    for i in picks[:5]:
        start = time.perf_counter()
        with tarfile.open(tar) as opened:
            member = opened.extractfile(opened.getmember(f"./sa_{i + 1}.jpg"))
            assert member is not None and len(member.read()) == 600
        theirs.append(time.perf_counter() - start)
    return {
        "ms to scan the tar once": 1e3 * scan,
        "ms to read a member": 1e3 * ours,
        "ms to read a member by its name": 1e3 * by_name,
        "ms with tarfile.getmember": 1e3 * statistics.median(theirs),
        "times faster": statistics.median(theirs) / ours,
        "KB of the index": tar.with_name(f"{tar.name}.index").stat().st_size / 1e3,
    }


def measure_opening(folder: Path) -> float:
    """Return the milliseconds in which a thousand saved indexes of full size are opened."""
    place = folder / "thousand"
    place.mkdir()
    model = folder / "many" / "sa_000000.tar"
    saved = model.with_name(f"{model.name}.index").read_bytes()
    tars = [place / f"sa_{i:06d}.tar" for i in range(1000)]
    for tar in tars:
        os.link(model, tar)
        tar.with_name(f"{tar.name}.index").write_bytes(saved)
    indexes: list[Any] = []

    def open_all() -> None:
        indexes[:] = [fd.data.TarIndex.load(tar) for tar in tars]

    opened = median_ms(open_all, 9)
    assert all(len(index) == MEMBERS // 2 for index in indexes)
    return opened


def measure_bytes(images: list[Image]) -> float:
    """Return what a worker sends for the masks of a sample, over the bytes of their counts."""
    ratios = []
    for _, content in images:
        annotations = json.loads(content)["annotations"]
        counts = sum(len(a["segmentation"]["counts"]) for a in annotations)
        masks = fd.pack_rles([annotations])
        ratios.append(len(ForkingPickler.dumps(masks)) / counts)
    return max(ratios)


def measure_features(images: list[Image]) -> float:
    """Return the milliseconds of the spatial features of 100 masks."""
    times = []
    for _, content in images:
        rles = [a["segmentation"] for a in json.loads(content)["annotations"]]
        features = fd.spatial.spatial_features(rles)
        sample = Sample(rles)
        assert np.array_equal(features["iou_matrix"], sample.iou_with(sample))
        expected = sample.containment() * (1 - np.eye(len(rles), dtype=np.float32))
        assert np.array_equal(features["containment"], expected)
        times.append(median_ms(lambda rles=rles: fd.spatial.spatial_features(rles)))
    return statistics.median(times)


def measure_soak(folder: Path) -> dict[str, Any]:
    """Memory of each worker while 2,000 samples pass, and its slope in the second half."""
    dataset = fd.data.SA1BDataset(folder, [0], progress=False, cache_bytes=16 << 20)
    loader = fd.data.create_sa1b_dataloader(dataset, BATCH, WORKERS)
    samples, points = 0, []
    while samples < SOAK:
        for batch in loader:
            samples += len(batch["image_ids"])
            if samples % 48 == 0:
                workers = loader._iterator._workers  # type: ignore[union-attr]
                points.append((samples, [megabytes(w.pid) for w in workers]))
    counts, sizes = (np.array(column) for column in zip(*points, strict=True))
    late = counts > SOAK / 2
    slopes = np.polyfit(counts[late], sizes[late], 1)[0]
    return {
        "samples": samples,
        "MB of each worker at first": sizes[0].tolist(),
        "MB of each worker after half": sizes[late][0].tolist(),
        "MB of each worker at last": sizes[-1].tolist(),
        "MB more for 1,000 samples, of the worker that grows most": float(1000 * slopes.max()),
    }


def megabytes(pid: int) -> float:
    """Return the memory that a process has, its own and shared, without that of files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = [line.split()[1] for line in lines if line.startswith(("RssAnon", "RssShmem"))]
    return sum(map(int, sizes)) / 1024


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each target with what was measured, in their order."""
    loaders = results["loaders"]
    measured = [
        *(loaders[name]["packed_against_it"] for name in (MASKS_OFF, JPEG_ALONE, DOCUMENTS)),
        results["same_work"],
        results["access"]["times faster"],
        results["sent"],
        results["soak"]["MB more for 1,000 samples, of the worker that grows most"],
        results["features_ms"],
        results["opening_ms"],
    ]
    return [
        {
            "what": what,
            "measured": value,
            "asked": f"{sign} {limit:g}{unit}",
            "unit": unit,
            "met": value >= limit if sign == "at least" else value <= limit,
        }
        for (what, sign, limit, unit), value in zip(TARGETS, measured, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benches.loading")
    parser.add_argument("--rounds", type=int, default=27)  # one takes half a second
    arguments = parser.parse_args()
    torch.set_num_threads(WORKERS)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": describe_commit(),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    if results["machine"]["load_before"] > 0.5:
        print("the machine is busy: do not publish this run")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = make_images()
        results |= measure_loaders(folder, images, arguments.rounds)
        results["steps_ms"] = measure_steps(folder, images)
        results["access"] = measure_access(folder)
        results["opening_ms"] = measure_opening(folder)
        results["sent"] = measure_bytes(images)
        results["features_ms"] = measure_features(images)
        results["soak"] = measure_soak(folder)
    results["targets"] = judge(results)
    print(json.dumps(results, indent=1))
    path = RESULTS / f"loading-{machine_name()}.json"
    write(results, path)
    print(f"written to {path}; python -m benches.render draws it")


if __name__ == "__main__":
    main()
