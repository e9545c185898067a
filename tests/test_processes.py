"""Forks, spawned processes and threads: nothing hangs, nothing is shared that should not be."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import draws
import numpy as np
import pytest
import reference
import torch
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch

# A fork or a thread that hangs must not hang the suite.
pytestmark = pytest.mark.timeout(60)

MASKS = [reference.resize(mask, (417, 533)) for mask in draws.every_kind(31, 41)]
RLES = [coco_mask.encode(np.asfortranarray(mask)) for mask in MASKS]
EXPECTED = torch.from_numpy(np.array(MASKS))


def decode_with_threads():
    return fd.decode_rle_batch(RLES, num_threads=4)


# The other operators that start threads, on enough masks that they do.
MANY = [draws.blobs(np.random.default_rng(i), 24, 31, 2) for i in range(1200)]
MANY_RLES = [coco_mask.encode(np.asfortranarray(mask)) for mask in MANY]


def compare_with_threads():
    """Return the intersections and the pairs that meet of many masks, as arrays."""
    batch = fd.pack_rles(MANY_RLES)
    return [part.numpy() for part in (batch.intersection(batch), *batch.intersecting_pairs(batch))]


def encode_with_threads():
    return [fd.encode_masks(EXPECTED, num_threads=4).data.numpy()]


CALLS = {
    "decode": lambda: [decode_with_threads().numpy()],
    "pairs": compare_with_threads,
    "encode": encode_with_threads,
}


def expected_of(call):
    """Return what a call must give, from something else than the kernels."""
    if call == "decode":
        return [np.array(MASKS)]
    if call == "encode":
        return [fd.pack_rles(RLES).data.numpy()]
    flat = np.stack(MANY).reshape(len(MANY), -1).astype(np.float32)
    shared = (flat @ flat.T).astype(np.int64)
    return [shared, np.argwhere(shared), shared[shared > 0]]


def same(arrays, expected):
    return all(np.array_equal(a, b) for a, b in zip(arrays, expected, strict=True))


class DecodingDataset(torch.utils.data.Dataset):
    """Each item is decoded inside the worker."""

    def __init__(self, cpu_backend):
        self.cpu_backend = cpu_backend

    def __len__(self):
        return 4

    def __getitem__(self, i):
        with dispatch.use(self.cpu_backend):
            return fd.decode_rle_batch(RLES[i : i + 3], num_threads=3)


class ThreadCountingDataset(DecodingDataset):
    """Each item is the number of threads that a decoding with the default setting started."""

    def __getitem__(self, i):
        with dispatch.use(self.cpu_backend):
            return torch.tensor([most_threads_of(num_threads=None), torch.get_num_threads()])


def most_threads_of(**arguments):
    """Return how many threads the system shows while a large batch is decoded."""
    batch = fd.pack_rles(RLES)
    out = torch.empty((9, 4000, 5000), dtype=torch.uint8)
    batch.decode(size=(40, 50))  # whatever is compiled or loaded at first
    tasks = f"/proc/{os.getpid()}/task"
    most, stop = 0, threading.Event()

    def watch():
        nonlocal most
        while not stop.is_set():
            most = max(most, len(os.listdir(tasks)))  # noqa: PTH208

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.02)
    before, most = most, 0
    batch.decode(size=(4000, 5000), out=out, **arguments)
    stop.set()
    watcher.join()
    return most - before + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("call", CALLS)
def test_fork_after_use_with_threads(cpu_backend, call):
    expected = expected_of(call)
    assert same(CALLS[call](), expected)
    child = os.fork()
    if child == 0:
        # NumPy compares, because torch's own threads do not survive a fork; and pytest must not go
        # on in the child, whatever happens.
        status = 2
        try:
            status = 0 if same(CALLS[call](), expected) else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert same(CALLS[call](), expected)


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_data_loader_workers(cpu_backend, context):
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} on this system")
    decode_with_threads()
    loader = torch.utils.data.DataLoader(
        DecodingDataset(cpu_backend), batch_size=2, num_workers=2, multiprocessing_context=context
    )
    for i, planes in enumerate(loader):
        expected = torch.stack([EXPECTED[2 * i : 2 * i + 3], EXPECTED[2 * i + 1 : 2 * i + 4]])
        assert torch.equal(planes, expected)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")  # noqa: PTH112
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_use_one_thread_by_default(cpu_backend):
    """And the main process torch's setting; more threads in each worker would fight each other."""
    # The thread that calls may be one of them, or wait for them.
    assert most_threads_of(num_threads=None) in (2, 3)  # conftest.py sets 2
    assert most_threads_of(num_threads=3) in (3, 4)
    assert most_threads_of(num_threads=1) == 1
    loader = torch.utils.data.DataLoader(
        ThreadCountingDataset(cpu_backend), num_workers=1, sampler=[0], batch_size=None
    )
    ((used, setting),) = [item.tolist() for item in loader]
    assert setting == 1
    assert used == 1


