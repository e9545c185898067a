"""What workers send arrives as it was, and stays so while they use their memory again."""

import itertools
import os
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from sa1b_fastdecode.data import (
    DevicePrefetcher,
    SA1BDataset,
    create_sa1b_dataloader,
    sa1b_collate_fn,
    worker_memory,
)
from sa1b_fastdecode.sample import write_tar

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores
]


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
        num_slabs = torch.full((len(sample["areas"]),), len(worker_memory._slabs))
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
    assert worker_memory._slabs == []
