"""The CUDA kernels in Numba: they stand in on a GPU where the compiled ones are missing.

The same results, more slowly, from kernels that are kept simple: no shared memory, nothing that the
threads of a warp do together. They take torch's tensors as they are and run on the current stream
of the device that the batch is on; nothing waits for the GPU. What has no kernel here is computed
on the CPU, which copies, and waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numba.cuda
import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import dispatch
from sa1b_fastdecode.arguments import planes_of_images
from sa1b_fastdecode.cuda import on_device_of
from sa1b_fastdecode.library import Decode
from sa1b_fastdecode.numba_cpu.decode import nearest_source
from sa1b_fastdecode.numba_cpu.regions import sum_of_range
from sa1b_fastdecode.numba_cpu.runs import next_count
from sa1b_fastdecode.status import BAD_HEADER, BAD_PLANE, INTERSECTION, IOU, MAX_PIXELS, raise_for

cuda: Any = numba.cuda  # without types

_THREADS = 128  # of a block
_FEWEST_BLOCKS = 128  # Numba warns of fewer; those with nothing to do end at once
_MOST_BLOCKS = 1 << 20

_ROWS = 32  # of one column, decoded by one thread

# The columns of the table of masks that `_parse` writes.
_BEGIN, _NUM_ENDS, _HEIGHT, _WIDTH, _AREA, _TOP, _BOTTOM, _LEFT, _RIGHT, _SUM_Y, _SUM_X = range(11)
_COLUMNS = 11

# What the kernels of the CPU know as well, compiled for the GPU.
_next_count = cuda.jit(next_count.py_func, device=True)
_sum_of_range = cuda.jit(sum_of_range.py_func, device=True)
_nearest_source = cuda.jit(nearest_source.py_func, device=True)


# Numba 0.68 fails to compile `min` and `max` for a GPU.
@cuda.jit(device=True)
def _lower(a, b):
    return a if a < b else b


@cuda.jit(device=True)
def _higher(a, b):
    return a if a > b else b


@cuda.jit
def _parse(data, header, num_masks, masks, ends):
    """A thread for each mask: its runs' ends, and what can be said of it at once."""
    for i in range(cuda.grid(1), num_masks, cuda.gridsize(1)):
        h, w = header[2 * i], header[2 * i + 1]
        at, stop = header[2 * num_masks + i], header[2 * num_masks + i + 1]
        bad = (
            at < 0
            or at > stop
            or stop > data.size
            or h < 0
            or w < 0
            or h > MAX_PIXELS
            or w > MAX_PIXELS
        )
        if bad or (w > 0 and h > MAX_PIXELS // w):  # contradicts itself: nothing may be read
            h, w, at, stop = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        begin = at
        older, newer, first = np.int64(0), np.int64(0), True
        num_ends, position = np.int64(0), np.int64(0)
        area, sum_y, sum_x = np.int64(0), np.int64(0), np.int64(0)
        top, bottom, left, right = h, np.int64(0), w, np.int64(0)
        while True:
            at, count, older, newer = _next_count(data, at, stop, older, newer, first)
            if at < 0:
                break
            first = False
            start = position
            position = _lower(position + count, h * w)
            ends[begin + num_ends] = position
            num_ends += 1
            if num_ends % 2 == 1 or position == start:  # background, or nothing
                continue
            x0, x1 = start // h, (position - 1) // h
            y0, y1 = start - x0 * h, position - 1 - x1 * h
            area += position - start
            left, right = _lower(left, x0), x1 + 1
            if x0 == x1:
                top, bottom = _lower(top, y0), _higher(bottom, y1 + 1)
                sum_y += _sum_of_range(y0, y1 + 1)
                sum_x += x0 * (y1 + 1 - y0)
            else:
                top, bottom = np.int64(0), h
                sum_y += _sum_of_range(y0, h) + _sum_of_range(np.int64(0), y1 + 1)
                sum_y += (x1 - x0 - 1) * _sum_of_range(np.int64(0), h)
                sum_x += x0 * (h - y0) + x1 * (y1 + 1) + h * _sum_of_range(x0 + 1, x1)
        if area == 0:
            top, left = np.int64(0), np.int64(0)
        masks[i, _BEGIN] = begin
        masks[i, _NUM_ENDS] = num_ends
        masks[i, _HEIGHT] = h
        masks[i, _WIDTH] = w
        masks[i, _AREA] = area
        masks[i, _TOP] = top
        masks[i, _BOTTOM] = bottom
        masks[i, _LEFT] = left
        masks[i, _RIGHT] = right
        masks[i, _SUM_Y] = sum_y
        masks[i, _SUM_X] = sum_x


@cuda.jit(device=True)
def _first_beyond(ends, begin, n, position):
    """How many of n ends are not beyond a position; if odd, its pixel is foreground."""
    low, high = np.int64(0), n
    while low < high:
        middle = (low + high) // 2
        if ends[begin + middle] > position:
            high = middle
        else:
            low = middle + 1
    return low


@cuda.jit(device=True)
def _find_window(masks, planes, crops, plane, resize, out_h, out_w):
    """What a plane shows: (mask, y, x, h, w); no rows and columns if nothing, or nothing valid."""
    i = planes[plane]
    nothing = (np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0))
    if i < 0 or i >= masks.shape[0]:
        return nothing
    y, x, h, w = np.int64(0), np.int64(0), masks[i, _HEIGHT], masks[i, _WIDTH]
    if crops.size > 0:
        y, x = crops[4 * plane], crops[4 * plane + 1]
        h, w = crops[4 * plane + 2], crops[4 * plane + 3]
        if (
            y < 0
            or x < 0
            or h < 0
            or w < 0
            or h > masks[i, _HEIGHT] - y
            or w > masks[i, _WIDTH] - x
        ):
            return nothing
    if h == 0 or w == 0 or (not resize and (h > out_h or w > out_w)):
        return nothing
    return i, y, x, h, w