def test_many_threads_at_once(cpu_backend):
    """Each with its own options, all compared with what one thread gives."""
    jobs = [
        {"num_threads": 1},
        {"num_threads": 3},
        {"size": (211, 99), "num_threads": 2},
        {"crop": (3, 5, 400, 301), "dtype": torch.float32},
        {"select": [3, 0, 5], "num_threads": 2},
    ]
    batch = fd.pack_rles(RLES)
    expected = [batch.decode(**job) for job in jobs]
    failures = []

    def work(first):
        for i in range(first, first + 2 * len(jobs)):
            job = jobs[i % len(jobs)]
            try:
                mine = fd.pack_rles(RLES) if i % 2 else batch
                same = torch.equal(mine.decode(**job), expected[i % len(jobs)])
                if not same or mine.area().sum() != EXPECTED.sum():
                    failures.append(job)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_gil_is_released(cpu_backend):
    """Another Python thread goes on while a call lasts that is long enough to see it."""
    noise = coco_mask.encode(np.asfortranarray(draws.noise(np.random.default_rng(7), 2000, 2000)))
    batch = fd.pack_rles([noise])

    def seconds(repeats):
        start = time.perf_counter()
        batch.decode(select=[0] * repeats, size=(8, 8), num_threads=1)
        return time.perf_counter() - start

    seconds(1)  # compiles
    repeats = max(1, int(0.5 / seconds(1)))
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    ticker = threading.Thread(target=tick)
    ticker.start()
    start = time.perf_counter()
    seconds(repeats)
    end = time.perf_counter()
    done.set()
    ticker.join()
    # In the middle of the call: at its ends the interpreter may switch threads anyway.
    margin = (end - start) / 10
    assert any(start + margin < moment < end - margin for moment in ticks)


