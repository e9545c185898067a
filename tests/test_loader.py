"""Batches hold what the samples hold; every image comes once, also after whatever goes wrong."""

import copy
import functools
import itertools
import json
import os
import pickle
import signal
import types

import numpy as np
import pytest
import torch
from sa1b_files import rewrite, write_tars
from torch.utils.data import DataLoader, Subset

import sa1b_fastdecode as fd
from sa1b_fastdecode import spatial
from sa1b_fastdecode.data import (
    ARRCOCDataLoader,
    ARRCOCDataset,
    DevicePrefetcher,
    SA1BDataset,
    SA1BStream,
    SampleError,
    SkippedSample,
    create_sa1b_dataloader,
    sa1b_collate_fn,
    sampling_collate_fn,
    shared,
)
from sa1b_fastdecode.data.collate import SA1BBatch
from sa1b_fastdecode.data.transforms import HorizontalFlip
from sa1b_fastdecode.integrations import lightning
from sa1b_fastdecode.sample import write_tar

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores
]
COLUMNS = ("bboxes", "areas", "predicted_ious", "stability_scores")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sa1b")
    write_tars(folder, (7, 6))
    return folder


@pytest.fixture(scope="module")
def dataset(root):
    return SA1BDataset(root, progress=False)


@pytest.fixture(autouse=True)
def first_epoch(dataset):
    dataset.set_epoch(0)


def key(sample):
    """What tells the images of all tars apart."""
    return tuple(sample["image"][:, ::7, ::5].flatten().tolist()[:40])


def keys_of(batch):
    pairs = zip(batch["images"], batch["image_sizes"].tolist(), strict=True)
    return [key({"image": image[:, :h, :w]}) for image, (h, w) in pairs]


def all_keys(dataset):
    return [key(sample) for sample in dataset]


def check_batch(batch, samples):
    """A padded, compressed batch of these samples."""
    assert isinstance(batch, SA1BBatch)
    assert batch["image_ids"] == [s["image_id"] for s in samples]
    sizes = [tuple(s["image"].shape[1:]) for s in samples]
    assert batch["image_sizes"].tolist() == [list(size) for size in sizes]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    most = max(len(s["areas"]) for s in samples)
    assert batch["images"].shape == (len(samples), 3, height, width)
    assert batch["mask_counts"].tolist() == [len(s["areas"]) for s in samples]
    masks = batch["masks"]
    if isinstance(masks, fd.RLEBatch):
        assert masks.counts_per_image.tolist() == batch["mask_counts"].tolist()
        masks = masks.decode()
    assert masks.shape == (len(samples), most, height, width)
    for i, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
        n = len(sample["areas"])
        assert torch.equal(batch["images"][i, :, :h, :w], sample["image"])
        assert batch["images"][i, :, h:].sum() == batch["images"][i, :, :, w:].sum() == 0
        assert torch.equal(masks[i, :n, :h, :w], sample["masks"])
        assert masks[i].sum() == sample["masks"].sum()
        for name in COLUMNS:
            assert torch.equal(batch[name][i, :n], sample[name])
            assert not batch[name][i, n:].any()


# Collating


@pytest.mark.parametrize("dense", [False, True])
def test_collating_what_datasets_give(root, dataset, dense):
    packed = SA1BDataset(root, mask_format="rle")
    samples = [dataset[i] for i in range(4)]
    before = copy.deepcopy(samples)
    check_batch(sa1b_collate_fn(samples, dense=dense), before)
    check_batch(sa1b_collate_fn([packed[i] for i in range(4)], dense=dense), before)
    for sample, kept in zip(samples, before, strict=True):  # nothing was changed
        assert sample.keys() == kept.keys()
        assert all(torch.equal(sample[k], kept[k]) for k in sample if k != "image_id")
    check_batch(sa1b_collate_fn(samples[1:2]), before[1:2])  # one without masks


