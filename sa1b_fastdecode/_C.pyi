"""Compiled kernels. Addresses and sizes in, status codes out; see csrc/launch.h for each array."""

from typing import Any

constants: dict[str, int]

# The CUDA kernels, where they were built: the functions of csrc/bindings_cuda.cpp.
cuda: Any

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
def paint_labels(
    data: int,
    num_bytes: int,
    num_masks: int,
    num_images: int,
    order: int,
    labels: int,
    background: int,
    out_h: int,
    out_w: int,
    out: int,
    num_threads: int,
    /,
) -> int: ...
def split_labels(
    data: int,
    num_maps: int,
    h: int,
    w: int,
    map_stride: int,
    row_stride: int,
    column_stride: int,
    item_size: int,
    is_signed: bool,
    grouped: bool,
    has_background: bool,
    background: int,
    num_threads: int,
    /,
) -> tuple[bytearray, bytearray, bytearray] | int: ...
def suppress(
    data: int,
    num_bytes: int,
    num_masks: int,
    num_images: int,
    order: int,
    labels: int,
    metric: int,
    threshold: float,
    keep: int,
    num_threads: int,
    /,
) -> int: ...
def match(
    num_pairs: int,
    num_detections: int,
    num_truths: int,
    num_thresholds: int,
    pairs: int,
    iou: int,
    order: int,
    iscrowd: int,
    ignore: int,
    thresholds: int,
    matches: int,
    /,
) -> int: ...
def boundary_area(
    data: int, num_bytes: int, num_masks: int, area: int, num_threads: int, /
) -> int: ...
def pixels_at_ranks(
    data: int,
    num_bytes: int,
    num_masks: int,
    region: int,
    ranks: int,
    num_ranks: int,
    points: int,
    num_threads: int,
    /,
) -> int: ...
def interior_points(
    data: int, num_bytes: int, num_masks: int, points: int, num_threads: int, /
) -> int: ...

# The functions behind sa1b_fastdecode.mask: None for RLEs that are not plain or not valid.
def coco_encode(masks: Any, text: bool, /) -> Any: ...
def coco_decode(rles: Any, /) -> Any: ...
def coco_area(rles: Any, /) -> Any: ...
def coco_boxes(rles: Any, /) -> Any: ...
def coco_merge(rles: Any, intersect: Any, text: bool, /) -> dict[str, Any] | None: ...
def coco_iou(rles: Any, others: Any, iscrowd: Any, /) -> Any: ...
def coco_box_iou(boxes: Any, others: Any, iscrowd: Any, /) -> Any: ...
def coco_suppress(rles: Any, order: Any, threshold: float, /) -> Any: ...
def coco_draw(polygons: Any, h: int, w: int, text: bool, /) -> list[dict[str, Any]] | None: ...
def coco_compress(rle: Any, text: bool, /) -> dict[str, Any] | None: ...
