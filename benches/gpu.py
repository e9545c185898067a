"""What a GPU does: `python -m benches.gpu results.json`. Needs one, and 60 GB of its memory.

Every contender of a case is checked, then all are timed in turn, round by round, on inputs that
rotate. Two clocks:

* whole call: the host's clock from before the call until the GPU has done all of it;
* kernels: the GPU's clock around the call, which was queued while the GPU was kept busy, so that
  no time of the host is in it.

The floor of decoding is ``cudaMemsetAsync`` of the same bytes, called by its name in the driver.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sa1b_fastdecode as fd
from sa1b_fastdecode.sample import generate_annotation

from .common import Target, within
from .compare import _spread, describe_commit, describe_target, write

DEVICE = "cuda"
ROUNDS = 25
SLOW = 0.05  # seconds a call, from which few rounds are enough
SLOW_ROUNDS = 3
BUSY = 2_000_000  # clock cycles, a millisecond: longer than the host takes to queue any call

Call = Callable[[], Any]


@dataclass
class Contender:
    """A way to do what a case is about: one call for each input."""

    calls: list[Call]
    kind: str = "ours"  # or "peer", "floor"
    clock: str = "whole call"  # or "kernels"
    checked: bool = True  # whether its results are compared


@dataclass
class Case:
    """What is done to which inputs, and what must come out of it."""

    title: str
    contenders: dict[str, Contender]
    check: Callable[[int, Any], None]  # of the result for input i
    targets: Sequence[Target] = ()
    num_bytes: int = 0  # of the result


def synchronize() -> None:
    torch.cuda.synchronize()


def whole_call(call: Call) -> float:
    """Return the seconds until the GPU has done what a call asks for."""
    synchronize()
    start = time.perf_counter()
    result = call()
    synchronize()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def kernels(call: Call) -> float:
    """Return the seconds that the GPU works for a call."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    synchronize()
    torch.cuda._sleep(BUSY)
    begin.record()
    result = call()
    end.record()
    synchronize()
    del result
    return begin.elapsed_time(end) / 1e3


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def memset(tensor: torch.Tensor) -> None:
    """Fill a tensor with zeros. ``Tensor.zero_`` may use a kernel of torch's own."""
    status = _driver().cuMemsetD8Async(
        ctypes.c_uint64(tensor.data_ptr()),
        ctypes.c_ubyte(0),
        ctypes.c_size_t(tensor.numel() * tensor.element_size()),
        ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
    )
    if status != 0:
        raise RuntimeError(f"cuMemsetD8Async gives {status}")


CLOCKS = {"whole call": whole_call, "kernels": kernels}


def check(case: Case, contender: Contender) -> str | None:
    """Say what is wrong with the results of a contender."""
    for index, call in enumerate(contender.calls):
        result = call()
        synchronize()
        if not contender.checked:
            continue
        try:
            case.check(index, result)
        except AssertionError as error:
            return f"input {index}: {error}"
    return None


def measure(case: Case) -> dict[str, list[float]]:
    """Check every contender, then time them in turn; milliseconds of each round."""
    rounds = {}
    for name, contender in case.contenders.items():
        wrong = check(case, contender)
        if wrong and contender.kind == "ours":
            raise AssertionError(f"{name} is wrong: {wrong}")
        if wrong:
            print(f"left out: {name} of {case.title}: {wrong}")
            continue
        slow = CLOCKS[contender.clock](contender.calls[0]) > SLOW
        rounds[name] = SLOW_ROUNDS if slow else ROUNDS
    times: dict[str, list[float]] = {name: [] for name in rounds}
    names = list(rounds)
    gc.collect()
    gc.disable()
    try:
        for current in range(ROUNDS):
            turn = current % len(names)  # nobody always follows the same neighbour
            for name in names[turn:] + names[:turn]:
                if current < rounds[name]:
                    contender = case.contenders[name]
                    call = contender.calls[current % len(contender.calls)]
                    times[name].append(CLOCKS[contender.clock](call) * 1e3)
    finally:
        gc.enable()
    return times


