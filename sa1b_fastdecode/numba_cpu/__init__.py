"""The CPU kernels in Numba, for machines where nothing could be compiled at installation.

Same functions, arguments and results as ``_C.pyi``; the algorithms are those of ``csrc/cpu`` and
their reasons stand there. Kernels are serial and release the GIL; threads come from Python, because
Numba's own thread pools abort when several Python threads call at once, or kill forked children.
"""

from sa1b_fastdecode.numba_cpu.algebra_sets import combine
from sa1b_fastdecode.numba_cpu.algebra_turns import turn
from sa1b_fastdecode.numba_cpu.algebra_windows import place
from sa1b_fastdecode.numba_cpu.coco import (
    coco_area,
    coco_box_iou,
    coco_boxes,
    coco_compress,
    coco_decode,
    coco_draw,
    coco_encode,
    coco_iou,
    coco_merge,
    coco_suppress,
)
from sa1b_fastdecode.numba_cpu.codec import compress, decompress, pack, validate
from sa1b_fastdecode.numba_cpu.decode import decode
from sa1b_fastdecode.numba_cpu.encode import encode
from sa1b_fastdecode.numba_cpu.labels import paint_labels, split_labels
from sa1b_fastdecode.numba_cpu.matching import match, suppress
from sa1b_fastdecode.numba_cpu.memory import ZeroPages
from sa1b_fastdecode.numba_cpu.pairwise import intersecting_pairs, pairwise
from sa1b_fastdecode.numba_cpu.regions import regions
from sa1b_fastdecode.numba_cpu.sampling import (
    boundary_area,
    interior_points,
    pixels_at_ranks,
)

__all__ = [
    "ZeroPages",
    "boundary_area",
    "coco_area",
    "coco_box_iou",
    "coco_boxes",
    "coco_compress",
    "coco_decode",
    "coco_draw",
    "coco_encode",
    "coco_iou",
    "coco_merge",
    "coco_suppress",
    "combine",
    "compress",
    "decode",
    "decompress",
    "encode",
    "interior_points",
    "intersecting_pairs",
    "match",
    "pack",
    "paint_labels",
    "pairwise",
    "pixels_at_ranks",
    "place",
    "regions",
    "split_labels",
    "suppress",
    "turn",
    "validate",
]
