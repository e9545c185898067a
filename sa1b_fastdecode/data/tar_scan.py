"""Find the members of a tar, whatever is damaged in it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from sa1b_fastdecode.data.pairs import find_pairs, split_name

_MAX_NAME = 255  # bytes; file systems allow no more, and an index gives all names the same width


def scan_tar(path: str) -> tuple[dict[str, tuple[int, int, int, int]], list[str]]:
    """Read all headers of a tar.

    Returns:
        tuple: for each image that is whole, in order, by its path in the tar without "./" and
        suffix: offset and size of the image, offset and size of its annotation file; and what is
        damaged or missing, one line each.

    Raises:
        OSError: the tar cannot be read.
    """
    problems: list[str] = []
    return _pair_members(_walk(path, problems), problems), problems


def _walk(path: str, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the whole files in a tar; tell what is damaged, and go on behind it."""
    size = os.path.getsize(path)  # noqa: PTH202
    end = 0  # of the last member
    with open(path, "rb") as raw:  # noqa: PTH123
        for member in _headers(raw, size, problems):
            _check_gap(raw, end, member.offset, problems)
            blocks = -(-member.size // tarfile.BLOCKSIZE) if member.isreg() else 0
            end = member.offset_data + blocks * tarfile.BLOCKSIZE
            excess = member.offset_data + member.size - size
            if excess > 0:
                problems.append(f"{member.name}: the archive is cut off {excess} bytes too early")
            elif member.isreg():
                yield member
        _check_gap(raw, end, size, problems)
    if end <= size < end + tarfile.BLOCKSIZE:
        problems.append("the end-of-archive mark is missing: the archive may be cut off")


def _headers(raw: BinaryIO, size: int, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield all members that can be found."""
    start = 0
    while start < size:
        raw.seek(start)
        try:
            # It looks for the next header behind damaged ones, though it does not tell of them.
            tar = tarfile.TarFile(fileobj=raw, ignore_zeros=True, errors="surrogateescape")
            while (member := tar.next()) is not None:
                # It would keep all of them.
                tar.members.clear()  # type: ignore[attr-defined]
                if member.size < 0:
                    raise ValueError(f"a size of {member.size} bytes")
                yield member
            return
        except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
            failed = raw.tell()
            if failed >= size:
                return  # behind a member that is cut off, which has been told
            problems.append(f"a header before byte {failed} is damaged: {error}")
            start = max(start + 1, failed)
            start += -start % tarfile.BLOCKSIZE


def _check_gap(raw: BinaryIO, begin: int, end: int, problems: list[str]) -> None:
    """Tell of bytes between members, unless they are zeros, or a header for all that follow."""
    if begin >= end:
        return
    position = raw.tell()
    raw.seek(begin)
    chunk = raw.read(min(end - begin, tarfile.BLOCKSIZE))
    at = begin
    if chunk[156:157] != tarfile.XGLTYPE:
        while chunk and not chunk.strip(b"\0"):
            at += len(chunk)
            chunk = raw.read(min(end - at, 1 << 20))
        if chunk:
            problems.append(f"bytes {begin} to {end} are damaged: no member was found there")
    raw.seek(position)


def _pair_members(
    members: Iterator[tarfile.TarInfo], problems: list[str]
) -> dict[str, tuple[int, int, int, int]]:
    """Return offsets and sizes of the images that have both halves, by name."""
    halves: dict[str, dict[str, tuple[int, int]]] = {"jpg": {}, "json": {}}
    for member in members:
        name = member.name.removeprefix("./").lstrip("/")
        found = split_name(name)
        if found is None:
            continue
        stem, kind = found
        if len(os.fsencode(stem)) > _MAX_NAME:
            problems.append(f"{name[:50]}...: the name is longer than {_MAX_NAME} bytes")
            continue
        if stem in halves[kind]:
            problems.append(f"{name}: is there more than once; the last one counts")
        halves[kind][stem] = member.offset_data, member.size
    images, annotations = halves["jpg"], halves["json"]
    whole, lonely = find_pairs(images, annotations)
    problems += lonely
    return {stem: (*images[stem], *annotations[stem]) for stem in whole}