@cuda.jit
def _decode(masks, ends, planes, crops, resize, one, out):
    """A thread for some rows of one column; its neighbours write the neighbouring elements."""
    num_planes, out_h, out_w = out.shape
    bands = (out_h + _ROWS - 1) // _ROWS
    for item in range(cuda.grid(1), num_planes * bands * out_w, cuda.gridsize(1)):
        column = item % out_w
        row = item // out_w % bands * _ROWS
        plane = item // (out_w * bands)
        end_row = _lower(row + _ROWS, out_h)
        i, y, x, h, w = _find_window(masks, planes, crops, plane, resize, out_h, out_w)
        shown_h, shown_w = h, w
        if resize and h > 0:
            shown_h, shown_w = out_h, out_w
        if column < shown_w:
            source = column
            if resize:
                source = _nearest_source(column, np.float32(w) / np.float32(out_w), w)
            begin, num_ends = masks[i, _BEGIN], masks[i, _NUM_ENDS]
            # Position of the window's first row in this column.
            top = (x + source) * masks[i, _HEIGHT] + y
            k = np.int64(-1)  # the run that holds the pixel; looked up once, then followed
            while row < _lower(end_row, shown_h):
                source = row
                if resize:
                    source = _nearest_source(row, np.float32(h) / np.float32(out_h), h)
                if k < 0:
                    k = _first_beyond(ends, begin, num_ends, top + source)
                while k < num_ends and ends[begin + k] <= top + source:
                    k += 1
                out[plane, row, column] = one if k % 2 == 1 else 0
                row += 1
        while row < end_row:
            out[plane, row, column] = 0
            row += 1


@cuda.jit(device=True)
def _shared_pixels(a_masks, a_ends, i, b_masks, b_ends, j):
    """Merge the ends of two masks inside the columns that both boxes have."""
    h = a_masks[i, _HEIGHT]
    left = _higher(a_masks[i, _LEFT], b_masks[j, _LEFT])
    right = _lower(a_masks[i, _RIGHT], b_masks[j, _RIGHT])
    top = _higher(a_masks[i, _TOP], b_masks[j, _TOP])
    bottom = _lower(a_masks[i, _BOTTOM], b_masks[j, _BOTTOM])
    pixels = np.int64(0)
    same_size = h == b_masks[j, _HEIGHT] and a_masks[i, _WIDTH] == b_masks[j, _WIDTH]
    if not same_size or left >= right or top >= bottom:
        return pixels
    a_begin, a_num = a_masks[i, _BEGIN], a_masks[i, _NUM_ENDS]
    b_begin, b_num = b_masks[j, _BEGIN], b_masks[j, _NUM_ENDS]
    position, last = left * h, right * h
    a = _first_beyond(a_ends, a_begin, a_num, position)
    b = _first_beyond(b_ends, b_begin, b_num, position)
    while position < last:
        next_a = a_ends[a_begin + a] if a < a_num else last
        next_b = b_ends[b_begin + b] if b < b_num else last
        stop = _lower(_lower(next_a, next_b), last)
        if a & b & 1:  # runs of odd numbers are foreground
            pixels += stop - position
        position = stop
        if next_a <= stop:
            a += 1
        if next_b <= stop:
            b += 1
    return pixels


