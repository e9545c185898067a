"""What only a GPU can show: streams, graphs, the allocator, workers, pinned memory, large results.

That every option gives the right result is for the tests that take ``device``; here the results are
compared with those of the CPU. ``FAIL_WITHOUT_CUDA=1`` turns the skips into failures.
"""

import contextlib
import pickle
import subprocess
import sys
import warnings

import draws
import pytest
import torch
from conftest import require
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import sa1b_fastdecode as fd
from sa1b_fastdecode.data.prefetch import DevicePrefetcher
from sa1b_fastdecode.sampling import _REGIONS, interior_points, sample_boxes

DEVICE = "cuda"
LONG = 1 << 29  # clock cycles, a quarter of a second and more

ops = torch.ops.sa1b_fastdecode


def pixels_at_ranks(batch, region):
    """Return some pixels of each mask's region, of ranks that are on the batch's device."""
    ranks = torch.arange(0, 2000, 40, device=batch.device).expand(batch.num_masks, -1)
    return ops.pixels_at_ranks(batch.data, batch.num_masks, ranks, _REGIONS[region])


# The arguments of decode that need a table are copied from the host without waiting, too.
CROWD = [False, True, False] * 3
CALLS = {
    "decode": lambda batch: batch.decode(),
    "bool": lambda batch: batch.decode(dtype=torch.bool),
    "float32": lambda batch: batch.decode(dtype=torch.float32),
    "size": lambda batch: batch.decode(size=(100, 71), dtype=torch.bfloat16),
    "pad": lambda batch: batch.decode(pad=(150, 171), dtype=torch.float16),
    "bits": lambda batch: batch.decode_bits(),
    "area": lambda batch: batch.area(),
    "bbox": lambda batch: batch.bbox(),
    "centroid": lambda batch: batch.centroid(),
    "intersection": lambda batch: batch.intersection(batch),
    "iou": lambda batch: batch.iou(batch),
    "containment": lambda batch: batch.containment(batch),
    "boundary_area": lambda batch: ops.boundary_area(batch.data, batch.num_masks),
    "foreground": lambda batch: pixels_at_ranks(batch, "foreground"),
    "background": lambda batch: pixels_at_ranks(batch, "background"),
    "boundary": lambda batch: pixels_at_ranks(batch, "boundary"),
    "to_label_map": lambda batch: batch.to_label_map(),
}
CALLS_WITH_TABLES = {
    "select": lambda batch: batch.decode(select=[-1, 0, 3]),
    "crop": lambda batch: batch.decode(crop=(1, 2, 60, 70)),
    "iscrowd": lambda batch: batch.iou(batch, CROWD),
}
# These look at their tables on the host, which one graph of a compiler cannot.
CALLS_THAT_LOOK = {
    "labels": lambda batch: batch.to_label_map(range(9), on_top=range(9)),
}
CALLS_AT_ONCE = CALLS | CALLS_WITH_TABLES | CALLS_THAT_LOOK
# These have a result whose size the host must learn; from a batch and its dense masks (N, H, W).
CALLS_THAT_WAIT = {
    "encode": lambda batch, masks: fd.encode_masks(masks).data,
    "intersecting_pairs": lambda batch, masks: batch.intersecting_pairs(batch)[1],
    "nms": lambda batch, masks: fd.matching.nms(batch, batch.area(), 0.1, labels=CROWD),
    "nms by scores from the host": lambda batch, masks: fd.matching.nms(batch, range(9), 0.1),
    "xor": lambda batch, masks: (batch ^ batch).data,
    "complement": lambda batch, masks: (~batch).data,
    "merge": lambda batch, masks: batch.merge([0, 1, 0] * 3).data,
    "split_labels": lambda batch, masks: fd.labels.from_label_map(masks.sum(0))[0].data,
}
# nms also learns how many pairs there are; of a label map how many runs it has, how many of those
# are not background, how many labels, and how many bytes. All others wait once.
WAITS = {"nms": 2, "nms by scores from the host": 2, "split_labels": 4}

RLES = [draws.to_rle(mask) for mask in draws.every_kind(67, 131)]
# The same bytes in another order, so that one block can be copied into the other.
BATCHES = {
    "flat": (fd.pack_rles(RLES), fd.pack_rles(RLES[::-1])),
    "grouped": (
        fd.pack_rles([RLES[:4], [], RLES[4:]]),
        fd.pack_rles([RLES[:3:-1], RLES[3:1:-1], RLES[1::-1]]),
    ),
}
FLAT, _ = BATCHES["flat"]
GROUPED, _ = BATCHES["grouped"]


