"""Which files belong to one image: ``<name>.jpg`` and ``<name>.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_KINDS = {".jpg": "jpg", ".jpeg": "jpg", ".json": "json"}


def split_name(path: str) -> tuple[str, str] | None:
    """Return an image's name and which half of it a file is, "jpg" or "json"; None if it is none.

    >>> split_name("sa_000020/sa_2.jpeg"), split_name("sa_2.json"), split_name("sa_2.txt")
    (('sa_000020/sa_2', 'jpg'), ('sa_2', 'json'), None)
    """
    name, suffix = os.path.splitext(path)  # noqa: PTH122
    kind = _KINDS.get(suffix.lower())
    if kind is None or name.rpartition("/")[2].startswith("."):
        return None  # ".": what macOS leaves in archives
    return name, kind


def find_pairs(
    images: Mapping[str, Any], annotations: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Return the names that have both halves, in order, and one line for each of the others."""
    problems = [f"{n}.jpg: has no .json" for n in _sorted(images.keys() - annotations.keys())]
    problems += [f"{n}.json: has no .jpg" for n in _sorted(annotations.keys() - images.keys())]
    return _sorted(images.keys() & annotations.keys()), problems


def _sorted(names: set[str]) -> list[str]:
    return sorted(names, key=sort_key)


def sort_key(name: str) -> tuple[int, str]:
    """Order "sa_2" before "sa_10", as their numbers are."""
    return len(name), name
