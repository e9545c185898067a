"""Loading SA-1B: from tars and folders to batches whose masks stay compressed.

A sample goes through `tar_index` or `folder_index` (where its files are), `annotations` (what is in
them), `cache` and `stream` (which keep it compressed), `pipeline` (what the dataset's options make
of it), `collate` (batches) and `loader`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sa1b_fastdecode.data.arr_coc import ARRCOCDataLoader, ARRCOCDataset
    from sa1b_fastdecode.data.collate import SA1BBatch, sa1b_collate_fn, sampling_collate_fn
    from sa1b_fastdecode.data.dataset import SA1BDataset
    from sa1b_fastdecode.data.errors import SampleError, SkippedSample
    from sa1b_fastdecode.data.loader import SA1BDataLoader, create_sa1b_dataloader
    from sa1b_fastdecode.data.prefetch import DevicePrefetcher
    from sa1b_fastdecode.data.stream import SA1BStream
    from sa1b_fastdecode.data.tar_index import TarIndex, index_tars, write_wids_index

_HOME = {
    "ARRCOCDataLoader": "arr_coc",
    "ARRCOCDataset": "arr_coc",
    "DevicePrefetcher": "prefetch",
    "SA1BBatch": "collate",
    "SA1BDataLoader": "loader",
    "SA1BDataset": "dataset",
    "SA1BStream": "stream",
    "SampleError": "errors",
    "SkippedSample": "errors",
    "TarIndex": "tar_index",
    "create_sa1b_dataloader": "loader",
    "index_tars": "tar_index",
    "sa1b_collate_fn": "collate",
    "sampling_collate_fn": "collate",
    "write_wids_index": "tar_index",
}

__all__ = [
    "ARRCOCDataLoader",
    "ARRCOCDataset",
    "DevicePrefetcher",
    "SA1BBatch",
    "SA1BDataLoader",
    "SA1BDataset",
    "SA1BStream",
    "SampleError",
    "SkippedSample",
    "TarIndex",
    "create_sa1b_dataloader",
    "index_tars",
    "sa1b_collate_fn",
    "sampling_collate_fn",
    "write_wids_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
