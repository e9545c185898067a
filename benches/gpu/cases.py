"""What is measured on a GPU, on inputs that rotate, and against what."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch

import sa1b_fastdecode as fd
from sa1b_fastdecode.sample import generate_annotation

from ..common import Target, within
from .clocks import DEVICE, Call, Case, Contender, memset
from .peers import (
    decode_by_pycocotools,
    decode_by_repeating,
    encode_by_nonzero,
    has_pycocotools,
    iou_by_broadcasting,
    iou_by_matmul,
)


def draw_seeds(seed: int, count: int) -> list[int]:
    return random.Random(seed).sample(range(1_000_000), count)


@cache
def images(seed: int, count: int, num_masks: int, height: int, width: int) -> list[list[Any]]:
    """Return the RLEs of some images that look like SA-1B."""
    size = {"height": height, "width": width, "num_masks": num_masks}
    annotations = [generate_annotation(s, **size)["annotations"] for s in draw_seeds(seed, count)]
    return [[each["segmentation"] for each in image] for image in annotations]


def three_images(seed: int) -> list[list[Any]]:
    return images(seed, 4, 100, 1500, 2250)[:3]


def noise(seed: int, num_masks: int, height: int, width: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 2, (num_masks, height, width), np.uint8)
    return list(fd.encode_masks(masks).to_coco())


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
    inputs = three_images(seed)
    expected = [fd.pack_rles(rles).decode(**arguments).to(DEVICE) for rles in inputs]
    title = f"an image of 100 masks, 1500 x 2250, {title}"
    return decode_case(title, inputs, expected, arguments=arguments)


def bits_case(seed: int) -> Case:
    """One image, a bit for each pixel."""
    packed = [fd.pack_rles(rles) for rles in three_images(seed)]
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
    base = three_images(seed)
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


def operator_case(title: str, inputs: Sequence[Any], operate: Callable[[fd.RLEBatch], Any]) -> Case:
    """What the CPU does as well, and how long that takes with the copies there and back."""
    packed = [fd.pack_rles(rles) for rles in inputs]
    there = [batch.to(DEVICE) for batch in packed]
    expected = [operate(batch) for batch in packed]

    def on_cpu(batch: fd.RLEBatch) -> Any:
        return operate(batch.cpu()).to(DEVICE)

    def check(index: int, result: Any) -> None:
        wanted = expected[index]
        if isinstance(wanted, torch.Tensor):
            check_equal(expected, index, result)
        else:
            assert result == wanted, "it differs"

    contenders = {
        "from a batch on the GPU": Contender([partial(operate, batch) for batch in there]),
        "kernels": Contender([partial(operate, batch) for batch in there], clock="kernels"),
        "on the CPU, there and back": Contender([partial(on_cpu, b) for b in there], "peer"),
    }
    return Case(title, contenders, check)


def label_map_case(seed: int) -> Case:
    inputs = three_images(seed)
    case = operator_case("a label map of 100 masks, 1500 x 2250", inputs, fd.labels.to_label_map)
    out = torch.empty(1500, 2250, dtype=torch.int32, device=DEVICE)
    case.contenders["memset"] = Contender([partial(memset, out)], "floor", "kernels", checked=False)
    case.num_bytes = out.numel() * out.element_size()
    return case


def split_case(seed: int) -> Case:
    """Of a label map that is there, the masks of its labels."""
    inputs = three_images(seed)
    maps = [fd.labels.to_label_map(rles) for rles in inputs]
    expected = [fd.labels.from_label_map(label_map)[0] for label_map in maps]

    def check(index: int, result: Any) -> None:
        assert result[0] == expected[index], "it differs"

    split = fd.labels.from_label_map
    contenders = {
        "from a map on the GPU": Contender([partial(split, m.to(DEVICE)) for m in maps]),
        "on the CPU, from there": Contender([partial(split, m) for m in maps], "peer"),
    }
    return Case("the masks of a label map, 1500 x 2250", contenders, check)


def nms_of(batch: fd.RLEBatch) -> torch.Tensor:
    scores = torch.linspace(1, 0, len(batch), device=batch.device)
    return fd.matching.nms(batch, scores, 0.5)


def points_of(batch: fd.RLEBatch) -> torch.Tensor:
    """The same on both devices, as the ranks come from a generator of the CPU."""
    return fd.sampling.sample_points(batch, 16, generator=torch.Generator().manual_seed(1))


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
        "iou-100": lambda: iou_case("IoU of 100 x 100, 1500 x 2250", three_images(seed), 50, True),
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
        "label-map": partial(label_map_case, seed),
        "split-label-map": partial(split_case, seed),
        "nms-1000": lambda: operator_case(
            "NMS of 1000 masks, 480 x 640", images(seed, 3, 1000, 480, 640), nms_of
        ),
        "merge-100": lambda: operator_case(
            "union of 100 masks, 1500 x 2250",
            three_images(seed),
            fd.algebra.merge,
        ),
        "points-100": lambda: operator_case(
            "16 points of 100 masks, 1500 x 2250", three_images(seed), points_of
        ),
    }
