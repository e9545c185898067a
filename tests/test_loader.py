"""A loader gives every image once in each epoch, in another order, and goes on where it stopped."""

import functools
import itertools
import json

import pytest
import torch
from loaded import all_keys, check_batch, keys_of
from torch.utils.data import Subset

import sa1b_fastdecode as fd
from sa1b_fastdecode.data import (
    SA1BDataset,
    SA1BStream,
    create_sa1b_dataloader,
    sampling_collate_fn,
)
from sa1b_fastdecode.data.transforms import HorizontalFlip

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores
]


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


def test_what_a_loader_refuses(dataset):
    for other in ([1, 2, 3], Subset(SA1BStream(dataset), [0])):
        with pytest.raises(TypeError, match="expected an SA1BDataset"):
            create_sa1b_dataloader(other)
    for option in ("sampler", "batch_sampler"):
        with pytest.raises(TypeError, match="has a sampler of its own"):
            create_sa1b_dataloader(dataset, **{option: [0, 1]})


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
