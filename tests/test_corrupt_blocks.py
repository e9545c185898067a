"""The operators called directly, with blocks and arguments that lie."""

import functools
import subprocess
import sys

import pytest
import torch
from conftest import EMULATED
from good import BATCH, GOOD

import sa1b_fastdecode as fd
import sa1b_fastdecode.labels
import sa1b_fastdecode.matching  # both register operators
from sa1b_fastdecode import RLEBatch, dispatch, sampling


def corrupt_blocks():
    """Yield (what, data, num_masks) for blocks that no RLEBatch would hold."""
    block = BATCH.data
    n = BATCH.num_masks
    for num_masks in (n + 1, n + 2, 100, 2**31, 2**40, 2**61, 2**62 + 1, -1, -(2**63)):
        yield f"num_masks {num_masks}", block, num_masks
    for word in range(3 * n + 1):
        for value in (-1, 2**32, 2**50, 2**63 - 1, -(2**63)):
            data = block.clone()
            data[: 8 * (3 * n + 1)].view(torch.int64)[word] = value
            yield f"word {word} is {value}", data, n
    for num_bytes in range(0, 8 * (3 * n + 1), 7):
        yield f"{num_bytes} bytes", block[:num_bytes].clone(), n
    yield "strings cut off", block[:-1].clone(), n
    yield "int8", block.view(torch.int8), n
    yield "float", block.float(), n
    yield "strided", torch.stack([block, block], 1)[:, 0], n
    yield "matrix", block[None], n


def operator_calls(data, num_masks):
    """Return calls of every operator on a block."""
    ops = torch.ops.sa1b_fastdecode
    out = torch.full((3, 4, 5), 7, dtype=torch.uint8)
    planes = torch.tensor([2, 0, 1])
    ranks = torch.tensor([[0, 9]] * 3)
    return [
        lambda: ops.decode(data, num_masks, None, planes, None, False, [3, 4, 5], torch.uint8, 1),
        lambda: ops.decode(data, num_masks, None, planes, None, True, [3, 9, 9], torch.float32, 2),
        lambda: ops.decode_out(data, num_masks, None, planes, None, False, out, 1),
        lambda: ops.area(data, num_masks),
        lambda: ops.bbox(data, num_masks),
        lambda: ops.centroid(data, num_masks),
        lambda: ops.boundary_area(data, num_masks),
        *(
            lambda region=region: ops.pixels_at_ranks(data, num_masks, ranks, region)
            for region in sampling._REGIONS.values()
        ),
        *(
            call
            for a, b in (((data, num_masks), (BATCH.data, 3)), ((BATCH.data, 3), (data, num_masks)))
            for call in (
                lambda a=a, b=b: ops.intersection(*a, *b, [a[1], b[1]]),
                lambda a=a, b=b: ops.iou(*a, *b, None, [a[1], b[1]]),
                lambda a=a, b=b: ops.containment(*a, *b, [a[1], b[1]]),
                lambda a=a, b=b: ops.intersecting_pairs(*a, *b, None),
            )
        ),
        lambda: ops.intersection(data, num_masks, data, num_masks, [num_masks, num_masks]),
        lambda: ops.paint_labels(data, num_masks, planes, planes.int(), 0, [4, 5]),
        lambda: ops.suppress(data, num_masks, planes, None, 1, 0.5, None),
    ]


def refused(call, backend):
    """Return whether a call raises what a caller can expect: no Bug of the emulator.

    A GPU's kernels find out too late what is wrong with a block. There it is enough that they live.
    """
    try:
        call()
    except (ValueError, TypeError, RuntimeError, IndexError, MemoryError):
        return True
    return backend == EMULATED


def check_corrupt_blocks(name):
    with dispatch.use(name):
        for what, data, num_masks in corrupt_blocks():
            for i, call in enumerate(operator_calls(data, num_masks)):
                assert refused(call, name), f"{name}: call {i} accepted a block with {what}"


def check_inconsistent_arguments(name):
    ops = torch.ops.sa1b_fastdecode
    data, n = BATCH.data, 3
    decode = functools.partial(ops.decode, data, n, None)
    window = torch.tensor([[0, 0, 4, 5]] * 3)
    shape, u8 = [3, 4, 5], torch.uint8
    calls = {
        "planes out of range": lambda: decode(torch.tensor([0, 1, 3]), None, False, shape, u8, 1),
        "planes below -1": lambda: decode(torch.tensor([0, 1, -2]), None, False, shape, u8, 1),
        "too few planes": lambda: decode(torch.tensor([0, 1]), None, False, shape, u8, 1),
        "too many planes": lambda: decode(torch.arange(4), None, False, shape, u8, 1),
        "int32 planes": lambda: decode(torch.arange(3).int(), None, False, shape, u8, 1),
        "strided planes": lambda: decode(window[:, 0], None, False, shape, u8, 1),
        "meta planes": lambda: decode(window[:, 0].to("meta"), None, False, shape, u8, 1),
        "too few crops": lambda: decode(None, window[:2], False, shape, u8, 1),
        "int32 crops": lambda: decode(None, window.int(), False, shape, u8, 1),
        "crops outside": lambda: decode(None, window + 1, False, shape, u8, 1),
        "crops negative": lambda: decode(None, window - 1, False, shape, u8, 1),
        "no planes, other number": lambda: decode(None, None, False, [4, 4, 5], u8, 1),
        "too small": lambda: decode(None, None, False, [3, 3, 5], u8, 1),
        "one dimension": lambda: decode(None, None, False, [60], u8, 1),
        "no dimension": lambda: decode(None, None, False, [], u8, 1),
        "negative shape": lambda: decode(None, None, False, [3, -4, -5], u8, 1),
        "huge negative shape": lambda: decode(None, None, False, [-3000, -3000, 5], u8, 1),
        "other dtype": lambda: decode(None, None, False, shape, torch.int64, 1),
        "2**64 - 2 bytes": lambda: decode(
            torch.zeros(2, dtype=torch.int64), None, False, [2, 2**63 - 1, 1], u8, 1
        ),
        "2**64 bytes": lambda: decode(
            torch.zeros(4, dtype=torch.int64), None, False, [4, 2**62, 1], u8, 1
        ),
        "out of other dtype": lambda: ops.decode_out(
            data, n, None, None, None, False, torch.zeros(3, 4, 5).double(), 1
        ),
        "strided out": lambda: ops.decode_out(
            data, n, None, None, None, False, torch.zeros(3, 5, 4, dtype=u8).transpose(1, 2), 1
        ),
        "small out": lambda: ops.decode_out(
            data, n, None, None, None, False, torch.zeros(3, 4, 4, dtype=u8), 1
        ),
        "few planes in out": lambda: ops.decode_out(
            data, n, None, None, None, False, torch.zeros(2, 4, 5, dtype=u8), 1
        ),
    }
    with dispatch.use(name):
        for what, call in calls.items():
            assert refused(call, name), f"{name}: {what} was accepted"


