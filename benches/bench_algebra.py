"""Masks made of masks, from dicts to dicts."""

from .algebra import OPERATIONS as _OPERATIONS
from .common import Case, Measure
from .peers import Contender

OPERATIONS = tuple(_OPERATIONS)


def test_algebra(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
