"""Measure loading from tars in Meta's layout: `python -m benches.loading`.

Loaders take turns, round by round, each with the same two workers, which live through all rounds; a
ratio is the median of ratios of neighbours in time. What each gives is checked first.
"""

from __future__ import annotations

import argparse
import datetime
import io
import itertools
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset

import sa1b_fastdecode as fd
from sa1b_fastdecode.data.annotations import parse_annotations
from sa1b_fastdecode.data.images import decode_jpeg
from sa1b_fastdecode.sample import generate_annotation, generate_image

from .compare import RESULTS, describe_commit, describe_machine, describe_versions

WORKERS = 2
BATCH = 4
DISTINCT = 8  # images; a tar holds each of them many times
MEMBERS = 22_372  # of a tar of SA-1B
SOAK = 2000  # samples
TARGETS = {  # at least, or with "<" at most
    "masks packed / masks off": (">", 0.90),
    "masks packed / JPEG decoding alone": (">", 0.80),
    "masks packed / loader of the documents": (">", 20),
    "random access / tarfile.getmember": (">", 500),
    "bytes sent for masks / bytes of counts": ("<", 2),
    "ms to open 1000 indexes": ("<", 50),
}


# Data


def write_tar(path: Path, contents: Iterator[tuple[str, bytes]], seed: int = 0) -> Path:
    """Write members in random order, as in Meta's tars."""
    members = list(contents)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in np.random.default_rng(seed).permutation(len(members)).tolist():
            name, content = members[i]
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def make_images() -> list[tuple[bytes, bytes]]:
    """JPEG and JSON of a few images of SA-1B's usual size and number of masks."""
    images = []
    for seed in range(DISTINCT):
        annotation = generate_annotation(seed)
        jpeg = io.BytesIO()
        PIL.Image.fromarray(generate_image(annotation, seed)).save(jpeg, "JPEG", quality=90)
        images.append((jpeg.getvalue(), json.dumps(annotation).encode()))
    return images


def repeat(images: list[tuple[bytes, bytes]], times: int) -> Iterator[tuple[str, bytes]]:
    for i in range(times):
        jpeg, annotations = images[i % len(images)]
        yield f"sa_{i + 1}.jpg", jpeg
        yield f"sa_{i + 1}.json", annotations


# Contenders


class JpegOnly(Dataset[int]):
    """Reads and decodes images, and gives nothing."""

    def __init__(self, index: fd.data.TarIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> int:
        return int(decode_jpeg(self.index.read(i, "jpg"))[0, 0, 0])


class FromTheDocuments(Dataset[dict[str, Any]]):
    """The loader of the documents, from a folder: pycocotools, stack, float."""

    def __init__(self, folder: Path, num_images: int) -> None:
        self.stems = [folder / f"sa_{i + 1}" for i in range(num_images)]

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, i: int) -> dict[str, Any]:
        stem = self.stems[i]
        with PIL.Image.open(stem.with_suffix(".jpg")) as opened:
            image = np.array(opened.convert("RGB"))
        annotations = json.loads(stem.with_suffix(".json").read_text())["annotations"]
        masks = np.stack([coco_mask.decode(a["segmentation"]) for a in annotations])
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1).float() / 255,
            "masks": torch.from_numpy(masks).float(),
            "bboxes": torch.tensor([a["bbox"] for a in annotations]),
            "areas": torch.tensor([a["area"] for a in annotations]),
            "image_id": stem.name,
        }


def first(samples: list[Any]) -> Any:
    return samples[0]


# Measuring


def pass_over(loader: Any, consume: Callable[[Any], Any] = lambda batch: None) -> float:
    """Return the seconds of one pass."""
    start = time.perf_counter()
    for batch in loader:
        consume(batch)
    return time.perf_counter() - start


