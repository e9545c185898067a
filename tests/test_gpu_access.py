"""Where a GPU may be used and where not: forked workers, spawned ones; and pinning for one."""

import multiprocessing

import draws
import pytest
import torch
from test_dispatch import run
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

import sa1b_fastdecode as fd
from sa1b_fastdecode.data.collate import SA1BBatch

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

MASKS = [draws.to_rle(mask) for mask in draws.every_kind(9, 14)]

no_gpu = pytest.mark.skipif(torch.cuda.device_count() > 0, reason="what is said without a GPU")

# What each kind of process must say on a machine without a GPU.
FORKED = "this process was forked.*pack_rles.*batch.to\\('cuda'\\).*'spawn'.*num_workers=0"
NO_GPU = "no backend is available for device 'cuda'.*cuda: .*numba-cuda: .*device='cpu'"


def decode_on_gpu(rles):
    """A collate_fn that does in the worker what belongs into the main process."""
    return fd.decode_rle_batch(rles, device="cuda")


def move_to_gpu(rles):
    return fd.pack_rles(rles).to("cuda")


def prefetch_to_gpu(rles):
    return list(fd.data.DevicePrefetcher([fd.pack_rles(rles)], "cuda"))


def load(collate, context=None):
    loader = DataLoader(
        MASKS[:4],
        batch_size=4,
        num_workers=0 if context is None else 1,
        collate_fn=collate,
        multiprocessing_context=context,
    )
    (batch,) = loader
    return batch


def assert_says(pattern, error):
    assert error.match("(?s).*" + pattern)


@pytest.mark.parametrize("collate", [decode_on_gpu, move_to_gpu, prefetch_to_gpu])
def test_forked_workers_are_told_what_to_do(collate):
    """With a GPU and without one."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    with pytest.raises(RuntimeError) as caught:
        load(collate, "fork")
    assert_says(FORKED, caught)


@no_gpu
@pytest.mark.parametrize("context", [None, "spawn"])
def test_other_processes_are_told_what_is_missing(context):
    with pytest.raises(RuntimeError) as caught:
        load(decode_on_gpu, context)
    assert_says(NO_GPU, caught)
    assert "forked" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU")
@pytest.mark.parametrize("context", [None, "spawn"])
def test_other_processes_use_the_gpu(context):
    planes = load(decode_on_gpu, context)
    assert planes.is_cuda
    assert torch.equal(planes.cpu(), fd.decode_rle_batch(MASKS[:4]))


def test_forked_workers_pack():
    """The pattern that the message names."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    batch = load(fd.pack_rles, "fork")
    assert torch.equal(batch.decode(), fd.decode_rle_batch(MASKS[:4]))


def test_import_and_decoding_do_not_start_cuda():
    code = """
import torch
import sa1b_fastdecode as fd
import sa1b_fastdecode.data.prefetch
fd.backends()
fd.decode_rle_batch({"size": [2, 3], "counts": [1, 2, 3]})
print(torch.cuda.is_initialized())
"""
    done = run(code)
    assert done.stdout.strip() == "False", done.stderr


@pytest.fixture
def pinned(monkeypatch):
    """The storages that were pinned: without a GPU there is nothing to pin for."""
    storages = []

    def pin(tensor, device=None):
        copy = tensor.clone()
        storages.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    return storages


def test_pin_memory(pinned):
    for batch in (fd.pack_rles(MASKS), fd.pack_rles([MASKS[:3], [], MASKS[3:5]])):
        copy = batch.pin_memory()
        assert pinned == [copy.data.data_ptr()]  # one block, nothing else
        assert copy == batch
        assert copy.data.data_ptr() != batch.data.data_ptr()
        assert torch.equal(copy.decode(), batch.decode())
        assert torch.equal(copy.sizes, batch.sizes)
        pinned.clear()


def test_data_loaders_pin_batches_inside_anything(pinned):
    """What ``DataLoader(pin_memory=True)`` calls on each batch."""
    masks = fd.pack_rles([MASKS[:3], MASKS[3:5]])
    value = {"masks": masks, "nested": [{"of": (masks, "name")}], "batch": SA1BBatch(masks=masks)}
    copy = pin_memory(value)
    found = [copy["masks"], copy["nested"][0]["of"][0], copy["batch"]["masks"]]
    assert sorted(batch.data.data_ptr() for batch in found) == sorted(pinned)
    assert len(pinned) == 3
    assert all(batch == masks and batch is not masks for batch in found)
    assert type(copy["batch"]) is SA1BBatch
    assert copy["nested"][0]["of"][1] == "name"
