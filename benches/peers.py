"""Who is measured: this library's backends, other libraries, and the floors.

A contender has a method for each operation that it can do. Each peer is written in the fastest way
that its interface allows, found by measuring the alternatives; the comments say which those were.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .algebra import Operation
from .face import FACE, FaceCalls
from .inputs import PAGE, WINDOW, Rle, Sample

_NUMPY_DTYPE: dict[torch.dtype, Any] = {
    torch.uint8: np.uint8,
    torch.bool: np.uint8,  # filled as bytes, then viewed as bool: no library writes bool itself
    torch.float32: np.float32,
}


def _as_tensor(masks: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.from_numpy(masks)
    return tensor.view(torch.bool) if dtype == torch.bool else tensor


class Contender:
    """One column of the tables."""

    name: str
    package: str | None = None  # distribution that must be installed
    kind = "peer"

    # The operations. A contender defines those that it takes part in.
    decode: Callable[[Sample, torch.dtype], torch.Tensor]
    decode_into: Callable[[Sample, torch.Tensor], torch.Tensor]
    decode_resized: Callable[[Sample], torch.Tensor]
    decode_cropped: Callable[[Sample], torch.Tensor]
    pack: Callable[[Sample], Any]
    area: Callable[[Any], Any]
    bbox: Callable[[Any], Any]
    area_of_dicts: Callable[[Sample], Any]
    bbox_of_dicts: Callable[[Sample], Any]
    encode: Callable[[NDArray[np.uint8]], Any]
    iou: Callable[[Any, Any], Any]
    iou_of_dicts: Callable[[Sample, Sample], Any]
    containment: Callable[[Any, Any], Any]
    algebra: Callable[[Operation, Sample], list[Rle]]

    def strings(self, encoded: Any) -> list[bytes]:
        """The compressed strings of what `encode` returned."""
        return [rle["counts"] for rle in encoded]

    def missing(self) -> str | None:
        """Why this contender cannot take part here, or None."""
        if self.package is None:
            return None
        try:
            importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return f"{self.package} is not installed"
        return None

    def active(self) -> AbstractContextManager[Any]:
        """Entered around every check and timing."""
        return contextlib.nullcontext()

    def prepare(self, sample: Sample) -> Any:
        """What a program keeps that parses a sample once and then asks several questions."""
        return sample.byte_rles


class Ours(Contender):
    kind = "ours"

    def __init__(self, backend: str, threads: int) -> None:
        self.backend, self.threads = backend, threads
        self.name = backend if threads == 1 else f"{backend}, {threads} threads"

    def missing(self) -> str | None:
        import sa1b_fastdecode as fd

        (backend,) = (backend for backend in fd.backends() if backend.name == self.backend)
        return None if backend.available else backend.detail

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        from sa1b_fastdecode import dispatch

        # What takes no number of threads itself goes by torch's.
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with dispatch.use(self.backend):
                yield
        finally:
            torch.set_num_threads(before)

    def prepare(self, sample: Sample) -> Any:
        return self.pack(sample)

    def pack(self, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.pack_rles(sample.rles)

    def decode(self, sample: Sample, dtype: torch.dtype) -> torch.Tensor:
        return self._decode(sample, dtype=dtype)

    def decode_into(self, sample: Sample, out: torch.Tensor) -> torch.Tensor:
        return self._decode(sample, dtype=out.dtype, out=out)

    def decode_resized(self, sample: Sample) -> torch.Tensor:
        return self._decode(sample, size=(WINDOW, WINDOW))

    def decode_cropped(self, sample: Sample) -> torch.Tensor:
        return self._decode(sample, crop=sample.windows)

    def _decode(self, sample: Sample, **keywords: Any) -> torch.Tensor:
        import sa1b_fastdecode as fd

        masks: torch.Tensor
        masks = fd.decode_rle_batch(sample.rles, num_threads=self.threads, **keywords)
        return masks

    def area(self, batch: Any) -> Any:
        return batch.area()

    def bbox(self, batch: Any) -> Any:
        return batch.bbox()

    def area_of_dicts(self, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.mask_area(sample.rles)

    def bbox_of_dicts(self, sample: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.mask_bbox(sample.rles)

    def encode(self, masks: NDArray[np.uint8]) -> Any:
        import sa1b_fastdecode as fd

        return fd.encode_masks(torch.from_numpy(masks), num_threads=self.threads)

    def strings(self, encoded: Any) -> list[bytes]:
        return [rle["counts"] for rle in encoded.to_coco("bytes")]

    def iou(self, batch: Any, other: Any) -> Any:
        return batch.iou(other)

    def iou_of_dicts(self, sample: Sample, other: Sample) -> Any:
        import sa1b_fastdecode as fd

        return fd.mask_iou(sample.rles, other.rles)

    def containment(self, batch: Any, other: Any) -> Any:
        return batch.containment(other)

    def algebra(self, operation: Operation, sample: Sample) -> list[Rle]:
        import sa1b_fastdecode as fd

        rles: list[Rle] = operation.ours(fd.pack_rles, sample.byte_rles).to_coco("bytes")
        return rles


class OursIou(Ours):
    """What containment is held against: it has the same intersections to find."""

    kind = "floor"

    def __init__(self) -> None:
        super().__init__("cpp", 1)
        self.name = "cpp, iou"

    def containment(self, batch: Any, other: Any) -> Any:
        return batch.iou(other)


class OursWhole(Ours):
    """Decodes whole masks where the others decode a part: what these are held against."""

    kind = "floor"

    def __init__(self) -> None:
        super().__init__("cpp", 1)
        self.name = "cpp, whole masks"

    def decode_resized(self, sample: Sample) -> torch.Tensor:
        return self.decode(sample, torch.uint8)

    decode_cropped = decode_resized


class CocoApi(FaceCalls, Contender):
    """A library with the interface of `pycocotools.mask`, which decodes to Fortran order.

    Decoding mask by mask and copying each into a row-major batch beats decoding all and permuting,
    for most by a factor of two to five, since the transposition then stays inside the cache.
    """

    def __init__(self, name: str, package: str | None, module: str) -> None:
        self.name, self.package, self._module_name = name, package, module

    @functools.cached_property
    def _mask(self) -> Any:
        return importlib.import_module(self._module_name)

    def decode(self, sample: Sample, dtype: torch.dtype) -> torch.Tensor:
        masks = np.empty(sample.shape, _NUMPY_DTYPE[dtype])
        self._fill(sample, masks)
        return _as_tensor(masks, dtype)

    def decode_into(self, sample: Sample, out: torch.Tensor) -> torch.Tensor:
        self._fill(sample, out.numpy())
        return out

    def _fill(self, sample: Sample, masks: NDArray[Any]) -> None:
        decode = self._mask.decode
        for rle, mask in zip(sample.rles, masks, strict=True):
            mask[...] = decode(rle)

    def encode(self, masks: NDArray[np.uint8]) -> Any:
        return [self._mask.encode(np.asfortranarray(mask)) for mask in masks]

    def area(self, rles: Any) -> Any:
        return self._mask.area(rles)

    def bbox(self, rles: Any) -> Any:
        return self._mask.toBbox(rles)

    def area_of_dicts(self, sample: Sample) -> Any:
        return self._mask.area(sample.rles)

    def bbox_of_dicts(self, sample: Sample) -> Any:
        return self._mask.toBbox(sample.rles)

    def iou(self, rles: Any, others: Any) -> Any:
        return self._mask.iou(rles, others, [0] * len(others))

    def iou_of_dicts(self, sample: Sample, other: Sample) -> Any:
        return self.iou(sample.rles, other.rles)

    def algebra(self, operation: Operation, sample: Sample) -> list[Rle]:
        assert operation.coco is not None
        return operation.coco(self._mask, sample.byte_rles)


class Pycocotools(CocoApi):
    """What loaders do today: decode all, bring the masks to the front, make them contiguous."""

    kind = "pycocotools"

    def __init__(self) -> None:
        super().__init__("pycocotools", "pycocotools", "pycocotools.mask")

    def decode(self, sample: Sample, dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.float32:
            decode = self._mask.decode
            return torch.stack([torch.from_numpy(decode(rle)) for rle in sample.rles]).float()
        masks = torch.from_numpy(self._mask.decode(sample.rles)).permute(2, 0, 1).contiguous()
        return masks.view(dtype)

    def decode_into(self, sample: Sample, out: torch.Tensor) -> torch.Tensor:
        return out.copy_(torch.from_numpy(self._mask.decode(sample.rles)).permute(2, 0, 1))

    def encode(self, masks: NDArray[np.uint8]) -> Any:
        return self._mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))


class Face(CocoApi):
    """This library's own module with that interface."""

    kind = "ours"

    def __init__(self) -> None:
        super().__init__(FACE, None, "sa1b_fastdecode.mask")


