"""Caches give what the files hold, forget in order, and never give what is damaged or old."""

import os
import pickle

import pytest
import torch
from loaded import check_sample, open_dataset
from sa1b_files import IDS, rewrite, truth_of

from sa1b_fastdecode.data import SampleError
from sa1b_fastdecode.data.cache import DiskCache, MemoryCache


def test_the_memory_cache_forgets_what_was_not_used_longest(root):
    dataset = open_dataset(root)
    samples = [dataset.read(0, i) for i in range(5)]
    cache = MemoryCache(3, 10**9)
    for i in range(3):
        cache.put(i, samples[i])
    cache.get(0)
    cache.put(3, samples[3])
    assert [cache.get(i) is not None for i in range(4)] == [True, False, True, True]
    assert cache.num_bytes == sum(samples[i].num_bytes for i in (0, 2, 3))
    small = MemoryCache(100, samples[0].num_bytes + samples[1].num_bytes)
    for i in (0, 1, 0, 2, 3, 4):
        small.put(i, samples[i])
        assert small.num_bytes <= small.max_bytes
    nothing = MemoryCache(0, 10**9)
    nothing.put(0, samples[0])
    assert len(nothing) == 0


def test_a_cached_sample_is_read_once_and_stays_as_it_was(own):
    dataset = open_dataset(own.parent)
    expected = dataset[2]["areas"].clone()
    dataset[2]["areas"].fill_(0)
    dataset[2]["masks"].fill_(0)
    os.truncate(own, 100)
    assert torch.equal(dataset[2]["areas"], expected)
    with pytest.raises(SampleError):
        dataset[3]
    with pytest.raises(SampleError):
        pickle.loads(pickle.dumps(dataset))[2]  # the cache does not travel


def test_the_disk_cache(own, tmp_path, contents):
    options = {"cache_dir": tmp_path / "cache", "cache_size": 0}
    list(open_dataset(own.parent, max_masks=2, **options))
    files = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert len(files) == 5
    dataset = open_dataset(own.parent, **options)
    own.unlink()
    for i, image_id in enumerate(IDS[:5]):  # all masks, though fewer were asked for then
        check_sample(dataset[i], truth_of(contents[0], image_id))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "version"])
def test_a_damaged_cache_file_is_written_again(own, tmp_path, damage):
    options = {"cache_dir": tmp_path / "cache", "cache_size": 0}
    expected = open_dataset(own.parent, **options)[2]
    (file,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    damages = {"cut": content[:-1], "flipped": bytes(flipped), "empty": b""}
    file.write_bytes(damages.get(damage, content[:8] + b"\x09" + content[9:]))
    sample = open_dataset(own.parent, **options)[2]
    assert torch.equal(sample["masks"], expected["masks"])
    assert torch.equal(sample["image"], expected["image"])
    assert file.read_bytes() == content


def test_the_disk_cache_follows_changes(own, tmp_path):
    options = {"cache_dir": tmp_path / "cache", "cache_size": 0}
    before = open_dataset(own.parent, **options)[0]["image"]

    def change(contents):
        contents["sa_1.jpg"], contents["sa_3.jpg"] = contents["sa_3.jpg"], contents["sa_1.jpg"]

    rewrite(own, change)
    assert not torch.equal(open_dataset(own.parent, **options)[0]["image"], before)


def test_cache_files_of_strange_names(tmp_path, root):
    cache = DiskCache(tmp_path)
    sample = open_dataset(root).read(0, 0)
    cache.put("a\udcff|b", sample)
    found = cache.get("a\udcff|b")
    assert found.jpeg == sample.jpeg
    assert found.annotations.masks == sample.annotations.masks
    assert cache.get("b") is None
