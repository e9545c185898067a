"""SA-1B as a stream: tars read from front to back, shared out over ranks and workers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sa1b_fastdecode.data.compressed import CompressedSample
from sa1b_fastdecode.data.dataset import SA1BDataset
from sa1b_fastdecode.data.errors import SkippedSample
from sa1b_fastdecode.data.pipeline import Pipeline
from sa1b_fastdecode.data.worker_memory import shared_integers

__all__ = ["SA1BStream"]

_ANNOUNCED = 16  # images that the system is told of before they are read

# Shard, image in it, and what it holds; None if that has not been read.
_Entry: TypeAlias = tuple[int, int, CompressedSample | SkippedSample | None]


class SA1BStream(IterableDataset[Any]):
    """The samples of an :class:`SA1BDataset` in the order in which their files lie on the disk.

    For disks and networks that read what lies together much faster. Images are read front to back;
    annotation files, which Meta's tars hold elsewhere, are announced to the system ahead of time.
    All images of all tars, one behind the other, are cut into a part for each worker of each rank.

    The order depends on the dataset's ``seed`` and epoch, the numbers of ranks and workers, and
    nothing else; so a position in it is a number of samples.

    Args:
        dataset: what to stream, with its options.
        shuffle: take the tars in another order in each epoch, and mix within ``shuffle_buffer``.
        shuffle_buffer: as many compressed samples, about 1 MB each, wait in each worker; the next
            one is drawn from them.
        rank, world_size: which of how many processes this is; default: what torch.distributed says
            now, or the only one. Of more than one each gets the same number of samples, and a rest
            of fewer than there are workers sits out.

    Example:
        >>> import tempfile
        >>> import sa1b_fastdecode as fd
        >>> from sa1b_fastdecode.sample import write_tar
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = write_tar(f"{folder.name}/sa_000000.tar", 3, 0, sizes=[(48, 64)], num_masks=[5])
        >>> stream = fd.data.SA1BStream(fd.data.SA1BDataset(folder.name))
        >>> sorted(sample["image_id"] for sample in stream)
        ['sa_1', 'sa_2', 'sa_3']
        >>> folder.cleanup()
    """

    def __init__(
        self,
        dataset: SA1BDataset,
        *,
        shuffle: bool = True,
        shuffle_buffer: int = 64,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if shuffle_buffer < 0:
            raise ValueError(f"shuffle_buffer must not be negative, but is {shuffle_buffer}")
        self.dataset = dataset
        self.shuffle = shuffle
        self.shuffle_buffer = shuffle_buffer
        self.rank, self.world_size = find_rank(rank, world_size)
        self._position = 0  # samples given out by the newest iterator
        self._skip = 0  # samples that the next iterator leaves out
        self._pipeline: Pipeline | None = None
        # Batches that were given out before, their size, and whether smaller ones are dropped.
        self._batches_before = shared_integers(0, 0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose another order, from the next iterator on, and other random masks."""
        self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return the position of the newest iterator in this process: an epoch and samples.

        For iterating without workers, or in a loader that asks each worker, as torchdata's
        StatefulDataLoader does. A :class:`SA1BDataLoader` has a state of its own.
        """
        return {"epoch": self.dataset.epoch, "samples": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iterator begin at a position that :meth:`state_dict` returned."""
        self.set_epoch(state["epoch"])
        self._skip = state["samples"]

    def for_loader(self, pipeline: Pipeline, rank: int, world_size: int) -> SA1BStream:
        """Return a stream of the same with a pipeline for workers."""
        stream = copy.copy(self)
        stream._pipeline = pipeline
        stream.rank, stream.world_size = rank, world_size
        stream._batches_before = shared_integers(0, 0, 0)
        return stream

    def skip_batches(self, num_batches: int, batch_size: int, drop_last: bool) -> None:
        """Let the next iterators, in all workers, begin behind batches that were given out."""
        self._batches_before.copy_(torch.tensor([num_batches, batch_size, int(drop_last)]))

    def shares(self, num_workers: int) -> list[int]:
        """Return how many samples each worker of this rank gives out in an epoch."""
        workers = max(num_workers, 1)
        parts = [self._part(worker, workers) for worker in range(workers)]
        return [end - begin for begin, end in parts]

    def _part(self, worker: int, num_workers: int) -> tuple[int, int]:
        """Return the part of the epoch's order that is a worker's."""
        parts = self.world_size * num_workers
        part = self.rank * num_workers + worker
        total = len(self.dataset)
        if self.world_size == 1:
            return total * part // parts, total * (part + 1) // parts
        share, rest = divmod(total, parts)
        # Others sit out in each epoch.
        first = int(self._rng(1).integers(rest + 1)) + part * share
        return first, first + share

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.dataset.seed, self.dataset.epoch, *purpose])

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        worker, before = self._find_turn(worker, num_workers)
        skip, self._skip = self._skip, 0
        return self._stream(worker, num_workers, before + skip)

    def _find_turn(self, worker: int, num_workers: int) -> tuple[int, int]:
        """Return whose part a worker goes on with, and how many samples of it were given out.

        A loader takes a batch of each worker in turn, of those that have any left, and begins with
        the first worker; so that one goes on where it is the next one's turn.
        """
        num_batches, batch_size, drop_last = (int(n) for n in self._batches_before)
        if num_batches == 0:
            return worker, 0
        shares = self.shares(num_workers)
        totals = [share // batch_size if drop_last else -(-share // batch_size) for share in shares]
        turns = [w for turn in range(max(totals)) for w in range(num_workers) if turn < totals[w]]
        whose = list(dict.fromkeys([*turns[num_batches:], *range(num_workers)]))[worker]
        return whose, min(turns[:num_batches].count(whose) * batch_size, shares[whose])

    def _stream(self, worker: int, num_workers: int, skip: int) -> Iterator[Any]:
        """Give out samples from a buffer that is filled in the order of the disk."""
        rng = self._rng(2, self.rank, worker)
        places = max(self.shuffle_buffer, 1) if self.shuffle else 1  # one changes nothing
        buffer: list[_Entry] = []
        self._position = 0
        for k, i in self._visits(*self._part(worker, num_workers)):
            # What is given out in the part that is skipped need not be read.
            entry = (k, i, self._read(k, i) if self._position >= skip else None)
            if len(buffer) < places:
                buffer.append(entry)
                continue
            place = int(rng.integers(places))
            entry, buffer[place] = buffer[place], entry
            self._position += 1
            if self._position > skip:
                yield self._make(entry)
        for place in rng.permutation(len(buffer)).tolist():
            self._position += 1
            if self._position > skip:
                yield self._make(buffer[place])

    def _visits(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield shard and image of a part of the epoch's order, and announce what comes next."""
        shards = self.dataset.shards
        extents = shards.extents()
        order = self._rng(0).permutation(len(extents)) if self.shuffle else range(len(extents))
        for k in (int(k) for k in order):
            count = extents[k][1]
            first, last = max(begin, 0), min(end, count)
            begin, end = begin - count, end - count
            if first >= last:
                continue
            images = shards[k].reading_order()[first:last]
            for at in range(0, len(images), _ANNOUNCED):
                shards[k].announce(images[at : at + 2 * _ANNOUNCED])
                for i in images[at : at + _ANNOUNCED].tolist():
                    yield k, i

    def _read(self, k: int, i: int) -> CompressedSample | SkippedSample:
        dataset = self.dataset
        read: CompressedSample | SkippedSample = dataset.attempt(k, i, lambda: dataset.read(k, i))
        return read

    def _make(self, entry: _Entry) -> Any:
        k, i, source = entry
        compressed = self._read(k, i) if source is None else source
        if isinstance(compressed, SkippedSample):
            return compressed
        dataset, pipeline = self.dataset, self._pipeline
        return dataset.attempt(k, i, lambda: dataset.make_sample(compressed, k, i, pipeline))


def find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return what was given, else what torch.distributed says, else the only process.

    Raises:
        ValueError: one is given without the other, or they do not fit.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("rank and world_size belong together")
    if rank is None or world_size is None:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of {world_size}")
    return rank, world_size
