"""A sample as it is kept in caches and shuffle buffers: compressed."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from sa1b_fastdecode.data.annotations import COLUMNS, Annotations, column_layout
from sa1b_fastdecode.rle_batch import RLEBatch

_HEAD = struct.Struct("<8sII6q")
_MAGIC = b"SA1B smp"
_VERSION = 1


@dataclass(frozen=True)
class CompressedSample:
    """One image as its JPEG, and its masks as runs: about 1 MB and 80 KB in SA-1B.

    Attributes:
        image_id: the stem of the file names.
        jpeg: the image file.
        annotations: all masks of the image; None where they are not wanted.
    """

    image_id: str
    jpeg: bytes
    annotations: Annotations | None

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, without Python's own."""
        return len(self.jpeg) + (self.annotations.num_bytes if self.annotations else 0)

    def to_bytes(self) -> list[bytes]:
        """Return the content of a file that holds the sample, in parts."""
        assert self.annotations is not None
        annotations = self.annotations
        name = self.image_id.encode("utf-8", "surrogateescape")
        block = annotations.masks.data.numpy().tobytes()
        columns = [annotations.columns[column].tobytes() for column in COLUMNS]
        body = [name, self.jpeg, block, *columns]
        head = _HEAD.pack(
            _MAGIC,
            _VERSION,
            _checksum(body),
            len(name),
            len(self.jpeg),
            len(block),
            len(annotations.masks),
            annotations.height,
            annotations.width,
        )
        return [head, *body]

    @classmethod
    def from_bytes(cls, content: bytes) -> CompressedSample | None:
        """Return the sample in a file; None where it holds none of this version, or is damaged."""
        if len(content) < _HEAD.size:
            return None
        magic, version, checksum, *lengths = _HEAD.unpack_from(content)
        if (magic, version) != (_MAGIC, _VERSION):
            return None
        body = memoryview(content)[_HEAD.size :]
        if _checksum([body]) != checksum:
            return None
        name_bytes, jpeg_bytes, block_bytes, num_masks, height, width = lengths
        at = name_bytes + jpeg_bytes
        block = torch.frombuffer(bytearray(body[at : at + block_bytes]), dtype=torch.uint8)
        at += block_bytes
        columns = {}
        for column, dtype, shape in column_layout(num_masks):
            array = np.frombuffer(body, dtype, int(np.prod(shape)), at).reshape(shape)
            columns[column] = array.copy()
            at += array.nbytes
        return cls(
            str(body[:name_bytes], "utf-8", "surrogateescape"),
            bytes(body[name_bytes : name_bytes + jpeg_bytes]),
            Annotations(height, width, RLEBatch(block, num_masks), columns),
        )


def _checksum(parts: list[bytes] | list[memoryview]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum
