"""Images and annotation files that were extracted into a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sa1b_fastdecode.data.pairs import find_pairs, split_name

Int64Array: TypeAlias = npt.NDArray[np.int64]


class FolderIndex:
    """The pairs of ``sa_<id>.jpg`` and ``sa_<id>.json`` in a folder, in the order of their numbers.

    Attributes:
        path: the folder.
        problems: which halves of pairs are missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = os.fspath(folder)
        halves: dict[str, dict[str, str]] = {"jpg": {}, "json": {}}
        with os.scandir(folder) as entries:
            for entry in entries:
                found = split_name(entry.name)
                if found:
                    stem, kind = found
                    halves[kind][stem] = entry.name
        self._stems, self.problems = find_pairs(halves["jpg"], halves["json"])
        self._names = halves

    def __len__(self) -> int:
        return len(self._stems)

    def image_id(self, i: int) -> str:
        """Return the stem of the image's file names."""
        return self._stems[i]

    def member(self, i: int, kind: str) -> str:
        """Return the name of the image ("jpg") or the annotation file ("json")."""
        return self._names[kind][self._stems[i]]

    def read(self, i: int, kind: str) -> bytes:
        """Return the content of the image ("jpg") or of the annotation file ("json")."""
        return Path(self.path, self.member(i, kind)).read_bytes()

    def fingerprint(self, i: int) -> str:
        """Return a text that changes when either file does."""
        parts = []
        for kind in ("jpg", "json"):
            file = Path(self.path, self.member(i, kind)).absolute()
            status = file.stat()
            parts.append(f"{file}|{status.st_size}|{status.st_mtime_ns}")
        return "|".join(parts)

    def reading_order(self) -> Int64Array:
        """Return the images in their order: nobody knows where files lie."""
        return np.arange(len(self))

    def announce(self, images: npt.NDArray[Any]) -> None:
        """Do nothing: announcing takes opening every file."""