@pytest.mark.parametrize("dense", [False, True])
def test_ragged_batches(root, dataset, dense):
    packed = SA1BDataset(root, mask_format="rle")
    samples = [dataset[i] for i in range(4)]
    batch = sa1b_collate_fn([packed[i] for i in range(4)], ragged=True, dense=dense)
    for i, sample in enumerate(samples):
        assert torch.equal(batch["images"][i], sample["image"])
        if dense:
            assert torch.equal(batch["masks"][i], sample["masks"])
    for name in COLUMNS:
        assert torch.equal(batch[name], torch.cat([s[name] for s in samples]))
    assert batch["mask_counts"].tolist() == [6, 0, 9, 6]
    if not dense:
        assert batch["masks"] == fd.pack_rles(
            [packed[i]["masks"] for i in range(4)], image_sizes=batch["image_sizes"]
        )


def test_sizes_of_batches(root, dataset):
    packed = SA1BDataset(root, mask_format="rle")
    items = [packed[i] for i in range(3)]
    batch = sa1b_collate_fn(items, out_size=(20, 30), dense=True, mask_dtype=torch.float32)
    assert batch["images"].shape == (3, 3, 20, 30)
    assert batch["image_sizes"].tolist() == [[20, 30]] * 3
    sized = [item["masks"].decode(size=(20, 30), dtype=torch.float32) for item in items[::2]]
    assert batch["masks"].dtype == torch.float32
    assert torch.equal(batch["masks"][0, :6], sized[0])
    assert torch.equal(batch["masks"][2], sized[1])
    assert torch.equal(batch["areas"][0, :6], dataset[0]["areas"])  # of the original
    several = {
        tuple(sa1b_collate_fn(items, out_size=[(20, 30), (10, 12)])["images"].shape[2:])
        for _ in range(30)
    }
    assert several == {(20, 30), (10, 12)}


def test_transformed_images_and_wrong_ones(dataset):
    samples = [dataset[i] for i in (0, 1)]
    floats = [{**s, "image": s["image"].float() / 255} for s in samples]
    batch = sa1b_collate_fn(floats)
    assert batch["images"].dtype == torch.float32
    assert torch.equal(batch["images"][0, :, :40, :56], floats[0]["image"])
    gray = [{**s, "image": s["image"][:1]} for s in samples]
    assert sa1b_collate_fn(gray)["images"].shape == (2, 1, 64, 56)
    with pytest.raises(ValueError, match="cannot be joined"):
        sa1b_collate_fn([samples[0], gray[1]])
    with pytest.raises(TypeError, match="not str"):
        sa1b_collate_fn([{**samples[0], "image": "pixels"}])


def test_sampling(root, dataset):
    packed = SA1BDataset(root, mask_format="rle")
    for source in (dataset, packed):
        samples = [source[i] for i in range(4)]
        before = [sample["areas"].clone() for sample in samples]
        draw = [
            sampling_collate_fn(samples, 4, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
        assert draw[0]["mask_counts"].tolist() == [4, 0, 4, 4]
        assert torch.equal(draw[0]["areas"], draw[1]["areas"])
        assert not torch.equal(draw[0]["areas"], draw[2]["areas"])
        masks = draw[0]["masks"]
        areas = masks.decode() if isinstance(masks, fd.RLEBatch) else masks
        assert torch.equal(areas.flatten(2).sum(2), draw[0]["areas"])
        for sample, areas in zip(samples, before, strict=True):
            assert torch.equal(sample["areas"], areas)
            assert len(sample["masks"]) == len(areas)
    only_large = lambda columns: columns["areas"] >= np.sort(columns["areas"])[-2]  # noqa: E731
    batch = sampling_collate_fn([dataset[2]], 2, weights=only_large)
    assert sorted(batch["areas"][0].tolist()) == sorted(dataset[2]["areas"].tolist())[-2:]


def test_batches_move_and_are_pinned_as_one(dataset, monkeypatch):
    batch = sa1b_collate_fn([dataset[0], dataset[2]])
    batch["spatial_features"] = {"iou": torch.ones(2, 2)}
    moved = batch.to("cpu")
    assert isinstance(moved, SA1BBatch)
    assert moved.keys() == batch.keys()
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    monkeypatch.setattr(fd.RLEBatch, "pin_memory", lambda self: pinned.append(self) or self)
    assert isinstance(batch.pin_memory(), SA1BBatch)
    assert len(pinned) == 9
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, SA1BBatch)
    assert torch.equal(again["images"], batch["images"])


# Loading


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_every_image_once(dataset, num_workers):
    loader = create_sa1b_dataloader(dataset, 4, num_workers)
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    assert sorted(itertools.chain(*map(keys_of, batches))) == sorted(all_keys(dataset))
    assert all(isinstance(batch["masks"], fd.RLEBatch) for batch in batches)


def test_batches_of_a_loader_are_those_of_the_dataset(root, dataset):
    expected = [dataset[i] for i in range(5)]
    for options in ({"dense": True}, {"dense": False}):
        loader = create_sa1b_dataloader(dataset, 5, 1, shuffle=False, **options)
        check_batch(next(iter(loader)), expected)
    limited = next(iter(create_sa1b_dataloader(dataset, 5, 0, 2, 3, shuffle=False)))
    check_batch(limited, [SA1BDataset(root, max_masks=3)[i] for i in range(5)])
    subset = Subset(Subset(dataset, [5, 4, 3]), [2, 0])
    check_batch(
        next(iter(create_sa1b_dataloader(subset, 2, 0, shuffle=False))), [dataset[3], dataset[5]]
    )
    changed = SA1BDataset(root, mask_transform=lambda m: m.float() / 2)
    batch = next(iter(create_sa1b_dataloader(changed, 1, 0, shuffle=False)))
    assert torch.equal(batch["masks"][0], expected[0]["masks"].float() / 2)
    sized = SA1BDataset(root, mask_size=(10, 12))
    batch = next(iter(create_sa1b_dataloader(sized, 5, 0, dense=True)))
    assert batch["masks"].shape == (5, 9, 10, 12)
    flipped = SA1BDataset(root, transforms=HorizontalFlip(1))
    check_batch(
        next(iter(create_sa1b_dataloader(flipped, 3, 1, shuffle=False))),
        [flipped[i] for i in range(3)],
    )
    none = SA1BDataset(root, mask_format="none")
    batch = next(iter(create_sa1b_dataloader(none, 5, 0)))
    assert sorted(batch) == ["image_ids", "image_sizes", "images", "skipped"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_pass_has_its_own_order_and_repeats(dataset, num_workers):
    def order(loader):
        return [image for batch in loader for image in keys_of(batch)]

    loader = create_sa1b_dataloader(dataset, 3, num_workers)
    passes = [order(loader) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2]
    again = create_sa1b_dataloader(dataset, 3, 0)
    again.set_epoch(1)
    assert order(again) == passes[1]
    assert order(again) == passes[2]
    again.sampler.set_epoch(0)
    assert order(again) == passes[0]
    fixed = create_sa1b_dataloader(dataset, 3, num_workers, shuffle=False)
    assert order(fixed) == order(fixed) == all_keys(dataset)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_that_live_on_see_the_epoch(root, num_workers):
    """Random masks differ from epoch to epoch, alike with and without workers."""
    dataset = SA1BDataset(root, [0], mask_choice="random", seed=1)
    loader = create_sa1b_dataloader(dataset, 7, num_workers, 2, 3, shuffle=False)
    areas = [next(iter(loader))["areas"] for _ in range(3)]
    assert not torch.equal(areas[0], areas[1])
    for epoch in range(3):
        dataset.set_epoch(epoch)
        rng_free = create_sa1b_dataloader(dataset, 7, 0, 2, 3, shuffle=False)
        rng_free.set_epoch(epoch)
        assert torch.equal(next(iter(rng_free))["areas"], areas[epoch])


def test_ranks_share_the_images(dataset):
    loaders = [
        create_sa1b_dataloader(dataset, 2, 0, distributed=True, rank=rank, world_size=3)
        for rank in range(3)
    ]
    for _ in range(2):
        parts = [[k for batch in loader for k in keys_of(batch)] for loader in loaders]
        assert [len(part) for part in parts] == [5, 5, 5]  # 13, and two once more
        assert set(itertools.chain(*parts)) == set(all_keys(dataset))
    with pytest.raises(RuntimeError, match="init_process_group"):
        create_sa1b_dataloader(dataset, distributed=True)
    with pytest.raises(ValueError, match="rank 3 is not one of 3"):
        create_sa1b_dataloader(dataset, distributed=True, rank=3, world_size=3)


def test_ranks_by_torch_distributed(dataset, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        loader = create_sa1b_dataloader(dataset, 4, 0, distributed=True)
        assert sum(len(batch["image_ids"]) for batch in loader) == 13
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_going_on_where_it_stopped(dataset, num_workers, stream):
    def make():
        source = SA1BStream(dataset, shuffle_buffer=3) if stream else dataset
        return create_sa1b_dataloader(source, 2, num_workers)

    whole = make()
    next(iter(whole))
    expected = [batch["areas"] for batch in whole]  # epoch 1
    for stop in (1, 4, len(expected)):
        loader = make()
        loader.set_epoch(1)
        taken = list(itertools.islice(loader, stop))
        state = json.loads(json.dumps(loader.state_dict()))
        assert state == {"epoch": 1, "batches": stop}
        resumed = make()
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        rest = [batch["areas"] for batch in resumed]
        areas = [batch["areas"] for batch in taken] + rest
        assert len(areas) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(areas, expected, strict=True))
        assert sum(len(batch["image_ids"]) for batch in resumed) == 13  # the next epoch is whole


def test_other_datasets_are_refused():
    with pytest.raises(TypeError, match="SA1BDataset"):
        create_sa1b_dataloader([1, 2, 3])


def test_relevance_and_schedules(root):
    dataset = SA1BDataset(root, [0])
    kept = []
    for _ in range(3):
        loader = create_sa1b_dataloader(
            dataset, 7, 0, 2, 1, shuffle=False, mask_weights=lambda c: c["areas"] ** 8.0
        )
        kept.append(next(iter(loader))["areas"].flatten().tolist())
    largest = [int(max(s["areas"], default=0)) for s in (dataset[i] for i in range(7))]
    assert largest in kept
    with pytest.raises(ValueError, match="mask_weights"):
        create_sa1b_dataloader(dataset, mask_weights="beauty")
    loader = create_sa1b_dataloader(dataset, 7, 1, out_size=lambda epoch: (8 + epoch, 16))
    assert [next(iter(loader))["images"].shape[2] for _ in range(3)] == [8, 9, 10]


def test_a_collate_function_of_the_users(dataset):
    sampling = functools.partial(sampling_collate_fn, max_masks_per_sample=2, dense=True)
    loader = create_sa1b_dataloader(dataset, 5, 1, shuffle=False, collate_fn=sampling)
    batch = next(iter(loader))
    assert batch["mask_counts"].tolist() == [2, 0, 2, 2, 0]
    assert torch.equal(batch["masks"].flatten(2).sum(2), batch["areas"])
    listed = next(iter(create_sa1b_dataloader(dataset, 2, 0, shuffle=False, collate_fn=list)))
    assert torch.equal(listed[0]["image"], dataset[0]["image"])
    assert isinstance(listed[0]["masks"], fd.RLEBatch)
    with pytest.raises(ValueError, match="mask_choice"):
        sampling_collate_fn([{**dataset[0], "spatial_features": {}}])


def test_little_is_sent_for_the_masks(dataset):
    for i in range(7):
        sample = SA1BDataset(dataset.shards.files[0].path.parent, mask_format="rle")[i]
        if len(sample["masks"]) == 0:
            continue
        batch = sa1b_collate_fn([sample])
        strings = sum(len(rle["counts"]) for rle in batch["masks"].flat().to_coco())
        head = 24 * len(batch["masks"]) + 150
        assert len(pickle.dumps(batch["masks"])) < strings + head + 100


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Images that are large enough for slabs, of two sizes."""
    folder = tmp_path_factory.mktemp("large")
    write_tar(folder / "sa_000000.tar", 8, 0, sizes=[(300, 400), (400, 320)], num_masks=[5])
    return SA1BDataset(folder, progress=False)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("dense", [False, True])
def test_large_batches_that_are_kept_are_not_written_over(large, method, dense):
    expected = [sa1b_collate_fn([large[i], large[i + 1]]) for i in range(0, 8, 2)]
    loader = create_sa1b_dataloader(
        large, 2, 1, shuffle=False, dense=dense, multiprocessing_context=method
    )
    kept = [batch for _ in range(3) for batch in loader]
    views = [batch["images"][1, :, :5] for batch in loader]  # the batch is gone, its memory not
    for i, batch in enumerate(kept):
        assert torch.equal(batch["images"], expected[i % 4]["images"])
        assert batch["images"].stride() == expected[0]["images"].stride()
        if dense:
            assert torch.equal(batch["masks"], expected[i % 4]["masks"])
    for view, batch in zip(views, expected, strict=True):
        assert torch.equal(view, batch["images"][1, :, :5])
    kept[0]["images"].fill_(0)  # it is the user's


def test_a_forked_process_does_not_let_go_of_a_batch(large):
    loader = create_sa1b_dataloader(large, 2, 1, shuffle=False)
    batches = iter(loader)
    kept = next(batches)
    before = kept["images"].clone()
    child = os.fork()
    if child == 0:
        try:
            kept.clear()  # its memory is the parent's still
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    for _ in itertools.chain(batches, loader, loader):
        pass
    assert torch.equal(kept["images"], before)


def test_batches_go_through_a_prefetcher(large):
    loader = create_sa1b_dataloader(large, 2, 1, shuffle=False)
    with DevicePrefetcher(loader, "cpu") as batches:
        batch = next(iter(batches))
    assert torch.equal(batch["masks"][0, :, :300], large[0]["masks"])
    assert torch.equal(batch["masks"][1, :, :, :320], large[1]["masks"])


class Watching(SA1BDataset):
    """Whose samples say how many slabs their worker has."""

    def load(self, idx, pipeline=None):
        sample = super().load(idx, pipeline)
        num_slabs = torch.full((len(sample["areas"]),), len(shared._slabs))
        return {**sample, "num_slabs": num_slabs}


def test_workers_use_their_slabs_again(large):
    dataset = Watching(large.shards.files[0].path.parent, progress=False)
    loader = create_sa1b_dataloader(dataset, 2, 1, dense=True)
    counts = [int(batch["num_slabs"].max()) for _ in range(8) for batch in loader]
    assert len(counts) == 32
    assert max(counts) <= 2 * 5  # two for each batch: prefetched, in the queue, and in use


def test_slabs_are_not_taken_where_nobody_receives_them(large):
    batch = create_sa1b_dataloader(large, 2, 0)
    assert all(isinstance(b["images"], torch.Tensor) for b in batch)
    plain = DataLoader(large, 2, num_workers=1, collate_fn=sa1b_collate_fn)
    assert all(isinstance(b["images"], torch.Tensor) for b in plain)
    assert shared._slabs == []


# Streaming


def stream_keys(stream):
    return [key(sample) for sample in stream]


def test_a_stream_in_the_order_of_the_disk(dataset):
    stream = SA1BStream(dataset, shuffle=False)
    order = []
    for k in (0, 1):
        order += [7 * k + i for i in dataset.shards[k].reading_order().tolist()]
    keys = all_keys(dataset)
    assert stream_keys(stream) == [keys[i] for i in order]


@pytest.mark.parametrize("buffer", [0, 1, 5, 100])
def test_a_shuffled_stream(dataset, buffer):
    stream = SA1BStream(dataset, shuffle_buffer=buffer)
    first = stream_keys(stream)
    assert sorted(first) == sorted(all_keys(dataset))
    assert stream_keys(stream) == first
    stream.set_epoch(1)
    if buffer > 1:
        assert stream_keys(stream) != first


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_workers_share_a_stream(dataset, num_workers):
    loader = create_sa1b_dataloader(SA1BStream(dataset), 2, num_workers)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert sorted(itertools.chain(*map(keys_of, batches))) == sorted(all_keys(dataset))
    plain = DataLoader(SA1BStream(dataset), 2, num_workers=num_workers, collate_fn=list)
    assert sorted(key(s) for batch in plain for s in batch) == sorted(all_keys(dataset))


def test_ranks_share_a_stream(dataset):
    streams = [SA1BStream(dataset, rank=rank, world_size=3) for rank in range(3)]
    seen = set()
    for epoch in range(8):
        dataset.set_epoch(epoch)
        parts = [stream_keys(stream) for stream in streams]
        assert [len(part) for part in parts] == [4, 4, 4]  # one of 13 sits out
        together = list(itertools.chain(*parts))
        assert len(set(together)) == 12
        seen |= set(together)
    assert seen == set(all_keys(dataset))
    with pytest.raises(ValueError, match="belong together"):
        SA1BStream(dataset, rank=1)
    with pytest.raises(ValueError, match="shuffle_buffer"):
        SA1BStream(dataset, shuffle_buffer=-1)


@pytest.mark.parametrize("buffer", [0, 4])
def test_the_position_of_a_stream(dataset, buffer, monkeypatch):
    read_sample = SA1BDataset.read
    stream = SA1BStream(dataset, shuffle_buffer=buffer)
    stream.set_epoch(2)
    expected = stream_keys(stream)
    for stop in (0, 1, 6, 13):
        started = SA1BStream(dataset, shuffle_buffer=buffer)
        started.set_epoch(2)
        taken = [key(s) for s in itertools.islice(started, stop)]
        state = started.state_dict()
        assert state == {"epoch": 2, "samples": stop}
        resumed = SA1BStream(dataset, shuffle_buffer=buffer)
        resumed.load_state_dict(state)
        read = []
        monkeypatch.setattr(
            SA1BDataset, "read", lambda *a, read=read: read.append(a[1:]) or read_sample(*a)
        )
        assert taken + stream_keys(resumed) == expected
        monkeypatch.undo()
        assert len(read) == 13 - stop  # what was given out before is not read again
        dataset.set_epoch(2)
        assert stream_keys(resumed) == expected  # only once


# What goes wrong


@pytest.fixture
def damaged(tmp_path):
    """Seven images of which one has no JSON to speak of and another half a JPEG."""
    (tar,) = write_tars(tmp_path, (7,))

    def damage(contents):
        contents["sa_3.json"] = contents["sa_3.json"][:50]
        contents["sa_5.jpg"] = contents["sa_5.jpg"][:400]

    rewrite(tar, damage)
    return tar


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("out_size", [None, (8, 8)])
def test_damaged_samples(damaged, num_workers, stream, out_size):
    def load(**options):
        dataset = SA1BDataset(damaged.parent, **options)
        source = SA1BStream(dataset) if stream else dataset
        return list(create_sa1b_dataloader(source, 2, num_workers, out_size=out_size))

    with pytest.raises(SampleError, match=r"sa_000000\.tar: sa_[35]\.js?pn?g?|sa_3\.json"):
        load()
    batches = load(on_error="skip")
    ids = [image for batch in batches for image in batch["image_ids"]]
    assert sorted(ids) == ["sa_1", "sa_2", "sa_4", "sa_6", "sa_7"]
    skipped = {s.image_id: s.reason for batch in batches for s in batch["skipped"]}
    assert sorted(skipped) == ["sa_3", "sa_5"]
    assert str(damaged) in skipped["sa_3"]
    assert "sa_5.jpg: the JPEG cannot be decoded" in skipped["sa_5"]
    for batch in batches:
        assert len(batch["masks"].counts_per_image) == len(batch["image_ids"])


def test_a_batch_of_which_nothing_is_left():
    batch = sa1b_collate_fn([SkippedSample("sa_1", "lost")])
    assert batch["images"].shape == (0, 3, 0, 0)
    assert batch["masks"].decode().shape == (0, 0, 0, 0)
    assert batch["bboxes"].shape == (0, 0, 4)
    assert batch["areas"].shape == (0, 0)
    assert batch["areas"].dtype == torch.int64
    assert batch["mask_counts"].shape == (0,)
    assert batch["skipped"] == [SkippedSample("sa_1", "lost")]


class Killer:
    """A transform that ends its worker at one image, as the system does when memory runs out."""

    def __call__(self, image):
        if torch.utils.data.get_worker_info().id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return image


@pytest.mark.parametrize("stream", [False, True])
def test_a_worker_that_is_killed_is_told(root, stream):
    dataset = SA1BDataset(root, transform=Killer())
    source = SA1BStream(dataset) if stream else dataset
    loader = create_sa1b_dataloader(source, 1, 2)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        list(loader)


# The curriculum


def test_the_curriculum(root):
    dataset = SA1BDataset(root, max_masks=2)  # which does not limit it
    config = {
        "base_max_masks": 1,
        "final_max_masks": 8,
        "base_batch_size": 3,
        "min_batch_size": 2,
        "num_workers": 1,
    }
    curriculum = ARRCOCDataLoader(dataset, config)
    workers = set()
    for epoch, (most, size) in {0: (1, 3), 1: (8, 3), 4: (8, 3), 5: (8, 2), 50: (8, 2)}.items():
        while curriculum.epoch < epoch:
            curriculum.step_epoch()
        loader = curriculum.get_dataloader()
        assert loader.epoch == epoch
        batches = list(loader)
        workers |= {worker.pid for worker in loader._iterator._workers}
        assert max(int(batch["mask_counts"].max()) for batch in batches) == most
        sizes = [len(batch["image_ids"]) for batch in batches]
        assert sizes == [size] * (13 // size) + [13 % size]
        assert len(loader) == len(sizes)
    assert len(workers) == 1  # it lives on
    assert curriculum.get_dataloader(0).epoch == 0
    assert max(len(b["areas"][0]) for b in curriculum.get_dataloader(0)) == 1


def test_the_formulas_of_the_curriculum(dataset):
    config = types.SimpleNamespace(
        base_max_masks=50, final_max_masks=95, base_batch_size=8, min_batch_size=2
    )
    curriculum = ARRCOCDataLoader(dataset, config)
    for epoch in range(60):
        assert curriculum.max_masks(epoch) == min(50 + 10 * epoch, 95)
        assert curriculum.batch_size(epoch) == max(8 - epoch // 5, 2)
    with pytest.raises(ValueError, match="negative"):
        curriculum.get_dataloader(-1)
    with pytest.raises(ValueError, match="min_batch_size"):
        ARRCOCDataLoader(dataset, {"min_batch_size": 0})
    with pytest.raises(TypeError, match="stream"):
        ARRCOCDataLoader(SA1BStream(dataset), {})


@pytest.mark.parametrize("num_workers", [0, 1])
def test_spatial_features(root, dataset, num_workers):
    described = ARRCOCDataset(root, max_masks=5)
    sample = described[2]
    packed = SA1BDataset(root, max_masks=5, mask_format="rle")[2]["masks"]
    for name, expected in spatial.spatial_features(packed).items():
        assert torch.equal(sample["spatial_features"][name], expected)
    for name, expected in spatial.mask_hierarchy(packed).items():
        assert torch.equal(sample["mask_hierarchy"][name], expected)
    assert sample["masks"].shape[0] == 5
    batch = next(iter(create_sa1b_dataloader(described, 3, num_workers, shuffle=False)))
    assert batch["spatial_features"]["iou_matrix"].shape == (3, 5, 5)
    assert torch.equal(
        batch["spatial_features"]["containment"][2], sample["spatial_features"]["containment"]
    )
    assert not batch["spatial_features"]["iou_matrix"][1].any()  # no masks
    for i, image in enumerate(described[j] for j in range(3)):
        for name, expected in image["mask_hierarchy"].items():
            assert torch.equal(batch["mask_hierarchy"][name][i], expected)
    assert described[1]["masks"].shape[0] == 0


# Lightning


def test_lightning_is_asked_for_where_it_is_missing(root, monkeypatch):
    monkeypatch.setattr(lightning, "_LightningDataModule", None)
    with pytest.raises(ImportError, match="pip install lightning"):
        lightning.SA1BDataModule(root)


def test_a_data_module(root):
    if lightning._LightningDataModule is None:
        pytest.skip("Lightning is not installed")
    module = lightning.SA1BDataModule(
        root, 2, tar_indices=[0], val_tar_indices=[1], num_workers=0, dataset_options={"seed": 1}
    )
    module.setup("fit")
    assert sum(len(batch["image_ids"]) for batch in module.train_dataloader()) == 7
    assert sum(len(batch["image_ids"]) for batch in module.val_dataloader()) == 6
    assert lightning.SA1BDataModule(root).val_dataloader() == []
