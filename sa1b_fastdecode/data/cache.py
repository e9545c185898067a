"""Caches of compressed samples, in memory and on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

from sa1b_fastdecode.data.compressed import CompressedSample
from sa1b_fastdecode.data.files import write_atomically

__all__ = ["DiskCache", "MemoryCache"]


class MemoryCache:
    """The samples that were used last, bounded by their number and their bytes.

    May be used from many threads. A spawned worker starts with an empty one.
    """

    def __init__(self, max_samples: int, max_bytes: int) -> None:
        self.max_samples = max_samples
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._samples: OrderedDict[Any, CompressedSample] = OrderedDict()
        self._lock = threading.Lock()
        _memory_caches.add(self)

    def __len__(self) -> int:
        return len(self._samples)

    def get(self, key: Any) -> CompressedSample | None:
        """Return a sample, which becomes the last one to be thrown out; None if it is not there."""
        with self._lock:
            sample = self._samples.get(key)
            if sample is not None:
                self._samples.move_to_end(key)
            return sample

    def put(self, key: Any, sample: CompressedSample) -> None:
        """Keep a sample, at the cost of those that have not been used for longest."""
        if self.max_samples < 1 or sample.num_bytes > self.max_bytes:
            return
        with self._lock:
            replaced = self._samples.pop(key, None)
            if replaced is not None:
                self.num_bytes -= replaced.num_bytes
            self._samples[key] = sample
            self.num_bytes += sample.num_bytes
            while len(self._samples) > self.max_samples or self.num_bytes > self.max_bytes:
                self.num_bytes -= self._samples.popitem(last=False)[1].num_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryCache, (self.max_samples, self.max_bytes)


_memory_caches: weakref.WeakSet[MemoryCache] = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked worker: another thread of the parent may have held a lock, and is not here."""
    for cache in _memory_caches:
        cache._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class DiskCache:
    """Samples in files of their own, for tars that are slow to reach.

    The key is what the files are, not how they are used: path, size and time of change. So a cache
    may be shared by processes and by datasets with other options, and never serves what is out of
    date. Files are written whole or not at all, carry a version and a checksum, and are left out
    where damaged. The folder grows to the size of what is read; delete it whenever you like.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.broken: str | None = None  # why nothing more is written

    def _file(self, fingerprint: str) -> Path:
        digest = hashlib.sha256(fingerprint.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:34]}.sample"

    def get(self, fingerprint: str) -> CompressedSample | None:
        """Return a sample, or None if it is not there whole."""
        with contextlib.suppress(OSError):
            return CompressedSample.from_bytes(self._file(fingerprint).read_bytes())
        return None

    def put(self, fingerprint: str, sample: CompressedSample) -> None:
        """Write a sample. When it fails once, as on a full disk, a warning says so, and it ends."""
        if self.broken is not None:
            return
        file = self._file(fingerprint)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, sample.to_bytes())
        except OSError as error:
            self.broken = str(error)
            warnings.warn(
                f"the cache in {self.folder} cannot be written any more ({error}); samples that "
                "are not in it are read from where they are",
                RuntimeWarning,
                stacklevel=2,
            )
