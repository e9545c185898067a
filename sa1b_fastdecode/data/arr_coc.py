"""ARR-COC: how masks lie to one another, and a curriculum of more masks in smaller batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sa1b_fastdecode.data.dataset import SA1BDataset
from sa1b_fastdecode.data.loader import LoaderView, SA1BDataLoader, create_sa1b_dataloader
from sa1b_fastdecode.data.pipeline import Sample
from sa1b_fastdecode.rle_batch import RLEBatch
from sa1b_fastdecode.spatial import mask_hierarchy, spatial_features

__all__ = ["ARRCOCDataLoader", "ARRCOCDataset"]

_DEFAULTS = {
    "base_max_masks": 50,
    "final_max_masks": 200,
    "base_batch_size": 8,
    "min_batch_size": 1,
}
_SET_BY_EPOCH = {"dataset", "batch_size", "max_masks_per_sample"}
_OPTIONS = {*_DEFAULTS, *inspect.signature(create_sa1b_dataloader).parameters} - _SET_BY_EPOCH


class ARRCOCDataset(SA1BDataset):
    """An :class:`SA1BDataset` whose samples also say how their masks lie to one another.

    ``spatial_features`` is what :func:`sa1b_fastdecode.spatial.spatial_features` returns
    (``iou_matrix (N, N)``, ``containment (N, N)``, ``centroids (N, 2)`` and so on), and
    ``mask_hierarchy`` what :func:`sa1b_fastdecode.spatial.mask_hierarchy` does (``large``,
    ``medium``, ``small``), of the masks of the sample. Batches hold the former padded to the
    largest number of masks, the latter as a list for each.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = replace(self.pipeline, features=_describe)


def _describe(masks: RLEBatch) -> Sample:
    return {"spatial_features": spatial_features(masks), "mask_hierarchy": mask_hierarchy(masks)}


class ARRCOCDataLoader:
    """A curriculum: from epoch to epoch more masks of each image, and smaller batches.

    In an epoch an image has at most ``min(base_max_masks + 10 * epoch, final_max_masks)`` masks,
    whatever the dataset's own ``max_masks``, and a batch
    ``max(base_batch_size - epoch // 5, min_batch_size)`` samples. The workers live on.

    Args:
        dataset: an SA1BDataset, or a Subset of one.
        config: a dict, or an object with attributes: ``base_max_masks`` (default 50),
            ``final_max_masks`` (200), ``base_batch_size`` (8), ``min_batch_size`` (1), and options
            of :func:`create_sa1b_dataloader`: ``num_workers``; ``mask_weights`` for sampling by
            relevance; ``out_size`` for batches of several scales or a schedule of them.

    Attributes:
        epoch: 0 at first.

    Raises:
        ValueError: a number below 1.
        TypeError: the dataset is of another kind.
    """

    def __init__(self, dataset: Any, config: Any) -> None:
        options = (
            dict(config)
            if isinstance(config, Mapping)
            else {name: getattr(config, name) for name in _OPTIONS if hasattr(config, name)}
        )
        self._numbers = {name: int(options.pop(name, value)) for name, value in _DEFAULTS.items()}
        for name, number in self._numbers.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        self.epoch = 0
        # ``max_masks`` of the view is set for every epoch, so the dataset's own is never asked.
        self._loader = create_sa1b_dataloader(
            dataset,
            batch_size=self._numbers["base_batch_size"],
            max_masks_per_sample=None,
            **options,
        )
        view = self._loader.dataset
        if not isinstance(view, LoaderView):
            raise TypeError("the curriculum needs a dataset, not a stream")
        self._view = view

    def max_masks(self, epoch: int) -> int:
        """Return how many masks of an image are taken in an epoch."""
        return min(self._numbers["base_max_masks"] + 10 * epoch, self._numbers["final_max_masks"])

    def batch_size(self, epoch: int) -> int:
        """Return how many samples a batch has in an epoch."""
        return max(self._numbers["base_batch_size"] - epoch // 5, self._numbers["min_batch_size"])

    def get_dataloader(self, epoch: int | None = None) -> SA1BDataLoader:
        """Return the loader of an epoch, default the current one.

        It is always the same loader, set to that epoch: finish one pass before asking for the next.

        Raises:
            ValueError: the epoch is negative.
        """
        epoch = self.epoch if epoch is None else epoch
        if epoch < 0:
            raise ValueError(f"the epoch must not be negative, but is {epoch}")
        self._view.max_masks = self.max_masks(epoch)
        batches: Any = self._loader.batch_sampler
        batches.batch_size = self.batch_size(epoch)
        self._loader.set_epoch(epoch)
        return self._loader

    def step_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
