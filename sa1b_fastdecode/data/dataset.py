"""SA-1B as a map-style dataset, from tars or extracted folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sa1b_fastdecode.data.annotations import parse_annotations, read_json
from sa1b_fastdecode.data.cache import DiskCache, MemoryCache
from sa1b_fastdecode.data.compressed import CompressedSample
from sa1b_fastdecode.data.errors import SampleError, SkippedSample
from sa1b_fastdecode.data.pipeline import MaskFormat, Pipeline
from sa1b_fastdecode.data.selection import Key
from sa1b_fastdecode.data.shards import ShardList, find_shards
from sa1b_fastdecode.data.tar_index import AnyPath
from sa1b_fastdecode.data.worker_memory import shared_integers

__all__ = ["SA1BDataset"]

Sample: TypeAlias = dict[str, Any]


class SA1BDataset(Dataset[Any]):
    """SA-1B's images with their masks.

    ``dataset[i]`` is a dict:

    * ``image``: ``uint8 (3, H, W)``, RGB, a view of rows of pixels ("channels last").
    * ``masks``: ``uint8 (N, H, W)``, 0 or 1, contiguous; ``(0, H, W)`` where there are none.
    * ``bboxes``: float32 ``(N, 4)`` as in the file, which is (x, y, w-1, h-1): cropping by them
      loses the last row and column. ``exact_bboxes=True`` adds the boxes of the masks.
    * ``areas`` int64 ``(N,)``, ``predicted_ious`` and ``stability_scores`` float32 ``(N,)``.
    * ``image_id``: the stem of the file names, "sa_226692".

    The order is fixed: by the numbers of the tars, then by the numbers of the images. Damaged and
    incomplete members are left out, with one RuntimeWarning, and listed in :attr:`problems`.
    Workers may be forked or spawned, and threads may share a dataset.

    Args:
        root_dir: the folder of ``sa_000000.tar`` and so on, of extracted folders ``sa_000000/``, or
            of pairs ``sa_1.jpg``, ``sa_1.json``.
        tar_indices: the numbers of the tars or folders to use; default: all.
        transform: takes the image and returns what is put in its place.
        mask_transform: takes the masks, as the sample would carry them.
        max_masks: at most as many masks of an image, chosen before anything is decoded; None: all.
        use_tar_streaming: read the tar where a tar and its extracted folder are both there.
        cache_size: at most as many compressed samples are kept in memory.
        preload_index: index all tars now; else each when it is first needed, which for ``len`` and
            for negative indices are all. An index is made once and saved.
        transforms: takes the whole sample and returns one: see
            :mod:`sa1b_fastdecode.data.transforms`, whose transforms get an RLEBatch as ``masks``,
            and torchvision's v2, which get ``tv_tensors`` where torchvision is installed. Any
            others get plain tensors, with dense masks; ``areas`` are counted anew, all else is as
            they return it.
        mask_format: "dense"; "rle", then ``masks`` is an RLEBatch; or "none", then annotations are
            not read.
        mask_dtype, mask_size: of dense masks; ``mask_size`` (height, width) decodes at that size.
        mask_choice: which masks where there are more than ``max_masks``: those with the largest
            "area", "predicted_iou", "stability_score" or value of a function; or "random" ones,
            others in each epoch. See :func:`sa1b_fastdecode.data.selection.choose_masks`.
        mask_weights: the same, as weights of the "random" ones.
        exact_bboxes: add ``exact_bboxes``, float32 ``(N, 4)``: x, y, w, h of the masks themselves.
        on_error: "raise", or "skip" to get a :class:`SkippedSample` in place of a damaged sample,
            which the collate functions leave out and list.
        memmap_path: the folder for the indexes of tars; default: each beside its tar.
        cache_dir: a folder for a cache of compressed samples on a fast disk.
        cache_bytes: at most as many bytes of compressed samples are kept in memory, in each worker.
        seed: of random choices.
        num_index_workers, progress: for indexing, see :func:`sa1b_fastdecode.data.index_tars`.

    Raises:
        FileNotFoundError: nothing is there, or not all of ``tar_indices``.
        ValueError: an option is none of those above.

    Example:
        >>> import tempfile
        >>> import sa1b_fastdecode as fd
        >>> from sa1b_fastdecode.sample import write_tar
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = write_tar(f"{folder.name}/sa_000000.tar", 2, 0, sizes=[(48, 64)], num_masks=[5])
        >>> dataset = fd.data.SA1BDataset(folder.name, max_masks=3)
        >>> len(dataset), dataset[1]["image_id"], dataset[1]["masks"].shape
        (2, 'sa_2', torch.Size([3, 48, 64]))
        >>> folder.cleanup()
    """

    def __init__(
        self,
        root_dir: AnyPath,
        tar_indices: Iterable[int] | None = None,
        transform: Callable[[Tensor], Any] | None = None,
        mask_transform: Callable[[Any], Any] | None = None,
        max_masks: int | None = 100,
        use_tar_streaming: bool = False,
        cache_size: int = 1000,
        preload_index: bool = True,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
        mask_format: MaskFormat = "dense",
        mask_dtype: torch.dtype = torch.uint8,
        mask_size: tuple[int, int] | None = None,
        mask_choice: Key = "area",
        mask_weights: Key | None = None,
        exact_bboxes: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        memmap_path: AnyPath | None = None,
        cache_dir: AnyPath | None = None,
        cache_bytes: int = 64 << 20,
        seed: int = 0,
        num_index_workers: int | None = None,
        progress: bool = True,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        self.pipeline = Pipeline(
            transform=transform,
            mask_transform=mask_transform,
            transforms=transforms,
            max_masks=max_masks,
            mask_choice=mask_choice,
            mask_weights=mask_weights,
            mask_format=mask_format,
            mask_dtype=mask_dtype,
            mask_size=mask_size,
            exact_bboxes=exact_bboxes,
            skip_errors=on_error == "skip",
        )
        self.seed = seed
        # Shared, so that workers that live on see a new epoch.
        self._epoch = shared_integers(0)
        self._memory_cache = MemoryCache(cache_size, cache_bytes)
        self._disk_cache = None if cache_dir is None else DiskCache(cache_dir)
        self.shards = ShardList(find_shards(root_dir, tar_indices, use_tar_streaming), memmap_path)
        if preload_index:
            self.shards.index_all(num_index_workers, progress)

    def __len__(self) -> int:
        return len(self.shards)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images in {len(self.shards.files)} shards)"

    @property
    def problems(self) -> list[str]:
        """What is damaged or missing in the tars and folders indexed so far, one line each."""
        return self.shards.problems

    @property
    def epoch(self) -> int:
        """What :meth:`set_epoch` set, also in workers; 0 at first."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose other random masks from now on; seen by workers that are running."""
        self._epoch.fill_(epoch)

    def get_image_info(self, idx: int) -> dict[str, Any]:
        """Return ``tar_index`` (None without a number), ``image_id`` and ``tar_file`` (a path)."""
        k, i = self.shards.locate(idx)
        file = self.shards.files[k]
        image_id = self.shards[k].image_id(i)
        return {"tar_index": file.number, "image_id": image_id, "tar_file": str(file.path)}

    def get_annotation(self, idx: int) -> dict[str, Any]:
        """Return the content of the annotation file of an image, with all that is in it.

        Raises:
            SampleError: it cannot be read, or is no JSON.
        """
        k, i = self.shards.locate(idx)
        shard = self.shards[k]
        try:
            annotation: dict[str, Any] = read_json(shard.read(i, "json"))
        except (OSError, ValueError) as error:
            raise SampleError(f"{shard.path}: {shard.member(i, 'json')}: {error}") from error
        return annotation

    def __getitem__(self, idx: int) -> Any:
        """Return a sample; a SkippedSample in place of a damaged one with ``on_error="skip"``.

        Raises:
            IndexError: there are not as many images.
            SampleError: the sample is damaged or cannot be read; the message names the tar, the
                member and the cause.
        """
        return self.load(idx)

    def load(self, idx: int, pipeline: Pipeline | None = None) -> Any:
        """Return a sample as ``dataset[idx]`` does, or with the options of another pipeline."""
        k, i = self.shards.locate(idx)
        return self.attempt(k, i, lambda: self.make_sample(self.read(k, i), k, i, pipeline))

    def attempt(self, k: int, i: int, step: Callable[[], Any]) -> Any:
        """Return what a step returns, or a SkippedSample where image i of shard k is skipped."""
        try:
            return step()
        except SampleError as error:
            if not self.pipeline.skip_errors:
                raise
            return SkippedSample(self.shards[k].image_id(i), str(error))

    def read(self, k: int, i: int) -> CompressedSample:
        """Return image i of shard k, compressed, from a cache or from its files.

        Raises:
            SampleError: it is damaged.
        """
        shard = self.shards[k]
        with_masks = self.pipeline.mask_format != "none"
        sample = self._memory_cache.get((k, i))
        if sample is not None:
            return sample
        cache = self._disk_cache if with_masks else None
        kind = "json"
        try:
            fingerprint = "" if cache is None else shard.fingerprint(i)
            sample = None if cache is None else cache.get(fingerprint)
            if sample is None:
                annotations = parse_annotations(shard.read(i, kind)) if with_masks else None
                kind = "jpg"
                sample = CompressedSample(shard.image_id(i), shard.read(i, kind), annotations)
                if cache is not None:
                    cache.put(fingerprint, sample)
        except (OSError, ValueError) as error:
            raise SampleError(f"{shard.path}: {shard.member(i, kind)}: {error}") from error
        self._memory_cache.put((k, i), sample)
        return sample

    def make_sample(
        self,
        source: CompressedSample,
        k: int,
        i: int,
        pipeline: Pipeline | None = None,
    ) -> Sample:
        """Return what image i of shard k looks like to users."""
        shard = self.shards[k]
        where = f"{shard.path}: {shard.member(i, 'jpg')}"
        rng = np.random.default_rng([self.seed, self.epoch, k, i])
        return (pipeline or self.pipeline)(source, where, rng)
