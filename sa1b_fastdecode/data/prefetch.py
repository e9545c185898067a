"""Batches on a device, the next one on its way while one is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from sa1b_fastdecode import dispatch, fork
from sa1b_fastdecode.rle_batch import RLEBatch

__all__ = ["DevicePrefetcher"]


class DevicePrefetcher:
    """Iterate over a loader; every batch comes with its tensors and masks on a device.

    On a GPU the next batch is copied and decoded on a stream of its own while the caller works on
    the current one. So two batches are on the device, and a third while the caller's name for the
    last one still holds it: ``del batch`` at the end of the loop's body lets go of it before.

    Args:
        loader: an iterable of batches, such as a DataLoader: tensors and RLEBatches, in dicts,
            lists, tuples and named tuples of any depth. Everything else passes as it is. With
            ``pin_memory=True`` copies need no staging.
        device: where to.
        decode: True decodes every RLEBatch as ``batch.decode()`` does; a dict holds the keywords to
            call it with, such as ``{"dtype": torch.bool, "size": (1024, 1024)}``; False leaves the
            masks compressed.

    Raises (when iterated over):
        RuntimeError: nothing in this build decodes on ``device``, or this process was forked and
            ``device`` is a GPU.
        Whatever the loader raises, after the batches that came before it.

    Note:
        As a context manager it lets go of the loader's iterator, and so of its workers, at the end;
        so does the next iteration.

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
        self._iterator: _Batches | None = None

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
        self._close()

    def __iter__(self) -> Iterator[Any]:
        self._close()
        if self.device.type == "cuda":
            fork.refuse_cuda_after_fork()
            dispatch.operators("cuda")  # raises what is missing where there is no GPU
            self._iterator = _BatchesAhead(self.loader, self._place, self.device)
        else:
            self._iterator = _Batches(self.loader, self._place)
        return self._iterator

    def _close(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _place(self, value: Any) -> Any:
        # A copy to the CPU that nothing waits for would be read before it is there.
        to_gpu = self.device.type == "cuda"
        if isinstance(value, RLEBatch):
            moved = value.to(self.device, non_blocking=to_gpu)
            return moved if self._decode is None else moved.decode(**self._decode)
        if isinstance(value, Tensor):
            if to_gpu and value.is_cpu and not value.is_pinned():
                value = value.pin_memory()
            return value.to(self.device, non_blocking=to_gpu)
        return value


class _Batches:
    """An iterator over placed batches that keeps none of them, and ends when it is closed."""

    def __init__(self, loader: Iterable[Any], place: Callable[[Any], Any]) -> None:
        self._source = iter(loader)
        self._place = place

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return _map(next(self._source), self._place)

    def close(self) -> None:
        self._source = iter(())


@dataclass(frozen=True)
class _Coming:
    """A batch that the GPU is making and the event that says it is made; or why there is none."""

    batch: Any = None
    made: torch.cuda.Event | None = None
    error: Exception | None = None


class _BatchesAhead(_Batches):
    """The same on a GPU, one batch ahead."""

    def __init__(
        self, loader: Iterable[Any], place: Callable[[Any], Any], device: torch.device
    ) -> None:
        super().__init__(loader, place)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._coming: _Coming | None = None

    def __next__(self) -> Any:
        coming, self._coming = self._coming or self._start(), None
        if coming.error is not None:  # StopIteration among others
            raise coming.error
        assert coming.made is not None
        stream = torch.cuda.current_stream(self._stream.device)
        stream.wait_event(coming.made)

        def use(value: Any) -> Any:
            # Its memory belongs to the other stream, which must not reuse it before this one is
            # through with it.
            tensor = value.data if isinstance(value, RLEBatch) else value
            if isinstance(tensor, Tensor):
                tensor.record_stream(stream)
            return value

        batch = _map(coming.batch, use)
        del coming
        self._coming = self._start()
        return batch

    def close(self) -> None:
        super().close()
        self._coming = None

    def _start(self) -> _Coming:
        """Fetch the next batch and give the GPU what is to be done to it."""
        try:
            batch = next(self._source)
            # If the loader has the GPU make something, that comes first. What the caller has it do
            # to the last batch does so too, but not what is to be done to the current one.
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
            with torch.cuda.stream(self._stream):
                placed = _map(batch, self._place)
                return _Coming(placed, self._stream.record_event())
        except Exception as error:  # for the caller, when it is the turn of this batch
            return _Coming(error=error)


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to all that is no dict, list or tuple, and keep these as they are."""
    if isinstance(value, dict):
        items = copy.copy(value)  # whatever else it holds: a defaultdict, say, its default
        items.update((key, _map(item, function)) for key, item in value.items())
        return items
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(item, function) for item in value))
    if isinstance(value, list | tuple):
        return type(value)([_map(item, function) for item in value])
    return function(value)
