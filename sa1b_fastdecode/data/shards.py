"""The tars and folders of a dataset, in one fixed order, and where each of their images is."""

from __future__ import annotations

import bisect
import operator
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sa1b_fastdecode.data.folder_index import FolderIndex
from sa1b_fastdecode.data.tar_index import AnyPath, TarIndex, index_tars

_NUMBER = re.compile(r"(\d+)$")


class Shard(Protocol):
    """Many images and their annotation files: a tar, or a folder of extracted files."""

    @property
    def path(self) -> str:
        """The tar or the folder."""

    @property
    def problems(self) -> list[str]:
        """What is damaged or missing, one line each; none of it is among the images."""

    def __len__(self) -> int: ...

    def image_id(self, i: int) -> str:
        """The stem of the file names: "sa_226692"."""

    def member(self, i: int, kind: str) -> str:
        """The name of the image ("jpg") or the annotation file ("json"), for messages."""

    def read(self, i: int, kind: str) -> bytes:
        """The content of the image ("jpg") or of the annotation file ("json")."""

    def fingerprint(self, i: int) -> str:
        """What changes when the files of the image change; the key of caches."""

    def reading_order(self) -> npt.NDArray[np.int64]:
        """The images in the order in which they lie on the disk."""

    def announce(self, images: npt.NDArray[Any]) -> None:
        """Tell the system that these will be read soon."""


@dataclass(frozen=True)
class ShardFile:
    """A tar or a folder of extracted files that belongs to a dataset.

    Attributes:
        path: where it is.
        number: 20 of ``sa_000020.tar``; None where the name does not end in a number.
        is_tar: whether it is a tar.
    """

    path: Path
    number: int | None
    is_tar: bool


def find_shards(
    root: AnyPath, tar_indices: Iterable[int] | None, prefer_tars: bool
) -> list[ShardFile]:
    """Find ``<name>.tar`` and folders ``<name>/`` below a folder, and pairs that lie in it itself.

    Args:
        root: the folder.
        tar_indices: the numbers wanted, None for all.
        prefer_tars: what to take where both ``sa_000020.tar`` and ``sa_000020/`` are there.

    Returns:
        In the order of their numbers.

    Raises:
        FileNotFoundError: there is nothing, or not all that is wanted.
    """
    folder = Path(root)
    tars, folders = {}, {}
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if path.suffix == ".tar" and entry.is_file():
                tars[path.stem] = path
            elif _NUMBER.search(path.name) and entry.is_dir():
                folders[path.name] = path
            elif path.suffix == ".json":
                folders["."] = folder
    found = {**tars, **folders} if not prefer_tars else {**folders, **tars}
    shards = []
    for path in found.values():
        is_tar = path.suffix == ".tar" and path != folder
        digits = _NUMBER.search(path.stem if is_tar else path.absolute().name)
        shards.append(ShardFile(path, int(digits[1]) if digits else None, is_tar))
    shards.sort(key=lambda shard: (shard.number is None, shard.number or 0, shard.path.name))
    if tar_indices is not None:
        wanted = {int(number) for number in tar_indices}
        missing = sorted(wanted - {shard.number for shard in shards})
        if missing:
            raise FileNotFoundError(f"{folder} has no tar or folder with the number {missing[0]}")
        shards = [shard for shard in shards if shard.number in wanted]
    if not shards:
        raise FileNotFoundError(f"{folder} has no tars, folders sa_<number>, or sa_*.json")
    return shards


class ShardList:
    """Images counted over all shards. A shard is indexed when it is first needed.

    Nothing is locked: threads that come at once may do the same work twice, with the same result.
    """

    def __init__(self, files: list[ShardFile], index_dir: AnyPath | None) -> None:
        self.files = files
        self._index_dir = index_dir
        self._indexes: dict[int, Shard] = {}
        # Of the first shards: how many images they and all before them have.
        self._ends: list[int] = []

    def index_all(self, num_workers: int | None = None, progress: bool = False) -> None:
        """Index whatever is not yet; warn of what is damaged."""
        tars = [k for k, f in enumerate(self.files) if f.is_tar and k not in self._indexes]
        paths = [self.files[k].path for k in tars]
        indexes = index_tars(
            paths, index_dir=self._index_dir, num_workers=num_workers, progress=progress
        )
        self._indexes.update(zip(tars, indexes, strict=True))
        for k, file in enumerate(self.files):
            if not file.is_tar and k not in self._indexes:
                self._indexes[k] = FolderIndex(file.path)
        _warn(self.problems, stacklevel=4)

    @property
    def problems(self) -> list[str]:
        """What is damaged or missing, one line each, in what has been indexed."""
        shards = [self._indexes[k] for k in sorted(self._indexes)]
        return [f"{shard.path}: {problem}" for shard in shards for problem in shard.problems]

    def __getitem__(self, k: int) -> Shard:
        if k not in self._indexes:
            file = self.files[k]
            shard: Shard = (
                TarIndex.open(file.path, index_dir=self._index_dir)
                if file.is_tar
                else FolderIndex(file.path)
            )
            _warn([f"{shard.path}: {problem}" for problem in shard.problems], stacklevel=3)
            self._indexes[k] = shard
        return self._indexes[k]

    def _count(self, k: int) -> list[int]:
        """Return the ends of at least k shards."""
        ends = self._ends
        while len(ends) < k:
            ends = [*ends, (ends[-1] if ends else 0) + len(self[len(ends)])]
        if len(ends) > len(self._ends):
            self._ends = ends
        return ends

    def __len__(self) -> int:
        """The number of images, for which all shards are indexed."""
        ends = self._count(len(self.files))
        return ends[-1] if ends else 0

    def locate(self, index: int) -> tuple[int, int]:
        """Return the shard and the place in it of an image; only shards before are indexed.

        Raises:
            IndexError: there are not as many images.
        """
        index = operator.index(index)
        if index < 0:
            index += len(self)
        if index < 0:
            raise IndexError(f"the dataset has {len(self)} images")
        ends = self._ends
        while not ends or ends[-1] <= index:
            if len(ends) == len(self.files):
                raise IndexError(f"image {index} of a dataset of {len(self)} images")
            ends = self._count(len(ends) + 1)
        k = bisect.bisect_right(ends, index)
        return k, index - (ends[k - 1] if k else 0)

    def extents(self) -> list[tuple[int, int]]:
        """Return for each shard the number of its first image and of its images."""
        ends = self._count(len(self.files))
        begins = [0, *ends[:-1]]
        return [(begin, end - begin) for begin, end in zip(begins, ends, strict=True)]


def _warn(problems: list[str], stacklevel: int) -> None:
    if problems:
        warnings.warn(
            f"{len(problems)} problems in the data, the first one is {problems[0]}; what is "
            "damaged or missing is left out, and listed in .problems",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