def check_inconsistent_pairs(name):
    ops = torch.ops.sa1b_fastdecode
    data, n = BATCH.data, 3
    grouped = fd.pack_rles([[GOOD], [GOOD, GOOD]])
    pair, images = (data, n, data, n), (grouped.data, 3, grouped.data, 3)
    crowd = torch.zeros(3, dtype=torch.bool)
    calls = {
        "too few rows": lambda: ops.intersection(*pair, [2, 3]),
        "too many columns": lambda: ops.intersection(*pair, [3, 4]),
        "transposed": lambda: ops.iou(data, n, BATCH[:2].data, 2, None, [2, 3]),
        "one dimension": lambda: ops.containment(*pair, [9]),
        "no dimension": lambda: ops.containment(*pair, []),
        "four dimensions": lambda: ops.containment(*pair, [1, 1, 3, 3]),
        "negative shape": lambda: ops.containment(*pair, [-3, -3]),
        "flat blocks as images": lambda: ops.intersection(*pair, [1, 3, 3]),
        "too many images": lambda: ops.intersection(*images, [3, 2, 2]),
        "too few images": lambda: ops.intersection(*images, [1, 2, 2]),
        "no images": lambda: ops.intersection(*images, [0, 2, 2]),
        "negative number of images": lambda: ops.intersection(*images, [-1, 3, 3]),
        "too few masks an image": lambda: ops.intersection(*images, [2, 1, 2]),
        "huge shape": lambda: ops.intersection(*images, [2, 2**40, 2**40]),
        "negative rows": lambda: ops.intersection(*images, [2, -2, -2]),
        "pairs of too many images": lambda: ops.intersecting_pairs(*images, 3),
        "pairs of too few images": lambda: ops.intersecting_pairs(*images, 1),
        "pairs of -1 images": lambda: ops.intersecting_pairs(*images, -1),
        "pairs of 2**62 images": lambda: ops.intersecting_pairs(*images, 2**62),
        "short iscrowd": lambda: ops.iou(*pair, crowd[:2], [3, 3]),
        "long iscrowd": lambda: ops.iou(*pair, torch.zeros(4, dtype=torch.bool), [3, 3]),
        "int iscrowd": lambda: ops.iou(*pair, crowd.int(), [3, 3]),
        "strided iscrowd": lambda: ops.iou(*pair, torch.zeros(6, dtype=torch.bool)[::2], [3, 3]),
        "meta iscrowd": lambda: ops.iou(*pair, crowd.to("meta"), [3, 3]),
        "meta other": lambda: ops.iou(data, n, data.to("meta"), n, None, [3, 3]),
    }
    for word, value in [(10, -1), (10, 2), (13, 0), (13, 2**62), (13, -(2**62))]:
        bad = grouped.data.clone()
        bad[: 8 * 16].view(torch.int64)[word] = value
        for what, first, second in (
            ("both", bad, bad), ("the one", bad, grouped.data), ("the other", grouped.data, bad)
        ):  # fmt: skip
            calls[f"word {word} of {what} is {value}"] = lambda a=first, b=second: ops.intersection(
                a, 3, b, 3, [2, 2, 2]
            )
    with dispatch.use(name):
        for what, call in calls.items():
            assert refused(call, name), f"{name}: {what} was accepted"


@pytest.mark.timeout(100)
def test_operators_called_directly(backend):
    """In a process of its own, so that a crash is a failure of this test only."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import test_corrupt_blocks as t;"
        f"name = {backend!r}; t.check_corrupt_blocks(name); t.check_inconsistent_arguments(name);"
        "t.check_inconsistent_pairs(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("counts", ["str", "bytes", "list"])
def test_blocks_that_lie_do_not_show_other_memory(backend, counts):
    """A batch made by hand from a bad block raises when it is read."""
    n = BATCH.num_masks
    for word, value in [(0, 2**33), (2 * n, -1), (2 * n + 1, 2**50), (2 * n + 1, -8)]:
        data = BATCH.data.clone()
        data[: 8 * (3 * n + 1)].view(torch.int64)[word] = value
        with pytest.raises(ValueError, match="offsets"):
            RLEBatch(data, n).to_coco(counts)
