"""SA-1B masks at memory speed: batch decoding of COCO run-length encoding.

>>> import sa1b_fastdecode as fd
>>> fd.decode_rle_batch([{"size": [2, 3], "counts": [1, 2, 3]}])
tensor([[[0, 1, 0],
         [1, 0, 0]]], dtype=torch.uint8)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sa1b_fastdecode import algebra as algebra
    from sa1b_fastdecode import data as data
    from sa1b_fastdecode import evaluation as evaluation
    from sa1b_fastdecode import labels as labels
    from sa1b_fastdecode import mask as mask
    from sa1b_fastdecode import matching as matching
    from sa1b_fastdecode import sampling as sampling
    from sa1b_fastdecode import spatial as spatial
    from sa1b_fastdecode import visualize as visualize
    from sa1b_fastdecode.dispatch import active_backend, backends
    from sa1b_fastdecode.ops import (
        decode_rle_batch,
        encode_masks,
        mask_area,
        mask_bbox,
        mask_centroid,
        mask_containment,
        mask_intersecting_pairs,
        mask_intersection,
        mask_iou,
    )
    from sa1b_fastdecode.pack import pack_rles
    from sa1b_fastdecode.rle_batch import RLEBatch

__version__ = "0.1.0"

# Names are loaded on first use, so that importing the package costs nothing.
_HOME = {
    "RLEBatch": "rle_batch",
    "active_backend": "dispatch",
    "backends": "dispatch",
    "decode_rle_batch": "ops",
    "encode_masks": "ops",
    "mask_area": "ops",
    "mask_bbox": "ops",
    "mask_centroid": "ops",
    "mask_containment": "ops",
    "mask_intersecting_pairs": "ops",
    "mask_intersection": "ops",
    "mask_iou": "ops",
    "pack_rles": "pack",
}

# Packages and modules below this one, which are loaded in the same way.
_PACKAGES = (
    "algebra",
    "data",
    "evaluation",
    "labels",
    "mask",
    "matching",
    "sampling",
    "spatial",
    "visualize",
)

__all__ = [
    "RLEBatch",
    "__version__",
    "active_backend",
    "backends",
    "decode_rle_batch",
    "encode_masks",
    "mask_area",
    "mask_bbox",
    "mask_centroid",
    "mask_containment",
    "mask_intersecting_pairs",
    "mask_intersection",
    "mask_iou",
    "pack_rles",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