def test_the_gil_is_released_while_encoding(cpu_backend):
    """Another Python thread goes on counting in the middle of the call."""
    masks = np.random.default_rng(0).integers(0, 2, (4, 3000, 4000), np.uint8)
    fd.encode_masks(masks[:, :70])  # compiles
    ticks, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            ticks.append(time.perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    fd.encode_masks(masks, num_threads=1)
    end = time.perf_counter()
    stop.set()
    watcher.join()
    middle = begin + (end - begin) / 4, end - (end - begin) / 4
    assert sum(middle[0] < tick < middle[1] for tick in ticks) > 100


def test_encoding_in_many_threads_at_once(cpu_backend):
    masks = EXPECTED.numpy()
    wanted = fd.encode_masks(masks, num_threads=1)
    layouts = [masks, np.asfortranarray(masks), masks.astype(np.float32), masks[::-1]]
    failures = []

    def work(first):
        for i in range(first, first + 8):
            some = layouts[i % len(layouts)]
            batch = fd.encode_masks(some, num_threads=1 + i % 3)
            if i % len(layouts) == 3:
                batch = batch[np.arange(len(batch))[::-1]]
            if batch != wanted:
                failures.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_pairs_in_many_threads_at_once(cpu_backend):
    """Of a batch that all of them use, and of batches of their own; with itself, with another."""
    rles = MANY_RLES[:500]
    batch = fd.pack_rles(rles)
    flat = np.stack(MANY[:500]).reshape(500, -1).astype(np.float32)
    shared = (flat @ flat.T).astype(np.int64)
    wanted = [shared, np.argwhere(shared), shared[shared > 0]]
    failures = []

    def work(first):
        for i in range(first, first + 4):
            try:
                a = batch if i % 2 else fd.pack_rles(rles)
                b = a if i % 4 < 2 else batch[:]
                found = [a.intersection(b), *a.intersecting_pairs(b)]
                if not same([part.numpy() for part in found], wanted):
                    failures.append(i)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("name", ["cpp", "numba"])
def test_first_use_from_many_threads_at_once(name):
    """Backends are chosen and kernels compiled by whoever comes first."""
    code = f"""
import sys, threading
sys.path[:0] = {sys.path!r}
import sa1b_fastdecode as fd
results, barrier = [], threading.Barrier(8)
def work():
    barrier.wait()
    results.append(fd.decode_rle_batch([{{"size": [2, 3], "counts": [1, 2, 3]}}]).tolist())
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert results == [[[[0, 1, 0], [1, 0, 0]]]] * 8, results
"""
    if not any(found.name == name and found.available for found in dispatch.backends()):
        pytest.skip(f"{name} is not available")
    environment = os.environ | {dispatch.ENVIRONMENT_VARIABLE: name}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(120)
def test_compiled_kernels_of_numba_are_cached_on_disk():
    """The second process loads what the first one compiled, and compiles nothing."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import torch
import sa1b_fastdecode as fd
batch = fd.pack_rles([{{"size": [2, 3], "counts": [1, 2, 3]}}])
for dtype in (torch.uint8, torch.float16, torch.float32):
    fd.encode_masks(batch.decode(dtype=dtype))
batch.area(), batch.to_coco("list"), batch.iou(batch), batch.intersecting_pairs(batch)
from numba.core.dispatcher import Dispatcher
from sa1b_fastdecode import numba_cpu
modules = [module for name, module in sys.modules.items() if name.startswith(numba_cpu.__name__)]
values = [value for module in modules for value in vars(module).values()]
kernels = set(value for value in values if isinstance(value, Dispatcher))
assert len(kernels) > 30
stats = [kernel.stats for kernel in kernels]
print(sum(sum(s.cache_misses.values()) for s in stats))
print(sum(sum(s.cache_hits.values()) for s in stats))
"""
    environment = os.environ | {dispatch.ENVIRONMENT_VARIABLE: "numba"}
    pytest.importorskip("numba")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    misses, hits = (int(n) for n in done.stdout.split())
    assert misses == 0
    assert hits >= 10


@pytest.mark.timeout(120)
def test_processes_that_come_at_once_compile_once(tmp_path):
    """For two types each, in another order; what was compiled for one must not serve the other."""
    pytest.importorskip("numba")
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import numpy as np
from sa1b_fastdecode.numba_cpu.runs import put_value
results = []
for dtype in (np.uint8, np.uint16)[::int(sys.argv[1])]:
    chars = np.zeros(9, dtype)
    results += [put_value(chars, 0, 500), chars.tolist()]
assert results == [2, [100, 63] + [0] * 7] * 2, results
print(sum(put_value.stats.cache_misses.values()))
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(1 - i % 2 * 2)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        for i in range(4)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(map(int, outputs)) == 2


def test_a_kernel_is_compiled_again_after_a_change_in_another_file(tmp_path):
    """What it calls is compiled into it, so the old one on disk would still do the old thing."""
    pytest.importorskip("numba")
    shutil.copytree(
        Path(fd.__file__).parent, tmp_path / "sa1b_fastdecode", ignore=lambda *_: ["__pycache__"]
    )
    code = """
import numpy as np
from sa1b_fastdecode.numba_cpu import codec
block = np.frombuffer(np.array([1, 2, 32]).tobytes() + np.array([34]).tobytes() + b"02", np.uint8)
counts, offsets = np.zeros(34, np.uint32), np.zeros(2, np.int64)
codec.decompress(block.ctypes.data, len(block), 1, counts.ctypes.data, offsets.ctypes.data)
stats = codec._decompress.stats
print(counts[:2].tolist(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}

    def run():
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "[0, 2] 0 1"
    assert run() == "[0, 2] 1 0"
    runs = tmp_path / "sa1b_fastdecode" / "numba_cpu" / "runs.py"
    changed = runs.read_text().replace("return at, count, newer", "return at, 2 * count, newer")
    runs.write_text(changed)
    assert run() == "[0, 4] 0 1"