def judge(target: Target, times: dict[str, list[float]]) -> dict[str, Any]:
    """What was asked and what was measured."""
    median = statistics.median(times[target.who])
    if target.against is None:
        limit = target.limit_ms or 0
        return {
            "who": target.who,
            "limit_ms": limit,
            "measured_ms": median,
            "met": median <= limit,
        }
    speedup = statistics.median(times[target.against]) / median
    return {
        "who": target.who,
        "against": target.against,
        "speedup_asked": target.factor,
        "speedup": speedup,
        "met": speedup >= (target.factor or 0),
    }


def summarise(case: Case, times: dict[str, list[float]]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "title": case.title,
        "bytes": case.num_bytes,
        "contenders": {
            name: {"kind": case.contenders[name].kind, "clock": case.contenders[name].clock}
            | _spread(values)
            for name, values in times.items()
        },
        "targets": [judge(target, times) for target in case.targets],
    }
    for spread in summary["contenders"].values():
        if case.num_bytes:
            spread["gb_per_s"] = case.num_bytes / spread["median_ms"] / 1e6
    return summary


def report(summary: dict[str, Any]) -> None:
    print(f"\n{summary['title']}", flush=True)
    for name, spread in summary["contenders"].items():
        rate = f"{spread['gb_per_s']:9.0f} GB/s" if "gb_per_s" in spread else ""
        print(f"  {name:44}{spread['median_ms']:10.4f} ms{rate}")
    for verdict in summary["targets"]:
        print(f"  {'met ' if verdict['met'] else 'MISS'} {describe_target(verdict)}", flush=True)


# --- Inputs


def draw_seeds(seed: int, count: int) -> list[int]:
    return random.Random(seed).sample(range(1_000_000), count)


@cache
def images(seed: int, count: int, num_masks: int, height: int, width: int) -> list[list[Any]]:
    """Return the RLEs of some images that look like SA-1B."""
    size = {"height": height, "width": width, "num_masks": num_masks}
    annotations = [generate_annotation(s, **size)["annotations"] for s in draw_seeds(seed, count)]
    return [[each["segmentation"] for each in image] for image in annotations]


def noise(seed: int, num_masks: int, height: int, width: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 2, (num_masks, height, width), np.uint8)
    return list(fd.encode_masks(masks).to_coco())


# --- How people do it on a GPU now


def _values_of(string: bytes) -> np.ndarray[Any, Any]:
    """Read the values of one compressed string, all at once with NumPy."""
    chars = np.frombuffer(string, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(chars < 32)
    begins = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(chars)) - np.repeat(begins, ends - begins + 1)
    values = np.add.reduceat((chars & 31) << (5 * place), begins)
    negative = (chars[ends] & 16) != 0
    return np.asarray(values - (negative << (5 * (ends - begins + 1))))


def _counts_of(string: bytes) -> np.ndarray[Any, Any]:
    values = _values_of(string)
    counts = values.copy()
    counts[1::2] = np.cumsum(values[1::2])  # from the fourth on, differences to the one before last
    counts[2::2] = np.cumsum(values[2::2])
    return counts


def decode_by_repeating(rles: Sequence[Any]) -> torch.Tensor:
    """Run lengths on the host; ``repeat_interleave`` and a transposition on the GPU."""
    height, width = rles[0]["size"]
    masks = []
    for rle in rles:
        counts = torch.from_numpy(_counts_of(rle["counts"].encode())).to(DEVICE)
        values = torch.arange(len(counts), device=DEVICE).to(torch.uint8) & 1
        pixels = torch.repeat_interleave(values, counts, output_size=height * width)
        masks.append(pixels.view(width, height).t())
    return torch.stack(masks)


def decode_by_pycocotools(rles: Sequence[Any]) -> torch.Tensor:
    import pycocotools.mask

    masks = [torch.from_numpy(pycocotools.mask.decode(rle)) for rle in rles]
    return torch.stack(masks).to(DEVICE)


