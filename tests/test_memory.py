"""No call takes more memory than its result and 16 MB, and none keeps any.

Measured as the peak of resident memory, in a process of its own: the operating system sees every
page, whoever asked for it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sa1b_fastdecode import dispatch

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.skipif(
        not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc/self/clear_refs"
    ),
]

MEGABYTE = 10**6
LIMIT = 16 * MEGABYTE

HEAD = f"""
import gc
import itertools
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
import numpy as np
import torch
from pycocotools import mask as coco_mask
import sa1b_fastdecode as fd
torch.set_num_threads(2)


def status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024


def peak_of(call):
    'Return how far the resident memory rises above what it was before the call, and its result.'
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
    before = status("VmRSS")
    result = call()
    return status("VmHWM") - before, result


def num_bytes(result):
    return result.numel() * result.element_size()


def noise(h, w, seed=0):
    mask = np.random.default_rng(seed).integers(0, 2, (h, w), np.uint8)
    return coco_mask.encode(np.asfortranarray(mask))


def box(h, w, i=0):
    'A mask of one rectangle.'
    mask = np.zeros((h, w), np.uint8, order="F")
    mask[h // 8 + i : h // 2 + i, w // 8 : w // 2] = 1
    return coco_mask.encode(mask)


def check(name, call):
    call()  # what is compiled, imported or cached by the first call is not its memory
    peak, result = peak_of(call)
    extra = peak - num_bytes(result)
    assert extra <= {LIMIT}, f"{{name}}: {{extra / 1e6:.1f}} MB more than its result"
    del result
"""


def run(cpu_backend, code):
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        env=os.environ | {dispatch.ENVIRONMENT_VARIABLE: cpu_backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_measurement_sees_memory(cpu_backend):
    """Also short-lived memory, and memory that only the kernel gave away."""
    run(
        cpu_backend,
        """
peak, _ = peak_of(lambda: np.ones(50_000_000, np.uint8).sum())
assert 49e6 <= peak < 54e6, peak
peak, kept = peak_of(lambda: torch.ones(60_000_000, dtype=torch.uint8))
assert 59e6 <= peak < 64e6, peak
""",
    )


@pytest.mark.parametrize("masks", ["noise", "boxes"])
def test_decode(cpu_backend, masks):
    """Every dtype and option, into new and into used memory."""
    rles = {
        "noise": "[noise(701, 1003, i) for i in range(3)]",
        "boxes": "[box(701, 1003, i) for i in range(12)]",
    }
    run(
        cpu_backend,
        f"""
batch = fd.pack_rles({rles[masks]})
n = len(batch)
options = [
    {{}},
    {{"num_threads": 1}},
    {{"num_threads": 16}},
    {{"pad": (800, 1100)}},
    {{"crop": (1, 1, 700, 1001)}},
    {{"size": (701, 1999)}},
    {{"size": (3, 3)}},
    {{"crop": (5, 5, 100, 100), "size": (1000, 1000)}},
    {{"select": list(range(n))[::-1]}},
    {{"select": [0], "size": (1, 1)}},
]
dtypes = (torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.float32)
gc.collect()
for dtype, arguments in itertools.product(dtypes, options):
    check((dtype, arguments), lambda: batch.decode(dtype=dtype, **arguments))
    out = batch.decode(dtype=dtype, **arguments).fill_(1)
    peak, _ = peak_of(lambda: batch.decode(dtype=dtype, out=out, **arguments))
    assert peak <= {LIMIT}, (dtype, arguments, peak)
grouped = fd.pack_rles([batch[:2], [], batch[2:]])
check("grouped", lambda: grouped.decode())
for name in ("area", "bbox", "centroid"):
    check(name, lambda: getattr(batch, name)())
""",
    )


def test_masks_without_pixels_of_their_own(cpu_backend):
    """Pages that no mask touches are never made: 4 GB of zeros take next to nothing."""
    run(
        cpu_backend,
        f"""
batch = fd.pack_rles([box(40, 50)])
peak, result = peak_of(lambda: batch.decode(pad=(40_000, 100_000)))
assert result.shape == (1, 40_000, 100_000)
assert peak <= {LIMIT}, peak
""",
    )


def test_large_planes(cpu_backend):
    """The flips of a plane this large would be 18 MB, those of a row of it 1.6 MB in float32."""
    run(
        cpu_backend,
        """
batch = fd.pack_rles([noise(300, 400)])
for num_threads in (1, 2, 16):
    for size in ((12_000, 12_000), (300, 400_000), (400_000, 300)):
        check((size, num_threads), lambda: batch.decode(size=size, num_threads=num_threads))
check("float32", lambda: batch.decode(size=(100, 400_000), dtype=torch.float32, num_threads=16))
""",
    )


def test_select_does_not_copy_the_strings_again_and_again(cpu_backend):
    """Of masks of different sizes, too."""
    run(
        cpu_backend,
        """
noisy = noise(1200, 1200)
assert 64 * len(noisy["counts"]) > 2 * 16e6  # far more than the limit, if it were copied each time
for batch in (
    fd.pack_rles([noisy] * 2),
    fd.pack_rles([noisy, box(30, 40)]),
    fd.pack_rles([[noisy], [box(30, 40)]]),
):
    check(batch, lambda: batch.decode(select=[0] * 64, size=(8, 8)))
    check(batch, lambda: batch.decode(select=[0] * 64, crop=(3, 3, 8, 8)))
""",
    )


@pytest.mark.parametrize("masks", ["noise(1500, 2000, i)", "box(3000, 4000, i)"])
def test_pairs_take_eight_bytes_a_run(cpu_backend, masks):
    """Of both batches, beside the result and the usual room."""
    run(
        cpu_backend,
        f"""
rles = [{masks} for i in range(6)]
runs = sum(len(rle["counts"]) // 2 for rle in fd.pack_rles(rles[:1]).to_coco("list")) * 6
batch, other = fd.pack_rles(rles), fd.pack_rles(rles[::-1])
grouped = fd.pack_rles([rles[:2], [], rles[2:]])
calls = {{
    "intersection": lambda a, b: a.intersection(b),
    "iou": lambda a, b: a.iou(b, [1, 0] * 3),
    "containment": lambda a, b: a.containment(b),
    "pairs": lambda a, b: torch.cat([part.flatten() for part in a.intersecting_pairs(b)]),
}}
for name, call in calls.items():
    for a, b in ((batch, batch), (batch, other), (grouped, grouped)):
        call(a, b)
        peak, result = peak_of(lambda: call(a, b))
        listed = 8 * runs * (1 if a is b else 2)
        assert peak <= num_bytes(result) + listed + {LIMIT}, (name, peak, listed)
""",
    )


def test_pairs_of_very_many_masks(cpu_backend):
    """400 million pairs, of which one in 600 meets: what they take follows those that do."""
    run(
        cpu_backend,
        f"""
def squares(n, side, size):
    counts = []
    for i in range(n):
        x, y = (i * 7919) % (side - size), (i * 104729) % (side - size)
        last = side * side - (x + size - 1) * side - y - size
        counts.append([x * side + y, *[size, side - size] * (size - 1), size, last])
    return fd.pack_rles([{{"size": [side, side], "counts": c}} for c in counts])

batch = squares(20_000, 2000, 24)
batch[:100].intersecting_pairs(batch[:100])
for other in (batch, batch[:]):
    peak, (indices, intersection) = peak_of(lambda: batch.intersecting_pairs(other))
    assert peak <= num_bytes(indices) + num_bytes(intersection) + {LIMIT}, peak
    assert 200_000 < len(indices) < 2_000_000, len(indices)
    assert bool((intersection[indices[:, 0] == indices[:, 1]] == 24 * 24).all())
""",
    )


def test_packing_takes_the_batch_and_little_more(cpu_backend):
    run(
        cpu_backend,
        f"""
rles = [noise(3000, 4000, i) for i in range(4)]
texts = [rle | {{"counts": rle["counts"].decode()}} for rle in rles]
for form in (rles, texts, [rles, texts], tuple(texts)):
    fd.pack_rles(form[:1])
    peak, batch = peak_of(lambda: fd.pack_rles(form))
    own = batch.data.numel()
    assert own > 20e6
    # A batch of images is joined from one batch an image.
    limit = (2 if isinstance(form[0], list) else 1) * own + {LIMIT}
    assert peak <= limit, (peak, own)
    del batch
""",
    )


ORDERS = {
    "rows": "np.ascontiguousarray(masks)",
    "columns": "np.ascontiguousarray(masks.transpose(0, 2, 1)).transpose(0, 2, 1)",
    "gaps": "np.repeat(masks, 2, axis=2)[:, :, ::2]",
    "masks_last": "np.ascontiguousarray(masks.transpose(1, 2, 0)).transpose(2, 0, 1)",
}


@pytest.mark.parametrize("order", ORDERS)
def test_encode(cpu_backend, order):
    """Noise, whose strings take as much as its pixels; floats; threads that share one mask."""
    run(
        cpu_backend,
        f"""
def check_encode(name, masks, **arguments):
    masks = {ORDERS[order]}
    fd.encode_masks(masks[:1, :99, :99])
    peak, batch = peak_of(lambda: fd.encode_masks(masks, **arguments))
    own = batch.data.numel()
    assert peak - own <= {LIMIT}, f"{{name}}: {{(peak - own) / 1e6}} MB beside {{own / 1e6}}"
    return own

rng = np.random.default_rng(0)
noise = rng.integers(0, 2, (1, 5000, 7072), np.uint8)
for num_threads in (1, 2, 16, 1000):
    own = check_encode(num_threads, noise, num_threads=num_threads)
    assert own > 15e6
many = rng.integers(0, 2, (24, 1500, 1000), np.uint8)
for num_threads in (1, 2, 16):
    own = check_encode("many", many, num_threads=num_threads)
    assert own > 15e6
check_encode("floats", many[:4].astype(np.float32))
check_encode("small", rng.integers(0, 2, (500_000, 3, 4), np.uint8))
check_encode("boxes", np.pad(np.ones((20, 900, 900), np.uint8), ((0, 0), (9, 9), (7, 7))))
""",
    )


def test_encode_the_largest_image(cpu_backend):
    run(
        cpu_backend,
        f"""
masks = np.random.default_rng(0).integers(0, 2, (7072, 7072), np.uint8)
fd.encode_masks(masks[:70])
peak, batch = peak_of(lambda: fd.encode_masks(masks))
own = batch.data.numel()
assert own > 20e6
assert peak - own <= {LIMIT}, (peak, own)
assert np.array_equal(batch.decode()[0].numpy(), masks)
""",
    )


def test_decode_rle_batch(cpu_backend):
    run(
        cpu_backend,
        """
rles = [noise(901, 1203, i) for i in range(6)]
check("decode_rle_batch", lambda: fd.decode_rle_batch(rles))
check("small result", lambda: fd.decode_rle_batch(rles, size=(4, 4)))
for function in (fd.mask_area, fd.mask_bbox, fd.mask_centroid):
    check(function.__name__, lambda: function(rles))
for function in (fd.mask_intersection, fd.mask_iou, fd.mask_containment):
    check(function.__name__, lambda: function(rles[:2], rles[:3]))
""",
    )


def test_nothing_grows(cpu_backend):
    """Over many calls, of small results and of those that get pages of their own."""
    run(
        cpu_backend,
        """
rles = [box(200, 300, i) for i in range(40)]
batch = fd.pack_rles(rles)
noisy = np.random.default_rng(0).integers(0, 2, (8, 200, 300), np.uint8)
def use(i):
    # Another size in each call: nothing may be kept for each size that was ever seen.
    some = fd.pack_rles(rles[: 1 + i % 40])
    for dtype in (torch.uint8, torch.float32):
        some.decode(dtype=dtype, num_threads=2)
        some.decode(dtype=dtype, size=(1 + i % 97, 1 + i // 97))
    some.area(), some.bbox(), some.centroid(), some.to_coco("list"), some[1:]
    fd.encode_masks(noisy[: 1 + i % 8, : 1 + i % 97])
    some.iou(batch), some.intersecting_pairs(some)
    if i % 10 == 0:
        batch.decode(dtype=torch.float32, size=(300 + i % 50, 301))
for i in range(1000):  # until the heap has found its size
    use(i)
gc.collect()
before = status("VmRSS")
for i in range(1000, 2500):
    use(i)
gc.collect()
grown = status("VmRSS") - before
assert grown < 4e6, grown
""",
    )


def test_results_are_given_back(cpu_backend):
    """Pages of a result return to the system with its last reference."""
    run(
        cpu_backend,
        """
batch = fd.pack_rles([box(1000, 1000)] * 100)
batch[:10].decode()
before = status("VmRSS")
result = batch.decode().fill_(1)
assert status("VmRSS") - before > 95e6, "filled"
view = result[0, 0]
del result
gc.collect()
assert status("VmRSS") - before > 95e6, "a view holds them"
assert bool((view == 1).all())
del view
gc.collect()
assert status("VmRSS") - before < 4e6, status("VmRSS") - before
""",
    )


def test_reading_a_result_makes_no_pages(cpu_backend):
    """Zeros that nobody wrote stay one page of the system even when they are read."""
    if cpu_backend != "cpp" or not Path("/sys/kernel/mm/transparent_hugepage").is_dir():
        pytest.skip("only where the kernels ask for large pages")
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this system has no large pages")
    run(
        cpu_backend,
        f"""
batch = fd.pack_rles([box(1000, 1000)] + [fd.pack_rles({{"size": [1000, 1000], "counts": [10**6]}})
                     .to_coco("bytes")[0]] * 200)
peak, result = peak_of(lambda: batch.decode())
more, most = peak_of(lambda: int(result.max()))
assert most == 1
assert more <= {LIMIT}, more
""",
    )
