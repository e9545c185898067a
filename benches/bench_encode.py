"""Encoding dense masks, row-major and column-major."""

from .common import Case, Measure
from .peers import Contender

OPERATIONS = ("encode_rows", "encode_columns")


def test_encode(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
