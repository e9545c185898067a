"""Compiled kernels. Addresses and sizes in, status codes out; see csrc/launch.h for each array."""

from typing import Any

constants: dict[str, int]

class ZeroPages:
    """Memory that reads as zero; supports the buffer protocol."""

    def __init__(self, num_bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def pack(rles: Any) -> tuple[bytearray, int, int, int, bool] | None: ...
def decode(
    data: int,
    num_bytes: int,
    num_masks: int,
    planes: int,
    num_planes: int,
    crops: int,
    resize: bool,
    out_h: int,
    out_w: int,
    out: int,
    item_size: int,
    one: int,
    fresh: bool,
    num_threads: int,
    /,
) -> int: ...
def regions(
    data: int,
    num_bytes: int,
    num_masks: int,
    area: int,
    bbox: int,
    centroid: int,
    num_threads: int,
    /,
) -> int: ...
def pairwise(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    num_images: int,
    rows: int,
    columns: int,
    iscrowd: int,
    kind: int,
    out: int,
    num_threads: int,
    /,
) -> int: ...
def intersecting_pairs(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    num_images: int,
    capacity: int,
    indices: int,
    intersection: int,
    num_threads: int,
    /,
) -> int: ...
def validate(data: int, num_bytes: int, num_masks: int, /) -> int: ...
def compress(
    counts: int, count_offsets: int, num_masks: int, chars: int, char_offsets: int, /
) -> None: ...
def decompress(
    data: int, num_bytes: int, num_masks: int, counts: int, count_offsets: int, /
) -> int: ...
def encode(
    data: int,
    num_masks: int,
    h: int,
    w: int,
    mask_stride: int,
    row_stride: int,
    column_stride: int,
    item_size: int,
    value_bits: int,
    num_threads: int,
    /,
) -> bytearray | None: ...
def combine(
    data: int,
    num_bytes: int,
    num_masks: int,
    other: int,
    other_bytes: int,
    num_other: int,
    kind: int,
    members: int,
    num_members: int,
    group_offsets: int,
    num_groups: int,
    images: int,
    num_images: int,
    num_threads: int,
    /,
) -> bytearray | int: ...
def place(
    data: int,
    num_bytes: int,
    num_masks: int,
    windows: int,
    sizes: int,
    images: int,
    num_images: int,
    num_threads: int,
    /,
) -> bytearray | int: ...
def turn(
    data: int,
    num_bytes: int,
    num_masks: int,
    transpose: bool,
    reverse_rows: bool,
    reverse_columns: bool,
    images: int,
    num_images: int,
    num_threads: int,
    /,
) -> bytearray | int: ...
