"""Calls every operator on the GPU a few times, small, for compute-sanitizer to watch.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python tests/gpu/sanitize.py

Without torch's allocator every tensor has an allocation of its own, so that an access beside one is
seen. What is compared is copied to the CPU first: no kernel runs here but those that are tested,
and those of torch that fill memory.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from reference import counts_to_string, mask_to_counts  # noqa: E402

import sa1b_fastdecode as fd  # noqa: E402
from sa1b_fastdecode.sampling import _REGIONS  # noqa: E402

ops = torch.ops.sa1b_fastdecode


def masks_of(h, w):
    """Return noise, nothing, everything, one pixel and a box."""
    rng = np.random.default_rng(h * w)
    masks = np.zeros((5, h, w), np.uint8)
    masks[0] = rng.integers(0, 2, (h, w))
    masks[2] = 1
    masks[3, h - 1, w - 1] = 1
    masks[4, h // 4 : h // 2 + 1, w // 4 : w // 2 + 1] = 1
    return masks


def rles_of(masks):
    return [
        {"size": list(mask.shape), "counts": counts_to_string(mask_to_counts(mask))}
        for mask in masks
    ]


num_calls = 0


def same(on_gpu, on_host):
    global num_calls
    num_calls += 1
    torch.testing.assert_close(on_gpu.cpu(), on_host, rtol=0, atol=0, equal_nan=True)


def use_everything(on_host):
    batch = on_host.to("cuda")
    for dtype in (torch.uint8, torch.float16, torch.float32):
        same(batch.decode(dtype=dtype), on_host.decode(dtype=dtype))
    for arguments in (
        {"size": (50, 33)},
        {"pad": (on_host.height + 3, on_host.width + 9)},
        {"crop": (0, 0, 1, 1)},
        {"select": [4, 0, -2]},
    ):
        same(batch.decode(**arguments), on_host.decode(**arguments))
    for name in ("decode_bits", "area", "bbox", "centroid"):
        same(getattr(batch, name)(), getattr(on_host, name)())
    for name in ("intersection", "iou", "containment"):
        same(getattr(batch, name)(batch), getattr(on_host, name)(on_host))
    scores = torch.arange(5) % 2
    same(batch.to_label_map(), on_host.to_label_map())
    same(fd.matching.nms(batch, scores, 0.3), fd.matching.nms(on_host, scores, 0.3))
    other = batch.cpu().to("cuda")  # the same masks, but not the same batch
    same(batch.iou(other, [1, 0, 1, 0, 1]), on_host.iou(on_host, [1, 0, 1, 0, 1]))
    for part, wanted in zip(
        batch.intersecting_pairs(other), on_host.intersecting_pairs(on_host), strict=True
    ):
        same(part, wanted)
    same(boundary_area(batch), boundary_area(on_host))
    for region in _REGIONS.values():
        same(pixels_of(batch, region), pixels_of(on_host, region))
    same((~batch).data, (~on_host).data)
    same((batch ^ other).data, (on_host ^ on_host).data)
    for how in ("union", "intersection"):
        same(batch.merge([0, 1, 0, 1, 1], how).data, on_host.merge([0, 1, 0, 1, 1], how).data)


def boundary_area(batch):
    return ops.boundary_area(batch.data, batch.num_masks)


def pixels_of(batch, region):
    """Return the pixels of some ranks; those of the GPU are copied there."""
    ranks = torch.arange(-1, 5000, 7).expand(batch.num_masks, -1)
    return ops.pixels_at_ranks(batch.data, batch.num_masks, ranks, region)


def split(masks):
    label_map = torch.from_numpy(masks).sum(0)
    for maps in (label_map, label_map.expand(2, *label_map.shape)):
        parts, wanted = fd.labels.from_label_map(maps.cuda()), fd.labels.from_label_map(maps)
        same(parts[0].data, wanted[0].data)
        same(parts[1], wanted[1])


def encode(masks):
    for dtype in (torch.uint8, torch.float32, torch.int64):
        rows = torch.from_numpy(masks).to(dtype)
        columns = rows.transpose(1, 2).contiguous()
        wanted = fd.encode_masks(rows).data
        same(fd.encode_masks(rows.cuda()).data, wanted)
        same(fd.encode_masks(columns.cuda().transpose(1, 2)).data, wanted)


def hostile(seed):
    """Strings that are no masks: whatever comes out, nothing beside it is touched."""
    global num_calls
    rng = np.random.default_rng(seed)
    rles = [
        {"size": [33, 65], "counts": rng.integers(44, 116, 3000 * (i + 1), np.uint8).tobytes()}
        for i in range(5)
    ]
    batch = fd.pack_rles(rles, validate=False).to("cuda")
    assert int(batch.decode().cpu().max()) <= 1
    for call in (batch.area, batch.bbox, batch.centroid):
        call()
    batch.iou(batch)
    batch.intersecting_pairs(batch)
    boundary_area(batch)
    for region in _REGIONS.values():
        pixels_of(batch, region)
    assert int(batch.to_label_map().cpu().max()) <= 5
    fd.matching.nms(batch, range(5), 0.3)
    batch.merge()
    num_calls += 13


def main():
    assert fd.active_backend("cuda") == "cuda"
    for size in ((1, 1), (33, 65), (130, 67)):
        masks = masks_of(*size)
        rles = rles_of(masks)
        use_everything(fd.pack_rles(rles))
        use_everything(fd.pack_rles([rles[:2], [], rles[2:]]))
        encode(masks)
        split(masks)
    wide = fd.pack_rles(rles_of(masks_of(3, 9000)))  # several tiles of columns
    same(wide.to("cuda").decode(), wide.decode())
    for seed in range(3):
        hostile(seed)
    torch.cuda.synchronize()
    print(f"sanitized {num_calls} calls")


if __name__ == "__main__":
    main()