@cuda.jit
def _compare(a_masks, a_ends, a_begins, b_masks, b_ends, b_begins, iscrowd, kind, out):
    """A thread for each pair; see Pairwise in csrc/launch.h."""
    num_images, rows, columns = out.shape
    for item in range(cuda.grid(1), num_images * rows * columns, cuda.gridsize(1)):
        column = item % columns
        row = item // columns % rows
        image = item // (columns * rows)
        i, j = a_begins[image] + row, b_begins[image] + column
        pixels = np.int64(0)
        if i < a_begins[image + 1] and j < b_begins[image + 1]:
            pixels = _shared_pixels(a_masks, a_ends, i, b_masks, b_ends, j)
        if kind == INTERSECTION or pixels == 0:
            out[image, row, column] = pixels
        else:
            divisor = b_masks[j, _AREA]
            if kind == IOU:
                divisor += a_masks[i, _AREA] - pixels
                if iscrowd.size > 0 and iscrowd[j] != 0:
                    divisor = a_masks[i, _AREA]
            out[image, row, column] = np.float32(np.float64(pixels) / np.float64(divisor))


def _launch(kernel: Any, num_items: int, *arguments: Any) -> None:
    """Run a kernel where its first argument is."""
    blocks = min(max(-(-num_items // _THREADS), _FEWEST_BLOCKS), _MOST_BLOCKS)
    with torch.cuda.device(arguments[0].device):
        stream = cuda.external_stream(torch.cuda.current_stream().cuda_stream)
        kernel[blocks, _THREADS, stream](
            *(cuda.as_cuda_array(x) if isinstance(x, Tensor) else x for x in arguments)
        )


def _read_header(data: Tensor, num_masks: int, num_images: int | None) -> Tensor:
    """Return the int64 words in front of the strings."""
    num_words = 3 * num_masks + 1 + 3 * (num_images or 0)
    if min(num_masks, num_images or 0) < 0 or 8 * num_words > data.numel():
        raise_for(BAD_HEADER)
    return data[: 8 * num_words].view(torch.int64)


def _find_runs(data: Tensor, header: Tensor, num_masks: int) -> tuple[Tensor, Tensor]:
    """Return the table of masks and the ends of their runs: no more than there are characters."""
    masks = data.new_empty((num_masks, _COLUMNS), dtype=torch.int64)
    ends = data.new_empty(data.numel(), dtype=torch.int64)
    if num_masks > 0:
        _launch(_parse, num_masks, data, header, num_masks, masks, ends)
    return masks, ends


def _masks_of_images(header: Tensor, num_masks: int) -> Tensor:
    return header[3 * num_masks + 1 :].view(-1, 3)[:, 0]


def _image_begins(header: Tensor, num_masks: int, num_images: int | None) -> Tensor:
    """Return int64 (B + 1,): how many masks come before those of each image, and all."""
    if num_images is None:
        return num_masks * torch.arange(2, device=header.device)
    begins = torch.zeros(num_images + 1, dtype=torch.int64, device=header.device)
    torch.cumsum(_masks_of_images(header, num_masks), 0, out=begins[1:])
    return begins.clamp_(0, num_masks)  # inside the batch whatever the table says


def _optional(table: Tensor | None, data: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a table where the batch is; one of nothing for None, as kernels take no None."""
    here = on_device_of(data, table)
    return data.new_empty(0, dtype=dtype) if here is None else here.view(dtype).flatten()


def _pack_bits(pixels: Tensor) -> Tensor:
    """Return eight pixels of 0 or 1 to a byte, the first in its lowest bit."""
    *rest, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (0, -width % 8))
    groups = padded.view(*rest, padded.shape[-1] // 8, 8)
    places = torch.arange(8, dtype=torch.uint8, device=pixels.device)
    return (groups << places).sum(-1, dtype=torch.uint8)


def _on_the_cpu(name: str) -> Callable[..., Any]:
    """Return an operator that copies its tensors to the CPU and its results back."""

    def run(_: Operators, first: Tensor, *arguments: Any) -> Any:
        rest = (each.cpu() if isinstance(each, Tensor) else each for each in arguments)
        result = getattr(dispatch.operators("cpu"), name)(first.cpu(), *rest)
        if isinstance(result, Tensor):
            return result.to(first.device)
        return tuple(part.to(first.device) for part in result)

    return run


class Operators:
    """The operators on tensors of a GPU, as those of ``cuda.py``."""

    def __init__(self, kernels: Any) -> None:
        pass  # they are functions of this module

    def decode(
        self, data: Tensor, num_masks: int, decode: Decode, out: Tensor | None, num_threads: int
    ) -> Tensor:
        """Decode into ``out``, or into a new tensor."""
        header = _read_header(data, num_masks, decode.num_images)
        *leading, height, _ = decode.shape
        if decode.planes is not None:
            shown = _optional(decode.planes, data, torch.int64)
        elif decode.num_images is not None:
            shown = planes_of_images(_masks_of_images(header, num_masks), leading[-1])
        else:
            shown = torch.arange(num_masks, device=data.device)
        if shown.numel() != math.prod(leading):
            raise_for(BAD_PLANE)
        item_size, one = decode.element
        pixels = out
        if pixels is None:
            pixels = data.new_empty((*leading, height, decode.width), dtype=decode.dtype)
        elements = pixels.view(
            {0: torch.uint8, 1: torch.uint8, 2: torch.int16, 4: torch.int32}[item_size]
        )
        elements = elements.view(shown.numel(), height, decode.width)
        if elements.numel() > 0:
            masks, ends = _find_runs(data, header, num_masks)
            windows = _optional(decode.crops, data, torch.int64)
            num_items = -(-elements.numel() // _ROWS)
            resize = decode.resize
            _launch(_decode, num_items, masks, ends, shown, windows, resize, one, elements)
        return pixels if item_size > 0 else _pack_bits(pixels)

    def regions(
        self,
        data: Tensor,
        num_masks: int,
        area: Tensor | None,
        bbox: Tensor | None,
        centroid: Tensor | None,
    ) -> None:
        """Write what is not None: int64 (N,), float32 (N, 4), float32 (N, 2)."""
        masks, _ = _find_runs(data, _read_header(data, num_masks, None), num_masks)
        pixels = masks[:, _AREA]
        if area is not None:
            area.copy_(pixels)
        if bbox is not None:
            bbox[:, 0], bbox[:, 2] = masks[:, _LEFT], masks[:, _RIGHT] - masks[:, _LEFT]
            bbox[:, 1], bbox[:, 3] = masks[:, _TOP], masks[:, _BOTTOM] - masks[:, _TOP]
        if centroid is not None:
            sums = masks[:, _SUM_Y:].double()  # and of x
            centroid.copy_(sums / pixels.double()[:, None])
            centroid.masked_fill_((pixels == 0)[:, None], torch.nan)

    def pairwise(
        self,
        data: Tensor,
        num_masks: int,
        other: Tensor,
        num_other: int,
        shape: Sequence[int],
        iscrowd: Tensor | None,
        kind: int,
        dtype: torch.dtype,
    ) -> Tensor:
        """Compare all pairs, of each image if the shape has three dimensions."""
        num_images = shape[0] if len(shape) == 3 else None
        sides: list[Tensor] = []
        for block, n in ((data, num_masks), (other, num_other)):
            header = _read_header(block, n, num_images)
            sides += [*_find_runs(block, header, n), _image_begins(header, n, num_images)]
        crowd = _optional(iscrowd, data, torch.uint8)
        out = data.new_empty(shape, dtype=dtype)
        if out.numel() > 0:
            pairs = out.view(-1, *shape[-2:])
            _launch(_compare, out.numel(), *sides, crowd, kind, pairs)
        return out

    # What has no kernel here.
    intersecting_pairs = _on_the_cpu("intersecting_pairs")
    encode = _on_the_cpu("encode")
    boundary_area = _on_the_cpu("boundary_area")
    pixels_at_ranks = _on_the_cpu("pixels_at_ranks")
    paint_labels = _on_the_cpu("paint_labels")
    suppress = _on_the_cpu("suppress")
    combine = _on_the_cpu("combine")
    split_labels = _on_the_cpu("split_labels")
