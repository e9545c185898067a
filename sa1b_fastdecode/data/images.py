"""JPEGs to pixels, by simplejpeg where it is installed, else by Pillow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sa1b_fastdecode.data.errors import SampleError

if TYPE_CHECKING:
    from PIL import Image

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

__all__ = ["EncodedImage", "decode_jpeg", "resize_image", "resize_masks"]

Pixels: TypeAlias = npt.NDArray[np.uint8]


def decode_jpeg(content: bytes, out: Pixels | None = None) -> Pixels:
    """Decode a JPEG to ``uint8 (H, W, 3)``, RGB.

    Args:
        content: the file.
        out: where to decode to, contiguous and of the image's size.

    Raises:
        ValueError: it is damaged, cut off, no JPEG, or not of the size of ``out``.
        ImportError: neither simplejpeg nor Pillow is installed.
    """
    try:
        if out is None:
            return _decode(content)
        size = _parse_size(content)
        if size != out.shape[:2]:
            raise ValueError(f"it is {size[0]}x{size[1]}, not {out.shape[0]}x{out.shape[1]}")
        if simplejpeg is None:
            out[...] = _decode(content)
        else:
            simplejpeg.decode_jpeg(content, "RGB", buffer=out)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"the JPEG cannot be decoded: {error}") from None
    return out


def _decode(content: bytes) -> Pixels:
    if simplejpeg is not None:
        pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB")
        return pixels
    with _open_with_pillow(content) as image:
        return np.array(image.convert("RGB"))


def read_size(content: bytes) -> tuple[int, int]:
    """Return height and width from the head of a JPEG; raises as :func:`decode_jpeg`."""
    try:
        return _parse_size(content)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"the JPEG cannot be decoded: {error}") from None


def _parse_size(content: bytes) -> tuple[int, int]:
    if simplejpeg is not None:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    else:
        with _open_with_pillow(content) as image:
            width, height = image.size
    return height, width


def _open_with_pillow(content: bytes) -> Image.Image:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            "reading JPEGs needs simplejpeg or Pillow: pip install simplejpeg"
        ) from error
    try:
        return Image.open(io.BytesIO(content), formats=["JPEG"])
    except UnidentifiedImageError:
        raise ValueError("it is no JPEG") from None  # Pillow's message has an address in it
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``uint8 (3, H, W)`` to ``size`` (height, width), bilinear with antialiasing."""
    if tuple(image.shape[1:]) == size:
        return image
    resized: Tensor = torch.nn.functional.interpolate(
        image[None], size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0]


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize dense ``(N, H, W)`` of any dtype as ``RLEBatch.decode(size=...)`` does."""
    rows, columns = (
        (2 * torch.arange(out) + 1) * length // (2 * out)
        for length, out in zip(masks.shape[-2:], size, strict=True)
    )
    return masks[:, rows[:, None], columns]


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG on its way to a batch, where it is decoded into its place.

    Attributes:
        content: the file.
        height, width: in pixels.
        where: the tar or folder, and the member, for messages.
        skip_errors: whether a sample whose image is damaged is left out of the batch.
    """

    content: bytes
    height: int
    width: int
    where: str
    skip_errors: bool = False

    def decode(self) -> Tensor:
        """Return ``uint8 (3, H, W)``, a view of rows of RGB pixels ("channels last").

        Raises:
            SampleError: the image is damaged, or of another size than was said.
        """
        out = np.empty((self.height, self.width, 3), np.uint8)
        self.decode_into(out)
        return torch.from_numpy(out).permute(2, 0, 1)

    def decode_into(self, out: Pixels) -> None:
        """Decode into ``uint8 (H, W, 3)``; raises as :meth:`decode`."""
        try:
            if out.flags.c_contiguous:
                decode_jpeg(self.content, out)
            else:
                out[...] = decode_jpeg(self.content)
        except ValueError as error:
            raise SampleError(f"{self.where}: {error}") from None
