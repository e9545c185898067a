"""RLEBatch: many masks, compressed, in one block of bytes. The front door of the library."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import arguments, dispatch, fork, library
from sa1b_fastdecode.arguments import Int64Array
from sa1b_fastdecode.status import raise_for

# Overloads by name: looking one up costs a tenth of decoding a small mask.
_decode = torch.ops.sa1b_fastdecode.decode.default
_decode_out = torch.ops.sa1b_fastdecode.decode_out.default
_decode_bits = torch.ops.sa1b_fastdecode.decode_bits.default
_area = torch.ops.sa1b_fastdecode.area.default
_bbox = torch.ops.sa1b_fastdecode.bbox.default
_centroid = torch.ops.sa1b_fastdecode.centroid.default
_intersection = torch.ops.sa1b_fastdecode.intersection.default
_iou = torch.ops.sa1b_fastdecode.iou.default
_containment = torch.ops.sa1b_fastdecode.containment.default
_intersecting_pairs = torch.ops.sa1b_fastdecode.intersecting_pairs.default


class RLEBatch:
    """N masks as compressed COCO RLE, flat or grouped by image, on one device.

    Made by :func:`sa1b_fastdecode.pack_rles`. It is small (SA-1B: about 0.8 KB a mask), pickles to
    little more than its compressed strings, can be pinned (``DataLoader(pin_memory=True)`` does so)
    and moved, and every operator works on it. Only :meth:`copy_` changes it after it was made.

    A batch is *grouped* when it was packed from one list of masks for each image: it then knows how
    many masks each image has. Indexing and iterating always go over the masks, in order, and give
    flat batches.

    Attributes:
        data: uint8 ``(bytes,)``, the block that ``csrc/rle_format.h`` describes.
        num_masks: N, also ``len(batch)``.
        num_images: B of a grouped batch, None for a flat one.
        height, width: the largest sides of any mask (and image) in the batch, in pixels.
        uniform: whether all masks have that size.
    """

    def __init__(self, data: Tensor, num_masks: int, num_images: int | None = None) -> None:
        """Take over a block; ``pack_rles`` is what makes one from RLEs.

        Raises:
            ValueError: sizes and offsets in the block contradict one another.
        """
        library.check_data(data)
        self.data = data
        self.num_masks = num_masks
        self.num_images = num_images
        self._host_header: Tensor | None = None
        self._check_header()
        self._find_extent()

    def _check_header(self) -> None:
        words = 3 * self.num_masks + 1 + 3 * (self.num_images or 0)
        wrong = min(self.num_masks, self.num_images or 0) < 0 or 8 * words > self.data.numel()
        if not wrong:
            sizes, offsets = self.sizes.numpy(), self._offsets_array()
            sides = sizes if self.num_images is None else self._images_array()[:, 1:]
            wrong = (
                min(sizes.min(initial=0), sides.min(initial=0)) < 0
                or max(sizes.max(initial=0), sides.max(initial=0)) >= 2**32
                or bool((sizes.astype(np.uint64).prod(axis=1) >= 2**32).any())
                or offsets[0] != 8 * words
                or offsets[-1] != self.data.numel()
                or bool((offsets[1:] < offsets[:-1]).any())
            )
        if not wrong and self.num_images is not None:
            counts = self._images_array()[:, 0]
            wrong = counts.min(initial=0) < 0 or counts.sum() != self.num_masks
        if wrong:
            raise ValueError(f"data does not hold the sizes and offsets of {self.num_masks} masks")

    def _find_extent(self) -> None:
        """Note on the host what shapes depend on."""
        num_masks, num_images = self.num_masks, self.num_images
        sizes = sides = self._header[: 2 * num_masks].numpy().reshape(-1, 2)
        self.max_masks = num_masks
        if num_images is not None:
            images = self._images_array()
            self.max_masks = int(images[:, 0].max(initial=0))
            sides = np.concatenate([sizes, images[:, 1:]])
        self.height, self.width = (int(side) for side in sides.max(axis=0, initial=0))
        self.uniform = bool((sizes == (self.height, self.width)).all())

    @classmethod
    def _known(
        cls, data: Tensor, num_masks: int, height: int, width: int, uniform: bool
    ) -> RLEBatch:
        """Make a flat batch whose largest sides are known already; saves reading them again."""
        batch = cls.__new__(cls)
        batch.data = data
        batch.num_masks = batch.max_masks = num_masks
        batch.num_images = None
        batch._host_header = None
        batch.height, batch.width, batch.uniform = height, width, uniform
        return batch

    @classmethod
    def _from_parts(
        cls,
        sizes: Int64Array,
        lengths: Int64Array,
        chunks: Iterable[bytes | memoryview],
        images: Int64Array | None = None,
    ) -> RLEBatch:
        """Lay out a block: sizes (N,2), bytes of each string (N,), the strings, images (B,3).

        The strings come in chunks of one or more, so that nobody has to join them first.
        """
        num_masks = len(sizes)
        num_images = None if images is None else len(images)
        head = 8 * (3 * num_masks + 1 + 3 * (num_images or 0))
        block = np.empty(head + int(lengths.sum()), np.uint8)
        words = block[:head].view(np.int64)
        words[: 2 * num_masks] = sizes.reshape(-1)
        offsets = words[2 * num_masks : 3 * num_masks + 1]
        offsets[0] = head
        np.cumsum(lengths, out=offsets[1:])
        offsets[1:] += head
        if images is not None:
            words[3 * num_masks + 1 :] = images.reshape(-1)
        memory, at = block.data, head
        for chunk in chunks:
            memory[at : at + len(chunk)] = chunk
            at += len(chunk)
        return cls._from_block(torch.from_numpy(block), num_masks, num_images)

    @classmethod
    def _from_block(cls, data: Tensor, num_masks: int, num_images: int | None) -> RLEBatch:
        """Take over a block that was laid out here or by a kernel; saves checking it."""
        batch = cls.__new__(cls)
        batch.data = data
        batch.num_masks, batch.num_images, batch._host_header = num_masks, num_images, None
        batch._find_extent()
        return batch

    def _with_block(self, data: Tensor, num_masks: int, max_masks: int) -> RLEBatch:
        """Make a batch of other masks whose largest sides, and images, are those of this one."""
        batch = RLEBatch.__new__(RLEBatch)
        batch.__dict__.update(
            self.__dict__,
            data=data,
            num_masks=num_masks,
            max_masks=max_masks,
            _host_header=None,
        )
        return batch

    # What it holds

    def __len__(self) -> int:
        return self.num_masks

    @property
    def device(self) -> torch.device:
        """The device that the block is on."""
        return self.data.device

    @property
    def sizes(self) -> Tensor:
        """int64 ``(N, 2)``: height and width of each mask, on the CPU."""
        return self._header[: 2 * self.num_masks].view(-1, 2).clone()

    @property
    def counts_per_image(self) -> Tensor | None:
        """int64 ``(B,)``: the number of masks of each image, on the CPU; None for a flat batch."""
        return None if self.num_images is None else self._images[:, 0].clone()

    @property
    def image_sizes(self) -> Tensor | None:
        """int64 ``(B, 2)``: height and width of each image, on the CPU; None for a flat batch."""
        return None if self.num_images is None else self._images[:, 1:].clone()

    @property
    def _header(self) -> Tensor:
        """int64 words before the strings, on the CPU whatever device the block is on."""
        if self._host_header is not None:
            return self._host_header
        words = 3 * self.num_masks + 1 + 3 * (self.num_images or 0)
        header = self.data[: 8 * words].view(torch.int64)
        if header.is_cpu:
            return header
        self._host_header = header.cpu()  # of a batch that was made on its device
        return self._host_header

    @property
    def _used(self) -> Tensor:
        """The block up to its last string; after ``copy_`` there may be bytes behind."""
        return self.data[: int(self._offsets_array()[-1])]

    @property
    def _images(self) -> Tensor:
        return self._header[3 * self.num_masks + 1 :].view(-1, 3)

    def _images_array(self) -> Int64Array:
        return self._images.numpy()

    def _offsets_array(self) -> Int64Array:
        return self._header[2 * self.num_masks : 3 * self.num_masks + 1].numpy()

    def __repr__(self) -> str:
        images = "" if self.num_images is None else f"{self.num_images} images, "
        size = (
            f"{self.height}x{self.width}" if self.uniform else f"up to {self.height}x{self.width}"
        )
        masks = "1 mask" if self.num_masks == 1 else f"{self.num_masks} masks"
        return f"RLEBatch({images}{masks}, {size}, {self.data.numel()} bytes, {self.device})"

    def __eq__(self, other: object) -> bool:
        """Whether sizes, grouping and compressed strings are all the same."""
        if not isinstance(other, RLEBatch):
            return NotImplemented
        return (
            self.num_masks == other.num_masks
            and self.num_images == other.num_images
            and torch.equal(self._used.cpu(), other._used.cpu())
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        block = self._used.cpu().numpy().tobytes()
        return _restore, (block, self.num_masks, self.num_images, str(self.device))

    # Parts and unions

    def __getitem__(self, index: Any) -> RLEBatch:
        """Return some masks as a flat batch: ``[i]`` one, ``[a:b]``, ``[indices]``, ``[bools]``."""
        if isinstance(index, slice):
            return self._take(np.arange(self.num_masks)[index])
        return self._take(arguments.as_indices(index, self.num_masks).numpy())

    def __iter__(self) -> Iterator[RLEBatch]:
        return (self[i] for i in range(self.num_masks))

    def _take(self, indices: Int64Array) -> RLEBatch:
        if not self.data.is_cpu:
            return self.cpu()._take(indices).to(self.device)
        offsets = self._offsets_array()
        begins, ends = offsets[indices], offsets[indices + 1]
        block = self.data.numpy().data
        if len(indices) > 1 and (begins[1:] == ends[:-1]).all():
            chunks = [block[begins[0] : ends[-1]]]
        else:
            chunks = [block[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        return self._from_parts(self.sizes.numpy()[indices], ends - begins, chunks)

    def flat(self) -> RLEBatch:
        """Return the same masks without their grouping by image."""
        return self if self.num_images is None else self[:]

    @staticmethod
    def cat(batches: Iterable[RLEBatch]) -> RLEBatch:
        """Join batches: all flat, or all grouped (their images then follow one another).

        Raises:
            ValueError: some are flat and some are grouped.
        """
        parts = list(batches)
        for part in parts:
            if not isinstance(part, RLEBatch):
                raise TypeError(f"cat takes RLEBatches, not {type(part).__name__}")
        if len({part.num_images is None for part in parts}) > 1:
            raise ValueError(
                "cannot join flat and grouped batches; use .flat() on the grouped ones"
            )
        if len({part.device for part in parts}) > 1:
            raise ValueError("cannot join batches on different devices")
        if parts and not parts[0].data.is_cpu:
            return RLEBatch.cat(part.cpu() for part in parts).to(parts[0].device)
        grouped = bool(parts) and parts[0].num_images is not None
        images = np.concatenate([part._images_array() for part in parts]) if grouped else None
        return RLEBatch._join(parts, images)

    @staticmethod
    def _join(parts: Sequence[RLEBatch], images: Int64Array | None) -> RLEBatch:
        offsets = [part._offsets_array() for part in parts]
        none = np.empty(0, np.int64)
        return RLEBatch._from_parts(
            np.concatenate([none.reshape(0, 2), *[part.sizes.numpy() for part in parts]]),
            np.concatenate([none, *[np.diff(part_offsets) for part_offsets in offsets]]),
            [
                part.data.numpy().data[int(part_offsets[0]) : int(part_offsets[-1])]
                for part, part_offsets in zip(parts, offsets, strict=True)
            ],
            images,
        )

    # Where it is

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RLEBatch:
        """Return the batch on a device, itself if it is there already. One copy of the block.

        To a GPU the copy is made from page-locked memory, on the current stream, and nothing waits
        for it.

        Raises:
            RuntimeError: nothing in this build decodes on that device; or a GPU was asked for in a
                forked process, such as a worker of a DataLoader.
        """
        target = torch.device(device)
        if target.type == "cuda":
            fork.refuse_cuda_after_fork()
            dispatch.operators("cuda")  # raises what is missing where there is no GPU
            if target.index is None:
                target = torch.device("cuda", torch.cuda.current_device())
        else:
            dispatch.operators(target.type)
        if target == self.device:
            return self
        data = self.data
        if data.is_cpu and target.type == "cuda":
            # A copy from pageable memory would wait for all that the GPU has been given to do.
            data, non_blocking = data if data.is_pinned() else data.pin_memory(), True
        return self._with_data(data.to(target, non_blocking=non_blocking))

    def copy_(self, other: RLEBatch) -> RLEBatch:
        """Overwrite the batch with another one, and return it: for replaying a CUDA graph.

        What was captured with this batch then decodes the masks of the other. The copy is made on
        the current stream and nothing waits for it.

        Args:
            other: as many masks and images, of the same largest sides, on any device; it must not
                take more bytes than this batch has (``data.numel()``).

        Raises:
            ValueError: it does not fit.
        """
        for what in ("num_masks", "num_images", "max_masks", "height", "width", "uniform"):
            mine, others = getattr(self, what), getattr(other, what)
            if mine != others:
                raise ValueError(f"{what} is {mine} here and {others} in the other batch")
        used = other._used
        if used.numel() > self.data.numel():
            raise ValueError(
                f"the other batch takes {used.numel()} bytes, this one has {self.data.numel()}"
            )
        if used.is_cpu and not self.data.is_cpu and not used.is_pinned():
            used = used.pin_memory()
        self.data[: used.numel()].copy_(used, non_blocking=True)
        self._host_header = None if self.data.is_cpu else other._header.clone()
        return self

    def cpu(self) -> RLEBatch:
        """Return the batch on the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | None = None, non_blocking: bool = False) -> RLEBatch:
        """Return the batch on a CUDA device."""
        return self.to("cuda" if device is None else f"cuda:{device}", non_blocking)

    def pin_memory(self) -> RLEBatch:
        """Return the batch in page-locked memory, from where copies to a GPU need not wait."""
        return self._with_data(self.data.pin_memory())

    def is_pinned(self) -> bool:
        """Whether the block is in page-locked memory."""
        return self.data.is_pinned()

    def _with_data(self, data: Tensor) -> RLEBatch:
        copy = RLEBatch.__new__(RLEBatch)
        # A copy of the header: a part of the block would keep all of it alive.
        header = None if data.is_cpu else self._header.clone()
        copy.__dict__.update(self.__dict__, data=data, _host_header=header)
        return copy

    # Operators

    def decode(
        self,
        *,
        dtype: torch.dtype = torch.uint8,
        out: Tensor | None = None,
        pad: arguments.Pad = False,
        size: tuple[int, int] | None = None,
        crop: Any = None,
        select: Any = None,
        num_threads: int | None = None,
    ) -> Tensor:
        """Decode into one dense tensor; see :func:`sa1b_fastdecode.decode_rle_batch`."""
        if dtype not in library.ELEMENTS:
            names = ", ".join(str(name) for name in library.ELEMENTS)
            raise ValueError(f"dtype {dtype} is not supported; choose one of {names}")
        what, shape = self._what_to_decode(pad, size, crop, select)
        threads = arguments.read_num_threads(num_threads)
        if out is None:
            decoded: Tensor = _decode(*what, shape, dtype, threads)
            return decoded
        arguments.check_out(out, shape, dtype, self.device)
        _decode_out(*what, out, threads)
        return out

    def decode_bits(
        self,
        *,
        pad: arguments.Pad = False,
        size: tuple[int, int] | None = None,
        crop: Any = None,
        select: Any = None,
        num_threads: int | None = None,
    ) -> Tensor:
        """Decode into one tensor of bits, an eighth of the memory of uint8.

        Args:
            pad, size, crop, select, num_threads: as :func:`sa1b_fastdecode.decode_rle_batch`.

        Returns:
            Tensor: uint8 ``(N, h, ceil(w / 8))``, or grouped ``(B, max N, H, ceil(W / 8))``. Column
            x is bit ``x % 8`` of byte ``x // 8``, the lowest being bit 0, as
            ``numpy.packbits(bitorder="little")`` has it; bits behind the last column are 0.

        Raises:
            As :func:`sa1b_fastdecode.decode_rle_batch`.

        Example:
            >>> import sa1b_fastdecode as fd
            >>> fd.pack_rles({"size": [2, 3], "counts": [1, 2, 3]}).decode_bits()
            tensor([[[2],
                     [1]]], dtype=torch.uint8)
        """
        what, shape = self._what_to_decode(pad, size, crop, select)
        bits: Tensor = _decode_bits(*what, shape, arguments.read_num_threads(num_threads))
        return bits

    def _what_to_decode(
        self, pad: arguments.Pad, size: tuple[int, int] | None, crop: Any, select: Any
    ) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Return the first arguments of the decoding operators, and the shape in pixels."""
        planes = windows = num_images = None
        leading: tuple[int, ...] = (self.num_masks,)
        height, width, same_size = self.height, self.width, self.uniform
        if select is not None:
            planes = arguments.as_indices(select, self.num_masks)
            leading = (planes.numel(),)
            if not self.uniform:
                height, width, same_size = arguments.extent_of(self.sizes[planes])
        elif self.num_images is not None:
            num_images = self.num_images
            leading = (num_images, self.max_masks)
        if crop is not None:
            sizes = self.sizes if planes is None else self.sizes[planes]
            windows, height, width, same_size = arguments.read_crop(crop, sizes)
            if num_images is not None:  # from one a mask to one a plane, zeros for none
                shown = arguments.planes_of_images(self._images[:, 0], self.max_masks)
                windows = torch.cat([windows, windows.new_zeros((1, 4))])[shown]
        if size is not None:
            height, width = arguments.read_size(size, "size")
        elif pad is not False:
            if pad is not True:
                height, width = arguments.read_pad(pad, height, width)
        elif not same_size and num_images is None:
            shown = self.sizes if planes is None else self.sizes[planes]
            arguments.raise_mixed_sizes(shown if windows is None else windows[:, 2:])

        what = (self.data, self.num_masks, num_images, planes, windows, size is not None)
        return what, (*leading, height, width)

    def area(self) -> Tensor:
        """Return int64 ``(N,)``: the number of pixels of each mask. Decodes nothing."""
        area: Tensor = _area(self.data, self.num_masks)
        return area

    def bbox(self) -> Tensor:
        """Return float32 ``(N, 4)``: x, y, w, h of the box around each mask, in full pixels.

        An empty mask has a box of zeros. Exact up to coordinates of 2**24. Decodes nothing.
        """
        bbox: Tensor = _bbox(self.data, self.num_masks)
        return bbox

    def centroid(self) -> Tensor:
        """Return float32 ``(N, 2)``: mean y and x of the pixel centres of each mask.

        The pixel in row y and column x has its centre at (y, x). NaN for an empty mask. The sums
        are exact; they are divided in float64 and rounded once. Decodes nothing.
        """
        centroid: Tensor = _centroid(self.data, self.num_masks)
        return centroid

    def intersection(self, other: RLEBatch) -> Tensor:
        """Return the pixels that each mask has in common with each mask of another batch.

        Args:
            other: M masks; all masks of both batches have one size. ``batch.intersection(batch)``
                takes half the work. Of a batch grouped by image, another with as many images:
                compared are the masks of the same image, which have one size in each image.

        Returns:
            Tensor: int64 ``(N, M)``. Grouped: ``(B, max N, max M)``, zeros where an image has fewer
            masks.

        Raises:
            ValueError: masks of different sizes, naming them; one batch is grouped, the other not;
                another number of images.
            TypeError: ``other`` is no RLEBatch; :func:`sa1b_fastdecode.mask_intersection` takes
                what can be packed.

        Note:
            Nothing is decoded, and time follows the pairs whose boxes meet and the columns they
            share. Exact and bit-identical on every backend. Memory: the result, 8 bytes a run (of
            masks with one run a column, as most are, 4) and 16 MB.

            In a compiled graph sizes are seen by the kernels only: on a GPU, which could not tell
            without waiting, masks of different sizes then have no pixel in common.

        Example:
            >>> import sa1b_fastdecode as fd
            >>> batch = fd.pack_rles([{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])])
            >>> batch.intersection(batch)
            tensor([[4, 1],
                    [1, 3]])
        """
        shape = self._pair_shape(other)
        intersection: Tensor = _intersection(
            self.data, self.num_masks, other.data, other.num_masks, shape
        )
        return intersection

    def iou(self, other: RLEBatch, iscrowd: Any = None) -> Tensor:
        """Return intersection over union of each mask with each mask of another batch.

        Args:
            other: as in :meth:`intersection`; in COCO's terms self are detections, other is the
                ground truth.
            iscrowd: one bool or integer for each mask of ``other``, in order, also of a grouped
                batch. Where it is not 0 the union is the area of the mask of ``self`` alone.

        Returns:
            Tensor: float32 ``(N, M)``, or grouped ``(B, max N, max M)``; 0 where the union is 0.
            Exact integers are divided in float64 and rounded once.

        Raises:
            ValueError: as in :meth:`intersection`; ``iscrowd`` of another length.
            TypeError: as in :meth:`intersection`; ``iscrowd`` holds no integers.

        Example:
            >>> import sa1b_fastdecode as fd
            >>> batch = fd.pack_rles([{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])])
            >>> batch.iou(batch, iscrowd=[False, True])
            tensor([[1.0000, 0.2500],
                    [0.1667, 1.0000]])
        """
        shape = self._pair_shape(other)
        crowd = None if iscrowd is None else arguments.read_iscrowd(iscrowd, other.num_masks)
        iou: Tensor = _iou(self.data, self.num_masks, other.data, other.num_masks, crowd, shape)
        return iou

    def containment(self, other: RLEBatch) -> Tensor:
        """Return how much of each mask of another batch lies in each mask of this one.

        ``out[i, j]`` is the intersection of ``self[i]`` and ``other[j]`` over the area of
        ``other[j]``; 0 if that is empty.

        Args:
            other: as in :meth:`intersection`.

        Returns:
            Tensor: float32 ``(N, M)``, or grouped ``(B, max N, max M)``. Exact integers are divided
            in float64 and rounded once.

        Raises:
            ValueError, TypeError: as in :meth:`intersection`.

        Example:
            >>> import sa1b_fastdecode as fd
            >>> batch = fd.pack_rles([{"size": [2, 3], "counts": c} for c in ([0, 4, 2], [3, 3])])
            >>> batch.containment(batch)
            tensor([[1.0000, 0.3333],
                    [0.2500, 1.0000]])
        """
        shape = self._pair_shape(other)
        containment: Tensor = _containment(
            self.data, self.num_masks, other.data, other.num_masks, shape
        )
        return containment

    def intersecting_pairs(self, other: RLEBatch) -> tuple[Tensor, Tensor]:
        """Return only the pairs that have pixels in common: :meth:`intersection` as a sparse list.

        For many masks of which few meet, where ``(N, M)`` numbers would not fit into memory.

        Args:
            other: as in :meth:`intersection`.

        Returns:
            tuple: ``indices`` int64 ``(K, 2)``, sorted: a mask of ``self`` and one of ``other``,
            counted over all images where they are grouped; ``intersection`` int64 ``(K,)``, in
            pixels, above 0. A pair takes 24 bytes.

        Raises:
            ValueError, TypeError: as in :meth:`intersection`.

        Example:
            >>> import sa1b_fastdecode as fd
            >>> batch = fd.pack_rles([{"size": [2, 3], "counts": c} for c in ([0, 1, 5], [3, 3])])
            >>> batch.intersecting_pairs(batch)
            (tensor([[0, 0],
                    [1, 1]]), tensor([1, 3]))
        """
        self._pair_shape(other)
        indices, intersection = _intersecting_pairs(
            self.data, self.num_masks, other.data, other.num_masks, self.num_images
        )
        return indices, intersection

    def _pair_shape(self, other: RLEBatch) -> tuple[int, ...]:
        """Return the shape of what compares all masks with all of another batch, if it can be."""
        if not isinstance(other, RLEBatch):
            raise TypeError(f"other must be an RLEBatch, not {type(other).__name__}")
        if other.device != self.device:
            raise ValueError(f"the batches are on different devices, {self.device}, {other.device}")
        if (self.num_images is None) != (other.num_images is None):
            raise ValueError(
                "cannot compare a flat with a grouped batch; use .flat() on the grouped one"
            )
        if self.num_images != other.num_images:
            raise ValueError(
                f"grouped batches must have as many images, not {self.num_images} and "
                f"{other.num_images}"
            )
        same_size = (self.height, self.width) == (other.height, other.width)
        known_equal = self.uniform and other.uniform and same_size
        if not known_equal and not torch.compiler.is_compiling():  # else the kernel sees to it
            arguments.check_comparable(
                (self.sizes.numpy(), other.sizes.numpy()),
                (self._masks_of_images(), other._masks_of_images()),
            )
        if self.num_images is None:
            return self.num_masks, other.num_masks
        return self.num_images, self.max_masks, other.max_masks

    def _masks_of_images(self) -> Int64Array:
        if self.num_images is None:
            return np.array([self.num_masks])
        return self._images_array()[:, 0]

    # Masks made of masks; see sa1b_fastdecode.algebra

    def __or__(self, other: RLEBatch) -> RLEBatch:
        return self._combine("union", other)

    def __and__(self, other: RLEBatch) -> RLEBatch:
        return self._combine("intersection", other)

    def __sub__(self, other: RLEBatch) -> RLEBatch:
        return self._combine("difference", other)

    def __xor__(self, other: RLEBatch) -> RLEBatch:
        return self._combine("xor", other)

    def __invert__(self) -> RLEBatch:
        from sa1b_fastdecode import algebra

        return algebra.complement(self)

    def _combine(self, name: str, other: RLEBatch) -> RLEBatch:
        from sa1b_fastdecode import algebra

        if not isinstance(other, RLEBatch):
            return NotImplemented
        combined: RLEBatch = getattr(algebra, name)(self, other)
        return combined

    def merge(
        self, labels: Any = None, how: Literal["union", "intersection", "xor"] = "union"
    ) -> RLEBatch:
        """Make one mask of all, of each image, of each label: :func:`algebra.merge`."""
        from sa1b_fastdecode import algebra

        return algebra.merge(self, labels, how)

    def crop(self, window: Any) -> RLEBatch:
        """Cut the window ``(y, x, h, w)`` out of each mask: :func:`algebra.crop`."""
        from sa1b_fastdecode import algebra

        return algebra.crop(self, window)

    def pad(self, size: tuple[int, int] | None = None) -> RLEBatch:
        """Pad below and on the right to the largest mask, or to a size: :func:`algebra.pad`."""
        from sa1b_fastdecode import algebra

        return algebra.pad(self, size)

    def translate(self, offset: Any) -> RLEBatch:
        """Move the masks by ``(dy, dx)`` inside their size: :func:`algebra.translate`."""
        from sa1b_fastdecode import algebra

        return algebra.translate(self, offset)

    def resize(self, size: tuple[int, int]) -> RLEBatch:
        """Resize the masks to the nearest pixel: :func:`algebra.resize`."""
        from sa1b_fastdecode import algebra

        return algebra.resize(self, size)

    def flip(self, direction: Literal["horizontal", "vertical"]) -> RLEBatch:
        """Mirror the masks: :func:`algebra.flip`."""
        from sa1b_fastdecode import algebra

        return algebra.flip(self, direction)

    def rot90(self, k: int = 1) -> RLEBatch:
        """Turn the masks by ``k`` times 90 degrees counterclockwise: :func:`algebra.rot90`."""
        from sa1b_fastdecode import algebra

        return algebra.rot90(self, k)

    def to_label_map(
        self, labels: Any = None, *, on_top: Any = "smallest", background: int = 0
    ) -> Tensor:
        """Paint all masks into one map; see :func:`sa1b_fastdecode.labels.to_label_map`."""
        from sa1b_fastdecode.labels import to_label_map

        return to_label_map(self, labels, on_top=on_top, background=background)

    def sample_points(
        self,
        n: int,
        region: Literal["foreground", "background", "boundary"] = "foreground",
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw random pixels; see :func:`sa1b_fastdecode.sampling.sample_points`."""
        from sa1b_fastdecode.sampling import sample_points

        return sample_points(self, n, region, generator=generator)

    def to_coco(
        self, counts: Literal["str", "bytes", "list"] = "str"
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Return the masks as COCO RLE dicts; one list an image if the batch is grouped.

        Args:
            counts: "str" is ready for JSON, "bytes" is what pycocotools makes, "list" holds the
                plain run lengths.
        """
        sizes = self.sizes.tolist()
        if counts == "list":
            values: list[Any] = self._counts_lists()
        elif counts in ("str", "bytes"):
            block, offsets = self.data.cpu().numpy().tobytes(), self._offsets_array().tolist()
            values = [block[a:b] for a, b in itertools.pairwise(offsets)]
            if counts == "str":
                values = [value.decode("ascii") for value in values]
        else:
            raise ValueError(f"counts must be 'str', 'bytes' or 'list', not {counts!r}")
        dicts = [{"size": s, "counts": c} for s, c in zip(sizes, values, strict=True)]
        if self.num_images is None:
            return dicts
        ends = np.cumsum(self._images_array()[:, 0]).tolist()
        return [dicts[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def _counts_lists(self) -> list[list[int]]:
        data = self.data.cpu()
        offsets = np.empty(self.num_masks + 1, np.int64)
        counts = np.empty(max(data.numel(), 1), np.uint32)
        status = dispatch.kernels("cpu").decompress(
            data.data_ptr(), data.numel(), self.num_masks, counts.ctypes.data, offsets.ctypes.data
        )
        raise_for(status)
        return [
            counts[a:b].tolist()
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]


def _restore(block: bytes, num_masks: int, num_images: int | None, device: str) -> RLEBatch:
    data = torch.frombuffer(bytearray(block), dtype=torch.uint8)
    batch = RLEBatch(data, num_masks, num_images)
    return batch if device == "cpu" else batch.to(device)