def median_ms(function: Callable[[], Any], calls: int = 30) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure_loaders(folder: Path, images: list[tuple[bytes, bytes]], rounds: int) -> dict[str, Any]:
    num_images, few = 96, 8
    tar = write_tar(folder / "sa_000000.tar", repeat(images, num_images))
    extracted = folder / "extracted"
    extracted.mkdir()
    for name, content in repeat(images, few):
        (extracted / name).write_bytes(content)
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS}
    index = fd.data.TarIndex.open(tar)
    packed = fd.data.SA1BDataset(folder, [0], cache_size=0, progress=False)
    masks_off = fd.data.SA1BDataset(folder, [0], mask_format="none", cache_size=0, progress=False)
    check(packed, images)
    plane = torch.empty((1, 100, 2250, 2250), dtype=torch.float32)

    def decode(batch: Any) -> None:
        masks = batch["masks"]
        out = plane.flatten()[: 100 * masks.height * masks.width]
        masks.decode(dtype=torch.float32, out=out.view(1, 100, masks.height, masks.width))

    # Name: loader, what the main process does with a batch, samples in a pass.
    single = {"num_workers": WORKERS, "persistent_workers": True, "prefetch_factor": 1}
    small = torch.utils.data.Subset(packed, range(few))
    loaders: dict[str, tuple[Any, Callable[[Any], Any], int]] = {
        "masks packed": (
            fd.data.create_sa1b_dataloader(packed, **options), lambda b: None, num_images
        ),
        "masks off": (
            fd.data.create_sa1b_dataloader(masks_off, **options), lambda b: None, num_images
        ),
        "JPEG decoding alone": (
            DataLoader(JpegOnly(index), shuffle=True, persistent_workers=True, **options),
            lambda b: None,
            num_images,
        ),
        "masks packed, streamed": (
            fd.data.create_sa1b_dataloader(fd.data.SA1BStream(packed), **options),
            lambda b: None,
            num_images,
        ),
        "masks packed, then decoded to float32 here": (
            fd.data.create_sa1b_dataloader(packed, **{**options, "batch_size": 1}),
            decode,
            num_images,
        ),
        "masks dense float32 from the workers": (
            fd.data.create_sa1b_dataloader(
                small, 1, WORKERS, 1, dense=True, mask_dtype=torch.float32
            ),
            lambda b: None,
            few,
        ),
        "loader of the documents": (
            DataLoader(FromTheDocuments(extracted, few), collate_fn=first, **single),
            lambda b: None,
            few,
        ),
    }  # fmt: skip
    for loader, consume, _ in loaders.values():
        pass_over(loader, consume)  # starts the workers
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds):
        names = list(loaders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            loader, consume, count = loaders[name]
            if count == few and turn % 3:
                rates[name].append(rates[name][-1])  # it takes long
                continue
            rates[name].append(count / pass_over(loader, consume))
            print(f"  {name}: {rates[name][-1]:.1f} samples/s")
    return {"samples/s": {name: statistics.median(rate) for name, rate in rates.items()}, **{
        f"masks packed / {name}": statistics.median(
            ours / other for ours, other in zip(rates["masks packed"], rates[name], strict=True)
        )
        for name in list(loaders)[1:]
    }}  # fmt: skip


def check(dataset: fd.data.SA1BDataset, images: list[tuple[bytes, bytes]]) -> None:
    """A sample is what PIL, json and pycocotools make of it."""
    sample = dataset[1]
    jpeg, content = images[1]
    assert np.array_equal(
        sample["image"].permute(1, 2, 0).numpy(), np.array(PIL.Image.open(io.BytesIO(jpeg)))
    )
    annotations = json.loads(content)["annotations"]
    for mask, annotation in zip(sample["masks"], annotations, strict=True):
        assert np.array_equal(mask.numpy(), coco_mask.decode(annotation["segmentation"]))


def measure_steps(folder: Path, images: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """What one sample costs a worker, in milliseconds: where the rest of the time goes."""
    index = fd.data.TarIndex.open(folder / "sa_000000.tar")
    jpeg, annotations = images[0]
    pixels = decode_jpeg(jpeg)
    num_bytes = pixels.nbytes
    dataset = fd.data.SA1BDataset(
        folder, [0], mask_format="rle", cache_size=0, preload_index=False, progress=False
    )
    batch = fd.data.sa1b_collate_fn([dataset[0]])

    def decode_shared() -> None:
        storage = torch.UntypedStorage._new_shared(num_bytes)  # type: ignore[no-untyped-call]
        shared = torch.empty(0, dtype=torch.uint8).set_(storage).view(pixels.shape)
        decode_jpeg(jpeg, shared.numpy())

    return {
        "read the JPEG": median_ms(lambda: index.read(0, "jpg")),
        "read the annotations": median_ms(lambda: index.read(0, "json")),
        "parse, check and pack the annotations": median_ms(lambda: parse_annotations(annotations)),
        "decode the JPEG to memory of its own": median_ms(lambda: decode_jpeg(jpeg)),
        "decode the JPEG to new shared memory": median_ms(decode_shared),
        "pickle the masks of a batch of one": median_ms(
            lambda: ForkingPickler.dumps(batch["masks"])
        ),
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
        index.read(i, "jpg")
    ours = (time.perf_counter() - start) / len(picks)
    start = time.perf_counter()
    for i in picks[:2000]:
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
        "ms to scan a tar of 22,372 members": 1e3 * scan,
        "us to read a member": 1e6 * ours,
        "us to read a member by its name": 1e6 * by_name,
        "ms with tarfile.getmember": 1e3 * statistics.median(theirs),
        "random access / tarfile.getmember": statistics.median(theirs) / ours,
        "bytes of the index": (tar.with_name(f"{tar.name}.index")).stat().st_size,
    }


def measure_opening(folder: Path) -> dict[str, float]:
    """A thousand saved indexes of full size are opened."""
    place = folder / "thousand"
    place.mkdir()
    model = folder / "many" / "sa_000000.tar"
    saved = model.with_name(f"{model.name}.index").read_bytes()
    status = model.stat()
    tars = [place / f"sa_{i:06d}.tar" for i in range(1000)]
    for tar in tars:
        os.link(model, tar)
        tar.with_name(f"{tar.name}.index").write_bytes(saved)
    assert tars[0].stat().st_mtime_ns == status.st_mtime_ns
    indexes: list[Any] = []

    def open_all() -> None:
        indexes[:] = [fd.data.TarIndex.load(tar) for tar in tars]

    opened = median_ms(open_all, 9)
    assert all(len(index) == MEMBERS // 2 for index in indexes)
    return {"ms to open 1000 indexes": opened}


def measure_bytes(images: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """What a worker sends for the masks of a sample, in bytes of their counts strings."""
    ratios = []
    for _, content in images:
        annotations = json.loads(content)["annotations"]
        counts = sum(len(a["segmentation"]["counts"]) for a in annotations)
        masks = fd.pack_rles([annotations])
        ratios.append(len(ForkingPickler.dumps(masks)) / counts)
    return {"bytes sent for masks / bytes of counts": max(ratios)}


def measure_soak(folder: Path) -> dict[str, Any]:
    """Anonymous memory of each worker while 2,000 samples pass, and its slope in the second half."""
    dataset = fd.data.SA1BDataset(folder, [0], progress=False, cache_bytes=16 << 20)
    loader = fd.data.create_sa1b_dataloader(dataset, BATCH, WORKERS)
    samples, points = 0, []
    while samples < SOAK:
        for batch in loader:
            samples += len(batch["image_ids"])
            if samples % 48 == 0:
                workers = loader._iterator._workers  # type: ignore[union-attr]
                points.append((samples, [private_megabytes(w.pid) for w in workers]))
    late = [(n, max(sizes)) for n, sizes in points if n > SOAK / 2]
    slope = np.polyfit([n for n, _ in late], [size for _, size in late], 1)[0]
    return {
        "MB of the larger worker, first and last": [max(points[0][1]), max(points[-1][1])],
        "MB more for 1000 samples, in the second half": float(1000 * slope),
        "samples": samples,
    }


def private_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} does not say how much memory it has")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benches.loading")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-soak", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(WORKERS)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": describe_commit(),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = make_images()
        results |= measure_loaders(folder, images, arguments.rounds)
        results["ms of a worker for a sample"] = measure_steps(folder, images)
        results |= measure_access(folder) | measure_opening(folder) | measure_bytes(images)
        if not arguments.no_soak:
            results["soak"] = measure_soak(folder)
    results["targets"] = {
        name: {"wanted": f"{sign} {limit}", "met": (results[name] > limit) == (sign == ">")}
        for name, (sign, limit) in TARGETS.items()
    }
    print(json.dumps(results, indent=1))
    path = RESULTS / "loading" / f"{results['date']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
