"""Where each image of a tar lies: found in one scan, kept in a file, read with ``os.pread``.

A saved index is a head, a table of offsets and sizes, the names, and the problems found, as JSON.
It is memory-mapped when something is looked up; opening one reads its head only, because a thousand
mappings would take a thousand file descriptors.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import json
import mmap
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from sa1b_fastdecode.data.files import write_atomically
from sa1b_fastdecode.data.pairs import sort_key
from sa1b_fastdecode.data.tar_scan import scan_tar

__all__ = ["TarIndex", "index_tars", "write_wids_index"]

Int64Array: TypeAlias = npt.NDArray[np.int64]
AnyPath: TypeAlias = str | os.PathLike[str]

_HEAD = struct.Struct("<8sQqqqqq")
_MAGIC = b"SA1B tar"
_VERSION = 1
_COLUMN = {"jpg": 0, "json": 2}
_OPEN_FILES = 64  # of tars and of indexes, in each process


class _Head(NamedTuple):
    num_images: int
    name_width: int
    report_bytes: int
    tar_size: int
    tar_mtime_ns: int

    @property
    def total_bytes(self) -> int:
        return _HEAD.size + self.num_images * (4 * 8 + self.name_width) + self.report_bytes


class _Columns(NamedTuple):
    table: Int64Array  # (N, 4): offset and size of the image, offset and size of the annotations
    names: npt.NDArray[np.bytes_]  # (N,): path in the tar without "./" and suffix
    report: bytes  # JSON: the problems


class TarIndex:
    """The images of one tar, in the order of their numbers, each with its annotation file.

    Members may be in any order, under ``./``, a folder, or no prefix. Whatever is damaged is left
    out and told in :attr:`problems`; the rest is served. Reading needs no lock: an index may be
    used from many threads, and from workers that were forked or spawned.

    Attributes:
        path: the tar.
    """

    def __init__(self, path: str, head: _Head, source: str | bytes) -> None:
        """Use :meth:`open`; ``source`` is the saved index or its content."""
        self.path = path
        self._head = head
        self._source = source

    @classmethod
    def open(cls, tar: AnyPath, *, index_dir: AnyPath | None = None) -> TarIndex:
        """Return the index of a tar; scans the tar unless an index that fits it was saved.

        Args:
            tar: an uncompressed tar.
            index_dir: the folder of saved indexes, made where missing; default: beside the tar, as
                ``<tar>.index``. Where it cannot be written a RuntimeWarning says so, and the index
                lives in memory.

        Raises:
            OSError: the tar cannot be read.

        Example:
            >>> import tempfile
            >>> from sa1b_fastdecode.sample import write_tar
            >>> folder = tempfile.TemporaryDirectory()
            >>> tar = write_tar(f"{folder.name}/sa_000000.tar", 2, 0, sizes=[(48, 64)])
            >>> index = TarIndex.open(tar)
            >>> len(index), index.image_id(1), index.problems, len(index.read(1, "json")) > 1000
            (2, 'sa_2', [], True)
            >>> folder.cleanup()
        """
        (index,) = index_tars([tar], index_dir=index_dir, num_workers=0, progress=False)
        return index

    @classmethod
    def load(cls, tar: AnyPath, *, index_dir: AnyPath | None = None) -> TarIndex | None:
        """Return the saved index; None if there is none, or not of this tar as it is now."""
        path = os.fspath(tar)
        saved = _index_path(path, index_dir)
        try:
            file = os.open(saved, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            start, length = os.read(file, _HEAD.size), os.fstat(file).st_size
        finally:
            os.close(file)
        if len(start) < _HEAD.size:
            return None
        magic, version, *values = _HEAD.unpack(start)
        head = _Head(*values)
        now = os.stat(path)  # noqa: PTH116 - a Path takes as long as the rest
        fits = (head.tar_size, head.tar_mtime_ns) == (now.st_size, now.st_mtime_ns)
        if magic != _MAGIC or version != _VERSION or head.total_bytes != length or not fits:
            return None
        return cls(path, head, saved)

    @classmethod
    def scan(cls, tar: AnyPath) -> TarIndex:
        """Read all headers of a tar and return its index, in memory.

        Raises:
            OSError: the tar cannot be read.
        """
        path = os.fspath(tar)
        before = os.stat(path)  # noqa: PTH116
        images, problems = scan_tar(path)
        names = [name.encode("utf-8", "surrogateescape") for name in images]
        report = json.dumps(problems).encode()
        width = max(map(len, names), default=1)
        head = _Head(len(names), width, len(report), before.st_size, before.st_mtime_ns)
        table = np.array(list(images.values()), np.int64)
        content = b"".join(
            [
                _HEAD.pack(_MAGIC, _VERSION, *head),
                table.tobytes(),
                np.array(names, f"S{width}").tobytes(),
                report,
            ]
        )
        return cls(path, head, content)

    def save(self, *, index_dir: AnyPath | None = None) -> None:
        """Write the index where :meth:`load` finds it, and use that file from now on.

        Raises:
            OSError: it cannot be written.
        """
        if isinstance(self._source, bytes):
            target = _index_path(self.path, index_dir)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, [self._source])
            self._source = target

    # What is in it

    def __len__(self) -> int:
        return self._head.num_images

    def __repr__(self) -> str:
        return f"TarIndex({self.path!r}, {len(self)} images, {len(self.problems)} problems)"

    @property
    def _columns(self) -> _Columns:
        if isinstance(self._source, bytes):
            return _columns_of(self._source, self._head)
        return _map_columns(self._source, self._head)

    @property
    def problems(self) -> list[str]:
        """What is damaged or missing, one line each."""
        problems: list[str] = json.loads(self._columns.report)
        return problems

    def _key(self, i: int) -> str:
        name: bytes = self._columns.names[i]
        return name.decode("utf-8", "surrogateescape")

    def image_id(self, i: int) -> str:
        """Return the stem of the image's file names, as in "sa_226692"."""
        return self._key(i).rpartition("/")[2]

    def find(self, name: str) -> int:
        """Return the place of an image by its path in the tar without suffix: "sa_226692".

        Raises:
            KeyError: the tar has no such image.
        """
        wanted = sort_key(name)
        i = bisect.bisect_left(range(len(self)), wanted, key=lambda i: sort_key(self._key(i)))
        if i == len(self) or self._key(i) != name:
            raise KeyError(f"{self.path} has no image {name!r}")
        return i

    def member(self, i: int, kind: str) -> str:
        """Return the name of the image ("jpg") or the annotation file ("json")."""
        return f"{self._key(i)}.{kind}"

    def read(self, i: int, kind: str) -> bytes:
        """Return the content of the image ("jpg") or of its annotation file ("json").

        Raises:
            OSError: the tar cannot be read, has changed since it was indexed, or is cut off.
        """
        offset, size = self._extent(i, kind)
        descriptor = self._descriptor()  # held until all is read: another thread may let go of it
        return _read(descriptor.number, offset, size)

    def _extent(self, i: int, kind: str) -> tuple[int, int]:
        column = _COLUMN[kind]
        offset, size = self._columns.table[i, column : column + 2].tolist()
        return offset, size

    def _descriptor(self) -> _Descriptor:
        size, mtime_ns = self._head.tar_size, self._head.tar_mtime_ns
        descriptor = _open_tar(self.path, size, mtime_ns)
        now = os.fstat(descriptor.number)
        if (now.st_size, now.st_mtime_ns) != (size, mtime_ns):
            raise OSError("it has changed since it was indexed; open its index again")
        return descriptor

    def fingerprint(self, i: int) -> str:
        """Return a text that changes when the tar does."""
        tar = Path(self.path).absolute()
        return f"{tar}|{self._head.tar_size}|{self._head.tar_mtime_ns}|{self._key(i)}"

    def reading_order(self) -> Int64Array:
        """Return the images in the order in which their JPEGs lie in the tar."""
        return np.argsort(self._columns.table[:, 0], kind="stable")

    def announce(self, images: npt.NDArray[Any]) -> None:
        """Tell the system that these images will be read soon."""
        if not hasattr(os, "posix_fadvise"):
            return
        with contextlib.suppress(OSError):  # reading them tells it, with the name of the image
            descriptor = self._descriptor()
            for offset, size in self._columns.table[images].reshape(-1, 2).tolist():
                os.posix_fadvise(descriptor.number, offset, size, os.POSIX_FADV_WILLNEED)

    def write_dali_index(self, path: AnyPath) -> None:
        """Write the index that DALI's ``fn.readers.webdataset`` takes (its format v1.2).

        DALI then reads pairs in any order, where its own tool needs neighbours.

        Raises:
            ValueError: a name with a space, which the format cannot hold.
        """
        lines = [f"v1.2 {len(self)}"]
        for i, row in enumerate(self._columns.table.tolist()):
            name = self._key(i)
            if any(character.isspace() for character in name):
                raise ValueError(f"{self.path}: DALI's index cannot hold the name {name!r}")
            image, annotations = " ".join(map(str, row[:2])), " ".join(map(str, row[2:]))
            lines.append(f"jpg {image} {name}.jpg json {annotations} {name}.json")
        write_atomically(path, ["\n".join([*lines, ""]).encode()])

    def __reduce__(self) -> tuple[Any, ...]:
        return TarIndex, (self.path, self._head, self._source)