@pytest.fixture(autouse=True)
def gpu():
    require("cuda")
    yield
    torch.cuda.synchronize()  # what went wrong belongs to this test, not to the next one


def assert_equal(result, expected):
    """In every bit but that of a NaN."""
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@contextlib.contextmanager
def synchronizing(mode):
    """Let torch raise ("error") or warn ("warn") wherever it waits for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- Nothing waits for the GPU


def check_that_nothing_waits(call, on_host):
    """The GPU has not even begun when the call returns."""
    batch = on_host.to(DEVICE)
    call(batch)  # memory and kernels are there from here on
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    with synchronizing("error"):
        torch.cuda._sleep(LONG)
        result = call(batch)
        done.record()
        assert not done.query()
    assert_equal(result, call(on_host))


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", CALLS_AT_ONCE)
def test_calls_do_not_wait(name, kind):
    check_that_nothing_waits(CALLS_AT_ONCE[name], BATCHES[kind][0])


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("region", _REGIONS)
def test_random_points_and_boxes(region, kind):
    """With a generator of the CPU they are those of the CPU; none of another device is taken."""
    on_host = BATCHES[kind][0]

    def draw(batch):
        generator = torch.Generator().manual_seed(3)
        points = batch.sample_points(20, region, generator=generator)
        return torch.cat([points.flatten(1), sample_boxes(batch, generator=generator)], 1)

    check_that_nothing_waits(draw, on_host)
    batch = on_host.to(DEVICE)
    with synchronizing("error"):
        points, boxes = batch.sample_points(20, region), sample_boxes(batch)
    assert points.is_cuda
    assert boxes.is_cuda
    with pytest.raises(ValueError, match="the generator is on cuda:0, the masks are on cpu"):
        on_host.sample_points(20, region, generator=torch.Generator(DEVICE))


def test_what_a_gpu_does_not_do():
    with pytest.raises(RuntimeError, match=r"use \.cpu\(\)"):
        interior_points(FLAT.to(DEVICE))


@pytest.mark.parametrize("pinned", [False, True])
def test_moving_a_batch_does_not_wait(pinned):
    batch = FLAT.pin_memory() if pinned else FLAT
    batch.to(DEVICE)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    with synchronizing("error"):
        torch.cuda._sleep(LONG)
        moved = batch.to(DEVICE, non_blocking=True)
        result = fd.decode_rle_batch(RLES, DEVICE)
        done.record()
        assert not done.query()
    assert moved == FLAT
    assert_equal(result, FLAT.decode())


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", CALLS_THAT_WAIT)
def test_calls_wait_no_more_than_they_must(name, kind):
    on_host = BATCHES[kind][0]
    batch = on_host.to(DEVICE)
    masks = batch.decode().flatten(0, -3)
    call = CALLS_THAT_WAIT[name]
    with synchronizing("warn"), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = call(batch, masks)
    assert sum("synchronizing" in str(each.message) for each in seen) == WAITS.get(name, 1)
    assert_equal(result, call(on_host, masks.cpu()))


# --- CUDA graphs


def capture(call):
    """Run a call once on a side stream, as torch asks, then capture it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # in the mode that sees every call, also those of the kernels
        result = call()
    return graph, result


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", CALLS)
def test_graph_sees_what_the_batch_holds_now(name, kind):
    first, second = BATCHES[kind]
    assert first.data.numel() == second.data.numel()
    assert first != second
    batch = first.to(DEVICE)
    graph, result = capture(lambda: CALLS[name](batch))
    for on_host in (first, second, first):
        batch.copy_(on_host)
        result.fill_(1)  # what was there must not matter
        graph.replay()
        assert_equal(result, CALLS[name](on_host))


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_graph_decodes_into_out(kind, dtype):
    first, second = BATCHES[kind]
    batch = first.to(DEVICE)
    out = torch.full(first.decode().shape, 1, dtype=dtype, device=DEVICE)
    graph, _ = capture(lambda: batch.decode(dtype=dtype, out=out))
    for on_host in (first, second, first):
        batch.copy_(on_host)
        out.fill_(1)
        graph.replay()
        assert_equal(out, on_host.decode(dtype=dtype))


