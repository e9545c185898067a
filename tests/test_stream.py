"""A stream gives every image once, whoever shares it, and goes on where it stopped."""

import itertools

import pytest
from loaded import all_keys, key, keys_of
from torch.utils.data import DataLoader

from sa1b_fastdecode.data import SA1BDataset, SA1BStream, create_sa1b_dataloader

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores
]


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
