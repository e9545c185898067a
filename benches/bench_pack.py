"""Parsing and validating what the annotations hold."""

from .common import Case, Measure
from .peers import Contender

OPERATIONS = ("pack",)


def test_pack(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