def iou_by_matmul(masks: torch.Tensor) -> torch.Tensor:
    """Of dense float masks; the counts are below 2**24, so float32 holds them exactly."""
    flat = masks.flatten(1)
    shared = flat @ flat.T
    area = shared.diagonal()
    return shared / (area[:, None] + area - shared)


def iou_by_broadcasting(masks: torch.Tensor) -> torch.Tensor:
    """A row at a time: all pairs at once would take N times the memory of the masks."""
    area = masks.sum((1, 2))
    rows = []
    for index in range(len(masks)):
        shared = (masks[index] & masks).sum((1, 2))
        rows.append(shared / (area[index] + area - shared))
    return torch.stack(rows)


def encode_by_nonzero(masks: torch.Tensor) -> list[list[int]]:
    """Boundaries of each mask with ``nonzero``, its run lengths with a copy to the host."""
    n, height, width = masks.shape
    flat = masks.transpose(1, 2).reshape(n, -1)
    changes = flat[:, 1:] ^ flat[:, :-1]
    counts = []
    for index in range(n):
        ends = changes[index].nonzero()[:, 0] + 1
        edges = torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), height * width)])
        lengths = (edges[1:] - edges[:-1]).tolist()
        counts.append(lengths if flat[index, 0] == 0 else [0, *lengths])
    return counts


# --- Cases


def has_pycocotools() -> bool:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        return False
    return True


def check_equal(expected: Sequence[Any], index: int, result: Any) -> None:
    wanted = expected[index]
    assert result.shape == wanted.shape, (result.shape, wanted.shape)
    assert torch.equal(result, wanted.to(result.device, result.dtype)), "it differs"


def decode_case(
    title: str,
    inputs: Sequence[Any],
    expected: Sequence[torch.Tensor],
    *,
    arguments: dict[str, Any] | None = None,
    peers: bool = False,
    targets: Sequence[Target] = (),
) -> Case:
    """Decoding from wherever the masks are; the inputs are lists of RLEs, or of lists of them."""
    arguments = arguments or {}
    packed = [fd.pack_rles(rles) for rles in inputs]
    pinned = [batch.pin_memory() for batch in packed]
    there = [batch.to(DEVICE) for batch in packed]
    out = there[0].decode(**arguments)
    assert all(batch.decode(**arguments).shape == out.shape for batch in there[1:])
    into = [partial(batch.decode, out=out, **arguments) for batch in there]
    source = torch.ones_like(out)

    def from_dicts(rles: Any) -> torch.Tensor:
        return fd.decode_rle_batch(rles, DEVICE, **arguments)

    def from_pinned(batch: fd.RLEBatch) -> torch.Tensor:
        return batch.to(DEVICE, non_blocking=True).decode(**arguments)

    contenders = {
        "from dicts": Contender([partial(from_dicts, rles) for rles in inputs]),
        "from a pinned batch": Contender([partial(from_pinned, batch) for batch in pinned]),
        "from a batch on the GPU": Contender([partial(b.decode, **arguments) for b in there]),
        "the same, into out": Contender(into),
        "kernels": Contender(into, clock="kernels"),
        "memset": Contender([partial(memset, out)], "floor", "kernels", checked=False),
        "memset, whole call": Contender([partial(memset, out)], "floor", checked=False),
        "copy on the GPU": Contender(
            [partial(out.copy_, source)], "floor", "kernels", checked=False
        ),
    }
    if peers:
        by_repeating = [partial(decode_by_repeating, rles) for rles in inputs]
        contenders["repeat_interleave on the GPU"] = Contender(by_repeating, "peer")
        if has_pycocotools():
            by_pycocotools = [partial(decode_by_pycocotools, rles) for rles in inputs]
            contenders["pycocotools, stack, to the GPU"] = Contender(by_pycocotools, "peer")
    return Case(
        title,
        contenders,
        partial(check_equal, expected),
        targets,
        out.numel() * out.element_size(),
    )


def limit(who: str, microseconds: float) -> Target:
    return Target(who, limit_ms=microseconds / 1e3)


