"""A Lightning DataModule of SA-1B."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from sa1b_fastdecode.data.dataset import SA1BDataset
from sa1b_fastdecode.data.loader import SA1BDataLoader, create_sa1b_dataloader
from sa1b_fastdecode.data.tar_index import AnyPath

__all__ = ["SA1BDataModule"]


def _find_package() -> Any:
    """Return Lightning, from either of its packages; None without it."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return None


_package = _find_package()
_Base: Any = object if _package is None else _package.LightningDataModule


class SA1BDataModule(_Base):  # type: ignore[misc]  # it is there or not
    """Loaders of SA-1B for a Lightning Trainer.

    Batches are :class:`SA1BBatch`; Lightning moves them to the device, with masks compressed, and
    ``batch["masks"].decode()`` decodes them there.

    Args:
        root_dir: as for :class:`SA1BDataset`.
        batch_size: samples in a batch of each rank.
        tar_indices: numbers of the tars to train on; default: all.
        val_tar_indices: numbers of the tars to validate on; default: no validation.
        dataset_options: more arguments of :class:`SA1BDataset`.
        **loader_options: more arguments of :func:`create_sa1b_dataloader`.

    Raises:
        ImportError: neither lightning nor pytorch_lightning is installed.
    """

    def __init__(
        self,
        root_dir: AnyPath,
        batch_size: int = 4,
        *,
        tar_indices: Iterable[int] | None = None,
        val_tar_indices: Iterable[int] | None = None,
        dataset_options: dict[str, Any] | None = None,
        **loader_options: Any,
    ) -> None:
        if _package is None:
            raise ImportError("SA1BDataModule needs Lightning: pip install lightning")
        super().__init__()
        self.root_dir = root_dir
        self.batch_size = batch_size
        self.dataset_options = dataset_options or {}
        self.loader_options = loader_options
        self._tars = {"train": _listed(tar_indices), "val": _listed(val_tar_indices)}
        self._datasets: dict[str, SA1BDataset] = {}

    def prepare_data(self) -> None:
        """Index the tars; one process of each machine does it, and the others find it done."""
        self._open_datasets()

    def setup(self, stage: str | None = None) -> None:
        """Open the datasets."""
        self._datasets = self._datasets or self._open_datasets()

    def _open_datasets(self) -> dict[str, SA1BDataset]:
        return {
            part: SA1BDataset(self.root_dir, tars, **self.dataset_options)
            for part, tars in self._tars.items()
            if part == "train" or tars is not None
        }

    def train_dataloader(self) -> SA1BDataLoader:
        """Return the loader for training, of this rank."""
        return self._make_loader("train", shuffle=True)

    def val_dataloader(self) -> SA1BDataLoader | list[Any]:
        """Return the loader for validation, of this rank; none without ``val_tar_indices``."""
        return self._make_loader("val", shuffle=False) if self._tars["val"] is not None else []

    def _make_loader(self, part: str, shuffle: bool) -> SA1BDataLoader:
        self.setup()
        options: dict[str, Any] = {"shuffle": shuffle, **self.loader_options}
        trainer = getattr(self, "trainer", None)
        if trainer is not None and trainer.world_size > 1:
            ranks = {"rank": trainer.global_rank, "world_size": trainer.world_size}
            options |= {"distributed": True, **ranks}
        return create_sa1b_dataloader(self._datasets[part], self.batch_size, **options)


def _listed(numbers: Iterable[int] | None) -> list[int] | None:
    return None if numbers is None else list(numbers)