class Ultrafast(CocoApi):
    """Encodes a whole batch a little faster than mask by mask, from rows as from columns."""

    def __init__(self) -> None:
        name = "ultrafast-pycocotools"
        super().__init__(name, name, "ultrafast_pycocotools.mask")

    encode = Pycocotools.encode


class Hotcoco(CocoApi):
    """Reads rows, too: three times as fast as after bringing them into Fortran order."""

    def __init__(self) -> None:
        super().__init__("hotcoco", "hotcoco", "hotcoco.mask")

    def encode(self, masks: NDArray[np.uint8]) -> Any:
        return [self._mask.encode(mask) for mask in masks]


class Rlemasklib(Contender):
    """Transposes the runs, then one memset a run of a row; it leaves the background as it was.

    Fresh: `np.zeros` for the batch, so that untouched pages cost nothing (a `to_array` for each
    mask and `np.stack` take eight times as long, `torch.zeros` ten times). Reused: one memset of
    the whole buffer first; clearing mask by mask, `decode_into(mask, 1, 0)`, takes almost twice as
    long. It holds the GIL throughout, so threads do not help it.
    """

    name = "rlemasklib"
    package = "rlemasklib"

    def decode(self, sample: Sample, dtype: torch.dtype) -> torch.Tensor:
        return _as_tensor(self._decode_onto_zeros(sample, _NUMPY_DTYPE[dtype]), dtype)

    def decode_into(self, sample: Sample, out: torch.Tensor) -> torch.Tensor:
        clear(out)
        self._fill(sample, out.numpy())
        return out

    def _decode_onto_zeros(self, sample: Sample, dtype: Any) -> NDArray[Any]:
        masks = np.zeros(sample.shape, dtype)
        self._fill(sample, masks)
        return masks

    def _fill(self, sample: Sample, masks: NDArray[Any]) -> None:
        from rlemasklib import RLEMask

        for rle, mask in zip(sample.rles, masks, strict=True):
            RLEMask(rle).decode_into(mask, 1)

    def decode_cropped(self, sample: Sample) -> torch.Tensor:
        from rlemasklib import RLEMask

        crops = np.zeros((len(sample.rles), WINDOW, WINDOW), np.uint8)
        for rle, (y, x, h, w), crop in zip(sample.rles, sample.windows, crops, strict=True):
            RLEMask(rle).crop((x, y, w, h), inplace=True).decode_into(crop, 1)
        return torch.from_numpy(crops)

    def prepare(self, sample: Sample) -> Any:
        return self.pack(sample)

    def pack(self, sample: Sample) -> Any:
        from rlemasklib import RLEMask

        return [RLEMask(rle) for rle in sample.rles]

    def area(self, masks: Any) -> Any:
        return [mask.area() for mask in masks]

    def bbox(self, masks: Any) -> Any:
        return [mask.bbox() for mask in masks]

    def area_of_dicts(self, sample: Sample) -> Any:
        import rlemasklib

        return rlemasklib.area(sample.rles)

    def bbox_of_dicts(self, sample: Sample) -> Any:
        import rlemasklib

        return rlemasklib.to_bbox(sample.rles)

    def encode(self, masks: NDArray[np.uint8]) -> Any:
        # A third faster than `rlemasklib.encode`, of the masks or of the batch.
        from rlemasklib import RLEMask

        return [RLEMask.from_array(mask).to_dict() for mask in masks]

    def iou(self, masks: Any, others: Any) -> Any:
        from rlemasklib import RLEMask

        return RLEMask.iou_matrix(masks, others)

    def iou_of_dicts(self, sample: Sample, other: Sample) -> Any:
        return self.iou(self.pack(sample), self.pack(other))

    def algebra(self, operation: Operation, sample: Sample) -> list[Rle]:
        from rlemasklib import RLEMask

        masks = [RLEMask(rle) for rle in sample.byte_rles]
        return [mask.to_dict() for mask in operation.rlemasklib(masks)]


