"""What the loaders need of a place that holds images with their annotations."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


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


def sort_key(name: str) -> tuple[int, str]:
    """Order "sa_2" before "sa_10", as their numbers are."""
    return len(name), name