def image_case(seed: int, count: int) -> Case:
    """So many images of 100 masks, four of them different."""
    base = images(seed, 4, 100, 1500, 2250)
    dense = [fd.pack_rles(rles).decode().to(DEVICE) for rles in base]
    orders = [[(start + i) % 4 for i in range(count)] for start in range(3)]
    inputs = [[base[k] for k in order] for order in orders]
    targets = [within("kernels", "memset", 1 / 0.9 if count >= 4 else 1 / 0.75)]
    if count == 1:
        targets += [
            limit("from a batch on the GPU", 130),
            limit("from a pinned batch", 180),
            limit("from dicts", 400),
        ]
        flat = [image for (image,) in inputs]
        expected = [dense[k] for (k,) in orders]
        title = "an image of 100 masks, 1500 x 2250, uint8"
        return decode_case(title, flat, expected, peers=True, targets=targets)
    title = f"{count} images of 100 masks, 1500 x 2250, uint8"
    case = decode_case(title, inputs, [], targets=targets)

    def check(index: int, result: torch.Tensor) -> None:
        for k, image in zip(orders[index], result, strict=True):
            check_equal(dense, k, image)

    case.check = check
    return case


def variant_case(seed: int, title: str, **arguments: Any) -> Case:
    """One image, decoded in another way."""
    inputs = images(seed, 4, 100, 1500, 2250)[:3]
    expected = [fd.pack_rles(rles).decode(**arguments).to(DEVICE) for rles in inputs]
    title = f"an image of 100 masks, 1500 x 2250, {title}"
    return decode_case(title, inputs, expected, arguments=arguments)


def bits_case(seed: int) -> Case:
    """One image, a bit for each pixel."""
    packed = [fd.pack_rles(rles) for rles in images(seed, 4, 100, 1500, 2250)[:3]]
    there = [batch.to(DEVICE) for batch in packed]
    expected = [batch.decode_bits().to(DEVICE) for batch in packed]
    out = torch.empty_like(expected[0])
    calls: list[Call] = [batch.decode_bits for batch in there]
    contenders = {
        "from a batch on the GPU": Contender(calls),
        "kernels": Contender(calls, clock="kernels"),
        "memset": Contender([partial(memset, out)], "floor", "kernels", checked=False),
    }
    title = "an image of 100 masks, 1500 x 2250, bits"
    return Case(title, contenders, partial(check_equal, expected), (), out.numel())


def small_case(seed: int) -> Case:
    inputs = images(seed, 3, 1000, 480, 640)
    expected = [fd.pack_rles(rles).decode().to(DEVICE) for rles in inputs]
    return decode_case("1000 masks, 480 x 640, uint8", inputs, expected)


def noise_case(seed: int) -> Case:
    inputs = [noise(s, 16, 1500, 2250) for s in draw_seeds(seed, 2)]
    expected = [fd.pack_rles(rles).decode().to(DEVICE) for rles in inputs]
    return decode_case("16 masks of noise, 1500 x 2250, uint8", inputs, expected)


def iou_case(title: str, inputs: Sequence[Any], limit_us: float | None, peers: bool) -> Case:
    """All pairs of each input, of each image where it has several."""
    packed = [fd.pack_rles(rles) for rles in inputs]
    there = [batch.to(DEVICE) for batch in packed]
    expected = [batch.iou(batch) for batch in packed]
    calls = [partial(batch.iou, batch) for batch in there]

    def from_dicts(rles: Any) -> torch.Tensor:
        batch = fd.pack_rles(rles).to(DEVICE)
        return batch.iou(batch)

    contenders = {
        "from dicts": Contender([partial(from_dicts, rles) for rles in inputs]),
        "from a batch on the GPU": Contender(calls),
        "kernels": Contender(calls, clock="kernels"),
    }
    if peers:
        dense = [batch.decode(dtype=torch.float32) for batch in there[:1]]
        by_matmul = [partial(iou_by_matmul, masks) for masks in dense]
        by_broadcasting = [partial(iou_by_broadcasting, masks.bool()) for masks in dense]
        contenders["matmul of dense masks"] = Contender(by_matmul, "peer")
        contenders["broadcast of dense masks"] = Contender(by_broadcasting, "peer")
    targets = [limit("from a batch on the GPU", limit_us)] if limit_us else []
    return Case(title, contenders, partial(check_equal, expected), targets)


