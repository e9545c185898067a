"""Decoding to a dense (N,H,W) batch: fresh, then read, reused, resized, cropped."""

from .common import Case, Measure
from .peers import Contender

OPERATIONS = ("decode", "decode_then_read", "decode_into", "decode_resized", "decode_cropped")


def test_decode(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