class RlemasklibAsDocumented(Rlemasklib):
    """The reused buffer the way rlemasklib's own documentation shows it."""

    name = "rlemasklib, bg_value=0"

    def decode_into(self, sample: Sample, out: torch.Tensor) -> torch.Tensor:
        from rlemasklib import RLEMask

        for rle, mask in zip(sample.rles, out.numpy(), strict=True):
            RLEMask(rle).decode_into(mask, 1, 0)
        return out


_libc = ctypes.CDLL(None)
_libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_libc.memset.restype = ctypes.c_void_p


def clear(out: torch.Tensor) -> None:
    _libc.memset(out.data_ptr(), 0, out.nbytes)


class Memset(Contender):
    """The floor of a reused buffer: every byte must be written once."""

    name = "libc memset"
    kind = "floor"

    def decode_into(self, sample: Sample, out: torch.Tensor) -> torch.Tensor:
        clear(out)
        return out


class ReadOnce(Contender):
    """The floor of encoding: every byte must be read once; here NumPy adds up 64-bit words."""

    name = "read once"
    kind = "floor"

    def encode(self, masks: NDArray[np.uint8]) -> Any:
        flat = masks if masks.flags.c_contiguous else masks.transpose(0, 2, 1)
        flat = flat.reshape(-1)
        return flat[: flat.size // 8 * 8].view(np.uint64).sum()


class TouchPages(Contender):
    """The floor of a fresh buffer: a byte in each 4 KiB page that holds foreground, or in all.

    Linux hands out fresh pages one by one or 2 MiB at a time, as the buffer asks for; which is
    cheaper depends on how scattered the masks are, so both are measured.
    """

    kind = "floor"

    def __init__(self, advice: str, everything: bool) -> None:
        self._advice, self._everything = advice, everything
        size = {"MADV_NOHUGEPAGE": "4 KiB", "MADV_HUGEPAGE": "2 MiB"}[advice]
        self.name = f"touch {'all' if everything else 'their'} pages, {size}"

    def missing(self) -> str | None:
        return None if hasattr(mmap, self._advice) else f"no {self._advice} on this system"

    def decode(self, sample: Sample, dtype: torch.dtype) -> torch.Tensor:
        pages = (sample.all_pages if self._everything else sample.foreground_pages)(dtype.itemsize)
        num_bytes = int(np.prod(sample.shape)) * dtype.itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        memory = mmap.mmap(-1, num_bytes, flags=flags)
        memory.madvise(getattr(mmap, self._advice))
        masks = np.frombuffer(memory, np.uint8)
        masks[::PAGE][pages] = 1
        return torch.from_numpy(masks)


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Ours("cpp", 1),
        Ours("cpp", 2),
        Ours("numba", 1),
        Ours("numba", 2),
        Face(),
        Pycocotools(),
        CocoApi("pycocotools, mask by mask", "pycocotools", "pycocotools.mask"),
        Rlemasklib(),
        RlemasklibAsDocumented(),
        Ultrafast(),
        Hotcoco(),
        CocoApi("faster-coco-eval", "faster-coco-eval", "faster_coco_eval.core.mask"),
        Memset(),
        ReadOnce(),
        TouchPages("MADV_NOHUGEPAGE", everything=False),
        TouchPages("MADV_HUGEPAGE", everything=False),
        TouchPages("MADV_NOHUGEPAGE", everything=True),
        TouchPages("MADV_HUGEPAGE", everything=True),
        OursWhole(),
        OursIou(),
    )
}