def index_tars(
    tars: Sequence[AnyPath],
    *,
    index_dir: AnyPath | None = None,
    num_workers: int | None = None,
    progress: bool = True,
) -> list[TarIndex]:
    """Return the indexes of many tars; those that have no saved one are scanned, in parallel.

    Args:
        tars: paths.
        index_dir: as for :meth:`TarIndex.open`.
        num_workers: processes that scan; 0 scans here. Default: one for each core of this process,
            and none for a single tar.
        progress: show a bar while scanning, if tqdm is installed.

    Raises:
        OSError: a tar cannot be read.
        RuntimeError: a scanning process died.
    """
    indexes = [TarIndex.load(tar, index_dir=index_dir) for tar in tars]
    missing = [i for i, index in enumerate(indexes) if index is None]
    if num_workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        num_workers = 0 if len(missing) < 2 else min(len(missing), cores or 1)
    jobs = [(os.fspath(tars[i]), index_dir) for i in missing]
    scanned = _progress(_run_jobs(jobs, num_workers), len(jobs), progress)
    unsaved = []
    for i, (index, error) in zip(missing, scanned, strict=True):
        indexes[i] = index
        if error is not None:
            unsaved.append(error)
    if unsaved:
        warnings.warn(
            f"{len(unsaved)} of {len(tars)} tar indexes could not be saved and will be made again "
            f"next time ({unsaved[0]}); choose a folder that can be written, with index_dir",
            RuntimeWarning,
            stacklevel=2,
        )
    return [index for index in indexes if index is not None]


