"""DataLoaders whose workers only read, choose and pack."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Subset,
)

from sa1b_fastdecode.data.collate import Collate, SA1BBatch, Schedule
from sa1b_fastdecode.data.dataset import SA1BDataset
from sa1b_fastdecode.data.errors import SkippedSample
from sa1b_fastdecode.data.pipeline import Pipeline
from sa1b_fastdecode.data.selection import Key, check_key
from sa1b_fastdecode.data.stream import SA1BStream, find_rank
from sa1b_fastdecode.data.worker_memory import shared_integers

__all__ = ["SA1BDataLoader", "create_sa1b_dataloader"]


def create_sa1b_dataloader(
    dataset: Dataset[Any],
    batch_size: int = 4,
    num_workers: int = 8,
    prefetch_factor: int = 2,
    max_masks_per_sample: int | None = 100,
    shuffle: bool = True,
    distributed: bool = False,
    *,
    dense: bool = False,
    mask_dtype: torch.dtype | None = None,
    out_size: Schedule = None,
    ragged: bool = False,
    mask_choice: Key | None = None,
    mask_weights: Key | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = False,
    pin_memory: bool | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Any,
) -> SA1BDataLoader:
    """Make a loader of :class:`SA1BBatch`, whose masks are an RLEBatch whatever the dataset's are.

    Each pass over the loader is a new epoch, with another order and other random masks;
    ``loader.set_epoch(epoch)`` chooses one. ``loader.state_dict()`` tells where it is, also after
    a worker died, when the next pass starts new ones.

    Args:
        dataset: an SA1BDataset, a Subset of one, or an SA1BStream, which shuffles by itself.
        batch_size: samples in a batch.
        num_workers: processes; 0 loads in this one.
        prefetch_factor: batches that each worker prepares ahead.
        max_masks_per_sample: at most as many masks of each image, and no more than the dataset's
            ``max_masks``; chosen as the dataset says, before anything is decoded.
        shuffle: another order in each epoch, by the dataset's ``seed``.
        distributed: this rank's part only.
        dense, mask_dtype, ragged: as for :func:`sa1b_collate_fn`. A dataset's ``mask_transform``
            sees masks as the dataset gives them out, and what it returns is put into the batch.
        out_size: as there, or a function of the epoch that returns one or more sizes.
        mask_choice, mask_weights: in place of the dataset's.
        collate_fn: makes a batch of samples whose masks are an RLEBatch, as
            :func:`sampling_collate_fn`; default: :func:`sa1b_collate_fn` with the options above.
        drop_last: leave out a last batch that is smaller.
        pin_memory: default: where CUDA is present.
        rank, world_size: with ``distributed``; default: what torch.distributed says.
        **options: of :class:`torch.utils.data.DataLoader`. Workers live on from epoch to epoch
            unless ``persistent_workers=False``.

    Raises:
        TypeError: another kind of dataset, or a ``sampler``, in place of which a Subset does.
        RuntimeError: ``distributed`` without ``rank`` and without torch.distributed initialized.

    Example:
        >>> import tempfile
        >>> import sa1b_fastdecode as fd
        >>> from sa1b_fastdecode.sample import write_tar
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = write_tar(f"{folder.name}/sa_000000.tar", 2, 0, sizes=[(48, 64)], num_masks=[5])
        >>> dataset = fd.data.SA1BDataset(folder.name)
        >>> loader = fd.data.create_sa1b_dataloader(dataset, batch_size=2, num_workers=0)
        >>> (batch,) = loader
        >>> batch["images"].shape, batch["masks"].decode(size=(24, 32)).shape
        (torch.Size([2, 3, 48, 64]), torch.Size([2, 5, 24, 32]))
        >>> folder.cleanup()
    """
    if options.keys() & {"sampler", "batch_sampler"}:
        raise TypeError(
            "the loader has a sampler of its own; give it a Subset, or use torch's DataLoader with "
            "sa1b_collate_fn"
        )
    source = _find_source(dataset)
    pipeline = source.pipeline.for_loader(dense).limited(max_masks_per_sample)
    pipeline = _choose_by(pipeline, mask_choice, mask_weights)
    ranks = _find_ranks(distributed, rank, world_size)
    if num_workers > 0:
        options = {"persistent_workers": True, "prefetch_factor": prefetch_factor, **options}
    if pin_memory is None:
        pin_memory = torch.cuda.device_count() > 0  # asks without initializing CUDA
    if collate_fn is None:
        # Images stay encoded for it: it decodes them into their places.
        pipeline = replace(pipeline, keep_jpeg=True)
        collate_fn = Collate(
            dense=dense,
            mask_dtype=mask_dtype or source.pipeline.mask_dtype,
            out_size=out_size,
            ragged=ragged,
            epoch=source._epoch,
            sends=True,
        )
    if isinstance(dataset, SA1BStream):
        data: Any = dataset.for_loader(pipeline, *(ranks or (dataset.rank, dataset.world_size)))
    else:
        data = LoaderView(dataset, pipeline)
        rank, world_size = ranks or (0, 1)
        options["sampler"] = _ResumableSampler(
            data, world_size, rank, shuffle, source.seed, drop_last
        )
    return SA1BDataLoader(
        data,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_fn,
        drop_last=drop_last,
        pin_memory=pin_memory,
        **options,
    )


def _find_source(dataset: Any) -> SA1BDataset:
    """Return the dataset at the bottom."""
    bottom = dataset.dataset if isinstance(dataset, SA1BStream) else dataset
    while isinstance(bottom, Subset):
        bottom = bottom.dataset
    if isinstance(bottom, SA1BDataset):
        return bottom
    raise TypeError(
        f"expected an SA1BDataset, a Subset of one or an SA1BStream, not {type(dataset).__name__}; "
        "for other datasets use torch's DataLoader with sa1b_collate_fn"
    )


def _find_ranks(
    distributed: bool, rank: int | None, world_size: int | None
) -> tuple[int, int] | None:
    if not distributed:
        return None
    if rank is None and not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    ):
        raise RuntimeError(
            "distributed=True needs torch.distributed.init_process_group first, or rank and "
            "world_size"
        )
    return find_rank(rank, world_size)


def _choose_by(pipeline: Pipeline, choice: Key | None, weights: Key | None) -> Pipeline:
    check_key(weights, "mask_weights")
    if weights is not None:
        choice = choice or "random"
    if choice is None:
        return pipeline
    return replace(pipeline, mask_choice=choice, mask_weights=weights)


class LoaderView(Dataset[Any]):
    """A dataset as workers see it: images and masks stay compressed.

    Attributes:
        dataset: the user's.
        source: the SA1BDataset at the bottom of it.
    """

    def __init__(self, dataset: Dataset[Any], pipeline: Pipeline) -> None:
        self.dataset = dataset
        self.source = _find_source(dataset)
        self._pipeline = pipeline
        # Shared, so that workers that live on see a change. -1: the pipeline's own.
        self._max_masks = shared_integers(-1)

    @property
    def max_masks(self) -> int | None:
        """How many masks an image may have; may be set between epochs, for all workers."""
        chosen = int(self._max_masks)
        return self._pipeline.max_masks if chosen < 0 else chosen

    @max_masks.setter
    def max_masks(self, max_masks: int) -> None:
        self._max_masks.fill_(max_masks)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, idx: int) -> Any:
        dataset: Any = self.dataset
        while isinstance(dataset, Subset):
            idx, dataset = dataset.indices[idx], dataset.dataset
        return dataset.load(idx, replace(self._pipeline, max_masks=self.max_masks))


class _ResumableSampler(DistributedSampler[Any]):
    """Of one rank or many; leaves out the first ``skip`` samples."""

    skip = 0

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(super().__iter__(), self.skip, None)


class SA1BDataLoader(DataLoader[Any]):
    """What :func:`create_sa1b_dataloader` returns: a DataLoader that counts epochs and batches.

    Attributes:
        epoch: of the pass that goes on, or of the next one after :meth:`set_epoch`.
        skipped: what ``on_error="skip"`` left out of that pass so far; a RuntimeWarning at its end
            says how many there are.
    """

    epoch = 0
    skipped: tuple[SkippedSample, ...] = ()
    _started = False  # a pass over this epoch
    _batches = 0  # given out in it
    _skip = 0  # of its first batches, when it starts

    @property
    def _source(self) -> SA1BDataset:
        return _find_source(self.dataset.dataset)  # type: ignore[attr-defined]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass: its order and its random masks.

        ``loader.sampler.set_epoch`` does the same.
        """
        self.epoch = epoch
        self._started, self._batches, self._skip = False, 0, 0
        self._source.set_epoch(epoch)
        if isinstance(self.sampler, _ResumableSampler):
            self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches have been given out.

        It fits a loader of the same data, batch size, seed and number of ranks; of a stream also
        the same number of workers.
        """
        return {"epoch": self.epoch, "batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin where :meth:`state_dict` was called; it reads nothing before."""
        self.set_epoch(state["epoch"])
        self._skip = self._batches = state["batches"]

    def __iter__(self) -> Any:
        chosen = self.epoch
        if isinstance(self.sampler, _ResumableSampler):
            chosen = self.sampler.epoch
        if chosen != self.epoch:
            self.set_epoch(chosen)
        elif self._started:
            self.set_epoch(self.epoch + 1)
        else:
            self._source.set_epoch(self.epoch)  # another loader may have changed it
        self._started, self._batches, self.skipped = True, self._skip, ()
        if isinstance(self.dataset, SA1BStream):
            assert self.batch_size is not None
            self.dataset.skip_batches(self._skip, self.batch_size, self.drop_last)
        elif isinstance(self.sampler, _ResumableSampler):
            batches: Any = self.batch_sampler
            self.sampler.skip = self._skip * batches.batch_size
        return _Batches(self, super().__iter__())

    def _leave_dead_workers(self) -> None:
        """Let the next pass start new workers where one of these was killed."""
        workers = getattr(self._iterator, "_workers", ())
        if not all(worker.is_alive() for worker in workers):
            self._iterator = None

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        if not isinstance(self.dataset, IterableDataset):
            return super().__len__()
        assert isinstance(self.dataset, SA1BStream) and self.batch_size is not None
        shares, size = self.dataset.shares(self.num_workers), self.batch_size
        return sum(n // size if self.drop_last else -(-n // size) for n in shares)


class _Batches:
    """One pass over a loader, which counts."""

    def __init__(self, loader: SA1BDataLoader, batches: Iterator[Any]) -> None:
        self._loader = loader
        self._batches = batches

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        loader = self._loader
        try:
            batch = next(self._batches)
        except StopIteration:
            _warn_of(loader.skipped)
            raise
        except Exception as error:
            if loader.num_workers > 0:
                # What torch raises refers to itself through its traceback, and to the workers. When
                # such a cycle is collected, the workers miss that they should end, and torch waits
                # 5 seconds for each. Where it happened in the worker is in the message.
                error.__traceback__ = None
                loader._leave_dead_workers()
            raise
        loader._batches += 1
        if isinstance(batch, SA1BBatch):
            loader.skipped += tuple(batch["skipped"])
        return batch


def _warn_of(skipped: tuple[SkippedSample, ...]) -> None:
    if skipped:
        warnings.warn(
            f"{len(skipped)} samples were skipped, the first one is {skipped[0].image_id} "
            f"({skipped[0].reason}); all are listed in .skipped of the loader",
            RuntimeWarning,
            stacklevel=3,
        )