def encode_case(seed: int) -> Case:
    base = images(seed, 4, 100, 1500, 2250)[:3]
    packed = [fd.pack_rles(rles) for rles in base]
    masks = [batch.to(DEVICE).decode() for batch in packed]
    expected = [fd.encode_masks(batch.decode()) for batch in packed]
    counts = [[rle["counts"] for rle in batch.to_coco("list")] for batch in expected]
    copy = torch.empty_like(masks[0])

    def check(index: int, result: Any) -> None:
        if isinstance(result, list):
            assert result == counts[index], "it differs"
        else:
            assert result == expected[index], "it differs"

    contenders = {
        "from masks on the GPU": Contender([partial(fd.encode_masks, m) for m in masks]),
        "nonzero on the GPU": Contender([partial(encode_by_nonzero, m) for m in masks], "peer"),
        "copy on the GPU": Contender(
            [partial(copy.copy_, m) for m in masks], "floor", "kernels", checked=False
        ),
        "read once": Contender(
            [partial(torch.sum, m.flatten().view(torch.int64)) for m in masks],
            "floor",
            "kernels",
            checked=False,
        ),
    }
    title = "encode 100 masks, 1500 x 2250, uint8"
    num_bytes = masks[0].numel()
    targets = [limit("from masks on the GPU", 200)]
    return Case(title, contenders, check, targets, num_bytes)


def cases(seed: int) -> dict[str, Callable[[], Case]]:
    """Each is made when its turn comes: together they would not fit."""
    dtypes = (torch.bool, torch.float16, torch.bfloat16, torch.float32)
    return {
        **{f"decode-{count}": partial(image_case, seed, count) for count in (1, 4, 16, 64)},
        **{
            f"decode-{str(dtype).removeprefix('torch.')}": partial(
                variant_case, seed, str(dtype).removeprefix("torch."), dtype=dtype
            )
            for dtype in dtypes
        },
        **{
            f"decode-to-{side}": partial(
                variant_case, seed, f"at size ({side}, {side})", size=(side, side)
            )
            for side in (1024, 256)
        },
        "decode-bits": partial(bits_case, seed),
        "decode-small": partial(small_case, seed),
        "decode-noise": partial(noise_case, seed),
        "iou-100": lambda: iou_case(
            "IoU of 100 x 100, 1500 x 2250", images(seed, 4, 100, 1500, 2250)[:3], 50, True
        ),
        "iou-1000": lambda: iou_case(
            "IoU of 1000 x 1000, 480 x 640", images(seed, 3, 1000, 480, 640), 3000, True
        ),
        "iou-64-images": lambda: iou_case(
            "IoU of 100 x 100 in each of 64 images",
            [images(seed, 4, 100, 1500, 2250) * 16],
            None,
            False,
        ),
        "encode-100": partial(encode_case, seed),
    }


def describe_gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benches.gpu")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--select", default="", help="only cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no case after these")
    arguments = parser.parse_args()

    torch.set_float32_matmul_precision("high")
    left_out = {} if has_pycocotools() else {"pycocotools": "it is not installed"}
    done: dict[str, Any] = {}
    results = {
        "seed": arguments.seed,
        "commit": describe_commit(),
        "machine": describe_gpu(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        },
        "left_out": left_out,
        "cases": done,
    }
    failed = False
    start = time.monotonic()
    for name, make in cases(arguments.seed).items():
        if arguments.select not in name:
            continue
        if time.monotonic() - start > arguments.seconds:
            left_out[name] = "no time was left"
            continue
        try:
            case = make()
            done[name] = summarise(case, measure(case))
            report(done[name])
        except (AssertionError, RuntimeError) as error:  # the others can still be measured
            failed = True
            left_out[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: {left_out[name]}", flush=True)
        case = None
        gc.collect()
        torch.cuda.empty_cache()
        write(results, arguments.output)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