_Job: TypeAlias = tuple[str, AnyPath | None]


def _run_jobs(jobs: list[_Job], num_workers: int) -> Iterator[tuple[TarIndex, str | None]]:
    if num_workers == 0 or not jobs:
        yield from map(_scan_and_save, jobs)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        futures = [pool.submit(_scan_and_save, job) for job in jobs]
        for future, (tar, _) in zip(futures, jobs, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"a process died while {tar} was being indexed (killed, or out of memory)"
                ) from error


def _scan_and_save(job: _Job) -> tuple[TarIndex, str | None]:
    """Return the index, and why it could not be saved."""
    tar, index_dir = job
    index = TarIndex.scan(tar)
    try:
        index.save(index_dir=index_dir)
    except OSError as error:
        return index, str(error)
    return index, None


def _progress(results: Iterator[Any], total: int, show: bool) -> Iterator[Any]:
    if not show or total == 0:
        return results
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return results
    bar: Iterator[Any] = tqdm(results, desc="indexing tars", unit="tar", total=total)
    return bar


def write_wids_index(indexes: Iterable[TarIndex], path: AnyPath) -> None:
    """Write the JSON list of shards that WebDataset's ``wids.ShardListDataset`` takes.

    Tars are named relative to the folder of ``path`` where they lie below it. WebDataset itself
    joins neighbouring members only, so tars in Meta's order need to be repacked for it.
    """
    folder = Path(path).absolute().parent
    shards = []
    for index in indexes:
        tar = Path(index.path).absolute()
        url = tar.relative_to(folder) if tar.is_relative_to(folder) else tar
        filesize = index._head.tar_size
        shards.append({"url": str(url), "nsamples": len(index), "filesize": filesize})
    content = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}
    write_atomically(path, [json.dumps(content, indent=1).encode()])


# Reading


class _Descriptor:
    """An open file. Who reads holds a reference, so that it is not closed under a thread's feet."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@functools.lru_cache(_OPEN_FILES)
def _open_tar(path: str, size: int, mtime_ns: int) -> _Descriptor:
    """Size and time are there so that a tar which was replaced is opened anew."""
    return _Descriptor(path)


@functools.lru_cache(_OPEN_FILES)
def _map_columns(path: str, head: _Head) -> _Columns:
    descriptor = _Descriptor(path)
    if os.fstat(descriptor.number).st_size != head.total_bytes:
        raise OSError(f"{path} has changed since it was opened; open the index again")
    return _columns_of(mmap.mmap(descriptor.number, 0, access=mmap.ACCESS_READ), head)


def _columns_of(content: bytes | mmap.mmap, head: _Head) -> _Columns:
    end = _HEAD.size + 32 * head.num_images
    report = end + head.num_images * head.name_width
    table = np.frombuffer(content, np.int64, 4 * head.num_images, _HEAD.size).reshape(-1, 4)
    names = np.frombuffer(content, f"S{head.name_width}", head.num_images, end)
    return _Columns(table, names, content[report : report + head.report_bytes])


def _read(descriptor: int, offset: int, size: int) -> bytes:
    content = os.pread(descriptor, size, offset)
    while len(content) < size:  # a signal, or more than the system reads at once
        more = os.pread(descriptor, size - len(content), offset + len(content))
        if not more:
            raise OSError(f"the archive ends at byte {offset + len(content)}, inside a member")
        content += more
    return content


def _index_path(tar: str, index_dir: AnyPath | None) -> str:
    if index_dir is None:
        return f"{tar}.index"
    # Tars of one name from different folders may share a folder of indexes.
    path = os.path.abspath(tar)  # noqa: PTH100
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return os.path.join(index_dir, f"{os.path.basename(tar)}-{digest}.index")  # noqa: PTH118, PTH119