def test_graph_cannot_copy_tables_from_the_host():
    batch = FLAT.to(DEVICE)
    batch.area()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        area = batch.area()
        for call in (CALLS_WITH_TABLES | CALLS_THAT_LOOK).values():
            with pytest.raises(RuntimeError, match="CUDA graph cannot replay"):
                call(batch)
    graph.replay()
    assert_equal(area, FLAT.area())


# --- Streams, devices, memory


def test_runs_on_the_current_stream():
    batch, expected = FLAT.to(DEVICE), FLAT.decode()
    out = torch.full(expected.shape, 9, dtype=torch.uint8, device=DEVICE)
    batch.decode(out=out.clone())
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(LONG)
        batch.decode(out=out)
    before = out.cpu()  # on the default stream, which does not wait for the other one
    assert bool((before == 9).all())
    side.synchronize()
    assert_equal(out, expected)


def test_streams_do_not_take_memory_from_one_another():
    """Workspaces come and go on three streams at once, and what is freed is soon overwritten."""
    batch, other = (each.to(DEVICE) for each in BATCHES["flat"])
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for i in range(60):
        with torch.cuda.stream(streams[i % 3]):
            results.append((batch.decode(), batch.iou(other), other.centroid(), (~batch).data))
            torch.full((batch.data.numel() * 4,), 255, dtype=torch.uint8, device=DEVICE)
    torch.cuda.synchronize()
    other = BATCHES["flat"][1]
    expected = FLAT.decode(), FLAT.iou(other), other.centroid(), (~FLAT).data
    for result in results:
        for part, wanted in zip(result, expected, strict=True):
            assert_equal(part, wanted)


def test_every_device_and_the_current_one_stays():
    current = torch.cuda.current_device()
    for index in range(torch.cuda.device_count()):
        place = torch.device(DEVICE, index)
        batch = FLAT.to(place)
        masks = batch.decode()
        for call, there, here in (
            *((call, (batch,), (FLAT,)) for call in CALLS_AT_ONCE.values()),
            *((call, (batch, masks), (FLAT, masks.cpu())) for call in CALLS_THAT_WAIT.values()),
        ):
            result = call(*there)
            assert result.device == place
            assert torch.cuda.current_device() == current
            assert_equal(result, call(*here))
        if index != current:
            with pytest.raises(ValueError, match="different devices"):
                batch.iou(FLAT.to(torch.device(DEVICE, current)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32], ids=str)
def test_outputs_at_any_offset(dtype):
    batch, expected = FLAT.to(DEVICE), FLAT.decode(dtype=dtype)
    n = expected.numel()
    for offset in range(17):
        memory = torch.full((n + 40,), 9, dtype=dtype, device=DEVICE)
        out = memory[offset : offset + n].view(expected.shape)
        batch.decode(dtype=dtype, out=out)
        assert_equal(out, expected)
        assert bool((memory[:offset] == 9).all())
        assert bool((memory[offset + n :] == 9).all())


def test_a_batch_goes_there_and_back():
    batch = FLAT.to(DEVICE)
    assert batch.device == torch.device(DEVICE, torch.cuda.current_device())
    assert batch.to(DEVICE) is batch
    assert batch == FLAT == batch.cpu()
    assert FLAT.cuda() == FLAT
    assert pickle.loads(pickle.dumps(batch)).device == batch.device
    assert batch[2:5] == FLAT[2:5]
    assert batch[[4, 0]].device == batch.device
    assert fd.RLEBatch.cat([batch, batch[:2]]) == fd.RLEBatch.cat([FLAT, FLAT[:2]])
    assert batch.to_coco() == FLAT.to_coco()
    assert GROUPED.to(DEVICE).flat() == FLAT
    encoded = fd.encode_masks(batch.decode())  # made there: the host knows nothing of it yet
    assert encoded == FLAT
    assert torch.equal(encoded.sizes, FLAT.sizes)
    assert_equal(encoded[1:3].decode(), FLAT[1:3].decode())


# --- Workers of a DataLoader


def decode_on_gpu(rles):
    """A ``collate_fn``. The result comes back through the CPU: tensors of a GPU are shared memory
    of a process that may end first."""
    return fd.decode_rle_batch(rles, device=DEVICE).cpu()


