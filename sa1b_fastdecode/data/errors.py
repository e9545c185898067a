"""What is wrong with a sample, and what stands in its place when it is skipped."""

from __future__ import annotations

from dataclasses import dataclass


class SampleError(ValueError):
    """A sample is damaged. The message names the tar or folder, the member and the cause."""


@dataclass(frozen=True)
class SkippedSample:
    """Stands for a damaged sample with ``on_error="skip"``; a collate function leaves it out.

    Attributes:
        image_id: the image that is missing.
        reason: what :class:`SampleError` would have said.
    """

    image_id: str
    reason: str
