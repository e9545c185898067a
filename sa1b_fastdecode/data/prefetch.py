"""Batches on a device, the next one on its way while one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode.rle_batch import RLEBatch


class DevicePrefetcher:
    """Iterate over a loader; every batch comes with its tensors and masks on a device.

    On a GPU the next batch is copied and decoded on a stream of its own while the caller works on
    the current one. Two batches are on the device at a time, never more.

    Args:
        loader: an iterable of batches, such as a DataLoader: tensors and RLEBatches, in dicts,
            lists, tuples and named tuples of any depth. Everything else passes as it is. With
            ``pin_memory=True`` copies need no staging.
        device: where to.
        decode: True decodes every RLEBatch as ``batch.decode()`` does; a dict holds the keywords to
            call it with, such as ``{"dtype": torch.bool, "size": (1024, 1024)}``; False leaves the
            masks compressed.

    Raises (from the iterator):
        RuntimeError: nothing in this build decodes on ``device``.
        Whatever the loader raises, after the batches that came before it.

    Note:
        As a context manager it lets go of the loader's iterator, and so of its workers, at the end.

    Example:
        >>> import sa1b_fastdecode as fd
        >>> masks = fd.pack_rles({"size": [2, 3], "counts": [1, 2, 3]})
        >>> with fd.data.DevicePrefetcher([{"masks": masks, "id": "a"}], "cpu") as batches:
        ...     for batch in batches:
        ...         print(batch)
        {'masks': tensor([[[0, 1, 0],
                 [1, 0, 0]]], dtype=torch.uint8), 'id': 'a'}
    """

    def __init__(
        self,
        loader: Iterable[Any],
        device: torch.device | str,
        *,
        decode: bool | Mapping[str, Any] = True,
    ) -> None:
        self.loader = loader
        self.device = torch.device(device)
        keywords = decode if isinstance(decode, Mapping) else {}
        self._decode = None if decode is False else dict(keywords)
        self._iterator: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __enter__(self) -> DevicePrefetcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        self._iterator = self._on_gpu() if self.device.type == "cuda" else self._in_turn()
        return self._iterator

    def _in_turn(self) -> Iterator[Any]:
        for batch in self.loader:
            yield _map(batch, self._place)

    def _on_gpu(self) -> Iterator[Any]:
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        batches = iter(self.loader)
        coming = self._start(batches, stream)
        while (batch := coming.arrive(torch.cuda.current_stream(self.device))) is not _END:
            coming = self._start(batches, stream)
            yield batch

    def _start(self, batches: Iterator[Any], stream: torch.cuda.Stream) -> _Coming:
        """Fetch the next batch and give the GPU what is to be done to it."""
        try:
            batch = next(batches, _END)
            with torch.cuda.stream(stream):
                placed = batch if batch is _END else _map(batch, self._place)
            return _Coming(placed, stream.record_event(), None)
        except Exception as error:  # for the caller, when it is the turn of this batch
            return _Coming(_END, None, error)

    def _place(self, value: Any) -> Any:
        if isinstance(value, RLEBatch):
            moved = value.to(self.device, non_blocking=True)
            return moved if self._decode is None else moved.decode(**self._decode)
        if isinstance(value, Tensor):
            pinned = value.is_pinned() or not value.is_cpu or self.device.type != "cuda"
            return (value if pinned else value.pin_memory()).to(self.device, non_blocking=True)
        return value


_END = object()


class _Coming:
    """A batch that the GPU is making, or why there is none."""

    def __init__(self, batch: Any, done: torch.cuda.Event | None, error: Exception | None) -> None:
        self._batch, self._done, self._error = batch, done, error

    def arrive(self, stream: torch.cuda.Stream) -> Any:
        """Return the batch, for use on a stream; _END after the last."""
        if self._error is not None:
            raise self._error
        if self._done is not None:
            stream.wait_event(self._done)

        def use(value: Any) -> Any:
            # Its memory belongs to the other stream, which must not reuse it before this one is
            # through with it.
            tensor = value.data if isinstance(value, RLEBatch) else value
            if isinstance(tensor, Tensor):
                tensor.record_stream(stream)
            return value

        return self._batch if self._batch is _END else _map(self._batch, use)


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to all that is no dict, list or tuple, and keep these as they are."""
    if isinstance(value, dict):
        items = {key: _map(item, function) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(item, function) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_map(item, function) for item in value)
    return function(value)