@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_in_collate_fn(workers):
    context = "spawn" if workers else None
    loader = DataLoader(
        RLES,
        batch_size=3,
        collate_fn=decode_on_gpu,
        num_workers=workers,
        multiprocessing_context=context,
    )
    decoded = torch.cat(list(loader))
    assert torch.equal(decoded, FLAT.decode())


FORK_WARNING = "ignore:.*multi-threaded, use of fork:DeprecationWarning"


@pytest.mark.filterwarnings(FORK_WARNING)
def test_forked_workers_are_told_what_to_do():
    loader = DataLoader(
        RLES,
        batch_size=3,
        collate_fn=decode_on_gpu,
        num_workers=1,
        multiprocessing_context="fork",
    )
    with pytest.raises(RuntimeError, match=r"(?s)forked.*pack_rles.*spawn"):
        next(iter(loader))


def test_a_fork_after_import_can_use_the_gpu():
    """Neither importing the package nor asking for its backends touches the GPU."""
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import torch
import sa1b_fastdecode as fd
assert [b for b in fd.backends() if b.name == "cuda"][0].available
assert fd.active_backend("cuda") == "cuda"
batch = fd.pack_rles([{{"size": [2, 3], "counts": [1, 2, 3]}}])
assert not torch.cuda.is_initialized()
child = os.fork()
if child == 0:
    status = 1
    try:
        status = 0 if batch.to("cuda").decode().tolist() == [[[0, 1, 0], [1, 0, 0]]] else 2
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- Pinned memory and prefetching


def as_items(rles):
    """A ``collate_fn`` with batches at several depths."""
    batch = fd.pack_rles(rles)
    return {"masks": batch, "more": [{"masks": batch[:1]}, (batch, "name")], "number": 3}


@pytest.mark.filterwarnings(FORK_WARNING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("workers", [0, 1])
def test_data_loaders_pin_batches(workers):
    loader = DataLoader(
        RLES, batch_size=4, collate_fn=as_items, num_workers=workers, pin_memory=True
    )
    seen = []
    for items in loader:
        assert items["masks"].is_pinned()
        assert items["more"][0]["masks"].is_pinned()
        assert items["more"][1][0].is_pinned()
        assert items["more"][1][1] == "name"
        assert not items["masks"].to(DEVICE).is_pinned()
        seen.append(items["masks"])
    assert fd.RLEBatch.cat(seen) == FLAT


@pytest.mark.filterwarnings(FORK_WARNING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_prefetched_batches_are_what_was_loaded(workers, pinned):
    loader = DataLoader(
        RLES * 5, batch_size=4, collate_fn=as_items, num_workers=workers, pin_memory=pinned
    )
    expected = (FLAT.decode().repeat(5, 1, 1), FLAT.area().repeat(5))
    decoded, areas = [], []
    with DevicePrefetcher(loader, DEVICE, decode={"dtype": torch.bool}) as batches:
        for items in batches:
            assert items["more"][1][0].is_cuda
            decoded.append(items["masks"])
            # Memory that this batch leaves must not be taken while this stream reads it.
            areas.append(items["more"][1][0].sum((1, 2)))
            del items
    assert_equal(torch.cat(decoded), expected[0].bool())
    assert_equal(torch.cat(areas), expected[1])


def test_prefetching_leaves_masks_compressed():
    tensors = torch.arange(3)
    with DevicePrefetcher([{"masks": FLAT, "x": tensors}], DEVICE, decode=False) as batches:
        (items,) = batches
    assert items["masks"].device.type == "cuda"
    assert items["masks"] == FLAT
    assert_equal(items["x"], tensors)


def test_errors_of_the_loader_arrive_in_turn():
    def loader():
        yield FLAT
        yield FLAT[:2]
        raise KeyError("third")

    batches = iter(DevicePrefetcher(loader(), DEVICE))
    assert_equal(next(batches), FLAT.decode())
    assert_equal(next(batches), FLAT[:2].decode())
    with pytest.raises(KeyError, match="third"):
        next(batches)


def test_two_batches_are_on_the_device():
    batch = FLAT[:4]
    size = {"size": (1000, 2000)}
    one = 4 * 1000 * 2000
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    totals = []
    with DevicePrefetcher([batch] * 12, DEVICE, decode=size) as batches:
        for masks in batches:
            totals.append(masks.sum())
            del masks  # else a loop's variable holds the last one while the next is fetched
    peak = torch.cuda.max_memory_allocated() - before
    assert 2 * one <= peak < 2.5 * one
    expected = batch.decode(**size).sum()
    assert [int(total) for total in totals] == [int(expected)] * 12


def test_leaving_early_closes_the_loader():
    closed = []

    class Loader:
        def __iter__(self):
            try:
                while True:
                    yield FLAT
            finally:
                closed.append(True)

    with DevicePrefetcher(Loader(), DEVICE) as batches:
        for masks in batches:
            assert_equal(masks, FLAT.decode())
            break
    assert closed == [True]


# --- Large results


def test_more_than_four_gigabytes():
    """More elements than 32 bits count, and more bytes of fewer elements."""
    batch = fd.pack_rles(RLES).to(DEVICE)
    size = (1500, 2250)
    few = batch.decode(size=size)
    for repeats, dtype in ((142, torch.uint8), (36, torch.float32)):
        many = fd.pack_rles(RLES * repeats).to(DEVICE)
        result = many.decode(size=size, dtype=dtype)
        assert result.numel() * result.element_size() > 2**32
        for part in result.split(len(RLES)):
            assert torch.equal(part, few.to(dtype))
        del part, result


def test_encoding_more_than_four_gigabytes():
    masks = FLAT.to(DEVICE).decode(size=(1500, 2250))
    expected = fd.encode_masks(masks).to_coco("bytes")
    many = masks.repeat(142, 1, 1)
    assert many.numel() > 2**32
    assert fd.encode_masks(many).to_coco("bytes") == expected * 142
    assert fd.encode_masks(many[-1]).to_coco("bytes") == expected[-1:]


def test_more_masks_and_images_than_16_bits_count():
    rles = [draws.to_rle(mask) for mask in draws.every_kind(3, 5)] * 7779
    flat, images = fd.pack_rles(rles), fd.pack_rles([[rle] for rle in rles])
    assert len(flat) > 70_000
    on_device = flat.to(DEVICE)
    for name in ("area", "bbox", "centroid", "decode", "boundary_area", "background"):
        assert_equal(CALLS[name](on_device), CALLS[name](flat))
    assert fd.encode_masks(on_device.decode()) == fd.encode_masks(flat.decode())
    for name in ("decode", "iou", "to_label_map"):
        assert_equal(CALLS[name](images.to(DEVICE)), CALLS[name](images))
    assert_equal(on_device.to_label_map(), flat.to_label_map())
    scores = torch.arange(len(images)) % 1000
    kept = fd.matching.nms(images.to(DEVICE), scores, 0.5)
    assert_equal(kept, fd.matching.nms(images, scores, 0.5))
    assert_equal(on_device.iou(on_device[:3]), flat.iou(flat[:3]))
    assert_equal(on_device[:3].iou(on_device), flat[:3].iou(flat))
    found, expected = (batch.intersecting_pairs(batch[:9]) for batch in (on_device, flat))
    for part, wanted in zip(found, expected, strict=True):
        assert_equal(part, wanted)


@pytest.mark.parametrize("size", [(70_001, 33), (33, 70_001), (1, 300_000), (300_000, 1)])
def test_more_rows_and_columns_than_16_bits_count(size):
    on_host = fd.encode_masks(FLAT.decode(size=size))
    batch = on_host.to(DEVICE)
    for name in (
        "decode",
        "float32",
        "area",
        "bbox",
        "centroid",
        "iou",
        "boundary",
        "to_label_map",
    ):
        assert_equal(CALLS[name](batch), CALLS[name](on_host))
    assert fd.encode_masks(batch.decode()) == on_host


# --- Whatever the bytes are


@given(
    st.lists(draws.hostile_strings, min_size=1, max_size=6),
    st.sampled_from([(1, 1), (5, 7), (64, 3), (3, 70), (33, 33), (0, 4), (5000, 1), (1, 4096)]),
)
@settings(max_examples=300)
def test_hostile_strings(strings, sides):
    """Zeros and ones, the same ones each time, and not a byte beside the output."""
    rles = [{"size": sides, "counts": characters} for characters in strings]
    batch = fd.pack_rles(rles, validate=False).to(DEVICE)
    decoded = batch.decode()
    assert not decoded.numel() or int(decoded.max()) <= 1
    around = torch.full((256,), 0xA5, dtype=torch.uint8, device=DEVICE)
    memory = torch.cat([around, torch.full_like(decoded, 0xA5).flatten(), around])
    batch.decode(out=memory[256 : 256 + decoded.numel()].view(decoded.shape))
    assert torch.equal(memory, torch.cat([around, decoded.flatten(), around]))
    for call in CALLS.values():
        assert_equal(call(batch), call(batch).cpu())
    for part, again in zip(
        batch.intersecting_pairs(batch), batch.intersecting_pairs(batch), strict=True
    ):
        assert torch.equal(part, again)
    for call in (lambda: batch.merge(), lambda: ~batch, lambda: batch ^ batch[0]):
        assert call() == call()
        fd.pack_rles(call().to_coco())  # valid


def test_blocks_that_lie():
    """A kernel cannot raise; it must only stay inside its buffers, and the GPU must live on."""
    n = len(FLAT)
    ranks = torch.arange(0, 9000, 90, device=DEVICE).expand(n, -1)
    words = 3 * n + 1
    for word in range(words):
        for value in (-1, 0, 7, 2**31, 2**32, 2**50, 2**63 - 1, -(2**63)):
            data = FLAT.data.clone()
            data[: 8 * words].view(torch.int64)[word] = value
            data = data.to(DEVICE)
            shape = [n, 67, 131]
            memory = torch.full((n * 67 * 131 + 512,), 0xA5, dtype=torch.uint8, device=DEVICE)
            out = memory[256:-256].view(shape)
            ops.decode_out(data, n, None, None, None, False, out, 1)
            assert int(out.max()) <= 1
            assert bool((memory[:256] == 0xA5).all())
            assert bool((memory[-256:] == 0xA5).all())
            for name in ("area", "bbox", "centroid", "boundary_area"):
                getattr(ops, name)(data, n)
            for region in _REGIONS.values():
                ops.pixels_at_ranks(data, n, ranks, region)
            ops.iou(data, n, data, n, None, [n, n])
            ops.intersecting_pairs(data, n, data, n, None)
            order = torch.full((n,), value, dtype=torch.int64, device=DEVICE)
            for places in (order, torch.arange(n, device=DEVICE)):
                label_map = ops.paint_labels(data, n, places, places.int(), -1, shape[1:])
                assert int(label_map.max()) < n
                ops.suppress(data, n, places, None, 1, 0.5, None)
            with contextlib.suppress(ValueError):  # sizes that differ
                ops.combine(data, n, data, n, torch.arange(n), torch.tensor([0, 2, n]), None, 2)
    torch.cuda.synchronize()
    assert_equal(FLAT.to(DEVICE).decode(), FLAT.decode())


# --- torch.compile


@pytest.fixture
def compiled():
    """torch.compile with nothing left outside of the graph."""

    def compile_whole(function, backend="aot_eager"):
        torch.compiler.reset()
        return torch.compile(function, fullgraph=True, backend=backend)

    yield compile_whole
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "flat") for name in CALLS | CALLS_WITH_TABLES), ("decode", "grouped")],
)
def test_compiled(compiled, name, kind):
    call = (CALLS | CALLS_WITH_TABLES)[name]
    on_host = BATCHES[kind][0]
    # Arithmetic after it, so that the result has to be a tensor that the compiler understands.
    result = compiled(lambda batch: call(batch) * 2)(on_host.to(DEVICE))
    assert_equal(result, call(on_host) * 2)


def test_compiled_decode_out(compiled):
    def decode(batch, out):
        batch.decode(out=out)
        return out + 1

    expected = FLAT.decode()
    out = torch.full(expected.shape, 9, dtype=torch.uint8, device=DEVICE)
    assert_equal(compiled(decode)(FLAT.to(DEVICE), out), expected + 1)
    assert_equal(out, expected)


@pytest.mark.filterwarnings("default")  # what torch's own compiler still uses
def test_compiled_by_inductor(compiled):
    decode = compiled(lambda batch: batch.decode(dtype=torch.float32) * 2 + 1, "inductor")
    assert_equal(decode(FLAT.to(DEVICE)), FLAT.decode(dtype=torch.float32) * 2 + 1)


def test_this_suite_ran_on_a_gpu():
    """What all results above were made by."""
    assert fd.active_backend(DEVICE) == "cuda"
    assert FLAT.to(DEVICE).decode().is_cuda
