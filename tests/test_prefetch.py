"""Batches arrive in order, whole and on their device; and the loader is let go of at the end."""

import collections
import gc
import multiprocessing
import time
import weakref

import draws
import pytest
import torch
from torch.utils.data import DataLoader

import sa1b_fastdecode as fd
from sa1b_fastdecode import RLEBatch
from sa1b_fastdecode.data import DevicePrefetcher
from sa1b_fastdecode.data.collate import SA1BBatch

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

MASKS = [draws.to_rle(mask) for mask in draws.every_kind(9, 14)]
Pair = collections.namedtuple("Pair", ["image", "masks"])

needs_gpu = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU")
no_gpu = pytest.mark.skipif(torch.cuda.device_count() > 0, reason="what is said without a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def place(request):
    """The device that batches are put on."""
    return torch.device(request.param)


def batch_of(i):
    return {"image": torch.full((2, 3), i), "masks": fd.pack_rles(MASKS[i:]), "id": f"sa_{i}"}


class Batches(torch.utils.data.Dataset):
    """Four batches; an error in place of the one that is named."""

    def __init__(self, error_at=None):
        self.error_at = error_at

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i == self.error_at:
            raise KeyError(f"batch {i}")
        if i == len(self):
            raise IndexError
        return batch_of(i)


def loader_of(num_workers, **arguments):
    return DataLoader(Batches(**arguments), batch_size=None, num_workers=num_workers)


def only(value, place, **arguments):
    """Return the one batch of a loader of one."""
    (batch,) = DevicePrefetcher([value], place, **arguments)
    return batch


def assert_on(tensor, place, expected):
    assert tensor.device.type == place.type
    assert torch.equal(tensor.cpu(), expected)


def test_containers_stay_what_they_are(place):
    masks = fd.pack_rles(MASKS)
    planes = masks.decode()
    image = torch.arange(6.0)
    count = collections.defaultdict(list, {"masks": masks})
    value = {
        "pair": Pair(image, masks),
        "list": [image, (masks, "name", None), []],
        "ordered": collections.OrderedDict(b=masks, a=image),
        "count": count,
        "batch": SA1BBatch(masks=masks),
        "size": torch.Size([3, 4]),
        "set": {1, 2},
    }
    placed = only(value, place)
    assert type(placed) is dict
    assert list(placed) == list(value)
    assert type(placed["pair"]) is Pair
    assert_on(placed["pair"].image, place, image)
    assert_on(placed["pair"].masks, place, planes)
    first, (second, *others), nothing = placed["list"]
    assert_on(first, place, image)
    assert_on(second, place, planes)
    assert (others, nothing) == (["name", None], [])
    assert type(placed["ordered"]) is collections.OrderedDict
    assert list(placed["ordered"]) == ["b", "a"]
    assert placed["count"]["new"] == []
    assert_on(placed["count"]["masks"], place, planes)
    assert type(placed["batch"]) is SA1BBatch
    assert_on(placed["batch"]["masks"], place, planes)
    assert type(placed["size"]) is torch.Size
    assert placed["size"] == (3, 4)
    assert placed["set"] == {1, 2}
    # What the loader gave is not changed.
    assert list(count) == ["masks"]
    assert value["batch"]["masks"] is masks
    assert value["list"][0] is image


@pytest.mark.parametrize("value", [torch.arange(3), 7, "text", None, b"bytes"])
def test_batches_without_containers(place, value):
    placed = only(value, place)
    if isinstance(value, torch.Tensor):
        assert_on(placed, place, value)
    else:
        assert placed is value


def test_how_masks_are_decoded(place):
    masks = fd.pack_rles(MASKS)
    assert_on(only(masks, place, decode=True), place, masks.decode())
    compressed = only([masks], place, decode=False)[0]
    assert isinstance(compressed, RLEBatch)
    assert compressed.device.type == place.type
    assert compressed == masks
    keywords = {"dtype": torch.bool, "size": (5, 6)}
    resized = only(masks, place, decode=keywords)
    assert resized.dtype == torch.bool
    assert_on(resized, place, masks.decode(**keywords))
    assert_on(only(masks, place, decode={}), place, masks.decode())
    grouped = fd.pack_rles([MASKS[:3], [], MASKS[3:5]])
    assert_on(only({"masks": grouped}, place)["masks"], place, grouped.decode())


def test_wrong_keywords(place):
    with pytest.raises(TypeError, match="colour"):
        only(fd.pack_rles(MASKS), place, decode={"colour": "red"})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders(place, num_workers):
    """Twice: each iteration is one pass over the loader."""
    batches = DevicePrefetcher(loader_of(num_workers), place)
    assert len(batches) == 4
    for _ in range(2):
        ids = []
        for i, batch in enumerate(batches):
            assert_on(batch["image"], place, batch_of(i)["image"])
            assert_on(batch["masks"], place, batch_of(i)["masks"].decode())
            ids.append(batch["id"])
        assert ids == [f"sa_{i}" for i in range(4)]


def test_loader_without_a_length(place):
    batches = DevicePrefetcher(iter([1, 2]), place)
    with pytest.raises(TypeError):
        len(batches)
    assert list(batches) == [1, 2]


def test_no_batches(place):
    assert list(DevicePrefetcher([], place)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_come_after_the_batches_before_them(place, num_workers):
    loader = loader_of(num_workers, error_at=2)
    seen = []
    with pytest.raises(KeyError, match="batch 2"):
        for batch in DevicePrefetcher(loader, place):
            seen.append(batch["id"])
    assert seen == ["sa_0", "sa_1"]


def test_errors_of_decoding_come_when_it_is_their_turn(place):
    mixed = fd.pack_rles([MASKS[0], {"size": [2, 3], "counts": [6]}])
    batches = iter(DevicePrefetcher([fd.pack_rles(MASKS), mixed], place))
    next(batches)
    with pytest.raises(ValueError, match="pad=True"):
        next(batches)


def workers_end(before):
    """Wait until no more processes are left than before."""
    gc.collect()
    while [child for child in multiprocessing.active_children() if child not in before]:
        time.sleep(0.01)
    return True


def test_workers_end_with_the_context(place):
    before = multiprocessing.active_children()
    with DevicePrefetcher(loader_of(2), place) as batches:
        iterator = iter(batches)  # held, as it is in a frame that an error keeps alive
        next(iterator)
        assert len(multiprocessing.active_children()) >= 2
    assert workers_end(before)
    assert list(iterator) == []


def test_workers_end_when_the_body_raises(place):
    before = multiprocessing.active_children()
    with pytest.raises(ZeroDivisionError), DevicePrefetcher(loader_of(2), place) as batches:
        for _ in batches:
            raise ZeroDivisionError
    assert workers_end(before)


def test_it_keeps_no_batch():
    """Dense masks are large: what the caller deletes must be gone."""
    iterator = iter(DevicePrefetcher([fd.pack_rles(MASKS)] * 2, "cpu"))
    batch = next(iterator)
    alive = weakref.ref(batch)
    del batch
    assert alive() is None
    next(iterator)


@no_gpu
def test_without_a_gpu():
    with pytest.raises(RuntimeError, match="no backend is available for device 'cuda'"):
        iter(DevicePrefetcher([1], "cuda"))


@needs_gpu
def test_what_the_loader_computes_on_the_gpu_comes_first():
    """The stream of the copies waits for the one that the loader runs on."""

    def batches():
        for i in range(3):
            torch.cuda._sleep(20_000_000)
            yield torch.full((1000,), i, device="cuda"), fd.pack_rles(MASKS).to("cuda")

    for i, (values, planes) in enumerate(DevicePrefetcher(batches(), "cuda")):
        assert bool((values == i).all())
        assert torch.equal(planes.cpu(), fd.pack_rles(MASKS).decode())


@needs_gpu
def test_memory_in_use_is_not_taken_for_the_next_batch():
    """The caller is slow on its stream, and lets go of a batch before the GPU has read it."""
    sums = []
    for batch in DevicePrefetcher([torch.full((1 << 20,), i) for i in range(8)], "cuda"):
        torch.cuda._sleep(20_000_000)
        sums.append(batch.sum())
        del batch
    assert [int(total) for total in sums] == [i << 20 for i in range(8)]
